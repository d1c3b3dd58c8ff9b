//! `passerelle.v1.json`: one JSON object a text message, both ways. The words are those of contract and `docs/protocol.md`.
//!
//! Reading lies in [`decode`], of filters in [`filter`], writing in [`encode`]; how a payload is shown in [`payload`]. No session state lives here:
//! the codec has no size.

mod decode;
pub(crate) mod encode;
pub(crate) mod fields;
pub(crate) mod filter;
pub(crate) mod headers;
pub(crate) mod payload;
pub(crate) mod write;

pub use decode::{HEADERS_JSON_BYTES_MAX, ID_BYTES_MAX, TOKEN_BYTES_MAX};
pub use payload::PAYLOAD_DEPTH_MAX;

use crate::protocol::{
    Codec, Event, Failures, Fault, Incoming, Labels, Message, Outbound, ProtocolId, Said, Subprotocol, Unsent,
};

/// The row of the registry.
pub const SUBPROTOCOL: Subprotocol = Subprotocol {
    name: "passerelle.v1.json",
    summary: "JSON objects: subscribe, resume, publish, call, consume; what the JavaScript client speaks",
    negotiable: true,
    index: ProtocolId(0),
    failures: Failures::Told,
    labels: Labels::Absent,
    codec: |_| Box::new(Json),
    encode_message,
};

/// The codec.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl Codec for Json {
    fn decode(&mut self, message: Incoming<'_>) -> Result<Said, Fault> {
        decode::command(message).map(Said::Command)
    }

    fn encode(&mut self, event: &Event) -> Option<Outbound> {
        Some(Outbound::Text(encode::event(event).into()))
    }
}

fn encode_message(message: Message<'_>) -> Result<Outbound, Unsent> {
    Ok(Outbound::Text(encode::message(message.publication, message.stage).into()))
}
