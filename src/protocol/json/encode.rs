//! Events as JSON objects. `message` is the hot path: it is written once for everybody, straight into one buffer.
//! Nothing here depends on who receives it, but for what a client consumes.

use std::time::Duration;

use crate::model::delivery::Delivery;
use crate::model::presence::{Member, Roster};
use crate::model::publication::{Draft, Publication};
use crate::model::topic::Pattern;
use crate::protocol::json::write::{Object, push_display, push_text};
use crate::protocol::json::{headers, payload};
use crate::protocol::{CommandId, Event, Stage};

/// Bytes of a `message` beside its payload, its topic and its headers: a guess that saves a second allocation.
const MESSAGE_OVERHEAD_BYTES: usize = 192;

/// Bytes of any other object, likewise.
const EVENT_BYTES: usize = 160;

/// One message.
pub(crate) fn message(publication: &Publication, stage: Stage) -> Vec<u8> {
    let head = message_head(&publication.source.name, &publication.draft).cursor(publication);
    let object = message_body(head, &publication.draft);
    let object = if stage == Stage::Replay { object.verbatim("replay", "true") } else { object };
    object.finish()
}

/// One message that is its client's alone. Its source is the queue, and there is no log to have a cursor in.
fn delivered(delivery: &Delivery) -> Vec<u8> {
    let Delivery { tag, queue, draft } = delivery;
    message_body(message_head(queue, draft).text("delivery_tag", &tag.to_string()), draft).finish()
}

fn message_head(source: &str, draft: &Draft) -> Object {
    let capacity = MESSAGE_OVERHEAD_BYTES + draft.payload.len() + draft.topic.as_str().len();
    Object::new("message", capacity).text("source", source).text("topic", draft.topic.as_str())
}

fn message_body(object: Object, draft: &Draft) -> Object {
    let attributes = &draft.attributes;
    let mut object = payload::push(object, &draft.payload, attributes.content_type.as_deref());
    object = object.number("timestamp_ms", draft.timestamp_ms());
    if !attributes.headers.is_empty() {
        headers::push(object.key("headers"), &attributes.headers);
    }
    object = object.text_if_any("message_id", attributes.message_id.as_deref());
    if attributes.redelivered { object.verbatim("redelivered", "true") } else { object }
}

/// Any event.
pub(crate) fn event(event: &Event) -> Vec<u8> {
    match event {
        Event::Welcome { id, connection, server, heartbeat, message_bytes_max, user, expires_at } => {
            reply("welcome", id)
                .text("connection", connection)
                .text("server", server)
                .number("heartbeat_ms", millis(*heartbeat))
                .number("max_message_bytes", u64::try_from(*message_bytes_max).unwrap_or(u64::MAX))
                .text_or_null("user", user.as_deref())
                .number_or_null("expires_at", *expires_at)
        }
        Event::Subscribed { id, pattern, cursors, resumed } => reply("subscribed", id)
            .text("pattern", pattern.as_str())
            .cursors("cursors", cursors)
            .verbatim("resumed", truth(*resumed)),
        Event::Delivered(delivery) => return delivered(delivery),
        Event::Revoked { tags } => notice("revoked").texts("delivery_tags", tags),
        Event::CaughtUp { id, pattern, cursors } => {
            reply("caught_up", id).text("pattern", pattern.as_str()).cursors("cursors", cursors)
        }
        Event::Position { cursors } => notice("position").cursors("cursors", cursors),
        Event::Gap(gap) => notice("gap")
            .text("pattern", gap.pattern.as_str())
            .text("source", &gap.source)
            .number_or_null("missed", gap.missed)
            .text("reason", gap.reason.name()),
        Event::Outage { source } => notice("outage").text("source", source),
        Event::Restored { source } => notice("restored").text("source", source),
        Event::Presence { id, pattern, roster } => presence(reply("presence", id), pattern, roster),
        Event::Joined { pattern, member } => movement("join", pattern, member),
        Event::Left { pattern, member } => movement("leave", pattern, member),
        Event::Goodbye { reason, reconnect_in } => {
            notice("goodbye").text("reason", reason).number("reconnect_in_ms", millis(*reconnect_in))
        }
        Event::Done { id, routed: None } => reply("ok", id),
        Event::Done { id, routed: Some(routed) } => reply("ok", id).verbatim("routed", truth(*routed)),
        Event::Result { id, reply: answer } => {
            let mut object = payload::push(reply("result", id), &answer.payload, answer.content_type.as_deref());
            if !answer.headers.is_empty() {
                headers::push(object.key("headers"), &answer.headers);
            }
            object
        }
        Event::Error { id, code, message } => reply("error", id).text("code", code.name()).text("message", message),
        Event::Pong { id } => reply("pong", id),
    }
    .finish()
}

fn presence(object: Object, pattern: &Pattern, Roster { count, members }: &Roster) -> Object {
    let mut object = object.text("pattern", pattern.as_str()).number("count", *count);
    if let Some(members) = members {
        let bytes = object.key("members");
        for (position, member) in members.iter().enumerate() {
            bytes.push(if position > 0 { b',' } else { b'[' });
            push_member(bytes, member);
        }
        bytes.extend_from_slice(if members.is_empty() { b"[]" } else { b"]" });
    }
    object
}

fn push_member(bytes: &mut Vec<u8>, Member { connection, user }: &Member) {
    bytes.extend_from_slice(b"{\"user\":");
    match user {
        Some(user) => push_text(bytes, user),
        None => bytes.extend_from_slice(b"null"),
    }
    bytes.extend_from_slice(b",\"connection\":");
    push_text(bytes, connection);
    bytes.push(b'}');
}

fn movement(op: &str, pattern: &Pattern, Member { connection, user }: &Member) -> Object {
    let object = notice(op).text("topic", pattern.as_str());
    object.text_or_null("user", user.as_deref()).text("connection", connection)
}

fn notice(op: &str) -> Object {
    Object::new(op, EVENT_BYTES)
}

fn reply(op: &str, id: &CommandId) -> Object {
    match id {
        Some(id) => notice(op).verbatim("id", id.get()),
        None => notice(op),
    }
}

fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Object {
    /// The publication's own position.
    fn cursor(mut self, publication: &Publication) -> Self {
        let bytes = self.key("cursor");
        bytes.push(b'"');
        push_display(bytes, publication.cursor());
        bytes.push(b'"');
        self
    }
}
