//! Groups whose queues the broker may keep because of this node: whoever joined one after the other and stayed in none would
//! leave a queue for each, which collects until it expires. Time comes in as an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::model::topic::Topic;

/// See the module.
#[derive(Debug)]
pub(super) struct Groups {
    /// Those that may be without a member when one more begins.
    abandoned_max: usize,
    /// How long the broker keeps the queue of one.
    expiry: Duration,
    /// By their queues.
    known: HashMap<Topic, Group>,
}

/// Whether a group has members on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// So many.
    Joined(usize),
    /// None, and its queue is gone by then.
    AbandonedUntil(Instant),
}

/// No group may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "{0} groups have no member here any more, and RabbitMQ keeps their queues until mqtt.share_expiry has passed: take part in \
     one of them, try again later, or raise mqtt.abandoned_shares_max"
)]
pub(super) struct TooManyAbandoned(usize);

impl Groups {
    /// None is known yet.
    pub(super) fn new(abandoned_max: usize, expiry: Duration) -> Self {
        Self { abandoned_max, expiry, known: HashMap::new() }
    }

    /// A member comes.
    ///
    /// # Errors
    /// When it would begin a group, and too many are abandoned.
    pub(super) fn join(&mut self, queue: &Topic, now: Instant) -> Result<(), TooManyAbandoned> {
        self.forget(now);
        let abandoned = self.abandoned();
        match self.known.get_mut(queue) {
            Some(Group::Joined(members)) => *members += 1,
            Some(group @ Group::AbandonedUntil(_)) => *group = Group::Joined(1),
            None if abandoned >= self.abandoned_max => return Err(TooManyAbandoned(abandoned)),
            None => _ = self.known.insert(queue.clone(), Group::Joined(1)),
        }
        Ok(())
    }

    /// A member has gone.
    pub(super) fn leave(&mut self, queue: &Topic, now: Instant) {
        match self.known.get_mut(queue) {
            Some(Group::Joined(members)) if *members > 1 => *members -= 1,
            Some(group @ Group::Joined(_)) => *group = Group::AbandonedUntil(now + self.expiry),
            Some(Group::AbandonedUntil(_)) | None => {}
        }
        self.forget(now);
    }

    /// How many are without a member, as far as that was looked at.
    pub(super) fn abandoned(&self) -> usize {
        self.known.values().filter(|group| matches!(group, Group::AbandonedUntil(_))).count()
    }

    fn forget(&mut self, now: Instant) {
        self.known.retain(|_, group| !matches!(group, Group::AbandonedUntil(end) if *end <= now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(60);

    fn queue(number: usize) -> Topic {
        Topic::parse(&format!("share.g.{number}")).unwrap()
    }

    #[test]
    fn whoever_joins_one_after_the_other_is_stopped_until_those_expire() {
        let (mut groups, start) = (Groups::new(2, EXPIRY), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        for number in 0..2 {
            assert_eq!(groups.join(&queue(number), start), Ok(()));
            groups.leave(&queue(number), later(number as u64));
        }
        assert_eq!(groups.join(&queue(2), later(59)), Err(TooManyAbandoned(2)));
        assert_eq!(groups.join(&queue(2), later(60)), Ok(()), "the first is gone");
        groups.leave(&queue(2), later(60));
        assert_eq!(groups.join(&queue(3), later(60)), Err(TooManyAbandoned(2)));
        assert_eq!(groups.join(&queue(1), later(60)), Ok(()), "one that is there may be joined");
        assert_eq!(groups.join(&queue(3), later(60)), Ok(()));
    }

    #[test]
    fn a_group_with_members_is_not_abandoned() {
        let (mut groups, now) = (Groups::new(1, EXPIRY), Instant::now());
        for member in 0..3 {
            assert_eq!(groups.join(&queue(member % 2), now), Ok(()));
        }
        groups.leave(&queue(0), now);
        assert_eq!((groups.abandoned(), groups.join(&queue(2), now)), (0, Ok(())), "one is still there");
        groups.leave(&queue(0), now);
        assert_eq!(groups.abandoned(), 1);
        // Who goes twice is not counted twice.
        groups.leave(&queue(0), now);
        assert_eq!(groups.join(&queue(3), now), Err(TooManyAbandoned(1)));
    }
}
