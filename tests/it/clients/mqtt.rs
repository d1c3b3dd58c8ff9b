//! MQTT through libraries that know nothing of passerelle: MQTT.js and paho-mqtt in 3.1.1 and 5.0, on the embedded broker and
//! on RabbitMQ.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use super::script::{Script, node, python};
use crate::program::{PATIENCE, Program, until};
use crate::whole::client::Service;
use crate::whole::{Broker, word};

/// A library, and so a language, and the version that it is to speak.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library {
    pub(super) name: Name,
    version: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    MqttJs,
    Paho,
}

impl Library {
    pub(super) const ALL: [Self; 4] = [
        Self { name: Name::MqttJs, version: 4 },
        Self { name: Name::MqttJs, version: 5 },
        Self { name: Name::Paho, version: 4 },
        Self { name: Name::Paho, version: 5 },
    ];

    pub(super) fn is_v5(self) -> bool {
        self.version == 5
    }

    pub(super) fn start(self, program: &Program, mut options: Value) -> Conversation {
        let mut command = match self.name {
            Name::MqttJs => node("mqtt.js"),
            Name::Paho => python("paho_mqtt.py"),
        };
        options["version"] = json!(self.version);
        let script = Script::start(command.args([&format!("ws://{}/ws", program.public), &options.to_string()]));
        Conversation { script, waiting: Vec::new() }
    }

    /// Connects with options of its own, and waits until it is welcome.
    pub(super) async fn connect_with(self, program: &Program, mut options: Value) -> Conversation {
        if options["client"].is_null() {
            options["client"] = json!(word());
        }
        let mut conversation = self.start(program, options);
        let connected = conversation.next("connected").await;
        assert_eq!(connected["reason"], 0, "{self:?}: {connected}");
        conversation
    }

    pub(super) async fn connect(self, program: &Program) -> Conversation {
        self.connect_with(program, json!({})).await
    }
}

/// One client.
pub(super) struct Conversation {
    script: Script,
    /// What happened before it was asked for.
    waiting: Vec<Value>,
}

impl Conversation {
    pub(super) fn order(&mut self, order: &Value) {
        self.script.tell(&order.to_string());
    }

    /// The next happening of a kind; what else comes before that waits.
    pub(super) async fn happening(&mut self, kind: &str) -> Value {
        if let Some(place) = self.waiting.iter().position(|happening| happening.get(kind).is_some()) {
            return self.waiting.remove(place);
        }
        loop {
            let next = self.script.json().await;
            if next.get(kind).is_some() {
                return next;
            }
            self.waiting.push(next);
        }
    }

    pub(super) async fn next(&mut self, kind: &str) -> Value {
        self.happening(kind).await[kind].take()
    }

    pub(super) async fn message(&mut self) -> Value {
        self.happening("message").await
    }

    /// Subscribes, and returns what was granted.
    pub(super) async fn subscribe(&mut self, filters: Value) -> Value {
        self.order(&json!({ "order": "subscribe", "filters": filters }));
        self.next("subscribed").await
    }

