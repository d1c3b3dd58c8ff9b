//! Who listens to what, and what nodes tell each other of it. Plain data.

use std::sync::Arc;

use crate::model::topic::Pattern;

/// One connection that is subscribed to a pattern. A user with two connections is two members.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// The connection's name.
    pub connection: Arc<str>,
    /// Whose it is; `None` for anonymous.
    pub user: Option<Arc<str>>,
}

/// Bytes of the names in a member that is remembered: a longer one is counted and not named.
pub const MEMBER_BYTES_MAX: usize = 1024;

impl Member {
    /// Bytes of its names.
    pub fn bytes(&self) -> usize {
        self.connection.len() + self.user.as_deref().map_or(0, str::len)
    }
}

/// Who is subscribed to one pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// How many.
    pub count: u64,
    /// Who, in order; `None` where they are too many to be named.
    pub members: Option<Arc<[Member]>>,
}

/// A node, by a number that it draws at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// Whom a node asks for all its members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Question {
    /// Nobody.
    #[default]
    Nobody,
    /// These.
    Nodes(Vec<NodeId>),
    /// Everybody.
    Everybody,
}

/// What a node tells all others at once. Without entries it is a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bulletin {
    /// Who tells it.
    pub node: NodeId,
    /// One more than in its last, so that a bulletin which is lost is noticed.
    pub number: u64,
    /// What has changed, and pieces of a whole account.
    pub entries: Vec<Entry>,
    /// Whether a whole account of its members begins with this.
    pub begins: bool,
    /// Whether a whole account ends with this: what it did not name is gone.
    pub ends: bool,
    /// Who is to give a whole account.
    pub question: Question,
    /// Whether the node stops, and its members are gone.
    pub farewell: bool,
}

/// What a node tells of one pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The pattern.
    pub pattern: Pattern,
    /// How many of its members are on that node; whatever else is known, this holds.
    pub count: u64,
    /// Who they are.
    pub names: Names,
}

/// Who a node's members on one pattern are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Too many to be named.
    Untold,
    /// These, and those of the entries that follow.
    Afresh(Vec<Member>),
    /// As it was, with these differences.
    Changed {
        /// Who is there.
        joined: Vec<Member>,
        /// Who is not, by connection.
        left: Vec<Arc<str>>,
    },
}
