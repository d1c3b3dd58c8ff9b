//! WAMP through libraries that know nothing of passerelle: Autobahn|JS and Autobahn|Python, in every serialization, on the
//! embedded broker and on RabbitMQ.

use std::collections::BTreeSet;

use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use super::script::{Script, node, python};
use crate::program::{Program, until};
use crate::whole::client::{Client, Service};
use crate::whole::{Broker, word};

/// A library, and so a language, with a serialization.
#[derive(Debug, Clone, Copy)]
struct Library {
    script: &'static str,
    serializer: &'static str,
}

/// Where RabbitMQ hands answers over without a queue.
const DIRECT: &str = "amq.rabbitmq.reply-to";

const JS: &str = "wamp.js";
const PYTHON: &str = "wamp_py.py";

impl Library {
    /// Every pair of them.
    fn all() -> impl Iterator<Item = Self> {
        let scripts = [JS, PYTHON].into_iter();
        scripts.flat_map(|script| ["json", "msgpack", "cbor"].map(|serializer| Self { script, serializer }))
    }

    fn run(self, program: &Program, further: &[&str]) -> Script {
        let mut command = if self.script == JS { node(self.script) } else { python(self.script) };
        Script::start(command.args([&format!("ws://{}/ws", program.public), self.serializer]).args(further))
    }

    /// Connects, and waits until it is welcome.
    async fn join(self, program: &Program) -> Conversation {
        let mut script = self.run(program, &[]);
        let joined = script.json().await;
        assert_eq!(joined["details"]["authrole"], "anonymous", "{self:?}: {joined}");
        Conversation { script }
    }
}

/// One client.
struct Conversation {
    script: Script,
}

impl Conversation {
    fn order(&mut self, order: &Value) {
        self.script.tell(&order.to_string());
    }

    async fn next(&mut self) -> Value {
        self.script.json().await
    }

    /// Subscribes, and waits until it stands; the id that the router gave.
    async fn subscribe(&mut self, id: &str, topic: &str, options: Value) -> Value {
        self.order(&json!({ "order": "subscribe", "id": id, "topic": topic, "options": options }));
        let subscribed = self.next().await;
        assert_eq!(subscribed["subscribed"], json!(id), "{subscribed}");
        subscribed["subscription"].clone()
    }

    /// Offers a procedure, and waits until its calls come here.
    async fn register(&mut self, procedure: &str) {
        self.order(&json!({ "order": "register", "id": "r", "procedure": procedure }));
        let registered = self.next().await;
        assert_eq!(registered["registered"], "r", "{registered}");
    }

    /// Asks, without waiting for the answer.
    fn call(&mut self, procedure: &str, args: &Value, kwargs: &Value) {
        self.order(&json!({ "order": "call", "id": "c", "procedure": procedure, "args": args, "kwargs": kwargs }));
    }

    /// The next call to what it offers: its number, and what was asked.
    async fn invoked(&mut self) -> (Value, Value) {
        let invocation = self.next().await;
        assert!(invocation["invocation"].is_u64(), "no invocation: {invocation}");
        (invocation["invocation"].clone(), json!([invocation["args"], invocation["kwargs"]]))
    }

