//! Subprotocols: sans-I/O codecs between what travels in a WebSocket message (or an SSE block) and the two
//! protocol-free vocabularies, [`Command`] and [`Event`].
//!
//! A codec knows no socket, no clock, no session and no hub. A new subprotocol is one file and one row in
//! [`REGISTRY`]; negotiation, metric labels, the shared conformance suite and the documentation read that table.

pub mod cloudevents;
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

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::model::close::CloseReason;
use crate::model::cursor::JointCursor;
use crate::model::delivery::{Delivery, DeliveryTag, Settlement};
use crate::model::filter::Filter;
use crate::model::flow::Flow;
use crate::model::gap::GapReason;
use crate::model::label::Label;
use crate::model::outgoing::{Outgoing, Reply};
use crate::model::presence::{Member, Roster};
use crate::model::publication::{Publication, SourceInfo, UnixMillis};
use crate::model::rate::Rate;
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

/// What a client asked for, in no protocol.
#[derive(Debug)]
pub enum Command {
    /// Who it is.
    Connect {
        /// Its id.
        id: CommandId,
        /// The token, if it brings one.
        token: Option<String>,
        /// Name and version of the client's program, for the log.
        client: Option<String>,
    },
    /// Start a subscription, or replace the one on the same pattern.
    Subscribe(Subscribe),
    /// End one.
    Unsubscribe {
        /// Its id.
        id: CommandId,
        /// Which.
        which: Which,
    },
    /// Publish and answer with the broker's word.
    Publish {
        /// Its id; without one no reply is wanted where the protocol has none.
        id: CommandId,
        /// The message.
        message: Outgoing,
        /// Whether it is an error that no queue got it.
        mandatory: bool,
        /// What of it this session receives too, where it listens to the topic.
        echo: Echo,
    },
    /// Ask, and answer with the reply.
    Call {
        /// Its id.
        id: CommandId,
        /// The request's message.
        message: Outgoing,
        /// How long the client would wait.
        timeout: Option<Duration>,
    },
    /// Wait no more for the answer to a call: that is done at once, and nobody who got the request is told.
    Abandon {
        /// The id of the call, which is answered with [`Event::Done`]. One that is under way no more was answered.
        id: CommandId,
    },
    /// Bring a queue's messages, each to be settled.
    Consume {
        /// Its id.
        id: CommandId,
        /// The queue.
        queue: String,
        /// How many it would hold at a time.
        prefetch: Option<u16>,
        /// Who settles them.
        settling: Settling,
    },
    /// Bring no more of them.
    Cancel {
        /// Its id.
        id: CommandId,
        /// The queue, as it was called when it was consumed.
        queue: String,
    },
    /// Settle one of them.
    Settle {
        /// Its id.
        id: CommandId,
        /// Which; `None` is one that this server never gave out.
        tag: Option<DeliveryTag>,
        /// How.
        settlement: Settlement,
    },
    /// Tell who is subscribed to a pattern.
    Presence {
        /// Its id.
        id: CommandId,
        /// The pattern.
        pattern: Pattern,
    },
    /// Answer at once.
    Ping {
        /// Its id.
        id: CommandId,
    },
    /// End the session, once everything that was asked before is answered.
    Leave {
        /// Its id.
        id: CommandId,
    },
}

/// The only source that a subscription wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Only {
    /// By its name in the configuration.
    Source(String),
    /// The one that reads an exchange of this name.
    Exchange(String),
}

/// What becomes of a session's own publish where it listens to the topic itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// It receives it as anybody does.
    All,
    /// It does not receive it.
    Nothing,
    /// It does, marked as its own: its codec leaves it out for those of its subscriptions that do not want it.
    Marked,
}

/// Names a subscription of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one on a pattern, where there is only one.
    Pattern(Pattern),
    /// The one of a label, where each has its own.
    Label(Label),
}

/// Who settles the deliveries of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// The client, one by one.
    ByClient,
    /// The session, as soon as each is on its way to the client.
    WhenSent,
}

