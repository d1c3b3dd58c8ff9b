//! Ids of sessions, publications, subscriptions, registrations and requests (WAMP, section "IDs").

use std::fmt;

use crate::protocol::wamp::value::Value;

/// The largest id.
const ID_MAX: u64 = 1 << 53;

/// An integer from 1 to 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u64);

impl Id {
    /// The first of the ids that count up within a session.
    pub const FIRST: Self = Self(1);

    /// The id of this number, if it is one.
    pub const fn new(number: u64) -> Option<Self> {
        if number >= 1 && number <= ID_MAX { Some(Self(number)) } else { None }
    }

    /// An id of the global scope, as evenly distributed as the random bits that it is made of.
    pub const fn drawn(random: u64) -> Self {
        Self((random >> 11) + 1)
    }

    /// The one after it: ids within a session begin again at 1.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 % ID_MAX + 1)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl From<Id> for Value {
    fn from(id: Id) -> Self {
        Self::from(id.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_reach_from_one_to_two_to_the_53() {
        assert_eq!(Id::new(0), None);
        assert_eq!(Id::new(1), Some(Id::FIRST));
        assert_eq!(Id::new(ID_MAX).map(Id::number), Some(ID_MAX));
        assert_eq!(Id::new(ID_MAX + 1), None);
        assert_eq!(Id::drawn(0), Id::FIRST);
        assert_eq!(Id::drawn(u64::MAX).number(), ID_MAX);
        assert_eq!(Id::FIRST.next().number(), 2);
        assert_eq!(Id(ID_MAX).next(), Id::FIRST);
    }
}
