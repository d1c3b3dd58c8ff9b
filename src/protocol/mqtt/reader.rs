//! Bytes in, packets out: framing and its limits.
//!
//! A [`Reader`] is fed the payloads of binary WebSocket messages. Packets are not aligned with those: one may hold many, and
//! one packet may come in many (MQTT 5.0 §6.0). It owns no socket and no clock, keeps only the packet that is not here in
//! full, and never more of it than the limit, which its fixed header is held against before anything is kept.

use std::mem::take;

use crate::protocol::mqtt::connect;
use crate::protocol::mqtt::decode::{SECOND_CONNECT, Sender, Whole, check_flags, may_send};
use crate::protocol::mqtt::packet::{Connack, Disconnect, Packet, PacketKind, Version};
use crate::protocol::mqtt::properties::{ConnackProperties, DisconnectProperties};
use crate::protocol::mqtt::reason::{ReasonCode, Violation};
use crate::protocol::mqtt::wire::{Text, VariableInteger};

pub use crate::protocol::mqtt::connect::CLIENT_ID_BYTES_MAX;
pub use crate::protocol::mqtt::decode::FILTERS_MAX;

/// Bytes that are kept room for at the least when a packet comes in pieces.
const PIECE_BYTES_MIN: usize = 64;

const KIND_0: Violation = Violation::malformed("there is no packet type 0");
const WRONG_SIDE: Violation = Violation::protocol("a packet that this side does not send in this version");
const NOT_CONNECT: Violation = Violation::protocol("the first packet must be CONNECT");
const TOO_LARGE: Violation =
    Violation { reason: ReasonCode::PacketTooLarge, sentence: "a packet is larger than is taken here" };

/// What one peer may send.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a packet, its fixed header included, as Maximum Packet Size counts them (MQTT 5.0 §3.1.2.11.4).
    pub packet_bytes_max: usize,
    /// The same of a CONNECT, which anybody may send.
    pub connect_bytes_max: usize,
}

/// That what a peer sent cannot be, and that nothing that follows is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What MQTT 5.0 calls it.
    pub reason: ReasonCode,
    /// What was wrong, in at most 123 bytes: short enough for the reason of a WebSocket close frame.
    pub sentence: &'static str,
    /// The version in which it can be told. `None`: the connection is closed without a word.
    pub version: Option<Version>,
}

impl Fault {
    /// The CONNACK that tells it, for as long as none was sent (MQTT 5.0 §4.13.1). Where there is none in the fault's version,
    /// writing it fails, and the connection is closed without a word.
    pub fn connack(&self) -> Packet {
        let reason = self.as_reason_of(PacketKind::Connack);
        let properties = ConnackProperties { reason_string: Text::new(self.sentence), ..Default::default() };
        Packet::Connack(Box::new(Connack { session_present: false, reason, properties }))
    }

    /// The DISCONNECT that tells it, once a CONNACK was sent (MQTT 5.0 §4.13.1). As with [`Fault::connack`], 3.x has none.
    pub fn disconnect(&self) -> Packet {
        let reason = self.as_reason_of(PacketKind::Disconnect);
        let properties = DisconnectProperties { reason_string: Text::new(self.sentence), ..Default::default() };
        Packet::Disconnect(Disconnect { reason, properties })
    }

    /// Its reason, or a protocol error where a packet of this kind has no word for it.
    fn as_reason_of(&self, kind: PacketKind) -> ReasonCode {
        if self.reason.kinds().contains(&kind) { self.reason } else { ReasonCode::ProtocolError }
    }
}

/// Reads the packets of one peer.
#[derive(Debug)]
pub struct Reader {
    sender: Sender,
    limits: Limits,
    /// Known from the CONNECT on; a client knows it beforehand.
    version: Option<Version>,
    /// The bytes so far of a packet that is not here in full; without heap when there is none, which is nearly always.
    unfinished: Vec<u8>,
    ended: bool,
}

/// A fixed header that may be.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: PacketKind,
    flags: u8,
    /// Its own bytes.
    length: usize,
    /// Bytes of the packet, this header included.
    packet_bytes: usize,
    remaining: VariableInteger,
}

impl Reader {
    /// For a server: reads what one client sends, from its CONNECT on, which must come first.
    pub fn of_client(limits: Limits) -> Self {
        Self { sender: Sender::Client, limits, version: None, unfinished: Vec::new(), ended: false }
    }

    /// For a client: reads what its server sends in the version that it was asked for.
    pub fn of_server(limits: Limits, version: Version) -> Self {
        Self { sender: Sender::Server, limits, version: Some(version), unfinished: Vec::new(), ended: false }
    }

    /// The version, once it is known.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Bytes of heap that hold what is incomplete; 0 when nothing is.
    pub fn held_bytes(&self) -> usize {
        self.unfinished.capacity()
    }

