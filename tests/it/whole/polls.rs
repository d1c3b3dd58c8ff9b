//! Polling: a loop of polls misses nothing and gets nothing twice, whatever happens between two of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::client::{EventStream, Service};
use super::{Broker, word};
use crate::program::{PATIENCE, Program, until};
use crate::rabbit::Rabbit;

/// A client of `/poll`, on one connection.
struct Poller {
    stream: BufReader<TcpStream>,
    host: String,
    /// Where it goes on.
    cursor: String,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: Vec<String>,
    body: Value,
}

impl Poller {
    async fn connect(program: &Program) -> Self {
        let host = program.public.clone();
        let stream = BufReader::new(TcpStream::connect(&host).await.expect("a connection"));
        Self { stream, host, cursor: String::new() }
    }

    /// One request and its answer. A connection that the server closed because it was idle is made anew.
    async fn ask(&mut self, query: &str) -> Answer {
        let host = self.host.clone();
        let request = format!("GET /poll?{query} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n\r\n");
        for _ in 0..2 {
            let sent = self.stream.write_all(request.as_bytes()).await;
            let answer = tokio::time::timeout(PATIENCE, self.answer()).await.expect("an answer in time");
            if let (Ok(()), Some(answer)) = (sent, answer) {
                return answer;
            }
            self.stream = BufReader::new(TcpStream::connect(&host).await.expect("a connection"));
        }
        panic!("no answer to {query}")
    }

    /// The next answer; none where the connection has ended.
    async fn answer(&mut self) -> Option<Answer> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_lowercase()),
            }
        }
        let field = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let length = field("content-length: ").and_then(|text| text.parse().ok()).expect("a length");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.expect("a body");
        let status = field("http/1.1 ").and_then(|text| text[..3].parse().ok()).expect("a status");
        Some(Answer { status, head, body: serde_json::from_slice(&body).expect("JSON") })
    }

    /// A poll that goes on where the last one ended.
    async fn poll(&mut self, query: &str) -> Value {
        let after = if self.cursor.is_empty() { String::new() } else { format!("&after={}", self.cursor) };
        let Answer { status, body, .. } = self.ask(&format!("{query}{after}")).await;
        assert_eq!(status, 200, "{body}");
        self.cursor = body["cursor"].as_str().unwrap_or_default().to_owned();
        body
    }
}

/// The payloads of an answer.
fn payloads(answer: &Value) -> Vec<u64> {
    let messages = answer["messages"].as_array().expect("messages");
    messages.iter().map(|message| message["data"].as_u64().expect("a number")).collect()
}

