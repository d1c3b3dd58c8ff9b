//! The WebSocket layer, server side: RFC 6455 and permessage-deflate (RFC 7692), from bytes to messages and back.
//!
//! Sans-I/O: it knows no socket, no clock, no subprotocol and no session. A driver asks [`handshake`] for the answer to
//! an upgrade, feeds what it reads to a [`Reader`](reader::Reader) and sends what [`writer`] builds.

pub mod deflate;
pub mod handshake;
pub mod reader;
pub mod writer;

mod frame;
mod message;

pub use frame::Opcode;

use crate::model::close::CloseReason;

/// What a peer did wrong. The connection is over: send a close frame with the reason's code, then drop the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// [`CloseReason::ProtocolError`] (1002), [`CloseReason::InvalidData`] (1007) or [`CloseReason::TooBig`] (1009).
    pub reason: CloseReason,
    /// What it was, in at most 123 bytes: fit for the close frame.
    pub detail: &'static str,
}

impl Fault {
    /// A breach of the protocol's rules: 1002.
    const fn protocol(detail: &'static str) -> Self {
        Fault { reason: CloseReason::ProtocolError, detail }
    }

    /// Content that is not what it claims to be: 1007.
    const fn data(detail: &'static str) -> Self {
        Fault { reason: CloseReason::InvalidData, detail }
    }

    /// More than a limit allows: 1009.
    const fn size(detail: &'static str) -> Self {
        Fault { reason: CloseReason::TooBig, detail }
    }
}
#[cfg(test)]
mod tests;
