//! The listener and a real client, lapin, over a socket; and a bare socket for what no real client does.

use std::time::Duration;

use amq_protocol::protocol::{AMQPClass, queue};
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frames;
use crate::config::Embedded;
use crate::embedded::fault::short;
use crate::embedded::{BindError, Listener};

/// How long anything may take before the test has failed; never how long it has to.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    url: String,
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

fn config() -> Embedded {
    Embedded { listen: ([127, 0, 0, 1], 0).into(), ..Embedded::default() }
}

impl Server {
    fn start() -> Self {
        Self::start_with(&config())
    }

    fn start_with(config: &Embedded) -> Self {
        let listener = Listener::bind(config).unwrap();
        let address = listener.local_addr();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(listener.run(shutdown.clone()));
        Self { url: format!("amqp://guest:guest@{address}/%2f"), address, shutdown, task }
    }

    async fn connect(&self) -> Connection {
        timeout(PATIENCE, Connection::connect(&self.url, ConnectionProperties::default())).await.unwrap().unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

async fn publish(
    channel: &Channel,
    [exchange, key]: [&str; 2],
    body: &[u8],
    properties: BasicProperties,
) -> Confirmation {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await.unwrap();
    timeout(PATIENCE, confirm).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lapin_publishes_with_confirms_and_consumes_in_order() {
    let server = Server::start();
    let connection = server.connect().await;
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let declared = channel.queue_declare(
        "".into(),
        QueueDeclareOptions { exclusive: true, ..Default::default() },
        FieldTable::default(),
    );
    let queue = declared.await.unwrap().name().clone();
    assert!(queue.as_str().starts_with("amq.gen-"));
    let bound = channel.queue_bind(
        queue.clone(),
        "amq.topic".into(),
        "orders.#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();
    channel.basic_qos(10, BasicQosOptions::default()).await.unwrap();
    let consumed = channel.basic_consume(queue, "c".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = consumed.await.unwrap();
    for number in 0..200_u32 {
        let body = number.to_be_bytes();
        let confirmation = publish(&channel, ["amq.topic", "orders.eu"], &body, BasicProperties::default()).await;
        assert!(matches!(confirmation, Confirmation::Ack(None)), "{confirmation:?}");
    }
    for number in 0..200_u32 {
        let delivery = timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((&delivery.data[..], delivery.routing_key.as_str()), (&number.to_be_bytes()[..], "orders.eu"));
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    match publish(&channel, ["amq.topic", "unknown"], b"x", BasicProperties::default()).await {
        Confirmation::Ack(Some(returned)) => {
            assert_eq!((returned.reply_code, &returned.delivery.data[..]), (312, &b"x"[..]))
        }
        other => panic!("{other:?}"),
    }
    connection.close(200, "done".into()).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lapin_asks_and_is_answered_directly() {
    let server = Server::start();
    let (asker, answerer) = (server.connect().await, server.connect().await);
    let (asking, answering) = (asker.create_channel().await.unwrap(), answerer.create_channel().await.unwrap());
    answering.queue_declare("rpc".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    let replies = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consumed = asking.basic_consume("amq.rabbitmq.reply-to".into(), "".into(), replies, FieldTable::default());
    let mut consumer = consumed.await.unwrap();
    let question =
        BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to".into()).with_correlation_id("7".into());
    publish(&asking, ["", "rpc"], b"?", question).await;
    let asked = async {
        loop {
            if let Some(message) = answering.basic_get("rpc".into(), BasicGetOptions { no_ack: true }).await.unwrap() {
                return message;
            }
        }
    };
    let message = timeout(PATIENCE, asked).await.unwrap();
    let address = message.properties.reply_to().clone().unwrap();
    let answer = BasicProperties::default().with_correlation_id(message.properties.correlation_id().clone().unwrap());
    let sent = answering.basic_publish("".into(), address, BasicPublishOptions::default(), b"!", answer);
    sent.await.unwrap();
    let reply = timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((&reply.data[..], reply.properties.correlation_id().as_ref().unwrap().as_str()), (&b"!"[..], "7"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_declaration_costs_the_channel_only() {
    let server = Server::start();
    let connection = server.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let declared = channel
        .exchange_declare("amq.topic".into(), ExchangeKind::Direct, Default::default(), FieldTable::default())
        .await;
    assert!(declared.unwrap_err().to_string().contains("PRECONDITION"));
    let another = connection.create_channel().await.unwrap();
    another.queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_tells_every_client_and_ends() {
    let server = Server::start();
    let connection = server.connect().await;
    let channel = connection.create_channel().await.unwrap();
    channel.queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    let consumed =
        channel.basic_consume("q".into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await;
    let mut consumer = consumed.unwrap();
    server.stop().await;
    match timeout(PATIENCE, consumer.next()).await.unwrap() {
        Some(Err(error)) => assert!(error.to_string().contains("CONNECTION_FORCED"), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// Everything of the handshake after the header, by hand: guest, frames of any size, a heartbeat of one second.
const HANDSHAKE: [&[u8]; 3] = [
    b"\x01\0\0\0\0\0\x24\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US\xce",
    b"\x01\0\0\0\0\0\x0c\0\x0a\0\x1f\0\0\0\0\0\0\0\x01\xce",
    b"\x01\0\0\0\0\0\x08\0\x0a\0\x28\x01/\0\0\xce",
];
const HEARTBEAT: &[u8] = b"\x08\0\0\0\0\0\0\xce";

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_hears_heartbeats_and_is_then_given_up() {
    let server = Server::start();
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    for part in HANDSHAKE {
        socket.write_all(part).await.unwrap();
    }
    let mut heard = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert!(heard.windows(HEARTBEAT.len()).any(|window| window == HEARTBEAT), "heartbeats came, then the end");
    server.stop().await;
}

/// Fills the broker with what goes when it goes: as many messages of 100 kB in a queue of its own, without heartbeats.
async fn hog(server: &Server, messages: usize) -> TcpStream {
    let own = queue::Declare { queue: short("own"), exclusive: true, ..Default::default() };
    let declare = frames::method(1, AMQPClass::Queue(queue::AMQPMethod::Declare(own)));
    let (start_ok, [.., open]) = (frames::start_ok("guest", &frames::EVERYTHING), HANDSHAKE);
    let tune_ok = b"\x01\0\0\0\0\0\x0c\0\x0a\0\x1f\0\0\0\0\0\0\0\0\xce";
    let begin = [b"AMQP\0\0\x09\x01", &start_ok[..], tune_ok, open, &frames::open_channel(1), &declare].concat();
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(&begin).await.unwrap();
    let message = frames::publish(1, "own", false, &[0; 100_000]);
    timeout(PATIENCE, socket.write_all(&message.repeat(messages))).await.unwrap().unwrap();
    // "Blocked": the broker is full.
    let mut heard = Vec::new();
    while !heard.windows(4).any(|method| method == [0, 10, 0, 60]) {
        timeout(PATIENCE, socket.read_buf(&mut heard)).await.unwrap().unwrap();
    }
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_publisher_that_goes_takes_what_it_held_along_however_much_it_sent_ahead() {
    for messages in [1, 5] {
        let server = Server::start_with(&Embedded { memory_bytes_max: 60_000, ..config() });
        let hog = hog(&server, messages).await;
        let channel = server.connect().await.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        publish(&channel, ["amq.topic", "a"], b"the last before it is blocked too", BasicProperties::default()).await;
        drop(hog);
        let again = publish(&channel, ["amq.topic", "a"], b"there is room again", BasicProperties::default());
        timeout(PATIENCE, again).await.unwrap();
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_something_else_reads_what_is_spoken_here_and_the_end() {
    let server = Server::start();
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, b"AMQP\0\0\x09\x01");
    server.stop().await;
}

#[test]
fn a_taken_address_is_explained() {
    let taken = Listener::bind(&config()).unwrap().local_addr();
    let holder = std::net::TcpListener::bind(taken).unwrap();
    let error = Listener::bind(&Embedded { listen: holder.local_addr().unwrap(), ..config() }).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }));
    let usual = BindError::InUse { address: ([127, 0, 0, 1], 5672).into() };
    let sentence = "127.0.0.1:5672 is in use, perhaps by RabbitMQ; to use it: --amqp amqp://guest:guest@localhost";
    assert_eq!(usual.to_string(), sentence);
}
