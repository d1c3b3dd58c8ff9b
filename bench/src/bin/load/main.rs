//! The load: many subscribers, one publisher, and what that cost the server between them.
//!
//! Publishes over AMQP in a closed loop: no more messages are under way than `--in-flight`, counted at the slowest
//! subscriber, so that a bridge runs as fast as it can and nobody is dropped for being slow. Prints one JSON object.
//! A run has to end before two heartbeats have passed: these subscribers answer no pings.

mod process;
mod publisher;
mod subscribers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::sync::Notify;

use process::Process;
use subscribers::Subscribers;

/// Connects subscribers, publishes to them as fast as they follow, and prints deliveries, CPU and memory of the server.
#[derive(Parser)]
struct Options {
    /// Where to connect, with path and query.
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws?pattern=t")]
    url: String,
    /// The subprotocol to ask for.
    #[arg(long)]
    protocol: Option<String>,
    /// What each subscriber sends first, such as a subscribe.
    #[arg(long)]
    hello: Option<String>,
    /// How many subscribers.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Where to publish.
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    amqp: String,
    /// The exchange to publish to.
    #[arg(long, default_value = "amq.topic")]
    exchange: String,
    /// The routing key.
    #[arg(long, default_value = "t")]
    topic: String,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Messages published and not yet received by everybody, at most.
    #[arg(long, default_value_t = 512)]
    in_flight: u64,
    /// How long to publish before the measurement, in seconds.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// The server's process, for CPU and memory.
    #[arg(long)]
    pid: u32,
}

/// What publisher and subscribers know of each other.
#[derive(Default)]
pub(crate) struct Progress {
    /// What every subscriber has received. Written by the subscribers.
    pub(crate) slowest: AtomicU64,
    /// Rung when `slowest` has risen.
    pub(crate) risen: Notify,
    /// Set when the measurement is over.
    pub(crate) over: AtomicBool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let server = Process::new(options.pid);
    let resident_before = server.resident_bytes()?;
    let hello = options.hello.as_deref();
    let mut subscribers = Subscribers::connect(&options.url, options.protocol.as_deref(), hello, options.subscribers)?;
    subscribers.settle(Duration::from_secs(2))?;
    let idle = server.resident_bytes()?.saturating_sub(resident_before) as f64 / options.subscribers as f64;

    let progress = Arc::new(Progress::default());
    let publisher = publisher::start(&options, progress.clone());
    subscribers.run(&progress, Duration::from_secs_f64(options.warm_up))?;
    let (cpu_before, deliveries_before, began) = (server.cpu_seconds()?, subscribers.received(), Instant::now());
    subscribers.run(&progress, Duration::from_secs_f64(options.seconds))?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = server.cpu_seconds()? - cpu_before;
    let deliveries = (subscribers.received() - deliveries_before) as f64;
    progress.over.store(true, Ordering::Relaxed);
    progress.risen.notify_one();
    // What is still under way is received, so that the publisher finds its connection alive.
    publisher.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))??;

    let round = |value: f64, places: i32| (value * 10f64.powi(places)).round() / 10f64.powi(places);
    println!(
        "{}",
        serde_json::json!({
            "subscribers": options.subscribers,
            "size": options.size,
            "deliveries_per_second": round(deliveries / seconds, 0),
            "cpu_seconds_per_million": round(cpu / deliveries * 1e6, 4),
            "deliveries_per_cpu_second": round(deliveries / cpu, 0),
            "cpu_share": round(cpu / seconds, 3),
            "idle_kb": round(idle / 1024.0, 2),
            "resident_mb": round(server.resident_bytes()? as f64 / 1048576.0, 1),
        })
    );
    Ok(())
}
