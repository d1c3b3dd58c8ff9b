//! Something to show: a program and a RabbitMQ under a load that has some of everything, good and bad, until it is dropped.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::program::{Program, until};
use crate::rabbit::Rabbit;
use crate::whole::client::{Client, EventStream, Service};

/// The broker's user that only the program is, so that its connections alone can be closed.
const USER: &str = "bridge";

/// Where somebody answers calls.
const ANSWERING: &str = "answering";

/// Of a message to those who do not read.
const BIG_BYTES: usize = 60_000;

/// How long somebody does not read. At the pace of [`feed`] the kernel's buffers are full before.
const STALL: Duration = Duration::from_secs(10);

/// The program and what was given it to do; ends when dropped.
pub(super) struct Load {
    pub(super) program: Program,
    tasks: JoinSet<()>,
}

impl Load {
    /// A program with two sources, of which one cannot pass on what lacks a header field; nothing is asked of it yet.
    pub(super) async fn prepare(rabbit: &Rabbit) -> Self {
        rabbit.ctl(&["add_user", USER, "secret"]);
        rabbit.ctl(&["set_permissions", USER, ".*", ".*", ".*"]);
        let environment = [
            ("PASSERELLE_AUTH__ANONYMOUS_PUBLISH", "true"),
            ("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"),
            ("PASSERELLE_SOURCE__KINDS__EXCHANGE", "amq.fanout"),
            ("PASSERELLE_SOURCE__KINDS__TYPE", "fanout"),
            ("PASSERELLE_SOURCE__KINDS__TOPIC", "load.{header.kind}"),
            ("PASSERELLE_LIMITS__DROP_OLDEST_KEEP", "10"),
        ];
        let program = Program::start(Some(&rabbit.url_as(&format!("{USER}:secret"), "%2f")), &environment);
        program.ready().await;
        Self { program, tasks: JoinSet::new() }
    }

    /// Begins. The broker's own clients come as `guest`, so that they outlive a lost link of the program.
    pub(super) async fn begin(&mut self, rabbit: &Rabbit) {
        self.listen().await;
        let (feeding, answering) = (Service::connect(&rabbit.url()).await, Service::connect(&rabbit.url()).await);
        self.tasks.spawn(feed(feeding));
        self.tasks.spawn(answer(answering));
        let client = Client::json(&self.program).await;
        self.tasks.spawn(ask(client));
        self.tasks.spawn(stall(self.program.public.clone()));
        self.tasks.spawn(ask_only(self.program.public.clone()));
    }

    /// A subscriber of each kind, who reads what comes.
    async fn listen(&mut self) {
        let mut json = Client::json(&self.program).await;
        json.subscribe("load.#").await;
        let mut raw = Client::raw(&self.program, "pattern=load.%23").await;
        let mut stream = EventStream::open(&self.program, "pattern=load.%23", None).await;
        self.tasks.spawn(async move { while json.heard_something().await {} });
        self.tasks.spawn(async move { while raw.heard_something().await {} });
        self.tasks.spawn(async move { while stream.heard_something().await {} });
    }

    /// The broker closes the program's connections, and it comes back, and tells the gap.
    pub(super) async fn lose_the_link(&self, rabbit: &Rabbit) {
        rabbit.ctl(&["close_all_user_connections", USER, "a test of ours"]);
        let program = &self.program;
        until("the gap is told", async || program.metric("passerelle_gaps_total{reason=\"outage\"}").await > Some(0.0))
            .await;
        for link in ["consume", "publish"] {
            let name = format!("passerelle_amqp_link_up{{link=\"{link}\"}}");
            until("the link is back", async || program.metric(&name).await == Some(1.0)).await;
        }
    }
}

/// Publishes to those who listen, to those who do not read, and what cannot be passed on.
async fn feed(service: Service) {
    let big = "x".repeat(BIG_BYTES);
    loop {
        publish(&service, ("amq.topic", "load.a"), "timestamp_in_ms").await;
        publish(&service, ("amq.fanout", ""), "no_kind").await;
        service.publish("big", &big).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One message with the time, in milliseconds, in a header field.
async fn publish(service: &Service, (exchange, key): (&str, &str), header: &str) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    let mut headers = FieldTable::default();
    headers.insert(header.into(), AMQPValue::LongLongInt(now.as_millis() as i64));
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default().with_headers(headers));
    service.channel.basic_publish(exchange.into(), key.into(), options, b"{}", properties).await.expect("a publish");
}

/// Answers calls.
async fn answer(service: Service) {
    let mut calls = service.listen(ANSWERING, None).await;
    while let Some(Ok(call)) = calls.next().await {
        let to = call.properties.reply_to().clone().expect("a place for the answer");
        let id = call.properties.correlation_id().clone().expect("the call's id");
        let properties = BasicProperties::default().with_correlation_id(id);
        let options = BasicPublishOptions::default();
        service.channel.basic_publish("".into(), to, options, b"1", properties).await.expect("an answer");
    }
}

/// Publishes and calls, to somebody and to nobody.
async fn ask(mut client: Client) {
    for id in 0.. {
        let command = match id % 4 {
            0 => json!({ "op": "publish", "topic": "load.b", "data": id }),
            1 => json!({ "op": "publish", "topic": "nobody", "data": id, "mandatory": true }),
            2 => json!({ "op": "call", "topic": ANSWERING, "data": id }),
            _ => json!({ "op": "call", "topic": "nobody", "data": id }),
        };
        answered(&mut client, id, command).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the reply, past what else is told, such as an outage.
async fn answered(client: &mut Client, id: u64, mut command: Value) {
    command["id"] = json!(id);
    client.send(Message::text(command.to_string())).await;
    while client.object().await["id"] != command["id"] {}
}

/// A connection on which little waits for who does not read.
async fn connect_narrowly(public: &str) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    socket.connect(public.parse().expect("an address")).await.expect("a connection")
}

/// Does not read for a while, then does for as long, and has messages dropped that it was too slow for.
async fn stall(public: String) {
    let stream = connect_narrowly(&public).await;
    let path = "/ws?pattern=big&on_slow=drop-oldest";
    let mut client = Client::shake_hands(stream, (&public, path), &[]).await.expect("a handshake");
    loop {
        // A pace, not a condition: whoever has not fallen behind by then stalls again.
        tokio::time::sleep(STALL).await;
        let reading = async { while client.heard_something().await {} };
        let _ = tokio::time::timeout(STALL, reading).await;
    }
}

/// Asks and reads no answer until it is ended, comes again.
async fn ask_only(public: String) {
    let ping = Message::text(json!({ "op": "ping", "id": "x".repeat(60) }).to_string());
    loop {
        let stream = connect_narrowly(&public).await;
        let json = [("sec-websocket-protocol", "passerelle.v1.json")];
        let client = Client::shake_hands(stream, (&public, "/ws"), &json).await.expect("a handshake");
        let (mut questions, _answers) = client.split();
        while questions.send(ping.clone()).await.is_ok() {}
    }
}
