//! The suite that every row of [`REGISTRY`] passes, whatever it speaks: no input panics, no answer is larger than its
//! cause allows, every event has a valid form or none, and a live message is the same for everybody.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::model::cursor::{Epoch, JointCursor};
use crate::model::delivery::{Delivery, DeliveryTag};
use crate::model::gap::GapReason;
use crate::model::outgoing::Reply;
use crate::model::publication::{Attributes, Draft, PublishedAt, RawFrames, SourceId};
use crate::model::topic::Pattern;
use crate::model::value::{Headers, Value};

/// A publication of the source `events`, epoch 1, offset 3, topic `a.b`.
pub(crate) fn publication_from(raw_frames: RawFrames, payload: Bytes) -> Publication {
    let topic = Topic::parse("a.b").unwrap();
    let draft = Draft { topic, payload, attributes: Attributes::default(), received_at: 1000 };
    Publication { source: source(raw_frames), offset: 3, draft }
}

/// The text of a live message with this payload, alone in its source.
pub(crate) fn live_text(encode: fn(Message<'_>) -> Result<Outbound, Unsent>, payload: &'static [u8]) -> String {
    let publication = publication_from(RawFrames::Auto, Bytes::from_static(payload));
    let positions = [(publication.source.clone(), publication.offset)];
    match encode(Message { publication: &publication, positions: &positions, stage: Stage::Live, labels: &[] }) {
        Ok(Outbound::Text(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn source(raw_frames: RawFrames) -> Arc<SourceInfo> {
    Arc::new(SourceInfo { raw_frames, ..SourceInfo::new(SourceId(0), "events", Epoch(1)) })
}

fn codecs() -> Vec<(&'static Subprotocol, Box<dyn Codec + Send>)> {
    let openings = [Opening::default(), Opening { publish: Topic::parse("up").ok(), ..Opening::default() }];
    let rows = REGISTRY.iter().flat_map(|row| openings.clone().map(|opening| (row, (row.codec)(opening))));
    rows.collect()
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::UInt),
        any::<f64>().prop_map(Value::Float),
        any::<u64>().prop_map(Value::Timestamp),
        any::<String>().prop_map(Value::Text),
        vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::List),
            vec(("[a-c]", inner), 0..4).prop_map(|fields| Value::Table(Headers(fields))),
        ]
    })
}

fn any_headers() -> impl Strategy<Value = Headers> {
    vec((any::<String>(), any_value()), 0..4).prop_map(Headers)
}

fn any_content_type() -> impl Strategy<Value = Option<String>> {
    option::of(prop_oneof![
        Just("application/json".to_owned()),
        Just("text/plain".to_owned()),
        Just("a/b+json; c=d".to_owned()),
        any::<String>(),
    ])
}

/// Bytes of every kind: JSON, almost JSON, text, and no text at all.
fn any_payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 0..64).prop_map(Bytes::from),
        any::<String>().prop_map(Bytes::from),
        "[\\[\\]{}\":,0-9a\\\\ \n\r]{0,24}".prop_map(Bytes::from),
        any::<String>().prop_map(|text| serde_json::json!({"text": text, "list": [1, null]}).to_string().into()),
    ]
}

fn any_publication() -> impl Strategy<Value = Arc<Publication>> {
    let frames = prop_oneof![Just(RawFrames::Auto), Just(RawFrames::Text), Just(RawFrames::Binary)];
    let properties = (any_content_type(), option::of(any::<String>()), any_headers(), any::<bool>(), any::<u64>());
    (frames, "[^\0]{0,20}", any_payload(), properties, any::<u64>()).prop_map(
        |(frames, topic, payload, (content_type, message_id, headers, redelivered, time), offset)| {
            let published_at = PublishedAt::Millis(time);
            let attributes =
                Attributes { content_type, message_id, headers, published_at, redelivered, ..Attributes::default() };
            let draft = Draft { topic: Topic::parse(&topic).unwrap(), payload, attributes, received_at: 7 };
            Arc::new(Publication { source: source(frames), offset, draft })
        },
    )
}

