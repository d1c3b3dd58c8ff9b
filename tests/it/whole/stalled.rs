//! One subscriber in a hundred has stopped reading: the system calls of the shard that serves all of them are counted, with
//! it and without it, and so is the memory of the process while it falls further behind.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpSocket;

use super::client::{Client, Service};
use super::{Broker, word};
use crate::program::{Program, signal, until};

const READERS: usize = 99;

/// Messages whose calls are counted.
const MESSAGES: usize = 40;

/// The kernel's buffer of the one who does not read.
const STALLED_BUFFER_BYTES: u32 = 32 << 10;

/// Bytes of a message of which the one who does not read cannot take many.
const FILLING_BYTES: usize = 60_000;

/// What is published when somebody is behind already: its socket takes none of it.
const FURTHER_BYTES: usize = 8 << 20;

/// Calls that write to a socket, and are made for nothing else.
const SENDS: [&str; 3] = ["sendto", "sendmsg", "writev"];

/// What comes with time: the gauges are brought up to date once in so long, with so many calls at most.
const GAUGE_PERIOD: Duration = Duration::from_secs(1);
const GAUGE_CALLS_MAX: usize = 4;

/// What the log may hold, and how far behind who does not read is in the end: many times that.
const LOG: &str = "4 MiB";
const BEHIND_BYTES: usize = 32 << 20;

/// By how much the process may have grown meanwhile. The log was full before, `limits.behind_bytes` and a turn are
/// less than a megabyte, and the rest is the allocator's.
const GROWTH_BYTES_MAX: f64 = 12.0 * 1024.0 * 1024.0;

/// The system calls of one thread, written down by strace while this lives.
struct Trace {
    strace: Child,
    folder: tempfile::TempDir,
}

/// What the shard asked of the system for each message.
#[derive(Debug, PartialEq, Eq)]
struct Calls {
    /// Of most messages, by name; the others met a timer.
    of_one: BTreeMap<String, usize>,
    /// Sockets that each message was written to, with one call each.
    sockets: usize,
}

