//! STOMP 1.2. It beats no heart: the WebSocket below has pings of its own.

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::{Client, FRAME_BYTES_MAX, Heard, Received, Subscriptions, Terms, gaps, headers, not_understood};
use crate::cli::client::Ended;
use crate::model::cursor::JointCursor;

/// What `SUBSCRIBE` and `MESSAGE` call a topic.
const TOPIC: &str = "/topic/";

/// How a destination writes a slash that is part of a word.
const SLASH: &str = "%2F";

/// Headers of `MESSAGE` that are not those of the message itself.
const OWN: [&str; 11] = [
    "subscription",
    "message-id",
    "destination",
    "content-type",
    "content-length",
    "source",
    "cursor",
    "replay",
    "redelivered",
    "timestamp",
    MESSAGE_ID,
];

/// The message's own id: `message-id` is STOMP's.
const MESSAGE_ID: &str = "amqp-message-id";

/// The client.
#[derive(Debug)]
pub(in crate::cli) struct Stomp {
    terms: Terms,
    subscriptions: Subscriptions,
    /// What came of a frame that is not whole.
    unfinished: Vec<u8>,
}

/// A frame of the server.
#[derive(Debug)]
struct Frame {
    command: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Stomp {
    /// # Errors
    /// A sentence, where the protocol has no word for what is wanted.
    pub(in crate::cli) fn new(terms: Terms) -> Result<Self, String> {
        terms.refuse("STOMP", &[])?;
        Ok(Self { subscriptions: Subscriptions::new(&terms), terms, unfinished: Vec::new() })
    }

    fn subscribe(&self) -> impl Iterator<Item = Heard> + '_ {
        self.subscriptions.0.iter().enumerate().map(|(number, one)| {
            // A slash in a word would begin another part of the destination.
            let pattern = one.pattern.as_str().replace('/', SLASH);
            let (number, destination) = (number.to_string(), format!("{TOPIC}{pattern}"));
            let mut headers = vec![("id", number.clone()), ("destination", destination), ("receipt", number)];
            if !one.after.0.is_empty() {
                headers.push(("after", one.after.to_string()));
            }
            if let Some(filter) = &self.terms.filter {
                headers.push(("filter", Value::Object(filter.clone()).to_string()));
            }
            if let Some(flow) = &self.terms.on_slow {
                headers.push(("on-slow", flow.clone()));
            }
            Heard::Say(frame("SUBSCRIBE", &headers))
        })
    }

    fn message(&mut self, frame: &Frame) -> Result<Vec<Heard>, Ended> {
        let wrong = || not_understood("STOMP", "a MESSAGE of no subscription of ours");
        let number: usize = frame.header("subscription").and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
        let pattern = self.subscriptions.0.get(number).ok_or_else(wrong)?.pattern.as_str().to_owned();
        let destination = frame.header("destination").unwrap_or_default();
        let topic = &*destination.strip_prefix(TOPIC).unwrap_or(destination).replace(SLASH, "/");
        let mut heard = gaps(&pattern, |name| frame.header(name));
        let at = frame.header("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or_default();
        let received = frame.received(topic, at);
        if self.subscriptions.received(number, topic, (&received.at, received.replay)) {
            heard.push(Heard::Message(received.line()));
        }
        Ok(heard)
    }
}

impl Client for Stomp {
    fn subprotocol(&self) -> &'static str {
        "v12.stomp"
    }

    fn open(&mut self) -> Result<Message, Ended> {
        self.unfinished.clear();
        self.subscriptions.reconnect();
        let headers = [("accept-version", "1.2"), ("host", "passerelle"), ("heart-beat", "0,0")];
        Ok(frame("CONNECT", &headers.map(|(name, value)| (name, value.to_owned()))))
    }

    fn has_no_place(&self) -> bool {
        self.subscriptions.has_no_place()
    }

