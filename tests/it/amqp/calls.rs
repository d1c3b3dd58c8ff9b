//! Calls: a service answers, or the reason why none did.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use passerelle::model::outgoing::{CallOutcome, Request};

use super::bridge::*;
use crate::rabbit::Rabbit;

/// A service on a queue that answers with what it was asked, turned round; `silence` is not answered.
async fn service(client: &Client, queue: &str) {
    client.queue(queue).await;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumed = client.channel.basic_consume(queue.into(), "service".into(), options, FieldTable::default()).await;
    let (mut consumer, channel) = (consumed.unwrap(), client.channel.clone());
    tokio::spawn(async move {
        while let Some(Ok(request)) = consumer.next().await {
            if request.data == b"silence" {
                continue;
            }
            let answer: Vec<u8> = request.data.iter().rev().copied().collect();
            let correlation = request.properties.correlation_id().clone().unwrap();
            let properties =
                BasicProperties::default().with_correlation_id(correlation).with_content_type("text/plain".into());
            let reply_to = request.properties.reply_to().clone().unwrap();
            let sent = channel.basic_publish("".into(), reply_to, BasicPublishOptions::default(), &answer, properties);
            sent.await.unwrap();
        }
    });
}

fn request(queue: &str, payload: &str) -> Request {
    Request { message: outgoing(queue, payload), timeout: PATIENCE }
}

async fn bridge(rabbit: &Rabbit) -> Bridge {
    let bridge = Bridge::start(&settings(rabbit, Vec::new()));
    let up = |link| bridge.metric(&format!("passerelle_amqp_link_up{{link=\"{link}\"}}")) == Some(1.0);
    until("both links are up", || up("publish") && up("consume")).await;
    // The reply queue comes a moment after its link; until then calls are refused.
    let calls_are_taken = async {
        loop {
            match bridge.upstream.call(request(&unique("nobody"), "x")).await {
                CallOutcome::Unroutable => return,
                CallOutcome::Unavailable(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                outcome => panic!("{outcome:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, calls_are_taken).await.expect("calls are taken");
    bridge
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_each_get_their_own_answer() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let queue = unique("service");
    service(&client, &queue).await;
    let bridge = bridge(rabbit).await;
    let calls = (0..1_000).map(|number| {
        let (upstream, request) = (bridge.upstream.clone(), request(&queue, &format!("call {number}")));
        async move { (number, upstream.call(request).await) }
    });
    for (number, outcome) in futures_util::future::join_all(calls).await {
        let CallOutcome::Replied(reply) = outcome else { panic!("{outcome:?}") };
        let expected: String = format!("call {number}").chars().rev().collect();
        assert_eq!(reply.payload, expected.as_bytes());
        assert_eq!(reply.content_type.as_deref(), Some("text/plain"));
    }
    assert_eq!(bridge.metric("passerelle_calls_total{result=\"replied\"}"), Some(1_000.0));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_times_out_and_nobody_there_is_unroutable() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let queue = unique("service");
    service(&client, &queue).await;
    let bridge = bridge(rabbit).await;
    let mut silent = request(&queue, "silence");
    silent.timeout = Duration::from_millis(300);
    assert_eq!(bridge.upstream.call(silent).await, CallOutcome::TimedOut);
    assert_eq!(bridge.upstream.call(request(&unique("nobody"), "x")).await, CallOutcome::Unroutable);
    let CallOutcome::Replied(reply) = bridge.upstream.call(request(&queue, "ab")).await else { panic!() };
    assert_eq!(reply.payload, b"ba".as_slice());
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_late_is_not_delivered_and_a_cancelled_call_frees_its_place() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let queue = unique("later");
    client.queue(&queue).await;
    let mut settings = settings(rabbit, Vec::new());
    settings.call.in_flight_max = 1;
    let bridge = Bridge::start(&settings);
    let mut late = request(&queue, "late");
    late.timeout = Duration::from_millis(200);
    loop {
        match bridge.upstream.call(late.clone()).await {
            CallOutcome::TimedOut => break,
            CallOutcome::Unavailable(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            outcome => panic!("{outcome:?}"),
        }
    }
    let cancelled = tokio::time::timeout(Duration::from_millis(100), bridge.upstream.call(request(&queue, "silence")));
    assert!(cancelled.await.is_err());
    service(&client, &queue).await;
    // The place is free again as soon as the cancellation was seen.
    loop {
        match bridge.upstream.call(request(&queue, "ab")).await {
            CallOutcome::Replied(reply) => break assert_eq!(reply.payload, b"ba".as_slice()),
            CallOutcome::Unavailable(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            outcome => panic!("{outcome:?}"),
        }
    }
    let metrics = bridge.metrics.render();
    assert!(metrics.contains("passerelle_calls_total{result=\"abandoned\"} 1\n"), "{metrics}");
    bridge.stop().await;
}
