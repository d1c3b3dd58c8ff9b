//! Clients of the tests: a WebSocket that speaks JSON or raw frames, an event stream, and a service at the broker.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::program::{PATIENCE, Program};
use crate::rabbit::connect;

type Socket = WebSocketStream<TcpStream>;

/// A WebSocket client.
pub(crate) struct Client {
    socket: Socket,
    next_id: u64,
}

impl Client {
    /// Speaks `passerelle.v1.json`.
    pub(crate) async fn json(program: &Program) -> Self {
        Self::open(program, "/ws", &[("sec-websocket-protocol", "passerelle.v1.json")]).await.expect("a handshake")
    }

    /// Speaks raw frames.
    pub(crate) async fn raw(program: &Program, query: &str) -> Self {
        Self::open(program, &format!("/ws?{query}"), &[]).await.expect("a handshake")
    }

    /// Opens a path with header fields of one's own.
    pub(crate) async fn open(
        program: &Program,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<Self, Box<Error>> {
        let stream = TcpStream::connect(&program.public).await.expect("a connection");
        Self::shake_hands(stream, (&program.public, path), fields).await
    }

    /// Likewise, over a connection that was made elsewhere.
    pub(crate) async fn shake_hands(
        stream: TcpStream,
        (host, path): (&str, &str),
        fields: &[(&'static str, &str)],
    ) -> Result<Self, Box<Error>> {
        let mut request = format!("ws://{host}{path}").into_client_request().expect("a request");
        for (name, value) in fields {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let (socket, _) = client_async(request, stream).await.map_err(Box::new)?;
        Ok(Self { socket, next_id: 0 })
    }

    /// Both directions, for who asks and does not listen.
    pub(crate) fn split(self) -> (SplitSink<Socket, Message>, SplitStream<Socket>) {
        self.socket.split()
    }

    /// Over a socket whose handshake is over.
    pub(crate) async fn over(stream: TcpStream) -> Self {
        Self { socket: WebSocketStream::from_raw_socket(stream, Role::Client, None).await, next_id: 0 }
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("a frame is sent");
    }

    /// Sends a command and returns its reply; whatever else comes before it is a failure.
    pub(crate) async fn ask(&mut self, mut command: Value) -> Value {
        self.next_id += 1;
        command["id"] = json!(self.next_id);
        self.send(Message::text(command.to_string())).await;
        let reply = self.object().await;
        assert_eq!(reply["id"], command["id"], "{reply}");
        reply
    }

    /// Subscribes, and waits for it to stand.
    pub(crate) async fn subscribe(&mut self, pattern: &str) -> Value {
        let reply = self.ask(json!({ "op": "subscribe", "pattern": pattern })).await;
        assert_eq!(reply["op"], "subscribed", "{reply}");
        reply
    }

    /// The next JSON object.
    pub(crate) async fn object(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("JSON")
    }

    /// The next object that is not a `position`, of which there is never an end.
    pub(crate) async fn news(&mut self) -> Value {
        let reading = async {
            loop {
                let object = self.object().await;
                if object["op"] != "position" {
                    return object;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("news in time")
    }

    /// The next text frame.
    pub(crate) async fn text(&mut self) -> String {
        match self.message().await {
            Message::Text(text) => text.to_string(),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// The next frame that is not a ping, which is answered on the way.
    pub(crate) async fn message(&mut self) -> Message {
        // One deadline for all: pings must not prolong the wait for ever.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.socket.next()).await.expect("a frame in time");
            match next.expect("an open connection").expect("a frame") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// Reads whatever comes, pings too, which are answered by the next read; false at the end.
    pub(crate) async fn heard_something(&mut self) -> bool {
        matches!(self.socket.next().await, Some(Ok(_)))
    }

    /// The code and reason with which the server closes; what comes before is passed over.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.message().await {
                let CloseFrame { code, reason } = frame.expect("a code");
                return (code.into(), reason.to_string());
            }
        }
    }

    /// Whether nothing comes within a moment.
    pub(crate) async fn is_quiet_for(&mut self, moment: Duration) -> bool {
        tokio::time::timeout(moment, self.message()).await.is_err()
    }
}

/// A client of Server-Sent Events.
pub(crate) struct EventStream {
    lines: Lines<BufReader<TcpStream>>,
}

/// One event.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) event: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

impl EventStream {
    /// Opens `/sse?…`.
    pub(crate) async fn open(program: &Program, query: &str, last_event_id: Option<&str>) -> Self {
        let stream = TcpStream::connect(&program.public).await.expect("a connection");
        Self::ask(stream, (&program.public, query), last_event_id).await
    }

    /// Likewise, over a connection that was made elsewhere.
    pub(crate) async fn ask(mut stream: TcpStream, (host, query): (&str, &str), last_event_id: Option<&str>) -> Self {
        let last = last_event_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!("GET /sse?{query} HTTP/1.1\r\nHost: {host}\r\n{last}\r\n");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next_line().await.expect("an answer").expect("an answer");
        assert!(status.contains("200"), "{status}");
        while !lines.next_line().await.expect("a head").expect("a head").is_empty() {}
        Self { lines }
    }

    /// The next event that carries data.
    pub(crate) async fn event(&mut self) -> Block {
        self.next().await.expect("an open stream")
    }

    /// Likewise; none when the stream ends.
    pub(crate) async fn next(&mut self) -> Option<Block> {
        let mut block = Block::default();
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time");
            let line = line.expect("a line")?;
            match line.split_once(": ") {
                _ if line.is_empty() && !block.data.is_empty() => return Some(block),
                Some(("event", name)) => block.event = Some(name.to_owned()),
                Some(("id", id)) => block.id = Some(id.to_owned()),
                Some(("data", data)) => block.data += data,
                _ => {}
            }
        }
    }

    /// Reads whatever comes; false at the end.
    pub(crate) async fn heard_something(&mut self) -> bool {
        matches!(self.lines.next_line().await, Ok(Some(_)))
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Block {
        loop {
            let block = self.event().await;
            if block.event.is_none() {
                return block;
            }
        }
    }
}

/// Somebody at the broker.
pub(crate) struct Service {
    _connection: Connection,
    pub(crate) channel: Channel,
}

impl Service {
    /// Connects.
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = connect(url).await;
        let channel = connection.create_channel().await.expect("a channel");
        Self { _connection: connection, channel }
    }

    /// Publishes to `amq.topic`.
    pub(crate) async fn publish(&self, topic: &str, body: &str) {
        self.publish_with(topic, body, FieldTable::default()).await;
    }

    /// Likewise, with headers.
    pub(crate) async fn publish_with(&self, topic: &str, body: &str, headers: FieldTable) {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default().with_headers(headers));
        self.channel
            .basic_publish("amq.topic".into(), topic.into(), options, body.as_bytes(), properties)
            .await
            .expect("a publish");
    }

    /// A queue of its own, bound to `amq.topic`, or only named where no pattern is given.
    pub(crate) async fn listen(&self, queue: &str, pattern: Option<&str>) -> Consumer {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("a queue");
        if let Some(pattern) = pattern {
            let options = QueueBindOptions::default();
            self.channel
                .queue_bind(queue.into(), "amq.topic".into(), pattern.into(), options, FieldTable::default())
                .await
                .expect("a binding");
        }
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.expect("a consumer")
    }

    /// The next delivery.
    pub(crate) async fn next(consumer: &mut Consumer) -> lapin::message::Delivery {
        tokio::time::timeout(PATIENCE, consumer.next())
            .await
            .expect("a delivery in time")
            .expect("a consumer")
            .expect("a delivery")
    }
}
