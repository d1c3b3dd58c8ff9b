//! STOMP 1.0, 1.1 and 1.2: frames in and out, destinations as RabbitMQ's STOMP plugin reads them, heart-beats.
//!
//! [`codec`] is one session's conversation, [`requests`] what a client's frames ask for, [`message`] what it is sent. Below lie
//! [`reader`] and [`writer`], which know frames and nothing of what they mean.

mod codec;
pub mod destination;
mod escape;
pub mod frame;
pub mod heart_beat;
mod label;
mod message;
pub mod reader;
mod receipts;
mod requests;
mod transactions;
pub mod version;
pub mod writer;

use crate::protocol::{Failures, Labels, ProtocolId, Subprotocol};
use codec::Stomp;

/// The rows of the registry: the names that the specifications and older clients offer. Which version is spoken `CONNECT` says.
pub const SUBPROTOCOLS: [Subprotocol; 4] =
    [row("v12.stomp", 3), row("v11.stomp", 4), row("v10.stomp", 5), row("stomp", 6)];

const fn row(name: &'static str, index: u8) -> Subprotocol {
    Subprotocol {
        name,
        summary: "STOMP 1.0, 1.1 and 1.2, with destinations as RabbitMQ's plugin reads them",
        negotiable: true,
        index: ProtocolId(index),
        failures: Failures::Last,
        labels: Labels::Each,
        codec: |opening| Box::new(Stomp::new(&opening)),
        encode_message: message::shared,
    }
}

#[cfg(test)]
mod tests;
