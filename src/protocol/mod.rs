//! Subprotocols: sans-I/O codecs between what travels in a WebSocket message (or an SSE block) and the two
//! protocol-free vocabularies, [`Command`] and [`Event`].
//!
//! A codec knows no socket, no clock, no session and no hub. A new subprotocol is one file and one row in
//! [`REGISTRY`]; negotiation, metric labels, the shared conformance suite and the documentation read that table.

pub mod cloudevents;
mod command;
mod error;
mod event;
pub mod event_stream;
pub mod json;
pub mod lines;
mod missing;
pub mod mqtt;
pub mod negotiate;
pub mod poll;
pub mod raw;
pub mod stomp;
pub mod wamp;

pub use command::{Claim, Command, Consumed, Echo, Only, Subscribe, Which};
pub use error::{ErrorCode, Fault, bad_field, pattern_field, topic_field};
pub use event::{Event, Gap};

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::model::close::CloseReason;
use crate::model::cursor::JointCursor;
use crate::model::delivery::{Delivery, Settlement};
use crate::model::label::Label;
use crate::model::outgoing::Outgoing;
use crate::model::publication::{Publication, SourceInfo};
use crate::model::topic::{Pattern, Topic};

/// A client's own name for a command, handed back unchanged in the reply: any JSON number or string.
pub type CommandId = Option<Box<RawValue>>;

/// What a client sent: one whole message, unmasked and inflated.
#[derive(Debug, Clone, Copy)]
pub enum Incoming<'a> {
    /// A text message; its UTF-8 was checked.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// What a client gets: the payload of one WebSocket message, or one SSE block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outbound {
    /// To go as text.
    Text(Bytes),
    /// To go as binary.
    Binary(Bytes),
}

impl Outbound {
    /// What goes, however it does.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }
}

/// One subprotocol's two directions. Methods take whole messages; framing and compression lie below.
pub trait Codec {
    /// Reads one message, or the first thing that it says.
    ///
    /// # Errors
    /// A [`Fault`] that says whether the session goes on.
    fn decode(&mut self, message: Incoming<'_>) -> Result<Said, Fault>;

    /// The next thing that the messages so far say, where one may say several or several one. To be asked until there is
    /// nothing, as fast as the session takes it.
    ///
    /// # Errors
    /// As for [`Self::decode`].
    fn more(&mut self) -> Result<Said, Fault> {
        Ok(Said::Nothing)
    }

    /// Writes one event, or nothing where the protocol has no word for it.
    fn encode(&mut self, event: &Event) -> Option<Outbound>;

    /// Takes a delivery of a queue that the client consumes.
    fn hand_out(&mut self, delivery: Box<Delivery>) -> HandOut {
        let outbound = self.encode(&Event::Delivered(delivery));
        // One for which it has no place any more came when that was given up.
        outbound.map_or(HandOut::Settled(None, Settlement::Requeue), HandOut::Written)
    }

    /// The last word before the connection is closed, where the protocol has one of its own.
    fn farewell(&mut self, reason: CloseReason, detail: &str) -> Option<Outbound> {
        let _ = (reason, detail);
        None
    }

    /// Does what is due at this time: to be asked when the client was welcomed, and then whenever it says.
    fn tick(&mut self, now: Instant) -> Tick {
        let _ = now;
        Tick::default()
    }

    /// The client is not listened to at the moment: it is not silent.
    fn excuse(&mut self) {}

    /// How the session's messages are to come at the moment.
    fn receiving(&self) -> Receiving {
        Receiving::Shared
    }

    /// Whether its clients count on messages being retained.
    fn retains(&self) -> bool {
        false
    }

    /// What is to be published now that the connection has ended, where the client left word: asked once.
    fn testament(&mut self) -> Option<Outgoing> {
        None
    }

    /// What is kept of the session now that it has ended, where its client asked for that.
    fn keep(&mut self) -> Option<Keep> {
        None
    }

    /// Goes on where an earlier connection of the client ended, with each subscription from its place. False when it
    /// cannot: then nothing is left of that session.
    fn restore(&mut self, memory: mqtt::Memory, place: &dyn Fn(&Pattern) -> JointCursor) -> bool {
        let _ = (memory, place);
        false
    }

    /// Writes a message for this session alone; asked for only while [`Self::receiving`] says so.
    fn message(&mut self, message: Message<'_>) -> Option<Outbound> {
        let _ = message;
        None
    }
}

/// What a codec makes of a delivery.
#[derive(Debug)]
pub enum HandOut {
    /// It goes to the client, who settles it.
    Written(Outbound),
    /// It goes to the client or to nobody, and is settled so at once.
    Settled(Option<Outbound>, Settlement),
    /// It goes to the client later, when that takes more.
    Kept,
}

/// What is kept of a session beyond its connection.
#[derive(Debug)]
pub struct Keep {
    /// What its codec remembers.
    pub memory: mqtt::Memory,
    /// For how long.
    pub lifetime: Duration,
    /// When after the connection's end its will is published, if its client has not come back until then.
    pub will_delay: Duration,
}

/// What a client said.
#[derive(Debug)]
pub enum Said {
    /// It asked for something.
    Command(Command),
    /// Something that the codec itself answers.
    Answered(Outbound),
    /// A message that the client has to settle, and for which the codec waited until it takes one more.
    Delivered(Outbound),
    /// Nothing, or nothing more.
    Nothing,
}

/// What is due at some time.
#[derive(Debug, Default)]
pub struct Tick {
    /// To be sent.
    pub send: Option<Outbound>,
    /// Why the session ends, if it does.
    pub end: Option<(CloseReason, &'static str)>,
    /// When to ask again.
    pub next: Option<Instant>,
}

/// How messages come to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiving {
    /// In frames that it shares with others.
    Shared,
    /// Each through [`Codec::message`], and no more than so many until the client has said something.
    Own(usize),
}

/// Whether what subscriptions are called is written into their messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// It is not: a session has one subscription a pattern, and a message comes once.
    Absent,
    /// It is, and a message comes once for each subscription that wants it. Labels are unique in a session.
    Each,
    /// It is, and a message comes once, with the labels of all that want it. A session has one subscription a pattern.
    Together,
}

