//! A client's connection to a node, on each transport: what is said and read there, as the clients of the checker say and
//! read it. A line that ends, in whatever way and wherever in a frame, has no next frame.

use std::io::{Error, Result};

use futures_util::{SinkExt, StreamExt};
use passerelle::model::cursor::{Cursor, JointCursor};
use passerelle::model::gap::GapReason;
use passerelle::model::topic::Topic;
use passerelle::model::value::Headers;
use passerelle::protocol::{Command, Only, Subscribe};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Packet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::history::node::{Frame, Message};
use crate::history::real::publisher::Book;
use crate::history::real::schedule::{Client, Transport};

pub(crate) enum Line {
    Json(Box<WebSocketStream<TcpStream>>),
    Raw(Box<WebSocketStream<TcpStream>>),
    EventStream(Lines<BufReader<TcpStream>>),
}

/// What was read.
pub(crate) enum Heard {
    Frame(Frame),
    /// Nothing for a history.
    Else,
}

impl Line {
    /// A line to a node. What transports without words of their own ask for stands in its path.
    pub(crate) async fn open(address: &str, client: &Client, book: &Book, commands: &[Command]) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let query = query(client, book);
        match client.transport {
            Transport::Json => Ok(Self::Json(shake_hands(stream, address, "/ws", "passerelle.v1.json").await?)),
            Transport::Raw => {
                let path = format!("/ws?{query}");
                Ok(Self::Raw(shake_hands(stream, address, &path, "passerelle.v1.raw").await?))
            }
            Transport::EventStream => {
                let after = commands.iter().find_map(|command| match command {
                    Command::Subscribe(subscribe) if !subscribe.after.0.is_empty() => Some(subscribe.after.to_string()),
                    _ => None,
                });
                Ok(Self::EventStream(open_events(stream, address, &query, after).await?))
            }
        }
    }

    /// Says what is not in the path.
    pub(crate) async fn say(&mut self, commands: Vec<Command>, publisher: Option<usize>) -> bool {
        let Self::Json(socket) = self else { return true };
        for command in commands {
            let Command::Subscribe(subscribe) = command else { continue };
            let text = subscribe_text(&subscribe, publisher);
            if socket.send(Packet::text(text)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// What comes next; nothing at the end.
    pub(crate) async fn next(&mut self, book: &Book) -> Option<Heard> {
        match self {
            Self::Json(socket) => {
                let text = next_text(socket).await?;
                Some(heard(&text, None, book))
            }
            Self::Raw(socket) => {
                let text = next_text(socket).await?;
                let number: usize = text.parse().expect("every payload is a number");
                Some(Heard::Frame(Frame::Message(book.raw_message(number))))
            }
            Self::EventStream(lines) => {
                let (mut id, mut data) = (None, String::new());
                loop {
                    let line = lines.next_line().await.ok()??;
                    match line.split_once(": ") {
                        _ if line.is_empty() && !data.is_empty() => return Some(heard(&data, id.as_deref(), book)),
                        Some(("id", text)) => id = Some(text.to_owned()),
                        Some(("data", text)) => data += text,
                        _ => {}
                    }
                }
            }
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    address: &str,
    path: &str,
    protocol: &'static str,
) -> Result<Box<WebSocketStream<TcpStream>>> {
    let mut request = format!("ws://{address}{path}").into_client_request().map_err(Error::other)?;
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().map_err(Error::other)?);
    let (socket, _) = client_async(request, stream).await.map_err(Error::other)?;
    Ok(Box::new(socket))
}

async fn open_events(
    mut stream: TcpStream,
    address: &str,
    query: &str,
    after: Option<String>,
) -> Result<Lines<BufReader<TcpStream>>> {
    let last = after.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    let request = format!("GET /sse?{query} HTTP/1.1\r\nHost: {address}\r\n{last}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    let status = lines.next_line().await?.unwrap_or_default();
    if !status.contains("200") {
        return Err(Error::other(status));
    }
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    Ok(lines)
}

fn query(client: &Client, book: &Book) -> String {
    let mut query: Vec<String> =
        client.patterns.iter().map(|pattern| format!("pattern={}", pattern.replace('#', "%23"))).collect();
    query.extend(client.source.map(|source| format!("source={}", book.names[source])));
    query.push(format!("on_slow={}", client.flow.name()));
    query.extend(client.publisher.map(|publisher| format!("filter=%7B%22publisher%22%3A%22p{publisher}%22%7D")));
    query.join("&")
}

fn subscribe_text(subscribe: &Subscribe, publisher: Option<usize>) -> String {
    let Subscribe { id, pattern, after, only, flow, .. } = subscribe;
    let after: serde_json::Map<String, Value> =
        after.0.iter().map(|(name, cursor)| (name.clone(), json!(cursor.to_string()))).collect();
    let id: Option<u64> = id.as_ref().and_then(|id| id.get().parse().ok());
    let mut text = json!({ "op": "subscribe", "id": id, "pattern": pattern.as_str() });
    if !after.is_empty() {
        text["after"] = Value::Object(after);
    }
    if let Some(Only::Source(source)) = only {
        text["source"] = json!(source);
    }
    if let Some(flow) = flow {
        text["on_slow"] = json!(flow.name());
    }
    if let Some(publisher) = publisher {
        text["filter"] = json!({ "publisher": format!("p{publisher}") });
    }
    text.to_string()
}

async fn next_text(socket: &mut WebSocketStream<TcpStream>) -> Option<String> {
    loop {
        match socket.next().await? {
            Ok(Packet::Text(text)) => return Some(text.to_string()),
            Ok(Packet::Ping(_) | Packet::Pong(_)) => {}
            _ => return None,
        }
    }
}

/// Reads an object of the JSON protocol, and the `id` of the block that carried it on an event stream.
fn heard(text: &str, id: Option<&str>, book: &Book) -> Heard {
    let object: Value = serde_json::from_str(text).expect("JSON");
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let is = |field: &str| object[field].as_bool().unwrap_or_default();
    let position = || id.map(|id| id.parse::<JointCursor>().expect("a joint cursor"));
    let cursors = || position().unwrap_or_else(|| joint(&object["cursors"]));
    let answered = object["id"].as_u64();
    Heard::Frame(match object["op"].as_str() {
        Some("message") => Frame::Message(Message {
            number: object["data"].as_u64().unwrap_or_else(|| panic!("no number: {object}")) as usize,
            source: book.source(&text("source")),
            topic: Topic::parse(&text("topic")).expect("a topic"),
            headers: Headers::default(),
            cursor: text("cursor").parse::<Cursor>().expect("a cursor"),
            position: position().unwrap_or_default(),
            replay: is("replay"),
            redelivered: is("redelivered"),
        }),
        Some("subscribed") => {
            let (pattern, cursors) = (text("pattern"), joint(&object["cursors"]));
            Frame::Subscribed { id: answered, pattern, cursors, resumed: is("resumed") }
        }
        Some("caught_up") => Frame::CaughtUp { id: answered, pattern: text("pattern"), cursors: cursors() },
        Some("position") => Frame::Position { cursors: cursors() },
        Some("gap") => {
            let reason = GapReason::ALL.into_iter().find(|reason| reason.name() == text("reason"));
            let reason = reason.expect("a reason of the list");
            let missed = object["missed"].as_u64();
            Frame::Gap { pattern: text("pattern"), source: text("source").into(), reason, missed }
        }
        Some("welcome" | "outage" | "restored" | "goodbye") => return Heard::Else,
        _ => panic!("nobody asked for {object}"),
    })
}

fn joint(cursors: &Value) -> JointCursor {
    let cursors = cursors.as_object().into_iter().flatten();
    let cursor = |text: &Value| text.as_str().and_then(|text| text.parse().ok()).expect("a cursor");
    JointCursor(cursors.map(|(name, text)| (name.clone(), cursor(text))).collect())
}
