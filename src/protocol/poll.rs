//! Long-polling: what is there, or comes within a time, as one JSON answer, `{"messages":[…],"cursor":"…"}`, for networks that let
//! nothing pass that stays open. Here is what such an answer says; when it is given the driver decides.
//!
//! Messages are written once for everybody, one a line, which no payload can end; [`Collected`] puts commas in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::close::CloseReason;
use crate::model::cursor::JointCursor;
use crate::protocol::json::encode;
use crate::protocol::lines::line;
use crate::protocol::{
    Codec, Event, Failures, Fault, Incoming, Labels, Outbound, ProtocolId, Said, Stage, Subprotocol,
};

/// The row of the registry.
pub const SUBPROTOCOL: Subprotocol = Subprotocol {
    name: "poll",
    summary: "long-polling at `/poll?pattern=…&after=…`: the JSON objects that are there, or come within a time, in one answer",
    negotiable: false,
    index: ProtocolId(8),
    failures: Failures::End,
    labels: Labels::Absent,
    codec: |_| Box::new(Poll),
    // Whether a message was waiting or came just now means nothing to a client that asks.
    encode_message: |message| Ok(Outbound::Text(line(encode::message(message.publication, Stage::Live), None))),
};

/// The codec. Beside messages only a gap has words of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Poll;

impl Codec for Poll {
    fn decode(&mut self, _: Incoming<'_>) -> Result<Said, Fault> {
        Err(Fault::Close { reason: CloseReason::UnsupportedData, detail: "a poll only listens" })
    }

    fn encode(&mut self, event: &Event) -> Option<Outbound> {
        matches!(event, Event::Gap(_)).then(|| Outbound::Text(line(encode::event(event), None)))
    }
}

/// What one poll is to be answered.
#[derive(Debug, Default)]
pub struct Collected {
    /// Lines, as many as there are in each.
    pieces: Vec<Bytes>,
    messages: usize,
    gaps: Vec<Bytes>,
    bytes: usize,
    /// Sources without their broker.
    outage: BTreeSet<Arc<str>>,
}

impl Collected {
    /// Adds messages: whole lines.
    pub fn push(&mut self, lines: Bytes) {
        self.messages += lines.iter().filter(|byte| **byte == b'\n').count();
        self.bytes += lines.len();
        self.pieces.push(lines);
    }

    /// Takes in what else is to be told.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Outage { source } => _ = self.outage.insert(source.clone()),
            Event::Restored { source } => _ = self.outage.remove(source),
            event => {
                if let Some(Outbound::Text(gap)) = Poll.encode(event) {
                    self.bytes += gap.len();
                    self.gaps.push(gap);
                }
            }
        }
    }

    /// How many messages there are.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Bytes of what there is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is neither a message nor a gap.
    pub fn is_empty(&self) -> bool {
        self.messages == 0 && self.gaps.is_empty()
    }

    /// Whether any source is without its broker.
    pub fn tells_outage(&self) -> bool {
        !self.outage.is_empty()
    }

    /// The answer; `cursor` is where to go on, where that is known.
    pub fn into_body(self, cursor: &JointCursor) -> Bytes {
        let mut body = Vec::with_capacity(self.bytes + 256);
        body.extend_from_slice(b"{\"messages\":");
        push_list(&mut body, &self.pieces);
        // Of a cursor no character needs an escape.
        let cursor = if cursor.0.is_empty() { "null".to_owned() } else { format!("\"{cursor}\"") };
        body.extend_from_slice(format!(",\"cursor\":{cursor}").as_bytes());
        if !self.gaps.is_empty() {
            body.extend_from_slice(b",\"gaps\":");
            push_list(&mut body, &self.gaps);
        }
        if !self.outage.is_empty() {
            let names: Vec<&str> = self.outage.iter().map(|name| &**name).collect();
            body.extend_from_slice(format!(",\"outage\":{}", serde_json::json!(names)).as_bytes());
        }
        body.extend_from_slice(b"}\n");
        body.into()
    }
}

