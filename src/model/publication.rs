//! The two stages of a message on its way down: a [`Draft`] that a source received, and the
//! [`Publication`] that the sequencer made of it by giving it a position.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::cursor::{Cursor, Epoch};
use crate::model::event_names::EventNames;
use crate::model::topic::Topic;
use crate::model::value::Headers;

/// Where a source stands in the configuration, in the order of the names; small, so that it can index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u16);

impl SourceId {
    /// For indexing tables that have one row a source.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What every publication of a source shares.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Its place in the configuration.
    pub id: SourceId,
    /// Its name there: ASCII letters, digits, `_` and `-`.
    pub name: Arc<str>,
    /// Which log this is: drawn anew at each start.
    pub epoch: Epoch,
    /// How its payloads become frames on `passerelle.v1.raw`.
    pub raw_frames: RawFrames,
    /// How its messages are called where they go out as events.
    pub events: EventNames,
}

impl SourceInfo {
    /// A source whose frames and events are as they are where nothing is said of them.
    pub fn new(id: SourceId, name: &str, epoch: Epoch) -> Self {
        Self { id, name: name.into(), epoch, raw_frames: RawFrames::default(), events: EventNames::default() }
    }

    /// The cursor of a position in its log.
    pub fn cursor(&self, offset: u64) -> Cursor {
        Cursor { epoch: self.epoch, offset }
    }

    /// The same under its name, as a part of a joint cursor.
    pub fn named_cursor(&self, offset: u64) -> (String, Cursor) {
        (self.name.to_string(), self.cursor(offset))
    }
}

/// How a payload becomes a WebSocket frame on `passerelle.v1.raw`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RawFrames {
    /// Text when it is UTF-8, else binary.
    #[default]
    Auto,
    /// Text; what is not UTF-8 is skipped.
    Text,
    /// Binary.
    Binary,
}

/// Milliseconds since 1970.
pub type UnixMillis = u64;

/// How exactly the publisher told when it published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishedAt {
    /// Header `timestamp_in_ms`: exact enough for the latency histogram.
    Millis(UnixMillis),
    /// The AMQP property, whole seconds, here in milliseconds.
    Seconds(UnixMillis),
    /// Not told.
    Unknown,
}

/// The AMQP properties and headers that a subscriber can see.
#[derive(Debug, Clone, PartialEq)]
pub struct Attributes {
    /// The property `content_type`, when set and not empty.
    pub content_type: Option<String>,
    /// The property `message_id`.
    pub message_id: Option<String>,
    /// The property `correlation_id`.
    pub correlation_id: Option<String>,
    /// Header fields; the broker's own bookkeeping included.
    pub headers: Headers,
    /// When it was published.
    pub published_at: PublishedAt,
    /// Whether the broker said that it had delivered this before.
    pub redelivered: bool,
    /// Whether its publisher had it retained: it is kept for later subscribers, in place of the one before it on its topic.
    pub retained: bool,
    /// The connection that published it and does not want it back.
    pub origin: Option<Arc<str>>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            content_type: None,
            message_id: None,
            correlation_id: None,
            headers: Headers::default(),
            published_at: PublishedAt::Unknown,
            redelivered: false,
            retained: false,
            origin: None,
        }
    }
}

/// A message as a source received it, not yet ordered.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Its topic: the routing key, or what the source's template says.
    pub topic: Topic,
    /// The body, moved out of the AMQP delivery.
    pub payload: Bytes,
    /// Everything else.
    pub attributes: Attributes,
    /// When this node received it.
    pub received_at: UnixMillis,
}

impl Draft {
    /// The best known time of publishing: the publisher's, else when it was received.
    pub fn timestamp_ms(&self) -> UnixMillis {
        match self.attributes.published_at {
            PublishedAt::Millis(time) | PublishedAt::Seconds(time) => time,
            PublishedAt::Unknown => self.received_at,
        }
    }
}

/// A draft with its position; immutable and shared by all shards.
#[derive(Debug)]
pub struct Publication {
    /// The source and its epoch.
    pub source: Arc<SourceInfo>,
    /// The position in the source's log: above that of the publication before it, and not always by one, because
    /// holes and new bindings take positions too.
    pub offset: u64,
    /// What the source received.
    pub draft: Draft,
}

impl Publication {
    /// The cursor that names this publication's position.
    pub fn cursor(&self) -> Cursor {
        self.source.cursor(self.offset)
    }

    /// The best known time of publishing.
    pub fn timestamp_ms(&self) -> UnixMillis {
        self.draft.timestamp_ms()
    }
}
