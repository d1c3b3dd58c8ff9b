//! What `sub` prints: messages on standard output in the form asked for, everything else in words on standard error.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::client::Frame;

/// How a message is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The JSON object in one line, as it came.
    Line,
    /// The JSON object over several lines.
    Pretty,
    /// The payload and nothing else.
    Payload,
}

/// Where messages and notices go.
pub(super) struct Output<M, N> {
    form: Form,
    /// Messages still wanted; `None` for all.
    left: Option<u64>,
    messages: M,
    notices: N,
}

impl<M: Write, N: Write> Output<M, N> {
    pub(super) fn new(form: Form, count: Option<u64>, messages: M, notices: N) -> Self {
        Self { form, left: count, messages, notices }
    }

    /// Prints one message at once. Returns whether that was the last one wanted.
    pub(super) fn message(&mut self, text: &str, frame: &Frame<'_>) -> io::Result<bool> {
        let mut line = match self.form {
            // Between the tokens of JSON a line break is a space; inside them there is none.
            Form::Line => text.replace(['\n', '\r'], " ").into_bytes(),
            Form::Pretty => indented(text).into_bytes(),
            Form::Payload => payload(frame),
        };
        line.push(b'\n');
        self.messages.write_all(&line)?;
        self.messages.flush()?;
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(self.left == Some(0))
    }

    /// Tells what is not a message, if it is worth a word.
    pub(super) fn notice(&mut self, frame: &Frame<'_>) {
        if let Some(sentence) = sentence(frame) {
            self.say(&sentence);
        }
    }

    /// Says something to whoever watches.
    pub(super) fn say(&mut self, sentence: &str) {
        let _ = writeln!(self.notices, "{sentence}");
    }
}

/// What the server told, in words.
fn sentence(frame: &Frame<'_>) -> Option<String> {
    let source = frame.source.as_deref().unwrap_or("a source");
    let reason = frame.reason.as_deref().unwrap_or("no reason given");
    match frame.op.as_str() {
        "gap" => {
            let missed = match frame.missed {
                Some(1) => "1 message was missed".to_owned(),
                Some(count) => format!("{count} messages were missed"),
                None => "messages may have been missed".to_owned(),
            };
            let wanted = frame.pattern.as_deref().or(frame.topic.as_deref()).unwrap_or("#");
            Some(format!("gap: {missed} on '{wanted}' from {source} ({reason})"))
        }
        "outage" => Some(format!("outage: {source} has lost its broker")),
        "restored" => Some(format!("restored: {source} has its broker again")),
        "goodbye" => Some(format!("goodbye: {reason}")),
        _ => None,
    }
}

/// The payload as it was published, as far as JSON lets it through: texts without their quotes, bytes as bytes.
fn payload(frame: &Frame<'_>) -> Vec<u8> {
    if let Some(encoded) = &frame.data_base64 {
        return STANDARD.decode(encoded).unwrap_or_else(|_| encoded.clone().into_bytes());
    }
    let Some(data) = frame.data else { return b"null".to_vec() };
    match serde_json::from_str::<String>(data.get()) {
        Ok(text) => text.into_bytes(),
        Err(_) => data.get().replace(['\n', '\r'], " ").into_bytes(),
    }
}

/// JSON over several lines. Only white space changes, so that numbers keep all their digits and fields their order.
fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut rest = json.chars().peekable();
    while let Some(character) = rest.next() {
        if in_text {
            out.push(character);
            in_text = escaped || character != '"';
            escaped = character == '\\' && !escaped;
            continue;
        }
        match character {
            '{' | '[' => {
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                out.push(character);
                if let Some(close) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(',');
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            character if character.is_ascii_whitespace() => {}
            character => {
                in_text = character == '"';
                out.push(character);
            }
        }
    }
    out
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(form: Form, text: &str) -> String {
        let (mut messages, mut notices) = (Vec::new(), Vec::new());
        Output::new(form, None, &mut messages, &mut notices).message(text, &Frame::parse(text).unwrap()).unwrap();
        assert!(notices.is_empty());
        String::from_utf8_lossy(&messages).into_owned()
    }

    #[test]
    fn a_line_is_what_came_even_if_the_payload_has_line_breaks() {
        let text =
            "{\"op\":\"message\",\"topic\":\"a\",\"data\":{\n\"x\": 1.00000000000000000001,\r\n\"t\":\"a\\nb\"}}";
        assert_eq!(printed(Form::Line, text), text.replace(['\n', '\r'], " ") + "\n");
    }

    #[test]
    fn payloads_are_printed_bare() {
        assert_eq!(printed(Form::Payload, r#"{"op":"message","data":"a\n\"b\""}"#), "a\n\"b\"\n");
        assert_eq!(
            printed(Form::Payload, r#"{"op":"message","data":{"x": 12345678901234567890123}}"#),
            "{\"x\": 12345678901234567890123}\n"
        );
        assert_eq!(printed(Form::Payload, r#"{"op":"message","data_base64":"aGk="}"#), "hi\n");
        assert_eq!(printed(Form::Payload, r#"{"op":"message","data":null}"#), "null\n");
    }

    #[test]
    fn indenting_changes_white_space_only() {
        let text = r#"{"a":[1,{ },[ ]],"b":"x,{\"}","c":{"d":-1.50e3}}"#;
        let pretty = indented(text);
        assert_eq!(
            pretty,
            "{\n  \"a\": [\n    1,\n    {},\n    []\n  ],\n  \"b\": \"x,{\\\"}\",\n  \"c\": {\n    \"d\": -1.50e3\n  }\n}"
        );
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&pretty), value(text));
    }

    #[test]
    fn notices_are_sentences() {
        let said = |text: &str| sentence(&Frame::parse(text).unwrap());
        assert_eq!(
            said(r#"{"op":"gap","pattern":"a.#","source":"events","missed":3,"reason":"expired"}"#).as_deref(),
            Some("gap: 3 messages were missed on 'a.#' from events (expired)")
        );
        assert_eq!(
            said(r##"{"op":"gap","pattern":"#","source":"events","missed":null,"reason":"outage"}"##).as_deref(),
            Some("gap: messages may have been missed on '#' from events (outage)")
        );
        assert_eq!(said(r#"{"op":"outage","source":"events"}"#).as_deref(), Some("outage: events has lost its broker"));
        assert_eq!(said(r#"{"op":"position","cursors":{}}"#), None);
    }
}
