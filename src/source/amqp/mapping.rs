//! Between AMQP's words and ours: a delivery becomes a [`Draft`], and header values cross in both directions.
//!
//! Whatever a publisher wrote there is a value here, never a panic. What cannot become a message is told by a
//! [`Rejection`]; what is merely odd is shown as well as it can be.

use std::fmt::Write as _;

use bytes::Bytes;
use lapin::message::Delivery;
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::config::{Input, Source, StreamInput, Supply, TemplatePart};
use crate::metrics::Rejection;
use crate::model::delivery::ConsumeRequest;
use crate::model::publication::{Attributes, Draft, PublishedAt, UnixMillis};
use crate::model::topic::Topic;
use crate::model::value::{Headers, Value};

use super::inspect::{ID_HEADER, ORIGIN_HEADER, REDELIVERED_HEADER, RETAINED_HEADER, SHORTENED_HEADER};
use super::marks::Place;
use super::stream::OFFSET;

/// The header field in which RabbitMQ's interceptor, or a publisher, tells the time to the millisecond.
const TIMESTAMP_HEADER: &str = "timestamp_in_ms";

/// The last millisecond of the year 9999: what is said to be later is no time that a client could show.
const PUBLISHED_MAX: UnixMillis = 253_402_300_799_999;

/// Header fields that no client sees.
const OURS: [&str; 5] = [ID_HEADER, ORIGIN_HEADER, REDELIVERED_HEADER, RETAINED_HEADER, OFFSET];

/// Makes drafts of one source's deliveries.
#[derive(Debug)]
pub(crate) struct Mapper {
    name: String,
    queue: String,
    template: Option<Vec<TemplatePart>>,
    bytes_max: usize,
    /// The topic of the delivery before: mostly it is the next one's too.
    last: Option<Topic>,
}

impl Mapper {
    /// For the source that is configured so.
    pub(crate) fn new(source: &Source) -> Self {
        let queue = match &source.input {
            Input::Queue(input) => &input.queue,
            // In there the routing key is the topic already.
            Input::Stream(StreamInput { supply: Supply::Queue(_), .. }) => {
                return Self { template: None, ..Self::of_queue(source, "") };
            }
            Input::Stream(input) => &input.stream,
            Input::Exchange(_) => "",
        };
        Self::of_queue(source, queue)
    }

    /// For what comes to the source from this queue.
    pub(crate) fn of_queue(source: &Source, queue: &str) -> Self {
        Self {
            name: source.name.clone(),
            queue: queue.to_owned(),
            template: source.topic.as_ref().map(|template| template.0.clone()),
            bytes_max: source.log.bytes_max,
            last: None,
        }
    }

    /// The draft; the payload is moved, not copied.
    ///
    /// # Errors
    /// When the delivery cannot become a message.
    pub(crate) fn draft(&mut self, delivery: &mut Delivery, now: UnixMillis) -> Result<Draft, Rejection> {
        let topic = self.topic(delivery)?;
        let attributes = attributes(delivery);
        let payload = Bytes::from(std::mem::take(&mut delivery.data));
        Ok(Draft { topic, payload, attributes, received_at: now })
    }

    /// The topic that the draft would have.
    ///
    /// # Errors
    /// When the delivery cannot become a message.
    pub(crate) fn topic(&mut self, delivery: &Delivery) -> Result<Topic, Rejection> {
        if delivery.data.len() > self.bytes_max {
            return Err(Rejection::TooLarge);
        }
        // Filters, selectors and the template would take it for a message that never had the fields that it lacks.
        if is_marked(&delivery.properties, SHORTENED_HEADER) {
            return Err(Rejection::Properties);
        }
        let rendered;
        let text = match &self.template {
            None => delivery.routing_key.as_str(),
            Some(parts) => {
                rendered = self.render(parts, delivery)?;
                &rendered
            }
        };
        let text = if text.is_empty() { &self.name } else { text };
        if let Some(last) = self.last.as_ref().filter(|last| last.as_str() == text) {
            return Ok(last.clone());
        }
        // Bytes that were not UTF-8 have become NUL on the way here, which no topic may hold.
        let topic = Topic::parse(text).map_err(|_| Rejection::Topic)?;
        self.last = Some(topic.clone());
        Ok(topic)
    }

    fn render(&self, parts: &[TemplatePart], delivery: &Delivery) -> Result<String, Rejection> {
        let mut text = String::new();
        for part in parts {
            match part {
                TemplatePart::Text(literal) => text.push_str(literal),
                TemplatePart::RoutingKey => text.push_str(delivery.routing_key.as_str()),
                TemplatePart::Exchange => text.push_str(delivery.exchange.as_str()),
                TemplatePart::Queue => text.push_str(&self.queue),
                TemplatePart::Source => text.push_str(&self.name),
                TemplatePart::Header(name) => push_field(&mut text, &delivery.properties, name)?,
            }
        }
        Ok(text)
    }
}

/// The draft of a delivery that a client consumes. Whatever it is, the client is to settle it, so none is refused: a routing
/// key that is no topic gives way to the queue's name.
pub(crate) fn consumed(delivery: &mut Delivery, request: &ConsumeRequest, now: UnixMillis) -> Draft {
    tell_if_shortened(delivery, request.queue.as_str());
    let topic = match delivery.routing_key.as_str() {
        "" => request.topic_of_empty_key(delivery.exchange.as_str()).clone(),
        key => Topic::parse(key).unwrap_or_else(|_| request.queue.clone()),
    };
    let attributes = attributes(delivery);
    Draft { topic, payload: std::mem::take(&mut delivery.data).into(), attributes, received_at: now }
}

