//! Down: what pika and amqplib publish reaches clients of all nine protocols at once, each message once and in its publisher's
//! order: `passerelle sub`, bare WebSockets, `curl` and an EventSource.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::script::{Library, Script, node};
use crate::program::{PATIENCE, Program};
use crate::whole::client::Service;
use crate::whole::{Broker, word};

/// How many messages each library publishes.
const MESSAGES: u64 = 500;

/// Somebody who listens, and how a payload is read off a printed line, where there is one.
struct Receiver {
    name: &'static str,
    script: Script,
    payload: fn(&str) -> Option<Value>,
}

impl Receiver {
    /// The next payload. Positions and heartbeats come for ever, so that each line in time is not enough.
    async fn payload(&mut self) -> Value {
        let reading = async {
            loop {
                if let Some(payload) = (self.payload)(&self.script.line().await) {
                    return payload;
                }
            }
        };
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("{} gets nothing", self.name))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_what_pika_and_amqplib_publish_in_order() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let word = word();
        let mut receivers = receivers(&program, &word);
        let service = Service::connect(&program.amqp).await;
        until_all_listen(&mut receivers, &service, &word).await;
        let [pika, amqplib] = Library::BOTH.map(|library| {
            let topic = format!("{word}.{}", library.name());
            library.run("publish", &program.amqp, &[&topic, &MESSAGES.to_string()])
        });
        tokio::join!(pika.ended(), amqplib.ended());
        service.publish(&format!("{word}.end"), r#"{"from":"end"}"#).await;
        for receiver in &mut receivers {
            let seen = seen_until_the_end(receiver).await;
            let expected: Vec<u64> = (0..MESSAGES).collect();
            for (library, seen) in Library::BOTH.iter().zip(seen) {
                assert_eq!(seen, expected, "{broker:?}: what {} got from {}", receiver.name, library.name());
            }
        }
    }
}

fn receivers(program: &Program, word: &str) -> Vec<Receiver> {
    let public = &program.public;
    let query = format!("pattern={word}.%23");
    let sub = |protocol| receiver(protocol, program.sub(&["--protocol", protocol, &format!("{word}.#")]), data);
    let subs = ["json", "stream", "poll", "stomp", "mqtt", "wamp"].map(sub);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--no-buffer", &format!("http://{public}/sse?{query}")]);
    let mut lines = Command::new("curl");
    lines.args(["--silent", "--show-error", "--no-buffer", &format!("http://{public}/stream?{query}")]);
    let mut socket = node("socket.js");
    socket.arg(format!("ws://{public}/ws?{query}"));
    let mut cloud = node("socket.js");
    cloud.args([&format!("ws://{public}/ws?{query}"), "cloudevents.json"]);
    let mut events = node("events.js");
    events.arg(format!("http://{public}/sse?{query}"));
    let others = [
        receiver("a bare WebSocket", socket, |line| serde_json::from_str(line).ok()),
        receiver("curl", curl, |line| data(line.strip_prefix("data: ")?)),
        receiver("curl of lines", lines, data),
        receiver("an EventSource", events, |line| data(line.strip_prefix("message ")?)),
        receiver("a WebSocket of CloudEvents", cloud, cloud_data),
    ];
    subs.into_iter().chain(others).collect()
}

fn receiver(name: &'static str, mut command: Command, payload: fn(&str) -> Option<Value>) -> Receiver {
    Receiver { name, script: Script::start(&mut command), payload }
}

/// The payload in the JSON object of a message.
fn data(object: &str) -> Option<Value> {
    let mut object: Value = serde_json::from_str(object).ok()?;
    (object["op"] == "message").then(|| object["data"].take())
}

/// The payload in a CloudEvent of a message.
fn cloud_data(object: &str) -> Option<Value> {
    let mut event: Value = serde_json::from_str(object).ok()?;
    let is_ours = event["type"].as_str()?.starts_with("passerelle.");
    (!is_ours).then(|| event["data"].take())
}

/// Not everybody says when a subscription stands: so there are probes until each has seen one.
async fn until_all_listen(receivers: &mut [Receiver], service: &Service, word: &str) {
    let probing = async {
        loop {
            service.publish(&format!("{word}.probe"), r#"{"from":"probe"}"#).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let listening = async {
        for receiver in receivers {
            assert_eq!(receiver.payload().await, json!({ "from": "probe" }), "{}", receiver.name);
        }
    };
    tokio::select! {
        () = probing => {}
        () = listening => {}
    }
}

/// The numbers that came from pika and those from amqplib, in the order in which they came.
async fn seen_until_the_end(receiver: &mut Receiver) -> [Vec<u64>; 2] {
    let mut seen = [Vec::new(), Vec::new()];
    loop {
        let payload = receiver.payload().await;
        let number = payload["number"].as_u64();
        match payload["from"].as_str() {
            Some("pika") => seen[0].extend(number),
            Some("amqplib") => seen[1].extend(number),
            Some("end") => return seen,
            Some("probe") => {}
            _ => panic!("{} got what nobody published: {payload}", receiver.name),
        }
    }
}
