//! What a client calls one of its subscriptions, where its protocol writes that into each message.

use std::sync::Arc;

/// What a protocol's codec needs to write with each message of a subscription: a name that the client chose, and perhaps
/// how the subscription wants its messages. Only the codec that made it reads it; to everybody else it is opaque, and whoever
/// holds an equal one is sent the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Label {
    /// A label of this text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
