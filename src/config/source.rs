//! `[source.NAME]`: what comes in from the broker, and what is kept of it.

use std::time::Duration;

use crate::model::event_names::EventNames;
use crate::model::publication::RawFrames;
use crate::model::topic::Pattern;

/// `[source.NAME]`.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name: ASCII letters, digits, `_` and `-`.
    pub name: String,
    /// What it reads.
    pub input: Input,
    /// The topic of its messages; `None` takes the routing key.
    pub topic: Option<TopicTemplate>,
    /// How payloads become frames on `passerelle.v1.raw`.
    pub frames: RawFrames,
    /// How its messages are called where they go out as CloudEvents and are none: `[cloudevents]`.
    pub events: EventNames,
    /// What happens to a delivery that cannot be mapped to a message.
    pub rejected: Rejected,
    /// The log.
    pub log: LogBounds,
}

/// What a source reads.
#[derive(Debug, Clone)]
pub enum Input {
    /// An exchange, through a queue of our own.
    Exchange(ExchangeInput),
    /// An existing queue.
    Queue(QueueInput),
    /// A RabbitMQ stream.
    Stream(StreamInput),
}

/// An exchange source.
#[derive(Debug, Clone)]
pub struct ExchangeInput {
    /// The exchange's name.
    pub exchange: String,
    /// Its type, which AMQP cannot be asked for.
    pub kind: ExchangeKind,
    /// What to bind.
    pub bindings: Bindings,
    /// Whether to declare it (durable) rather than wait for it.
    pub declare: bool,
    /// How long a binding stays after its last subscriber.
    pub linger: Duration,
    /// Client-made bindings at most.
    pub bindings_max: usize,
    /// Bytes that the broker keeps for us before it drops the oldest.
    pub queue_bytes_max: usize,
}

/// A queue that passerelle consumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueInput {
    /// The queue's name.
    pub queue: String,
    /// Whether other consumers may take part of its messages.
    pub shared: bool,
    /// Whether to declare it (durable) rather than wait for it.
    pub declare: bool,
}

/// A stream source.
#[derive(Debug, Clone)]
pub struct StreamInput {
    /// The stream's name.
    pub stream: String,
    /// What fills it.
    pub supply: Supply,
    /// Whether to declare it (durable) rather than wait for it.
    pub declare: bool,
    /// How long a stream that we declare keeps a message at least, as far as its bytes allow.
    pub retention_age: Duration,
    /// How many bytes it keeps.
    pub retention_bytes: u64,
    /// Consumers that may read what the log no longer has.
    pub replays_max: usize,
    /// How far back the last messages of each topic are looked for at the start; zero for not at all.
    pub last_rebuild: Duration,
}

/// What fills a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supply {
    /// Others publish to it.
    Others,
    /// An exchange, to which it is bound.
    Exchange {
        /// The exchange's name.
        exchange: String,
        /// With what it is bound there.
        bindings: Bindings,
    },
    /// A queue, whose messages passerelle moves into the stream: one node at a time, for all nodes to read.
    Queue(QueueInput),
}

/// Types of exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// Patterns.
    Topic,
    /// Literal keys.
    Direct,
    /// Everything.
    Fanout,
    /// By header fields; bound without arguments, which matches everything.
    Headers,
}

/// What an exchange source binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bindings {
    /// What its node's sessions want, reference-counted.
    OnDemand,
    /// `#`, once.
    All,
    /// These.
    List(Vec<Pattern>),
}

/// `topic = "…"`: literal text with `{routing_key}`, `{exchange}`, `{queue}`, `{source}` and `{header.NAME}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate(pub Vec<TemplatePart>);

/// A piece of a [`TopicTemplate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// As it stands.
    Text(String),
    /// The delivery's routing key.
    RoutingKey,
    /// The delivery's exchange.
    Exchange,
    /// The queue of a queue source.
    Queue,
    /// The source's name.
    Source,
    /// A header field that is text or a number.
    Header(String),
}

/// What happens to a delivery that cannot be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// It is acknowledged: gone.
    Acknowledge,
    /// It is rejected without requeue: RabbitMQ dead-letters it where the queue says so.
    DeadLetter,
}

/// Bounds of one source's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Publications at most.
    pub messages_max: usize,
    /// Bytes of payloads and attributes at most.
    pub bytes_max: usize,
    /// Older ones go.
    pub age_max: Duration,
    /// What is kept of topics whose messages have gone.
    pub last: LastBounds,
}

/// The newest messages of each topic, which stay when the log lets them go: for subscriptions that ask for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBounds {
    /// Of each topic, those included that are still in the log; 0 for none beyond the log.
    pub each: usize,
    /// In all.
    pub messages_max: usize,
    /// Bytes of payloads and attributes in all.
    pub bytes_max: usize,
}

impl Source {
    /// The source that there is when none is configured: `events`, on `amq.topic`.
    pub fn events() -> Self {
        Self {
            name: "events".into(),
            input: Input::Exchange(ExchangeInput::new("amq.topic")),
            topic: None,
            frames: RawFrames::Auto,
            events: EventNames::default(),
            rejected: Rejected::Acknowledge,
            log: LogBounds::default(),
        }
    }
}

impl Input {
    /// The exchange that fills it, with its type, and what is bound there; `None` where none does that we know of.
    pub fn exchange(&self) -> Option<(&str, ExchangeKind, &Bindings)> {
        match self {
            Self::Exchange(input) => Some((&input.exchange, input.kind, &input.bindings)),
            // It is bound by patterns.
            Self::Stream(StreamInput { supply: Supply::Exchange { exchange, bindings }, .. }) => {
                Some((exchange, ExchangeKind::Topic, bindings))
            }
            Self::Stream(_) | Self::Queue(_) => None,
        }
    }

    /// The queue whose messages it takes away, if it does.
    pub fn queue(&self) -> Option<&QueueInput> {
        match self {
            Self::Queue(queue) => Some(queue),
            Self::Stream(StreamInput { supply: Supply::Queue(queue), .. }) => Some(queue),
            Self::Stream(_) | Self::Exchange(_) => None,
        }
    }
}

impl ExchangeInput {
    /// A topic exchange bound on demand.
    pub fn new(exchange: &str) -> Self {
        Self {
            exchange: exchange.into(),
            kind: ExchangeKind::Topic,
            bindings: Bindings::OnDemand,
            declare: false,
            linger: LogBounds::default().age_max,
            bindings_max: 10_000,
            queue_bytes_max: 64 << 20,
        }
    }
}

impl StreamInput {
    /// A stream that exists, bound to nothing by us.
    pub fn new(stream: &str) -> Self {
        Self {
            stream: stream.into(),
            supply: Supply::Others,
            declare: false,
            retention_age: Duration::from_hours(7 * 24),
            retention_bytes: 4 << 30,
            replays_max: 4,
            last_rebuild: Duration::from_hours(1),
        }
    }
}

impl Default for LogBounds {
    fn default() -> Self {
        let age_max = Duration::from_secs(600);
        Self { messages_max: 100_000, bytes_max: 64 << 20, age_max, last: LastBounds::default() }
    }
}

impl Default for LastBounds {
    fn default() -> Self {
        Self { each: 1, messages_max: 10_000, bytes_max: 16 << 20 }
    }
}