impl Trace {
    fn attach(thread: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut strace = Command::new("strace")
            .args(["-p", &thread.to_string(), "-s", "300", "-o"])
            .arg(folder.path().join("calls"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is needed to count system calls: scripts/test installs it");
        let mut said = String::new();
        let mut lines = BufReader::new(strace.stderr.as_mut().expect("what it says"));
        lines.read_line(&mut said).expect("what it says");
        assert!(
            said.contains("attached"),
            "strace may not trace passerelle, so its system calls cannot be counted: run the tests as root, or set \
             kernel.yama.ptrace_scope to 0, or give the container the capability SYS_PTRACE. It said: {said}"
        );
        Self { strace, folder }
    }

    /// Lets the thread go; answers its calls in their order, a line each.
    fn detach(mut self) -> Vec<String> {
        signal(self.strace.id(), "INT");
        self.strace.wait().expect("its end");
        let calls = std::fs::read_to_string(self.folder.path().join("calls")).expect("what it wrote");
        calls.lines().map(str::to_owned).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// A client whose socket takes little.
async fn join(program: &Program, topic: &str) -> Client {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(STALLED_BUFFER_BYTES).expect("a small buffer");
    let stream = socket.connect(program.public.parse().expect("an address")).await.expect("a connection");
    let subprotocol = ("sec-websocket-protocol", "passerelle.v1.json");
    let opened = Client::shake_hands(stream, (&program.public, "/ws"), &[subprotocol]).await;
    let mut client = opened.expect("a handshake");
    client.subscribe(topic).await;
    client
}

/// Publishes a message and waits until everybody has it.
async fn tell(service: &Service, (topic, text): (&str, &str), readers: &mut [Client]) {
    service.publish(topic, &json!(text).to_string()).await;
    for reader in readers {
        assert_eq!(reader.news().await["data"], text);
    }
}

/// Publishes until somebody is behind, and then more than the kernel can find room for.
async fn fill(program: &Program, service: &Service, topic: &str, readers: &mut [Client]) {
    let filling = "x".repeat(FILLING_BYTES);
    let mut further = 0;
    while further < FURTHER_BYTES {
        tell(service, (topic, &filling), readers).await;
        if metric(program, "passerelle_fell_behind_total").await > 0.0 {
            further += FILLING_BYTES;
        }
    }
}

/// What a metric says that has a value from the start.
async fn metric(program: &Program, name: &str) -> f64 {
    program.metric(name).await.expect("a metric")
}

/// Whether a thread waits for something to happen. A look that waits for nothing is never seen so.
fn sleeps(thread: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).expect("its status");
    status.lines().any(|line| line == "State:\tS (sleeping)")
}

/// Serves the readers, and one more who has long stopped reading if there is to be one, and counts.
async fn count(has_stalled: bool) -> Calls {
    let environment = [
        ("PASSERELLE_SERVER__SHARDS", "1"),
        // None is to come while it is counted.
        ("PASSERELLE_SERVER__HEARTBEAT", "1h"),
        ("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"),
    ];
    let program = Broker::Embedded.serve(&environment).await;
    let (topic, service) = (word(), Service::connect(&program.amqp).await);
    let mut readers = vec![Client::json(&program).await];
    readers[0].subscribe(&topic).await;
    let stalled = if has_stalled { Some(join(&program, &topic).await) } else { None };
    if has_stalled {
        fill(&program, &service, &topic, &mut readers).await;
    }
    while readers.len() < READERS {
        let mut reader = Client::json(&program).await;
        reader.subscribe(&topic).await;
        readers.push(reader);
    }
    let falls = metric(&program, "passerelle_fell_behind_total").await;
    let thread = program.thread("shard-0");
    let (trace, began) = (Trace::attach(thread), Instant::now());
    for number in 0..=MESSAGES {
        until("the shard has nothing to do", async || sleeps(thread)).await;
        tell(&service, (&topic, &format!("number {number}")), &mut readers).await;
    }
    let (lines, took) = (trace.detach(), began.elapsed());
    assert_eq!(metric(&program, "passerelle_fell_behind_total").await, falls, "nobody came back or fell behind");
    let slow = f64::from(u8::from(has_stalled));
    until("the gauge tells of who is slow", async || metric(&program, "passerelle_slow_sessions").await == slow).await;
    drop(stalled);
    examine(&lines, took)
}

/// What the lines of a trace say, from the last that is about message 0 to the last that is about any.
fn examine(lines: &[String], took: Duration) -> Calls {
    let is_about = |line: &String, number: usize| line.contains(&format!("\"number {number}\\\""));
    let last = |number: usize| lines.iter().rposition(|line| is_about(line, number)).expect("each message was written");
    let ends: Vec<usize> = (0..=MESSAGES).map(last).collect();
    let messages: Vec<&[String]> = ends.windows(2).map(|pair| &lines[pair[0] + 1..=pair[1]]).collect();
    let sockets = sockets(messages[0]);
    for message in &messages {
        assert_eq!(self::sockets(message), sockets, "every message goes to the same sockets");
    }
    let counts: Vec<BTreeMap<String, usize>> = messages.iter().map(|message| names(message)).collect();
    let of_one = counts.iter().max_by_key(|one| counts.iter().filter(|other| other == one).count());
    let of_one = of_one.expect("messages").clone();
    assert!(counts.iter().flat_map(BTreeMap::keys).all(|name| of_one.contains_key(name)), "{counts:?}");
    let expected = MESSAGES * of_one.values().sum::<usize>();
    let gauges = (took.as_secs_f64() / GAUGE_PERIOD.as_secs_f64()).ceil() as usize;
    let total: usize = messages.iter().map(|message| message.len()).sum();
    assert!(total <= expected + gauges * GAUGE_CALLS_MAX, "{total} calls and not {expected}, in {took:?}: {counts:?}");
    Calls { of_one, sockets: sockets.len() }
}

/// The sockets that a message was written to, each with one call; nothing else was written.
fn sockets(message: &[String]) -> BTreeSet<&str> {
    let mut sockets = BTreeSet::new();
    for line in message {
        let (name, arguments) = line.split_once('(').expect("a call");
        if SENDS.contains(&name) {
            let (socket, text) = arguments.split_once(',').expect("a socket");
            assert!(text.contains("\"number ") && sockets.insert(socket), "one call for one reader: {line}");
        }
    }
    sockets
}

/// How often each call was made.
fn names(message: &[String]) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for line in message {
        let (name, _) = line.split_once('(').expect("a call");
        *names.entry(name.to_owned()).or_default() += 1;
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_stopped_reading_costs_the_others_no_system_call() {
    let (alone, beside) = (count(false).await, count(true).await);
    println!("of one message: {alone:?}");
    assert_eq!(beside, alone);
    assert_eq!(alone.sockets, READERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_stopped_reading_is_not_waited_for_in_memory() {
    let environment =
        [("PASSERELLE_SOURCE__EVENTS__EXCHANGE", "amq.topic"), ("PASSERELLE_SOURCE__EVENTS__LOG__BYTES_MAX", LOG)];
    let program = Broker::Embedded.serve(&environment).await;
    let (topic, service) = (word(), Service::connect(&program.amqp).await);
    let mut readers = [Client::json(&program).await];
    readers[0].subscribe(&topic).await;
    let filling = "x".repeat(FILLING_BYTES);
    let fill = async |bytes: usize, readers: &mut [Client]| {
        for _ in 0..bytes / FILLING_BYTES {
            tell(&service, (&topic, &filling), readers).await;
        }
        metric(&program, "process_resident_memory_bytes").await
    };
    let before = fill(BEHIND_BYTES / 4, &mut readers).await;
    let stalled = join(&program, &topic).await;
    let after = fill(BEHIND_BYTES, &mut readers).await;
    println!("resident: {before} bytes with a full log, {after} with one who is {BEHIND_BYTES} bytes behind");
    assert!(after - before < GROWTH_BYTES_MAX, "it grew from {before} to {after} bytes");
    assert!(metric(&program, "passerelle_fell_behind_total").await >= 1.0, "it read on");
    drop(stalled);
}
