//! Plain data that every other room shares: topics and patterns, publications and their cursors,
//! what becomes of messages for slow readers and at what rate they come, what subscriptions and events are called, values of
//! AMQP headers and filters on them, what goes up to the broker, what clients
//! consume, who listens to what, why something was missed, and the table of endings.
//!
//! Nothing here does I/O, reads a clock or names a protocol.

pub mod close;
pub mod cursor;
pub mod delivery;
pub mod event_names;
pub mod filter;
pub mod flow;
pub mod gap;
pub mod label;
pub mod outgoing;
pub mod presence;
pub mod publication;
pub mod queue;
pub mod rate;
pub mod selector;
pub mod stream;
pub mod topic;
pub mod value;