/// A message as every subscriber of it gets it, so that it can be encoded once: no word of it depends on the receiver.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The message.
    pub publication: &'a Publication,
    /// Where its receivers stand in every source, its own apart: part of a joint cursor.
    pub positions: &'a [(Arc<SourceInfo>, u64)],
    /// How it comes.
    pub stage: Stage,
    /// What the subscriptions that want it are called, where that is written into it: with [`Labels::Each`] one.
    pub labels: &'a [Label],
}

/// Why nothing is sent of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// The subscription wants less than its pattern matches.
    Unwanted,
    /// The protocol cannot carry it.
    Impossible,
}

/// How a message comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// As it was published, or later to who is slow.
    Live,
    /// Because somebody asked for it, before `caught_up`.
    Replay,
}

/// A row of the table of subprotocols.
#[derive(Debug, Clone, Copy)]
pub struct Subprotocol {
    /// The name that is negotiated, and the metric label. SSE has one too, though nobody negotiates it.
    pub name: &'static str,
    /// What it is, for documentation.
    pub summary: &'static str,
    /// Whether it can be asked for in `Sec-WebSocket-Protocol`.
    pub negotiable: bool,
    /// Which row this is: indexes metrics and frame caches.
    pub index: ProtocolId,
    /// What becomes of a session when something that its client asked for fails.
    pub failures: Failures,
    /// What becomes of its subscriptions' labels.
    pub labels: Labels,
    /// A codec for one new session.
    pub codec: fn(Opening) -> Box<dyn Codec + Send>,
    /// Encodes a live message once for everybody.
    pub encode_message: fn(Message<'_>) -> Result<Outbound, Unsent>,
}

impl Subprotocol {
    /// Whether a client may still be told of a command by its id when that was answered: what came of it may end later.
    pub fn keeps_ids(&self) -> bool {
        matches!(self.failures, Failures::Told)
    }
}

/// What a codec is told of the request that opened its session.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The topic of everything that the client sends, where the protocol itself names none: `?publish=TOPIC`.
    pub publish: Option<Topic>,
    /// The connection's name in logs and in the API.
    pub connection: Arc<str>,
    /// The largest message that a client may send, in the protocol's own measure too: a payload may come in several messages.
    pub message_bytes_max: usize,
    /// How long a session may outlive its connection; zero: not at all.
    pub session_expiry_max: Duration,
}

impl Default for Opening {
    fn default() -> Self {
        let session_expiry_max = Duration::ZERO;
        Self { publish: None, connection: "".into(), message_bytes_max: MESSAGE_BYTES_MAX, session_expiry_max }
    }
}

/// What is taken for the largest message where nobody says.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What becomes of a session when something that its client asked for fails.
#[derive(Debug, Clone, Copy)]
pub enum Failures {
    /// The client is told, and the session goes on.
    Told,
    /// Likewise, but a client that fails to say who it is is told so, and that is the end.
    ToldToKnown,
    /// The client is told, and that is the end, as its protocol has it.
    Last,
    /// The client is told; whether that is the end, the codec reads from the command's id.
    Judged(fn(&CommandId, ErrorCode) -> bool),
    /// The protocol has no word for an error: the session ends, and the closing frame says why.
    End,
}

/// Index of a row in [`REGISTRY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolId(pub u8);

/// Every subprotocol, in no particular order of preference: the client's order decides.
pub static REGISTRY: &[Subprotocol] = &[
    json::SUBPROTOCOL,
    raw::SUBPROTOCOL,
    event_stream::SUBPROTOCOL,
    stomp::SUBPROTOCOLS[0],
    stomp::SUBPROTOCOLS[1],
    stomp::SUBPROTOCOLS[2],
    stomp::SUBPROTOCOLS[3],
    lines::SUBPROTOCOL,
    poll::SUBPROTOCOL,
    cloudevents::SUBPROTOCOL,
    wamp::SUBPROTOCOLS[0],
    wamp::SUBPROTOCOLS[1],
    wamp::SUBPROTOCOLS[2],
    mqtt::SUBPROTOCOLS[0],
    mqtt::SUBPROTOCOLS[1],
];

#[cfg(test)]
pub(crate) mod tests;
