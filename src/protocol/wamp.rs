//! WAMP v2: lists of typed elements, in JSON, MessagePack or CBOR, one a WebSocket message, both ways.
//!
//! [`codec`] is one session's conversation, [`greeting`] how it begins, [`requests`] what a client's messages ask for, [`callee`]
//! what it offers others, [`event`] what it is sent, [`content`] what arguments are to everybody else. Below lie the messages, which know nothing of what they
//! mean: bytes become a [`value::Value`] by [`serializer`] ([`json`], [`msgpack`] and [`cbor`], the latter two over [`reader`]);
//! [`client_message`] makes of it what a client asked ([`fields`], [`options`], [`uri`]), or a [`refusal`];
//! [`router_message`] is the way back. Section names in comments are those of the WAMP specification.

mod answers;
mod callee;
mod cbor;
pub mod challenge;
pub mod client_message;
mod codec;
mod content;
mod event;
mod fields;
mod greeting;
pub mod history;
pub mod id;
mod json;
pub mod kind;
mod label;
pub mod malformed;
mod msgpack;
pub mod options;
mod reader;
pub mod reasons;
pub mod refusal;
mod requests;
pub mod router_message;
pub mod serializer;
mod time;
pub mod uri;
pub mod value;

use crate::protocol::{Failures, Labels, Message, Outbound, ProtocolId, Subprotocol, Unsent};
use codec::Wamp;
use serializer::Serializer;

/// The rows of the registry, one a serialization.
pub const SUBPROTOCOLS: [Subprotocol; 3] = [
    row(Serializer::Json, 10, |message| event::shared(Serializer::Json, message)),
    row(Serializer::MessagePack, 11, |message| event::shared(Serializer::MessagePack, message)),
    row(Serializer::Cbor, 12, |message| event::shared(Serializer::Cbor, message)),
];

const fn row(
    serializer: Serializer,
    index: u8,
    encode_message: fn(Message<'_>) -> Result<Outbound, Unsent>,
) -> Subprotocol {
    Subprotocol {
        name: serializer.name(),
        summary: "WAMP v2: publish, subscribe by URI, prefix or wildcard, call, register",
        negotiable: true,
        index: ProtocolId(index),
        failures: Failures::ToldToKnown,
        labels: Labels::Each,
        codec: match serializer {
            Serializer::Json => |_| Box::new(Wamp::new(Serializer::Json)),
            Serializer::MessagePack => |_| Box::new(Wamp::new(Serializer::MessagePack)),
            Serializer::Cbor => |_| Box::new(Wamp::new(Serializer::Cbor)),
        },
        encode_message,
    }
}

#[cfg(test)]
mod tests;
