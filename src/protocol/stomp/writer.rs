//! Frames of the server.
//!
//! Whatever a header's name or value holds, it stays one header: it is escaped as far as the version goes, and the rest is
//! replaced (`escape.rs` says by what). A body always has its length, so that it may hold NULs.

use bytes::Bytes;

use super::escape::{Escaping, Place};
use super::frame::Verb;
use super::heart_beat::HeartBeat;
use super::version::Version;

/// What says that the server lives when there is nothing else to say.
pub const HEART_BEAT: Bytes = Bytes::from_static(b"\n");

/// Headers of `MESSAGE` that say where it belongs and where it ends: no publisher's header may pass for one of them.
const RESERVED: [&str; 6] = ["subscription", "message-id", "destination", "ack", "content-type", "content-length"];

/// The answer to the first frame.
#[derive(Debug, Clone, Copy)]
pub struct ConnectedFrame<'a> {
    /// What is spoken from here on.
    pub version: Version,
    /// This connection's name.
    pub session: &'a str,
    /// Name and version of the server.
    pub server: &'a str,
    /// What is agreed on.
    pub heart_beat: HeartBeat,
    /// Who the client is, where it is somebody.
    pub user: Option<&'a str>,
}

/// A message for a subscription.
#[derive(Debug, Clone, Copy)]
pub struct MessageFrame<'a> {
    /// The subscription's id, where the client gave one.
    pub subscription: Option<&'a str>,
    /// What names the message in this session.
    pub message_id: &'a str,
    /// What to acknowledge it by in 1.2; older versions do so by `message_id`.
    pub ack: Option<&'a str>,
    /// Where it was sent.
    pub destination: &'a str,
    /// What the body is.
    pub content_type: Option<&'a str>,
    /// Everything else, what the publisher made up included.
    pub headers: &'a [(&'a str, &'a str)],
    /// The payload.
    pub body: &'a [u8],
}

/// What went wrong; the session ends with it.
#[derive(Debug, Clone, Copy)]
pub struct ErrorFrame<'a> {
    /// In a few words.
    pub message: &'a str,
    /// The receipt that the failed frame asked for.
    pub receipt_id: Option<&'a str>,
    /// A sentence that says what to do.
    pub detail: &'a str,
}

/// Writes a `CONNECTED`.
pub fn connected(frame: &ConnectedFrame<'_>) -> Bytes {
    let mut writer = Writer::new(Verb::Connected, frame.version, 0);
    writer.header("version", frame.version.name());
    writer.header("session", frame.session);
    writer.header("server", frame.server);
    writer.header("heart-beat", &frame.heart_beat.to_string());
    writer.optional("user-name", frame.user);
    writer.end(b"")
}

/// Writes a `MESSAGE`. Its own headers come first, so that they count where a publisher's are called the same; the
/// subscription before all, so that what follows is the same for everybody.
pub fn message(version: Version, frame: &MessageFrame<'_>) -> Bytes {
    let headers_bytes: usize = frame.headers.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let mut writer = Writer::new(Verb::Message, version, headers_bytes + frame.body.len());
    writer.optional("subscription", frame.subscription);
    writer.header("message-id", frame.message_id);
    writer.optional("ack", frame.ack);
    writer.header("destination", frame.destination);
    writer.optional("content-type", frame.content_type);
    for (name, value) in frame.headers {
        if !is_reserved(name) {
            writer.header(name, value);
        }
    }
    writer.end(frame.body)
}

/// Writes a `RECEIPT`.
pub fn receipt(version: Version, receipt_id: &str) -> Bytes {
    let mut writer = Writer::new(Verb::Receipt, version, 0);
    writer.header("receipt-id", receipt_id);
    writer.end(b"")
}

/// Writes an `ERROR`. It lists the versions that there are, for a client that wanted another.
pub fn error(version: Version, frame: &ErrorFrame<'_>) -> Bytes {
    let mut writer = Writer::new(Verb::Error, version, frame.detail.len());
    writer.header("message", frame.message);
    writer.optional("receipt-id", frame.receipt_id);
    writer.header("version", &Version::ALL.map(Version::name).join(","));
    writer.header("content-type", "text/plain");
    writer.end(frame.detail.as_bytes())
}

