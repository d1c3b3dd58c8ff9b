//! An event as an AMQP message, in the binary mode of the CloudEvents AMQP binding: attributes become headers, the data the body.

use bytes::Bytes;

use crate::model::outgoing::Outgoing;
use crate::model::topic::Topic;
use crate::model::value::{Headers, Value};
use crate::protocol::cloudevents::event::{Attribute, CloudEvent, Data};
use crate::protocol::json::payload::says_json;

/// Said to a client whose event names no place to go.
const NO_TOPIC: &str = "this event goes nowhere: add ?publish=TOPIC, or a subject that is a topic";

/// The message; `publish` is where it goes, else that is its subject.
pub(super) fn outgoing(event: &CloudEvent<'_>, publish: Option<&Topic>) -> Result<Outgoing, &'static str> {
    let of_subject = || event.text("subject").and_then(|subject| Topic::parse(subject).ok());
    let topic = publish.cloned().or_else(of_subject).ok_or(NO_TOPIC)?;
    let (payload, content_type) = payload(event);
    // An id is unique together with its source only, so it is no message_id, by which repeats are recognised.
    Ok(Outgoing { content_type, headers: headers(event), ..Outgoing::new(topic, payload) })
}

fn headers(event: &CloudEvent<'_>) -> Headers {
    let named = |name: &str, value| (format!("cloudEvents:{name}"), value);
    let CloudEvent { id, source, kind, .. } = event;
    let required = [("specversion", "1.0"), ("id", id.as_str()), ("source", source.as_str()), ("type", kind.as_str())];
    let required = required.map(|(name, text)| named(name, Value::Text(text.to_owned())));
    // The content type is a property of its own.
    let others = event.attributes.iter().filter(|(name, _)| name != "datacontenttype");
    let others = others.map(|(name, value)| match value {
        Attribute::Text(text) => named(name, Value::Text(text.clone())),
        Attribute::Truth(truth) => named(name, Value::Bool(*truth)),
        Attribute::Integer(number) => named(name, Value::Int((*number).into())),
    });
    Headers(required.into_iter().chain(others).collect())
}

/// The body, and its content type: JSON for data without one.
fn payload(event: &CloudEvent<'_>) -> (Bytes, Option<String>) {
    let content_type = event.text("datacontenttype").map(str::to_owned);
    match &event.data {
        Data::Absent => (Bytes::new(), content_type),
        Data::Bytes(bytes) => (Bytes::copy_from_slice(bytes), content_type),
        Data::Json(json) => {
            let is_json = content_type.as_deref().is_none_or(says_json);
            let text = if is_json { None } else { serde_json::from_str::<String>(json).ok() };
            let payload = text.map_or_else(|| Bytes::copy_from_slice(json.as_bytes()), Bytes::from);
            (payload, content_type.or_else(|| Some("application/json".to_owned())))
        }
    }
}
