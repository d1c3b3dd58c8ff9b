//! A rota: something that comes round for each connection after the same period. Because all periods are equal, a queue
//! is already in the order of the deadlines, so that setting and taking one costs the same for one connection and for a
//! hundred thousand. Who left is skipped when its turn comes, by its generation.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::hub::index::SubscriberId;

/// A connection, and which of those that had this id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket {
    pub(super) subscriber: SubscriberId,
    pub(super) generation: u32,
}

#[cfg(test)]
impl Ticket {
    /// The first that had this id.
    pub(crate) fn of(subscriber: SubscriberId) -> Self {
        Self { subscriber, generation: 0 }
    }
}

/// Deadlines that all lie one period ahead when they are set.
#[derive(Debug)]
pub(super) struct Rota {
    period: Duration,
    queue: VecDeque<(Instant, Ticket)>,
}

impl Rota {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, queue: VecDeque::new() }
    }

    /// Comes round one period from now.
    pub(super) fn set(&mut self, now: Instant, ticket: Ticket) {
        self.queue.push_back((now + self.period, ticket));
    }

    /// The next that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Ticket> {
        self.queue.pop_front_if(|(deadline, _)| *deadline <= now).map(|(_, ticket)| ticket)
    }

    /// When the next will be due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(number: u32) -> Ticket {
        Ticket { subscriber: SubscriberId(number), generation: 0 }
    }

    #[test]
    fn deadlines_come_in_order_and_not_before_their_time() {
        let start = Instant::now();
        let mut rota = Rota::new(Duration::from_secs(10));
        rota.set(start, ticket(1));
        rota.set(start + Duration::from_secs(1), ticket(2));
        assert_eq!(rota.due(start + Duration::from_secs(9)), None);
        assert_eq!(rota.next(), Some(start + Duration::from_secs(10)));
        assert_eq!(rota.due(start + Duration::from_secs(10)), Some(ticket(1)));
        assert_eq!(rota.due(start + Duration::from_secs(10)), None);
        assert_eq!(rota.due(start + Duration::from_secs(11)), Some(ticket(2)));
        assert_eq!(rota.next(), None);
    }
}
