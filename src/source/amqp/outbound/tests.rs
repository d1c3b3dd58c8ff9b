//! What may go up and what may not, and that it comes back as it went.

use proptest::prelude::*;

use super::*;
use crate::config::Route;
use crate::model::topic::Pattern;

fn fields(fields: Vec<(&str, Value)>) -> Headers {
    Headers(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, level| {
        if level % 2 == 0 { Value::List(vec![inner]) } else { Value::Table(fields(vec![("k", inner)])) }
    })
}

#[test]
fn reserved_names_are_refused_in_any_case() {
    for name in ["CC", "cc", "BCC", "x-death", "X-Death", "x-passerelle-id", "x-first-death-queue"] {
        assert!(headers(&fields(vec![(name, Value::Null)])).unwrap_err().contains(name), "{name}");
    }
    assert!(headers(&fields(vec![("x-request-id", Value::Null), ("ccc", Value::Null)])).is_ok());
    // Within a table they mean nothing to the broker.
    assert!(headers(&fields(vec![("t", Value::Table(fields(vec![("CC", Value::Null)])))])).is_ok());
}

#[test]
fn depth_and_size_are_bounded() {
    assert!(headers(&fields(vec![("deep", nested(HEADERS_DEPTH_MAX - 1))])).is_ok());
    assert!(headers(&fields(vec![("deep", nested(HEADERS_DEPTH_MAX))])).unwrap_err().contains("nested"));
    // The table's length, the name with its length, the type letter, the text's length.
    let around = 4 + 2 + 1 + 4;
    let text = |bytes: usize| headers(&fields(vec![("k", Value::Text("x".repeat(bytes)))]));
    assert!(text(HEADERS_BYTES_MAX - around).is_ok());
    assert!(text(HEADERS_BYTES_MAX - around + 1).unwrap_err().contains("65536 bytes"));
    assert!(headers(&fields(vec![(&"n".repeat(256), Value::Null)])).unwrap_err().contains("256"));
}

#[test]
fn values_that_the_broker_cannot_read_are_refused() {
    for value in [Value::Float(f64::NAN), Value::Float(f64::INFINITY), Value::UInt(u64::MAX)] {
        assert!(headers(&fields(vec![("k", Value::List(vec![value]))])).is_err());
    }
}

#[test]
fn long_properties_are_refused_and_not_cut() {
    let mut message = Outgoing::new(Topic::parse("a").unwrap(), Bytes::new());
    message.content_type = Some("x".repeat(256));
    assert!(properties(&message).unwrap_err().contains("content_type is 256 bytes long"));
    message.content_type = None;
    message.message_id = Some("x".repeat(255));
    assert!(properties(&message).is_ok());
}

#[test]
fn the_first_matching_route_decides_for_both() {
    let route = |name: &str, pattern: &str| Route {
        name: name.into(),
        pattern: Pattern::parse(pattern).unwrap(),
        exchange: format!("{name}-exchange"),
    };
    let settings = Settings { routes: vec![route("narrow", "rpc.a"), route("wide", "rpc.#")], ..Settings::default() };
    let to = |text: &str| Outgoing::new(Topic::parse(text).unwrap(), Bytes::new());
    let narrow = Destination { exchange: "narrow-exchange", key: "route.narrow.exchange".into() };
    assert_eq!(Destination::of_publish(&settings, &to("rpc.a")), Ok(narrow));
    assert_eq!(Destination::of_call(&settings, &to("rpc.b")).unwrap().exchange, "wide-exchange");
    assert_eq!(Destination::of_publish(&settings, &to("other")).unwrap().key, "publish.exchange");
    assert_eq!(Destination::of_call(&settings, &to("other")).unwrap().exchange, "");
    assert_eq!(exchanges(&settings).len(), 4);
}

#[test]
fn a_client_may_say_where_a_topic_goes_and_change_nothing_by_it() {
    let settings = Settings::default();
    let to = |target| Outgoing { target, ..Outgoing::new(Topic::parse("a").unwrap(), Bytes::new()) };
    let exchange = |name: &str| to(Target::Exchange(name.into()));
    assert_eq!(Destination::of_publish(&settings, &exchange("amq.topic")).unwrap().exchange, "amq.topic");
    let refused = Destination::of_publish(&settings, &exchange("secret")).unwrap_err();
    assert_eq!(refused, "topic \"a\" goes to exchange \"amq.topic\" here: name that one, or change publish.exchange");
    assert!(Destination::of_call(&settings, &exchange("secret")).is_err());
    assert_eq!(Destination::of_call(&settings, &to(Target::Published)).unwrap().exchange, "amq.topic");
    for queue in
        [Destination::of_call(&settings, &to(Target::Queue)), Destination::of_publish(&settings, &to(Target::Queue))]
    {
        assert_eq!(queue.unwrap().exchange, "");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::UInt),
        any::<f64>().prop_map(Value::Float),
        ".{0,20}".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
        any::<u64>().prop_map(Value::Timestamp),
    ];
    leaf.prop_recursive(10, 60, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            proptest::collection::vec((".{0,9}", inner), 0..4).prop_map(|fields| Value::Table(Headers(fields))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_accepted_comes_back_as_it_was(name in "[a-b]{1,9}", value in any_value()) {
        let sent = fields(vec![(&name, value)]);
        if let Ok(table) = headers(&sent) {
            let back = super::super::mapping::headers(&table);
            // Tables are maps on their way: a name that repeats keeps its last value, and order is lost.
            prop_assert_eq!(normal(&back), normal(&sent));
        }
    }
}

/// Tables in order of their names, each name once; NUL as the reader shows it.
fn normal(headers: &Headers) -> Vec<(String, String)> {
    let mut fields = std::collections::BTreeMap::new();
    for (name, value) in &headers.0 {
        fields.insert(name.replace('\0', "\u{fffd}"), normal_value(value));
    }
    fields.into_iter().collect()
}

fn normal_value(value: &Value) -> String {
    match value {
        Value::List(values) => format!("{:?}", values.iter().map(normal_value).collect::<Vec<_>>()),
        Value::Table(table) => format!("{:?}", normal(table)),
        value => format!("{value:?}"),
    }
}

#[test]
fn what_is_retained_goes_to_every_node_by_a_key_that_nobody_sees() {
    let message = Outgoing { retained: true, ..Outgoing::new(Topic::parse("a").unwrap(), Bytes::new()) };
    let settings = Settings::default();
    let destination = Destination::of_publish(&settings, &message).unwrap();
    let (place, _) = oneshot::channel();
    let made = checked(message, destination, Answer::Request(place)).unwrap();
    let published = Place { exchange: &made.exchange, key: made.topic.as_str() };
    assert!(published.is_retained(&made.headers));
    let Some(AMQPValue::FieldArray(keys)) = made.headers.inner().get("BCC") else { panic!("{:?}", made.headers) };
    assert_eq!(keys.as_slice(), [AMQPValue::LongString(LongString::from(RETAINED_KEY))]);
}
