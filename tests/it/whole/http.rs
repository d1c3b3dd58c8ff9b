//! Listening by plain HTTP: streams of lines that go on where they were cut.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

use super::client::{Client, Service};
use super::{Broker, word};
use crate::program::{PATIENCE, Program, http_get, request, until};

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

/// Without waiting for the first message, or for a heartbeat.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_just_begun_knows_where_to_go_on() {
    let program = Broker::Embedded.serve(&[("PASSERELLE_SERVER__HEARTBEAT", "1h")]).await;
    let service = Service::connect(&program.amqp).await;
    let mut stream = LineStream::open(&program, "pattern=a&pattern=b").await;
    for _ in 0..2 {
        stream.expect("subscribed").await;
    }
    let line = tokio::time::timeout(PATIENCE, stream.lines.next_line()).await.expect("a line in time");
    let position: Value = serde_json::from_str(&line.expect("a line").expect("an open stream")).expect("an object");
    assert_eq!(position["op"], "position");
    let after = position["after"].as_str().expect("a cursor").to_owned();
    drop(stream);
    service.publish("b", "1").await;
    let mut stream = LineStream::open(&program, &format!("pattern=a&pattern=b&after={after}")).await;
    for _ in 0..2 {
        assert_eq!(stream.expect("subscribed").await["resumed"], true);
    }
    // Whether it is there already, or comes now.
    let message = loop {
        let news = stream.news().await;
        if news["op"] != "caught_up" {
            break news;
        }
    };
    assert_eq!(message["data"], 1, "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_listened_to_is_refused_in_words() {
    let program = Broker::Embedded.serve(&[]).await;
    for path in ["/stream", "/sse", "/poll"] {
        let answers = [
            ("", "say what to listen to: "),
            ("?pattern=orders.", "'#' must be written %23 in a URL"),
            ("?pattern=a&last=many", "last is a number of messages"),
            ("?pattern=a&filter=1", "filter "),
            ("?pattern=a&source=nope", "there is no source \\\"nope\\\""),
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

/// What the URL cannot show to be wrong: the last word is the reason, and a program that listens gives up.
#[tokio::test(flavor = "multi_thread")]
async fn what_turns_out_to_be_refused_is_said_before_the_end() {
    let direct = [
        ("PASSERELLE_SOURCE__D__EXCHANGE", "amq.direct"),
        ("PASSERELLE_SOURCE__D__TYPE", "direct"),
        ("PASSERELLE_SOURCE__D__BINDINGS_MAX", "1"),
    ];
    let program = Broker::Embedded.serve(&direct).await;
    for path in ["/sse", "/stream", "/poll"] {
        let answer = http_get(&program.public, &format!("{path}?pattern=a&pattern=b.%23")).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("direct exchange"), "{answer}");
    }
    let query = "pattern=a&pattern=b";
    let mut stream = LineStream::open(&program, query).await;
    let error = stream.expect("error").await;
    assert_eq!(error["code"], "refused", "{error}");
    assert!(error["message"].as_str().unwrap().contains("bindings_max"), "{error}");
    let end = tokio::time::timeout(PATIENCE, stream.lines.next_line()).await.expect("an end in time");
    assert_eq!(end.expect("an end"), None);
    let answer = http_get(&program.public, &format!("/sse?{query}")).await;
    let (_, last) = answer.split_once("event: refused\ndata: ").expect(&answer);
    assert_eq!(serde_json::from_str::<Value>(last.trim_end()).expect("an object"), error);
    for protocol in ["sse", "stream"] {
        let sub = program.sub(&["a", "b", "--protocol", protocol]);
        let run = tokio::process::Command::from(sub).kill_on_drop(true).output();
        let run = tokio::time::timeout(PATIENCE, run).await.expect("an end in time").expect("it runs");
        let words = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{protocol}: {words}");
        assert!(words.contains("bindings_max"), "{protocol}: {words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_takes_what_its_url_says_once_and_no_rate() {
    let program = Broker::Embedded.serve(&[]).await;
    let service = Service::connect(&program.amqp).await;
    let topic = word();
    let poll = |more: &str| format!("/poll?pattern={topic}{more}");
    http_get(&program.public, &poll("&timeout=0")).await;
    service.publish(&topic, "1").await;
    until("it came", async || program.metric("passerelle_source_messages_total{source=\"events\"}").await == Some(1.0))
        .await;
    let answer = http_get(&program.public, &poll(&format!("&pattern={topic}&last=1"))).await;
    assert!(answer.contains("\"data\":1"), "{answer}");
    for (more, words) in [("&max_rate=1", "max_rate is for what stays open"), ("&x=%ff", "not UTF-8")] {
        let answer = http_get(&program.public, &poll(more)).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(words), "{answer}");
    }
}

/// It may have nothing more to say and still listen, as `nc -N` does.
#[tokio::test(flavor = "multi_thread")]
async fn who_shuts_its_side_after_a_request_is_answered() {
    let program = Broker::Embedded.serve(&[]).await;
    let mut listener = Client::json(&program).await;
    listener.subscribe("half").await;
    let host = &program.public;
    let post = format!("POST /publish/half HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\n");
    for number in 0..20 {
        let answer = last_request(host, &format!("{post}{}", number % 10)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(listener.news().await["data"], number % 10);
    }
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for path in ["/", "/poll?pattern=half", "/sse?pattern=half", "/stream?pattern=half"] {
        let answer = last_request(host, &get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let cut = format!("POST /publish/half HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n1");
    last_request(host, &cut).await;
    let gone = async || program.metric("passerelle_connections{protocol=\"sse\",transport=\"sse\"}").await == Some(0.0);
    until("the stream is let go", gone).await;
}

/// One request, after which its side of the connection is shut, and all that is answered.
async fn last_request(address: &str, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(text.as_bytes()).await.expect("the request is sent");
    stream.shutdown().await.expect("its side is shut");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whoever is turned away is counted, and the answer is what it says that it is.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_turned_away_is_counted() {
    let settings = [
        ("PASSERELLE_SERVER__HEAD_BYTES_MAX", "8KiB"),
        ("PASSERELLE_SERVER__CONNECTIONS_MAX", "2"),
        ("PASSERELLE_AUTH__ANONYMOUS_PUBLISH", "false"),
    ];
    let program = Broker::Embedded.serve(&settings).await;
    let counted = async |name: &str, labels: &str| program.metric(&format!("passerelle_{name}{{{labels}}}")).await;
    let long = http_get(&program.public, &format!("/{}", "x".repeat(20_000))).await;
    assert!(long.starts_with("HTTP/1.1 431"), "{long}");
    assert_eq!(counted("handshakes_total", "result=\"head_too_large\"").await, Some(1.0));
    let host = &program.public;
    let post = format!("POST /publish/a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1");
    assert!(request(host, &post).await.starts_with("HTTP/1.1 403"));
    let mut client = Client::json(&program).await;
    let publish = client.ask(json!({ "op": "publish", "topic": "a", "data": 1 })).await;
    let call = client.ask(json!({ "op": "call", "topic": "a", "data": 1 })).await;
    assert_eq!((&publish["code"], &call["code"]), (&json!("forbidden"), &json!("forbidden")));
    assert_eq!(counted("publishes_total", "result=\"forbidden\"").await, Some(2.0));
    assert_eq!(counted("calls_total", "result=\"forbidden\"").await, Some(1.0));
    let _other = Client::json(&program).await;
    let full = http_get(&program.public, "/").await;
    let (head, body) = full.split_once("\r\n\r\n").expect(&full);
    assert!(head.starts_with("HTTP/1.1 503") && head.contains(&format!("Content-Length: {}", body.len())), "{full}");
    assert!(serde_json::from_str::<Value>(body).expect(body)["error"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_finish_a_head_is_counted() {
    let program = Broker::Embedded.serve(&[("PASSERELLE_SERVER__HANDSHAKE_TIMEOUT", "1s")]).await;
    let half = request(&program.public, "GET /ws HTTP/1.1\r\nHost: x\r\n").await;
    assert!(half.is_empty() || half.starts_with("HTTP/1.1 408"), "{half}");
    let timeouts = "passerelle_handshakes_total{result=\"timeout\"}";
    until("it is counted", async || program.metric(timeouts).await == Some(1.0)).await;
}