/// Whether a publisher's header could be taken for one of the server's own, by a client that trims names or does not mind
/// cases, or has no name at all.
fn is_reserved(name: &str) -> bool {
    name.is_empty() || RESERVED.iter().any(|reserved| name.trim().eq_ignore_ascii_case(reserved))
}

/// A frame being written.
struct Writer {
    bytes: Vec<u8>,
    escaping: Escaping,
}

/// Room for the verb and the headers that a frame always has.
const HEAD_BYTES_USUAL: usize = 192;

impl Writer {
    /// A frame that will have about so many bytes more than the usual headers.
    fn new(verb: Verb, version: Version, more_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES_USUAL + more_bytes);
        bytes.extend_from_slice(verb.name().as_bytes());
        bytes.push(b'\n');
        Self { bytes, escaping: Escaping::of(verb, version) }
    }

    fn header(&mut self, name: &str, value: &str) {
        self.escaping.push(Place::Name, name, &mut self.bytes);
        self.bytes.push(b':');
        self.escaping.push(Place::Value, value, &mut self.bytes);
        self.bytes.push(b'\n');
    }

    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.header(name, value);
        }
    }

    fn end(mut self, body: &[u8]) -> Bytes {
        self.header("content-length", &body.len().to_string());
        self.bytes.push(b'\n');
        self.bytes.extend_from_slice(body);
        self.bytes.push(0);
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::escape::REPLACEMENT;
    use super::super::frame::Frame;
    use super::super::reader::{Limits, Reader, Received};
    use super::*;

    /// What a client of that version reads: one frame and nothing else.
    fn read(version: Version, bytes: &Bytes) -> Frame {
        let limits = Limits { headers_max: 100, head_bytes_max: 1 << 16, body_bytes_max: 1 << 16 };
        let mut reader = Reader::new(limits);
        reader.speak(version);
        let mut input = &**bytes;
        match (reader.next(&mut input), reader.next(&mut input)) {
            (Ok(Some(Received::Frame(frame))), Ok(None)) => frame,
            other => panic!("{version} {bytes:?}: {other:?}"),
        }
    }

    fn headers(frame: &Frame) -> Vec<(&str, &str)> {
        frame.headers.iter().map(|header| (header.name.as_str(), header.value.as_str())).collect()
    }

    #[test]
    fn frames_are_written_as_the_specification_shows_them() {
        let heart_beat = HeartBeat::parse("10000,0").unwrap();
        let frame = ConnectedFrame {
            version: Version::V12,
            session: "c:1",
            server: "passerelle/0.1.0",
            heart_beat,
            user: Some("anna"),
        };
        let expected = "CONNECTED\nversion:1.2\nsession:c:1\nserver:passerelle/0.1.0\nheart-beat:10000,0\n\
                        user-name:anna\ncontent-length:0\n\n\0";
        assert_eq!(connected(&frame), expected);
        let frame = MessageFrame {
            subscription: Some("0"),
            message_id: "events~1.3",
            ack: Some("a:1"),
            destination: "/topic/a.b",
            content_type: Some("application/json"),
            headers: &[("x", "y\\z")],
            body: b"{\"x\":1}",
        };
        let expected = "MESSAGE\nsubscription:0\nmessage-id:events~1.3\nack:a\\c1\ndestination:/topic/a.b\n\
                        content-type:application/json\nx:y\\\\z\ncontent-length:7\n\n{\"x\":1}\0";
        assert_eq!(message(Version::V12, &frame), expected);
        assert_eq!(receipt(Version::V11, "r:1\n"), "RECEIPT\nreceipt-id:r\\c1\\n\ncontent-length:0\n\n\0");
        let frame = ErrorFrame { message: "not allowed", receipt_id: Some("7"), detail: "ask for é" };
        let expected = "ERROR\nmessage:not allowed\nreceipt-id:7\nversion:1.0,1.1,1.2\ncontent-type:text/plain\n\
                        content-length:10\n\nask for é\0";
        assert_eq!(error(Version::V10, &frame), expected);
    }

    #[test]
    fn no_publisher_can_say_where_a_message_belongs_or_ends() {
        let forged = RESERVED.map(|name| (name, "9"));
        let disguised = [("", "9"), (" Content-Length", "9"), ("ACK\t", "9"), ("redelivered", "true")];
        let frame = MessageFrame {
            subscription: None,
            message_id: "1",
            ack: None,
            destination: "/topic/a",
            content_type: None,
            headers: &[&forged[..], &disguised[..]].concat(),
            body: b"ab",
        };
        let expected = "MESSAGE\nmessage-id:1\ndestination:/topic/a\nredelivered:true\ncontent-length:2\n\nab\0";
        for version in Version::ALL {
            assert_eq!(message(version, &frame), expected);
        }
    }

    /// What arrives of a text that this version cannot say in full.
    fn arriving(version: Version, place: Place, text: &str) -> String {
        let lost: &[char] = match (version, place) {
            (Version::V12, _) => &['\0'],
            (Version::V11, _) => &['\0', '\r'],
            (Version::V10, Place::Value) => &['\0', '\r', '\n'],
            (Version::V10, Place::Name) => &['\0', '\r', '\n', ':'],
        };
        let text = text.replace(lost, REPLACEMENT);
        if version == Version::V10 && place == Place::Value {
            text.trim_start_matches([' ', '\t']).into()
        } else {
            text
        }
    }

    const HOSTILE: &str = "[a:\\\\nrc \\n\\r\\x00\\té\u{FFFD}]{0,8}";

    proptest! {
        #[test]
        fn messages_arrive_as_they_were_meant(
            version in prop::sample::select(&Version::ALL[..]),
            own in prop::array::uniform4(HOSTILE),
            extra in prop::collection::vec((HOSTILE, HOSTILE), 0..5),
            body in prop_oneof![prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(0..2_u8, 0..9)],
        ) {
            let [subscription, message_id, destination, content_type] = &own;
            let extra: Vec<(&str, &str)> = extra.iter().map(|(name, value)| (&**name, &**value)).collect();
            let written = message(version, &MessageFrame {
                subscription: Some(subscription),
                message_id,
                ack: None,
                destination,
                content_type: Some(content_type),
                headers: &extra,
                body: &body,
            });
            let length = body.len().to_string();
            let mut expected = vec![
                ("subscription", &**subscription),
                ("message-id", message_id),
                ("destination", destination),
                ("content-type", content_type),
            ];
            expected.extend(extra.iter().filter(|(name, _)| !name.is_empty()));
            expected.push(("content-length", &length));
            let expected: Vec<(String, String)> = expected
                .iter()
                .map(|(name, value)| (arriving(version, Place::Name, name), arriving(version, Place::Value, value)))
                .collect();
            let frame = read(version, &written);
            let actual: Vec<(String, String)> =
                headers(&frame).iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            prop_assert_eq!(frame.verb, Verb::Message);
            prop_assert_eq!(actual, expected);
            prop_assert_eq!(frame.body, body);
        }

        /// The other frames hold what clients and configurations made up, too.
        #[test]
        fn nothing_starts_a_header_or_a_frame(
            version in prop::sample::select(&Version::ALL[..]),
            texts in prop::array::uniform3(HOSTILE),
        ) {
            let [one, other, detail] = &texts;
            let frame = ConnectedFrame { version, session: one, server: other, heart_beat: HeartBeat::NONE, user: Some(detail) };
            prop_assert_eq!(read(version, &connected(&frame)).headers.len(), 6);
            let frame = read(version, &receipt(version, one));
            prop_assert_eq!(headers(&frame), [("receipt-id", &*arriving(version, Place::Value, one)), ("content-length", "0")]);
            let frame = read(version, &error(version, &ErrorFrame { message: one, receipt_id: Some(other), detail }));
            prop_assert_eq!(frame.headers.len(), 5);
            prop_assert_eq!(frame.body, detail.as_bytes());
        }
    }
}
