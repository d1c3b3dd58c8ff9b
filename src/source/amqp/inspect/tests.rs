//! Frames are made with the encoder of the AMQP library where it can say them, and by hand where it cannot.

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::basic::{AMQPMethod, AMQPProperties, Deliver, Return};
use amq_protocol::protocol::{AMQPClass, channel};
use amq_protocol::types::{AMQPValue, FieldTable};
use proptest::prelude::*;

use super::*;

/// The payload of a frame, without head and end.
fn payload(frame: &AMQPFrame) -> Vec<u8> {
    let (bytes, _) = gen_frame(frame)(Vec::new().into()).unwrap().into_inner();
    bytes[7..bytes.len() - 1].to_vec()
}

fn frame_of(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1][..], &size, payload, &[0xce]].concat()
}

fn parses(kind: u8, payload: &[u8]) -> bool {
    let frame = frame_of(kind, payload);
    parse_frame(frame.as_slice()).is_ok_and(|(rest, _)| rest.is_empty())
}

fn header(properties: AMQPProperties, body_size: u64) -> Vec<u8> {
    payload(&AMQPFrame::Header(1, AMQPContentHeader { class_id: 60, body_size, properties }))
}

fn deliver(key: &str) -> Vec<u8> {
    let deliver = Deliver {
        consumer_tag: "tag".into(),
        delivery_tag: 1,
        redelivered: false,
        exchange: "exchange".into(),
        routing_key: key.into(),
    };
    payload(&AMQPFrame::Method(1, AMQPClass::Basic(AMQPMethod::Deliver(deliver))))
}

fn returned() -> Vec<u8> {
    let back = Return { reply_code: 312, reply_text: "NO_ROUTE".into(), exchange: "x".into(), routing_key: "k".into() };
    payload(&AMQPFrame::Method(1, AMQPClass::Basic(AMQPMethod::Return(back))))
}

fn with_id(id: i64) -> AMQPProperties {
    let mut headers = FieldTable::default();
    headers.insert("before".into(), AMQPValue::LongString("x".into()));
    headers.insert(ID_HEADER.into(), AMQPValue::LongLongInt(id));
    headers.insert("z".into(), AMQPValue::Void);
    AMQPProperties::default().with_content_type("t".into()).with_delivery_mode(2).with_headers(headers)
}

/// Replaces the first occurrence, in place.
fn spoil(bytes: &mut [u8], what: &[u8], with: &[u8]) {
    let at = bytes.windows(what.len()).position(|window| window == what).unwrap();
    bytes[at..at + with.len()].copy_from_slice(with);
}

#[test]
fn bytes_that_are_no_utf8_become_nul_and_the_rest_stays() {
    for (text, expected) in [
        (&b"abc"[..], &b"abc"[..]),
        (b"\xff", b"\0"),
        (b"a\xffb\xe2\x82", b"a\0b\0\0"),
        ("é\u{fffd}".as_bytes(), "é\u{fffd}".as_bytes()),
        (b"\xc3\x28", b"\0\x28"),
    ] {
        let mut bytes = text.to_vec();
        blank_invalid(&mut bytes);
        assert_eq!(bytes, expected);
        assert!(std::str::from_utf8(&bytes).is_ok());
    }
}

#[test]
fn what_is_fit_is_left_alone() {
    let mut inspector = Inspector::default();
    let full = with_id(7)
        .with_priority(1)
        .with_correlation_id("c".into())
        .with_reply_to("r".into())
        .with_expiration("1".into())
        .with_message_id("m".into())
        .with_timestamp(1)
        .with_type("t".into())
        .with_user_id("u".into())
        .with_app_id("a".into())
        .with_cluster_id("x".into());
    let close = channel::Close { reply_code: 404, reply_text: "NOT_FOUND".into(), class_id: 1, method_id: 2 };
    let close = AMQPClass::Channel(channel::AMQPMethod::Close(close));
    for (kind, bytes) in [
        (METHOD, deliver("ä.b")),
        (METHOD, payload(&AMQPFrame::Method(1, close))),
        (HEADER, header(full, 3)),
        (BODY, vec![0xff; 9]),
    ] {
        let mut looked = bytes.clone();
        inspector.look(kind, 1, &mut looked);
        assert_eq!(looked, bytes);
        assert!(parses(kind, &looked));
    }
}

