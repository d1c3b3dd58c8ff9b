//! What goes up, made fit for the wire. A bad property closes the AMQP channel and takes every publish in flight with it,
//! so everything that a client chose is checked here, before it can do that.

use bytes::Bytes;
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable, LongString, ShortString};
use tokio::sync::oneshot;

use crate::config::Settings;
use crate::hub::upstream::{First, Promise};
use crate::metrics::{Metrics, PublishResult};
use crate::model::outgoing::{Outgoing, PublishOutcome, RETAINED_KEY, Target};
use crate::model::topic::Topic;
use crate::model::value::{Headers, Value};

use super::inspect::ID_HEADER;
use super::marks::Place;

/// Bytes of all header fields of one publish, as they stand on the wire; they must fit one frame with the properties.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;

/// How deep tables and lists in them may be nested.
pub const HEADERS_DEPTH_MAX: usize = 8;

/// The most bytes of a property or of a field's name (AMQP 0-9-1, section 4.2.5.3).
const SHORT_BYTES_MAX: usize = 255;

/// A message with its exchange and properties, ready to be published, and the place for its outcome.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// Where it goes.
    pub(crate) exchange: String,
    /// The configuration's key that says so.
    pub(crate) key: String,
    /// Its routing key.
    pub(crate) topic: Topic,
    /// Its body.
    pub(crate) payload: Bytes,
    /// Checked; the headers come in when it is published.
    pub(crate) properties: AMQPProperties,
    /// Its header fields, checked, without our id.
    pub(crate) headers: FieldTable,
    /// Who is told the outcome.
    pub(crate) answer: Answer,
}

/// Who is told how a publish ended.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A client's publish, which is counted.
    Publish(Promise),
    /// The request of a call, which is counted as a call.
    Request(oneshot::Sender<PublishOutcome>),
}

impl Answer {
    /// Tells; whoever has stopped waiting misses it.
    pub(crate) fn give(self, metrics: &Metrics, outcome: PublishOutcome) {
        match self {
            Self::Publish(promise) => {
                metrics.publish(&outcome);
                promise.tell(outcome);
            }
            // The receiver may have gone with its session.
            Self::Request(place) => _ = place.send(outcome),
        }
    }

    /// Tells that it is not known yet whether the message arrived; who may still be told is left.
    pub(crate) fn doubt(self, metrics: &Metrics, sentence: &str) -> Option<First> {
        match self {
            Self::Publish(promise) => {
                metrics.publish(PublishResult::Unavailable);
                promise.doubt(sentence)
            }
            Self::Request(_) => {
                self.give(metrics, PublishOutcome::Unavailable(sentence.to_owned()));
                None
            }
        }
    }
}

/// Which exchange publishes or calls on a topic go to, and which key says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination<'a> {
    exchange: &'a str,
    key: String,
}

impl<'a> Destination<'a> {
    /// Where a publish goes: by its topic the narrowest route, else `[publish]`.
    ///
    /// # Errors
    /// In words, when its client takes the exchange to be another.
    pub(crate) fn of_publish(settings: &'a Settings, message: &Outgoing) -> Result<Self, String> {
        let published = Self::routed(settings, &message.topic, (&settings.publish.exchange, "publish.exchange"));
        published.directed(message)
    }