fn any_id() -> impl Strategy<Value = CommandId> {
    let json = prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::json!(text).to_string()),
    ];
    option::of(json.prop_map(|json| RawValue::from_string(json).unwrap()))
}

/// One event of each kind, filled at random.
fn all_events() -> impl Strategy<Value = Vec<Event>> {
    let texts = (any::<String>(), "[^\0]{0,20}");
    let numbers = (any::<u64>(), option::of(any::<u64>()), any::<bool>());
    let reply = (any_payload(), any_content_type(), any_headers());
    (any_id(), texts, numbers, any_publication(), reply).prop_map(
        |(id, (text, pattern), (number, maybe, truth), publication, (payload, content_type, headers))| {
            let shared: Arc<str> = text.as_str().into();
            let pattern = Pattern::parse(&pattern).unwrap();
            let cursors = JointCursor(vec![publication.source.named_cursor(number)]);
            let gap = Gap {
                pattern: pattern.clone(),
                label: None,
                source: shared.clone(),
                missed: maybe,
                reason: GapReason::Slow,
            };
            let pause = Duration::from_millis(number);
            let tag = DeliveryTag { link: number, number: 7 };
            vec![
                Event::Welcome {
                    id: id.clone(),
                    connection: shared.clone(),
                    server: "passerelle/0",
                    heartbeat: pause,
                    message_bytes_max: 1 << 20,
                    user: truth.then(|| shared.clone()),
                    expires_at: maybe,
                },
                Event::Subscribed {
                    id: id.clone(),
                    pattern: pattern.clone(),
                    cursors: cursors.clone(),
                    resumed: truth,
                },
                Event::Delivered(Box::new(Delivery { tag, queue: shared.clone(), draft: publication.draft.clone() })),
                Event::Revoked { tags: vec![tag; usize::from(truth) + 1] },
                Event::CaughtUp { id: id.clone(), pattern, cursors: cursors.clone() },
                Event::Position { cursors },
                Event::Gap(gap),
                Event::Outage { source: shared.clone() },
                Event::Restored { source: shared },
                Event::Goodbye { reason: "drain", reconnect_in: pause },
                Event::Done { id: id.clone(), routed: truth.then_some(truth) },
                Event::Result { id: id.clone(), reply: Reply { payload, content_type, headers } },
                Event::Error { id: id.clone(), code: ErrorCode::Limit, message: text },
                Event::Pong { id },
            ]
        },
    )
}

/// What the wire may carry, by the row's name. A new row adds its own judge here.
fn assert_valid(row: &Subprotocol, outbound: &Outbound) {
    if let Outbound::Text(bytes) = outbound {
        assert!(std::str::from_utf8(bytes).is_ok(), "{}: text that is no UTF-8", row.name);
    }
    match (row.name, outbound) {
        ("passerelle.v1.json", Outbound::Text(bytes)) => drop(object(bytes)),
        ("passerelle.v1.raw", _) => {}
        ("cloudevents.json", Outbound::Text(bytes)) => assert_event(bytes),
        ("stream" | "poll", Outbound::Text(bytes)) => drop(object_of_line(bytes)),
        ("sse", Outbound::Text(bytes)) => drop(object(data_of_block(bytes).as_bytes())),
        (name, Outbound::Text(bytes) | Outbound::Binary(bytes)) if name.ends_with("stomp") => assert_one_frame(bytes),
        (name, _) if name.starts_with("wamp") => assert_message(name, outbound),
        (name, Outbound::Binary(bytes)) if name.starts_with("mqtt") => assert_one_packet(bytes),
        (name, other) => panic!("{name} wrote {other:?}"),
    }
}

