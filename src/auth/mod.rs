//! Who a client is and what it may do. For now everybody is anonymous; tokens come with issue 5.

pub mod origin;
pub mod queues;
pub mod shares;

use std::sync::Arc;

use crate::model::publication::UnixMillis;

/// Who a client is and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name; `None` for anonymous.
    pub user: Option<Arc<str>>,
    /// When its token ends.
    pub expires_at: Option<UnixMillis>,
    /// What it may do.
    pub grants: Grants,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grants {
    /// Subscribe to any pattern.
    pub subscribe: bool,
    /// Publish and call on any topic.
    pub publish: bool,
    /// Consume the queues that are open to them; see [`queues::Queues`].
    pub consume: bool,
}