    /// Publishes, and waits for the answer: a reason code.
    pub(super) async fn publish(&mut self, order: &Value) -> Value {
        let mut order = order.clone();
        order["order"] = json!("publish");
        self.order(&order);
        self.next("published").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_services_publish_comes_once_at_the_quality_that_was_granted() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::ALL {
            let word = word();
            let mut client = library.connect(&program).await;
            let filters =
                json!([{ "filter": format!("{word}/#"), "qos": 0 }, { "filter": format!("{word}/+/a"), "qos": 2 }]);
            let granted = client.subscribe(filters).await;
            assert_eq!(granted, json!([0, 1]), "{library:?}");
            for number in 0..1000 {
                let topic = format!("{word}.x.{}", if number % 2 == 0 { "a" } else { "b" });
                service.publish(&topic, &number.to_string()).await;
            }
            for number in 0..1000 {
                let message = client.message().await;
                let head = &message["message"];
                assert_eq!(message["body"], number.to_string(), "{library:?}, {broker:?}");
                let level = if number % 2 == 0 { "a" } else { "b" };
                assert_eq!(head["topic"], format!("{word}/x/{level}"));
                assert_eq!((&head["qos"], &head["retain"]), (&json!(1 - number % 2), &json!(false)));
            }
            client.order(&json!({ "order": "unsubscribe", "filters": [format!("{word}/#"), "nothing"] }));
            let ended = client.next("unsubscribed").await;
            assert_eq!(ended, if library.is_v5() { json!([0, 0x11]) } else { json!([]) }, "{library:?}");
            service.publish(&format!("{word}.x.b"), "nobody").await;
            service.publish(&format!("{word}.x.a"), "last").await;
            assert_eq!(client.message().await["body"], "last", "{library:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_publish_is_confirmed_and_reaches_services() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::ALL {
            let word = word();
            let mut consumer = service.listen(&format!("{word}.queue"), Some(&format!("{word}.#"))).await;
            let mut client = library.connect(&program).await;
            let properties = json!({ "type": "application/json", "reply": "answers/anna", "correlation": "c-1",
                "user": { "tenant": "eu" } });
            let order =
                json!({ "topic": format!("{word}/a"), "body": "{\"order\":17}", "qos": 1, "properties": properties });
            assert_eq!(client.publish(&order).await, 0, "{library:?}, {broker:?}");
            let delivery = Service::next(&mut consumer).await;
            assert_eq!(
                (delivery.routing_key.as_str(), &delivery.data[..]),
                (&*format!("{word}.a"), &b"{\"order\":17}"[..])
            );
            if library.is_v5() {
                let properties = &delivery.properties;
                assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
                assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), "c-1");
                let headers = properties.headers().as_ref().unwrap().inner();
                let text =
                    |name| String::from_utf8(headers.get(name).unwrap().as_long_string().unwrap().as_bytes().into());
                assert_eq!(text("tenant").as_deref(), Ok("eu"));
                assert_eq!(text("x-reply-to-topic").as_deref(), Ok("answers.anna"));
                // Nobody listens, and that is told.
                let order = json!({ "topic": format!("nobody/{word}"), "body": "", "qos": 1 });
                assert_eq!(client.publish(&order).await, 0x10, "{library:?}, {broker:?}");
            } else {
                let order = json!({ "topic": format!("{word}/twice"), "body": "2", "qos": 2 });
                assert_eq!(client.publish(&order).await, 0);
                assert_eq!(&Service::next(&mut consumer).await.data[..], b"2");
            }
            client.publish(&json!({ "topic": format!("{word}/zero"), "body": "0", "qos": 0 })).await;
            assert_eq!(&Service::next(&mut consumer).await.data[..], b"0");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_of_amqp_and_identifiers_reach_clients_of_5() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::ALL.into_iter().filter(|library| library.is_v5()) {
            let word = word();
            let mut client = library.connect(&program).await;
            let filter = json!([{ "filter": format!("{word}/#"), "nl": true }]);
            client.order(&json!({ "order": "subscribe", "filters": filter, "id": 7 }));
            assert_eq!(client.next("subscribed").await, json!([0]));
            let filter = json!([{ "filter": format!("{word}/a") , "nl": true }]);
            client.order(&json!({ "order": "subscribe", "filters": filter, "id": 300 }));
            assert_eq!(client.next("subscribed").await, json!([0]));
            // Its own it does not want.
            let own = json!({ "topic": format!("{word}/a"), "body": "own", "qos": 1 });
            client.publish(&own).await;
            let mut headers = FieldTable::default();
            headers.insert("tenant".into(), AMQPValue::LongString("eu".into()));
            headers.insert("x-reply-to-topic".into(), AMQPValue::LongString("answers.anna".into()));
            let properties = BasicProperties::default()
                .with_content_type("text/plain".into())
                .with_correlation_id("c-1".into())
                .with_headers(headers);
            let (exchange, key) = ("amq.topic".into(), format!("{word}.a").into());
            let options = BasicPublishOptions::default();
            service.channel.basic_publish(exchange, key, options, b"theirs", properties).await.expect("a publish");
            let message = client.message().await;
            assert_eq!(message["body"], "theirs", "{library:?}, {broker:?}");
            let head = &message["message"];
            assert_eq!((&head["type"], &head["reply"]), (&json!("text/plain"), &json!("answers/anna")), "{message}");
            assert_eq!((&head["correlation"], &head["user"]), (&json!("c-1"), &json!({ "tenant": "eu" })));
            let mut ids: Vec<u64> = head["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
            ids.sort_unstable();
            assert_eq!(ids, [7, 300], "{library:?}");
        }
    }
}

/// A client that takes two at a time is sent the third when it has acknowledged one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_holds_back_what_follows() {
    let program = Broker::Embedded.serve(&[]).await;
    let service = Service::connect(&program.amqp).await;
    // MQTT.js never has two messages in hand.
    for library in Library::ALL.into_iter().filter(|library| library.is_v5() && library.name == Name::Paho) {
        let topic = word();
        let mut client = library.connect_with(&program, json!({ "receive": 2, "hold": true })).await;
        assert_eq!(client.subscribe(json!([{ "filter": topic, "qos": 1 }])).await, json!([1]));
        for number in 0..7 {
            service.publish(&topic, &number.to_string()).await;
        }
        let mut number = 0;
        while number < 6 {
            for _ in 0..2 {
                assert_eq!(client.message().await["body"], number.to_string(), "{library:?}");
                number += 1;
            }
            let early = tokio::time::timeout(Duration::from_millis(300), client.message()).await;
            assert!(early.is_err(), "{library:?}: {early:?}");
            client.order(&json!({ "order": "acknowledge" }));
        }
        assert_eq!(client.message().await["body"], "6", "{library:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retained_comes_first_until_it_is_cleared() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        for library in Library::ALL {
            let word = word();
            let mut publisher = library.connect(&program).await;
            // With the first client of the protocol what is retained is bound, and the broker's word for a message says only
            // that the broker has it.
            let bindings = "passerelle_bindings{source=\"events\"}";
            until("what is retained comes here", async || program.metric(bindings).await >= Some(1.0)).await;
            let received = async || program.metric("passerelle_source_messages_total{source=\"events\"}").await;
            let before = received().await.unwrap_or_default();
            for (level, body) in [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4"), ("b", "")] {
                let order = json!({ "topic": format!("{word}/{level}"), "body": body, "qos": 1, "retain": true });
                publisher.publish(&order).await;
            }
            // What is not retained takes nobody's place.
            publisher.publish(&json!({ "topic": format!("{word}/c"), "body": "5", "qos": 1 })).await;
            until("all has come", async || received().await >= Some(before + 5.0)).await;
            let mut client = library.connect(&program).await;
            client.subscribe(json!([{ "filter": format!("{word}/+"), "qos": 1 }])).await;
            let mut seen = Vec::new();
            for _ in 0..2 {
                let message = client.message().await;
                assert_eq!(message["message"]["retain"], true, "{library:?}, {broker:?}: {message}");
                seen.push((message["message"]["topic"].as_str().unwrap().to_owned(), message["body"].clone()));
            }
            seen.sort_by(|one, other| one.0.cmp(&other.0));
            assert_eq!(seen, [(format!("{word}/a"), json!("4")), (format!("{word}/c"), json!("3"))], "{library:?}");
            let order = json!({ "topic": format!("{word}/d"), "body": "6", "qos": 1, "retain": true });
            publisher.publish(&order).await;
            let live = client.message().await;
            assert_eq!((&live["body"], &live["message"]["retain"]), (&json!("6"), &json!(false)), "{library:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_published_for_who_is_gone_without_a_word() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        for library in Library::ALL {
            let topic = word();
            let mut watcher = library.connect(&program).await;
            watcher.subscribe(json!([{ "filter": topic, "qos": 1 }])).await;
            let will = json!({ "will": { "topic": topic, "payload": "gone" } });
            let mut leaves = library.connect_with(&program, will.clone()).await;
            leaves.order(&json!({ "order": "leave" }));
            leaves.happening("closed").await;
            let mut breaks = library.connect_with(&program, will).await;
            breaks.order(&json!({ "order": "break" }));
            assert_eq!(watcher.message().await["body"], "gone", "{library:?}, {broker:?}");
            let more = tokio::time::timeout(Duration::from_millis(200), watcher.message()).await;
            assert!(more.is_err(), "one left with DISCONNECT: {more:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_come_in_is_told_why() {
    let program = Broker::Embedded.serve(&[]).await;
    for library in Library::ALL {
        let mut client = library.start(&program, json!({ "client": "c", "user": "anna", "password": "secret" }));
        let error = client.next("error").await;
        let expected = match (library.name, library.version) {
            // paho gives the numbers of 5.0 for those of 3.1.1 too.
            (Name::MqttJs, 4) => 4,
            _ => 0x86,
        };
        assert_eq!(error, expected, "{library:?}");
    }
}

/// A quiet session lives by PINGREQ.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_session_stays() {
    let program = Broker::Embedded.serve(&[]).await;
    let service = Service::connect(&program.amqp).await;
    let topic = word();
    let mut clients = Vec::new();
    for library in Library::ALL {
        let mut client = library.connect_with(&program, json!({ "keepalive": 3 })).await;
        client.subscribe(json!([{ "filter": topic, "qos": 0 }])).await;
        clients.push(client);
    }
    // Longer than twice what they promise.
    let quiet = tokio::time::timeout(Duration::from_secs(7), clients[0].script.json()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    service.publish(&topic, "still here").await;
    for client in &mut clients {
        let message = tokio::time::timeout(PATIENCE, client.message()).await.expect("a message");
        assert_eq!(message["body"], "still here");
    }
}

/// What a client that comes back to its session has to say.
pub(super) fn lasting(client: &str) -> Value {
    json!({ "client": client, "clean": false, "expiry": 60 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_where_its_connection_broke() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::ALL {
            let (topic, name) = (word(), word());
            let mut options = lasting(&name);
            options["hold"] = json!(true);
            let mut first = library.start(&program, options);
            assert_eq!(first.next("connected").await["present"], false, "{library:?}, {broker:?}");
            assert_eq!(first.subscribe(json!([{ "filter": format!("{topic}/#"), "qos": 1 }])).await, json!([1]));
            for number in 0..3 {
                service.publish(&format!("{topic}.a"), &number.to_string()).await;
            }
            assert_eq!(first.message().await["body"], "0");
            first.order(&json!({ "order": "break" }));
            until("its session is kept", async || program.metric(KEPT).await == Some(1.0)).await;
            for number in 3..6 {
                service.publish(&format!("{topic}.b"), &number.to_string()).await;
            }
            let mut second = library.start(&program, lasting(&name));
            assert_eq!(second.next("connected").await["present"], true, "{library:?}, {broker:?}");
            for number in 0..6 {
                let message = second.message().await;
                assert_eq!(message["body"], number.to_string(), "{library:?}, {broker:?}: {message}");
                assert!(number > 0 || message["message"]["dup"] == true, "{message}");
            }
            service.publish(&format!("{topic}.a"), "live").await;
            assert_eq!(second.message().await["body"], "live", "{library:?}, {broker:?}");
            second.order(&json!({ "order": "leave" }));
            until("its session is kept", async || program.metric(KEPT).await == Some(1.0)).await;
            let mut third = library.start(&program, json!({ "client": name, "clean": true }));
            assert_eq!(third.next("connected").await["present"], false, "it begins anew");
            assert_eq!(program.metric(KEPT).await, Some(0.0), "{library:?}, {broker:?}");
            service.publish(&format!("{topic}.a"), "nobody's").await;
            third.subscribe(json!([{ "filter": topic, "qos": 1 }])).await;
            service.publish(&topic, "last").await;
            assert_eq!(third.message().await["body"], "last", "{library:?}, {broker:?}");
        }
    }
}

const KEPT: &str = "passerelle_kept_sessions";

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_of_a_client_ends_the_first() {
    let program = Broker::Embedded.serve(&[]).await;
    let service = Service::connect(&program.amqp).await;
    for library in Library::ALL {
        let (topic, name) = (word(), word());
        let mut first = library.start(&program, lasting(&name));
        first.next("connected").await;
        first.subscribe(json!([{ "filter": topic, "qos": 1 }])).await;
        let mut second = library.start(&program, lasting(&name));
        assert_eq!(second.next("connected").await["present"], true, "{library:?}");
        first.happening("closed").await;
        service.publish(&topic, "1").await;
        assert_eq!(second.message().await["body"], "1", "{library:?}");
        second.order(&json!({ "order": "leave" }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_keeps_it_keeps_no_longer_than_it_says() {
    let environment = [("PASSERELLE_MQTT__SESSION_EXPIRY_MAX", "1s")];
    let program = Broker::Embedded.serve(&environment).await;
    for library in Library::ALL {
        let name = word();
        let mut first = library.start(&program, lasting(&name));
        first.next("connected").await;
        first.subscribe(json!([{ "filter": "a", "qos": 1 }])).await;
        first.order(&json!({ "order": "leave" }));
        until("its session is kept", async || program.metric(KEPT).await == Some(1.0)).await;
        until("it has expired", async || program.metric(KEPT).await == Some(0.0)).await;
        let mut second = library.start(&program, lasting(&name));
        assert_eq!(second.next("connected").await["present"], false, "{library:?}");
        second.order(&json!({ "order": "leave" }));
        until("its session has expired too", async || program.metric(KEPT).await == Some(0.0)).await;
    }
}

/// Without its client, but only as long as its session is kept: nothing lingers here.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_kept_session_is_subscribed_to_stays_bound_until_it_ends() {
    let program = Broker::Embedded.serve(&[("PASSERELLE_SOURCE__EVENTS__LINGER", "0s")]).await;
    let service = Service::connect(&program.amqp).await;
    let (bindings, subscriptions) = ("passerelle_bindings{source=\"events\"}", "passerelle_kept_subscriptions");
    for library in Library::ALL {
        let (topic, name) = (word(), word());
        let mut first = library.start(&program, lasting(&name));
        first.next("connected").await;
        first.subscribe(json!([{ "filter": topic, "qos": 1 }, { "filter": format!("{topic}/#"), "qos": 1 }])).await;
        first.order(&json!({ "order": "break" }));
        until("it is kept", async || program.metric(subscriptions).await == Some(2.0)).await;
        service.publish(&format!("{topic}.a"), "meanwhile").await;
        let mut second = library.start(&program, lasting(&name));
        assert_eq!(second.next("connected").await["present"], true, "{library:?}");
        assert_eq!(second.message().await["body"], "meanwhile", "{library:?}");
        second.order(&json!({ "order": "leave" }));
        until("it is kept", async || program.metric(subscriptions).await == Some(2.0)).await;
        let mut third = library.start(&program, json!({ "client": name, "clean": true }));
        assert_eq!(third.next("connected").await["present"], false, "{library:?}");
        third.order(&json!({ "order": "leave" }));
        until("what is retained is all that is bound", async || program.metric(bindings).await == Some(1.0)).await;
        assert_eq!(program.metric(subscriptions).await, Some(0.0), "{library:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_for_whose_subscriptions_there_is_no_room_ends_with_its_connection() {
    let program = Broker::Embedded.serve(&[("PASSERELLE_MQTT__KEPT_SUBSCRIPTIONS_MAX", "1")]).await;
    for library in Library::ALL {
        let name = word();
        for filters in [json!([{ "filter": "a" }, { "filter": "b" }]), json!([{ "filter": "a" }])] {
            let mut client = library.start(&program, lasting(&name));
            assert_eq!(client.next("connected").await["present"], false, "{library:?}");
            client.subscribe(filters).await;
            client.order(&json!({ "order": "leave" }));
            until("it is gone", async || program.metric(OPEN).await == Some(0.0)).await;
        }
        until("the smaller is kept", async || program.metric(KEPT).await == Some(1.0)).await;
        let mut client = library.start(&program, json!({ "client": name, "clean": true }));
        client.next("connected").await;
        client.order(&json!({ "order": "leave" }));
        until("it is gone", async || program.metric(OPEN).await == Some(0.0)).await;
    }
}

const OPEN: &str = "passerelle_connections{protocol=\"mqtt\",transport=\"websocket\"}";