/// An event as the JSON format has it, with attributes of the kinds and names that there may be.
fn assert_event(bytes: &[u8]) {
    let event: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    let fields = event.as_object().expect("an object");
    assert_eq!(event["specversion"], "1.0");
    for name in ["id", "source", "type"] {
        assert!(event[name].as_str().is_some_and(|text| !text.is_empty()), "{name} in {event}");
    }
    assert!(!(fields.contains_key("data") && fields.contains_key("data_base64")), "{event}");
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with("data")) {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{name}");
        assert!(value.is_string() || value.is_boolean() || value.is_i64(), "{name} is {value}");
    }
}

/// A list that begins with a known type and has as many elements as that may have.
fn assert_message(name: &str, outbound: &Outbound) {
    use wamp::{kind::Kind, serializer::Serializer, value};
    let serializer = Serializer::ALL.iter().find(|serializer| serializer.name() == name).unwrap();
    let message = match outbound {
        Outbound::Text(bytes) => serializer.decode(Incoming::Text(std::str::from_utf8(bytes).unwrap())),
        Outbound::Binary(bytes) => serializer.decode(Incoming::Binary(bytes)),
    };
    let value::Value::List(elements) = message.unwrap_or_else(|error| panic!("{error}: {outbound:?}")) else {
        panic!("{outbound:?}");
    };
    let kind = elements.first().and_then(value::Value::as_integer).and_then(Kind::of_code).unwrap();
    let (least, most) = kind.row().elements;
    assert!((least..=most).contains(&elements.len()), "{outbound:?}");
}

fn assert_one_frame(bytes: &[u8]) {
    let limits = stomp::reader::Limits { headers_max: 1000, head_bytes_max: 1 << 20, body_bytes_max: 1 << 20 };
    let (mut reader, mut input) = (stomp::reader::Reader::new(limits), bytes);
    let first = reader.next(&mut input).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    assert!(matches!(first, Some(stomp::reader::Received::Frame(_))), "{bytes:?}");
    assert!(input.is_empty(), "{bytes:?} is more than one frame");
}

/// A codec that nobody has greeted speaks 3.1.1.
fn assert_one_packet(bytes: &[u8]) {
    let limits = mqtt::Limits { packet_bytes_max: 1 << 20, connect_bytes_max: 1 << 20 };
    let (mut reader, mut input) = (mqtt::Reader::of_server(limits, mqtt::Version::V311), bytes);
    let first = reader.next(&mut input).unwrap_or_else(|fault| panic!("{fault:?}: {bytes:?}"));
    assert!(first.is_some() && input.is_empty(), "{bytes:?} is not one packet");
}

fn object(bytes: &[u8]) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    assert!(value["op"].is_string(), "{value}");
    value
}

/// Reads one line of NDJSON.
fn object_of_line(bytes: &[u8]) -> serde_json::Value {
    let body = bytes.strip_suffix(b"\n").expect("a line ends");
    assert!(!body.contains(&b'\n') && !body.contains(&b'\r'), "{bytes:?} is more than one line");
    let object = object(body);
    if let Some(after) = object["after"].as_str() {
        assert!(after.parse::<JointCursor>().is_ok(), "{after}");
    }
    object
}

/// Reads one block as the HTML Standard does: lines end in LF, CR or both, an empty one ends the block.
fn data_of_block(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).unwrap().replace("\r\n", "\n").replace('\r', "\n");
    let body = text.strip_suffix("\n\n").expect("a block ends in an empty line");
    let mut data = Vec::new();
    for line in body.split('\n') {
        match line.split_once(": ") {
            Some(("data", value)) => data.push(value),
            Some(("retry", value)) => assert!(value.parse::<u64>().is_ok(), "{value}"),
            Some(("id", value)) => assert!(value.parse::<JointCursor>().is_ok(), "{value}"),
            Some(("event", name)) => assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')),
            other => panic!("{other:?} in {text:?}"),
        }
    }
    data.join("\n")
}

/// Bytes of an error's sentence at most: what is quoted of a client's words is cut.
const SENTENCE_BYTES_MAX: usize = 512;

