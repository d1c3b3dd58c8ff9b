//! A bucket of tokens: how many messages may be sent now, and when some may be sent again. Time comes in as an argument.
//!
//! It fills at the rate of its subscription and holds what comes in a tenth of a second, so that a wake-up that is a little
//! late costs nothing of the rate, and no second has more than a tenth beyond it.

use std::time::{Duration, Instant};

use crate::model::rate::Rate;

/// A full bucket holds what comes in this part of a second, and one message at least.
const FILLS_A_SECOND: u32 = 10;

/// How often in a second an empty bucket is worth waking up for.
const WAKES_A_SECOND: u32 = 100;

const NANOS_A_SECOND: u64 = 1_000_000_000;

/// So many messages may be sent now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    rate: Rate,
    /// When it will be full, unless it is.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, full_at: None }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// How many messages may be sent.
    pub(super) fn tokens(&self, now: Instant) -> usize {
        let filled = (self.interval() * self.holds()).saturating_sub(self.lacks(now));
        (filled.as_nanos() / self.interval().as_nanos()) as usize
    }

    /// So many were sent.
    pub(super) fn take(&mut self, messages: usize, now: Instant) {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        self.full_at = now.checked_add(self.lacks(now) + self.interval() * messages);
    }

    /// When there will be enough in it to be worth waking up for.
    pub(super) fn refilled_at(&self, now: Instant) -> Instant {
        let left_empty = self.holds() - self.rate.messages().div_ceil(WAKES_A_SECOND);
        now + self.lacks(now).saturating_sub(self.interval() * left_empty)
    }

    /// How long until it is full.
    fn lacks(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// Messages that it holds when it is full.
    fn holds(&self) -> u32 {
        self.rate.messages().div_ceil(FILLS_A_SECOND)
    }

    /// Between two messages. Rounded up, so that the rate is not exceeded.
    fn interval(&self) -> Duration {
        Duration::from_nanos(NANOS_A_SECOND.div_ceil(u64::from(self.rate.messages())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(messages: u64) -> Bucket {
        Bucket::new(Rate::new(messages).unwrap())
    }

    proptest! {
        /// Against a count of every message: between any two moments there are no more than the rate allows and a full
        /// bucket, and who asks again when told to may send.
        #[test]
        fn it_agrees_with_counting(rate in 1u64..=1_000, steps in prop::collection::vec((0u64..2_000, 0usize..40), 1..60)) {
            let (mut bucket, start) = (bucket(rate), Instant::now());
            let (mut now, mut sent) = (start, Vec::<(Instant, usize)>::new());
            let full = bucket.tokens(start);
            prop_assert_eq!(full as u64, rate.div_ceil(10));
            for (millis, wanted) in steps {
                now += Duration::from_millis(millis);
                let tokens = bucket.tokens(now);
                // What a bucket with fractions would hold, refilled from the moments of sending alone.
                let mut holds = full as f64;
                let mut at = start;
                for (then, count) in &sent {
                    holds = (holds + (*then - at).as_secs_f64() * rate as f64).min(full as f64) - *count as f64;
                    at = *then;
                }
                holds = (holds + (now - at).as_secs_f64() * rate as f64).min(full as f64);
                prop_assert!((holds - 0.001).floor() as i64 <= tokens as i64 && tokens as f64 <= holds + 0.001, "{} for {}", tokens, holds);
                let count = wanted.min(tokens);
                bucket.take(count, now);
                sent.push((now, count));
                let again = bucket.refilled_at(now);
                prop_assert!(bucket.tokens(again) >= 1);
                prop_assert!(again <= now + Duration::from_secs(1));
            }
            for (first, (from, _)) in sent.iter().enumerate() {
                let mut total = 0;
                for (until, count) in &sent[first..] {
                    total += count;
                    let allowed = full as f64 + (*until - *from).as_secs_f64() * rate as f64;
                    prop_assert!(total as f64 <= allowed + 0.001, "{} of {}", total, allowed);
                }
            }
        }
    }

    #[test]
    fn a_lone_message_leaves_at_once_and_the_next_when_its_time_has_come() {
        let (mut bucket, now) = (bucket(4), Instant::now());
        assert_eq!((bucket.tokens(now), bucket.refilled_at(now)), (1, now));
        bucket.take(1, now);
        let quarter = Duration::from_millis(250);
        assert_eq!((bucket.tokens(now), bucket.refilled_at(now)), (0, now + quarter));
        assert_eq!(bucket.tokens(now + quarter - Duration::from_millis(1)), 0);
        assert_eq!(bucket.tokens(now + quarter), 1);
        assert_eq!(bucket.tokens(now + 100 * quarter), 1, "a bucket does not fill beyond its brim");
    }

    #[test]
    fn a_high_rate_wakes_up_for_several_at_a_time() {
        let (mut bucket, now) = (bucket(1_000), Instant::now());
        bucket.take(100, now);
        assert_eq!(bucket.refilled_at(now), now + Duration::from_millis(10));
        assert_eq!(bucket.tokens(now + Duration::from_millis(10)), 10);
    }
}
