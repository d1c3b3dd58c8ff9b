//! Why bytes are not a message: sentences that go into an `ABORT` and say what was read, in a few words.

use thiserror::Error;

use crate::protocol::json::fields::shortened;
use crate::protocol::wamp::value::{DEPTH_MAX, VALUES_MAX};

/// What is wrong with the serialization of a message (WAMP, section "Protocol Errors").
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Text where binary is spoken, or the other way round.
    #[error("{name} speaks in {expected} messages: send {expected}")]
    Frame {
        /// The subprotocol.
        name: &'static str,
        /// `text` or `binary`.
        expected: &'static str,
    },
    /// Less than was announced.
    #[error("the message ends in the middle of a value")]
    Cut,
    /// More than one value.
    #[error("the message goes on for {bytes} bytes after its end: send one list a message")]
    Trailing {
        /// How many bytes are left over.
        bytes: usize,
    },
    /// Nested too deeply.
    #[error("the message is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Too many values.
    #[error("the message holds more than {VALUES_MAX} values")]
    TooMany,
    /// A string that is no text.
    #[error("a string is not UTF-8: send bytes as binary")]
    NotUtf8,
    /// A key that is no text.
    #[error("the keys of a dict must be strings")]
    Key,
    /// A key that comes twice.
    #[error("a dict has the key {key:?} twice")]
    Repeated {
        /// The beginning of the key.
        key: String,
    },
    /// An integer or a float that nobody here could hold.
    #[error("a number does not fit into 64 bits")]
    Range,
    /// Not JSON.
    #[error("the message is not JSON: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// A MessagePack extension.
    #[error("MessagePack's extension type {kind} is not understood: send a plain value")]
    Extension {
        /// Its number.
        kind: i8,
    },
    /// A CBOR tag.
    #[error("CBOR's tag {tag} is not understood: send a plain value")]
    Tag {
        /// Its number.
        tag: u64,
    },
    /// A byte that begins no value.
    #[error("no value begins with the byte 0x{byte:02x}")]
    Byte {
        /// The byte.
        byte: u8,
    },
}

impl Malformed {
    /// A key that comes twice, quoted as far as is useful.
    pub(super) fn repeated(key: &str) -> Self {
        Self::Repeated { key: shortened(key) }
    }

    /// What a JSON parser says, as far as is useful.
    pub(super) fn json(error: &serde_json::Error) -> Self {
        Self::Json { reason: shortened(&error.to_string()) }
    }
}