/// A subscription as it was asked for.
#[derive(Debug)]
pub struct Subscribe {
    /// Its id.
    pub id: CommandId,
    /// The topics that it wants.
    pub pattern: Pattern,
    /// Of those only messages whose headers it lets in.
    pub filter: Option<Arc<Filter>>,
    /// Where it wants to go on: cursors by source name.
    pub after: JointCursor,
    /// The newest messages of each matching topic that it wants first; 0 for none.
    pub last: usize,
    /// Whether it wants first those that their publishers had retained, the newest of each matching topic.
    pub retained: bool,
    /// The only source it wants.
    pub only: Option<Only>,
    /// What becomes of its messages when the client is too slow; the server's default when it does not say.
    pub flow: Option<Flow>,
    /// How many messages a second it wants at most; what comes faster is left to its flow.
    pub max_rate: Option<Rate>,
    /// What its codec writes with each of its messages. With [`Labels::Each`] a label that the session holds already changes
    /// nothing: it is done when that subscription stands.
    pub label: Option<Label>,
}

impl Subscribe {
    /// To everything that a pattern matches, from now on, of every source.
    pub fn to(pattern: Pattern) -> Self {
        let (after, only, flow) = (JointCursor::default(), None, None);
        let (last, retained, max_rate) = (0, false, None);
        Self { id: None, pattern, filter: None, after, last, retained, only, flow, max_rate, label: None }
    }
}

/// What a client is told, in no protocol.
#[derive(Debug, Clone)]
pub enum Event {
    /// The session stands.
    Welcome {
        /// The id of the `connect`, if there was one.
        id: CommandId,
        /// This connection's name in logs and in the API.
        connection: Arc<str>,
        /// Name and version of the server.
        server: &'static str,
        /// Between two heartbeats.
        heartbeat: Duration,
        /// The largest message a client may send.
        message_bytes_max: usize,
        /// Who the client is; `None` for anonymous.
        user: Option<Arc<str>>,
        /// When its token ends.
        expires_at: Option<UnixMillis>,
    },
    /// Every matching message published from now on will come.
    Subscribed {
        /// The id of the subscribe.
        id: CommandId,
        /// Its pattern, canonical.
        pattern: Pattern,
        /// The position now, of every source that it reads; or, before a replay, where that begins, so that a client which
        /// keeps these loses nothing.
        cursors: JointCursor,
        /// Whether it is certain that nothing between `after` and now was or will be missed.
        resumed: bool,
    },
    /// A message of a queue that is consumed, held by this client alone.
    Delivered(Box<Delivery>),
    /// Deliveries that this client no longer holds.
    Revoked {
        /// Their tags, the oldest first.
        tags: Vec<DeliveryTag>,
    },
    /// Everything after `after` was sent.
    CaughtUp {
        /// The id of the subscribe.
        id: CommandId,
        /// Its pattern.
        pattern: Pattern,
        /// The position now, of every source that it reads.
        cursors: JointCursor,
    },
    /// Where a quiet session stands.
    Position {
        /// Of every source that it reads.
        cursors: JointCursor,
    },
    /// Something was or may have been missed.
    Gap(Gap),
    /// A source, or a queue that is consumed, has no link to the broker any more.
    Outage {
        /// Its name.
        source: Arc<str>,
    },
    /// It came back.
    Restored {
        /// Its name.
        source: Arc<str>,
    },
    /// Who is subscribed to a pattern.
    Presence {
        /// The id of the command; `None` where it comes unasked, because joins and leaves would not tell it.
        id: CommandId,
        /// The pattern, canonical.
        pattern: Pattern,
        /// Who.
        roster: Roster,
    },
    /// Somebody subscribed to a pattern.
    Joined {
        /// The pattern, canonical.
        pattern: Pattern,
        /// Who.
        member: Member,
    },
    /// Somebody is subscribed to it no more.
    Left {
        /// The pattern, canonical.
        pattern: Pattern,
        /// Who.
        member: Member,
    },
    /// The session will be closed with 1001 next.
    Goodbye {
        /// Why.
        reason: &'static str,
        /// How long to wait before connecting again.
        reconnect_in: Duration,
    },
    /// A command was done.
    Done {
        /// Its id.
        id: CommandId,
        /// For a publish: whether any queue got it.
        routed: Option<bool>,
    },
    /// The answer to a call.
    Result {
        /// Its id.
        id: CommandId,
        /// The answer.
        reply: Reply,
    },
    /// A command failed.
    Error {
        /// Its id.
        id: CommandId,
        /// Which kind of failure.
        code: ErrorCode,
        /// A sentence that says what to do.
        message: String,
    },
    /// The answer to a ping.
    Pong {
        /// Its id.
        id: CommandId,
    },
}

