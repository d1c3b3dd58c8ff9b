//! Peers that vanish: clients in a network namespace of their own, whose link goes down, so that neither FIN nor RST ever
//! comes. Two heartbeats later socket, subscription, binding and memory have to be free again; left alone, the kernel would
//! take a quarter of an hour, or for ever. How long it took is printed: on a busy machine it decides nothing.
//!
//! Making a namespace needs root. Where that is refused the test fails and says so: nothing else shows this.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::client::{Client, EventStream, Service};
use super::word;
use crate::program::{Program, http_get, until};
use crate::rabbit::Rabbit;

/// What the server is configured to.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Large enough for what is published after the cut to fill the kernel's buffers and wait in the outbox too.
const BODY_BYTES: usize = 32 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_are_cut_off_free_everything() {
    let network = Network::new();
    let word = word();
    let program = serve(&network, &word).await;
    let before = program.metric("process_open_fds").await;
    let clients = connect(&network, &program, &word).await;
    until("every binding stands", async || bindings(&program).await == 6.0).await;
    let publishing = tokio::spawn(publish(program.amqp.clone(), word.clone()));
    until("each busy one is sent messages", async || {
        rows(&program).await.iter().filter(|row| is_busy(row) && row["matched"].as_u64() > Some(20)).count() == 3
    })
    .await;
    assert_eq!(rows(&program).await.len(), 6, "all are still there");

    network.cut();
    let cut_at = Instant::now();
    let mut waited = 0;
    until("every connection is freed", async || {
        let rows = rows(&program).await;
        waited = waited.max(rows.iter().filter(|row| row["outbox_bytes"].as_u64() > Some(0)).count());
        rows.is_empty()
    })
    .await;
    eprintln!("freed {:.1?} after the cut; a heartbeat is {HEARTBEAT:?}", cut_at.elapsed());
    assert!(waited > 0, "nothing ever waited for a peer that was cut off: this test shows too little");
    until("every binding is let go", async || bindings(&program).await == 0.0).await;
    until("the broker has none either", async || bindings_at_broker(&word) == Vec::<String>::new()).await;
    for name in ["passerelle_outbox_bytes", "passerelle_slow_sessions", "passerelle_subscriptions"] {
        until(name, async || program.metric(name).await == Some(0.0)).await;
    }
    until("their sockets are closed", async || program.metric("process_open_fds").await <= before).await;
    publishing.abort();
    drop(clients);
}

/// A program that listens on the network's address, on the real RabbitMQ, with queues named after a word.
async fn serve(network: &Network, word: &str) -> Program {
    let environment = [
        ("PASSERELLE_SERVER__LISTEN", &*format!("{}:0", network.address(1))),
        ("PASSERELLE_SERVER__HEARTBEAT", &format!("{}s", HEARTBEAT.as_secs())),
        ("PASSERELLE_AUTH__ANONYMOUS", "true"),
        ("PASSERELLE_AMQP__QUEUE_PREFIX", word),
        ("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"),
        ("PASSERELLE_SOURCE__EVENTS__LINGER", "1ms"),
        // Only silence shall end them, not what waits for them.
        ("PASSERELLE_LIMITS__OUTBOX_BYTES_MAX", "1 GiB"),
    ];
    let program = Program::start(Some(&Rabbit::shared().url()), &environment);
    program.ready().await;
    program
}

/// A WebSocket client of each subprotocol and an event stream, each once with and once without messages, all of which read
/// and answer for as long as they hear anything.
async fn connect(network: &Network, program: &Program, word: &str) -> Vec<JoinHandle<()>> {
    let mut clients = Vec::new();
    for kind in ["busy", "idle"] {
        let topic = |name: &str| format!("pattern={word}.{kind}.{name}");
        for (name, protocol) in [("json", "passerelle.v1.json"), ("raw", "passerelle.v1.raw")] {
            let path = format!("/ws?{}", topic(name));
            let fields = [("sec-websocket-protocol", protocol)];
            let stream = network.connect(&program.public).await;
            let mut client = Client::shake_hands(stream, (&program.public, &path), &fields).await.expect("a handshake");
            clients.push(tokio::spawn(async move { while client.heard_something().await {} }));
        }
        let stream = network.connect(&program.public).await;
        let mut stream = EventStream::ask(stream, (&program.public, &topic("sse")), None).await;
        clients.push(tokio::spawn(async move { while stream.heard_something().await {} }));
    }
    clients
}

