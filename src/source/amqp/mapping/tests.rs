//! Deliveries as strangers make them, against what they must become.

use lapin::types::{ByteArray, DecimalValue, FieldArray};
use proptest::prelude::*;

use super::*;
use crate::config::{QueueInput, TopicTemplate};
use crate::model::delivery::{QueueBinding, QueueDeclaration, QueueOrigin};

fn mapper(change: impl FnOnce(&mut Source)) -> Mapper {
    let mut source = Source::events();
    change(&mut source);
    Mapper::new(&source)
}

fn delivery(key: &str) -> Delivery {
    Delivery::mock(1, "exchange".into(), key.into(), false, b"body".to_vec())
}

fn with_header(name: &str, value: AMQPValue) -> Delivery {
    let mut delivery = delivery("key");
    let mut headers = FieldTable::default();
    headers.insert(name.into(), value);
    delivery.properties = AMQPProperties::default().with_headers(headers);
    delivery
}

fn topic(mapper: &mut Mapper, mut delivery: Delivery) -> Result<String, Rejection> {
    mapper.draft(&mut delivery, 5).map(|draft| draft.topic.as_str().to_owned())
}

#[test]
fn the_payload_is_moved() {
    let mut delivery = delivery("a");
    let address = delivery.data.as_ptr();
    let draft = mapper(|_| ()).draft(&mut delivery, 5).unwrap();
    assert_eq!((draft.payload.as_ptr(), draft.received_at), (address, 5));
}

#[test]
fn the_topic_is_the_key_or_the_name_or_what_the_template_says() {
    let mut plain = mapper(|_| ());
    assert_eq!(topic(&mut plain, delivery("a.b")).as_deref(), Ok("a.b"));
    assert_eq!(topic(&mut plain, delivery("a.b")).as_deref(), Ok("a.b"));
    assert_eq!(topic(&mut plain, delivery("")).as_deref(), Ok("events"));
    assert_eq!(topic(&mut plain, delivery("a\0b")), Err(Rejection::Topic));
    let mut templated = mapper(|source| {
        source.input = Input::Queue(QueueInput { queue: "q".into(), shared: false, declare: false });
        source.topic = Some(TopicTemplate(vec![
            TemplatePart::Source,
            TemplatePart::Text(".".into()),
            TemplatePart::Queue,
            TemplatePart::Exchange,
            TemplatePart::RoutingKey,
            TemplatePart::Header("h".into()),
        ]));
    });
    let text = AMQPValue::LongString("ä".into());
    assert_eq!(topic(&mut templated, with_header("h", text)).as_deref(), Ok("events.qexchangekeyä"));
    assert_eq!(topic(&mut templated, with_header("h", AMQPValue::LongInt(-7))).as_deref(), Ok("events.qexchangekey-7"));
    assert_eq!(topic(&mut templated, with_header("h", AMQPValue::Boolean(true))), Err(Rejection::TemplateField));
    assert_eq!(topic(&mut templated, with_header("other", AMQPValue::LongInt(1))), Err(Rejection::TemplateField));
    let long = AMQPValue::LongString("x".repeat(300).into());
    assert_eq!(topic(&mut templated, with_header("h", long)), Err(Rejection::Topic));
}

#[test]
fn what_is_larger_than_the_log_is_refused() {
    let mut small = mapper(|source| source.log.bytes_max = 3);
    assert_eq!(topic(&mut small, delivery("a")), Err(Rejection::TooLarge));
}

/// A filter would take it for a message that never had any.
#[test]
fn what_lost_its_headers_on_the_way_is_refused_and_a_client_that_consumes_it_sees_so() {
    let shortened = || with_header(SHORTENED_HEADER, AMQPValue::Boolean(true));
    assert_eq!(topic(&mut mapper(|_| ()), shortened()), Err(Rejection::Properties));
    let draft = consumed(&mut shortened(), &request(QueueOrigin::Opened { section: "s".into(), declaration: None }), 5);
    assert_eq!(draft.attributes.headers.value(SHORTENED_HEADER), Some(&Value::Bool(true)));
}

fn request(origin: QueueOrigin) -> ConsumeRequest {
    let hold_max = std::time::Duration::from_secs(60);
    let queue = Topic::parse("queue").unwrap();
    ConsumeRequest { queue, asked: "asked".into(), prefetch: 1, exclusive: false, origin, hold_max }
}

