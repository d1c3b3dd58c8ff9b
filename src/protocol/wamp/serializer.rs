//! The three serializations as one: a WebSocket message into a value and a list of values into a WebSocket message.

use crate::protocol::wamp::malformed::Malformed;
use crate::protocol::wamp::value::{DEPTH_MAX, JsonText, Value};
use crate::protocol::wamp::{cbor, json, msgpack};
use crate::protocol::{Incoming, Outbound};

/// How a session writes its messages (WAMP, section "WebSocket Transport").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Serializer {
    /// `wamp.2.json`, in text messages.
    Json,
    /// `wamp.2.msgpack`, in binary messages.
    MessagePack,
    /// `wamp.2.cbor`, in binary messages.
    Cbor,
}

/// Elements of a message, written but not yet framed: what many messages have in common is written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elements {
    count: usize,
    bytes: Vec<u8>,
}

impl Serializer {
    /// Every serialization.
    pub const ALL: &[Self] = &[Self::Json, Self::MessagePack, Self::Cbor];

    /// The name of its subprotocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "wamp.2.json",
            Self::MessagePack => "wamp.2.msgpack",
            Self::Cbor => "wamp.2.cbor",
        }
    }

    /// Reads one message.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub fn decode(self, message: Incoming<'_>) -> Result<Value, Malformed> {
        match (self, message) {
            (Self::Json, Incoming::Text(text)) => json::decode(text),
            (Self::MessagePack, Incoming::Binary(bytes)) => msgpack::decode(bytes),
            (Self::Cbor, Incoming::Binary(bytes)) => cbor::decode(bytes),
            (Self::Json, Incoming::Binary(_)) => Err(Malformed::Frame { name: self.name(), expected: "text" }),
            (Self::MessagePack | Self::Cbor, Incoming::Text(_)) => {
                Err(Malformed::Frame { name: self.name(), expected: "binary" })
            }
        }
    }

    /// Writes one message.
    pub fn encode(self, elements: &[Value]) -> Outbound {
        self.join(&self.elements(elements), &Elements { count: 0, bytes: Vec::new() })
    }

    /// Writes elements of a message.
    pub fn elements(self, elements: &[Value]) -> Elements {
        let mut bytes = Vec::new();
        match self {
            Self::Json => json::push_items(&mut bytes, elements, DEPTH_MAX),
            Self::MessagePack => elements.iter().for_each(|element| msgpack::push(&mut bytes, element, DEPTH_MAX)),
            Self::Cbor => elements.iter().for_each(|element| cbor::push(&mut bytes, element, DEPTH_MAX)),
        }
        Elements { count: elements.len(), bytes }
    }

    /// The message that begins and ends with these elements, both of this serialization.
    pub fn join(self, first: &Elements, last: &Elements) -> Outbound {
        // A head and a comma.
        let mut bytes = Vec::with_capacity(first.bytes.len() + last.bytes.len() + 6);
        let count = first.count + last.count;
        match self {
            Self::Json => bytes.push(b'['),
            Self::MessagePack => msgpack::push_list_head(&mut bytes, count),
            Self::Cbor => cbor::push_list_head(&mut bytes, count),
        }
        bytes.extend_from_slice(&first.bytes);
        if self == Self::Json && first.count > 0 && last.count > 0 {
            bytes.push(b',');
        }
        bytes.extend_from_slice(&last.bytes);
        match self {
            Self::Json => {
                bytes.push(b']');
                Outbound::Text(bytes.into())
            }
            Self::MessagePack | Self::Cbor => Outbound::Binary(bytes.into()),
        }
    }

    /// A JSON text as a value of a message: in JSON the text itself, numbers as they are written; else taken apart.
    /// Nothing where it is not JSON, or more than one message may hold.
    pub fn embed(self, json: &str) -> Option<Value> {
        match self {
            Self::Json => JsonText::parse(json).map(Value::Json),
            Self::MessagePack | Self::Cbor => json::decode(json).ok(),
        }
    }
}
