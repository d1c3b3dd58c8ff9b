//! Up: what a WebSocket client of somebody else publishes and asks reaches pika and amqplib, and their answers come back.

use serde_json::{Value, json};

use super::script::{Library, Script, node};
use crate::program::Program;
use crate::whole::{Broker, word};

/// A `ws` client that speaks `passerelle.v1.json`.
fn socket(program: &Program) -> Script {
    Script::start(node("socket.js").arg(format!("ws://{}/ws", program.public)).arg("passerelle.v1.json"))
}

/// Sends a command, and returns the reply.
async fn ask(socket: &mut Script, mut command: Value) -> Value {
    command["id"] = json!(fastrand::u32(..));
    socket.tell(&command.to_string());
    let reply = socket.json().await;
    assert_eq!(reply["id"], command["id"], "{reply}");
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_is_seen_by_pika_and_amqplib_and_confirmed() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let topic = word();
        let publish = json!({ "op": "publish", "topic": topic, "data": { "order": 17 }, "mandatory": true,
            "message_id": "m-1", "headers": { "tenant": "eu", "attempt": 2 } });
        let mut socket = socket(&program);
        let reply = ask(&mut socket, publish.clone()).await;
        assert_eq!((&reply["op"], &reply["code"]), (&json!("error"), &json!("unroutable")), "{broker:?}: {reply}");
        let reply = ask(&mut socket, json!({ "op": "publish", "topic": topic, "data": 1 })).await;
        assert_eq!((&reply["op"], &reply["routed"]), (&json!("ok"), &json!(false)), "{broker:?}: {reply}");
        let mut consumers = Vec::new();
        for library in Library::BOTH {
            consumers.push(library.consumer("consume", &program.amqp, &["amq.topic", &topic]).await);
        }
        let reply = ask(&mut socket, publish).await;
        assert_eq!((&reply["op"], &reply["routed"]), (&json!("ok"), &json!(true)), "{broker:?}: {reply}");
        for (library, consumer) in Library::BOTH.iter().zip(&mut consumers) {
            let seen = consumer.json().await;
            assert_eq!(seen["key"], topic, "{library:?}");
            assert_eq!(seen["body"], r#"{"order":17}"#, "{library:?}");
            assert_eq!((&seen["content_type"], &seen["message_id"]), (&json!("application/json"), &json!("m-1")));
            assert_eq!((&seen["headers"]["tenant"], &seen["headers"]["attempt"]), (&json!("eu"), &json!(2)), "{seen}");
        }
    }
}

/// Several calls at once, so that each answer finds its question.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_by_pika_and_amqplib() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        for library in Library::BOTH {
            let queue = word();
            let mut socket = socket(&program);
            let call = |number: u64| json!({ "op": "call", "id": number, "topic": queue, "data": number });
            let reply = ask(&mut socket, call(0)).await;
            assert_eq!(reply["code"], "unroutable", "{broker:?}, {library:?}: {reply}");
            let _service = library.consumer("tutorials/rpc", &program.amqp, &["receive", &queue]).await;
            for number in 1..=10 {
                socket.tell(&call(number).to_string());
            }
            let mut answers = Vec::new();
            for _ in 1..=10 {
                let reply = socket.json().await;
                assert_eq!(reply["op"], "result", "{broker:?}, {library:?}: {reply}");
                answers.push((reply["id"].as_u64(), reply["data"].as_u64()));
            }
            answers.sort_unstable();
            let expected = (1..=10).zip([1, 1, 2, 3, 5, 8, 13, 21, 34, 55]);
            assert!(answers.into_iter().eq(expected.map(|(number, answer)| (Some(number), Some(answer)))));
        }
    }
}
