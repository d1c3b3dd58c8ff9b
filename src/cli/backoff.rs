//! Pauses between attempts: they double up to a bound, and each is spread at random so that many clients do not return at
//! once.

use std::time::Duration;

/// The pause after the first failure, before it is spread.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// No pause is longer, unless the server asks for it.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// How long to wait next.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Starts with a short pause.
    pub(super) fn new() -> Self {
        Self { next: PAUSE_FIRST }
    }

    /// Says that it went well: the next pause is short again.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// The next pause: between half and all of the doubling bound, and at least what the server asked for.
    pub(super) fn pause(&mut self, asked: Duration) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(PAUSE_MAX);
        bound.mul_f64(0.5 + fastrand::f64() / 2.0).max(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_obey_the_server() {
        let mut backoff = Backoff::new();
        let mut bound = PAUSE_FIRST;
        for _ in 0..20 {
            let pause = backoff.pause(Duration::ZERO);
            assert!(pause >= bound / 2 && pause <= bound, "{pause:?} within {bound:?}");
            bound = (bound * 2).min(PAUSE_MAX);
        }
        assert_eq!(backoff.pause(Duration::from_secs(60)), Duration::from_secs(60));
        backoff.reset();
        assert!(backoff.pause(Duration::ZERO) <= PAUSE_FIRST);
    }
}
