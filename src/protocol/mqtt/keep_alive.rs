//! Whether the client is there: something has to come within one and a half times its keep alive (MQTT 5.0 §3.1.2.10).

use std::time::{Duration, Instant};

/// Looks in a row, half a keep alive apart, that find nothing new: one and a half times the keep alive, and at most half a one more.
const SILENT_MAX: u8 = 3;

/// The clock of one connection.
#[derive(Debug, Default)]
pub(super) struct KeepAlive {
    half: Option<Duration>,
    look_at: Option<Instant>,
    silent: u8,
    heard: bool,
}

impl KeepAlive {
    /// Of a client that promises a packet so often; 0 promises nothing.
    pub(super) fn of(seconds: u16) -> Self {
        let half = (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)) / 2);
        Self { half, ..Self::default() }
    }

    /// Something came.
    pub(super) fn hear(&mut self) {
        self.heard = true;
    }

    /// Looks, when it is time to. True when the client is gone.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let Some(half) = self.half else { return false };
        if self.look_at.is_some_and(|at| at > now) {
            return false;
        }
        let is_first = self.look_at.is_none();
        self.silent = if std::mem::take(&mut self.heard) || is_first { 0 } else { self.silent + 1 };
        self.look_at = now.checked_add(half);
        self.silent >= SILENT_MAX
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.look_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_one_and_a_half_times_is_gone() {
        let (mut clock, start) = (KeepAlive::of(10), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!clock.is_over(at(0)));
        assert_eq!(clock.next(), Some(at(5)));
        assert!(!clock.is_over(at(5)) && !clock.is_over(at(10)));
        clock.hear();
        assert!(!clock.is_over(at(15)) && !clock.is_over(at(20)) && !clock.is_over(at(25)));
        assert!(!clock.is_over(at(27)), "it is not time to look");
        assert!(clock.is_over(at(30)));
    }

    #[test]
    fn who_promises_nothing_is_not_looked_for() {
        let mut clock = KeepAlive::of(0);
        assert!(!clock.is_over(Instant::now()));
        assert_eq!(clock.next(), None);
    }
}
