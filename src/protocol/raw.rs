//! `passerelle.v1.raw`, and what a client gets that asks for nothing: payloads as they came, one a frame; each frame that
//! it sends is published to the one topic of its URL. There is no word for anything else, so failures end the session.

use bytes::Bytes;

use crate::model::close::CloseReason;
use crate::model::outgoing::Outgoing;
use crate::model::publication::{Publication, RawFrames};
use crate::model::topic::Topic;
use crate::protocol::json::payload::is_json;
use crate::protocol::{
    Codec, Command, Echo, Event, Failures, Fault, Incoming, Labels, Opening, Outbound, ProtocolId, Said, Subprotocol,
    Unsent,
};

/// The row of the registry.
pub const SUBPROTOCOL: Subprotocol = Subprotocol {
    name: "passerelle.v1.raw",
    summary: "payloads as they came: `/ws?pattern=…&publish=TOPIC`; also what a bare `new WebSocket(url)` gets",
    negotiable: true,
    index: ProtocolId(1),
    failures: Failures::End,
    labels: Labels::Absent,
    codec: |opening| Box::new(Raw::new(opening.publish)),
    encode_message: |message| frame(message.publication).ok_or(Unsent::Impossible),
};

/// Said to a client that sends without a topic to send to.
const ONLY_LISTENS: &str = "this socket only listens: add ?publish=TOPIC";

/// Said to a client that could neither listen nor send.
const NOTHING_ASKED: &str = "add ?pattern=… or ask for passerelle.v1.json";

/// The codec of one session.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Where everything that it sends goes.
    publish: Option<Topic>,
}

impl Raw {
    /// A codec that publishes to this topic, or refuses to.
    pub fn new(publish: Option<Topic>) -> Self {
        Self { publish }
    }
}

/// What is wrong with a URL that asks for `patterns` patterns and this topic: it must have one of them.
pub fn opening_fault(patterns: usize, opening: &Opening) -> Option<Fault> {
    let asks_nothing = patterns == 0 && opening.publish.is_none();
    asks_nothing.then_some(Fault::Close { reason: CloseReason::Policy, detail: NOTHING_ASKED })
}

impl Codec for Raw {
    fn decode(&mut self, message: Incoming<'_>) -> Result<Said, Fault> {
        let Some(topic) = &self.publish else {
            return Err(Fault::Close { reason: CloseReason::UnsupportedData, detail: ONLY_LISTENS });
        };
        let (payload, content_type) = match message {
            Incoming::Text(text) => (Bytes::copy_from_slice(text.as_bytes()), text_type(text)),
            Incoming::Binary(bytes) => (Bytes::copy_from_slice(bytes), "application/octet-stream"),
        };
        let message = Outgoing { content_type: Some(content_type.into()), ..Outgoing::new(topic.clone(), payload) };
        Ok(Said::Command(Command::Publish { id: None, message, mandatory: false, echo: Echo::All }))
    }

    fn encode(&mut self, _: &Event) -> Option<Outbound> {
        None
    }
}

/// Objects and arrays are announced as JSON. Anything else stays text, so that a chat line `42` or `true` does.
fn text_type(text: &str) -> &'static str {
    let looks_structured = text.trim_start().starts_with(['{', '[']);
    if looks_structured && is_json(text) { "application/json" } else { "text/plain; charset=utf-8" }
}

/// A payload as one frame, or nothing where its source allows only text and it is none.
fn frame(publication: &Publication) -> Option<Outbound> {
    let payload = publication.draft.payload.clone();
    let is_text = || simdutf8::basic::from_utf8(&payload).is_ok();
    match publication.source.raw_frames {
        RawFrames::Binary => Some(Outbound::Binary(payload)),
        RawFrames::Auto | RawFrames::Text if is_text() => Some(Outbound::Text(payload)),
        RawFrames::Auto => Some(Outbound::Binary(payload)),
        RawFrames::Text => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::publication_from;

    fn published(text: &str) -> (Bytes, String) {
        let mut codec = Raw::new(Some(Topic::parse("chat").unwrap()));
        match codec.decode(Incoming::Text(text)) {
            Ok(Said::Command(Command::Publish { id: None, message, mandatory: false, echo: Echo::All })) => {
                (message.payload, message.content_type.unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn frames_are_published_as_they_came() {
        for text in ["ping", "42", "true", "\"x\"", "{\"a\":", "[1] and more", ""] {
            assert_eq!(published(text), (Bytes::copy_from_slice(text.as_bytes()), "text/plain; charset=utf-8".into()));
        }
        for text in ["{\"a\":1}", " [1, 2]\n"] {
            assert_eq!(published(text), (Bytes::copy_from_slice(text.as_bytes()), "application/json".into()));
        }
    }

    #[test]
    fn a_listener_that_sends_is_told_how_to() {
        let fault = Raw::new(None).decode(Incoming::Binary(b"x")).unwrap_err();
        assert!(matches!(fault, Fault::Close { reason: CloseReason::UnsupportedData, detail: ONLY_LISTENS }));
    }

    #[test]
    fn a_socket_must_ask_for_something() {
        assert!(matches!(
            opening_fault(0, &Opening::default()),
            Some(Fault::Close { reason: CloseReason::Policy, .. })
        ));
        assert!(opening_fault(1, &Opening::default()).is_none());
        assert!(
            opening_fault(0, &Opening { publish: Some(Topic::parse("chat").unwrap()), ..Opening::default() }).is_none()
        );
    }

    #[test]
    fn the_source_decides_between_text_and_binary() {
        let text = Bytes::from_static("é".as_bytes());
        let bytes = Bytes::from_static(b"\xff");
        let framed = |payload: &Bytes, frames| frame(&publication_from(frames, payload.clone()));
        assert_eq!(framed(&text, RawFrames::Auto), Some(Outbound::Text(text.clone())));
        assert_eq!(framed(&text, RawFrames::Text), Some(Outbound::Text(text.clone())));
        assert_eq!(framed(&text, RawFrames::Binary), Some(Outbound::Binary(text.clone())));
        assert_eq!(framed(&bytes, RawFrames::Auto), Some(Outbound::Binary(bytes.clone())));
        assert_eq!(framed(&bytes, RawFrames::Text), None);
    }
}