#[test]
fn the_library_can_read_what_it_could_not() {
    let mut inspector = Inspector::default();
    let mut method = deliver("key.of.it");
    spoil(&mut method, b"of", b"\xff\xfe");
    let mut header = header(with_id(7), 3);
    spoil(&mut header, b"before", b"\xe2\x82");
    let close = channel::Close { reply_code: 403, reply_text: "text cut off".into(), class_id: 0, method_id: 0 };
    let mut close = payload(&AMQPFrame::Method(1, AMQPClass::Channel(channel::AMQPMethod::Close(close))));
    spoil(&mut close, b"off", b"\xf0\x9f\x98");
    for (kind, mut bytes) in [(METHOD, method), (HEADER, header), (METHOD, close)] {
        assert!(!parses(kind, &bytes));
        inspector.look(kind, 1, &mut bytes);
        assert!(parses(kind, &bytes));
    }
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// A value within so many tables and lists, made by hand: the library's encoder would need a stack as deep.
fn nested(levels: usize) -> Vec<u8> {
    (0..levels).fold(b"t\x01".to_vec(), |inner, level| {
        if level % 2 == 0 {
            return [&b"A"[..], &counted(&inner)].concat();
        }
        [&b"F"[..], &counted(&[&b"\x01k"[..], &inner].concat())].concat()
    })
}

#[test]
fn what_is_nested_too_deep_becomes_bytes() {
    for (levels, survives) in [(NESTING_MAX - 1, true), (NESTING_MAX, false), (9_000, false)] {
        let mut bytes = header(AMQPProperties::default().with_headers(FieldTable::default()), 0);
        bytes.truncate(bytes.len() - 4);
        bytes.extend(counted(&[&b"\x04deep"[..], &nested(levels)].concat()));
        let mut looked = bytes.clone();
        Inspector::default().look(HEADER, 1, &mut looked);
        assert_eq!(looked == bytes, survives, "{levels}");
        assert!(parses(HEADER, &looked));
        let differing = looked.iter().zip(&bytes).filter(|(new, old)| new != old).count();
        assert_eq!(differing, usize::from(!survives), "one type letter");
    }
}

#[test]
fn returned_messages_are_told_by_their_id_and_kept_from_the_library() {
    let noted = Returned::default();
    let mut inspector = Inspector::new(noted.clone(), Closed::default());
    let frames = [
        (METHOD, returned(), true),
        (HEADER, header(with_id(7), 5), true),
        (BODY, b"abc".to_vec(), true),
        (BODY, b"de".to_vec(), true),
        (METHOD, deliver("k"), false),
        (HEADER, header(with_id(8), 1), false),
        (BODY, b"x".to_vec(), false),
        (METHOD, returned(), true),
        (HEADER, header(with_id(9), 0), true),
        (METHOD, deliver("k"), false),
        (HEADER, header(with_id(10), 0), false),
    ];
    for (kind, mut bytes, expected) in frames {
        assert!(!inspector.is_returned(kind, 2, &bytes) || kind == METHOD, "another channel is not concerned");
        assert_eq!(inspector.is_returned(kind, 1, &bytes), expected);
        inspector.look(kind, 1, &mut bytes);
    }
    assert!(noted.take(7) && noted.take(9));
    assert!(!noted.take(7) && !noted.take(8) && !noted.take(10));
}

/// The header that is left, as the library reads it.
fn shortened(mut bytes: Vec<u8>) -> AMQPProperties {
    let (headers, left) = shortened_headers(&mut bytes).unwrap();
    let frame = frame_of(HEADER, &[&bytes[..headers.start], &left, &bytes[headers.end..]].concat());
    match parse_frame(frame.as_slice()) {
        Ok((&[], AMQPFrame::Header(_, header))) => header.properties,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_headers_that_are_too_long_the_offset_is_left_and_the_other_properties_are_as_they_were() {
    let with = |headers: FieldTable| {
        AMQPProperties::default().with_content_type("t".into()).with_headers(headers).with_message_id("m".into())
    };
    let mut left = FieldTable::default();
    left.insert(SHORTENED_HEADER.into(), AMQPValue::Boolean(true));
    let mut long = FieldTable::default();
    long.insert("a".into(), AMQPValue::LongString("x".repeat(9_000).into()));
    assert_eq!(shortened(header(with(long.clone()), 3)), with(left.clone()));
    // A table that cannot be read to its end.
    let mut broken = header(with(long.clone()), 3);
    spoil(&mut broken, b"\x01aS", b"\x01a?");
    assert_eq!(shortened(broken), with(left.clone()));
    long.insert(OFFSET.into(), AMQPValue::LongLongInt(7));
    left.insert(OFFSET.into(), AMQPValue::LongLongInt(7));
    assert_eq!(shortened(header(with(long), 3)), with(left));
    assert!(shortened_headers(&mut header(AMQPProperties::default(), 3)).is_none(), "there are none");
}

#[test]
fn what_the_broker_closes_is_counted() {
    let closed = Closed::default();
    let mut inspector = Inspector::new(Returned::default(), closed.clone());
    for channel in [1, 2, 2] {
        let mut close = [&[0, 20, 0, 40, 1, 148, 2][..], b"no", &[0, 0, 0, 0]].concat();
        inspector.look(METHOD, channel, &mut close);
    }
    // It agrees to a close of ours.
    inspector.look(METHOD, 3, &mut [0, 20, 0, 41]);
    assert_eq!(closed.count(), 3);
}

proptest! {
    #[test]
    fn random_payloads_never_panic_and_never_change_their_length(
        kind in 0u8..10,
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let length = bytes.len();
        let mut inspector = Inspector::default();
        inspector.look(kind, 1, &mut bytes);
        prop_assert_eq!(bytes.len(), length);
    }

    #[test]
    fn spoilt_headers_can_be_read_afterwards(spoilt in proptest::collection::vec((0usize..400, any::<u8>()), 0..4)) {
        let mut bytes = header(with_id(7), 3);
        for (at, byte) in spoilt {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let readable = parses(HEADER, &bytes);
        let mut looked = bytes.clone();
        Inspector::default().look(HEADER, 1, &mut looked);
        prop_assert!(parses(HEADER, &looked) || !readable, "what could be read still can");
    }
}