/// Publishes to the busy ones without end.
async fn publish(amqp: String, word: String) {
    let service = Service::connect(&amqp).await;
    let body = "x".repeat(BODY_BYTES);
    loop {
        for name in ["json", "raw", "sse"] {
            service.publish(&format!("{word}.busy.{name}"), &body).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What `GET /api/v1/connections` lists.
async fn rows(program: &Program) -> Vec<Value> {
    let answer = http_get(&program.admin, "/api/v1/connections").await;
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let listing: Value = serde_json::from_str(body).expect("JSON");
    listing["connections"].as_array().unwrap_or_else(|| panic!("no rows: {listing}")).clone()
}

fn is_busy(row: &Value) -> bool {
    row["patterns"][0].as_str().is_some_and(|pattern| pattern.contains(".busy."))
}

async fn bindings(program: &Program) -> f64 {
    program.metric("passerelle_bindings{source=\"events\"}").await.expect("the metric")
}

/// Bindings of the exchange to queues that begin so, as RabbitMQ itself lists them.
fn bindings_at_broker(prefix: &str) -> Vec<String> {
    let listed = Rabbit::shared().ctl(&["list_bindings", "source_name", "destination_name", "routing_key"]);
    let ours = listed.lines().filter(|line| line.starts_with("amq.topic") && line.contains(prefix));
    ours.map(str::to_owned).collect()
}

/// A namespace, joined to this one by a pair of virtual interfaces; gone when dropped.
struct Network {
    /// Of the namespace, and within 15 bytes, as interfaces demand, the beginning of theirs.
    name: Arc<str>,
}

impl Network {
    fn new() -> Self {
        let network = Self { name: format!("cut{}", std::process::id()).into() };
        let (name, outside, inside) = (&*network.name, network.outside(), network.inside());
        ip(&["netns", "add", name]);
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside, "netns", name]);
        ip(&["address", "add", &format!("{}/30", network.address(1)), "dev", &outside]);
        ip(&["link", "set", &outside, "up"]);
        ip(&["-n", name, "address", "add", &format!("{}/30", network.address(2)), "dev", &inside]);
        ip(&["-n", name, "link", "set", &inside, "up"]);
        network
    }

    fn outside(&self) -> String {
        format!("{}o", self.name)
    }

    fn inside(&self) -> String {
        format!("{}i", self.name)
    }

    /// 1 is this side, 2 the other: a network of four addresses, by the process, out of what is kept for tests (RFC 2544).
    fn address(&self, host: u32) -> String {
        let number = (std::process::id() & 0x7fff) * 4 + host;
        format!("198.{}.{}.{}", 18 + (number >> 16), (number >> 8) & 0xff, number & 0xff)
    }

    /// A connection from within: a socket stays in the namespace in which it was made, whoever uses it.
    async fn connect(&self, address: &str) -> tokio::net::TcpStream {
        let (name, address) = (self.name.clone(), address.to_owned());
        // A thread of its own, because it never comes back from there.
        let inside = std::thread::spawn(move || {
            let namespace = File::open(format!("/run/netns/{name}")).expect("the namespace");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("it can be entered");
            TcpStream::connect(address).expect("a connection over the link")
        });
        let stream = inside.join().expect("the thread inside");
        stream.set_nonblocking(true).expect("a socket");
        tokio::net::TcpStream::from_std(stream).expect("a socket")
    }

    /// Takes the link down on the other side: from now on whatever is sent is lost, and nobody is told.
    fn cut(&self) {
        ip(&["-n", &self.name, "link", "set", &self.inside(), "down"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What `new` did not come to make is not there to be removed. One end takes the other along.
        let _ = Command::new("ip").args(["link", "delete", &self.outside()]).output();
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

fn ip(arguments: &[&str]) {
    let run = Command::new("ip").args(arguments).output();
    let run = run.unwrap_or_else(|error| panic!("ip: {error}: install iproute2, or run scripts/test"));
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "ip {}: {said}network namespaces need root: run this as root", arguments.join(" "));
}
