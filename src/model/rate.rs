//! How many messages a second a subscription is sent at most. Plain data.

use std::num::NonZeroU16;

/// The highest rate that can be asked for: beyond it a browser shows nothing that it would not show without.
pub const RATE_MAX: u16 = 1_000;

/// So many messages a second: from one up to [`RATE_MAX`]. The lower is the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(NonZeroU16);

impl Rate {
    /// The rate of so many messages a second, unless they are none or too many.
    pub fn new(messages: u64) -> Option<Self> {
        let messages = u16::try_from(messages).ok().filter(|messages| *messages <= RATE_MAX)?;
        NonZeroU16::new(messages).map(Self)
    }

    /// How many messages a second.
    pub const fn messages(self) -> u32 {
        self.0.get() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_within_the_bounds_are_rates() {
        let rates = [0, 1, 1_000, 1_001, 65_537].map(|messages| Rate::new(messages).map(Rate::messages));
        assert_eq!(rates, [None, Some(1), Some(1_000), None, None]);
    }
}
