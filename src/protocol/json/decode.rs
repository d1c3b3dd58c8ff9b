//! One text message of a client as a [`Command`], or a fault whose sentence says what to send instead.
//!
//! Bodies are not parsed: `id` and `data` are kept as the text that they are. Nesting cannot exhaust the stack, because
//! what is skipped or kept is scanned without recursion.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::cursor::{Cursor, JOINT_CURSOR_BYTES_MAX, JointCursor};
use crate::model::delivery::Settlement;
use crate::model::filter::Filter;
use crate::model::flow::Flow;
use crate::model::outgoing::Outgoing;
use crate::model::queue::QUEUE_BYTES_MAX;
use crate::model::rate::{RATE_MAX, Rate};
use crate::model::topic::{Pattern, Topic};
use crate::model::value::Headers;
use crate::protocol::json::fields::{Fields, Op, nearest_op, sent_instead, shortened};
use crate::protocol::json::payload::{BASE64, PAYLOAD_DEPTH_MAX, is_too_deep, says_json};
use crate::protocol::json::{fields, filter, headers};
use crate::protocol::{
    Command, CommandId, Consumed, Echo, ErrorCode, Fault, Incoming, Only, Subscribe, Which, bad_field, pattern_field,
    topic_field,
};

/// Bytes of an `id`, which is kept until its reply.
pub const ID_BYTES_MAX: usize = 256;

/// Bytes of a `token`.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Bytes of the JSON text of `headers`.
pub const HEADERS_JSON_BYTES_MAX: usize = 64 << 10;

/// Bytes of the short texts: `source`, `client`, `message_id`, `content_type`.
const SHORT_TEXT_BYTES_MAX: usize = 255;

/// Reads one message.
pub(super) fn command(message: Incoming<'_>) -> Result<Command, Fault> {
    let text = match message {
        Incoming::Text(text) => text,
        Incoming::Binary(_) => return Err(bad_message("passerelle.v1.json speaks in text messages: send text".into())),
    };
    // An array of as many values would be read as the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(bad_message("a message is one JSON object, such as {\"op\":\"ping\"}".into()));
    }
    let fields: Fields<'_> = serde_json::from_str(text)
        .map_err(|error| bad_message(format!("this is not one JSON object: {}", shortened(&error.to_string()))))?;
    let id = command_id(fields.id)?;
    let op = op(&id, &fields, text)?;
    let request = Request { id, op, fields, text };
    match op.name {
        "connect" => request.connect(),
        "subscribe" => request.subscribe(),
        "unsubscribe" => request.unsubscribe(),
        "publish" => request.publish(),
        "call" => request.call(),
        "consume" => request.consume(),
        "cancel" => request.cancel(),
        "ack" => request.settle(Settlement::Acknowledge),
        "nack" => request.nack(),
        "presence" => request.presence(),
        "ping" => Ok(Command::Ping { id: request.id }),
        name => Err(unsupported(&request.id, format!("this server does not offer {name:?} yet: {}", op.instead))),
    }
}

fn bad_message(message: String) -> Fault {
    Fault::Reply { id: None, code: ErrorCode::BadMessage, message }
}

fn unsupported(id: &CommandId, message: String) -> Fault {
    Fault::Reply { id: id.clone(), code: ErrorCode::Unsupported, message }
}

/// The id, if it is one that a reply can carry.
fn command_id(raw: Option<&RawValue>) -> Result<CommandId, Fault> {
    let Some(raw) = raw else { return Ok(None) };
    let is_scalar = raw.get().starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
    if !is_scalar {
        return Err(bad_field(&None, "\"id\" must be a number or a string".into()));
    }
    if raw.get().len() > ID_BYTES_MAX {
        return Err(bad_field(&None, format!("\"id\" may have at most {ID_BYTES_MAX} bytes")));
    }
    Ok(Some(raw.to_owned()))
}

fn op(id: &CommandId, fields: &Fields<'_>, text: &str) -> Result<&'static Op, Fault> {
    let Some(raw) = fields.op else {
        return Err(bad_field(id, format!("a message needs \"op\"{}", sent_instead(text, &[]))));
    };
    let Ok(name) = serde_json::from_str::<Cow<'_, str>>(raw.get()) else {
        return Err(bad_field(id, "\"op\" must be a string".into()));
    };
    fields::OPS.iter().find(|op| op.name == name).ok_or_else(|| Fault::Reply {
        id: id.clone(),
        code: ErrorCode::UnknownOp,
        message: format!("there is no op {:?}: {}", shortened(&name), nearest_op(&name)),
    })
}

/// A message whose op is known.
struct Request<'a> {
    id: CommandId,
    op: &'static Op,
    fields: Fields<'a>,
    /// The whole of it, to say what was sent in place of what was needed.
    text: &'a str,
}

impl<'a> Request<'a> {
    fn connect(self) -> Result<Command, Fault> {
        let token = self.text("token", self.fields.token, TOKEN_BYTES_MAX)?;
        let client = self.text("client", self.fields.client, SHORT_TEXT_BYTES_MAX)?;
        Ok(Command::Connect { id: self.id, token, client, claim: None })
    }

