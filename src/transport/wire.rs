//! From what a codec says to the bytes of a frame: WebSocket framing, compression, or the plain text of an HTTP answer.
//!
//! This is where the hub's opaque [`Encoding`] gets its meaning, so that a live message is encoded, framed and compressed
//! once for everybody who shares protocol, framing and what their subscriptions are called.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::Compression;
use crate::hub::turn::{Encode, Encoding};
use crate::model::label::Label;
use crate::model::publication::{Publication, SourceInfo};
use crate::protocol::{Message, Outbound, ProtocolId, REGISTRY, Stage, Unsent, event_stream, lines};
use crate::transport::websocket::Opcode;
use crate::transport::websocket::deflate::Deflater;
use crate::transport::websocket::writer::{self, Packing};

/// How the payloads of a connection are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Framing {
    /// Server-Sent Events: as they are.
    EventStream,
    /// Lines of JSON: likewise.
    Lines,
    /// The same, collected into one answer.
    Collected,
    /// A WebSocket frame.
    WebSocket,
    /// A WebSocket frame, compressed where that helps.
    Deflated,
}

const FRAMINGS: [Framing; 5] =
    [Framing::EventStream, Framing::Lines, Framing::Collected, Framing::WebSocket, Framing::Deflated];

/// A ping without a payload.
const PING: Bytes = Bytes::from_static(&[0x89, 0x00]);

impl Framing {
    /// Whether both sides speak, in frames, and say goodbye to each other. Else it is an HTTP answer.
    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::Deflated)
    }

    /// What keeps a quiet connection alive.
    pub(crate) fn heartbeat(self) -> Bytes {
        match self {
            Self::EventStream => event_stream::HEARTBEAT,
            Self::Lines | Self::Collected => lines::HEARTBEAT,
            Self::WebSocket | Self::Deflated => PING,
        }
    }
}

/// The first encoding that has labels; those before are a protocol and a framing. Protocols are numbered by a byte.
const LABELLED_FROM: u64 = 256 * FRAMINGS.len() as u64;

/// The encoding of messages into which no label is written.
pub(crate) fn encoding(protocol: ProtocolId, framing: Framing) -> Encoding {
    Encoding(u64::from(protocol.0) * FRAMINGS.len() as u64 + framing as u64)
}

/// What an encoding stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Spec {
    protocol: ProtocolId,
    framing: Framing,
    labels: Rc<[Label]>,
}

/// The encodings with labels that connections hold. A number is never used twice, because frames are kept under it for a
/// while after the last connection has let it go.
#[derive(Debug, Default)]
struct Labelled {
    numbers: HashMap<Spec, (Encoding, usize)>,
    specs: HashMap<Encoding, Spec>,
    used: u64,
}

/// One shard's frame maker: its compressor, and how much it encoded since it was last asked.
#[derive(Debug)]
pub(crate) struct Wire {
    compression: Compression,
    deflater: Deflater,
    labelled: Labelled,
    encodes: Vec<u64>,
    /// Messages that a subprotocol cannot carry.
    not_encodable: u64,
}

impl Wire {
    pub(crate) fn new(compression: Compression) -> Self {
        let (deflater, labelled) = (Deflater::default(), Labelled::default());
        Self { compression, deflater, labelled, encodes: vec![0; REGISTRY.len()], not_encodable: 0 }
    }

    /// The encoding of messages into which these labels are written, to be given back with [`Self::release`].
    pub(crate) fn acquire(&mut self, protocol: ProtocolId, framing: Framing, labels: &[Label]) -> Encoding {
        if labels.is_empty() {
            return encoding(protocol, framing);
        }
        self.labelled.acquire(Spec { protocol, framing, labels: labels.into() })
    }

    /// Gives an encoding back that a connection holds no more.
    pub(crate) fn release(&mut self, encoding: Encoding) {
        self.labelled.release(encoding);
    }

    /// The frame of something that is not shared.
    pub(crate) fn frame(&mut self, framing: Framing, outbound: &Outbound) -> Bytes {
        let (opcode, payload) = match outbound {
            Outbound::Text(payload) => (Opcode::Text, payload),
            Outbound::Binary(payload) => (Opcode::Binary, payload),
        };
        match framing {
            Framing::EventStream | Framing::Lines | Framing::Collected => payload.clone(),
            Framing::WebSocket => writer::frame(opcode, Packing::Plain, payload),
            Framing::Deflated => self.deflated(opcode, payload),
        }
    }

