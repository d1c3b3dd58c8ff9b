//! A third-party EventSource on lines that break: it goes on where it was, and is told what is gone.

use serde_json::{Value, json};
use tokio::time::timeout;

use super::proxy::Proxy;
use super::script::{Library, Script, node};
use crate::program::PATIENCE;
use crate::whole::client::Service;
use crate::whole::{Broker, word};

const MESSAGES: u64 = 500;

/// The next event, its name and data.
async fn event(source: &mut Script) -> (String, Value) {
    let line = source.line().await;
    let (name, data) = line.split_once(' ').expect("a name and data");
    (name.to_owned(), serde_json::from_str(data).expect("JSON"))
}

/// The next event that has not this name. Positions come for ever, so that each line in time is not enough.
async fn event_but(source: &mut Script, passed_over: &str) -> (String, Value) {
    let wanted = async {
        loop {
            let event = event(source).await;
            if event.0 != passed_over {
                return event;
            }
        }
    };
    timeout(PATIENCE, wanted).await.expect("an event in time")
}

/// The numbers that come until the end does, and the names of all other events but those that are due at any time.
async fn until_the_end(source: &mut Script) -> (Vec<u64>, Vec<String>) {
    let (mut numbers, mut told) = (Vec::new(), Vec::new());
    let reading = async {
        loop {
            let (name, data) = event(source).await;
            match name.as_str() {
                "message" if data["data"] == "end" => return,
                "message" => numbers.extend(data["data"]["number"].as_u64()),
                "caught_up" | "position" => {}
                _ => told.push(name),
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("the end in time");
    (numbers, told)
}

/// An EventSource by way of a proxy, subscribed.
async fn listen(proxy: &Proxy, topic: &str) -> Script {
    let mut source = Script::start(node("events.js").arg(format!("http://{}/sse?pattern={topic}", proxy.address)));
    assert_eq!(event(&mut source).await.0, "subscribed");
    source
}

/// Cut twice while pika publishes, each time wherever the bytes happen to end: nothing is lost, nothing comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_source_goes_on_where_its_connection_was_cut() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let topic = word();
        let cuts = [fastrand::u64(2_000..20_000), fastrand::u64(2_000..20_000)];
        let proxy = Proxy::start(&program.public, &cuts).await;
        let mut source = listen(&proxy, &topic).await;
        Library::Pika.finish("publish", &program.amqp, &[&topic, &MESSAGES.to_string()]).await;
        Service::connect(&program.amqp).await.publish(&topic, r#""end""#).await;
        let (numbers, told) = until_the_end(&mut source).await;
        assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>(), "{broker:?}, {cuts:?}");
        assert_eq!(told, ["subscribed"; 2], "once more after each cut, and no gap, {broker:?}, {cuts:?}");
        assert_eq!(proxy.accepted(), 3, "{broker:?}, {cuts:?}");
    }
}

/// A new program knows nothing of the old one's log, and says so; named events come in between and disturb nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_source_is_told_what_a_restart_lost() {
    let environment = [("PASSERELLE_SERVER__HEARTBEAT", "1s")];
    let topic = word();
    let mut first = Broker::Rabbit.serve(&environment).await;
    let proxy = Proxy::start(&first.public, &[]).await;
    let mut source = listen(&proxy, &topic).await;
    let service = Service::connect(&first.amqp).await;
    service.publish(&topic, "1").await;
    assert_eq!(event_but(&mut source, "position").await.1["data"], 1);
    let second = Broker::Rabbit.serve(&environment).await;
    proxy.redirect(&second.public);
    first.terminate();
    assert_eq!(event_but(&mut source, "position").await.0, "goodbye");
    assert!(first.ended().await.success());
    let (name, subscribed) = event_but(&mut source, "position").await;
    assert_eq!((name.as_str(), &subscribed["resumed"]), ("subscribed", &json!(false)));
    let (name, gap) = event_but(&mut source, "position").await;
    assert_eq!((name.as_str(), &gap["reason"]), ("gap", &json!("unknown_cursor")), "{gap}");
    assert_eq!(event_but(&mut source, "caught_up").await.0, "position");
    service.publish(&topic, "2").await;
    assert_eq!(event_but(&mut source, "position").await.1["data"], 2);
}