    /// The next event, which is one.
    async fn event(&mut self) -> Value {
        let next = self.next().await;
        assert!(next["event"].is_string(), "no event: {next}");
        next
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_services_publish_comes_once_for_each_subscription() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::all() {
            let word = word();
            let mut client = library.join(&program).await;
            let exact = client.subscribe("exact", &format!("{word}.aa.x"), json!({})).await;
            client.subscribe("prefix", &format!("{word}.a"), json!({ "match": "prefix" })).await;
            client.subscribe("wildcard", &format!("{word}..x"), json!({ "match": "wildcard" })).await;
            // Who asks for the same gets the same.
            assert_eq!(client.subscribe("again", &format!("{word}.aa.x"), json!({})).await, exact);
            let mut other = library.join(&program).await;
            assert_eq!(other.subscribe("exact", &format!("{word}.aa.x"), json!({})).await, exact, "{library:?}");
            for (number, topic) in ["aa.x", "ab", "b.x", "b", "aa.x"].iter().enumerate() {
                service.publish(&format!("{word}.{topic}"), &format!("{{\"number\":{number}}}")).await;
            }
            // Two handlers of one subscription are the library's affair.
            let mut seen = Vec::new();
            while seen.len() < 10 {
                let event = client.event().await;
                let number = event["args"][0]["number"].as_f64().unwrap();
                seen.push(format!("{number} {}", event["event"].as_str().unwrap()));
            }
            let numbers: Vec<&str> = seen.iter().map(|one| &one[..1]).collect();
            assert!(numbers.is_sorted(), "{library:?}, {broker:?}: {seen:?}");
            seen.sort();
            let expected =
                ["0 again", "0 exact", "0 prefix", "0 wildcard", "1 prefix", "2 wildcard", "4 again", "4 exact"];
            let rest = ["4 prefix", "4 wildcard"];
            assert_eq!(seen, expected.into_iter().chain(rest).collect::<Vec<_>>(), "{library:?}, {broker:?}");
            let events = [other.event().await, other.event().await];
            assert_eq!(events[0]["topic"], json!(format!("{word}.aa.x")));
            assert_ne!(events[0]["publication"], events[1]["publication"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_publish_is_confirmed_and_comes_to_others_as_it_was() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::all() {
            let topic = word();
            let mut services = service.listen(&format!("{topic}.queue"), Some(&topic)).await;
            let mut client = library.join(&program).await;
            client.subscribe("own", &topic, json!({})).await;
            let mut others = Vec::new();
            for other in Library::all() {
                let mut other = other.join(&program).await;
                other.subscribe("s", &topic, json!({})).await;
                others.push(other);
            }
            let args = json!([{ "price": 9.5 }, "é", null, [true]]);
            let order = json!({ "order": "publish", "id": "p", "topic": topic, "args": args,
                "kwargs": { "colour": "red" }, "options": { "acknowledge": true } });
            client.order(&order);
            let published = client.next().await;
            assert_eq!(published["published"], "p", "{library:?}: {published}");
            for other in &mut others {
                let event = other.event().await;
                assert_eq!((&event["args"], &event["kwargs"]), (&args, &json!({ "colour": "red" })), "{library:?}");
                assert_eq!(event["publication"], published["publication"], "{library:?}");
            }
            let delivery = Service::next(&mut services).await;
            let body: Value = serde_json::from_slice(&delivery.data).unwrap();
            assert_eq!(body, json!({ "args": args, "kwargs": { "colour": "red" } }));
            // One argument is just that to everybody else; who publishes gets it only if they say so.
            let order = json!({ "order": "publish", "id": "q", "topic": topic, "args": [{ "order": "x" }],
                "options": { "exclude_me": false } });
            client.order(&order);
            let delivery = Service::next(&mut services).await;
            assert_eq!(&delivery.data[..], b"{\"order\":\"x\"}", "{library:?}");
            assert_eq!(delivery.properties.content_type().as_ref().unwrap().as_str(), "application/json");
            let event = client.event().await;
            assert_eq!(event["args"], json!([{ "order": "x" }]), "{library:?}: the first did not come back");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_by_a_service() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::all() {
            let procedure = word();
            let mut requests = service.listen(&procedure, None).await;
            let mut client = library.join(&program).await;
            for number in 0..10 {
                let order =
                    json!({ "order": "call", "id": number, "procedure": procedure, "args": [format!("{number}")] });
                client.order(&order);
            }
            // Answered from the last to the first: none waits for another.
            let mut waiting = Vec::new();
            for _ in 0..10 {
                waiting.push(Service::next(&mut requests).await);
            }
            for request in waiting.iter().rev() {
                let number = serde_json::from_slice::<Value>(&request.data).unwrap();
                let failing = number == json!("0");
                let mut properties = BasicProperties::default()
                    .with_correlation_id(request.properties.correlation_id().clone().expect("an id"))
                    .with_content_type("application/json".into());
                if failing {
                    let mut headers = FieldTable::default();
                    headers.insert("wamp_error".into(), AMQPValue::LongString("prices.error.none".into()));
                    properties = properties.with_headers(headers);
                }
                let to = request.properties.reply_to().clone().expect("a queue");
                let body = format!("[{number},\"yes\"]");
                let options = BasicPublishOptions::default();
                let reply = service.channel.basic_publish("".into(), to, options, body.as_bytes(), properties);
                reply.await.expect("a publish");
            }
            // Nobody promises an order among answers, even if they were given in one.
            let mut answered = BTreeSet::new();
            for _ in 0..10 {
                let answer = client.next().await;
                let number = answer["result"].as_u64().or(answer["failed"].as_u64()).expect("an answer");
                let error = if number == 0 { json!("prices.error.none") } else { Value::Null };
                assert_eq!(answer["error"], error, "{library:?}: {answer}");
                assert_eq!(answer["args"], json!([number.to_string(), "yes"]), "{library:?}: {answer}");
                answered.insert(number);
            }
            assert!(answered.into_iter().eq(0..10));
            let order = json!({ "order": "call", "id": "none", "procedure": format!("{procedure}.none") });
            client.order(&order);
            assert_eq!(client.next().await["error"], "wamp.error.no_such_procedure", "{library:?}, {broker:?}");
            let order = json!({ "order": "call", "id": "late", "procedure": procedure, "options": { "timeout": 200 } });
            client.order(&order);
            assert_eq!(client.next().await["error"], "wamp.error.timeout", "{library:?}, {broker:?}");
            if library.script == JS {
                client.order(&json!({ "order": "call", "id": "back", "procedure": procedure }));
                client.order(&json!({ "order": "cancel", "id": "back" }));
                assert_eq!(client.next().await["error"], "wamp.error.canceled", "{library:?}, {broker:?}");
            }
        }
    }
}

/// What opens a queue to clients, so that they can offer the procedure of its name.
fn offered(procedure: &str) -> [(&'static str, &str); 4] {
    [
        ("PASSERELLE_CONSUME__OFFERED__QUEUE", procedure),
        ("PASSERELLE_CONSUME__OFFERED__DECLARE", "true"),
        // Longer than any part of a test: what expires would take the offer along.
        ("PASSERELLE_CONSUME__OFFERED__EXPIRES", "10m"),
        ("PASSERELLE_CALL__TIMEOUT", "1m"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_answers_the_calls_of_others() {
    for broker in Broker::BOTH {
        let procedure = word();
        let program = broker.serve(&offered(&procedure)).await;
        let mut callers = Vec::new();
        for library in Library::all() {
            callers.push((library, library.join(&program).await));
        }
        let mut page = Client::json(&program).await;
        for callee in Library::all() {
            let mut offering = callee.join(&program).await;
            offering.register(&procedure).await;
            for (library, caller) in &mut callers {
                let context = format!("{library:?} calls {callee:?}, {broker:?}");
                let (args, kwargs) = (json!(["é", [true], null]), json!({ "colour": "red" }));
                caller.call(&procedure, &args, &kwargs);
                let (invocation, asked) = offering.invoked().await;
                assert_eq!(asked, json!([args, kwargs]), "{context}");
                let (args, kwargs) = (json!(["9.50", { "tax": "0.19" }]), json!({ "currency": "EUR" }));
                let order = json!({ "order": "yield", "invocation": invocation, "args": args, "kwargs": kwargs });
                offering.order(&order);
                let answer = caller.next().await;
                assert_eq!((&answer["result"], &answer["args"]), (&json!("c"), &args), "{context}: {answer}");
                assert_eq!(answer["kwargs"], kwargs, "{context}");
                caller.call(&procedure, &json!(["x"]), &json!({}));
                let (invocation, _) = offering.invoked().await;
                let error =
                    json!({ "order": "fail", "invocation": invocation, "error": "shop.error.none", "args": ["no"] });
                offering.order(&error);
                let answer = caller.next().await;
                assert_eq!(
                    (&answer["failed"], &answer["error"]),
                    (&json!("c"), &json!("shop.error.none")),
                    "{context}"
                );
                assert_eq!(answer["args"], json!(["no"]), "{context}");
            }
            // A page that knows nothing of WAMP.
            let call = json!({ "op": "call", "id": 1, "topic": procedure, "data": { "article": 5 } });
            let answers = async {
                let (invocation, asked) = offering.invoked().await;
                assert_eq!(asked, json!([[{ "article": 5 }], {}]), "{callee:?}, {broker:?}");
                offering.order(&json!({ "order": "yield", "invocation": invocation, "args": ["9.50"] }));
            };
            let (result, ()) = tokio::join!(page.ask(call), answers);
            assert_eq!((&result["op"], &result["data"]), (&json!("result"), &json!("9.50")), "{callee:?}, {broker:?}");
            offering.order(&json!({ "order": "unregister", "id": "r" }));
            assert_eq!(offering.next().await["unregistered"], "r", "{callee:?}, {broker:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_answers_the_calls_of_services() {
    for broker in Broker::BOTH {
        let procedure = word();
        let program = broker.serve(&offered(&procedure)).await;
        let service = Service::connect(&program.amqp).await;
        let replies = format!("{procedure}.replies");
        let own = service.listen(&replies, None).await;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let direct = service.channel.basic_consume(DIRECT.into(), "".into(), options, FieldTable::default());
        let direct = direct.await.expect("a consumer");
        let mut offering = Library { script: JS, serializer: "json" }.join(&program).await;
        offering.register(&procedure).await;
        for (reply_to, mut answers) in [(replies.as_str(), own), (DIRECT, direct)] {
            let properties =
                BasicProperties::default().with_reply_to(reply_to.into()).with_correlation_id("question 1".into());
            let options = BasicPublishOptions::default();
            let to = procedure.as_str().into();
            service
                .channel
                .basic_publish("".into(), to, options, b"{\"article\":5}", properties)
                .await
                .expect("a publish");
            let (invocation, asked) = offering.invoked().await;
            assert_eq!(asked, json!([[{ "article": 5 }], {}]), "{broker:?}");
            offering.order(&json!({ "order": "yield", "invocation": invocation, "args": [{ "price": "9.50" }] }));
            let answer = Service::next(&mut answers).await;
            assert_eq!(&answer.data[..], b"{\"price\":\"9.50\"}", "{broker:?}");
            let id = answer.properties.correlation_id().as_ref().map(ToString::to_string);
            assert_eq!(id.as_deref(), Some("question 1"), "{broker:?}");
        }
        // What nobody waits for is acknowledged all the same: the queue is empty once the answer is given.
        service
            .channel
            .basic_publish(
                "".into(),
                procedure.as_str().into(),
                BasicPublishOptions::default(),
                b"1",
                BasicProperties::default(),
            )
            .await
            .expect("a publish");
        let (invocation, _) = offering.invoked().await;
        offering.order(&json!({ "order": "yield", "invocation": invocation }));
        let acknowledged = "passerelle_settled_total{result=\"acknowledged\"}";
        until("all three are settled", async || program.metric(acknowledged).await == Some(3.0)).await;
    }
}

/// One that is gone before it has answered loses nothing: the call comes to whoever offers the procedure next.
#[tokio::test(flavor = "multi_thread")]
async fn one_client_offers_a_procedure_and_another_takes_over_what_it_left() {
    for broker in Broker::BOTH {
        let procedure = word();
        let program = broker.serve(&offered(&procedure)).await;
        let library = Library { script: JS, serializer: "cbor" };
        let (mut first, mut second) = (library.join(&program).await, library.join(&program).await);
        first.register(&procedure).await;
        second.order(&json!({ "order": "register", "id": "r", "procedure": procedure }));
        let refused = second.next().await;
        assert_eq!(refused["error"], "wamp.error.procedure_already_exists", "{broker:?}: {refused}");
        let mut caller = library.join(&program).await;
        caller.call(&procedure, &json!([17]), &json!({}));
        first.invoked().await;
        drop(first);
        until("it is gone", async || program.metric("passerelle_consumers").await == Some(0.0)).await;
        second.order(&json!({ "order": "register", "id": "r", "procedure": procedure }));
        // The library tells of the registration when it has handed on what came with it.
        let both = [second.next().await, second.next().await];
        let invocation = both.iter().find(|one| one["registered"].is_null()).expect("an invocation");
        assert_eq!(invocation["args"], json!([17]), "{broker:?}: {both:?}");
        second.order(&json!({ "order": "yield", "invocation": invocation["invocation"], "args": [18] }));
        assert_eq!(caller.next().await["args"], json!([18]), "{broker:?}");
        // What nobody opened to clients is not for them to offer.
        second.order(&json!({ "order": "register", "id": "s", "procedure": format!("{procedure}.other") }));
        assert_eq!(second.next().await["error"], "wamp.error.not_authorized", "{broker:?}");
    }
}

/// A client goes away and comes back with the newest cursor that it saw, which Autobahn|Python hides.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_goes_on_where_it_was() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::all() {
            let word = word();
            let (topic, prefix) = (format!("{word}.a"), json!({ "match": "prefix" }));
            let mut client = library.join(&program).await;
            client.subscribe("s", &word, prefix).await;
            service.publish(&topic, "0").await;
            let cursor = client.event().await["details"]["cursor"].clone();
            client.order(&json!({ "order": "leave" }));
            let closed = client.next().await;
            assert_eq!(closed["reason"], "wamp.close.goodbye_and_out", "{library:?}: {closed}");
            until("it has left", async || program.metric("passerelle_subscriptions").await == Some(0.0)).await;
            let received = async || program.metric("passerelle_source_messages_total{source=\"events\"}").await;
            let before = received().await.unwrap_or_default();
            for number in 1..=20 {
                service.publish(&topic, &format!("\"{number}\"")).await;
            }
            until("all has come", async || received().await >= Some(before + 20.0)).await;
            let mut client = library.join(&program).await;
            if library.script == JS {
                let options = json!({ "match": "prefix", "after": cursor });
                client.order(&json!({ "order": "subscribe", "id": "s", "topic": word, "options": options }));
                let mut events = Vec::new();
                // The library tells of the subscription when it has handed on what came with it.
                for _ in 0..=20 {
                    events.push(client.next().await);
                }
                events.retain(|one| one["subscribed"].is_null());
                for (number, event) in (1..=20).zip(&events) {
                    let details = &event["details"];
                    assert_eq!(event["args"], json!([number.to_string()]), "{library:?}, {broker:?}");
                    assert_eq!((&details["retained"], &details["gap"]), (&json!(true), &Value::Null), "{event}");
                }
                // A cursor from nowhere is told as a gap, with the first event.
                client.subscribe("n", &topic, json!({ "after": "events~1.1" })).await;
                service.publish(&topic, "\"new\"").await;
                let mut gaps = [client.event().await, client.event().await]
                    .map(|event| (event["event"].to_string(), event["details"]["gap"][0]["reason"].clone()));
                gaps.sort_by(|one, other| one.0.cmp(&other.0));
                assert_eq!(gaps, [("\"n\"".into(), json!("unknown_cursor")), ("\"s\"".into(), Value::Null)]);
            } else {
                let options = json!({ "get_retained": true });
                client.order(&json!({ "order": "subscribe", "id": "s", "topic": topic, "options": options }));
                let both = [client.next().await, client.next().await];
                let event = both.iter().find(|one| one["event"] == "s").expect("an event");
                assert_eq!((&event["args"], &event["details"]["retained"]), (&json!(["20"]), &json!(true)), "{event}");
            }
        }
    }
}

/// More subscriptions than a connection keeps encodings of.
#[tokio::test(flavor = "multi_thread")]
async fn every_one_of_many_subscriptions_gets_its_events() {
    let program = Broker::Embedded.serve(&[]).await;
    let service = Service::connect(&program.amqp).await;
    let word = word();
    let library = Library { script: JS, serializer: "json" };
    let mut client = library.join(&program).await;
    for number in 0..90 {
        client.subscribe(&number.to_string(), &format!("{word}.{number}"), json!({})).await;
    }
    client.subscribe("all", &format!("{word}."), json!({ "match": "prefix" })).await;
    for number in 0..90 {
        service.publish(&format!("{word}.{number}"), &number.to_string()).await;
    }
    let mut seen = Vec::new();
    for _ in 0..180 {
        let event = client.event().await;
        seen.push((event["args"][0].as_u64().unwrap(), event["event"].as_str().unwrap().to_owned()));
    }
    seen.sort();
    let mut expected: Vec<(u64, String)> =
        (0..90).flat_map(|number| [(number, number.to_string()), (number, "all".to_owned())]).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_can_check_is_not_taken_for_a_good_one() {
    let program = Broker::Embedded.serve(&[]).await;
    let library = Library { script: JS, serializer: "cbor" };
    let closed = library.run(&program, &["t.o.k"]).json().await;
    assert_eq!(closed["reason"], "wamp.error.authentication_denied", "{closed}");
    assert!(closed["message"].as_str().unwrap().contains("checks no tokens yet"), "{closed}");
}