    /// Where a call goes: by its topic the narrowest route, else `[call]`; or, where its client would rather publish it, where
    /// publishes go.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) fn of_call(settings: &'a Settings, message: &Outgoing) -> Result<Self, String> {
        let topic = &message.topic;
        match message.target {
            Target::Routed | Target::Queue => {
                Self::routed(settings, topic, (&settings.call.exchange, "call.exchange")).directed(message)
            }
            Target::Published | Target::Exchange(_) => Self::of_publish(settings, message),
        }
    }

    /// Straight into a queue.
    fn of_queues() -> Self {
        Self { exchange: "", key: "the default exchange".to_owned() }
    }

    /// As a client directs it: it cannot go anywhere else than where its topic goes, but it can be wrong about that.
    fn directed(self, message: &Outgoing) -> Result<Self, String> {
        match &message.target {
            Target::Routed | Target::Published => Ok(self),
            Target::Queue => Ok(Destination::of_queues()),
            Target::Exchange(name) if *name == self.exchange => Ok(self),
            Target::Exchange(_) => {
                let (topic, Self { exchange, key }) = (message.topic.as_str(), self);
                Err(format!("topic {topic:?} goes to exchange {exchange:?} here: name that one, or change {key}"))
            }
        }
    }

    fn routed(settings: &'a Settings, topic: &Topic, (exchange, key): (&'a str, &str)) -> Self {
        // The narrower pattern stands first.
        match settings.routes.iter().find(|route| route.pattern.matches(topic)) {
            Some(route) => Self { exchange: &route.exchange, key: format!("route.{}.exchange", route.name) },
            None => Self { exchange, key: key.to_owned() },
        }
    }
}

/// A message with its destination, checked.
///
/// # Errors
/// The place for the outcome again, with the reason in words, when it must not reach the broker.
pub(crate) fn checked(
    message: Outgoing,
    destination: Destination<'_>,
    answer: Answer,
) -> Result<Outbound, (Answer, String)> {
    let (properties, headers) = match properties(&message).and_then(|fit| Ok((fit, headers(&message.headers)?))) {
        Ok(checked) => checked,
        Err(sentence) => return Err((answer, sentence)),
    };
    let Outgoing { topic, payload, origin, retained, .. } = message;
    let Destination { exchange, key } = destination;
    let place = Place { exchange, key: topic.as_str() };
    let headers = match origin {
        Some(connection) => place.not_for(&connection, headers),
        None => headers,
    };
    let headers = if retained { for_every_node(place.retained(headers)) } else { headers };
    Ok(Outbound { exchange: exchange.to_owned(), key, topic, payload, properties, headers, answer })
}

/// An answer to somebody who asked by a message: to the queue that they named, which is its topic.
///
/// # Errors
/// In words, when it must not reach the broker.
pub(crate) fn reply(message: Outgoing, answer: Answer) -> Result<Outbound, String> {
    checked(message, Destination::of_queues(), answer).map_err(|(_, sentence)| sentence)
}

/// Every exchange that publishes or calls may go to, with the key that names it.
pub(crate) fn exchanges(settings: &Settings) -> Vec<(String, String)> {
    let fixed = [(&settings.publish.exchange, "publish.exchange"), (&settings.call.exchange, "call.exchange")];
    let fixed = fixed.into_iter().map(|(exchange, key)| (exchange.clone(), key.to_owned()));
    let routed = settings.routes.iter().map(|route| (route.exchange.clone(), format!("route.{}.exchange", route.name)));
    fixed.chain(routed).collect()
}

/// The properties that a client may choose, checked.
///
/// # Errors
/// In words, when one cannot be published.
fn properties(message: &Outgoing) -> Result<AMQPProperties, String> {
    let mut properties = AMQPProperties::default();
    if let Some(content_type) = &message.content_type {
        properties = properties.with_content_type(short(content_type, "content_type")?);
    }
    if let Some(message_id) = &message.message_id {
        properties = properties.with_message_id(short(message_id, "message_id")?);
    }
    if let Some(correlation_id) = &message.correlation_id {
        properties = properties.with_correlation_id(short(correlation_id, "correlation_id")?);
    }
    Ok(properties)
}

fn short(text: &str, name: &str) -> Result<ShortString, String> {
    ShortString::try_new(text)
        .map_err(|_| format!("{name} is {} bytes long, the limit is {SHORT_BYTES_MAX}", text.len()))
}

/// The header fields that a client chose, checked and as the library wants them.
///
/// # Errors
/// In words, when one cannot be published.
fn headers(headers: &Headers) -> Result<FieldTable, String> {
    for (name, _) in &headers.0 {
        reserved(name)?;
    }
    let mut budget = Budget { bytes_left: HEADERS_BYTES_MAX };
    budget.table(headers, 1)
}

