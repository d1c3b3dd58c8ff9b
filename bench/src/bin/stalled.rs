//! What it costs the others when some stop reading: subscribers at a steady rate, first all of them reading, then one in a
//! hundred of them not, who read on afterwards and must have missed nothing.
//!
//! The rate is an open loop: latency counts from when a message was meant to be sent, so that a bridge which is late is not
//! spared. Prints one JSON object a phase.

#[path = "load/process.rs"]
mod process;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use futures_util::StreamExt as _;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio_tungstenite::{WebSocketStream, client_async};

use process::Process;

/// One in so many stalls.
const STALLED_EVERY: usize = 100;

/// The kernel's buffer of one who stalls: a small one, so that the server soon notices.
const STALLED_BUFFER_BYTES: u32 = 32 << 10;

/// The histogram's resolution, and how far it reaches.
const BUCKET: Duration = Duration::from_micros(20);
const BUCKETS: usize = 500_000;

/// How long those who stalled may take to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);

/// Publishes at a steady rate, and prints latency, CPU and memory with and without some who do not read.
#[derive(Parser)]
struct Options {
    /// Host and port of the server.
    #[arg(long, default_value = "127.0.0.1:8080")]
    server: String,
    /// Where to publish.
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    amqp: String,
    /// How many subscribers.
    #[arg(long, default_value_t = 100)]
    subscribers: usize,
    /// Messages a second.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// How long each phase takes, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The server's process, for CPU and memory.
    #[arg(long)]
    pid: u32,
}

/// What everybody does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    AllRead,
    SomeStall,
    AllReadOn,
}

/// Latencies of those who read.
struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// What the subscribers found.
struct Board {
    latencies: Histogram,
    /// How many messages each has received; their numbers are 0, 1, 2 and so on.
    received: Vec<u64>,
}

impl Histogram {
    fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    fn note(&mut self, latency: Duration) {
        let bucket = (latency.as_nanos() / BUCKET.as_nanos()) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
    }

    /// The latency in milliseconds that this share of all stays below.
    fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        (bucket.unwrap_or_default() + 1) as f64 * BUCKET.as_secs_f64() * 1e3
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    LocalSet::new().run_until(measure(&options)).await
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let server = Process::new(options.pid);
    let began = Instant::now();
    let board = Rc::new(RefCell::new(Board { latencies: Histogram::new(), received: vec![0; options.subscribers] }));
    let (phase, phases) = watch::channel(Phase::AllRead);
    let mut readers = Vec::new();
    for number in 0..options.subscribers {
        let socket = connect(&options.server, number).await?;
        readers.push(tokio::task::spawn_local(read(socket, (number, began), board.clone(), phases.clone())));
    }
    let (stop, stopped) = watch::channel(false);
    let publisher = publish(options, began, stopped)?;
    // Until everybody has had something, nothing is measured.
    while board.borrow().received.contains(&0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (next, name) in [(Phase::AllRead, "all read"), (Phase::SomeStall, "one in a hundred stalls")] {
        phase.send_replace(next);
        board.borrow_mut().latencies = Histogram::new();
        let cpu_before = server.cpu_seconds()?;
        tokio::time::sleep(Duration::from_secs(options.seconds)).await;
        let board = board.borrow();
        let (latencies, cpu) = (&board.latencies, server.cpu_seconds()? - cpu_before);
        let row = json!({
            "phase": name,
            "deliveries": latencies.total,
            "p50_ms": round(latencies.quantile(0.5)),
            "p99_ms": round(latencies.quantile(0.99)),
            "p999_ms": round(latencies.quantile(0.999)),
            "cpu_seconds_per_million": round(cpu / latencies.total as f64 * 1e6),
            "resident_mb": round(server.resident_bytes()? as f64 / 1048576.0),
        });
        println!("{row}");
    }
    let behind = missing(&board.borrow());
    phase.send_replace(Phase::AllReadOn);
    stop.send_replace(true);
    let published = tokio::task::spawn_blocking(move || publisher.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the publisher panicked"))??;
    let released = Instant::now();
    while board.borrow().received.iter().any(|received| *received < published) {
        anyhow::ensure!(released.elapsed() < CATCH_UP_MAX, "not everybody has caught up: {behind:?} were behind");
        for reader in &readers {
            anyhow::ensure!(!reader.is_finished(), "a subscriber was lost");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let row = json!({
        "phase": "all read on",
        "published": published,
        "were_behind_by": behind,
        "caught_up_in_seconds": round(released.elapsed().as_secs_f64()),
        "resident_mb": round(server.resident_bytes()? as f64 / 1048576.0),
    });
    println!("{row}");
    Ok(())
}

/// By how many messages each is behind who is behind by a second's worth or more.
fn missing(board: &Board) -> Vec<u64> {
    let newest = board.received.iter().max().copied().unwrap_or_default();
    let behind = board.received.iter().map(|received| newest - received);
    behind.filter(|behind| *behind > 1_000).collect()
}

fn stalls(number: usize) -> bool {
    number % STALLED_EVERY == STALLED_EVERY - 1
}

async fn connect(server: &str, number: usize) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    if stalls(number) {
        socket.set_recv_buffer_size(STALLED_BUFFER_BYTES)?;
    }
    let stream = socket.connect(server.parse().context("--server is no address")?).await?;
    stream.set_nodelay(true)?;
    let (socket, _) = client_async(format!("ws://{server}/ws?pattern=t"), stream).await?;
    Ok(socket)
}

/// Reads, but for those who stall while some do; each message must be the next one.
async fn read(
    mut socket: WebSocketStream<TcpStream>,
    (number, began): (usize, Instant),
    board: Rc<RefCell<Board>>,
    mut phases: watch::Receiver<Phase>,
) -> anyhow::Result<()> {
    loop {
        if stalls(number) {
            phases.wait_for(|phase| *phase != Phase::SomeStall).await?;
        }
        let message = socket.next().await.context("the server closed the line")??;
        let Ok(text) = message.to_text() else { continue };
        let mut words = text.split(' ');
        let (Some(count), Some(micros)) = (words.next(), words.next()) else { continue };
        let (count, micros): (u64, u64) = (count.parse()?, micros.parse()?);
        let mut board = board.borrow_mut();
        // Who came when messages were flowing begins with whichever comes first.
        let expected = if board.received[number] == 0 { count } else { board.received[number] };
        anyhow::ensure!(count == expected, "subscriber {number} got {count} and not {expected}");
        board.received[number] = count + 1;
        if !stalls(number) {
            board.latencies.note(began.elapsed().saturating_sub(Duration::from_micros(micros)));
        }
    }
}

/// Publishes at the rate on a thread of its own until told to stop; answers how many there were.
fn publish(
    options: &Options,
    began: Instant,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<u64>>> {
    let (url, size, rate) = (options.amqp.clone(), options.size, options.rate);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let publishing = async move {
        let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let (start, mut count) = (Instant::now(), 0u64);
        while !*stopped.borrow() {
            let meant_for = start + Duration::from_secs(1) * u32::try_from(count)? / rate;
            tokio::time::sleep_until(meant_for.into()).await;
            let mut body = format!("{count} {} ", meant_for.duration_since(began).as_micros());
            body.extend(std::iter::repeat_n('x', size.saturating_sub(body.len())));
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            channel.basic_publish("amq.topic".into(), "t".into(), options, body.as_bytes(), properties).await?;
            count += 1;
        }
        Ok(count)
    };
    Ok(std::thread::spawn(move || runtime.block_on(publishing)))
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