    fn subscribe(self) -> Result<Command, Fault> {
        let pattern = self.pattern()?;
        let flow = self.on_slow()?;
        let filter = self.filter()?;
        let after = self.after()?;
        let last = usize::try_from(self.whole_number("last", self.fields.last)?.unwrap_or(0)).unwrap_or(usize::MAX);
        let only = self.text("source", self.fields.source, SHORT_TEXT_BYTES_MAX)?.map(Only::Source);
        let max_rate = self.max_rate()?;
        let id = self.id;
        let subscribe = Subscribe { id, filter, after, last, only, flow, max_rate, ..Subscribe::to(pattern) };
        Ok(Command::Subscribe(subscribe))
    }

    fn unsubscribe(self) -> Result<Command, Fault> {
        let pattern = self.pattern()?;
        Ok(Command::Unsubscribe { id: self.id, which: Which::Pattern(pattern) })
    }

    fn presence(self) -> Result<Command, Fault> {
        let pattern = self.pattern()?;
        Ok(Command::Presence { id: self.id, pattern })
    }

    fn publish(self) -> Result<Command, Fault> {
        let message = self.message()?;
        let mandatory = self.truth("mandatory", self.fields.mandatory)?.unwrap_or(false);
        let echo = self.truth("echo", self.fields.echo)?.unwrap_or(true);
        let echo = if echo { Echo::All } else { Echo::Nothing };
        Ok(Command::Publish { id: self.id, message, mandatory, echo })
    }

    fn call(self) -> Result<Command, Fault> {
        let message = self.message()?;
        let timeout = match self.whole_number("timeout_ms", self.fields.timeout_ms)? {
            Some(0) => return Err(bad_field(&self.id, "\"timeout_ms\" must be at least 1".into())),
            Some(millis) => Some(Duration::from_millis(millis)),
            None => None,
        };
        Ok(Command::Call { id: self.id, message, timeout })
    }

    fn consume(self) -> Result<Command, Fault> {
        let queue = self.queue()?;
        let prefetch = match self.whole_number("prefetch", self.fields.prefetch)? {
            Some(0) => return Err(bad_field(&self.id, "\"prefetch\" must be at least 1".into())),
            wanted => wanted.map(|wanted| u16::try_from(wanted).unwrap_or(u16::MAX)),
        };
        Ok(Command::Consume { id: self.id, queue: Consumed::Queue(queue), prefetch, exclusive: false })
    }

    fn cancel(self) -> Result<Command, Fault> {
        let queue = self.queue()?;
        Ok(Command::Cancel { id: self.id, queue })
    }

    fn nack(self) -> Result<Command, Fault> {
        let requeue = self.truth("requeue", self.fields.requeue)?.unwrap_or(true);
        self.settle(if requeue { Settlement::Requeue } else { Settlement::Discard })
    }

    fn settle(self, settlement: Settlement) -> Result<Command, Fault> {
        let raw = self.fields.delivery_tag.ok_or_else(|| self.missing("\"delivery_tag\""))?;
        let tag = self.string("delivery_tag", raw)?.parse().ok();
        Ok(Command::Settle { id: self.id, tag, settlement })
    }

    fn queue(&self) -> Result<String, Fault> {
        let queue = self.text("queue", self.fields.queue, QUEUE_BYTES_MAX)?;
        queue.ok_or_else(|| self.missing("\"queue\""))
    }

    fn message(&self) -> Result<Outgoing, Fault> {
        let topic = self.topic()?;
        let content_type = self.text("content_type", self.fields.content_type, SHORT_TEXT_BYTES_MAX)?;
        let message_id = self.text("message_id", self.fields.message_id, SHORT_TEXT_BYTES_MAX)?;
        let (payload, content_type) = self.payload(content_type)?;
        Ok(Outgoing { content_type, message_id, headers: self.headers()?, ..Outgoing::new(topic, payload) })
    }

    /// The body, and its content type: that of the message, or JSON for a `data` without one.
    fn payload(&self, content_type: Option<String>) -> Result<(Bytes, Option<String>), Fault> {
        match (self.fields.data, self.fields.data_base64) {
            (Some(_), Some(_)) => Err(self.fault("takes \"data\" or \"data_base64\", not both")),
            (None, None) => Err(self.missing("\"data\" or \"data_base64\"")),
            (None, Some(encoded)) => {
                let encoded = self.string("data_base64", encoded)?;
                let payload = BASE64.decode(encoded.as_bytes());
                Ok((payload.map_err(|_| self.fault("needs base64 in \"data_base64\""))?.into(), content_type))
            }
            (Some(data), None) => match content_type {
                Some(name) if !says_json(&name) => {
                    let wants_string = || self.fault("needs a string in \"data\" for a content type that is not JSON");
                    let text = serde_json::from_str::<String>(data.get()).map_err(|_| wants_string())?;
                    Ok((text.into(), Some(name)))
                }
                _ if is_too_deep(data.get()) => {
                    let message = format!("\"data\" may be nested {PAYLOAD_DEPTH_MAX} levels deep");
                    Err(bad_field(&self.id, message))
                }
                json => {
                    let content_type = json.unwrap_or_else(|| "application/json".into());
                    Ok((Bytes::copy_from_slice(data.get().as_bytes()), Some(content_type)))
                }
            },
        }
    }

