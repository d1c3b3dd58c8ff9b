//! `topic = "…"`: literal text with placeholders in braces.

use crate::config::key::nearest;
use crate::config::{TemplatePart, TopicTemplate};
use crate::model::topic::Topic;

/// Placeholders, without those for header fields.
const PLACEHOLDERS: &[&str] = &["routing_key", "exchange", "queue", "source", "header.NAME"];

/// Reads a template.
///
/// # Errors
/// A sentence that says what to write instead.
pub(super) fn read(text: &str) -> Result<TopicTemplate, String> {
    if text.is_empty() {
        return Err("is empty: name a topic, or remove the key to take the routing key".into());
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
    Ok(TopicTemplate(parts))
}

fn literal(piece: &str, text: &str, parts: &mut Vec<TemplatePart>) -> Result<(), String> {
    if piece.contains('}') {
        return Err(format!("is {text:?}: a brace is closed and was not opened"));
    }
    Topic::parse(piece).map_err(|error| error.to_string())?;
    if !piece.is_empty() {
        parts.push(TemplatePart::Text(piece.to_owned()));
    }
    Ok(())
}

fn placeholder(name: &str, text: &str) -> Result<TemplatePart, String> {
    match name {
        "routing_key" => Ok(TemplatePart::RoutingKey),
        "exchange" => Ok(TemplatePart::Exchange),
        "queue" => Ok(TemplatePart::Queue),
        "source" => Ok(TemplatePart::Source),
        _ => match name.strip_prefix("header.") {
            Some(field) if !field.is_empty() => Ok(TemplatePart::Header(field.to_owned())),
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
        assert_eq!(
            read("x.{source}.{header.event}{routing_key}"),
            Ok(TopicTemplate(vec![
                TemplatePart::Text("x.".into()),
                TemplatePart::Source,
                TemplatePart::Text(".".into()),
                TemplatePart::Header("event".into()),
                TemplatePart::RoutingKey,
            ]))
        );
        assert_eq!(read("fixed.name"), Ok(TopicTemplate(vec![TemplatePart::Text("fixed.name".into())])));
    }

    #[test]
    fn faults_are_named() {
        for (text, hint) in [
            ("", "is empty"),
            ("{routing_key", "not closed"),
            ("a}b", "not opened"),
            ("{routingkey}", "did you mean {routing_key}?"),
            ("{header.}", "{header.NAME}"),
            ("{zzzzzz}", "is none of {routing_key}, {exchange}"),
            (&"x".repeat(300), "300 bytes"),
        ] {
            let sentence = read(text).unwrap_err();
            assert!(sentence.contains(hint), "{text}: {sentence}");
        }
    }
}
