//! `topic = "…"`: literal text with placeholders in braces.

use super::placeholders;
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
    let literal = |piece: &str| {
        Topic::parse(piece).map_err(|error| error.to_string())?;
        Ok(TemplatePart::Text(piece.to_owned()))
    };
    placeholders::parts(text, literal, |name| placeholder(name, text)).map(TopicTemplate)
}

fn placeholder(name: &str, text: &str) -> Result<TemplatePart, String> {
    match name {
        "routing_key" => Ok(TemplatePart::RoutingKey),
        "exchange" => Ok(TemplatePart::Exchange),
        "queue" => Ok(TemplatePart::Queue),
        "source" => Ok(TemplatePart::Source),
        _ => {
            let field = placeholders::header(name).ok_or_else(|| placeholders::unknown(name, text, PLACEHOLDERS));
            field.map(TemplatePart::Header)
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
