//! HTTP streaming: one JSON object a line (NDJSON), those of `passerelle.v1.json`, for networks and clients that take nothing but
//! plain HTTP.
//!
//! A message, `position` and `caught_up` carry `after`, the joint cursor with which a client goes on behind them. One way only: a
//! client of this has nothing to say.

use bytes::Bytes;

use crate::model::close::CloseReason;
use crate::model::cursor::JointCursor;
use crate::protocol::event_stream::joint;
use crate::protocol::json::encode;
use crate::protocol::{
    Codec, Event, Failures, Fault, Incoming, Labels, Message, Outbound, ProtocolId, Said, Subprotocol, Unsent,
};

/// The row of the registry.
pub const SUBPROTOCOL: Subprotocol = Subprotocol {
    name: "stream",
    summary: "HTTP streaming at `/stream?pattern=…`: the JSON objects, one a line, with cursors to go on from",
    negotiable: false,
    index: ProtocolId(7),
    failures: Failures::End,
    labels: Labels::Absent,
    codec: |_| Box::new(Lines),
    encode_message,
};

/// An empty line, which keeps proxies from taking a quiet stream for a dead one.
pub const HEARTBEAT: Bytes = Bytes::from_static(b"\n");

/// The codec.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lines;

impl Codec for Lines {
    fn decode(&mut self, _: Incoming<'_>) -> Result<Said, Fault> {
        Err(Fault::Close { reason: CloseReason::UnsupportedData, detail: "a stream of lines only listens" })
    }

    fn encode(&mut self, event: &Event) -> Option<Outbound> {
        let after = match event {
            // Going on from here loses nothing, because a position is told only when everything before it was sent.
            Event::Position { cursors } | Event::CaughtUp { cursors, .. } => Some(cursors),
            Event::Subscribed { .. }
            | Event::Gap(_)
            | Event::Outage { .. }
            | Event::Restored { .. }
            | Event::Goodbye { .. }
            | Event::Joined { .. }
            | Event::Left { .. }
            | Event::Presence { .. }
            // The last word before the end.
            | Event::Error { .. } => None,
            // Replies to commands, of which a stream has none.
            Event::Welcome { .. }
            | Event::Done { .. }
            | Event::Delivered(_)
            | Event::Revoked { .. }
            | Event::Result { .. }
            | Event::Pong { .. } => return None,
        };
        Some(Outbound::Text(line(encode::event(event), after)))
    }
}

fn encode_message(message: Message<'_>) -> Result<Outbound, Unsent> {
    let object = encode::message(message.publication, message.stage);
    Ok(Outbound::Text(line(object, Some(&joint(message)))))
}

/// An object as one line. JSON has line breaks only between its tokens, so a blank in their place means the same, and no
/// payload can end the line.
pub(super) fn line(mut object: Vec<u8>, after: Option<&JointCursor>) -> Bytes {
    object.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    if let (Some(after), Some(b'}')) = (after, object.last()) {
        object.pop();
        // Of a cursor no character needs an escape.
        object.extend_from_slice(format!(",\"after\":\"{after}\"}}").as_bytes());
    }
    object.push(b'\n');
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::{Cursor, Epoch};
    use crate::protocol::tests::live_text;

    #[test]
    fn a_message_is_one_line_that_says_where_to_go_on() {
        let expected = "{\"op\":\"message\",\"source\":\"events\",\"topic\":\"a.b\",\"cursor\":\"1.3\",\
                        \"data\":{\"x\":1},\"timestamp_ms\":1000,\"after\":\"events~1.3\"}\n";
        assert_eq!(live_text(encode_message, b"{\"x\":1}"), expected);
    }

    #[test]
    fn no_payload_can_end_the_line() {
        for payload in [b"[1,\n\n2,\r\r3\r\n]".as_slice(), b"x\n{}\n", b"\r\r{}\r\n"] {
            let line = live_text(encode_message, payload);
            let body = line.strip_suffix('\n').unwrap();
            assert!(!body.contains(['\n', '\r']), "{line:?}");
            let object: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(object["after"], "events~1.3");
        }
    }

    #[test]
    fn a_position_says_where_to_go_on_and_a_subscription_does_not() {
        let cursors = JointCursor(vec![("events".into(), Cursor { epoch: Epoch(1), offset: 9 })]);
        let object = |event: &Event| match Lines.encode(event) {
            Some(Outbound::Text(bytes)) => serde_json::from_slice::<serde_json::Value>(&bytes).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(object(&Event::Position { cursors: cursors.clone() })["after"], "events~1.9");
        let pattern = crate::model::topic::Pattern::parse("a").unwrap();
        let subscribed = object(&Event::Subscribed { id: None, pattern, cursors, resumed: true });
        assert!(subscribed["after"].is_null(), "{subscribed}");
    }
}
