//! MQTT 3.1 (protocol name `MQIsdp`, level 3), 3.1.1 (level 4) and 5.0 (level 5): packets as values and as bytes.
//!
//! Bytes to packets is [`reader`] (framing and limits) over `decode` and `connect` (what a packet's body says); packets to
//! bytes is [`writer`], with [`shared`] for the one packet that goes to everybody. Both speak both ways, because
//! `passerelle` is a client too where its command line listens. [`topic`] maps names and filters to those of AMQP.
//!
//! "MQTT 5.0 §3.3.2" and the like name sections of the OASIS standards of 2014 (3.1.1) and 2019 (5.0), and of the
//! specification of 2010 by IBM and Eurotech (3.1). Numbers in brackets are the conformance statements of 5.0. Nothing here
//! holds the state of a session: which packet ids are in use, what a topic alias stands for, whether the client may do it.

mod connect;
mod decode;
mod field;
pub mod packet;
pub mod properties;
mod property;
pub mod reader;
pub mod reason;
pub mod shared;
pub mod topic;
mod wire;
pub mod writer;

pub use packet::{Packet, Version};
pub use reader::{Fault, Limits, Reader};
pub use reason::ReasonCode;
pub use wire::{Binary, STRING_BYTES_MAX, Text, VARIABLE_INTEGER_MAX};

#[cfg(test)]
mod tests;