fn assert_bounded(fault: &Fault) {
    match fault {
        Fault::Reply { id, message, .. } => {
            assert!(message.len() <= SENTENCE_BYTES_MAX, "{message}");
            assert!(id.as_ref().is_none_or(|id| id.get().len() <= json::ID_BYTES_MAX));
        }
        Fault::Close { reason, detail } => {
            assert!(detail.len() <= 123, "{detail}");
            assert_ne!(*reason, CloseReason::Lost, "1006 is never sent");
        }
    }
}

#[test]
fn rows_stand_where_their_index_says() {
    for (position, row) in REGISTRY.iter().enumerate() {
        assert_eq!(usize::from(row.index.0), position, "{}", row.name);
        assert_eq!(REGISTRY.iter().filter(|other| other.name == row.name).count(), 1);
        assert!(!row.summary.is_empty());
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(row.name.bytes().all(is_token), "{} is no token of RFC 9110", row.name);
    }
}

#[test]
fn every_code_has_a_name_of_its_own() {
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::ALL.iter().filter(|other| other.name() == code.name()).count(), 1);
    }
}

#[test]
fn every_ending_has_a_code_that_may_be_sent() {
    for reason in CloseReason::ALL.iter().filter(|reason| **reason != CloseReason::Lost) {
        let code = reason.code();
        assert!(matches!(code, 1000..=1003 | 1007..=1014 | 4000..=4999), "{code} never stands in a close frame");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_bytes_never_panic_and_answers_are_bounded(bytes in vec(any::<u8>(), 0..600), text in any::<String>()) {
        for (_, mut codec) in codecs() {
            for message in [Incoming::Binary(&bytes), Incoming::Text(&text)] {
                let mut said = codec.decode(message);
                while !matches!(said, Ok(Said::Nothing)) {
                    if let Err(fault) = &said {
                        assert_bounded(fault);
                    }
                    said = codec.more();
                }
            }
        }
    }

    #[test]
    fn every_event_has_a_valid_form_or_none(events in all_events()) {
        for (row, mut codec) in codecs() {
            for event in &events {
                if let Some(outbound) = codec.encode(event) {
                    assert_valid(row, &outbound);
                }
            }
        }
    }

    #[test]
    fn a_live_message_is_valid_and_the_same_for_everybody(publication in any_publication(), other in any::<u64>()) {
        let positions = [(publication.source.clone(), publication.offset)];
        let live = Message { publication: &publication, positions: &positions, stage: Stage::Live, labels: &[] };
        for row in REGISTRY {
            let once = (row.encode_message)(live);
            prop_assert_eq!(&once, &(row.encode_message)(live));
            if let Ok(outbound) = &once {
                assert_valid(row, outbound);
            }
        }
        let elsewhere = [(publication.source.clone(), other)];
        let moved = Message { publication: &publication, positions: &elsewhere, stage: Stage::Live, labels: &[] };
        prop_assert_eq!((json::SUBPROTOCOL.encode_message)(live), (json::SUBPROTOCOL.encode_message)(moved));
    }

    #[test]
    fn a_payload_comes_through_json_unharmed(publication in any_publication()) {
        let live = Message { publication: &publication, positions: &[], stage: Stage::Replay, labels: &[] };
        let Ok(Outbound::Text(bytes)) = (json::SUBPROTOCOL.encode_message)(live) else { panic!() };
        let value = object(&bytes);
        let payload = &publication.draft.payload;
        if let Some(encoded) = value["data_base64"].as_str() {
            use base64::Engine as _;
            prop_assert_eq!(&json::payload::BASE64.decode(encoded).unwrap(), payload);
            prop_assert!(std::str::from_utf8(payload).is_err());
        } else if let Ok(json) = serde_json::from_slice::<serde_json::Value>(payload) {
            let as_text = serde_json::Value::from(std::str::from_utf8(payload).unwrap());
            prop_assert!(value["data"] == json || value["data"] == as_text);
        } else {
            prop_assert_eq!(value["data"].as_str().map(str::as_bytes), Some(payload.as_ref()));
        }
        prop_assert_eq!(value["topic"].as_str(), Some(publication.draft.topic.as_str()));
    }
}
