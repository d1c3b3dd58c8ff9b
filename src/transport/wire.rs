//! From what a codec says to the bytes of a frame: WebSocket framing, compression, or the plain text of an event stream.
//!
//! This is where the hub's opaque [`Encoding`] gets its meaning, so that a live message is encoded, framed and compressed
//! once for everybody who shares all three.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::Compression;
use crate::hub::turn::{Encode, Encoding};
use crate::model::publication::{Publication, SourceInfo};
use crate::protocol::{Message, Outbound, ProtocolId, REGISTRY, Stage};
use crate::transport::websocket::Opcode;
use crate::transport::websocket::deflate::Deflater;
use crate::transport::websocket::writer::{self, Packing};

/// How the payloads of a connection are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-Sent Events: as they are.
    EventStream,
    /// A WebSocket frame.
    WebSocket,
    /// A WebSocket frame, compressed where that helps.
    Deflated,
}

const FRAMINGS: [Framing; 3] = [Framing::EventStream, Framing::WebSocket, Framing::Deflated];

/// The encoding of a connection's live messages.
pub(crate) fn encoding(protocol: ProtocolId, framing: Framing) -> Encoding {
    Encoding(protocol.0 * FRAMINGS.len() as u8 + framing as u8)
}

/// The protocol that an encoding is of.
pub(crate) fn protocol_of(encoding: Encoding) -> ProtocolId {
    ProtocolId(encoding.0 / FRAMINGS.len() as u8)
}

/// One shard's frame maker: its compressor, and how much it encoded since it was last asked.
#[derive(Debug)]
pub(crate) struct Wire {
    compression: Compression,
    deflater: Deflater,
    encodes: Vec<u64>,
}

impl Wire {
    pub(crate) fn new(compression: Compression) -> Self {
        Self { compression, deflater: Deflater::default(), encodes: vec![0; REGISTRY.len()] }
    }

    /// The frame of something that is not shared.
    pub(crate) fn frame(&mut self, framing: Framing, outbound: &Outbound) -> Bytes {
        let (opcode, payload) = match outbound {
            Outbound::Text(payload) => (Opcode::Text, payload),
            Outbound::Binary(payload) => (Opcode::Binary, payload),
        };
        match framing {
            Framing::EventStream => payload.clone(),
            Framing::WebSocket => writer::frame(opcode, Packing::Plain, payload),
            Framing::Deflated => self.deflated(opcode, payload),
        }
    }

    /// With the receivers' positions: what the hub asks for the bytes of messages.
    pub(crate) fn at<'a>(&'a mut self, positions: &'a [(Arc<SourceInfo>, u64)], stage: Stage) -> StagedWire<'a> {
        StagedWire { wire: self, positions, stage }
    }

    /// How many messages were encoded for each protocol since the last call.
    pub(crate) fn take_encodes(&mut self) -> impl Iterator<Item = (ProtocolId, u64)> + '_ {
        self.encodes
            .iter_mut()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(row, count)| (ProtocolId(row as u8), std::mem::take(count)))
    }

    fn deflated(&mut self, opcode: Opcode, payload: &[u8]) -> Bytes {
        if payload.len() >= self.compression.bytes_min
            && let Some(smaller) = self.deflater.compress(payload, self.compression.level)
        {
            return writer::frame(opcode, Packing::Deflated, smaller);
        }
        writer::frame(opcode, Packing::Plain, payload)
    }
}

/// A [`Wire`] that knows where its receivers are, and how messages come to them.
#[derive(Debug)]
pub(crate) struct StagedWire<'a> {
    wire: &'a mut Wire,
    positions: &'a [(Arc<SourceInfo>, u64)],
    stage: Stage,
}

impl Encode for StagedWire<'_> {
    fn encode(&mut self, encoding: Encoding, publication: &Publication) -> Bytes {
        let protocol = protocol_of(encoding);
        let framing = FRAMINGS.get(usize::from(encoding.0) % FRAMINGS.len()).copied().unwrap_or(Framing::WebSocket);
        let Some(row) = REGISTRY.get(usize::from(protocol.0)) else { return Bytes::new() };
        let Some(outbound) =
            (row.encode_message)(Message { publication, positions: self.positions, stage: self.stage })
        else {
            return Bytes::new();
        };
        if let Some(count) = self.wire.encodes.get_mut(usize::from(protocol.0)) {
            *count += 1;
        }
        self.wire.frame(framing, &outbound)
    }
}