    /// Takes from the front of `input` what makes up the next packet and hands it out; `None` once all of `input` is used up.
    /// Call it until then. What makes up a packet that lies in `input` as a whole is not copied, but for what it says.
    ///
    /// # Errors
    /// What the peer did wrong, as early as it shows. After that everything is passed over.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Packet>, Fault> {
        if self.ended {
            *input = &[];
            return Ok(None);
        }
        let outcome = self.read(input);
        if outcome.is_err() {
            self.ended = true;
            self.unfinished = Vec::new();
        }
        outcome
    }

    fn read(&mut self, input: &mut &[u8]) -> Result<Option<Packet>, Fault> {
        if !self.unfinished.is_empty() {
            return self.go_on(input);
        }
        let Some(header) = self.header(input)? else {
            self.keep(take(input));
            return Ok(None);
        };
        match input.split_at_checked(header.packet_bytes) {
            Some((packet, rest)) => {
                *input = rest;
                self.packet(header, packet).map(Some)
            }
            None => {
                self.make_room(header.packet_bytes, input.len());
                self.keep(take(input));
                Ok(None)
            }
        }
    }

    /// Reads on in a packet of which something is here.
    fn go_on(&mut self, input: &mut &[u8]) -> Result<Option<Packet>, Fault> {
        let header = loop {
            if let Some(header) = self.header(&self.unfinished)? {
                break header;
            }
            let Some((first, rest)) = input.split_first() else { return Ok(None) };
            self.unfinished.push(*first);
            *input = rest;
        };
        let missing = header.packet_bytes.saturating_sub(self.unfinished.len());
        let (arrived, rest) = input.split_at_checked(missing).unwrap_or((input, &[]));
        self.make_room(header.packet_bytes, arrived.len());
        self.keep(arrived);
        *input = rest;
        if self.unfinished.len() < header.packet_bytes {
            return Ok(None);
        }
        let packet = take(&mut self.unfinished);
        self.packet(header, &packet).map(Some)
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.unfinished.extend_from_slice(bytes);
    }

    /// Room for what arrived: with what is there at most doubled, so that the pieces of a packet are not copied again and
    /// again, and never more than the packet, so that nobody is kept room for because of a length that was only announced.
    fn make_room(&mut self, packet_bytes: usize, arrived: usize) {
        let held = self.unfinished.len();
        if self.unfinished.capacity() - held < arrived {
            let room = arrived.max(held).max(PIECE_BYTES_MIN).min(packet_bytes.saturating_sub(held));
            self.unfinished.reserve_exact(room);
        }
    }

    /// The fixed header at the front of these bytes (MQTT 5.0 §2.1), judged by each byte as it comes; `None` when it is not
    /// there in full.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Fault> {
        let fault = |violation| self.fault(violation);
        let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
        let kind = PacketKind::from_number(first >> 4).ok_or(fault(KIND_0))?;
        let flags = first & 0b1111;
        self.check_kind(kind, flags).map_err(fault)?;
        let Some(remaining) = VariableInteger::read(rest).map_err(fault)? else { return Ok(None) };
        let length = 1 + remaining.length;
        let packet_bytes = usize::try_from(remaining.value).unwrap_or(usize::MAX).saturating_add(length);
        let is_first = self.version.is_none();
        let bytes_max = if is_first { self.limits.connect_bytes_max } else { self.limits.packet_bytes_max };
        if packet_bytes > bytes_max {
            return Err(fault(TOO_LARGE));
        }
        if self.version == Some(Version::V5) {
            remaining.minimal().map_err(fault)?;
        }
        Ok(Some(Header { kind, flags, length, packet_bytes, remaining }))
    }

    fn check_kind(&self, kind: PacketKind, flags: u8) -> Result<(), Violation> {
        match self.version {
            // Before the version is known: the flags of a CONNECT are the same in all but 3.1, which does not use them.
            None if kind != PacketKind::Connect => Err(NOT_CONNECT),
            None => check_flags(Version::V311, kind, flags),
            Some(_) if kind == PacketKind::Connect => Err(SECOND_CONNECT),
            Some(version) if !may_send(self.sender, version, kind) => Err(WRONG_SIDE),
            Some(version) => check_flags(version, kind, flags),
        }
    }

    /// A packet that is here in full.
    fn packet(&mut self, header: Header, bytes: &[u8]) -> Result<Packet, Fault> {
        let (_, body) = bytes.split_at_checked(header.length).unwrap_or_default();
        let Some(version) = self.version else { return self.connect(header, body) };
        let whole = Whole { sender: self.sender, version, kind: header.kind, flags: header.flags, body };
        whole.packet().map_err(|violation| self.fault(violation))
    }

    fn connect(&mut self, header: Header, body: &[u8]) -> Result<Packet, Fault> {
        let refused =
            |violation: Violation, version| Fault { reason: violation.reason, sentence: violation.sentence, version };
        let connect = connect::read(body).map_err(|refusal| refused(refusal.violation, refusal.version))?;
        self.version = Some(connect.version);
        if connect.version == Version::V5 {
            header.remaining.minimal().map_err(|violation| self.fault(violation))?;
        }
        Ok(Packet::Connect(Box::new(connect)))
    }

    fn fault(&self, violation: Violation) -> Fault {
        Fault { reason: violation.reason, sentence: violation.sentence, version: self.version }
    }
}
