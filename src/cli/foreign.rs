//! `sub` over the protocols of others: a client of each, that knows no socket. It says what is to be sent first, and makes of
//! what the server sends what is to be printed and answered.
//!
//! What they do not tell is not printed, outages for one; what they have no word for is refused before anything is sent. Where
//! a message comes once for each subscription that it matches, the first of them prints it. Why a session ends the closing
//! frame says in all of them, and whether to come back.

mod mqtt;
mod stomp;
mod wamp;

use serde_json::{Map, Value};
use tokio_tungstenite::tungstenite::Message;

use super::client::{Ended, Frame, later};
use crate::model::cursor::JointCursor;
use crate::model::topic::{Pattern, Topic};
use crate::protocol::json::payload;
use crate::protocol::json::write::Object;

pub(super) use mqtt::Mqtt;
pub(super) use stomp::Stomp;
pub(super) use wamp::Wamp;

/// Bytes of one frame or packet of the server.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Fields of a message that tell what was missed before it, where the protocol has no word of its own: reasons, sources, and how
/// many.
const GAP: [&str; 3] = ["gap", "gap-source", "gap-missed"];

/// A client of one protocol; it outlives its connections.
pub(super) trait Client {
    /// What is negotiated.
    fn subprotocol(&self) -> &'static str;

    /// The first thing to say on a new connection.
    ///
    /// # Errors
    /// When it cannot be said.
    fn open(&mut self) -> Result<Message, Ended>;

    /// Whether what came while there was no connection may be missed, because it is not known where to go on.
    fn has_no_place(&self) -> bool;

    /// What the server said.
    ///
    /// # Errors
    /// When it said that this is the end, or what cannot be understood.
    fn hear(&mut self, message: Message) -> Result<Vec<Heard>, Ended>;
}

/// What is to be done about something that was heard, in this order.
#[derive(Debug)]
pub(super) enum Heard {
    /// To be sent.
    Say(Message),
    /// A subscription stands.
    Stands,
    /// To be printed: an object of `passerelle.v1.json`, as far as the protocol tells what is in it.
    Message(String),
    /// To be told beside messages.
    Notice(Box<Frame<'static>>),
}

/// What is wanted of every subscription, as far as protocols have words for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    pub(super) patterns: Vec<Pattern>,
    pub(super) after: JointCursor,
    pub(super) filter: Option<Map<String, Value>>,
    pub(super) on_slow: Option<String>,
    pub(super) max_rate: Option<u64>,
}

impl Terms {
    /// Refuses what a protocol has no word for.
    fn refuse(&self, protocol: &str, unsaid: &[(&str, bool)]) -> Result<(), String> {
        let rate = ("--max-rate", self.max_rate.is_some());
        match unsaid.iter().chain([&rate]).find(|(_, is_given)| *is_given) {
            Some((flag, _)) => Err(format!("{protocol} has no word for {flag}: use --protocol json")),
            None => Ok(()),
        }
    }
}

/// Subscriptions of which each is sent a message that several of them want.
#[derive(Debug)]
struct Subscriptions(Vec<Subscription>);

#[derive(Debug)]
struct Subscription {
    pattern: Pattern,
    /// The newest cursor of each source.
    after: JointCursor,
    /// Whether it stands on this connection.
    stands: bool,
    /// The sources that it was to go on in when it was asked for.
    resumes: Vec<String>,
}

impl Subscriptions {
    fn new(terms: &Terms) -> Self {
        let subscription = |pattern: &Pattern| Subscription {
            pattern: pattern.clone(),
            after: terms.after.clone(),
            stands: false,
            resumes: Vec::new(),
        };
        Self(terms.patterns.iter().map(subscription).collect())
    }

    /// All are to be asked for, on a new connection.
    fn reconnect(&mut self) {
        for one in &mut self.0 {
            one.stands = false;
            one.resumes = one.after.0.iter().map(|(source, _)| source.clone()).collect();
        }
    }

    /// Whether any of them does not know where to go on.
    fn has_no_place(&self) -> bool {
        self.0.iter().any(|one| one.after.0.is_empty())
    }

    fn stands(&mut self, number: usize) {
        if let Some(one) = self.0.get_mut(number) {
            one.stands = true;
        }
    }

