//! Reading one event in the JSON format (CloudEvents JSON Event Format 1.0.2): whole, or not at all.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::value::RawValue;

use crate::protocol::cloudevents::time;
use crate::protocol::json::payload::{BASE64, is_too_deep};

/// What a client is told whose event cannot be read; at most 123 bytes each.
const NO_EVENT: &str = "a message is one CloudEvent: a JSON object with specversion, id, source and type";
const WRONG_VERSION: &str = "specversion must be \"1.0\"";
const INCOMPLETE: &str = "an event needs id, source and type, each a string that is not empty";
const WRONG_NAME: &str = "names of attributes are lower-case letters and digits";
const WRONG_VALUE: &str = "an attribute is a string, true, false, or a whole number of 32 bits";
const WRONG_TEXT: &str = "datacontenttype, dataschema, subject and time are strings that are not empty";
const WRONG_TIME: &str = "time is written as in RFC 3339, such as 2025-01-31T12:00:00Z";
const BOTH_DATA: &str = "an event has data or data_base64, not both";
const NO_BASE64: &str = "data_base64 needs base64";
const TOO_DEEP: &str = "data may be nested 100 levels deep";

/// One event.
#[derive(Debug, PartialEq)]
pub(super) struct CloudEvent<'a> {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) kind: String,
    /// The others, in the order of their names.
    pub(super) attributes: Vec<(String, Attribute)>,
    pub(super) data: Data<'a>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attribute {
    Text(String),
    Truth(bool),
    Integer(i32),
}

/// What an event is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Data<'a> {
    Absent,
    /// As it was written.
    Json(&'a str),
    Bytes(Vec<u8>),
}

impl CloudEvent<'_> {
    /// An attribute that is a string.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find_map(|(known, value)| match value {
            Attribute::Text(text) if known == name => Some(text.as_str()),
            _ => None,
        })
    }
}

/// Reads one event, or says in a sentence why it is none.
pub(super) fn read(text: &str) -> Result<CloudEvent<'_>, &'static str> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(|_| NO_EVENT)?;
    if is_too_deep(text) {
        return Err(TOO_DEEP);
    }
    let mut string = |name: &str| fields.remove(name).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    if string("specversion").ok_or(NO_EVENT)? != "1.0" {
        return Err(WRONG_VERSION);
    }
    let mut required = |name: &str| string(name).filter(|text| !text.is_empty()).ok_or(INCOMPLETE);
    let (id, source, kind) = (required("id")?, required("source")?, required("type")?);
    let data = data(fields.remove("data"), fields.remove("data_base64"))?;
    let mut attributes = Vec::new();
    for (name, raw) in fields.into_iter().filter(|(_, raw)| raw.get() != "null") {
        let value = attribute(raw)?;
        check(&name, &value)?;
        attributes.push((name, value));
    }
    Ok(CloudEvent { id, source, kind, attributes, data })
}

fn data<'a>(json: Option<&'a RawValue>, encoded: Option<&'a RawValue>) -> Result<Data<'a>, &'static str> {
    match (json, encoded) {
        (Some(_), Some(_)) => Err(BOTH_DATA),
        (None, None) => Ok(Data::Absent),
        (Some(json), None) => Ok(Data::Json(json.get())),
        (None, Some(encoded)) => {
            let encoded: String = serde_json::from_str(encoded.get()).map_err(|_| NO_BASE64)?;
            BASE64.decode(encoded.as_bytes()).map(Data::Bytes).map_err(|_| NO_BASE64)
        }
    }
}

fn attribute(raw: &RawValue) -> Result<Attribute, &'static str> {
    let json = raw.get();
    let read = match json {
        "true" | "false" => Some(Attribute::Truth(json == "true")),
        _ if json.starts_with('"') => serde_json::from_str(json).ok().map(Attribute::Text),
        _ => json.parse().ok().map(Attribute::Integer),
    };
    read.ok_or(WRONG_VALUE)
}

/// Whether an attribute may be called so, and what the specification says of some.
fn check(name: &str, value: &Attribute) -> Result<(), &'static str> {
    if !is_name(name) {
        return Err(WRONG_NAME);
    }
    if !matches!(name, "datacontenttype" | "dataschema" | "subject" | "time") {
        return Ok(());
    }
    match value {
        Attribute::Text(text) if name == "time" && !time::is_time(text) => Err(WRONG_TIME),
        Attribute::Text(text) if !text.is_empty() => Ok(()),
        _ => Err(WRONG_TEXT),
    }
}

/// Whether a text may name an attribute.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
