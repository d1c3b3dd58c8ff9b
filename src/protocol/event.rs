//! What clients are told, in no protocol.

use std::sync::Arc;
use std::time::Duration;

use crate::model::cursor::JointCursor;
use crate::model::delivery::{Delivery, DeliveryTag};
use crate::model::gap::GapReason;
use crate::model::label::Label;
use crate::model::outgoing::Reply;
use crate::model::presence::{Member, Roster};
use crate::model::publication::UnixMillis;
use crate::model::topic::Pattern;
use crate::protocol::{CommandId, ErrorCode};

/// What a client is told, in no protocol.
#[derive(Debug, Clone)]
pub enum Event {
    /// The session stands.
    Welcome {
        /// The id of the `connect`, if there was one.
        id: CommandId,
        /// This connection's name in logs and in the API.
        connection: Arc<str>,
        /// Name and version of the server.
        server: &'static str,
        /// Between two heartbeats.
        heartbeat: Duration,
        /// The largest message a client may send.
        message_bytes_max: usize,
        /// Who the client is; `None` for anonymous.
        user: Option<Arc<str>>,
        /// When its token ends.
        expires_at: Option<UnixMillis>,
    },
    /// Every matching message published from now on will come.
    Subscribed {
        /// The id of the subscribe.
        id: CommandId,
        /// Its pattern, canonical.
        pattern: Pattern,
        /// The position now, of every source that it reads; or, before a replay, where that begins, so that a client which
        /// keeps these loses nothing.
        cursors: JointCursor,
        /// Whether it is certain that nothing between `after` and now was or will be missed.
        resumed: bool,
    },
    /// A message of a queue that is consumed, held by this client alone.
    Delivered(Box<Delivery>),
    /// Deliveries that this client no longer holds.
    Revoked {
        /// Their tags, the oldest first.
        tags: Vec<DeliveryTag>,
    },
    /// Everything after `after` was sent.
    CaughtUp {
        /// The id of the subscribe.
        id: CommandId,
        /// Its pattern.
        pattern: Pattern,
        /// The position now, of every source that it reads.
        cursors: JointCursor,
    },
    /// Where a quiet session stands.
    Position {
        /// Of every source that it reads.
        cursors: JointCursor,
    },
    /// Something was or may have been missed.
    Gap(Gap),
    /// A source, or a queue that is consumed, has no link to the broker any more.
    Outage {
        /// Its name.
        source: Arc<str>,
    },
    /// It came back.
    Restored {
        /// Its name.
        source: Arc<str>,
    },
    /// Who is subscribed to a pattern.
    Presence {
        /// The id of the command; `None` where it comes unasked, because joins and leaves would not tell it.
        id: CommandId,
        /// The pattern, canonical.
        pattern: Pattern,
        /// Who.
        roster: Roster,
    },
    /// Somebody subscribed to a pattern.
    Joined {
        /// The pattern, canonical.
        pattern: Pattern,
        /// Who.
        member: Member,
    },
    /// Somebody is subscribed to it no more.
    Left {
        /// The pattern, canonical.
        pattern: Pattern,
        /// Who.
        member: Member,
    },
    /// The session will be closed with 1001 next.
    Goodbye {
        /// Why.
        reason: &'static str,
        /// How long to wait before connecting again.
        reconnect_in: Duration,
    },
    /// A command was done.
    Done {
        /// Its id.
        id: CommandId,
        /// For a publish: whether any queue got it.
        routed: Option<bool>,
    },
    /// The answer to a call.
    Result {
        /// Its id.
        id: CommandId,
        /// The answer.
        reply: Reply,
    },
    /// A command failed.
    Error {
        /// Its id.
        id: CommandId,
        /// Which kind of failure.
        code: ErrorCode,
        /// A sentence that says what to do.
        message: String,
    },
    /// The answer to a ping.
    Pong {
        /// Its id.
        id: CommandId,
    },
}

/// What was or may have been missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The subscription that missed it, by its pattern.
    pub pattern: Pattern,
    /// And by its label, where it has one.
    pub label: Option<Label>,
    /// The source, by name.
    pub source: Arc<str>,
    /// How many messages, when that is known.
    pub missed: Option<u64>,
    /// Why.
    pub reason: GapReason,
}
