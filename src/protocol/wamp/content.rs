//! Arguments and keyword arguments as the body of a message, and back. What WAMP clients send is JSON to everybody else, in
//! the plainest form that holds it; what the plain form does not say stands in a header, so that other WAMP clients get just
//! what was sent. What anybody else publishes becomes arguments by the same rule.
//!
//! | sent | body | header |
//! |---|---|---|
//! | one argument that is no list | the argument | |
//! | any other arguments, and no keywords | a list of them | |
//! | keywords only | an object of them | `wamp_payload: kwargs` |
//! | both | `{"args": […], "kwargs": {…}}` | `wamp_payload: both` |
//! | one argument that is binary | the bytes, as `application/octet-stream` | |

use bytes::Bytes;

use crate::model::outgoing::{Outgoing, Reply};
use crate::model::topic::Topic;
use crate::model::value::{Headers, Value as Field};
use crate::protocol::json::payload::{Shown, shown};
use crate::protocol::wamp::id::Id;
use crate::protocol::wamp::json;
use crate::protocol::wamp::serializer::Serializer;
use crate::protocol::wamp::uri;
use crate::protocol::wamp::value::{DEPTH_MAX, Dict, Payload, Value};

/// Says of a body what its form does not.
const PAYLOAD_HEADER: &str = "wamp_payload";
const KEYWORDS_ONLY: &str = "kwargs";
const BOTH: &str = "both";

/// The id of a publication whose publisher was told it.
const PUBLICATION_HEADER: &str = "wamp_publication";

/// Says of a reply that it is an error, and which.
const ERROR_HEADER: &str = "wamp_error";

const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";

/// A body with what has to be said of it.
struct Body {
    bytes: Vec<u8>,
    content_type: &'static str,
    form: Option<&'static str>,
}

/// A message that holds what a client sent.
pub(super) fn outgoing(topic: Topic, payload: Payload) -> Outgoing {
    let Reply { payload, content_type, headers } = reply(payload);
    Outgoing { content_type, headers, ..Outgoing::new(topic, payload) }
}

/// An answer that holds what a client yielded.
pub(super) fn reply(payload: Payload) -> Reply {
    let Body { bytes, content_type, form } = body(payload);
    let form = form.map(|form| (PAYLOAD_HEADER.to_owned(), Field::Text(form.to_owned())));
    let headers = Headers(form.into_iter().collect());
    Reply { payload: Bytes::from(bytes), content_type: Some(content_type.to_owned()), headers }
}

/// An answer that says that it is an error.
pub(super) fn failure(error: &str, payload: Payload) -> Reply {
    let mut reply = reply(payload);
    reply.headers.0.push((ERROR_HEADER.to_owned(), Field::Text(error.to_owned())));
    reply
}

/// Writes into a message which publication it is.
pub(super) fn name(message: &mut Outgoing, publication: Id) {
    let number = i64::try_from(publication.number()).unwrap_or_default();
    message.headers.0.push((PUBLICATION_HEADER.to_owned(), Field::Int(number)));
}

/// Which publication a message says that it is.
pub(super) fn named(headers: &Headers) -> Option<Id> {
    match headers.value(PUBLICATION_HEADER)? {
        Field::Int(number) => Id::new(u64::try_from(*number).ok()?),
        _ => None,
    }
}

/// Which error a reply says that it is.
pub(super) fn error(headers: &Headers) -> Option<&str> {
    match headers.value(ERROR_HEADER)? {
        Field::Text(error) if uri::check(error).is_ok() => Some(error),
        _ => None,
    }
}

fn body(payload: Payload) -> Body {
    let Payload { arguments, keywords } = payload;
    let has_keywords = !keywords.is_empty();
    let (value, form) = match (arguments.as_slice(), has_keywords) {
        ([Value::Bytes(_)], false) => {
            let bytes =
                arguments.into_iter().next().and_then(|one| if let Value::Bytes(raw) = one { Some(raw) } else { None });
            return Body { bytes: bytes.unwrap_or_default(), content_type: BINARY, form: None };
        }
        ([Value::List(_)], false) => (Value::List(arguments), None),
        ([one], false) => (one.clone(), None),
        (_, false) => (Value::List(arguments), None),
        ([], true) => (Value::Dict(keywords), Some(KEYWORDS_ONLY)),
        (_, true) => {
            let both = Dict::default().with("args", Value::List(arguments)).with("kwargs", Value::Dict(keywords));
            (Value::Dict(both), Some(BOTH))
        }
    };
    let mut bytes = Vec::new();
    json::push(&mut bytes, &value, DEPTH_MAX);
    Body { bytes, content_type: JSON, form }
}

/// What a body is to a WAMP client.
pub(super) fn payload(serializer: Serializer, body: &[u8], content_type: Option<&str>, headers: &Headers) -> Payload {
    if content_type.is_some_and(|name| name.eq_ignore_ascii_case(BINARY)) {
        return Payload::one(Value::Bytes(body.to_vec()));
    }
    if body.is_empty() {
        return Payload::default();
    }
    match shown(body, content_type) {
        Shown::Json(text) => marked(text, headers).unwrap_or_else(|| plain(serializer, text)),
        Shown::Text(text) => Payload::one(Value::text(text)),
        Shown::Bytes(raw) => Payload::one(Value::Bytes(raw.to_vec())),
    }
}

