//! Who is let in, who is sent away and how, and what is freed when somebody goes.

use futures_util::SinkExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Broker;
use super::client::{Client, Service};
use crate::program::{PATIENCE, Program, request, until};

const JSON: (&str, &str) = ("sec-websocket-protocol", "passerelle.v1.json");

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_refused_and_the_log_says_what_to_change() {
    let mut program = Broker::Embedded.serve(&[]).await;
    let refused = Client::open(&program, "/ws", &[("origin", "https://elsewhere.example")]).await;
    let Err(error) = refused else { panic!("it was let in") };
    let Error::Http(answer) = *error else { panic!("{error}") };
    assert_eq!(answer.status(), 403);
    program.said("refused origin https://elsewhere.example: add it to server.allowed_origins");
    let own = format!("http://{}", program.public);
    assert!(Client::open(&program, "/ws", &[("origin", &own), JSON]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_through_a_proxy_is_no_neighbour() {
    let program = Broker::Embedded.serve(&[]).await;
    let mut raw = Client::open(&program, "/ws?pattern=a", &[("x-forwarded-for", "203.0.113.1")]).await.unwrap();
    let sentence = "anonymous access is for this machine only: set auth.anonymous = true or send a token";
    assert_eq!(raw.closed().await, (4401, sentence.to_owned()));
    let mut stranger = Client::open(&program, "/ws", &[("host", "rebound.example"), JSON]).await.unwrap();
    let reply = stranger.ask(json!({ "op": "subscribe", "pattern": "a" })).await;
    assert_eq!((&reply["op"], &reply["code"]), (&json!("error"), &json!("unauthenticated")), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_drain_sends_everybody_away_and_waits_for_its_stop() {
    let mut program = Broker::Embedded.serve(&[("PASSERELLE_SERVER__DRAIN", "5s")]).await;
    let mut client = Client::json(&program).await;
    client.subscribe("a").await;
    let ask = |fields: &str| {
        format!("POST /api/v1/drain HTTP/1.1\r\nHost: {}\r\n{fields}Connection: close\r\n\r\n", program.admin)
    };
    let of_a_page = request(&program.admin, &ask("Origin: http://localhost\r\n")).await;
    assert!(of_a_page.contains("403"), "{of_a_page}");
    assert!(request(&program.admin, &ask("")).await.contains("202"));
    let goodbye = client.news().await;
    assert_eq!(goodbye["op"], "goodbye");
    assert!(goodbye["reconnect_in_ms"].as_u64().is_some_and(|pause| pause <= 5_000), "{goodbye}");
    assert_eq!(client.closed().await.0, 1001);
    drop(client);
    assert!(program.get("/readyz").await.contains("draining"));
    assert!(tokio::net::TcpStream::connect(&program.public).await.is_err(), "nobody is taken in");
    assert!(request(&program.admin, &ask("")).await.contains("202"), "asking again changes nothing");
    program.terminate();
    assert!(program.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_answered_and_the_session_goes_on() {
    let program = Broker::Embedded.serve(&[]).await;
    let mut client = Client::json(&program).await;
    for (text, words) in [
        ("{", "JSON"),
        (r#"{"op":"subscribe","id":1,"topic":"a"}"#, r#"subscribe needs "pattern" (you sent "topic")"#),
        (r#"{"op":"subscrib","id":1,"pattern":"a"}"#, "subscribe"),
        (r#"{"op":"consume","id":1,"queue":"a"}"#, ""),
    ] {
        client.send(Message::text(text)).await;
        let reply = client.object().await;
        assert_eq!(reply["op"], "error", "{reply}");
        assert!(reply["message"].as_str().unwrap().contains(words), "{reply}");
    }
    let long = "a".repeat(256);
    let reply = client.ask(json!({ "op": "subscribe", "pattern": long })).await;
    assert_eq!((&reply["op"], &reply["code"]), (&json!("error"), &json!("bad_field")), "{reply}");
    assert_eq!(client.ask(json!({ "op": "ping" })).await["op"], "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn breaches_of_the_protocol_have_their_codes() {
    let program = Broker::Embedded.serve(&[("PASSERELLE_LIMITS__MESSAGE_BYTES_MAX", "1 KiB")]).await;
    let mut big = Client::json(&program).await;
    big.send(Message::text("x".repeat(2000))).await;
    assert_eq!(big.closed().await.0, 1009);
    // A masked text frame of one byte that is no UTF-8, and a frame without a mask.
    for (frame, code) in [(&[0x81u8, 0x81, 0, 0, 0, 0, 0xff][..], 1007u16), (&[0x81, 0x01, b'x'], 1002)] {
        assert_eq!(close_code_for(&program, frame).await, code);
    }
}

/// Sends bytes after a handshake and reads the code of the closing frame.
async fn close_code_for(program: &Program, frame: &[u8]) -> u16 {
    let mut stream = tokio::net::TcpStream::connect(&program.public).await.unwrap();
    let head = format!(
        "GET /ws?pattern=a HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        program.public
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(frame).await.unwrap();
    let mut all = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut chunk)).await.unwrap().unwrap();
        all.extend_from_slice(&chunk[..count]);
        let body = all.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4);
        if let Some([0x88, _, high, low, ..]) = body.and_then(|at| all.get(at..)) {
            return u16::from_be_bytes([*high, *low]);
        }
        assert!(count > 0, "closed without a frame: {:?}", String::from_utf8_lossy(&all));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_reads_no_answer_is_ended_and_nobody_else_notices() {
    let program = Broker::Embedded.serve(&[("PASSERELLE_LIMITS__OUTBOX_BYTES_MAX", "64 KiB")]).await;
    let mut well = Client::json(&program).await;
    well.subscribe("a").await;
    let (mut questions, _answers) = Client::json(&program).await.split();
    let slow_ones = "passerelle_closes_total{reason=\"slow_consumer\"}";
    let asking = async {
        // An answer cannot be read again from any log. The kernel's buffers take some megabytes before the outbox has to.
        let id = "x".repeat(60);
        let ping = Message::text(format!("{{\"op\":\"ping\",\"id\":\"{id}\"}}"));
        while questions.send(ping.clone()).await.is_ok() {}
    };
    tokio::select! {
        () = asking => {}
        () = until("it is too slow", async || program.metric(slow_ones).await == Some(1.0)) => {}
    }
    until("it is too slow", async || program.metric(slow_ones).await == Some(1.0)).await;
    Service::connect(&program.amqp).await.publish("a", "1").await;
    assert_eq!(well.news().await["data"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_gives_no_sign_of_life_frees_what_it_held() {
    let environment = [
        ("PASSERELLE_SERVER__HEARTBEAT", "1s"),
        ("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"),
        ("PASSERELLE_SOURCE__EVENTS__LINGER", "1ms"),
    ];
    let program = Broker::Embedded.serve(&environment).await;
    let mut stream = tokio::net::TcpStream::connect(&program.public).await.unwrap();
    let head = format!(
        "GET /ws?pattern=quiet HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        program.public
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let bindings = "passerelle_bindings{source=\"events\"}";
    until("its binding stands", async || program.metric(bindings).await == Some(1.0)).await;
    until("it is ended", async || program.metric("passerelle_closes_total{reason=\"timeout\"}").await == Some(1.0))
        .await;
    until("its binding is gone", async || program.metric(bindings).await == Some(0.0)).await;
    assert_eq!(program.metric("passerelle_subscriptions").await, Some(0.0));
    assert!(program.get("/api/v1/connections").await.contains("\"total\":0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_client_is_told_its_position_and_stays() {
    let program = Broker::Embedded.serve(&[("PASSERELLE_SERVER__HEARTBEAT", "1s")]).await;
    let mut client = Client::json(&program).await;
    client.subscribe("quiet").await;
    for _ in 0..5 {
        let position = client.object().await;
        assert_eq!(position["op"], "position");
        assert!(position["cursors"]["events"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_goodbye_and_ends_well() {
    let mut program = Broker::Embedded.serve(&[]).await;
    let mut client = Client::json(&program).await;
    client.subscribe("a").await;
    let mut raw = Client::raw(&program, "pattern=a").await;
    program.terminate();
    let goodbye = client.news().await;
    assert_eq!(goodbye["op"], "goodbye");
    assert!(goodbye["reconnect_in_ms"].as_u64().unwrap() <= 20_000);
    assert_eq!(client.closed().await.0, 1001);
    assert_eq!(raw.closed().await.0, 1001);
    drop((client, raw));
    assert!(program.ended().await.success(), "{:#?}", program.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_says_so() {
    let program = Broker::Embedded.serve(&[("PASSERELLE_SERVER__CONNECTIONS_MAX", "1")]).await;
    let _first = Client::json(&program).await;
    until("the next is turned away", async || {
        let answer = crate::program::http_get(&program.public, "/").await;
        answer.starts_with("HTTP/1.1 503") && answer.contains("server.connections_max")
    })
    .await;
}
