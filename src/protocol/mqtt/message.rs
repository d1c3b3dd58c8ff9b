//! PUBLISH both ways: a publication as a session gets it, and what a client publishes as a message for the broker.
//!
//! Content type and correlation data are AMQP's properties, user properties its headers, both ways. A response topic is the
//! header `x-reply-to-topic`, as RabbitMQ's plugin writes it: AMQP's `reply_to` would name a queue, and a client could have a
//! service write into any. Correlation data that is no short text is the header `x-correlation-id`, as there.

use bytes::Bytes;

use super::label::{Publisher, Wanted};
use super::packet::{Delivery, Packet, Publish, PublishTopic, Version};
use super::properties::{MessageProperties, UserProperties};
use super::reason::ReasonCode;
use super::topic;
use super::wire::{Binary, Text};
use super::writer;
use crate::model::outgoing::Outgoing;
use crate::model::publication::{Attributes, Draft};
use crate::model::topic::Topic;
use crate::model::value::{Headers, Value};
use crate::protocol::json::headers;
use crate::protocol::missing::{self, Missing};
use crate::protocol::{Message, Outbound, Stage, Unsent};

/// The header in which a response topic travels.
const RESPONSE_TOPIC: &str = "x-reply-to-topic";

/// The header in which correlation data travels that is not a property's text.
const CORRELATION_DATA: &str = "x-correlation-id";

/// Bytes of a property that is an AMQP short string.
const PROPERTY_BYTES_MAX: usize = 255;

/// A live message at QoS 0, for whoever has the same wishes. Whoever is to be sent it otherwise writes it alone.
pub(super) fn shared(message: Message<'_>) -> Result<Outbound, Unsent> {
    let wanted = Wanted::of(message.labels, &message.publication.draft, Publisher::Other).ok_or(Unsent::Unwanted)?;
    of_draft((&message.publication.draft, message.stage), &wanted, Delivery::AtMostOnce, None).ok_or(Unsent::Impossible)
}

/// A message as it is sent; nothing where MQTT cannot say its topic.
pub(super) fn of_draft(
    (draft, stage): (&Draft, Stage),
    wanted: &Wanted,
    delivery: Delivery,
    missing: Option<&Missing>,
) -> Option<Outbound> {
    let name = topic::name_of(&draft.topic)?;
    let is_stored = stage == Stage::Replay;
    let is_v5 = wanted.version == Version::V5;
    let publish = Publish {
        delivery,
        retain: draft.attributes.retained && (is_stored || wanted.retain_as_published),
        topic: PublishTopic::Named { name, alias: None },
        subscription_ids: wanted.ids.clone(),
        properties: if is_v5 { properties(draft, missing) } else { MessageProperties::default() },
        payload: draft.payload.clone(),
    };
    writer::encode(&Packet::Publish(Box::new(publish)), wanted.version).ok().map(Outbound::Binary)
}

fn properties(draft: &Draft, missing: Option<&Missing>) -> MessageProperties {
    let Attributes { content_type, correlation_id, headers, .. } = &draft.attributes;
    let correlation = match (correlation_id, headers.value(CORRELATION_DATA)) {
        (Some(text), _) => Some(Bytes::copy_from_slice(text.as_bytes())),
        (None, Some(Value::Bytes(bytes))) => Some(Bytes::copy_from_slice(bytes)),
        (None, Some(Value::Text(text))) => Some(Bytes::copy_from_slice(text.as_bytes())),
        _ => None,
    };
    MessageProperties {
        content_type: content_type.as_deref().and_then(Text::new),
        response_topic: response_topic(headers),
        correlation_data: correlation.and_then(Binary::new),
        user: user_properties(headers, missing),
        ..MessageProperties::default()
    }
}

fn response_topic(headers: &Headers) -> Option<Text> {
    let Some(Value::Text(key)) = headers.value(RESPONSE_TOPIC) else { return None };
    topic::name_of(&Topic::parse(key).ok()?)
}

/// The headers as texts, and what was missed before the message.
fn user_properties(headers: &Headers, missing: Option<&Missing>) -> UserProperties {
    let own = headers.0.iter().filter(|(name, _)| !is_property(name));
    let own = own.map(|(name, value)| (name.clone(), headers::text(value)));
    let told = missing.map(Missing::fields).into_iter().flatten();
    let pair = |(name, value): (String, String)| Some((Text::new(name)?, Text::new(value)?));
    UserProperties(told.chain(own).filter_map(pair).collect())
}

fn is_property(header: &str) -> bool {
    header == RESPONSE_TOPIC || header == CORRELATION_DATA || missing::FIELDS.contains(&header)
}

/// What a client publishes, for the broker.
///
/// # Errors
/// The reason, when it cannot be.
pub(super) fn outgoing(topic: Topic, properties: MessageProperties, payload: Bytes) -> Result<Outgoing, ReasonCode> {
    if properties.payload_is_utf8 == Some(true) && simdutf8::basic::from_utf8(&payload).is_err() {
        return Err(ReasonCode::PayloadFormatInvalid);
    }
    let mut message = Outgoing::new(topic, payload);
    message.content_type = properties.content_type.map(Text::into_string);
    message.headers = headers_of(properties.user);
    if let Some(name) = properties.response_topic {
        let topic = topic::topic_of(&name).map_err(|_| ReasonCode::TopicNameInvalid)?;
        message.headers.0.push((RESPONSE_TOPIC.into(), Value::Text(topic.as_str().into())));
    }
    if let Some(data) = properties.correlation_data {
        correlate(&mut message, data.bytes());
    }
    Ok(message)
}

/// User properties as headers; of a name that is repeated the first.
fn headers_of(properties: UserProperties) -> Headers {
    let mut headers: Vec<(String, Value)> = Vec::new();
    for (name, value) in properties.0 {
        let is_known = headers.iter().any(|(known, _)| **known == *name);
        if !is_known && !is_property(&name) {
            headers.push((name.into_string(), Value::Text(value.into_string())));
        }
    }
    Headers(headers)
}

fn correlate(message: &mut Outgoing, data: &[u8]) {
    match std::str::from_utf8(data) {
        Ok(text) if text.len() <= PROPERTY_BYTES_MAX && !text.is_empty() && !text.contains('\0') => {
            message.correlation_id = Some(text.to_owned());
        }
        _ => message.headers.0.push((CORRELATION_DATA.into(), Value::Bytes(data.to_vec()))),
    }
}
