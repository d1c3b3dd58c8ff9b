//! Marks on a message of ours: which connection does not want it back, and that it is to be retained. They are header fields,
//! so a service that passes properties on copies them, and the broker does when it dead-letters. Therefore each names the
//! exchange and the routing key of its publish, and is heeded on what was published there only. They are texts, a list in
//! JSON, because RabbitMQ 3.10 keeps no lists of what is in a stream.

use std::sync::Arc;

use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};

use super::inspect::{ORIGIN_HEADER, RETAINED_HEADER};

/// Where a message is published, or was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The exchange.
    pub(crate) exchange: &'a str,
    /// The routing key.
    pub(crate) key: &'a str,
}

impl Place<'_> {
    /// Header fields as they come, with the mark that this connection does not want the message back.
    pub(crate) fn not_for(self, connection: &str, fields: FieldTable) -> FieldTable {
        self.marked(fields, ORIGIN_HEADER, &[connection])
    }

    /// The same with the mark that it is to be retained.
    pub(crate) fn retained(self, fields: FieldTable) -> FieldTable {
        self.marked(fields, RETAINED_HEADER, &[])
    }

    /// The connection that published it here and does not want it back.
    pub(crate) fn origin(self, fields: &FieldTable) -> Option<Arc<str>> {
        match &self.heeded(fields, ORIGIN_HEADER)?[..] {
            [name] => Some(name.as_str().into()),
            _ => None,
        }
    }

    /// Whether it is to be retained.
    pub(crate) fn is_retained(self, fields: &FieldTable) -> bool {
        self.heeded(fields, RETAINED_HEADER).is_some()
    }

    /// The same properties for another place, where we publish the message once more: marks that are heeded here are so there.
    pub(crate) fn hand_on(self, to: Place<'_>, properties: AMQPProperties) -> AMQPProperties {
        let Some(fields) = properties.headers() else { return properties };
        let mut moved = None;
        for name in [ORIGIN_HEADER, RETAINED_HEADER] {
            if let Some(words) = self.heeded(fields, name) {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                moved.get_or_insert_with(|| fields.clone()).insert(name.into(), to.mark(&words));
            }
        }
        match moved {
            Some(fields) => properties.with_headers(fields),
            None => properties,
        }
    }

    fn marked(self, mut fields: FieldTable, name: &str, words: &[&str]) -> FieldTable {
        fields.insert(name.into(), self.mark(words));
        fields
    }

    /// What the mark says, and of what.
    fn mark(self, words: &[&str]) -> AMQPValue {
        let written = serde_json::Value::from([words, &[self.exchange, self.key]].concat());
        AMQPValue::LongString(LongString::from(written.to_string()))
    }

    /// What a mark says, if it is of a publish here.
    fn heeded(self, fields: &FieldTable, name: &str) -> Option<Vec<String>> {
        let AMQPValue::LongString(mark) = fields.inner().get(name)? else { return None };
        let mut words: Vec<String> = serde_json::from_slice(mark.as_bytes()).ok()?;
        let is_of_here = words.pop()? == self.key && words.pop()? == self.exchange;
        is_of_here.then_some(words)
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = String> {
        proptest::sample::select(vec!["", "a", "b", "a.b"]).prop_map(str::to_owned)
    }

    proptest! {
        #[test]
        fn marks_are_heeded_where_they_were_made(made in (name(), name()), seen in (name(), name())) {
            let [from, at] = [&made, &seen].map(|(exchange, key)| Place { exchange, key });
            let fields = from.retained(from.not_for("c1", FieldTable::default()));
            let is_here = made == seen;
            let origin = is_here.then(|| Arc::from("c1"));
            prop_assert_eq!(at.origin(&fields), origin.clone());
            prop_assert_eq!(at.is_retained(&fields), is_here);
            let anew = Place { exchange: "stream", key: "c" };
            let moved = at.hand_on(anew, AMQPProperties::default().with_headers(fields));
            let moved = moved.headers().clone().unwrap();
            prop_assert_eq!(anew.origin(&moved), origin);
            prop_assert_eq!(anew.is_retained(&moved), is_here);
        }
    }

    /// Whatever a stranger writes there.
    #[test]
    fn anything_else_in_their_place_is_no_mark() {
        let place = Place { exchange: "x", key: "k" };
        let text = |text: &str| AMQPValue::LongString(LongString::from(text));
        for value in [
            text("c1"),
            AMQPValue::Boolean(true),
            text("[]"),
            text(r#"["k"]"#),
            text(r#"["x","k"]"#),
            text(r#"[1,"x","k"]"#),
            text(r#"["c1","x","k","#),
            AMQPValue::FieldArray(FieldArray::from(["c1", "x", "k"].map(text).to_vec())),
        ] {
            let mut fields = FieldTable::default();
            fields.insert(ORIGIN_HEADER.into(), value);
            assert_eq!(place.origin(&fields), None, "{fields:?}");
        }
    }
}
