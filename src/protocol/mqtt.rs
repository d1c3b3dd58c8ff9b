//! MQTT 3.1 (protocol name `MQIsdp`, level 3), 3.1.1 (level 4) and 5.0 (level 5): packets as values and as bytes.
//!
//! Bytes to packets is [`reader`] (framing and limits) over `decode` and `connect` (what a packet's body says); packets to
//! bytes is [`writer`]. Both speak both ways, because `passerelle` is a client too where its command line listens. [`topic`] maps
//! names and filters to those of AMQP.
//!
//! "MQTT 5.0 §3.3.2" and the like name sections of the OASIS standards of 2014 (3.1.1) and 2019 (5.0), and of the
//! specification of 2010 by IBM and Eurotech (3.1). Numbers in brackets are the conformance statements of 5.0. Nothing of this
//! holds the state of a session.
//!
//! One session's conversation is `codec`, with `requests` for what a client's packets ask for and `message` for PUBLISH both
//! ways; `subscriptions`, `shares`, `upward` and `window` are what it remembers, `memory` what of that outlives its connection, `answers` and `label` what it gives the session to keep.

mod answers;
mod codec;
mod connect;
mod decode;
mod endings;
mod field;
mod keep_alive;
mod label;
mod memory;
mod message;
pub mod packet;
pub mod properties;
mod property;
pub mod reader;
pub mod reason;
mod requests;
mod shares;
mod subscriptions;
pub mod topic;
mod upward;
mod window;
mod wire;
pub mod writer;

use crate::protocol::{Failures, Labels, ProtocolId, Subprotocol};
use codec::Mqtt;

pub use memory::Memory;
pub use packet::{Packet, Version};
pub use reader::{Fault, Limits, Reader};
pub use reason::ReasonCode;
pub use wire::{Binary, STRING_BYTES_MAX, Text, VARIABLE_INTEGER_MAX};

/// The rows of the registry: the name that the standards demand, and that of clients of 3.1. Which version is spoken `CONNECT`
/// says.
pub const SUBPROTOCOLS: [Subprotocol; 2] = [row("mqtt", 13), row("mqttv3.1", 14)];

const fn row(name: &'static str, index: u8) -> Subprotocol {
    Subprotocol {
        name,
        summary: "MQTT 3.1, 3.1.1 and 5.0: topics with `/` and `+`, QoS 0 and 1, retained messages, wills",
        negotiable: true,
        index: ProtocolId(index),
        failures: Failures::Judged(answers::is_last),
        labels: Labels::Together,
        codec: |opening| Box::new(Mqtt::new(&opening)),
        encode_message: message::shared,
    }
}

#[cfg(test)]
mod tests;
