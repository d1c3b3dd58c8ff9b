//! `MESSAGE`: a publication as a subscription gets it, a queue's delivery, and the reply to a request.
//!
//! Properties and headers of AMQP become headers, as text; lists and tables as JSON. Passerelle adds `cursor`, which a client
//! hands back in `after` to go on from there, and tells by `gap` that something was missed before a message.

use bytes::Bytes;

use super::label::Name;
use super::version::Version;
use super::writer::{self, MessageFrame};
use crate::model::cursor::JointCursor;
use crate::model::delivery::Delivery;
use crate::model::outgoing::Reply;
use crate::model::publication::{Attributes, Draft, Publication};
use crate::model::value::Headers;
use crate::protocol::json::headers;
use crate::protocol::missing::{self, Missing};
use crate::protocol::{Message, Outbound, Stage, Unsent};

/// Headers that say how a message comes: they are there or not, so that a publisher's must not be taken for them.
const REPLAY: &str = "replay";
const REDELIVERED: &str = "redelivered";

/// A live message, or one of a replay, for whoever calls the subscription the same.
pub(super) fn shared(message: Message<'_>) -> Result<Outbound, Unsent> {
    let [label] = message.labels else { return Err(Unsent::Unwanted) };
    let name = Name::of(label).ok_or(Unsent::Unwanted)?;
    Ok(of_publication(&name, message.publication, message.stage, None))
}

/// A message for one session, with what was missed before it.
pub(super) fn of_publication(
    name: &Name<'_>,
    publication: &Publication,
    stage: Stage,
    missing: Option<&Missing>,
) -> Outbound {
    let draft = &publication.draft;
    let cursor = JointCursor(vec![publication.source.named_cursor(publication.offset)]).to_string();
    let mut extra =
        vec![("source".to_owned(), publication.source.name.to_string()), ("cursor".to_owned(), cursor.clone())];
    if stage == Stage::Replay {
        extra.push((REPLAY.into(), "true".into()));
    }
    if let Some(missing) = missing {
        extra.extend(missing.fields());
    }
    push_attributes(draft, &mut extra);
    let frame = Parts {
        version: name.version,
        subscription: name.id,
        message_id: &cursor,
        ack: name.acknowledges.then_some(cursor.as_str()),
        destination: &name.destination(draft.topic.as_str()),
        content_type: draft.attributes.content_type.as_deref(),
    };
    frame.write(&extra, &draft.payload)
}

/// A delivery of a queue, which this client alone holds.
pub(super) fn of_delivery(name: &Name<'_>, destination: &str, delivery: &Delivery) -> Outbound {
    let tag = delivery.tag.to_string();
    let mut extra = vec![("topic".to_owned(), delivery.draft.topic.as_str().to_owned())];
    push_attributes(&delivery.draft, &mut extra);
    let frame = Parts {
        version: name.version,
        subscription: name.id,
        message_id: &tag,
        ack: name.acknowledges.then_some(tag.as_str()),
        destination,
        content_type: delivery.draft.attributes.content_type.as_deref(),
    };
    frame.write(&extra, &delivery.draft.payload)
}

/// The reply to a request, on the name that it gave: RabbitMQ's plugin makes that a subscription of the same name.
pub(super) fn of_reply(version: Version, (to, correlation): (&str, Option<&str>), reply: &Reply) -> Outbound {
    let mut extra = Vec::new();
    extra.extend(correlation.map(|id| ("correlation-id".to_owned(), id.to_owned())));
    push_headers(&reply.headers, &mut extra);
    let message_id = correlation.unwrap_or(to);
    let content_type = reply.content_type.as_deref();
    let frame = Parts { version, subscription: Some(to), message_id, ack: None, destination: to, content_type };
    frame.write(&extra, &reply.payload)
}

/// The server's own headers of a message.
struct Parts<'a> {
    version: Version,
    subscription: Option<&'a str>,
    message_id: &'a str,
    ack: Option<&'a str>,
    destination: &'a str,
    content_type: Option<&'a str>,
}

impl Parts<'_> {
    fn write(&self, extra: &[(String, String)], body: &[u8]) -> Outbound {
        let headers: Vec<(&str, &str)> = extra.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // Only 1.2 has the header; before it a message is acknowledged by its id.
        let ack = self.ack.filter(|_| self.version == Version::V12);
        let frame = MessageFrame {
            subscription: self.subscription,
            message_id: self.message_id,
            ack,
            destination: self.destination,
            content_type: self.content_type,
            headers: &headers,
            body,
        };
        outbound(writer::message(self.version, &frame), body)
    }
}

/// A frame as text where its body is, because some clients in browsers read nothing else.
fn outbound(frame: Bytes, body: &[u8]) -> Outbound {
    match simdutf8::basic::from_utf8(body) {
        Ok(_) => Outbound::Text(frame),
        Err(_) => Outbound::Binary(frame),
    }
}

fn push_attributes(draft: &Draft, into: &mut Vec<(String, String)>) {
    let Attributes { message_id, headers, redelivered, .. } = &draft.attributes;
    into.push(("timestamp".into(), draft.timestamp_ms().to_string()));
    into.extend(message_id.as_ref().map(|id| ("amqp-message-id".to_owned(), id.clone())));
    if *redelivered {
        into.push((REDELIVERED.into(), "true".into()));
    }
    push_headers(headers, into);
}

fn push_headers(headers: &Headers, into: &mut Vec<(String, String)>) {
    let is_ours = |name: &str| missing::FIELDS.contains(&name) || [REPLAY, REDELIVERED].contains(&name);
    let theirs = headers.0.iter().filter(|(name, _)| !is_ours(name));
    into.extend(theirs.map(|(name, value)| (name.clone(), headers::text(value))));
}
