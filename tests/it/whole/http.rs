//! Listening by plain HTTP: streams of lines that go on where they were cut.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

use super::client::Service;
use super::{Broker, word};
use crate::program::{PATIENCE, Program, http_get};

/// A client of `/stream`.
struct LineStream {
    head: Vec<String>,
    lines: Lines<BufReader<TcpStream>>,
}

impl LineStream {
    /// Opens `/stream?…`.
    async fn open(program: &Program, query: &str) -> Self {
        let host = &program.public;
        let mut stream = TcpStream::connect(host).await.expect("a connection");
        let request = format!("GET /stream?{query} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut lines = BufReader::new(stream).lines();
        let mut head = Vec::new();
        loop {
            let line = lines.next_line().await.expect("a head").expect("a head");
            if line.is_empty() {
                return Self { head, lines };
            }
            head.push(line.to_lowercase());
        }
    }

    /// The next object, past heartbeats and positions.
    async fn news(&mut self) -> Value {
        let reading = async {
            loop {
                let line = self.lines.next_line().await.expect("a line").expect("an open stream");
                if line.is_empty() {
                    continue;
                }
                let object: Value = serde_json::from_str(&line).expect("one object a line");
                if object["op"] != "position" {
                    return object;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("news in time")
    }

    async fn expect(&mut self, op: &str) -> Value {
        let news = self.news().await;
        assert_eq!(news["op"], op, "{news}");
        news
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_lines_goes_on_after_any_of_its_messages() {
    for broker in Broker::BOTH {
        let program = broker.serve(&[]).await;
        let word = word();
        let query = format!("pattern={word}.a&pattern={word}.b");
        let mut stream = LineStream::open(&program, &query).await;
        for field in ["http/1.1 200 ok", "content-type: application/x-ndjson"] {
            assert!(stream.head.iter().any(|line| line == field), "{:?}", stream.head);
        }
        let origin = format!("access-control-allow-origin: http://{}", program.public);
        assert!(stream.head.contains(&origin), "{:?}", stream.head);
        for _ in 0..2 {
            stream.expect("subscribed").await;
        }
        let service = Service::connect(&program.amqp).await;
        for number in 0..6 {
            let topic = if number % 2 == 0 { "a" } else { "b" };
            service.publish(&format!("{word}.{topic}"), &format!("{{\n\"n\":{number}}}")).await;
        }
        let mut cursors = Vec::new();
        for number in 0..6 {
            let message = stream.expect("message").await;
            assert_eq!(message["data"]["n"], number);
            cursors.push(message["after"].as_str().expect("a joint cursor").to_owned());
        }
        let mut again = LineStream::open(&program, &format!("{query}&after={}", cursors[2])).await;
        for _ in 0..2 {
            assert_eq!(again.expect("subscribed").await["resumed"], true);
        }
        for number in 3..6 {
            let message = again.expect("message").await;
            assert_eq!((&message["data"]["n"], &message["replay"]), (&json!(number), &json!(true)));
        }
        let end = again.expect("caught_up").await;
        assert!(end["after"].is_string(), "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_lines_tells_gaps_and_sends_heartbeats() {
    let program = Broker::Embedded.serve(&[("PASSERELLE_SERVER__HEARTBEAT", "1s")]).await;
    let mut stream = LineStream::open(&program, "pattern=a&after=elsewhere").await;
    stream.expect("subscribed").await;
    let gap = stream.expect("gap").await;
    assert_eq!((&gap["reason"], &gap["pattern"]), (&json!("unknown_cursor"), &json!("a")));
    stream.expect("caught_up").await;
    let mut seen = (false, false);
    while seen != (true, true) {
        let line = tokio::time::timeout(PATIENCE, stream.lines.next_line()).await.expect("a line in time");
        let line = line.expect("a line").expect("an open stream");
        seen = (seen.0 || line.is_empty(), seen.1 || line.contains("\"op\":\"position\""));
    }
    let open = "passerelle_connections{protocol=\"stream\",transport=\"stream\"}";
    assert_eq!(program.metric(open).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_listened_to_is_refused_in_words() {
    let program = Broker::Embedded.serve(&[]).await;
    for path in ["/stream", "/poll"] {
        let answers = [
            ("", "say what to listen to: "),
            ("?pattern=orders.", "'#' must be written %23 in a URL"),
            ("?pattern=a&last=many", "last is a number of messages"),
            ("?pattern=a&filter=1", "filter "),
        ];
        for (query, sentence) in answers {
            let answer = http_get(&program.public, &format!("{path}{query}")).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            assert!(answer.contains(sentence), "{answer}");
        }
        let answer = http_get(&program.public, &format!("{path}?pattern=a&token=x")).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
}
