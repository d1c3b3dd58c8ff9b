//! What is known of one node's members on one pattern. The count always holds; the names may be withheld or still on their
//! way.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::presence::Member;

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Part {
    /// How many there are.
    pub(super) count: u64,
    /// Those whose names are known: connection and user.
    pub(super) names: BTreeMap<Arc<str>, Option<Arc<str>>>,
    /// Whether the names are withheld: there are, or were, too many of them.
    pub(super) withheld: bool,
    /// The account that named it last.
    pub(super) account: u64,
}

impl Part {
    /// Whether every member's name is known.
    pub(super) fn is_complete(&self) -> bool {
        self.names.len() as u64 == self.count
    }

    pub(super) fn members(&self) -> impl Iterator<Item = Member> {
        self.names.iter().map(|(connection, user)| Member { connection: connection.clone(), user: user.clone() })
    }
}
