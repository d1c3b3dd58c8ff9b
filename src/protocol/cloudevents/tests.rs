//! Events down and up: each way in which an AMQP message is one, and what a client may send.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::model::publication::{Attributes, Draft, Publication, PublishedAt, RawFrames};
use crate::model::value::{Headers, Value};
use crate::protocol::tests::publication_from;
use crate::protocol::{Message, Stage};

fn publication(payload: &'static [u8], attributes: Attributes) -> Publication {
    let mut publication = publication_from(RawFrames::Auto, Bytes::from_static(payload));
    publication.draft.attributes = attributes;
    publication
}

fn event_of(publication: &Publication) -> Json {
    let positions = [(publication.source.clone(), publication.offset)];
    let message = Message { publication, positions: &positions, stage: Stage::Live, labels: &[] };
    let bytes = encode::message(message);
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"))
}

fn texts(pairs: &[(&str, &str)]) -> Headers {
    Headers(pairs.iter().map(|(name, text)| ((*name).to_owned(), Value::Text((*text).to_owned()))).collect())
}

fn typed(content_type: &str) -> Attributes {
    Attributes { content_type: Some(content_type.into()), ..Attributes::default() }
}

#[test]
fn a_plain_message_is_called_as_configured() {
    let attributes = Attributes { published_at: PublishedAt::Millis(1_765_000_000_101), ..Attributes::default() };
    let expected = json!({
        "specversion": "1.0", "id": "1.3", "source": "/events", "type": "a.b", "subject": "a.b",
        "time": "2025-12-06T05:46:40.101Z", "cursor": "events~1.3", "data": { "x": 1 },
    });
    assert_eq!(event_of(&publication(b"{\"x\":1}", attributes)), expected);
    let attributes = Attributes { message_id: Some("m-1".into()), ..Attributes::default() };
    assert_eq!(event_of(&publication(b"1", attributes))["id"], "m-1");
}

#[test]
fn data_is_what_the_body_is() {
    type Case = (&'static [u8], Option<&'static str>, Json, Json, Json);
    let cases: [Case; 7] = [
        (b"[1]", Some("application/json"), json!("application/json"), json!([1]), Json::Null),
        (b"hello", None, json!("text/plain"), json!("hello"), Json::Null),
        (b"<a/>", Some("text/xml"), json!("text/xml"), json!("<a/>"), Json::Null),
        (b"{\"a\":", Some("application/json"), json!("application/json"), Json::Null, json!("eyJhIjo=")),
        (b"\xff", None, json!("application/octet-stream"), Json::Null, json!("/w==")),
        (b"", Some("text/plain"), json!("text/plain"), Json::Null, Json::Null),
        (b"", None, Json::Null, Json::Null, Json::Null),
    ];
    for (payload, content_type, kind, data, base64) in cases {
        let attributes = Attributes { content_type: content_type.map(str::to_owned), ..Attributes::default() };
        let event = event_of(&publication(payload, attributes));
        assert_eq!((&event["datacontenttype"], &event["data"], &event["data_base64"]), (&kind, &data, &base64));
    }
}

#[test]
fn headers_of_the_binary_mode_are_its_attributes() {
    for prefix in ["cloudEvents:", "cloudEvents_"] {
        let named = |name: &str, value| (format!("{prefix}{name}"), value);
        let text = |name: &str, text: &str| named(name, Value::Text(text.into()));
        let headers = Headers(vec![
            text("specversion", "1.0"),
            text("id", "17"),
            text("source", "/shop"),
            text("type", "order.created"),
            text("subject", "first"),
            text("subject", "o/17"),
            named("time", Value::Timestamp(1_765_000_000)),
            named("count", Value::Int(3)),
            named("large", Value::Int(1 << 40)),
            named("vip", Value::Bool(true)),
            named("list", Value::List(Vec::new())),
            text("Not_A_Name", "x"),
            text("data", "x"),
            text("cursor", "elsewhere"),
            ("other".into(), Value::Text("x".into())),
        ]);
        let attributes = Attributes { headers, ..typed("application/json") };
        let expected = json!({
            "specversion": "1.0", "id": "17", "source": "/shop", "type": "order.created", "subject": "o/17",
            "time": "2025-12-06T05:46:40.000Z", "count": 3, "large": "1099511627776", "vip": true,
            "datacontenttype": "application/json", "data": { "n": 1 }, "cursor": "events~1.3",
        });
        assert_eq!(event_of(&publication(b"{\"n\":1}", attributes)), expected);
    }
}

#[test]
fn what_lacks_an_attribute_that_must_be_is_a_plain_message() {
    let all = [("specversion", "1.0"), ("id", "17"), ("source", "/shop"), ("type", "t")];
    for missing in 0..all.len() {
        let pairs: Vec<(String, &str)> =
            all.iter().map(|(name, text)| (format!("cloudEvents:{name}"), *text)).collect();
        let mut pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        pairs.remove(missing);
        let attributes = Attributes { headers: texts(&pairs), ..Attributes::default() };
        assert_eq!(event_of(&publication(b"1", attributes))["source"], "/events", "without {}", all[missing].0);
    }
    let structured = typed("application/cloudevents+json");
    let event = event_of(&publication(b"{\"specversion\":\"1.0\",\"id\":\"1\"}", structured));
    assert_eq!((&event["source"], &event["data"]["id"]), (&json!("/events"), &json!("1")));
}

#[test]
fn a_body_that_is_an_event_is_passed_on_with_the_cursor() {
    let body = br#"{"type":"t","cursor":"old","specversion":"1.0","id":"1","source":"/s","n":1,"gone":null,"data":{"x":1.50}}"#;
    let event = event_of(&publication(body, typed("application/cloudevents+json; charset=utf-8")));
    let expected = json!({
        "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "n": 1, "data": { "x": 1.50 },
        "cursor": "events~1.3",
    });
    assert_eq!(event, expected);
}

