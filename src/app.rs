//! The composition root: the only file that names concrete sources, transports and listeners. It decides in which order
//! things start and stop: addresses are bound first, because a taken one is the mistake that is seen at once; then come the
//! shards, the broker side, and last those who accept. Stopping goes backwards.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Secret, Settings, Source};
use crate::embedded;
use crate::hub::feed::Hub;
use crate::hub::presence;
use crate::hub::upstream::Upstream;
use crate::metrics::Metrics;
use crate::model::cursor::Epoch;
use crate::model::publication::SourceId;
use crate::source::amqp;
use crate::transport::admin::AdminListener;
use crate::transport::admin::view::{
    AdminView, ConnectionRow, Listing, NodePhase, OnOutage, Readiness, SourceReadiness, TopicRow,
};
use crate::transport::driver::{Control, Shared, unix_millis};
use crate::transport::listener::{self, Listener};
use crate::transport::seats::Seats;
use crate::transport::sessions::{Count, Sessions};
use crate::transport::shard::{self, ShardHandle};

/// Publishes, and calls, that may wait for the broker's connection.
const JOBS_MAX: usize = 8_192;

/// How long the broker side may take to settle what it holds when the server stops.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long sources may take to stop before clients are sent away all the same.
const SOURCES_STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// How often logs forget what is too old, where no new message makes them.
const EXPIRY_PERIOD: Duration = Duration::from_secs(5);

/// Between two looks at whether the shards have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Files that the process needs beside its connections.
const FILES_BESIDE: u64 = 200;

/// Runs the server until it is told to stop.
///
/// # Errors
/// When it cannot start: an address is taken, a file cannot be read, or with `amqp.fail_fast` the broker does not answer.
pub fn serve(settings: Settings) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("broker").enable_all().build()?;
    runtime.block_on(run(settings))
}

async fn run(mut settings: Settings) -> anyhow::Result<()> {
    raise_open_files(&settings);
    let stop = CancellationToken::new();
    let background = TaskTracker::new();
    if let Some(embedded) = settings.embedded.clone() {
        let listener = embedded::Listener::bind(&embedded)?;
        let url = format!("amqp://guest:guest@{}", listener.local_addr());
        tracing::info!("in RabbitMQ's place an embedded AMQP broker, in memory and for trying out, is at {url}");
        settings.amqp.urls = vec![Secret::new(url)];
        background.spawn(listener.run(stop.child_token()));
    }
    let listeners = bind(&settings)?;
    let admin = bind_admin(&settings).await?;
    let settling = CancellationToken::new();
    let (view, mut broker) = assemble(settings, &settling)?;
    background.spawn(expire(view.shared.clone(), stop.child_token()));
    let accepting = CancellationToken::new();
    announce(&listeners, admin.as_ref());
    for listener in listeners {
        let shards = view.shards.iter().map(|shard| shard.accepted.clone()).collect();
        background.spawn(listener.deal(shards, accepting.clone()));
    }
    if let Some(admin) = admin {
        background.spawn(admin.serve(view.clone(), stop.child_token()));
    }
    let mut told = pin!(told_to_stop());
    let end = tokio::select! {
        told = &mut told => told.map_or_else(|error| End::Failed(error.into()), |()| End::Stop),
        () = view.drain_asked.cancelled() => End::Drain,
        trouble = broker.failed() => End::Failed(trouble.into()),
    };
    accepting.cancel();
    let failed = match end {
        End::Failed(error) => Some(error),
        End::Stop => {
            view.send_everybody_away(&mut broker).await;
            None
        }
        End::Drain => {
            tracing::info!("asked to drain: draining");
            view.send_everybody_away(&mut broker).await;
            tracing::info!("drained: waiting to be stopped");
            told.await.err().map(anyhow::Error::from)
        }
    };
    settling.cancel();
    if tokio::time::timeout(SETTLE_TIMEOUT, broker.join()).await.is_err() {
        tracing::warn!("the broker did not answer in time: it will return what was not acknowledged");
    }
    stop.cancel();
    background.close();
    background.wait().await;
    tracing::info!("stopped");
    failed.map_or(Ok(()), Err)
}

/// What ends the serving.
enum End {
    /// A signal: drain, then stop.
    Stop,
    /// A call: drain, and wait for the signal.
    Drain,
    Failed(anyhow::Error),
}

