//! `[cloudevents]`: how messages that are no CloudEvents are called as such. Templates with placeholders in braces.

use super::Settler;
use crate::config::key::nearest;
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
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(format!("is {text:?}: a brace is opened and not closed"));
        };
        literal(before, text, &mut parts)?;
        parts.push(placeholder(name, text)?);
        rest = after;
    }
    literal(rest, text, &mut parts)?;
    Ok(EventTemplate(parts))
}

fn literal(piece: &str, text: &str, parts: &mut Vec<EventPart>) -> Result<(), String> {
    if piece.contains('}') {
        return Err(format!("is {text:?}: a brace is closed and was not opened"));
    }
    if piece.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(format!("is {text:?}: leave blanks out"));
    }
    if !piece.is_empty() {
        parts.push(EventPart::Text(piece.to_owned()));
    }
    Ok(())
}

fn placeholder(name: &str, text: &str) -> Result<EventPart, String> {
    match name {
        "source" => Ok(EventPart::Source),
        "topic" => Ok(EventPart::Topic),
        _ => match name.strip_prefix("header.") {
            Some(field) if !field.is_empty() => Ok(EventPart::Header(field.to_owned())),
            _ => Err(unknown(name, text)),
        },
    }
}

fn unknown(name: &str, text: &str) -> String {
    match nearest(name, PLACEHOLDERS.iter().copied()) {
        Some(known) => format!("is {text:?}: {{{name}}} is not known: did you mean {{{known}}}?"),
        None => {
            let all = PLACEHOLDERS.iter().map(|known| format!("{{{known}}}")).collect::<Vec<_>>().join(", ");
            format!("is {text:?}: {{{name}}} is none of {all}")
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
