//! What is known of one node's members on one pattern. The count always holds; the names may be withheld or still on their
//! way.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::presence::{Member, Names};

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

    /// Takes in what a node tells of its members' names, as far as there is room for them.
    pub(super) fn tell(&mut self, names: Names, room: usize) {
        let (joined, left) = match names {
            Names::Untold => {
                self.names.clear();
                self.withheld = true;
                return;
            }
            Names::Afresh(members) => {
                self.names.clear();
                self.withheld = false;
                (members, Vec::new())
            }
            Names::Changed { joined, left } => (joined, left),
        };
        left.iter().for_each(|connection| drop(self.names.remove(connection)));
        for Member { connection, user } in joined {
            if self.names.len() >= room && !self.names.contains_key(&connection) {
                self.withheld = true;
                break;
            }
            self.names.insert(connection, user);
        }
    }
}