/// What the admin listener sees.
struct View {
    shared: Arc<Shared>,
    shards: Vec<ShardHandle>,
    broker: amqp::Readiness,
    draining: AtomicBool,
    /// Cancelled when somebody asks for it.
    drain_asked: CancellationToken,
}

/// Everything but the listeners.
fn assemble(settings: Settings, stop: &CancellationToken) -> anyhow::Result<(Arc<View>, amqp::Handle)> {
    let names: Vec<&str> = settings.sources.iter().map(|source| source.name.as_str()).collect();
    let metrics = Arc::new(Metrics::new(&names)?);
    let hub = hub(&settings);
    let (upstream, jobs) = Upstream::new(JOBS_MAX, &settings.publish);
    let seats = Seats::new(settings.server.connections_max);
    let count = shard_count(&settings);
    let sessions = Arc::new(Sessions::new(Count {
        sessions: settings.mqtt.sessions_max,
        subscriptions: settings.mqtt.kept_subscriptions_max,
    }));
    let shared = Arc::new(Shared { settings, hub, upstream, metrics, sessions });
    let shards: io::Result<Vec<_>> = (0..count).map(|number| shard::start(number, &shared, &seats)).collect();
    let shards = shards.context("cannot start a shard")?;
    let broker = amqp::start(&shared.settings, &shared.hub, jobs, shared.metrics.clone(), stop.clone());
    let view = View {
        shared,
        shards,
        broker: broker.readiness(),
        draining: AtomicBool::new(false),
        drain_asked: CancellationToken::new(),
    };
    Ok((Arc::new(view), broker))
}

/// Every source's log and interest. The epoch of this start is that of positions which are good on this node only.
fn hub(settings: &Settings) -> Hub {
    let epoch = Epoch(unix_millis() << 8 | u64::from(fastrand::u8(..)));
    let state = |(number, source): (usize, &Source)| amqp::state(source, SourceId(number as u16), epoch);
    let presence = presence::Terms {
        presences: settings.presences.clone(),
        members_max: settings.server.presence_members_max,
        heartbeat: settings.amqp.presence_heartbeat,
    };
    Hub::new(settings.sources.iter().enumerate().map(state).collect()).with_presence(presence)
}

