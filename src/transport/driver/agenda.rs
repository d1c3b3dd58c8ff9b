//! An agenda: something that is due for a connection at a time of its own. One entry a connection stands at a time, the
//! earliest that was asked for, so that what waits here is bounded by the connections; who left is skipped by the generation.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

use crate::transport::driver::rota::Ticket;

/// Deadlines in no particular order.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(Instant, Ticket)>>,
    /// When each connection is due; an entry of the heap that is not this one has been overtaken.
    due: HashMap<Ticket, Instant>,
}

impl Agenda {
    /// Has a connection come up at a time, unless it does so earlier.
    pub(super) fn set(&mut self, at: Instant, ticket: Ticket) {
        if self.due.get(&ticket).is_some_and(|earlier| *earlier <= at) {
            return;
        }
        self.due.insert(ticket, at);
        self.heap.push(Reverse((at, ticket)));
        // Overtaken entries go when they come up; not before there are as many as connections.
        if self.heap.len() > 2 * self.due.len() + 64 {
            let due = &self.due;
            self.heap.retain(|Reverse((at, ticket))| due.get(ticket) == Some(at));
        }
    }

    /// The next that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Ticket> {
        while let Some(Reverse((at, ticket))) = self.heap.peek().copied() {
            if at > now {
                return None;
            }
            self.heap.pop();
            if self.due.get(&ticket) == Some(&at) {
                self.due.remove(&ticket);
                return Some(ticket);
            }
        }
        None
    }

    /// When something may be due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Forgets a connection that is gone.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.due.remove(&ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::hub::index::SubscriberId;

    fn ticket(number: u32) -> Ticket {
        Ticket { subscriber: SubscriberId(number), generation: 0 }
    }

    proptest! {
        /// Against a plain map of the earliest time asked for.
        #[test]
        fn each_comes_up_once_at_the_earliest_time_asked_for(steps in prop::collection::vec((0..4_u8, 0..5_u32, 0..50_u64), 0..200)) {
            let start = Instant::now();
            let at = |moment: u64| start + Duration::from_secs(moment);
            let (mut agenda, mut naive) = (Agenda::default(), BTreeMap::<u32, u64>::new());
            let mut now = 0;
            for (kind, number, moment) in steps {
                match kind {
                    0 | 1 => {
                        agenda.set(at(now + moment), ticket(number));
                        let earliest = naive.entry(number).or_insert(now + moment);
                        *earliest = (*earliest).min(now + moment);
                    }
                    2 => {
                        agenda.forget(ticket(number));
                        naive.remove(&number);
                    }
                    _ => now += moment / 4,
                }
                let mut came: Vec<u32> = std::iter::from_fn(|| agenda.due(at(now))).map(|one| one.subscriber.0).collect();
                came.sort_unstable();
                let expected: Vec<u32> = naive.iter().filter(|(_, due)| **due <= now).map(|(number, _)| *number).collect();
                naive.retain(|_, due| *due > now);
                prop_assert_eq!(came, expected);
                if let Some(first) = naive.values().min() {
                    prop_assert!(agenda.next().is_some_and(|next| next <= at(*first)));
                }
                prop_assert!(agenda.heap.len() <= 2 * agenda.due.len() + 65);
            }
        }
    }
}
