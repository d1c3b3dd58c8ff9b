//! What becomes of a message of a client that cannot be carried out as it is: the session ends, the request is answered
//! with an error, or, where WAMP has no answer, nobody is told.

use crate::protocol::wamp::id::Id;
use crate::protocol::wamp::kind::Kind;
use crate::protocol::wamp::malformed::Malformed;
use crate::protocol::wamp::reasons::PROTOCOL_VIOLATION;
use crate::protocol::wamp::router_message::RouterMessage;

/// Why a message is refused, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// With `ABORT`, and the session ends (WAMP, section "Protocol Errors").
    Abort {
        /// The URI of the reason.
        reason: &'static str,
        /// A sentence that says what was wrong.
        message: String,
    },
    /// With `ERROR`.
    Answer {
        /// What was asked for.
        asked: Kind,
        /// The request.
        request: Id,
        /// The URI of the error.
        reason: &'static str,
        /// A sentence that says what to do.
        message: String,
    },
    /// Not at all: the client did not ask to be told of its publication, and would take an `ERROR` for a mistake of ours
    /// (section "Publish ERROR").
    Silence {
        /// A sentence for the log.
        message: String,
    },
}

impl Refusal {
    /// Of a message that must not be.
    pub(super) fn violation(message: impl Into<String>) -> Self {
        Self::Abort { reason: PROTOCOL_VIOLATION, message: message.into() }
    }

    /// The same as a violation: where there is no `ERROR` that a client would understand.
    #[must_use]
    pub(super) fn into_violation(self) -> Self {
        match self {
            Self::Answer { message, .. } | Self::Silence { message } => Self::violation(message),
            abort @ Self::Abort { .. } => abort,
        }
    }

    /// What the client is told.
    pub fn answer(self) -> Option<RouterMessage> {
        match self {
            Self::Abort { reason, message } => Some(RouterMessage::abort(reason, &message)),
            Self::Answer { asked, request, reason, message } => {
                Some(RouterMessage::error(asked, request, reason, &message))
            }
            Self::Silence { .. } => None,
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::violation(malformed.to_string())
    }
}
