//! Server-Sent Events (HTML Living Standard, section 9.2): blocks whose `data` is the JSON object of `passerelle.v1.json`
//! and whose `id` is the joint cursor that a browser hands back as `Last-Event-ID`.
//!
//! A message has no `event` field, so that `onmessage` fires. One way only: a client of this has nothing to say.

use std::time::Duration;

use bytes::Bytes;

use crate::model::close::CloseReason;
use crate::model::cursor::JointCursor;
use crate::protocol::json::encode;
use crate::protocol::{
    Codec, Event, Failures, Fault, Incoming, Labels, Message, Outbound, ProtocolId, Said, Subprotocol, Unsent,
};

/// The row of the registry.
pub const SUBPROTOCOL: Subprotocol = Subprotocol {
    name: "sse",
    summary: "Server-Sent Events at `/sse?pattern=…`: the JSON objects, with cursors as event ids",
    negotiable: false,
    index: ProtocolId(2),
    failures: Failures::End,
    labels: Labels::Absent,
    codec: |_| Box::new(EventStream),
    encode_message,
};

/// The codec.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventStream;

impl Codec for EventStream {
    fn decode(&mut self, _: Incoming<'_>) -> Result<Said, Fault> {
        Err(Fault::Close { reason: CloseReason::UnsupportedData, detail: "an event stream only listens" })
    }

    fn encode(&mut self, event: &Event) -> Option<Outbound> {
        let (name, position) = match event {
            // Resuming from here loses nothing, because a position is told only when everything before it was sent.
            Event::Position { cursors } => (Some("position"), Some(cursors.to_string())),
            Event::Subscribed { .. } => (Some("subscribed"), None),
            Event::CaughtUp { cursors, .. } => (Some("caught_up"), Some(cursors.to_string())),
            Event::Gap(_) => (Some("gap"), None),
            Event::Outage { .. } => (Some("outage"), None),
            Event::Restored { .. } => (Some("restored"), None),
            Event::Goodbye { reconnect_in, .. } => {
                // In a field that browsers obey, and with the word for who reads it.
                let block = block(Some("goodbye"), None, &encode::event(event));
                return Some(Outbound::Text([retry_field(*reconnect_in).into_bytes(), block.to_vec()].concat().into()));
            }
            Event::Joined { .. } => (Some("join"), None),
            Event::Left { .. } => (Some("leave"), None),
            Event::Presence { .. } => (Some("presence"), None),
            // The last word before the end. An event named `error` would fire `onerror` besides.
            Event::Error { .. } => (Some("refused"), None),
            // Replies to commands, of which a stream has none.
            Event::Welcome { .. }
            | Event::Done { .. }
            | Event::Delivered(_)
            | Event::Revoked { .. }
            | Event::Result { .. }
            | Event::Pong { .. } => return None,
        };
        Some(Outbound::Text(block(name, position.as_deref(), &encode::event(event))))
    }
}

fn encode_message(message: Message<'_>) -> Result<Outbound, Unsent> {
    let data = encode::message(message.publication, message.stage);
    Ok(Outbound::Text(block(None, Some(&joint(message).to_string()), &data)))
}

/// The joint cursor after a live message: itself in its own source, of which the shard may have taken more at once, and
/// where the shard is in all others.
pub(super) fn joint(message: Message<'_>) -> JointCursor {
    let own = message.publication;
    let cursors = message.positions.iter().map(|(source, position)| {
        let offset = if source.id == own.source.id { own.offset } else { *position };
        source.named_cursor(offset)
    });
    JointCursor(cursors.collect())
}

/// A comment, which keeps proxies from taking a quiet stream for a dead one.
pub const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");

/// Tells the browser how long to wait before it connects again.
pub fn retry(pause: Duration) -> Bytes {
    (retry_field(pause) + "\n").into()
}

fn retry_field(pause: Duration) -> String {
    format!("retry: {}\n", pause.as_millis())
}

/// One block. Every line of the data gets a field of its own, whichever way the line ends, so that no payload can
/// start a field or end the block.
fn block(name: Option<&str>, id: Option<&str>, data: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(data.len() + 64);
    if let Some(name) = name {
        push_field(&mut bytes, b"event: ", name.as_bytes());
    }
    if let Some(id) = id {
        push_field(&mut bytes, b"id: ", id.as_bytes());
    }
    for line in lines(data) {
        push_field(&mut bytes, b"data: ", line);
    }
    bytes.push(b'\n');
    bytes.into()
}

fn push_field(bytes: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

/// The lines of a text that may end in LF, CR or both. JSON has line breaks only between its tokens, so those that
/// are joined again with LF mean the same, and an empty line can be left out.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::{Cursor, Epoch};
    use crate::protocol::tests::live_text;

    #[test]
    fn a_message_is_one_block_with_the_joint_cursor() {
        let expected = "id: events~1.3\ndata: {\"op\":\"message\",\"source\":\"events\",\"topic\":\"a.b\",\
                        \"cursor\":\"1.3\",\"data\":{\"x\":1},\"timestamp_ms\":1000}\n\n";
        assert_eq!(live_text(encode_message, b"{\"x\":1}"), expected);
    }

    #[test]
    fn no_payload_can_start_a_field_or_end_the_block() {
        for payload in [b"[1,\n\n2,\r\r3\r\n\r\n]".as_slice(), b"x\n\nevent: goodbye\n\n", b"\r\rdata: {}\r\n"] {
            let block = live_text(encode_message, payload);
            let body = block.strip_suffix("\n\n").unwrap();
            assert!(!body.contains("\n\n") && !body.contains('\r'), "{block:?}");
            let starts = ["id: ", "data: "];
            assert!(body.split('\n').all(|line| starts.iter().any(|start| line.starts_with(start))), "{block:?}");
            let data: Vec<&str> = body.split('\n').filter_map(|line| line.strip_prefix("data: ")).collect();
            assert!(serde_json::from_str::<serde_json::Value>(&data.join("\n")).is_ok(), "{block:?}");
        }
    }

    #[test]
    fn a_position_moves_the_id_and_a_subscription_does_not() {
        let cursor = Cursor { epoch: Epoch(1), offset: 9 };
        let cursors = JointCursor(vec![("events".into(), cursor)]);
        let text = |event: &Event| match EventStream.encode(event) {
            Some(Outbound::Text(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        let position = text(&Event::Position { cursors: cursors.clone() });
        assert!(position.starts_with("event: position\nid: events~1.9\ndata: {"), "{position}");
        let pattern = crate::model::topic::Pattern::parse("a").unwrap();
        let subscribed = text(&Event::Subscribed { id: None, pattern, cursors, resumed: true });
        assert!(subscribed.starts_with("event: subscribed\ndata: {"), "{subscribed}");
    }

    #[test]
    fn heartbeat_and_retry_are_blocks_of_their_own() {
        assert_eq!(&*HEARTBEAT, b":\n\n");
        assert_eq!(&*retry(Duration::from_secs(3)), b"retry: 3000\n\n");
    }
}