    /// A message came to the one of this number. Whether it is to be printed for it, and not for one before that is sent it too.
    fn received(&mut self, number: usize, topic: &str, (at, replay): (&JointCursor, bool)) -> bool {
        let parsed = Topic::parse(topic);
        let is_sent = |one: &Subscription| {
            let resumes = || at.0.iter().all(|(source, _)| one.resumes.contains(source));
            let matches = parsed.as_ref().is_ok_and(|topic| one.pattern.matches(topic));
            one.stands && matches && (!replay || resumes())
        };
        let is_first = !self.0.iter().take(number).any(is_sent);
        for (place, one) in self.0.iter_mut().enumerate() {
            for (source, cursor) in &at.0 {
                let knows = one.after.of(source).is_some();
                // What is live comes in order: who stands and was sent nothing yet has missed nothing up to here.
                if place == number || (one.stands && !replay && !knows) {
                    one.after.set(source, *cursor);
                }
            }
        }
        is_first
    }
}

/// A message, as far as a protocol tells what there is.
#[derive(Debug, Default)]
struct Received<'a> {
    topic: &'a str,
    /// Where it was, in its source.
    at: JointCursor,
    replay: bool,
    redelivered: bool,
    content_type: Option<&'a str>,
    timestamp_ms: Option<u64>,
    message_id: Option<&'a str>,
    headers: Map<String, Value>,
    payload: &'a [u8],
}

impl Received<'_> {
    fn line(&self) -> String {
        let mut object = Object::new("message", self.payload.len());
        if let [(source, _)] = &*self.at.0 {
            object = object.text("source", source);
        }
        object = object.text("topic", self.topic);
        if let [(_, cursor)] = &*self.at.0 {
            object = object.text("cursor", &cursor.to_string());
        }
        object = payload::push(object, self.payload, self.content_type);
        if let Some(timestamp) = self.timestamp_ms {
            object = object.number("timestamp_ms", timestamp);
        }
        if !self.headers.is_empty() {
            object = object.verbatim("headers", &Value::Object(self.headers.clone()).to_string());
        }
        object = object.text_if_any("message_id", self.message_id);
        for (key, is_set) in [("redelivered", self.redelivered), ("replay", self.replay)] {
            object = if is_set { object.verbatim(key, "true") } else { object };
        }
        String::from_utf8_lossy(&object.finish()).into_owned()
    }
}

/// What was missed before a message, where that is told in [`GAP`].
fn gaps<'a>(wanted: &str, field: impl Fn(&str) -> Option<&'a str>) -> Vec<Heard> {
    let [Some(reasons), Some(sources), Some(missed)] = GAP.map(field) else { return Vec::new() };
    let all: Vec<(&str, &str)> = reasons.split(',').zip(sources.split(',')).collect();
    // The number is that of all together.
    let missed = missed.parse().ok().filter(|_| all.len() == 1);
    all.into_iter().map(|(reason, source)| gap(wanted, (source, reason, missed))).collect()
}

/// The headers of a message, of a name that is repeated the first, but for those that are the protocol's own.
fn headers<'a>(all: impl Iterator<Item = (&'a str, &'a str)>, own: &[&str]) -> Map<String, Value> {
    let mut headers = Map::new();
    for (name, value) in all.filter(|(name, _)| !GAP.contains(name) && !own.contains(name)) {
        headers.entry(name).or_insert_with(|| value.into());
    }
    headers
}

fn gap(wanted: &str, (source, reason, missed): (&str, &str, Option<u64>)) -> Heard {
    Heard::Notice(Box::new(Frame {
        op: "gap".into(),
        pattern: Some(wanted.to_owned()),
        source: Some(source.to_owned()),
        reason: Some(reason.to_owned()),
        missed,
        ..Frame::default()
    }))
}

/// What a refusal of a subscription means: only what the broker's absence causes may go well later.
fn refused(sentence: String, is_for_now: bool) -> Ended {
    if is_for_now { later(sentence) } else { Ended::Refused(sentence) }
}

/// What the server sent is not what was negotiated.
fn not_understood(protocol: &str, what: &str) -> Ended {
    Ended::Refused(format!("the server sent what is no {protocol}: {what}"))
}

#[cfg(test)]
mod tests;
