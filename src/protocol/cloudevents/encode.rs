//! An AMQP message as an event: one that is a CloudEvent already, structured or binary (CloudEvents AMQP Protocol Binding 1.0.2),
//! with its own attributes, any other with what the configuration calls it.

use base64::Engine as _;

use crate::model::cursor::JointCursor;
use crate::model::publication::{Draft, Publication};
use crate::model::value::Value;
use crate::protocol::cloudevents::event::{Attribute, Data, is_name, read};
use crate::protocol::cloudevents::time;
use crate::protocol::event_stream::joint;
use crate::protocol::json::payload::{BASE64, Shown, says_json, shown};
use crate::protocol::json::write::push_text;
use crate::protocol::{Event, Message, json};

/// What begins the names of headers that are attributes.
const PREFIXES: [&str; 2] = ["cloudEvents:", "cloudEvents_"];

/// What names a body that is a whole event.
const STRUCTURED: &str = "application/cloudevents+json";

/// Bytes of an event beside its data: a guess that saves a second allocation.
const OVERHEAD_BYTES: usize = 320;

/// One message, with the joint cursor after it.
pub(super) fn message(message: Message<'_>) -> Vec<u8> {
    let draft = &message.publication.draft;
    let event = structured(draft).or_else(|| binary(draft)).unwrap_or_else(|| plain(message.publication));
    event.finish(&joint(message))
}

/// What a session is told beside messages.
pub(super) fn told(
    (name, number): (&str, u64),
    connection: &str,
    event: &Event,
    cursors: Option<&JointCursor>,
) -> Vec<u8> {
    let mut writer = Writer::new(0);
    writer.text("id", &number.to_string());
    writer.text("source", &format!("/passerelle/{connection}"));
    writer.text("type", &format!("passerelle.{name}"));
    writer.text("datacontenttype", "application/json");
    writer.verbatim("data", &json::encode::event(event));
    writer.finish(cursors.unwrap_or(&JointCursor::default()))
}

/// A body that is an event.
fn structured(draft: &Draft) -> Option<Writer> {
    let content_type = draft.attributes.content_type.as_deref()?;
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(STRUCTURED) {
        return None;
    }
    let event = read(std::str::from_utf8(&draft.payload).ok()?).ok()?;
    let mut writer = Writer::new(draft.payload.len());
    [("id", &event.id), ("source", &event.source), ("type", &event.kind)]
        .into_iter()
        .for_each(|(name, text)| writer.text(name, text));
    for (name, value) in &event.attributes {
        writer.attribute(name, value);
    }
    match &event.data {
        Data::Absent => {}
        Data::Json(json) => writer.verbatim("data", json.as_bytes()),
        Data::Bytes(bytes) => writer.text("data_base64", &BASE64.encode(bytes)),
    }
    Some(writer)
}

/// Headers that are the attributes of an event.
fn binary(draft: &Draft) -> Option<Writer> {
    let headers = &draft.attributes.headers;
    let text = |name: &str| {
        PREFIXES.iter().find_map(|prefix| match headers.value(&format!("{prefix}{name}")) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        })
    };
    if text("specversion") != Some("1.0") {
        return None;
    }
    let required = [("id", text("id")?), ("source", text("source")?), ("type", text("type")?)];
    let mut writer = Writer::new(draft.payload.len());
    required.into_iter().for_each(|(name, text)| writer.text(name, text));
    let mut written = vec!["specversion", "id", "source", "type", "datacontenttype", "data"];
    // Of a name that comes twice the last one counts.
    for (header, value) in headers.0.iter().rev() {
        let Some(name) = PREFIXES.iter().find_map(|prefix| header.strip_prefix(prefix)) else { continue };
        let Some(value) = attribute(value).filter(|_| is_name(name) && !written.contains(&name)) else { continue };
        writer.attribute(name, &value);
        written.push(name);
    }
    writer.data(draft);
    Some(writer)
}

/// A header as an attribute, if it can be one.
fn attribute(value: &Value) -> Option<Attribute> {
    match value {
        Value::Text(text) => Some(Attribute::Text(text.clone())),
        Value::Bool(truth) => Some(Attribute::Truth(*truth)),
        Value::Int(number) => {
            Some(i32::try_from(*number).map_or_else(|_| Attribute::Text(number.to_string()), Attribute::Integer))
        }
        Value::UInt(number) => Some(Attribute::Text(number.to_string())),
        Value::Timestamp(seconds) => Some(Attribute::Text(time::text(seconds.saturating_mul(1000)))),
        Value::Bytes(bytes) => Some(Attribute::Text(BASE64.encode(bytes))),
        Value::Null | Value::Float(_) | Value::List(_) | Value::Table(_) => None,
    }
}

/// Any other message.
fn plain(publication: &Publication) -> Writer {
    let Publication { source, draft, .. } = publication;
    let mut writer = Writer::new(draft.payload.len());
    match draft.attributes.message_id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => writer.text("id", id),
        None => writer.text("id", &publication.cursor().to_string()),
    }
    writer.text("source", &source.events.source_of(&source.name, draft));
    writer.text("type", &source.events.kind_of(&source.name, draft));
    if !draft.topic.as_str().is_empty() {
        writer.text("subject", draft.topic.as_str());
    }
    writer.text("time", &time::text(draft.timestamp_ms()));
    writer.data(draft);
    writer
}

/// An event in the making.
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn new(data_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(data_bytes + OVERHEAD_BYTES);
        bytes.extend_from_slice(b"{\"specversion\":\"1.0\"");
        Self { bytes }
    }

    /// The name of a field is ours, or was looked at, and needs no escape.
    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        self.bytes.extend_from_slice(b",\"");
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b"\":");
        &mut self.bytes
    }

    fn text(&mut self, name: &str, text: &str) {
        push_text(self.key(name), text);
    }

    fn verbatim(&mut self, name: &str, json: &[u8]) {
        self.key(name).extend_from_slice(json);
    }

    fn attribute(&mut self, name: &str, value: &Attribute) {
        match value {
            // Where an event had been before says nothing here.
            _ if name == "cursor" => {}
            Attribute::Text(text) => self.text(name, text),
            Attribute::Truth(truth) => self.verbatim(name, truth.to_string().as_bytes()),
            Attribute::Integer(number) => self.verbatim(name, number.to_string().as_bytes()),
        }
    }

    /// The body, and what it is. Without a content type data is JSON, so what is none is named.
    fn data(&mut self, draft: &Draft) {
        let content_type = draft.attributes.content_type.as_deref();
        let payload = match shown(&draft.payload, content_type) {
            // What only claims to be JSON would be read as a string of it.
            Shown::Text(text) if content_type.is_some_and(says_json) => Shown::Bytes(text.as_bytes()),
            payload => payload,
        };
        let otherwise = match payload {
            _ if draft.payload.is_empty() => None,
            Shown::Json(_) => None,
            Shown::Text(_) => Some("text/plain"),
            Shown::Bytes(_) => Some("application/octet-stream"),
        };
        if let Some(name) = content_type.or(otherwise) {
            self.text("datacontenttype", name);
        }
        match payload {
            _ if draft.payload.is_empty() => {}
            Shown::Json(json) => self.verbatim("data", json.as_bytes()),
            Shown::Text(text) => self.text("data", text),
            Shown::Bytes(bytes) => self.text("data_base64", &BASE64.encode(bytes)),
        }
    }

    /// With where the reader stands after it.
    fn finish(mut self, cursors: &JointCursor) -> Vec<u8> {
        if !cursors.0.is_empty() {
            self.text("cursor", &cursors.to_string());
        }
        self.bytes.push(b'}');
        self.bytes
    }
}