fn shard_count(settings: &Settings) -> usize {
    match settings.server.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

fn bind(settings: &Settings) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for address in &settings.server.listen {
        let listener =
            listener::bind_tcp(*address).with_context(|| format!("cannot listen on {address} (server.listen)"))?;
        listeners.push(Listener::Tcp(listener));
    }
    if let Some(path) = &settings.server.unix_socket {
        let listener = listener::bind_unix(path)
            .with_context(|| format!("cannot listen on {} (server.unix_socket)", path.display()))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

async fn bind_admin(settings: &Settings) -> anyhow::Result<Option<AdminListener>> {
    let Some(address) = settings.admin.listen else { return Ok(None) };
    AdminListener::bind(address).await.map(Some).with_context(|| format!("cannot listen on {address} (admin.listen)"))
}

/// The lines that a newcomer looks for.
fn announce(listeners: &[Listener], admin: Option<&AdminListener>) {
    for listener in listeners {
        tracing::info!("listening on {}", listener.place());
    }
    if let Some(admin) = admin {
        tracing::info!("metrics on http://{}/metrics", admin.address());
    }
}

/// Waits for SIGTERM or SIGINT.
async fn told_to_stop() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!("{name}: draining");
    Ok(())
}

/// Logs forget what is too old also while nothing new arrives.
async fn expire(shared: Arc<Shared>, stop: CancellationToken) {
    let mut period = tokio::time::interval(EXPIRY_PERIOD);
    let mut told = vec![0; shared.hub.sources().len()];
    while stop.run_until_cancelled(period.tick()).await.is_some() {
        let now = unix_millis();
        for (source, told) in shared.hub.sources().iter().zip(&mut told) {
            let kept = {
                let mut log = source.log();
                log.expire(now);
                log.last_kept()
            };
            if kept.evicted > 0 && *told == 0 {
                tracing::warn!(
                    "source '{0}' has more topics than it may keep the last messages of: raise source.{0}.log.last_messages_max \
                     or last_bytes_max",
                    source.info().name
                );
            }
            // A log that began anew counts from zero again.
            let evicted = kept.evicted.saturating_sub(*told);
            *told = kept.evicted;
            shared.metrics.last_messages(source.info().id, kept.messages, evicted);
        }
    }
}

/// Raises the limit of open files as far as the system lets us, and says what it means when that is not far enough.
fn raise_open_files(settings: &Settings) {
    let wanted = settings.server.connections_max as u64 + FILES_BESIDE;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit < wanted => tracing::warn!(
            "this process may open {limit} files, so it holds about {} connections, not the {} of server.connections_max: \
             raise the limit (ulimit -n, LimitNOFILE) or lower the key",
            limit.saturating_sub(FILES_BESIDE),
            settings.server.connections_max
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot tell how many files this process may open"),
    }
}

impl View {
    /// Sends everybody away and waits until they are gone, for as long as the configuration allows. The sources stop before:
    /// what they acknowledged once nobody is left to get it would be lost.
    async fn send_everybody_away(&self, broker: &mut amqp::Handle) {
        self.draining.store(true, Ordering::Release);
        let period = self.shared.settings.server.drain;
        let gone = async {
            if tokio::time::timeout(SOURCES_STOP_TIMEOUT.min(period / 2), broker.stop_sources()).await.is_err() {
                tracing::warn!("the broker does not answer: the sources could not be stopped properly");
            }
            self.send_away(period).await;
        };
        if tokio::time::timeout(period, gone).await.is_err() {
            tracing::warn!("some clients did not leave in time");
        }
    }

    async fn send_away(&self, period: Duration) {
        for shard in &self.shards {
            // A shard that is gone has nobody left to tell.
            let _ = shard.controls.send(Control::Drain(period)).await;
        }
        while self.shards.iter().any(|shard| !shard.thread.is_finished()) {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }
}

impl AdminView for View {
    fn metrics(&self) -> String {
        let (members, nodes) = self.shared.hub.presence().size();
        self.shared.metrics.presence(members, nodes);
        let kept = self.shared.sessions.kept();
        self.shared.metrics.kept(kept.sessions, kept.subscriptions);
        self.shared.metrics.render()
    }

    fn readiness(&self) -> Readiness {
        let phase = if self.draining.load(Ordering::Acquire) { NodePhase::Draining } else { NodePhase::Serving };
        let stays = self.shared.settings.server.ready_on_outage;
        let on_outage = if stays { OnOutage::StayReady } else { OnOutage::BecomeUnready };
        let reasons = self.broker.reasons();
        let sources = self.shared.hub.sources().iter().map(|state| {
            let name = &*state.info().name;
            let obstacle = reasons.iter().find(|reason| reason.source == name).map(|reason| reason.message.as_str());
            SourceReadiness { name, up: state.link().up, ever_up: state.ever_up(), obstacle }
        });
        // A source whose link is up may still lack something, as a queue that nobody moves into its stream.
        let is_up = |name: &str| self.shared.hub.by_name(name).is_some_and(|state| state.link().up);
        let lacking = reasons.iter().filter(|reason| is_up(&reason.source)).map(|reason| SourceReadiness {
            name: &reason.source,
            up: false,
            ever_up: reason.outage,
            obstacle: Some(&reason.message),
        });
        Readiness::of(phase, on_outage, sources.chain(lacking))
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain_asked.cancel();
    }

    async fn connections(&self, limit: usize) -> Listing<ConnectionRow> {
        let mut listing = Listing { rows: Vec::new(), total: 0 };
        for shard in &self.shards {
            let (answer, asked) = oneshot::channel();
            let wanted = limit.saturating_sub(listing.rows.len());
            if shard.controls.send(Control::Connections(wanted, answer)).await.is_ok()
                && let Ok(part) = asked.await
            {
                listing.total += part.total;
                listing.rows.extend(part.rows);
            }
        }
        listing
    }

    async fn topics(&self, limit: usize) -> Listing<TopicRow> {
        let mut listing = Listing { rows: Vec::new(), total: 0 };
        for state in self.shared.hub.sources() {
            let log = state.log();
            listing.total += log.topic_count();
            listing.rows.extend(log.topics(limit).into_iter().map(|topic| TopicRow {
                source: state.info().name.to_string(),
                topic: topic.topic.to_string(),
                messages: topic.messages as u64,
                last_ms: topic.last_received_at,
            }));
        }
        listing.rows.sort_by_key(|row| std::cmp::Reverse(row.last_ms));
        listing.rows.truncate(limit);
        listing
    }
}
