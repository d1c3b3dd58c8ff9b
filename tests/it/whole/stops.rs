//! A stop on the real RabbitMQ: who is told what in which order, and where every message of a queue is in the end.

use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, EventStream, Service};
use super::word;
use crate::program::{Program, until};
use crate::rabbit::Rabbit;

/// Longer than a test waits for the end: whatever ends did not wait for this to be over.
const DRAIN: Duration = Duration::from_mins(10);

/// Messages that are published before the broker's confirms are waited for.
const BURST: u64 = 20;

/// Under load every message of a queue is delivered to everybody, or still in the queue: none twice, none nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_leaves_in_the_queue_what_was_not_delivered() {
    let queue = word();
    let service = Service::connect(&Rabbit::shared().url()).await;
    declare(&service, &queue).await;
    let mut program = serve(&queue).await;
    let mut json = Client::json(&program).await;
    json.subscribe(&queue).await;
    let raw = Client::raw(&program, &format!("pattern={queue}")).await;
    let stream = EventStream::open(&program, &format!("pattern={queue}"), None).await;
    until("all are subscribed", async || program.metric("passerelle_subscriptions").await == Some(3.0)).await;
    until("nobody's is pending", async || !program.get("/api/v1/connections").await.contains("\"pending\":1")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn(publish(service, queue.clone(), stop.clone()));
    let (raw, stream) = (tokio::spawn(count_frames(raw)), tokio::spawn(count_events(stream)));

    let mut delivered = 0;
    loop {
        let object = json.news().await;
        if object["op"] == "goodbye" {
            assert!(object["reconnect_in_ms"].as_u64().unwrap() <= DRAIN.as_millis() as u64, "{object}");
            break;
        }
        assert_eq!((&object["op"], &object["data"]), (&"message".into(), &delivered.into()), "{object}");
        delivered += 1;
        if delivered == 1_000 {
            program.terminate();
            // It is there to be asked, for this client has not answered its closing frame.
            let is_draining = async || {
                let answer = program.get("/readyz").await;
                answer.starts_with("HTTP/1.1 503") && answer.contains("draining")
            };
            until("it says that it drains", is_draining).await;
        }
    }
    assert_eq!(json.closed().await.0, 1001);
    drop(json);
    assert!(program.ended().await.success(), "{:#?}", program.lines());
    assert_eq!((raw.await.unwrap(), stream.await.unwrap()), ((delivered, 1001), delivered), "all got the same");

    stop.store(true, Ordering::Relaxed);
    let published = publishing.await.unwrap();
    let left = [published - delivered, 0];
    until(&format!("the queue has {left:?}, not {:?}", counts(&queue)), async || counts(&queue) == left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_clients_waits_for_nobody() {
    let queue = word();
    let service = Service::connect(&Rabbit::shared().url()).await;
    declare(&service, &queue).await;
    let mut program = serve(&queue).await;
    program.terminate();
    assert!(program.ended().await.success(), "{:#?}", program.lines());
}

/// A program with a queue source and an exchange source.
async fn serve(queue: &str) -> Program {
    let environment = [
        ("PASSERELLE_SERVER__DRAIN", &*format!("{}s", DRAIN.as_secs())),
        ("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"),
        ("PASSERELLE_SOURCE__WORK__QUEUE", queue),
        ("PASSERELLE_LIMITS__OUTBOX_BYTES_MAX", "64 MiB"),
    ];
    let program = Program::start(Some(&Rabbit::shared().url()), &environment);
    program.ready().await;
    program
}

async fn declare(service: &Service, queue: &str) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    service.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("a queue");
}

/// Publishes 0, 1, 2 and so on until told to stop, and answers how many the broker has confirmed.
async fn publish(service: Service, queue: String, stop: Arc<AtomicBool>) -> u64 {
    service.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let mut published = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut confirms = Vec::new();
        for number in published..published + BURST {
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            let body = number.to_string();
            let sent =
                service.channel.basic_publish("".into(), queue.as_str().into(), options, body.as_bytes(), properties);
            confirms.push(sent.await.expect("a publish"));
        }
        let confirmed = join_all(confirms).await;
        assert!(confirmed.iter().all(|confirm| confirm.as_ref().is_ok_and(|confirm| confirm.is_ack())));
        published += BURST;
    }
    published
}

/// Frames until the closing one, and its code. They have to be the numbers in their order.
async fn count_frames(mut client: Client) -> (u64, u16) {
    let mut count = 0;
    loop {
        match client.message().await {
            Message::Text(text) => assert_eq!(text, count.to_string()),
            Message::Close(frame) => return (count, frame.expect("a code").code.into()),
            other => panic!("neither message nor end: {other:?}"),
        }
        count += 1;
    }
}

/// Messages until the stream ends.
async fn count_events(mut stream: EventStream) -> u64 {
    let mut count = 0;
    while let Some(block) = stream.next().await {
        if block.event.is_none() {
            assert!(block.data.contains(&format!("\"data\":{count},")), "{block:?} is not {count}");
            count += 1;
        }
    }
    count
}

/// Ready and unacknowledged messages of a queue.
fn counts(queue: &str) -> [u64; 2] {
    let listed = Rabbit::shared().ctl(&["list_queues", "name", "messages_ready", "messages_unacknowledged"]);
    let row = listed.lines().map(|line| line.split('\t').collect::<Vec<_>>()).find(|row| row[0] == queue);
    let row = row.unwrap_or_else(|| panic!("no {queue} in {listed}"));
    [row[1], row[2]].map(|count| count.parse().expect("a count"))
}
