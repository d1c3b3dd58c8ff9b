//! Connections that have something to read from the logs, and for which it is not there yet. They are asked again when the
//! source has moved for which they wait, and not before: what happens elsewhere costs nothing for them, however many they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::hub::shard::{Awaited, Reached};
use crate::model::publication::SourceId;
use crate::transport::driver::rota::Ticket;

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Awaiting {
    by_awaited: BTreeMap<(SourceId, Awaited), BTreeSet<Ticket>>,
    /// How far the sources had come when anybody was last asked.
    reached: Vec<Reached>,
}

impl Awaiting {
    /// Waits for any of these.
    pub(super) fn set(&mut self, ticket: Ticket, awaited: Vec<(SourceId, Awaited)>) {
        for one in awaited {
            self.by_awaited.entry(one).or_default().insert(ticket);
        }
    }

    /// Waits no more: it is about to be asked, or gone.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.by_awaited.retain(|_, tickets| {
            tickets.remove(&ticket);
            !tickets.is_empty()
        });
    }

    /// Who may be brought on by how far the sources have come now. To be asked before they are, so that nothing is missed that
    /// happens meanwhile.
    pub(super) fn look(&mut self, reached: Vec<Reached>) -> Vec<Ticket> {
        let before = std::mem::replace(&mut self.reached, reached);
        let is_brought = |(source, awaited): &(SourceId, Awaited)| {
            let (now, before) = (self.reached.get(source.index()), before.get(source.index()));
            now.zip(before).is_none_or(|(now, before)| now.brings(*awaited, *before))
        };
        let brought = self.by_awaited.iter().filter(|(one, _)| is_brought(one));
        brought.flat_map(|(_, tickets)| tickets).copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_awaited.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hub::index::SubscriberId;

    const SOURCES: usize = 3;

    #[derive(Debug, Clone)]
    enum Step {
        /// Is asked, and waits for these: by source, and whether for an answer.
        Wait(u32, Vec<(usize, bool)>),
        Forget(u32),
        /// One of the three numbers of a source moves.
        Move(usize, usize),
        Look,
    }

    fn step() -> impl Strategy<Value = Step> {
        let awaited = prop::collection::vec((0..SOURCES, any::<bool>()), 1..3);
        prop_oneof![
            4 => (0u32..6, awaited).prop_map(|(who, awaited)| Step::Wait(who, awaited)),
            1 => (0u32..6).prop_map(Step::Forget),
            2 => (0..SOURCES, 0usize..3).prop_map(|(source, number)| Step::Move(source, number)),
            3 => Just(Step::Look),
        ]
    }

    fn ticket(number: u32) -> Ticket {
        Ticket { subscriber: SubscriberId(number), generation: 0 }
    }

    /// A plain list: who waits for what, and how things stood when it was asked.
    #[derive(Default)]
    struct Naive {
        numbers: [[u64; 3]; SOURCES],
        waiting: Vec<(u32, (usize, bool), [u64; 3])>,
    }

    impl Naive {
        fn reached(&self) -> Vec<Reached> {
            let of_source = |[tellings, position, remade]: [u64; 3]| Reached { tellings, position, remade };
            self.numbers.iter().copied().map(of_source).collect()
        }

        fn forget(&mut self, who: u32) {
            self.waiting.retain(|(known, ..)| *known != who);
        }

        fn look(&self) -> BTreeSet<Ticket> {
            let is_brought = |(_, (source, waits_for_answer), since): &&(u32, (usize, bool), [u64; 3])| {
                let (now, number) = (self.numbers[*source], usize::from(!waits_for_answer));
                now[number] != since[number] || now[2] != since[2]
            };
            self.waiting.iter().filter(is_brought).map(|(who, ..)| ticket(*who)).collect()
        }
    }

    /// Looks, and has everybody asked who may be brought on.
    fn look(awaiting: &mut Awaiting, naive: &mut Naive) {
        let brought: BTreeSet<Ticket> = awaiting.look(naive.reached()).into_iter().collect();
        assert_eq!(brought, naive.look());
        for ticket in brought {
            awaiting.forget(ticket);
            naive.forget(ticket.subscriber.0);
        }
    }

    proptest! {
        #[test]
        fn everybody_is_brought_on_by_what_it_waits_for_and_by_nothing_else(steps in prop::collection::vec(step(), 0..80)) {
            let (mut awaiting, mut naive) = (Awaiting::default(), Naive::default());
            for step in steps {
                match step {
                    Step::Wait(who, awaited) => {
                        look(&mut awaiting, &mut naive);
                        awaiting.forget(ticket(who));
                        naive.forget(who);
                        let named = |(source, waits_for_answer): &(usize, bool)| {
                            let awaited = if *waits_for_answer { Awaited::Answer } else { Awaited::Position };
                            (SourceId(*source as u16), awaited)
                        };
                        awaiting.set(ticket(who), awaited.iter().map(named).collect());
                        naive.waiting.extend(awaited.iter().map(|one| (who, *one, naive.numbers[one.0])));
                    }
                    Step::Forget(who) => {
                        awaiting.forget(ticket(who));
                        naive.forget(who);
                    }
                    Step::Move(source, number) => naive.numbers[source][number] += 1,
                    Step::Look => look(&mut awaiting, &mut naive),
                }
                prop_assert_eq!(awaiting.is_empty(), naive.waiting.is_empty());
            }
        }
    }
}