    fn headers(&self) -> Result<Headers, Fault> {
        let Some(raw) = self.fields.headers else { return Ok(Headers::default()) };
        if raw.get().len() > HEADERS_JSON_BYTES_MAX {
            return Err(bad_field(&self.id, format!("\"headers\" may have at most {HEADERS_JSON_BYTES_MAX} bytes")));
        }
        headers::from_json(raw.get()).ok_or_else(|| self.fault("needs a JSON object in \"headers\""))
    }

    fn after(&self) -> Result<JointCursor, Fault> {
        let Some(raw) = self.fields.after else { return Ok(JointCursor::default()) };
        if raw.get().len() > JOINT_CURSOR_BYTES_MAX {
            return Err(bad_field(&self.id, format!("\"after\" may have at most {JOINT_CURSOR_BYTES_MAX} bytes")));
        }
        let cursors: BTreeMap<String, serde_json::Value> = serde_json::from_str(raw.get())
            .map_err(|_| self.fault("needs an object of cursors by source in \"after\", such as {\"events\":\"…\"}"))?;
        // What is no cursor of ours is answered with a gap, as one of another log is: an error would come again and again
        // to a client that hands back what it has kept.
        let read = |(source, cursor): (String, serde_json::Value)| {
            let ours = cursor.as_str().and_then(|text| text.parse().ok());
            (source, ours.unwrap_or(Cursor::FOREIGN))
        };
        Ok(JointCursor(cursors.into_iter().map(read).collect()))
    }

    fn on_slow(&self) -> Result<Option<Flow>, Fault> {
        let Some(name) = self.text("on_slow", self.fields.on_slow, SHORT_TEXT_BYTES_MAX)? else { return Ok(None) };
        let flow = Flow::named(&name);
        flow.map(Some).ok_or_else(|| self.fault("takes \"catch-up\", \"latest\" or \"drop-oldest\" in \"on_slow\""))
    }

    fn max_rate(&self) -> Result<Option<Rate>, Fault> {
        let Some(raw) = self.fields.max_rate else { return Ok(None) };
        let rate = serde_json::from_str(raw.get()).ok().and_then(Rate::new);
        rate.map(Some).ok_or_else(|| self.fault(&format!("takes a whole number from 1 to {RATE_MAX} in \"max_rate\"")))
    }

    fn filter(&self) -> Result<Option<Arc<Filter>>, Fault> {
        let Some(raw) = self.fields.filter else { return Ok(None) };
        let filter = filter::read(raw.get()).map_err(|error| bad_field(&self.id, format!("\"filter\" {error}")))?;
        Ok(filter.map(Arc::new))
    }

    fn pattern(&self) -> Result<Pattern, Fault> {
        let raw = self.fields.pattern.ok_or_else(|| self.missing("\"pattern\""))?;
        pattern_field(&self.id, "\"pattern\"", &self.string("pattern", raw)?)
    }

    fn topic(&self) -> Result<Topic, Fault> {
        let raw = self.fields.topic.ok_or_else(|| self.missing("\"topic\""))?;
        topic_field(&self.id, "\"topic\"", &self.string("topic", raw)?)
    }

    fn string(&self, name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, Fault> {
        if !raw.get().starts_with('"') {
            return Err(self.fault(&format!("needs a string in \"{name}\"")));
        }
        read_string(raw.get()).ok_or_else(|| self.fault(&format!("needs whole Unicode characters in \"{name}\"")))
    }

    /// An optional string of bounded length.
    fn text(&self, name: &str, raw: Option<&'a RawValue>, bytes_max: usize) -> Result<Option<String>, Fault> {
        let Some(raw) = raw else { return Ok(None) };
        let text = self.string(name, raw)?;
        if text.len() > bytes_max {
            return Err(bad_field(&self.id, format!("\"{name}\" may have at most {bytes_max} bytes")));
        }
        Ok(Some(text.into_owned()))
    }

    fn whole_number(&self, name: &str, raw: Option<&RawValue>) -> Result<Option<u64>, Fault> {
        raw.map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|_| self.fault(&format!("needs a whole number in \"{name}\"")))
    }

    fn truth(&self, name: &str, raw: Option<&RawValue>) -> Result<Option<bool>, Fault> {
        let truth = raw.map(|raw| serde_json::from_str(raw.get())).transpose();
        truth.map_err(|_| self.fault(&format!("needs true or false in \"{name}\"")))
    }

    fn fault(&self, complaint: &str) -> Fault {
        bad_field(&self.id, format!("{} {complaint}", self.op.name))
    }

    fn missing(&self, what: &str) -> Fault {
        self.fault(&format!("needs {what}{}", sent_instead(self.text, self.op.fields)))
    }
}

/// A JSON string without its escapes, borrowed where there are none.
fn read_string(json: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(json).ok().map(|text| text.0)
}

#[cfg(test)]
mod tests;