/// Publishes these numbers, a few at a time.
fn publish(program: &Program, topic: &str, numbers: std::ops::Range<u64>) -> tokio::task::JoinHandle<()> {
    let (url, topic) = (program.amqp.clone(), topic.to_owned());
    tokio::spawn(async move {
        let service = Service::connect(&url).await;
        for number in numbers {
            service.publish(&topic, &number.to_string()).await;
            if number % 7 == 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_of_polls_gets_each_message_once_in_order() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let word = word();
        let query = format!("pattern={word}.%23&pattern=other");
        let mut poller = Poller::connect(&program).await;
        let first = poller.poll(&query).await;
        assert_eq!((&first["messages"], first["cursor"].is_string()), (&json!([]), true), "{first}");
        let publishing = publish(&program, &format!("{word}.a"), 0..500);
        let (mut seen, mut polls) = (Vec::new(), 0);
        while seen.len() < 500 {
            let answer = poller.poll(&query).await;
            assert_eq!((&answer["gaps"], &answer["outage"]), (&Value::Null, &Value::Null), "{broker:?}: {answer}");
            assert!(!payloads(&answer).is_empty(), "a poll with time waits for a message: {answer}");
            seen.extend(payloads(&answer));
            polls += 1;
            // Now and then from elsewhere, which another shard may serve.
            if polls % 3 == 0 {
                let cursor = std::mem::take(&mut poller.cursor);
                poller = Poller { cursor, ..Poller::connect(&program).await };
            }
        }
        assert_eq!(seen, (0..500).collect::<Vec<u64>>(), "{broker:?}");
        assert!(polls > 1);
        publishing.await.expect("all is published");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_elsewhere_with_the_cursor_of_a_poll() {
    let program = Broker::Embedded.serve(&[]).await;
    let mut poller = Poller::connect(&program).await;
    poller.poll("pattern=a").await;
    publish(&program, "a", 0..10).await.expect("all is published");
    let seen = payloads(&poller.poll("pattern=a").await);
    assert_eq!(seen, (0..seen.len() as u64).collect::<Vec<u64>>());
    publish(&program, "a", 10..20).await.expect("all is published");
    let mut stream = EventStream::open(&program, "pattern=a", Some(&poller.cursor)).await;
    for number in seen.len()..15 {
        let block = stream.message().await;
        assert!(block.data.contains(&format!("\"data\":{number},")), "{block:?}");
        poller.cursor = block.id.expect("a cursor");
    }
    let mut rest = Vec::new();
    while rest.len() < 5 {
        rest.extend(payloads(&poller.poll("pattern=a").await));
    }
    assert_eq!(rest, [15, 16, 17, 18, 19]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_wait_is_answered_at_once_and_who_waits_in_vain_in_time() {
    let program = Broker::Embedded.serve(&[]).await;
    let mut poller = Poller::connect(&program).await;
    poller.poll("pattern=a").await;
    let answer = poller.poll("pattern=a&timeout=0").await;
    assert_eq!((&answer["messages"], &answer["gaps"]), (&json!([]), &Value::Null));
    let service = Service::connect(&program.amqp).await;
    service.publish("a", "1").await;
    until("a short poll brings it", async || payloads(&poller.poll("pattern=a&timeout=0").await) == [1]).await;
    let (begun, before) = (Instant::now(), poller.cursor.clone());
    let answer = poller.poll("pattern=a&timeout=0.4").await;
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!((&answer["messages"], &answer["cursor"]), (&json!([]), &json!(before)));
    // The last message of each topic, for who begins.
    poller.cursor.clear();
    assert_eq!(payloads(&poller.poll("pattern=a&last=1").await), [1]);
    let Answer { head, .. } = poller.ask("pattern=a").await;
    let origin = format!("access-control-allow-origin: http://{}", program.public);
    assert!(head.contains(&origin) && head.iter().any(|line| line == "content-type: application/json"), "{head:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_bounded_and_the_next_one_goes_on() {
    let bounds = [("PASSERELLE_POLL__MESSAGES_MAX", "3")];
    let program = Broker::Embedded.serve(&bounds).await;
    let mut poller = Poller::connect(&program).await;
    poller.poll("pattern=a").await;
    publish(&program, "a", 0..10).await.expect("all is published");
    let mut seen = Vec::new();
    while seen.len() < 10 {
        let some = payloads(&poller.poll("pattern=a").await);
        assert!((1..=3).contains(&some.len()), "{some:?}");
        seen.extend(some);
    }
    assert_eq!(seen, (0..10).collect::<Vec<u64>>());
    // Live likewise: many come while it waits.
    for round in 0..20 {
        let publishing = publish(&program, "a", 10 + round * 10..20 + round * 10);
        let mut seen = Vec::new();
        while seen.len() < 10 {
            let some = payloads(&poller.poll("pattern=a").await);
            assert!((1..=3).contains(&some.len()), "{some:?}");
            seen.extend(some);
        }
        assert_eq!(seen, (10 + round * 10..20 + round * 10).collect::<Vec<u64>>());
        publishing.await.expect("all is published");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_known_is_a_gap_and_what_cannot_be_is_refused() {
    let program = Broker::Embedded.serve(&[]).await;
    let mut poller = Poller::connect(&program).await;
    for cursor in ["elsewhere", "events~7.7"] {
        poller.cursor = cursor.into();
        let answer = poller.poll("pattern=a").await;
        let gap = &answer["gaps"][0];
        assert_eq!((&gap["reason"], &gap["pattern"]), (&json!("unknown_cursor"), &json!("a")), "{answer}");
        // Told once: from here on everything is known.
        assert_eq!(poller.poll("pattern=a&timeout=0").await["gaps"], Value::Null);
    }
    for (query, sentence) in [
        ("pattern=a&source=none", "there is no source"),
        ("pattern=a&timeout=soon", "timeout is a number of seconds"),
        ("pattern=a.", "%23"),
        ("", "say what to listen to: /poll?pattern="),
    ] {
        let Answer { status, body, .. } = poller.ask(query).await;
        assert_eq!(status, 400, "{body}");
        assert!(body["error"].as_str().is_some_and(|text| text.contains(sentence)), "{body}");
    }
    assert_eq!(program.metric("passerelle_handshakes_total{result=\"bad_request\"}").await, Some(4.0));
}

/// With bindings that go at once, the lease alone keeps a loop whole; without it what was missed is told.
#[tokio::test(flavor = "multi_thread")]
async fn bindings_that_do_not_linger_are_leased() {
    for (lease, is_whole) in [("1m", true), ("0s", false)] {
        let environment = [
            ("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"),
            ("PASSERELLE_SOURCE__EVENTS__LINGER", "0s"),
            ("PASSERELLE_POLL__LEASE", lease),
        ];
        let program = Broker::Embedded.serve(&environment).await;
        let bindings = "passerelle_bindings{source=\"events\"}";
        let mut poller = Poller::connect(&program).await;
        poller.poll("pattern=a").await;
        if !is_whole {
            until("the binding is gone", async || program.metric(bindings).await == Some(0.0)).await;
        }
        let service = Service::connect(&program.amqp).await;
        service.publish("a", "1").await;
        let answer = poller.poll("pattern=a").await;
        if is_whole {
            assert_eq!((payloads(&answer), &answer["gaps"]), (vec![1], &Value::Null), "{answer}");
        } else {
            assert_eq!((payloads(&answer), &answer["gaps"][0]["reason"]), (vec![], &json!("unbound")), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_of_polls_outlives_its_broker_and_is_told_of_it_once() {
    let rabbit = Rabbit::start();
    let program = Program::start(Some(&rabbit.url()), &[]);
    program.ready().await;
    let mut poller = Poller::connect(&program).await;
    poller.poll("pattern=load.%23").await;
    publish(&program, "load.a", 0..200).await.expect("all is published");
    let mut seen = Vec::new();
    while seen.len() < 200 {
        seen.extend(payloads(&poller.poll("pattern=load.%23").await));
    }
    rabbit.kill();
    until("a poll tells of the outage", async || {
        let answer = poller.poll("pattern=load.%23&timeout=0").await;
        assert_eq!((&answer["messages"], &answer["gaps"]), (&json!([]), &Value::Null), "{answer}");
        answer["outage"] == json!(["events"])
    })
    .await;
    rabbit.run();
    program.ready().await;
    let mut reasons = Vec::new();
    until("the gap is told", async || {
        let answer = poller.poll("pattern=load.%23&timeout=0").await;
        reasons.extend(answer["gaps"].as_array().into_iter().flatten().map(|gap| gap["reason"].clone()));
        !reasons.is_empty() && answer["outage"].is_null()
    })
    .await;
    assert_eq!(reasons, [json!("outage")]);
    publish(&program, "load.a", 200..400).await.expect("all is published");
    while seen.len() < 400 {
        let answer = poller.poll("pattern=load.%23").await;
        assert_eq!(answer["gaps"], Value::Null, "{answer}");
        seen.extend(payloads(&answer));
    }
    assert_eq!(seen, (0..400).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_ends_in_its_time_though_its_client_has_left_and_with_the_server() {
    let mut program = Broker::Embedded.serve(&[]).await;
    let open = "passerelle_connections{protocol=\"poll\",transport=\"poll\"}";
    let mut poller = Poller::connect(&program).await;
    poller.poll("pattern=a").await;
    let query = format!("pattern=a&timeout=2&after={}", poller.cursor);
    let waiting = tokio::spawn(async move { poller.ask(&query).await });
    until("it waits", async || program.metric(open).await == Some(1.0)).await;
    waiting.abort();
    until("it is forgotten", async || program.metric(open).await == Some(0.0)).await;
    let mut poller = Poller::connect(&program).await;
    poller.poll("pattern=a").await;
    let query = format!("pattern=a&timeout=100&after={}", poller.cursor);
    let waiting = tokio::spawn(async move { poller.ask(&query).await });
    until("it waits", async || program.metric(open).await == Some(1.0)).await;
    program.terminate();
    let Answer { status, body, .. } = waiting.await.expect("an answer");
    assert_eq!((status, &body["messages"], body["cursor"].is_string()), (200, &json!([]), true), "{body}");
    assert!(program.ended().await.success());
}