/// As a plain subscriber gets it, who would else see what a group never does.
#[test]
fn a_group_calls_a_message_without_a_key_as_the_source_does() {
    let binding = |exchange: &str, source: &str| QueueBinding {
        exchange: exchange.into(),
        key: "#".into(),
        section: "s".into(),
        topic_of_empty_key: Topic::parse(source).unwrap(),
    };
    let declaration = QueueDeclaration { expires: None };
    let bindings = vec![binding("other", "first"), binding("exchange", "second")];
    let group = request(QueueOrigin::Group { declaration, bindings });
    let opened = request(QueueOrigin::Opened { section: "s".into(), declaration: None });
    let topic = |key: &str, exchange: &str, request: &ConsumeRequest| {
        let mut delivery = Delivery::mock(1, exchange.into(), key.into(), false, Vec::new());
        consumed(&mut delivery, request, 5).topic.as_str().to_owned()
    };
    assert_eq!(topic("", "exchange", &group), "second");
    assert_eq!(topic("", "one.before.it", &group), "first");
    assert_eq!(topic("", "exchange", &opened), "queue");
    assert_eq!(topic("a.b", "exchange", &group), "a.b");
    assert_eq!(topic("a\0b", "exchange", &group), "queue", "a key that is no topic is no message without a key");
}

#[test]
fn times_are_taken_as_exactly_as_they_are_told() {
    let told = |header: Option<AMQPValue>, property: Option<u64>| {
        let mut delivery = header.map_or_else(|| delivery("a"), |value| with_header("timestamp_in_ms", value));
        if let Some(seconds) = property {
            delivery.properties = delivery.properties.clone().with_timestamp(seconds);
        }
        mapper(|_| ()).draft(&mut delivery, 5).unwrap().attributes.published_at
    };
    assert_eq!(told(Some(AMQPValue::LongLongInt(1234)), Some(9)), PublishedAt::Millis(1234));
    assert_eq!(told(Some(AMQPValue::LongLongInt(-1)), Some(9)), PublishedAt::Seconds(9000));
    assert_eq!(told(Some(AMQPValue::LongString("1".into())), None), PublishedAt::Unknown);
    let last = PUBLISHED_MAX / 1000;
    assert_eq!(told(None, Some(last)), PublishedAt::Seconds(last * 1000));
    for seconds in [last + 1, 1 << 62, u64::MAX] {
        assert_eq!(told(None, Some(seconds)), PublishedAt::Unknown);
    }
    let header = |millis| Some(AMQPValue::LongLongInt(millis));
    assert_eq!(told(header(253_402_300_799_999), Some(9)), PublishedAt::Millis(PUBLISHED_MAX));
    assert_eq!(told(header(253_402_300_800_000), Some(9)), PublishedAt::Seconds(9000), "the header counts as absent");
    assert_eq!(told(header(i64::MAX), None), PublishedAt::Unknown);
    assert_eq!(told(None, Some(0)), PublishedAt::Unknown);
}

#[test]
fn our_own_field_is_not_shown() {
    let mut delivery = with_header(ID_HEADER, AMQPValue::LongLongInt(1));
    assert!(mapper(|_| ()).draft(&mut delivery, 5).unwrap().attributes.headers.is_empty());
}

#[test]
fn every_type_of_value_has_its_meaning() {
    let decimal = |scale, value: i32| AMQPValue::DecimalValue(DecimalValue { scale, value: value.cast_unsigned() });
    for (value, expected) in [
        (AMQPValue::Void, Value::Null),
        (AMQPValue::ShortShortInt(-1), Value::Int(-1)),
        (AMQPValue::ShortShortUInt(200), Value::Int(200)),
        (AMQPValue::ShortInt(-2), Value::Int(-2)),
        (AMQPValue::ShortUInt(2), Value::Int(2)),
        (AMQPValue::LongUInt(u32::MAX), Value::Int(i64::from(u32::MAX))),
        (AMQPValue::Float(0.5), Value::Float(0.5)),
        (AMQPValue::Double(0.25), Value::Float(0.25)),
        (decimal(2, 250), Value::Float(2.5)),
        // As pika writes Decimal("-1.50").
        (decimal(2, -150), Value::Float(-1.5)),
        (decimal(0, i32::MIN), Value::Float(-2_147_483_648.0)),
        (AMQPValue::LongString(vec![0xff].into()), Value::Bytes(vec![0xff])),
        (AMQPValue::ByteArray(ByteArray::from(vec![1])), Value::Bytes(vec![1])),
        (AMQPValue::Timestamp(3), Value::Timestamp(3)),
        (AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void])), Value::List(vec![Value::Null])),
        (AMQPValue::FieldTable(FieldTable::default()), Value::Table(Headers::default())),
    ] {
        assert_eq!(super::value(&value), expected);
    }
}

proptest! {
    #[test]
    fn any_key_becomes_a_topic_or_is_refused(key in "\\PC{0,60}") {
        let result = topic(&mut mapper(|_| ()), delivery(&key));
        let expected = if key.is_empty() { "events".to_owned() } else { key };
        prop_assert_eq!(result, Ok(expected));
    }
}
