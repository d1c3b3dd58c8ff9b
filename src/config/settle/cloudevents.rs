//! `[cloudevents]`: how messages that are no CloudEvents are called as such. Templates with placeholders in braces.

use super::{Settler, placeholders};
use crate::model::event_names::{EventNames, EventPart, EventTemplate};

/// Placeholders, without those for header fields.
const PLACEHOLDERS: &[&str] = &["source", "topic", "header.NAME"];

impl Settler<'_> {
    pub(super) fn event_names(&mut self) -> EventNames {
        let default = EventNames::default();
        let source = self.event_template("cloudevents.source", default.source);
        EventNames { source, kind: self.event_template("cloudevents.type", default.kind) }
    }

    fn event_template(&mut self, path: &str, default: EventTemplate) -> EventTemplate {
        let text = self.text(path);
        read(&text).unwrap_or_else(|sentence| {
            self.mistake(path, sentence);
            default
        })
    }
}

/// Reads a template.
fn read(text: &str) -> Result<EventTemplate, String> {
    if text.is_empty() {
        return Err("is empty: every event has one; remove the key for the default".into());
    }
    let literal = |piece: &str| {
        if piece.chars().any(|character| character.is_whitespace() || character.is_control()) {
            return Err(format!("is {text:?}: leave blanks out"));
        }
        Ok(EventPart::Text(piece.to_owned()))
    };
    placeholders::parts(text, literal, |name| placeholder(name, text)).map(EventTemplate)
}

fn placeholder(name: &str, text: &str) -> Result<EventPart, String> {
    match name {
        "source" => Ok(EventPart::Source),
        "topic" => Ok(EventPart::Topic),
        _ => {
            let field = placeholders::header(name).ok_or_else(|| placeholders::unknown(name, text, PLACEHOLDERS));
            field.map(EventPart::Header)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_text_and_placeholders() {
        assert_eq!(read("/{source}"), Ok(EventNames::default().source));
        assert_eq!(read("{topic}"), Ok(EventNames::default().kind));
        let expected = vec![EventPart::Text("com.example.".into()), EventPart::Header("kind".into())];
        assert_eq!(read("com.example.{header.kind}"), Ok(EventTemplate(expected)));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, words) in [
            ("", "is empty"),
            ("{topik}", "did you mean {topic}?"),
            ("{header.}", "is not known"),
            ("{x", "is opened and not closed"),
            ("x}", "is closed and was not opened"),
            ("a b", "leave blanks out"),
        ] {
            let sentence = read(text).unwrap_err();
            assert!(sentence.contains(words) || sentence.contains("is none of"), "{text}: {sentence}");
        }
    }
}
