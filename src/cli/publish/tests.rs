//! Conversations of `pub` with a server that plays a script.

use clap::Parser;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::cli::scripted::{Step, expect, hello, http, send, websocket};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn publisher(url: &str, line: &[&str]) -> Publisher {
    let arguments = Line::try_parse_from([&["pub", "--url", url], line].concat()).unwrap().arguments;
    Publisher::new(arguments)
}

fn failure(outcome: Result<(), Failure>) -> String {
    match outcome {
        Err(Failure::Failed(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_is_published_as_given_and_confirmed() {
    let script = vec![
        hello(),
        expect(r#"{"op":"publish","id":1,"topic":"a.b","data_base64":"aGk=","content_type":"text/plain"}"#),
        send(r#"{"op":"welcome","id":0,"heartbeat_ms":25000}"#),
        send(r#"{"op":"ok","id":1,"routed":false}"#),
    ];
    let (address, server) = websocket(vec![script]).await;
    let mut publisher = publisher(&format!("ws://{address}/ws"), &["a.b", "hi"]);
    publisher.publish(b"hi").await.unwrap();
    publisher.close().await;
    server.await.unwrap();
}

#[tokio::test]
async fn each_line_is_a_message_and_a_line_lost_between_two_is_made_again() {
    let publish = |id: u64, data: &str| {
        expect(&format!(
            r#"{{"op":"publish","id":{id},"topic":"t","data_base64":"{data}","content_type":"application/json","mandatory":true}}"#
        ))
    };
    let (told, gone) = tokio::sync::oneshot::channel();
    let first = vec![
        hello(),
        publish(1, "MQ=="),
        send(r#"{"op":"ok","id":1,"routed":true}"#),
        Step::Close(1001),
        Step::Gone(told),
    ];
    let second = vec![
        hello(),
        publish(2, "Mg0="),
        send(r#"{"op":"error","id":2,"code":"unavailable","message":"the broker is away"}"#),
        publish(3, "Mg0="),
        send(r#"{"op":"ok","id":3,"routed":true}"#),
        publish(4, "Mw=="),
        send(r#"{"op":"ok","id":4,"routed":true}"#),
    ];
    let (address, server) = websocket(vec![first, second]).await;
    let (input, mut typed) = tokio::io::duplex(64);
    let publishing = tokio::spawn(async move {
        let mut publisher = publisher(&format!("ws://{address}/ws"), &["t", "-", "--json", "--mandatory"]);
        publisher.lines(BufReader::new(input)).await.unwrap();
        publisher.close().await;
    });
    // Half a line is kept while the connection is lost.
    typed.write_all(b"1\n2").await.unwrap();
    gone.await.unwrap();
    typed.write_all(b"\r\n3").await.unwrap();
    drop(typed);
    publishing.await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn a_confirm_that_never_came_is_told() {
    let script = |last: Step| {
        let publish = r#"{"op":"publish","id":1,"topic":"t","data_base64":"eA==","content_type":"text/plain"}"#;
        vec![vec![hello(), expect(publish), last]]
    };
    let (address, _server) = websocket(script(Step::Close(1011))).await;
    let why = failure(publisher(&format!("ws://{address}/ws"), &["t", "x"]).publish(b"x").await);
    assert_eq!(
        why,
        "closed by the server: internal (1011), before the confirm came: the message may be published or not"
    );
    let (address, _server) =
        websocket(script(send(r#"{"op":"error","id":1,"code":"unroutable","message":"no queue"}"#))).await;
    let why = failure(publisher(&format!("ws://{address}/ws"), &["t", "x"]).publish(b"x").await);
    assert_eq!(why, "no queue (unroutable)");
}

#[tokio::test]
async fn it_gives_up_in_time_when_nobody_is_there() {
    let (address, server) = http(Vec::new()).await;
    server.await.unwrap();
    let why = failure(publisher(&format!("ws://{address}/ws"), &["t", "x", "--timeout", "1"]).publish(b"x").await);
    assert!(why.starts_with("not published within 1 s: "), "{why}");
}
