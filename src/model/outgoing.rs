//! What goes up: a message that a client wants published, a request that it wants answered, and how each ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::model::topic::Topic;
use crate::model::value::Headers;

/// The key under which what is retained goes to every node that keeps it, beside its topic. It has so many words that hardly a
/// binding of somebody else's is meant by it.
pub const RETAINED_KEY: &str = "x.passerelle.retained.for.every.node";

/// A message on its way to the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Its topic, which becomes the routing key.
    pub topic: Topic,
    /// Where it goes.
    pub target: Target,
    /// The body.
    pub payload: Bytes,
    /// The property `content_type`.
    pub content_type: Option<String>,
    /// The property `message_id`.
    pub message_id: Option<String>,
    /// The property `correlation_id` of a publish; a call has one of its own.
    pub correlation_id: Option<String>,
    /// Header fields as the client gave them; checked by the session before they come here.
    pub headers: Headers,
    /// Whether it is to be retained for later subscribers; without payload it only ends that for the one before it.
    pub retained: bool,
    /// Who publishes; nobody in particular without it.
    pub user: Option<Arc<str>>,
    /// The connection that does not want to receive it itself.
    pub origin: Option<Arc<str>>,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// To the exchange that the configuration says for its topic, and for what it is: a publish or a call.
    Routed,
    /// Where a publish on its topic goes, even if it is a call.
    Published,
    /// There too, and the client says which exchange it takes that to be.
    Exchange(String),
    /// To the queue of the topic's name.
    Queue,
}

impl Outgoing {
    /// A message with nothing but a topic and a body.
    pub fn new(topic: Topic, payload: Bytes) -> Self {
        Self {
            topic,
            target: Target::Routed,
            payload,
            content_type: None,
            message_id: None,
            correlation_id: None,
            headers: Headers::default(),
            retained: false,
            user: None,
            origin: None,
        }
    }
}

/// How a publish ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The broker confirmed; `routed` says whether any queue got it.
    Confirmed {
        /// False when the broker returned it as unroutable.
        routed: bool,
    },
    /// The broker, or a rule before it, refused the message; the sentence says why.
    Refused(String),
    /// The broker could not be reached, is blocked, or did not confirm in time; it may or may not have got it.
    Unavailable(String),
}

/// A request and how long its answer may take.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The message itself.
    pub message: Outgoing,
    /// From now until `timeout` is answered.
    pub timeout: Duration,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The body.
    pub payload: Bytes,
    /// The property `content_type`.
    pub content_type: Option<String>,
    /// Header fields.
    pub headers: Headers,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub enum CallOutcome {
    /// Somebody answered.
    Replied(Reply),
    /// No queue took the request.
    Unroutable,
    /// Nobody answered in time.
    TimedOut,
    /// The broker, or a rule before it, refused the request.
    Refused(String),
    /// The broker could not be reached or went away before the answer.
    Unavailable(String),
}
