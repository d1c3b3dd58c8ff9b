//! Ids of sessions, publications, subscriptions, registrations and requests (WAMP, section "IDs").

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

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

    /// An id of the global scope that is made of texts: the same whenever it is made of the same ones, and as good as drawn,
    /// whoever chose them.
    pub fn of(texts: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for text in texts {
            // With their lengths, so that no two lists are written alike.
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        let hashed = digest(&SHA256, &bytes);
        Self::drawn(hashed.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Likewise one that is not taken: of two lists of texts with the same id, which nobody will live to see, the second has the
    /// next.
    pub fn free(texts: &[&str], is_taken: impl Fn(Self) -> bool) -> Self {
        let mut id = Self::of(texts);
        while is_taken(id) {
            id = id.next();
        }
        id
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

    #[test]
    fn ids_of_texts_depend_on_each_of_them() {
        assert_eq!(Id::of(&["a", "b"]), Id::of(&["a", "b"]));
        let all = [Id::of(&[]), Id::of(&[""]), Id::of(&["ab"]), Id::of(&["a", "b"]), Id::of(&["b", "a"])];
        for (position, id) in all.iter().enumerate() {
            assert!(!all[..position].contains(id));
        }
    }
}