fn sent(publish: Option<&str>, text: &str) -> Result<crate::model::outgoing::Outgoing, &'static str> {
    let publish = publish.map(|topic| Topic::parse(topic).unwrap());
    let mut codec = CloudEvents::new(Opening { publish, ..Opening::default() });
    match codec.decode(Incoming::Text(text)) {
        Ok(Said::Command(Command::Publish { id: None, message, mandatory: false, echo: Echo::All })) => Ok(message),
        Err(Fault::Close { reason: CloseReason::Policy, detail }) => Err(detail),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_event_is_published_in_binary_mode() {
    let text =
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"a.b","n":1,"vip":false,"data":{"x": 1}}"#;
    let message = sent(None, text).unwrap();
    assert_eq!((message.topic.as_str(), message.message_id), ("a.b", None));
    assert_eq!((&*message.payload, message.content_type.as_deref()), (&b"{\"x\": 1}"[..], Some("application/json")));
    let names: Vec<&str> = message.headers.0.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["specversion", "id", "source", "type", "n", "subject", "vip"];
    assert_eq!(names, expected.map(|name| format!("cloudEvents:{name}")));
    assert_eq!(sent(Some("up"), text).unwrap().topic.as_str(), "up");
}

#[test]
fn data_becomes_the_body() {
    let of = |rest: &str| {
        let message = sent(Some("up"), &format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{rest}}}"#));
        let message = message.unwrap();
        (message.payload.to_vec(), message.content_type)
    };
    let typed = |name: &str| Some(name.to_owned());
    assert_eq!(of(""), (Vec::new(), None));
    assert_eq!(of(r#","data":"x""#), (b"\"x\"".to_vec(), typed("application/json")));
    assert_eq!(of(r#","datacontenttype":"text/plain","data":"x\n""#), (b"x\n".to_vec(), typed("text/plain")));
    assert_eq!(of(r#","datacontenttype":"a/b+json","data":"x""#), (b"\"x\"".to_vec(), typed("a/b+json")));
    assert_eq!(of(r#","datacontenttype":"text/xml","data":[1]"#), (b"[1]".to_vec(), typed("text/xml")));
    assert_eq!(of(r#","data_base64":"/w==""#), (vec![0xff], None));
}

#[test]
fn what_is_no_event_ends_the_session_with_a_sentence() {
    let complete = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;
    let cases = [
        ("hello".to_owned(), "a message is one CloudEvent"),
        ("[]".to_owned(), "a message is one CloudEvent"),
        ("{}".to_owned(), "a message is one CloudEvent"),
        (complete.replace("1.0", "0.3"), "specversion must be"),
        (complete.replace("/s", ""), "an event needs id, source and type"),
        (complete.replace("\"t\"", "7"), "an event needs id, source and type"),
        (format!("{complete},\"Name\":\"x\""), "names of attributes"),
        (format!("{complete},\"x\":1.5"), "an attribute is"),
        (format!("{complete},\"x\":99999999999"), "an attribute is"),
        (format!("{complete},\"x\":{{}}"), "an attribute is"),
        (format!("{complete},\"subject\":\"\""), "are strings that are not empty"),
        (format!("{complete},\"time\":\"now\""), "time is written"),
        (format!("{complete},\"data\":1,\"data_base64\":\"\""), "data or data_base64"),
        (format!("{complete},\"data_base64\":\"!\""), "data_base64 needs base64"),
        (format!("{complete},\"data\":{}{}", "[".repeat(200), "]".repeat(200)), "100 levels"),
        (complete.to_owned(), "this event goes nowhere"),
    ];
    for (fields, words) in cases {
        let text = if fields.starts_with('"') { format!("{{{fields}}}") } else { fields };
        let sentence = sent(None, &text).unwrap_err();
        assert!(sentence.contains(words) && sentence.len() <= 123, "{text}: {sentence}");
    }
}

proptest! {
    /// What a client sends is what others get of it, whatever the attributes and data.
    #[test]
    fn an_event_comes_through_the_broker_unharmed(
        names in ("[^\0]{1,8}", "[^\0]{1,8}", "[^\0]{1,8}"),
        extensions in prop::collection::btree_map("x[a-z0-9]{0,5}", "[^\0]{0,8}", 0..4),
        number in option::of(any::<i32>()),
        data in option::of(prop_oneof![
            any::<u32>().prop_map(Json::from),
            any::<String>().prop_map(Json::from),
            vec(any::<bool>(), 0..3).prop_map(Json::from),
        ]),
    ) {
        let (id, source, kind) = names;
        let mut event = json!({ "specversion": "1.0", "id": id, "source": source, "type": kind });
        for (name, text) in extensions {
            event[name] = text.into();
        }
        if let Some(number) = number {
            event["number"] = number.into();
        }
        if let Some(data) = data {
            event["data"] = data;
        }
        let message = sent(Some("a.b"), &event.to_string()).unwrap();
        let mut publication = publication_from(RawFrames::Auto, message.payload);
        let attributes = Attributes {
            content_type: message.content_type,
            headers: message.headers,
            ..Attributes::default()
        };
        publication.draft = Draft { attributes, ..publication.draft };
        let mut received = event_of(&Publication { source: Arc::clone(&publication.source), ..publication });
        let fields = received.as_object_mut().unwrap();
        fields.remove("cursor");
        if event.get("data").is_some() {
            prop_assert_eq!(fields.remove("datacontenttype"), Some("application/json".into()));
        }
        prop_assert_eq!(received, event);
    }
}
