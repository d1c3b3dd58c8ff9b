//! The hub decides who gets what. It knows topics, positions and subscribers, and nothing of sockets, subprotocols or HTTP.
//!
//! The way of a message: a source appends drafts to its [`feed::Feed`], which gives them positions in the source's
//! [`log`]; every [`shard`] reads on from the log in turns, matches with its [`index`], and notes in a [`turn`] what each
//! subscriber is to be sent. What patterns anybody wants stands in [`interest`], which sources turn into bindings.
//! What goes up to the broker passes through [`upstream`]; who listens to what, on all nodes, stands in [`presence`].

pub mod archive;
pub mod feed;
pub mod index;
pub mod interest;
pub mod log;
pub mod outbox;
pub mod shard;
mod matcher;
pub mod presence;
mod trie;
pub mod turn;
pub mod upstream;