    fn hear(&mut self, message: Message) -> Result<Vec<Heard>, Ended> {
        self.unfinished.extend_from_slice(&message.into_data());
        let mut heard = Vec::new();
        while let Some(frame) = Frame::take(&mut self.unfinished)? {
            match frame.command.as_str() {
                "CONNECTED" => heard.extend(self.subscribe()),
                "RECEIPT" => {
                    let number = frame.header("receipt-id").and_then(|number| number.parse().ok());
                    number.into_iter().for_each(|number| self.subscriptions.stands(number));
                    heard.push(Heard::Stands);
                }
                "MESSAGE" => heard.extend(self.message(&frame)?),
                // The closing frame that follows an ERROR says the same, and whether to come back.
                _ => {}
            }
        }
        if self.unfinished.len() > FRAME_BYTES_MAX {
            return Err(not_understood("STOMP", "a frame without an end"));
        }
        Ok(heard)
    }
}

impl Frame {
    /// The first frame of what came, if it is whole (section "STOMP Frames").
    fn take(bytes: &mut Vec<u8>) -> Result<Option<Self>, Ended> {
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        bytes.drain(..blank);
        let Some((head, body_at)) = head(bytes) else { return Ok(None) };
        let head = std::str::from_utf8(head).map_err(|_| not_understood("STOMP", "a frame's head is no UTF-8"))?;
        let mut lines = head.lines();
        let command = lines.next().unwrap_or_default().to_owned();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').and_then(|(name, value)| Some((meant(name)?, meant(value)?))))
            .collect::<Option<_>>()
            .ok_or_else(|| not_understood("STOMP", "a header without a colon, or with an escape of no meaning"))?;
        let mut frame = Self { command, headers, body: Vec::new() };
        let length = match frame.header("content-length").map(str::parse::<usize>) {
            None => bytes.iter().skip(body_at).position(|byte| *byte == 0),
            Some(Ok(length)) => (bytes.len() > body_at.saturating_add(length)).then_some(length),
            Some(Err(_)) => return Err(not_understood("STOMP", "a content-length that is no number")),
        };
        let Some(length) = length else { return Ok(None) };
        if bytes.get(body_at + length) != Some(&0) {
            return Err(not_understood("STOMP", "a body without a NUL behind it"));
        }
        frame.body = bytes.drain(..=body_at + length).skip(body_at).take(length).collect();
        Ok(Some(frame))
    }

    /// The first header of a name, which counts (section "Repeated Header Entries").
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn received<'a>(&'a self, topic: &'a str, at: JointCursor) -> Received<'a> {
        let fields = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Received {
            topic,
            at,
            replay: self.header("replay") == Some("true"),
            redelivered: self.header("redelivered") == Some("true"),
            content_type: self.header("content-type"),
            timestamp_ms: self.header("timestamp").and_then(|millis| millis.parse().ok()),
            message_id: self.header(MESSAGE_ID),
            headers: headers(fields, &OWN),
            payload: &self.body,
        }
    }
}

/// A frame's head, and where its body begins, if the head is whole.
fn head(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let mut from = 0;
    loop {
        let end = from + bytes.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        match bytes.get(end + 1..)? {
            [b'\n', ..] => return bytes.get(..end).map(|head| (head, end + 2)),
            [b'\r', b'\n', ..] => return bytes.get(..end).map(|head| (head, end + 3)),
            _ => from = end + 1,
        }
    }
}

/// What a client says: without a body.
fn frame(command: &str, headers: &[(&str, String)]) -> Message {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", escaped(value))).collect();
    Message::text(format!("{command}\n{lines}\n\0"))
}

/// Section "Value Encoding".
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\r', "\\r").replace('\n', "\\n").replace(':', "\\c")
}

fn meant(text: &str) -> Option<String> {
    let mut meant = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        meant.push(match character {
            '\\' => match characters.next()? {
                'r' => '\r',
                'n' => '\n',
                'c' => ':',
                '\\' => '\\',
                _ => return None,
            },
            other => other,
        });
    }
    Some(meant)
}
