//! STOMP through libraries that know nothing of passerelle: @stomp/stompjs and stomp.py, on the embedded broker and on RabbitMQ.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use serde_json::{Value, json};

use super::script::{Script, node, python};
use crate::program::{PATIENCE, Program, until};
use crate::whole::client::Service;
use crate::whole::{Broker, word};

/// A library, and so a language.
#[derive(Debug, Clone, Copy)]
enum Library {
    StompJs,
    StompPy,
}

impl Library {
    const BOTH: [Self; 2] = [Self::StompJs, Self::StompPy];

    /// Connects, and waits until it is welcome.
    async fn connect(self, program: &Program) -> Conversation {
        let mut command = match self {
            Self::StompJs => node("stomp.js"),
            Self::StompPy => python("stomp_py.py"),
        };
        let mut script = Script::start(command.arg(format!("ws://{}/ws", program.public)));
        let connected = script.json().await;
        assert_eq!(connected["connected"]["version"], "1.2", "{self:?}: {connected}");
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

    /// Has something done, and waits for its receipt; what else comes before that is returned.
    async fn done(&mut self, mut order: Value) -> Vec<Value> {
        let receipt = word();
        order["receipt"] = json!(receipt);
        self.order(&order);
        let mut others = Vec::new();
        loop {
            let next = self.script.json().await;
            if next["receipt"] == json!(receipt) {
                return others;
            }
            others.push(next);
        }
    }

    /// The next message.
    async fn message(&mut self) -> Value {
        let next = self.script.json().await;
        assert!(next["message"].is_object(), "no message: {next}");
        next
    }

    async fn subscribe(&mut self, id: &str, destination: &str, headers: Value) {
        let order = json!({ "order": "subscribe", "id": id, "destination": destination, "headers": headers });
        assert_eq!(self.done(order).await, Vec::<Value>::new());
    }

    fn settle(&mut self, how: &str, message: &Value) -> Value {
        let headers = &message["message"];
        json!({ "order": how, "message": headers["message-id"], "subscription": headers["subscription"],
            "ack": headers["ack"] })
    }
}

fn send(destination: &str, body: &str) -> Value {
    json!({ "order": "send", "destination": destination, "body": body })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_services_publish_comes_once_for_each_subscription() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::BOTH {
            let word = word();
            let mut client = library.connect(&program).await;
            client.subscribe("all", &format!("/topic/{word}.#"), json!({})).await;
            client.subscribe("one", &format!("/exchange/amq.topic/{word}.a"), json!({})).await;
            for number in 0..100 {
                service
                    .publish(&format!("{word}.{}", if number % 2 == 0 { "a" } else { "b" }), &number.to_string())
                    .await;
            }
            let mut seen = Vec::new();
            while seen.len() < 150 {
                let message = client.message().await;
                let (headers, number) =
                    (&message["message"], message["body"].as_str().unwrap().parse::<u32>().unwrap());
                seen.push((number, headers["subscription"].as_str().unwrap().to_owned()));
                let destination = headers["destination"].as_str().unwrap();
                let expected = match headers["subscription"].as_str() {
                    Some("one") => format!("/exchange/amq.topic/{word}.a"),
                    _ => format!("/topic/{word}.{}", if number % 2 == 0 { "a" } else { "b" }),
                };
                assert_eq!(destination, expected);
            }
            let numbers: Vec<u32> = seen.iter().map(|(number, _)| *number).collect();
            assert!(numbers.is_sorted(), "{library:?}, {broker:?}: {numbers:?}");
            seen.sort();
            let expected = (0..100).flat_map(|number| {
                let one = (number % 2 == 0).then(|| (number, "one".to_owned()));
                [Some((number, "all".to_owned())), one].into_iter().flatten()
            });
            assert_eq!(seen, expected.collect::<Vec<_>>(), "{library:?}, {broker:?}");
            assert!(client.done(json!({ "order": "unsubscribe", "id": "all" })).await.is_empty());
            service.publish(&format!("{word}.b"), "nobody").await;
            service.publish(&format!("{word}.a"), "one").await;
            assert_eq!(client.message().await["body"], "one");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_send_is_confirmed_and_reaches_services() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::BOTH {
            let word = word();
            let mut consumer = service.listen(&format!("{word}.queue"), Some(&format!("{word}.#"))).await;
            let mut client = library.connect(&program).await;
            let mut order = send(&format!("/topic/{word}.a"), "{\"order\":17}");
            order["headers"] =
                json!({ "content-type": "application/json", "tenant": "e:u\\1\n2", "amqp-message-id": "m-1" });
            assert!(client.done(order).await.is_empty());
            let delivery = Service::next(&mut consumer).await;
            assert_eq!(
                (delivery.routing_key.as_str(), &delivery.data[..]),
                (&*format!("{word}.a"), &b"{\"order\":17}"[..])
            );
            let properties = &delivery.properties;
            assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
            assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "m-1");
            let tenant =
                properties.headers().as_ref().unwrap().inner().get("tenant").unwrap().as_long_string().unwrap();
            assert_eq!(tenant.as_bytes(), b"e:u\\1\n2", "{library:?}");
            // What belongs together.
            client.order(&json!({ "order": "begin", "transaction": "t" }));
            for number in 0..3 {
                let mut order = send(&format!("/topic/{word}.t"), &number.to_string());
                order["transaction"] = json!("t");
                client.order(&order);
            }
            assert!(client.done(send(&format!("/topic/{word}.before"), "")).await.is_empty());
            client.order(&json!({ "order": "commit", "transaction": "t" }));
            client.order(&json!({ "order": "begin", "transaction": "u" }));
            let mut order = send(&format!("/topic/{word}.never"), "");
            order["transaction"] = json!("u");
            client.order(&order);
            client.order(&json!({ "order": "abort", "transaction": "u" }));
            assert!(client.done(send(&format!("/topic/{word}.after"), "")).await.is_empty());
            let mut keys = Vec::new();
            for _ in 0..5 {
                keys.push(Service::next(&mut consumer).await.routing_key.as_str().to_owned());
            }
            assert_eq!(keys, ["before", "t", "t", "t", "after"].map(|key| format!("{word}.{key}")), "{library:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_shared_and_what_is_not_acknowledged_returns() {
    for broker in Broker::BOTH {
        let queue = word();
        let environment =
            [("PASSERELLE_CONSUME__JOBS__QUEUE", queue.as_str()), ("PASSERELLE_CONSUME__JOBS__DECLARE", "true")];
        let program = broker.serve(&environment).await;
        let destination = format!("/queue/{queue}");
        for library in Library::BOTH {
            let mut client = library.connect(&program).await;
            let headers = json!({ "ack": "client", "prefetch-count": "10" });
            client.subscribe("jobs", &destination, headers).await;
            for number in 0..3 {
                client.order(&send(&destination, &number.to_string()));
            }
            let mut messages = Vec::new();
            for number in 0..3 {
                let message = client.message().await;
                assert_eq!(
                    (&message["body"], &message["message"]["redelivered"]),
                    (&json!(number.to_string()), &Value::Null)
                );
                messages.push(message);
            }
            // With all before it.
            let ack = client.settle("ack", &messages[1]);
            assert!(client.done(ack).await.is_empty(), "{library:?}, {broker:?}");
            let nack = client.settle("nack", &messages[2]);
            client.order(&nack);
            let again = client.message().await;
            assert_eq!((&again["body"], &again["message"]["redelivered"]), (&json!("2"), &json!("true")));
            // Gone without a word.
            drop(client);
            let mut other = library.connect(&program).await;
            other.subscribe("rest", &destination, json!({ "ack": "client-individual" })).await;
            let rest = other.message().await;
            assert_eq!((&rest["body"], &rest["message"]["redelivered"]), (&json!("2"), &json!("true")), "{library:?}");
            let ack = other.settle("ack", &rest);
            assert!(other.done(ack).await.is_empty());
            // Nothing is left for a third.
            other.order(&send(&destination, "last"));
            let last = other.message().await;
            assert_eq!(last["body"], "last", "{library:?}, {broker:?}");
            let ack = other.settle("ack", &last);
            assert!(other.done(ack).await.is_empty());
            drop(other);
            // Or the next one's messages come to it in turn.
            until("nobody consumes", async || program.metric("passerelle_consumers").await == Some(0.0)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_on_the_name_that_it_gives() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::BOTH {
            let queue = word();
            let mut requests = service.listen(&queue, None).await;
            let mut client = library.connect(&program).await;
            let mut order = send(&format!("/queue/{queue}"), "5");
            order["headers"] = json!({ "reply-to": "/temp-queue/answers", "correlation-id": "c-1" });
            client.order(&order);
            let request = Service::next(&mut requests).await;
            let (to, id) = (request.properties.reply_to().clone(), request.properties.correlation_id().clone());
            let properties = BasicProperties::default().with_correlation_id(id.expect("an id"));
            let options = BasicPublishOptions::default();
            let reply = service.channel.basic_publish("".into(), to.expect("a queue"), options, b"8", properties);
            reply.await.expect("a publish");
            let answer = client.message().await;
            let headers = &answer["message"];
            assert_eq!((&answer["body"], &headers["correlation-id"]), (&json!("8"), &json!("c-1")), "{library:?}");
            assert_eq!(headers["subscription"], "/temp-queue/answers");
        }
    }
}

/// A client goes away and comes back with the newest cursor that it saw.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_goes_on_where_it_was() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let service = Service::connect(&program.amqp).await;
        for library in Library::BOTH {
            let word = word();
            let destination = format!("/topic/{word}.#");
            let mut client = library.connect(&program).await;
            client.subscribe("s", &destination, json!({})).await;
            service.publish(&format!("{word}.a"), "0").await;
            let cursor = client.message().await["message"]["cursor"].clone();
            assert!(cursor.is_string());
            client.order(&json!({ "order": "leave" }));
            until("it has left", async || program.metric("passerelle_subscriptions").await == Some(0.0)).await;
            for number in 1..=20 {
                service.publish(&format!("{word}.a"), &number.to_string()).await;
            }
            let mut client = library.connect(&program).await;
            let order =
                json!({ "order": "subscribe", "id": "s", "destination": destination, "headers": { "after": cursor } });
            client.order(&order);
            for number in 1..=20 {
                let message = client.message().await;
                assert_eq!(
                    (&message["body"], &message["message"]["gap"]),
                    (&json!(number.to_string()), &Value::Null),
                    "{message}"
                );
            }
            // A cursor from nowhere is told as a gap, with the first message.
            let order = json!({ "order": "subscribe", "id": "n", "destination": destination,
                "headers": { "after": "events~1.1" } });
            client.done(order).await;
            service.publish(&format!("{word}.a"), "new").await;
            let mut gaps = Vec::new();
            for _ in 0..2 {
                let message = client.message().await;
                assert_eq!(message["body"], "new");
                gaps.push((message["message"]["subscription"].clone(), message["message"]["gap"].clone()));
            }
            gaps.sort_by_key(|(subscription, _)| subscription.to_string());
            assert_eq!(
                gaps,
                [(json!("n"), json!("unknown_cursor")), (json!("s"), Value::Null)],
                "{library:?}, {broker:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_an_error_and_the_end() {
    let program = Broker::Embedded.serve(&[]).await;
    for library in Library::BOTH {
        let mut client = library.connect(&program).await;
        client.order(&json!({ "order": "subscribe", "id": "s", "destination": "/queue/secret", "receipt": "r" }));
        let error = client.script.json().await;
        assert_eq!(
            (&error["error"]["message"], &error["error"]["receipt-id"]),
            (&json!("forbidden"), &json!("r")),
            "{error}"
        );
        assert!(error["body"].as_str().unwrap().contains("no consume.NAME.queue of this server names it"), "{error}");
        let closed = client.script.json().await;
        if let Library::StompJs = library {
            assert_eq!(closed["closed"], 4403, "{closed}");
        }
    }
    // Credentials that nobody can check are not taken for good ones.
    let mut command = node("stomp.js");
    command.args([&format!("ws://{}/ws", program.public), "anna", "secret"]);
    let mut client = Conversation { script: Script::start(&mut command) };
    let error = client.script.json().await;
    assert_eq!(error["error"]["message"], "unauthenticated", "{error}");
}

/// Both sides promise a heart-beat every two seconds; the library closes when ours stays away.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_session_lives_by_heart_beats() {
    let program = Broker::Embedded.serve(&[]).await;
    let service = Service::connect(&program.amqp).await;
    let topic = word();
    let mut clients = Vec::new();
    for library in Library::BOTH {
        let mut client = library.connect(&program).await;
        client.subscribe("s", &format!("/topic/{topic}"), json!({})).await;
        clients.push(client);
    }
    // Longer than either waits for ours.
    let quiet = tokio::time::timeout(Duration::from_secs(7), clients[0].script.json()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    service.publish(&topic, "still here").await;
    for client in &mut clients {
        let message = tokio::time::timeout(PATIENCE, client.message()).await.expect("a message");
        assert_eq!(message["body"], "still here");
    }
}
