//! The recorded handshakes of `tests/handshakes`, sent byte for byte over a socket: the whole head of the answer is the
//! recorded one, and after it the socket speaks what was negotiated.

use std::time::Duration;

use passerelle::protocol::negotiate::{TOKEN_PREFIX, spoken_here};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::client::Client;
use super::{Broker, word};
use crate::program::{PATIENCE, Program, until};
use crate::repository::{files_named, text};

/// Fields that an answer has because it is HTTP and has a body; what they say is the HTTP library's.
const FIELDS_OF_ANY_BODY: [&str; 5] =
    ["cache-control", "content-length", "content-type", "date", "x-content-type-options"];

/// A file: what a client of the field sent, and what it has to get.
struct Recorded {
    name: String,
    request: Vec<String>,
    answer: Head,
}

/// A status line, and the fields with small names, sorted.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: String,
    fields: Vec<(String, String)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recorded_handshake_gets_its_recorded_answer() {
    let program = Broker::Embedded.serve(&[]).await;
    let recorded = recorded();
    assert!(recorded.len() >= 8, "the handshakes are not all there");
    for handshake in &recorded {
        let (head, body, _stream) = handshake.play(&program, "").await;
        assert_eq!(head, handshake.answer, "{}", handshake.name);
        assert!(!handshake.is_refused() || body["error"].is_string(), "{} says nothing: {body}", handshake.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_negotiated_is_what_the_socket_speaks() {
    let program = Broker::Embedded.serve(&[]).await;
    for handshake in recorded().iter().filter(|handshake| !handshake.is_refused()) {
        let topic = word();
        let (head, _, stream) = handshake.play(&program, &format!("?pattern={topic}&publish={topic}")).await;
        assert_eq!(head, handshake.answer, "{}", handshake.name);
        let mut client = Client::over(stream).await;
        match head.field("sec-websocket-protocol") {
            Some("passerelle.v1.json") if handshake.brings_a_token() => speaks_json_to_strangers(&mut client).await,
            Some("passerelle.v1.json") => speaks_json(&mut client, &topic).await,
            Some("passerelle.v1.raw") | None => speaks_raw(&mut client).await,
            Some("stomp") => speaks_stomp(&mut client).await,
            Some(other) => panic!("{}: this test does not know {other}", handshake.name),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_server_refuses_names_that_it_does_not_know() {
    let mut program = Broker::Embedded.serve(&[("PASSERELLE_SERVER__STRICT", "true")]).await;
    let mut refused = 0;
    for handshake in &recorded() {
        let (head, body, _stream) = handshake.play(&program, "").await;
        let offered = handshake.offered();
        if offered.is_empty() || handshake.is_refused() || handshake.answer.field("sec-websocket-protocol").is_some() {
            assert_eq!(head, handshake.answer, "{}", handshake.name);
            continue;
        }
        refused += 1;
        let bad_request = Head { status: "HTTP/1.1 400 Bad Request".to_owned(), fields: Vec::new() };
        assert_eq!(head, bad_request, "{}", handshake.name);
        let whole = json!({
            "error": "unsupported_subprotocol",
            "message": "offer one of the supported subprotocols in Sec-WebSocket-Protocol",
            "offered": offered,
            "supported": spoken_here(),
        });
        assert_eq!(body, whole, "{}", handshake.name);
        program.said(&format!("no subprotocol of {:?} is spoken here", offered.join(", ")));
    }
    assert!(refused >= 3, "soap and its like are not all there");
}

/// The URL's pattern stands, and commands are answered.
async fn speaks_json(client: &mut Client, topic: &str) {
    let subscribed = client.object().await;
    assert_eq!((&subscribed["op"], &subscribed["pattern"]), (&json!("subscribed"), &json!(topic)), "{subscribed}");
    assert_eq!(client.ask(json!({ "op": "ping" })).await["op"], "pong");
}

/// Tokens cannot be checked yet: whoever brings one is told so, in JSON.
async fn speaks_json_to_strangers(client: &mut Client) {
    let error = client.object().await;
    assert_eq!((&error["op"], &error["code"]), (&json!("error"), &json!("unauthenticated")), "{error}");
    assert_eq!(client.ask(json!({ "op": "ping" })).await["op"], "pong");
}

/// The URL's pattern is no subscription there: it would have no id.
async fn speaks_stomp(client: &mut Client) {
    client.send(Message::text("CONNECT\naccept-version:1.2\n\n\0")).await;
    let connected = client.text().await;
    assert!(connected.starts_with("CONNECTED\nversion:1.2\n"), "{connected}");
}

/// What is sent to the topic comes back as it was, so no protocol is wrapped around it. Raw frames do not tell when the
/// subscription stands, so it is said until it is heard.
async fn speaks_raw(client: &mut Client) {
    let said = Message::text(r#"{"op":"ping"}"#);
    until("the socket's own frame comes back", async || {
        client.send(said.clone()).await;
        match tokio::time::timeout(Duration::from_millis(100), client.message()).await {
            Ok(heard) => heard == said || panic!("{heard:?} is not what was said"),
            Err(_) => false,
        }
    })
    .await;
}

fn recorded() -> Vec<Recorded> {
    let files = files_named("tests/handshakes", ".txt").into_iter();
    files.map(|path| Recorded::parse(path.display().to_string(), &text(&path))).collect()
}

impl Recorded {
    fn parse(name: String, transcript: &str) -> Self {
        let side =
            |sign: &str| transcript.lines().filter_map(|line| line.strip_prefix(sign)).map(str::to_owned).collect();
        let (request, answer): (_, Vec<String>) = (side("> "), side("< "));
        Self { name, request, answer: Head::parse(answer.iter().map(String::as_str)) }
    }

    /// Sends it, with a query behind its path, and answers head, JSON body (null after an upgrade) and the socket.
    async fn play(&self, program: &Program, query: &str) -> (Head, Value, TcpStream) {
        let request = self.request.join("\r\n").replacen("/ws", &format!("/ws{query}"), 1) + "\r\n\r\n";
        let mut stream = TcpStream::connect(&program.public).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut head = Head::parse(read_head(&mut stream).await.lines());
        let length = head.field("content-length").map(|length| length.parse().expect("a length"));
        let mut body = vec![0; length.unwrap_or(0)];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut body)).await.expect("a body in time").expect("a body");
        if length.is_some() {
            head.fields.retain(|(name, _)| !FIELDS_OF_ANY_BODY.contains(&name.as_str()));
        }
        (head, serde_json::from_slice(&body).unwrap_or_default(), stream)
    }

    fn is_refused(&self) -> bool {
        !self.answer.status.contains(" 101 ")
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let lines = self.request.iter().filter_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
        lines.flat_map(|names| names.split(", "))
    }

    fn offered(&self) -> Vec<&str> {
        self.names().filter(|name| !name.starts_with(TOKEN_PREFIX)).collect()
    }

    fn brings_a_token(&self) -> bool {
        self.names().any(|name| name.starts_with(TOKEN_PREFIX))
    }
}

impl Head {
    fn parse<'a>(mut lines: impl Iterator<Item = &'a str>) -> Self {
        let status = lines.next().expect("a status line").to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is no field"));
            (name.to_lowercase(), value.to_owned())
        };
        let mut fields: Vec<_> = lines.take_while(|line| !line.is_empty()).map(field).collect();
        fields.sort();
        Self { status, fields }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Everything up to the empty line, byte by byte, so that nothing of what follows is taken.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
        head.push(byte.expect("a head in time").expect("a head"));
    }
    String::from_utf8(head).expect("a head is text")
}