/// What a header says of the body, if the body is like that.
fn marked(text: &str, headers: &Headers) -> Option<Payload> {
    let Field::Text(form) = headers.value(PAYLOAD_HEADER)? else { return None };
    let Value::Dict(mut dict) = json::decode(text).ok()? else { return None };
    match form.as_str() {
        KEYWORDS_ONLY => Some(Payload { arguments: Vec::new(), keywords: dict }),
        BOTH => match (dict.take("args")?, dict.take("kwargs")?) {
            (Value::List(arguments), Value::Dict(keywords)) => Some(Payload { arguments, keywords }),
            _ => None,
        },
        _ => None,
    }
}

fn plain(serializer: Serializer, text: &str) -> Payload {
    if text.trim_start().starts_with('[')
        && let Ok(Value::List(arguments)) = json::decode(text)
    {
        return Payload { arguments, keywords: Dict::default() };
    }
    // What another serialization cannot hold stays the text that it is.
    Payload::one(serializer.embed(text).unwrap_or_else(|| Value::text(text)))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::wamp::tests::any_value;

    fn sent(payload: Payload) -> (String, Option<String>, Headers) {
        let message = outgoing(Topic::parse("a").unwrap(), payload);
        (String::from_utf8_lossy(&message.payload).into_owned(), message.content_type, message.headers)
    }

    fn read(body: &str, content_type: Option<&str>) -> Payload {
        payload(Serializer::Cbor, body.as_bytes(), content_type, &Headers::default())
    }

    fn arguments(arguments: Vec<Value>) -> Payload {
        Payload { arguments, keywords: Dict::default() }
    }

    #[test]
    fn others_see_the_plainest_form() {
        let keywords = Dict::default().with("price", Value::Int(5));
        let one = Value::Dict(keywords.clone());
        let both = Payload { arguments: vec![Value::Int(1)], keywords: keywords.clone() };
        for (payload, body, form) in [
            (arguments(vec![one.clone()]), r#"{"price":5}"#, None),
            (arguments(vec![Value::text("x")]), r#""x""#, None),
            (arguments(vec![]), "[]", None),
            (arguments(vec![Value::Int(1), Value::Null]), "[1,null]", None),
            (arguments(vec![Value::List(vec![Value::Int(1)])]), "[[1]]", None),
            (Payload { arguments: vec![], keywords }, r#"{"price":5}"#, Some("kwargs")),
            (both, r#"{"args":[1],"kwargs":{"price":5}}"#, Some("both")),
        ] {
            let (text, content_type, headers) = sent(payload);
            assert_eq!((text.as_str(), content_type.as_deref()), (body, Some("application/json")));
            let marked = headers.value(PAYLOAD_HEADER).cloned();
            assert_eq!(marked, form.map(|form| Field::Text(form.to_owned())), "{body}");
        }
        let (text, content_type, headers) = sent(Payload::one(Value::Bytes(b"raw".to_vec())));
        assert_eq!((text.as_str(), content_type.as_deref()), ("raw", Some("application/octet-stream")));
        assert!(headers.is_empty());
    }

    #[test]
    fn what_others_publish_becomes_arguments() {
        for (body, content_type, expected) in [
            (r#"{"price":5}"#, None, vec![Value::Dict(Dict::default().with("price", Value::Int(5)))]),
            ("[1,2]", None, vec![Value::Int(1), Value::Int(2)]),
            (" [] ", None, vec![]),
            ("", None, vec![]),
            ("hello", None, vec![Value::text("hello")]),
            ("[1]", Some("text/plain"), vec![Value::text("[1]")]),
            ("[1]", Some("application/octet-stream"), vec![Value::Bytes(b"[1]".to_vec())]),
            ("17", Some("application/json"), vec![Value::Int(17)]),
        ] {
            assert_eq!(read(body, content_type), arguments(expected), "{body:?}");
        }
        let bytes = payload(Serializer::Json, &[0xff], None, &Headers::default());
        assert_eq!(bytes, Payload::one(Value::Bytes(vec![0xff])));
    }

    #[test]
    fn a_header_that_does_not_fit_the_body_says_nothing() {
        for form in ["both", "kwargs", "else"] {
            let headers = Headers(vec![(PAYLOAD_HEADER.into(), Field::Text(form.into()))]);
            let read = payload(Serializer::Cbor, b"17", None, &headers);
            assert_eq!(read, arguments(vec![Value::Int(17)]), "{form}");
        }
        assert_eq!(error(&Headers(vec![(ERROR_HEADER.into(), Field::Text("a b".into()))])), None);
        assert_eq!(named(&Headers(vec![(PUBLICATION_HEADER.into(), Field::Int(-1))])), None);
    }

    #[test]
    fn a_publication_keeps_the_id_that_it_is_given() {
        let mut message = outgoing(Topic::parse("a").unwrap(), Payload::default());
        let id = Id::of(&["p"]);
        name(&mut message, id);
        assert_eq!(named(&message.headers), Some(id));
    }

    proptest! {
        #[test]
        fn other_wamp_clients_get_what_was_sent(
            arguments in vec(any_value(), 0..4),
            keywords in vec(("[a-c]", any_value()), 0..2),
        ) {
            let mut unique = Dict::default();
            for (key, value) in keywords {
                if unique.value(&key).is_none() {
                    unique = unique.with(&key, value);
                }
            }
            let sent = Payload { arguments, keywords: unique };
            let message = outgoing(Topic::parse("a").unwrap(), sent.clone());
            for serializer in [Serializer::MessagePack, Serializer::Cbor] {
                let content_type = message.content_type.as_deref();
                let read = payload(serializer, &message.payload, content_type, &message.headers);
                prop_assert_eq!(&read, &sent);
            }
        }
    }
}
