//! An agenda: connections that are to be looked at at moments of their own. Each stands in it once, for the earliest moment
//! that anybody asked for; whoever is looked at then says anew when it is to be looked at again. So it is never longer than
//! there are connections, and a look that is not needed any more does no harm.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::transport::driver::rota::Ticket;

/// When to look at which connections.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// In the order of their coming.
    queue: BTreeSet<(Instant, Ticket)>,
    moments: HashMap<Ticket, Instant>,
}

impl Agenda {
    /// At this moment, unless an earlier one is noted.
    pub(super) fn set(&mut self, at: Instant, ticket: Ticket) {
        let noted = self.moments.entry(ticket).or_insert(at);
        if at < *noted {
            self.queue.remove(&(*noted, ticket));
            *noted = at;
        }
        self.queue.insert((*noted, ticket));
    }

    /// Never: the connection is gone.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        if let Some(noted) = self.moments.remove(&ticket) {
            self.queue.remove(&(noted, ticket));
        }
    }

    /// The next that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Ticket> {
        let (_, ticket) = *self.queue.first().filter(|(at, _)| *at <= now)?;
        self.forget(ticket);
        Some(ticket)
    }

    /// When the next will be due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::hub::index::SubscriberId;

    fn ticket(number: u32) -> Ticket {
        Ticket { subscriber: SubscriberId(number), generation: 0 }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(u64, u32),
        Forget(u32),
        Due(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..50, 0u32..6).prop_map(|(at, who)| Step::Set(at, who)),
            1 => (0u32..6).prop_map(Step::Forget),
            2 => (0u64..50).prop_map(Step::Due),
        ]
    }

    proptest! {
        /// Against a plain list in which everybody's earliest moment is looked for.
        #[test]
        fn everybody_comes_once_at_the_earliest_moment(steps in prop::collection::vec(step(), 0..80)) {
            let start = Instant::now();
            let at = |seconds: u64| start + Duration::from_secs(seconds);
            let (mut agenda, mut naive) = (Agenda::default(), Vec::<(u64, u32)>::new());
            for step in steps {
                match step {
                    Step::Set(seconds, who) => {
                        agenda.set(at(seconds), ticket(who));
                        let earliest = naive.iter().filter(|one| one.1 == who).map(|one| one.0).min().unwrap_or(seconds);
                        naive.retain(|one| one.1 != who);
                        naive.push((earliest.min(seconds), who));
                    }
                    Step::Forget(who) => {
                        agenda.forget(ticket(who));
                        naive.retain(|one| one.1 != who);
                    }
                    Step::Due(seconds) => {
                        let mut due: Vec<(u64, u32)> = naive.extract_if(.., |one| one.0 <= seconds).collect();
                        due.sort_unstable();
                        let found: Vec<Ticket> = std::iter::from_fn(|| agenda.due(at(seconds))).collect();
                        prop_assert_eq!(found, due.into_iter().map(|one| ticket(one.1)).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(agenda.next(), naive.iter().map(|one| at(one.0)).min());
                prop_assert_eq!(agenda.queue.len(), naive.len());
            }
        }
    }
}