/// A list of what stands in lines, of which none is empty.
fn push_list(body: &mut Vec<u8>, pieces: &[Bytes]) {
    body.push(b'[');
    let start = body.len();
    for piece in pieces {
        body.extend(piece.iter().map(|byte| if *byte == b'\n' { b',' } else { *byte }));
    }
    if body.len() > start {
        body.pop();
    }
    body.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::{Cursor, Epoch};
    use crate::model::gap::GapReason;
    use crate::model::publication::RawFrames;
    use crate::model::topic::Pattern;
    use crate::protocol::tests::publication_from;
    use crate::protocol::{Gap, Message};

    fn cursor() -> JointCursor {
        JointCursor(vec![("events".into(), Cursor { epoch: Epoch(1), offset: 9 })])
    }

    fn lines(payloads: &[&'static [u8]]) -> Bytes {
        let line = |payload: &&'static [u8]| {
            let publication = publication_from(RawFrames::Auto, Bytes::from_static(payload));
            let message = Message { publication: &publication, positions: &[], stage: Stage::Replay, labels: &[] };
            match (SUBPROTOCOL.encode_message)(message) {
                Ok(Outbound::Text(line)) => line.to_vec(),
                other => panic!("{other:?}"),
            }
        };
        payloads.iter().flat_map(line).collect::<Vec<u8>>().into()
    }

    fn object(collected: Collected) -> serde_json::Value {
        let body = collected.into_body(&cursor());
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"))
    }

    #[test]
    fn nothing_is_an_answer_with_a_cursor() {
        assert_eq!(Collected::default().into_body(&cursor()), "{\"messages\":[],\"cursor\":\"events~1.9\"}\n");
        let nowhere = Collected::default().into_body(&JointCursor::default());
        assert_eq!(nowhere, "{\"messages\":[],\"cursor\":null}\n");
    }

    #[test]
    fn messages_come_in_their_order_however_they_were_joined() {
        let mut collected = Collected::default();
        collected.push(lines(&[b"1", b"[2,\n2]"]));
        collected.push(lines(&[b"three\nlines\r\n"]));
        assert_eq!(collected.messages(), 3);
        let answer = object(collected);
        let data: Vec<_> = answer["messages"].as_array().unwrap().iter().map(|one| &one["data"]).collect();
        assert_eq!(data, [&serde_json::json!(1), &serde_json::json!([2, 2]), &serde_json::json!("three\nlines\r\n")]);
        assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
    }

    /// The document shows an answer as it comes.
    #[test]
    fn the_answer_in_the_document_is_one() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
        let document = std::fs::read_to_string(path).unwrap();
        let message = "{\"op\":\"message\",\"source\":\"events\",\"topic\":\"orders.eu.created\",\"cursor\":\"qglj.2t\",\
                       \"data\":{\"order\":17},\"timestamp_ms\":1765000000101}\n";
        let mut collected = Collected::default();
        collected.push(Bytes::from_static(message.as_bytes()));
        let body = collected.into_body(&"events~qglj.2t".parse().unwrap());
        assert!(document.contains(&format!("```json\n{}```", String::from_utf8(body.to_vec()).unwrap())));
    }

    #[test]
    fn gaps_and_outages_are_told_beside_the_messages() {
        let mut collected = Collected::default();
        for source in ["events", "orders"] {
            collected.note(&Event::Outage { source: source.into() });
        }
        collected.note(&Event::Restored { source: "events".into() });
        assert!(collected.is_empty() && collected.tells_outage());
        let pattern = Pattern::parse("a.#").unwrap();
        let reason = GapReason::Outage;
        collected.note(&Event::Gap(Gap { pattern, label: None, source: "orders".into(), missed: None, reason }));
        assert!(!collected.is_empty() && collected.bytes() > 0);
        let answer = object(collected);
        assert_eq!(answer["outage"], serde_json::json!(["orders"]));
        assert_eq!((&answer["gaps"][0]["reason"], &answer["gaps"][0]["pattern"]), (&"outage".into(), &"a.#".into()));
    }
}
