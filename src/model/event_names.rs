//! How messages are called where they go out as events: templates of where they come from and of what kind they are.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::publication::Draft;
use crate::model::value::Value;

/// What stands unescaped in a part of a URI (RFC 3986, section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The templates of one source's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNames {
    /// Of where it comes from, a reference to a URI.
    pub source: EventTemplate,
    /// Of its kind.
    pub kind: EventTemplate,
}

/// Literal text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTemplate(pub Vec<EventPart>);

/// A piece of an [`EventTemplate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventPart {
    /// As it stands.
    Text(String),
    /// The name of the source.
    Source,
    /// The topic.
    Topic,
    /// A header that is text, a whole number or a truth value; nothing where there is none.
    Header(String),
}

impl Default for EventNames {
    /// `/{source}` and `{topic}`.
    fn default() -> Self {
        let source = EventTemplate(vec![EventPart::Text("/".into()), EventPart::Source]);
        Self { source, kind: EventTemplate(vec![EventPart::Topic]) }
    }
}

impl EventNames {
    /// Where a message comes from. What is put in is escaped, so that it is one whatever a topic holds.
    pub fn source_of(&self, source: &str, draft: &Draft) -> String {
        let filled = self.source.filled(source, draft, |text| utf8_percent_encode(text, ESCAPED).to_string());
        if filled.is_empty() { "/".to_owned() } else { filled }
    }

    /// Of what kind a message is.
    pub fn kind_of(&self, source: &str, draft: &Draft) -> String {
        let filled = self.kind.filled(source, draft, str::to_owned);
        if filled.is_empty() { "message".to_owned() } else { filled }
    }
}

impl EventTemplate {
    fn filled(&self, source: &str, draft: &Draft, escaped: impl Fn(&str) -> String) -> String {
        let piece = |part: &EventPart| match part {
            EventPart::Text(text) => text.clone(),
            EventPart::Source => escaped(source),
            EventPart::Topic => escaped(draft.topic.as_str()),
            EventPart::Header(name) => match draft.attributes.headers.value(name) {
                Some(Value::Text(text)) => escaped(text),
                Some(Value::Int(number)) => number.to_string(),
                Some(Value::UInt(number)) => number.to_string(),
                Some(Value::Bool(truth)) => truth.to_string(),
                _ => String::new(),
            },
        };
        self.0.iter().map(piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::publication::Attributes;
    use crate::model::topic::Topic;
    use crate::model::value::Headers;

    fn draft(topic: &str) -> Draft {
        let headers = Headers(vec![("region".into(), Value::Text("e u".into())), ("number".into(), Value::Int(7))]);
        let attributes = Attributes { headers, ..Attributes::default() };
        Draft { topic: Topic::parse(topic).unwrap(), payload: Bytes::new(), attributes, received_at: 0 }
    }

    #[test]
    fn placeholders_are_filled_and_escaped_where_a_uri_needs_it() {
        let header = |name: &str| EventPart::Header(name.into());
        let parts = vec![EventPart::Source, EventPart::Text("/".into()), EventPart::Topic, header("region")];
        let template = EventTemplate([parts, vec![header("number"), header("none")]].concat());
        let names = EventNames { source: template.clone(), kind: template };
        assert_eq!(names.source_of("events", &draft("a.b c/é")), "events/a.b%20c%2F%C3%A9e%20u7");
        assert_eq!(names.kind_of("events", &draft("a.b c/é")), "events/a.b c/ée u7");
    }

    #[test]
    fn neither_is_ever_empty() {
        let names = EventNames { source: EventTemplate(vec![EventPart::Topic]), ..EventNames::default() };
        assert_eq!((names.source_of("x", &draft("")), names.kind_of("x", &draft(""))), ("/".into(), "message".into()));
        assert_eq!(EventNames::default().source_of("events", &draft("a")), "/events");
    }
}
