//! The fields of a client's message and the table of ops: which fields each of them reads. Error sentences come from here,
//! so that they name what was sent in place of what was needed.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Every field that any op reads, as the text that it is. Null counts as absent, but for `data`.
#[derive(Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(borrow)]
    pub(super) op: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) token: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) client: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) pattern: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) after: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) last: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) source: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) on_slow: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) max_rate: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) filter: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) topic: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) data_base64: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) headers: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) content_type: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) mandatory: Option<&'a RawValue>,
    pub(super) echo: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) timeout_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) queue: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) prefetch: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) delivery_tag: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) requeue: Option<&'a RawValue>,
}

/// Reads a field so that null is a value and not absence.
fn even_null<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// One op.
pub(super) struct Op {
    /// Its name on the wire.
    pub(super) name: &'static str,
    /// What it reads beside `op` and `id`.
    pub(super) fields: &'static [&'static str],
    /// What to do while it is not offered.
    pub(super) instead: &'static str,
}

/// Every op that the contract names, those that are not offered yet last.
pub(super) const OPS: &[Op] = &[
    Op { name: "connect", fields: &["token", "client"], instead: "" },
    Op {
        name: "subscribe",
        fields: &["pattern", "after", "last", "source", "on_slow", "max_rate", "filter"],
        instead: "",
    },
    Op { name: "unsubscribe", fields: &["pattern"], instead: "" },
    Op {
        name: "publish",
        fields: &["topic", "data", "data_base64", "headers", "message_id", "content_type", "mandatory", "echo"],
        instead: "",
    },
    Op {
        name: "call",
        fields: &["topic", "data", "data_base64", "headers", "message_id", "content_type", "timeout_ms"],
        instead: "",
    },
    Op { name: "consume", fields: &["queue", "prefetch"], instead: "" },
    Op { name: "cancel", fields: &["queue"], instead: "" },
    Op { name: "ack", fields: &["delivery_tag"], instead: "" },
    Op { name: "nack", fields: &["delivery_tag", "requeue"], instead: "" },
    Op { name: "presence", fields: &["pattern"], instead: "" },
    Op { name: "ping", fields: &[], instead: "" },
    Op { name: "refresh", fields: &[], instead: "open a new connection with the new token" },
];

/// The farthest distance at which a misspelt op is still recognised.
const TYPOS_MAX: usize = 3;

/// What to send instead of an op that does not exist.
pub(super) fn nearest_op(name: &str) -> String {
    let name = shortened(&name.to_lowercase());
    let nearest = OPS.iter().map(|op| (strsim::osa_distance(&name, op.name), op.name)).min();
    match nearest {
        Some((distance, op)) if distance <= TYPOS_MAX && distance < op.len() => format!("did you mean {op:?}?"),
        _ => {
            let names: Vec<&str> = OPS.iter().filter(|op| op.instead.is_empty()).map(|op| op.name).collect();
            format!("send one of {}", names.join(", "))
        }
    }
}

/// Bytes of what a client wrote that are quoted back at most, so that an error is never larger than its cause.
const QUOTED_BYTES_MAX: usize = 120;

/// At most [`QUOTED_BYTES_MAX`] bytes of a text.
pub(crate) fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(QUOTED_BYTES_MAX);
    match text.get(..end) {
        Some(start) if start.len() < text.len() => format!("{start}…"),
        _ => text.to_owned(),
    }
}

/// How many fields are named in ` (you sent …)`.
const NAMED_FIELDS_MAX: usize = 3;

/// ` (you sent "topic")`: the fields of a message that its op does not read; empty when there are none.
pub(super) fn sent_instead(text: &str, read: &[&str]) -> String {
    let Ok(Names(names)) = serde_json::from_str::<Names>(text) else { return String::new() };
    let strangers = names.iter().filter(|name| !read.contains(&name.as_str()) && *name != "op" && *name != "id");
    let quoted: Vec<String> = strangers.take(NAMED_FIELDS_MAX).map(|name| format!("{:?}", shortened(name))).collect();
    if quoted.is_empty() { String::new() } else { format!(" (you sent {})", quoted.join(", ")) }
}

/// The names of an object's first fields.
struct Names(Vec<String>);

/// How many names are kept.
const NAMES_MAX: usize = 32;

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if names.len() < NAMES_MAX {
                names.push(name);
            }
        }
        Ok(Names(names))
    }
}