/// What was or may have been missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The subscription that missed it, by its pattern.
    pub pattern: Pattern,
    /// And by its label, where it has one.
    pub label: Option<Label>,
    /// The source, by name.
    pub source: Arc<str>,
    /// How many messages, when that is known.
    pub missed: Option<u64>,
    /// Why.
    pub reason: GapReason,
}

/// Codes of errors; the fixed list of `docs/protocol.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not a message of this protocol.
    BadMessage,
    /// An `op` that this server does not know.
    UnknownOp,
    /// A field is missing or has the wrong form.
    BadField,
    /// Known, but not offered by this server.
    Unsupported,
    /// First say who you are.
    Unauthenticated,
    /// Not allowed.
    Forbidden,
    /// A limit of this server.
    Limit,
    /// There is no such source, subscription or queue.
    NotFound,
    /// No queue got the message.
    Unroutable,
    /// The broker refused.
    Refused,
    /// The broker is away or blocked.
    Unavailable,
    /// Nobody answered in time.
    Timeout,
    /// This client does not hold such a delivery.
    StaleTag,
}

/// What a codec makes of something that it cannot read.
#[derive(Debug)]
pub enum Fault {
    /// Answer with an error and go on.
    Reply {
        /// The id, where one could be read.
        id: CommandId,
        /// Which kind.
        code: ErrorCode,
        /// A sentence that says what to do.
        message: String,
    },
    /// End the session.
    Close {
        /// The ending.
        reason: CloseReason,
        /// A sentence of at most 123 bytes.
        detail: &'static str,
    },
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

    /// Writes a message for this session alone; asked for only while [`Self::receiving`] says so.
    fn message(&mut self, message: Message<'_>) -> Option<Outbound> {
        let _ = message;
        None
    }
}

/// What a client said.
#[derive(Debug)]
pub enum Said {
    /// It asked for something.
    Command(Command),
    /// Something that the codec itself answers.
    Answered(Outbound),
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
    /// Encodes a live message once for everybody; nothing when this protocol cannot carry it.
    pub encode_message: fn(Message<'_>) -> Option<Outbound>,
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
}

impl Default for Opening {
    fn default() -> Self {
        Self { publish: None, connection: "".into(), message_bytes_max: MESSAGE_BYTES_MAX }
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

impl ErrorCode {
    /// Every code.
    pub const ALL: &[Self] = &[
        Self::BadMessage,
        Self::UnknownOp,
        Self::BadField,
        Self::Unsupported,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::Limit,
        Self::NotFound,
        Self::Unroutable,
        Self::Refused,
        Self::Unavailable,
        Self::Timeout,
        Self::StaleTag,
    ];

    /// As it is written on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadMessage => "bad_message",
            Self::UnknownOp => "unknown_op",
            Self::BadField => "bad_field",
            Self::Unsupported => "unsupported",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Limit => "limit",
            Self::NotFound => "not_found",
            Self::Unroutable => "unroutable",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::StaleTag => "stale_tag",
        }
    }
}

/// A topic from what a client wrote, or the fault that names the field.
///
/// # Errors
/// A [`Fault::Reply`] with [`ErrorCode::BadField`].
pub fn topic_field(id: &CommandId, field: &str, text: &str) -> Result<Topic, Fault> {
    Topic::parse(text).map_err(|error| bad_field(id, format!("{field} {error}")))
}

/// A pattern likewise.
///
/// # Errors
/// A [`Fault::Reply`] with [`ErrorCode::BadField`].
pub fn pattern_field(id: &CommandId, field: &str, text: &str) -> Result<Pattern, Fault> {
    Pattern::parse(text).map_err(|error| bad_field(id, format!("{field} {error}")))
}

/// A fault about one field.
pub fn bad_field(id: &CommandId, message: String) -> Fault {
    Fault::Reply { id: id.clone(), code: ErrorCode::BadField, message }
}

#[cfg(test)]
pub(crate) mod tests;
