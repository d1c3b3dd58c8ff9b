//! Publishes whose answer is remembered for a while, so that one that is repeated under the same message id is answered as
//! the first was and reaches the broker once. Pure: time comes in as an argument.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::model::outgoing::{Outgoing, PublishOutcome, Target};
use crate::model::topic::Topic;

/// What makes two publishes the same: who publishes, where to, the id that they chose, and what. Without the last, strangers
/// who all count from 1 would have each other's messages taken for repeated ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    user: Option<Arc<str>>,
    topic: Topic,
    /// A topic and a queue may have one name.
    target: Target,
    message_id: String,
    /// Of the payload.
    hash: u64,
}

impl Key {
    /// Of a publish that has a message id; an empty one is none, as in AMQP.
    pub(super) fn of(message: &Outgoing) -> Option<Self> {
        let message_id = message.message_id.clone().filter(|id| !id.is_empty())?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&message.payload);
        let Outgoing { user, topic, target, .. } = message;
        let (user, topic, target) = (user.clone(), topic.clone(), target.clone());
        Some(Self { user, topic, target, message_id, hash: hasher.finish() })
    }
}

/// What to do with a publish.
#[derive(Debug)]
pub(super) enum Claim {
    /// It is the first: publish it, and [`Repeats::settle`] it.
    First,
    /// The first is under way: its answer comes here, or nothing when it was given up.
    Second(oneshot::Receiver<PublishOutcome>),
    /// This was the answer, or is what is known.
    Answered(PublishOutcome),
}

#[derive(Debug)]
enum Entry {
    UnderWay(Vec<oneshot::Sender<PublishOutcome>>),
    /// Its client was told this; what became of it is not known yet.
    InDoubt(PublishOutcome),
    Answered(PublishOutcome),
}

/// The answers of the last while, bounded in number.
#[derive(Debug)]
pub(super) struct Repeats {
    window: Duration,
    count_max: usize,
    entries: HashMap<Key, Entry>,
    /// Answered ones, oldest first.
    ages: VecDeque<(Instant, Key)>,
}

impl Repeats {
    pub(super) fn new(window: Duration, count_max: usize) -> Self {
        Self { window, count_max, entries: HashMap::new(), ages: VecDeque::new() }
    }

    /// A publish with this key comes.
    pub(super) fn claim(&mut self, key: &Key, now: Instant) -> Claim {
        self.expire(now);
        match self.entries.get_mut(key) {
            None => {
                self.entries.insert(key.clone(), Entry::UnderWay(Vec::new()));
                Claim::First
            }
            Some(Entry::UnderWay(waiting)) => {
                let (sender, receiver) = oneshot::channel();
                waiting.push(sender);
                Claim::Second(receiver)
            }
            Some(Entry::InDoubt(outcome) | Entry::Answered(outcome)) => Claim::Answered(outcome.clone()),
        }
    }

    /// Whether the first one arrived is not known, and may be so later: until then this is what everybody is told.
    pub(super) fn doubt(&mut self, key: &Key, doubt: &PublishOutcome) {
        if let Some(entry) = self.entries.get_mut(key)
            && let Entry::UnderWay(waiting) = std::mem::replace(entry, Entry::InDoubt(doubt.clone()))
        {
            tell(waiting, doubt);
        }
    }

    /// The first one was answered, or given up. Only what reached a queue is remembered: anything else may be tried again.
    pub(super) fn settle(&mut self, key: Key, outcome: Option<&PublishOutcome>, now: Instant) {
        if let Some(Entry::UnderWay(waiting)) = self.entries.remove(&key)
            && let Some(outcome) = outcome
        {
            tell(waiting, outcome);
        }
        if let Some(outcome @ PublishOutcome::Confirmed { routed: true }) = outcome {
            self.entries.insert(key.clone(), Entry::Answered(outcome.clone()));
            self.ages.push_back((now, key));
        }
        self.expire(now);
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, key)) = self.ages.front() {
            if now.duration_since(*at) < self.window && self.ages.len() <= self.count_max {
                return;
            }
            self.entries.remove(key);
            self.ages.pop_front();
        }
    }
}

fn tell(waiting: Vec<oneshot::Sender<PublishOutcome>>, outcome: &PublishOutcome) {
    for sender in waiting {
        // Whoever repeated it may have gone.
        let _ = sender.send(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);
    const DONE: PublishOutcome = PublishOutcome::Confirmed { routed: true };

    fn key(message_id: &str) -> Key {
        Key::of(&message(message_id)).unwrap()
    }

    fn message(message_id: &str) -> Outgoing {
        let message_id = Some(message_id.into());
        Outgoing { message_id, ..Outgoing::new(Topic::parse("a").unwrap(), "x".into()) }
    }

    #[test]
    fn one_message_for_a_topic_and_for_a_queue_of_its_name_are_two() {
        let to = |target| Key::of(&Outgoing { target, ..message("m") }).unwrap();
        let (mut repeats, now) = (Repeats::new(WINDOW, 9), Instant::now());
        for target in [Target::Routed, Target::Queue] {
            assert!(matches!(repeats.claim(&to(target.clone()), now), Claim::First), "{target:?}");
            repeats.settle(to(target), Some(&DONE), now);
        }
        assert!(matches!(repeats.claim(&to(Target::Queue), now), Claim::Answered(DONE)));
    }

    #[test]
    fn a_repeated_publish_is_answered_as_the_first_was() {
        let (mut repeats, now) = (Repeats::new(WINDOW, 9), Instant::now());
        assert!(matches!(repeats.claim(&key("m"), now), Claim::First));
        let Claim::Second(mut second) = repeats.claim(&key("m"), now) else { panic!() };
        repeats.settle(key("m"), Some(&DONE), now);
        assert_eq!(second.try_recv(), Ok(DONE));
        assert!(matches!(repeats.claim(&key("m"), now), Claim::Answered(DONE)));
        assert!(matches!(repeats.claim(&key("n"), now), Claim::First));
        assert!(matches!(repeats.claim(&key("m"), now + WINDOW), Claim::First), "after the window it is a new one");
    }

    #[test]
    fn what_reached_nobody_may_be_tried_again() {
        let (mut repeats, now) = (Repeats::new(WINDOW, 9), Instant::now());
        let reached_nobody = [
            None,
            Some(PublishOutcome::Unavailable("gone".into())),
            Some(PublishOutcome::Refused("no".into())),
            Some(PublishOutcome::Confirmed { routed: false }),
        ];
        for outcome in reached_nobody {
            assert!(matches!(repeats.claim(&key("m"), now), Claim::First), "{outcome:?}");
            let Claim::Second(mut second) = repeats.claim(&key("m"), now) else { panic!() };
            repeats.settle(key("m"), outcome.as_ref(), now);
            assert_eq!(second.try_recv().ok(), outcome);
        }
    }

    #[test]
    fn only_so_many_are_remembered() {
        let (mut repeats, now) = (Repeats::new(WINDOW, 2), Instant::now());
        for message_id in ["a", "b", "c"] {
            repeats.claim(&key(message_id), now);
            repeats.settle(key(message_id), Some(&DONE), now);
        }
        assert!(matches!(repeats.claim(&key("a"), now), Claim::First));
        assert!(matches!(repeats.claim(&key("c"), now), Claim::Answered(DONE)));
    }
}
