//! Seats: the bound on connections in all, taken when a socket is accepted and given back when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All seats of a server.
#[derive(Debug, Clone)]
pub(crate) struct Seats {
    taken: Arc<AtomicUsize>,
    seats_max: usize,
}

/// A place among all connections; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Seats {
    pub(crate) fn new(seats_max: usize) -> Self {
        Self { taken: Arc::default(), seats_max }
    }

    /// A seat, or nothing when the server is full.
    pub(crate) fn take(&self) -> Option<Seat> {
        let free = |taken: usize| (taken < self.seats_max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok().map(|_| Seat(self.taken.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_it_is_dropped() {
        let seats = Seats::new(2);
        let first = seats.take().unwrap();
        let second = seats.take().unwrap();
        assert!(seats.take().is_none());
        drop(first);
        assert!(seats.take().is_some());
        drop(second);
    }
}