/// The same of a message that is to be retained: by a second key it comes to every node that keeps such, and the broker takes
/// that out again.
fn for_every_node(mut headers: FieldTable) -> FieldTable {
    let key = AMQPValue::LongString(LongString::from(RETAINED_KEY));
    headers.insert("BCC".into(), AMQPValue::FieldArray(FieldArray::from(vec![key])));
    headers
}

/// The same with our id added.
pub(crate) fn with_id(mut headers: FieldTable, id: i64) -> FieldTable {
    if let Ok(name) = ShortString::try_new(ID_HEADER) {
        headers.insert(name, AMQPValue::LongLongInt(id));
    }
    headers
}

/// Refuses names that are the broker's own or ours, and those that would route past the rights on a topic.
fn reserved(name: &str) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    if lower == "cc" || lower == "bcc" {
        return Err(format!("header '{name}' would route the message elsewhere: publish once for each topic"));
    }
    let ours = ["x-passerelle-", "x-death", "x-first-death-", "x-last-death-"];
    if ours.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(format!("header '{name}' is reserved: choose another name"));
    }
    Ok(())
}

/// Counts what is left of [`HEADERS_BYTES_MAX`] while values are converted.
struct Budget {
    bytes_left: usize,
}

impl Budget {
    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or_else(|| {
            format!("the headers have more than {HEADERS_BYTES_MAX} bytes: put the data into the payload")
        })?;
        Ok(())
    }

    fn table(&mut self, headers: &Headers, depth: usize) -> Result<FieldTable, String> {
        self.enter(depth)?;
        let mut table = FieldTable::default();
        for (name, value) in &headers.0 {
            self.spend(1 + name.len())?;
            let name = ShortString::try_new(name.as_str())
                .map_err(|_| format!("a header's name is {} bytes long, the limit is {SHORT_BYTES_MAX}", name.len()))?;
            let value = self.value(value, depth)?;
            table.insert(name, value);
        }
        Ok(table)
    }

    fn enter(&mut self, depth: usize) -> Result<(), String> {
        if depth > HEADERS_DEPTH_MAX {
            return Err(format!(
                "the headers are nested more than {HEADERS_DEPTH_MAX} deep: put the data into the payload"
            ));
        }
        self.spend(4)
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<AMQPValue, String> {
        self.spend(1)?;
        Ok(match value {
            Value::Null => AMQPValue::Void,
            Value::Bool(truth) => self.fixed(1, AMQPValue::Boolean(*truth))?,
            Value::Int(number) => self.fixed(8, AMQPValue::LongLongInt(*number))?,
            Value::UInt(number) => {
                return Err(format!("the number {number} in the headers is too large: send it as a string"));
            }
            // RabbitMQ cannot read these and answers by closing the whole connection.
            Value::Float(number) if !number.is_finite() => {
                return Err(format!("the number {number} in the headers cannot be carried: leave it out"));
            }
            Value::Float(number) => self.fixed(8, AMQPValue::Double(*number))?,
            Value::Text(text) => self.fixed(4 + text.len(), AMQPValue::LongString(LongString::from(text.as_str())))?,
            Value::Bytes(bytes) => {
                self.fixed(4 + bytes.len(), AMQPValue::ByteArray(ByteArray::from(bytes.as_slice())))?
            }
            Value::Timestamp(seconds) => self.fixed(8, AMQPValue::Timestamp(*seconds))?,
            Value::List(values) => {
                self.enter(depth + 1)?;
                let values: Result<Vec<_>, _> = values.iter().map(|value| self.value(value, depth + 1)).collect();
                AMQPValue::FieldArray(FieldArray::from(values?))
            }
            Value::Table(table) => AMQPValue::FieldTable(self.table(table, depth + 1)?),
        })
    }

    fn fixed(&mut self, bytes: usize, value: AMQPValue) -> Result<AMQPValue, String> {
        self.spend(bytes).map(|()| value)
    }
}

#[cfg(test)]
#[path = "outbound/tests.rs"]
mod tests;
