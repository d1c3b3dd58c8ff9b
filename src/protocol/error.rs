//! What goes wrong: the codes of errors, and what a codec makes of something that it cannot read.

use crate::model::close::CloseReason;
use crate::model::topic::{Pattern, Topic};
use crate::protocol::CommandId;

/// Codes of errors; the fixed list of `docs/protocol.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not a message of this protocol.
    BadMessage,
    /// An `op` that this server does not know.
    UnknownOp,
    /// A field is missing or has the wrong form.
    BadField,
    /// Known, but not offered by this server.
    Unsupported,
    /// First say who you are.
    Unauthenticated,
    /// Not allowed.
    Forbidden,
    /// A limit of this server.
    Limit,
    /// There is no such source, subscription or queue.
    NotFound,
    /// No queue got the message.
    Unroutable,
    /// The broker refused.
    Refused,
    /// Somebody else consumes the queue, and one of the two would be alone.
    InUse,
    /// The broker is away or blocked.
    Unavailable,
    /// Nobody answered in time.
    Timeout,
    /// This client does not hold such a delivery.
    StaleTag,
}

/// What a codec makes of something that it cannot read.
#[derive(Debug)]
pub enum Fault {
    /// Answer with an error and go on.
    Reply {
        /// The id, where one could be read.
        id: CommandId,
        /// Which kind.
        code: ErrorCode,
        /// A sentence that says what to do.
        message: String,
    },
    /// End the session.
    Close {
        /// The ending.
        reason: CloseReason,
        /// A sentence of at most 123 bytes.
        detail: &'static str,
    },
}

impl ErrorCode {
    /// Every code.
    pub const ALL: &[Self] = &[
        Self::BadMessage,
        Self::UnknownOp,
        Self::BadField,
        Self::Unsupported,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::Limit,
        Self::NotFound,
        Self::Unroutable,
        Self::Refused,
        Self::InUse,
        Self::Unavailable,
        Self::Timeout,
        Self::StaleTag,
    ];

    /// As it is written on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadMessage => "bad_message",
            Self::UnknownOp => "unknown_op",
            Self::BadField => "bad_field",
            Self::Unsupported => "unsupported",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Limit => "limit",
            Self::NotFound => "not_found",
            Self::Unroutable => "unroutable",
            Self::Refused => "refused",
            Self::InUse => "in_use",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::StaleTag => "stale_tag",
        }
    }
}

/// A topic from what a client wrote, or the fault that names the field.
///
/// # Errors
/// A [`Fault::Reply`] with [`ErrorCode::BadField`].
pub fn topic_field(id: &CommandId, field: &str, text: &str) -> Result<Topic, Fault> {
    Topic::parse(text).map_err(|error| bad_field(id, format!("{field} {error}")))
}

/// A pattern likewise.
///
/// # Errors
/// A [`Fault::Reply`] with [`ErrorCode::BadField`].
pub fn pattern_field(id: &CommandId, field: &str, text: &str) -> Result<Pattern, Fault> {
    Pattern::parse(text).map_err(|error| bad_field(id, format!("{field} {error}")))
}

/// A fault about one field.
pub fn bad_field(id: &CommandId, message: String) -> Fault {
    Fault::Reply { id: id.clone(), code: ErrorCode::BadField, message }
}