/// Says so when a message lost its headers that a client gets all the same; the client sees the mark in their place.
pub(crate) fn tell_if_shortened(delivery: &Delivery, queue: &str) {
    if is_marked(&delivery.properties, SHORTENED_HEADER) {
        tracing::warn!(
            queue = %queue.escape_debug(),
            exchange = delivery.exchange.as_str(),
            routing_key = %delivery.routing_key.as_str().escape_debug(),
            "a message's headers are longer than a frame may be: its client gets it without them"
        );
    }
}

/// Appends a header field that is text or a number.
fn push_field(text: &mut String, properties: &AMQPProperties, name: &str) -> Result<(), Rejection> {
    let field = properties.headers().as_ref().and_then(|headers| headers.inner().get(name));
    let written = match field.map(value) {
        Some(Value::Text(field)) => {
            text.push_str(&field);
            Ok(())
        }
        Some(Value::Int(number)) => write!(text, "{number}"),
        Some(Value::UInt(number) | Value::Timestamp(number)) => write!(text, "{number}"),
        Some(Value::Float(number)) => write!(text, "{number}"),
        _ => return Err(Rejection::TemplateField),
    };
    written.map_err(|_| Rejection::TemplateField)
}

fn attributes(delivery: &Delivery) -> Attributes {
    let properties = &delivery.properties;
    let (place, fields) = (place(delivery), properties.headers().as_ref());
    let headers = fields.map(headers).unwrap_or_default();
    Attributes {
        content_type: property(properties.content_type()),
        message_id: property(properties.message_id()),
        correlation_id: property(properties.correlation_id()),
        published_at: published_at(&headers, *properties.timestamp()),
        origin: fields.and_then(|fields| place.origin(fields)),
        retained: fields.is_some_and(|fields| place.is_retained(fields)),
        redelivered: delivery.redelivered || is_marked(properties, REDELIVERED_HEADER),
        headers,
    }
}

/// Whether it has a header field of ours.
fn is_marked(properties: &AMQPProperties, header: &str) -> bool {
    properties.headers().as_ref().is_some_and(|headers| headers.contains_key(header))
}

/// Where it was published.
pub(crate) fn place(delivery: &Delivery) -> Place<'_> {
    Place { exchange: delivery.exchange.as_str(), key: delivery.routing_key.as_str() }
}

/// A property's text, if it has any; what was not UTF-8 in it shows as the replacement character.
pub(crate) fn property(property: &Option<ShortString>) -> Option<String> {
    property.as_ref().map(|text| readable(text.as_str())).filter(|text| !text.is_empty())
}

fn readable(text: &str) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() }
}

fn published_at(headers: &Headers, seconds: Option<u64>) -> PublishedAt {
    let is_time = |millis: &UnixMillis| (1..=PUBLISHED_MAX).contains(millis);
    let of_header = match headers.value(TIMESTAMP_HEADER) {
        Some(Value::Int(millis)) => u64::try_from(*millis).ok(),
        Some(Value::UInt(millis)) => Some(*millis),
        _ => None,
    };
    if let Some(millis) = of_header.filter(is_time) {
        return PublishedAt::Millis(millis);
    }
    let of_property = seconds.and_then(|seconds| seconds.checked_mul(1000)).filter(is_time);
    of_property.map_or(PublishedAt::Unknown, PublishedAt::Seconds)
}

/// A table's fields, without those that are ours.
pub(crate) fn headers(table: &FieldTable) -> Headers {
    let ours = |name: &ShortString| OURS.contains(&name.as_str());
    let fields = table.inner().iter().filter(|(name, _)| !ours(name));
    Headers(fields.map(|(name, field)| (readable(name.as_str()), value(field))).collect())
}

/// A value as the rest of the program knows it.
fn value(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(truth) => Value::Bool(*truth),
        AMQPValue::ShortShortInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::ShortShortUInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::ShortInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::ShortUInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::LongInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::LongUInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::LongLongInt(number) => Value::Int(*number),
        AMQPValue::Float(number) => Value::Float(f64::from(*number)),
        AMQPValue::Double(number) => Value::Float(*number),
        // Without a sign by the letter of AMQP 0-9-1 (section 4.2.5.5), and with one as every client writes it. What is shown is
        // the nearest number that has a binary fraction.
        AMQPValue::DecimalValue(decimal) => {
            Value::Float(f64::from(decimal.value.cast_signed()) / 10f64.powi(i32::from(decimal.scale)))
        }
        AMQPValue::ShortString(text) => Value::Text(readable(text.as_str())),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(text.as_bytes().to_vec()),
        },
        AMQPValue::FieldArray(list) => Value::List(list.as_slice().iter().map(self::value).collect()),
        AMQPValue::Timestamp(seconds) => Value::Timestamp(*seconds),
        AMQPValue::FieldTable(table) => Value::Table(headers(table)),
        AMQPValue::ByteArray(bytes) => Value::Bytes(bytes.as_slice().to_vec()),
        AMQPValue::Void => Value::Null,
    }
}

#[cfg(test)]
#[path = "mapping/tests.rs"]
mod tests;