    /// With the receivers' positions: what the hub asks for the bytes of messages.
    pub(crate) fn at<'a>(&'a mut self, positions: &'a [(Arc<SourceInfo>, u64)], stage: Stage) -> StagedWire<'a> {
        StagedWire { wire: self, positions, stage }
    }

    /// How many messages could not be carried since the last call.
    pub(crate) fn take_not_encodable(&mut self) -> u64 {
        std::mem::take(&mut self.not_encodable)
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

    /// The labels that are written in an encoding.
    pub(crate) fn labels(&self, encoding: Encoding) -> Vec<Label> {
        self.labelled.specs.get(&encoding).map(|spec| spec.labels.to_vec()).unwrap_or_default()
    }

    fn spec(&self, encoding: Encoding) -> Option<Spec> {
        if encoding.0 >= LABELLED_FROM {
            return self.labelled.specs.get(&encoding).cloned();
        }
        let count = FRAMINGS.len() as u64;
        let framing = FRAMINGS.get((encoding.0 % count) as usize).copied()?;
        Some(Spec { protocol: ProtocolId((encoding.0 / count) as u8), framing, labels: Rc::new([]) })
    }
}

impl Labelled {
    fn acquire(&mut self, spec: Spec) -> Encoding {
        if let Some((encoding, holders)) = self.numbers.get_mut(&spec) {
            *holders += 1;
            return *encoding;
        }
        let encoding = Encoding(LABELLED_FROM + self.used);
        self.used += 1;
        self.specs.insert(encoding, spec.clone());
        self.numbers.insert(spec, (encoding, 1));
        encoding
    }

    fn release(&mut self, encoding: Encoding) {
        let Some(spec) = self.specs.get(&encoding) else { return };
        let Some((_, holders)) = self.numbers.get_mut(spec) else { return };
        *holders -= 1;
        if *holders == 0 {
            self.numbers.remove(spec);
            self.specs.remove(&encoding);
        }
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
        let Some(Spec { protocol, framing, labels }) = self.wire.spec(encoding) else { return Bytes::new() };
        let Some(row) = REGISTRY.get(usize::from(protocol.0)) else { return Bytes::new() };
        let message = Message { publication, positions: self.positions, stage: self.stage, labels: &labels };
        let outbound = match (row.encode_message)(message) {
            Ok(outbound) => outbound,
            Err(unsent) => {
                self.wire.not_encodable += u64::from(unsent == Unsent::Impossible);
                return Bytes::new();
            }
        };
        if let Some(count) = self.wire.encodes.get_mut(usize::from(protocol.0)) {
            *count += 1;
        }
        self.wire.frame(framing, &outbound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    #[test]
    fn who_calls_their_subscriptions_the_same_shares_an_encoding_while_anybody_holds_it() {
        let mut wire = Wire::new(Compression::default());
        let labels = |text: &str| [Label::new(text)];
        let id = json::SUBPROTOCOL.index;
        let first = wire.acquire(id, Framing::WebSocket, &labels("a"));
        assert_eq!(wire.acquire(id, Framing::WebSocket, &labels("a")), first);
        assert_ne!(wire.acquire(id, Framing::WebSocket, &labels("b")), first);
        assert_ne!(wire.acquire(id, Framing::Deflated, &labels("a")), first);
        assert_eq!(wire.acquire(id, Framing::WebSocket, &[]), encoding(id, Framing::WebSocket));
        wire.release(first);
        assert_eq!(&*wire.spec(first).unwrap().labels, labels("a"));
        wire.release(first);
        assert_eq!(wire.spec(first), None);
        assert_ne!(wire.acquire(id, Framing::WebSocket, &labels("a")), first, "a number is never used twice");
    }

    #[test]
    fn an_encoding_without_labels_says_what_it_is_by_its_number() {
        let wire = Wire::new(Compression::default());
        for (row, framing) in REGISTRY.iter().zip(FRAMINGS.into_iter().cycle()) {
            let Spec { protocol, framing: found, labels } = wire.spec(encoding(row.index, framing)).unwrap();
            assert_eq!((protocol, found, labels.len()), (row.index, framing, 0));
        }
    }
}
