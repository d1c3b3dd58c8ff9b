//! AMQP 0-9-1 through lapin: one connection that consumes and one that publishes, because a broker in need stops
//! everything on a connection that publishes, acknowledgements included. What clients may be refused is done on others beside
//! them, because a refusal costs a channel for good.
//!
//! | file | what it does |
//! |---|---|
//! | [`link`], [`connection`], [`tls`] | keep the two connections, with no limit of tries |
//! | [`wire`], [`inspect`] | the bytes below the library: frames that would kill it are made harmless |
//! | [`exchange`], [`queue`], [`stream`] | the sources |
//! | [`intake`], [`turn`], [`relay`] | consuming a queue that is not ours; which node does; moving one into a stream for all |
//! | [`receive`], [`mapping`] | deliveries become drafts, are appended, then acknowledged |
//! | [`binder`] | what sessions want becomes bindings |
//! | [`publisher`], [`outbound`], [`rights`] | publishes, what may be in them, and which RabbitMQ allows |
//! | [`rpc`] | calls and their answers |
//! | [`consume`], [`desk`] | queues that clients consume, each on a channel of its own |
//! | [`refusals`], [`spare`] | what clients are refused: how often the broker is asked, and on connections that others do not need |
//! | [`presence`], [`bulletin`] | who listens to what, told from node to node |
//! | [`mod@check`], [`probe`] | `passerelle check --connect` |
//! | [`words`] | errors as sentences |

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Input, Settings, StreamInput, Supply};
use crate::hub::feed::{Feed, Hub, SourceState};
use crate::hub::upstream::UpstreamJobs;
use crate::metrics::{BrokerLink, Metrics};
use crate::model::cursor::Epoch;
use crate::model::publication::{SourceId, SourceInfo};
use crate::source::{Backoff, Board, Reason, Source, Subject, Trouble};

mod binder;
mod bulletin;
mod check;
mod connection;
mod consume;
mod desk;
mod exchange;
mod groups;
mod inspect;
mod intake;
mod link;
mod mapping;
mod marks;
mod outbound;
mod presence;
mod probe;
mod publisher;
mod queue;
mod receive;
mod refusals;
mod relay;
mod rights;
mod rpc;
mod spare;
mod stream;
mod tls;
mod turn;
mod wire;
mod words;

pub use check::{Finding, check};
pub use outbound::{HEADERS_BYTES_MAX, HEADERS_DEPTH_MAX};

use connection::Live;
use consume::Consumers;
use exchange::ExchangeSource;
use link::Link;
use presence::Carrier;
use publisher::Publisher;
use queue::QueueSource;
use relay::Relay;
use rpc::Caller;
use spare::Spare;
use stream::StreamSource;

/// How long the end of a source may lag behind the end of its connection before it is dropped where it stands.
const LAG_MAX: Duration = Duration::from_secs(2);

/// What everybody here shares.
#[derive(Debug)]
pub(crate) struct Context {
    settings: Settings,
    board: Board,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// Ends the sources alone; cancelled with `stop` at the latest.
    sources_stop: CancellationToken,
    /// Where things are tried that the broker may refuse.
    trials: Arc<Spare>,
    /// Held by whoever makes sure of a stream: a source and its relay do that at the same time.
    streams: tokio::sync::Mutex<()>,
}

/// The running AMQP side.
#[derive(Debug)]
pub struct Handle {
    context: Arc<Context>,
    sources: JoinSet<()>,
    users: JoinSet<()>,
    links: JoinSet<()>,
    links_stop: CancellationToken,
}

/// Tells how the sources stand; cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Context>);

impl Readiness {
    /// The sources that do not stand, and why; empty when all do.
    pub fn reasons(&self) -> Vec<Reason> {
        self.0.board.reasons()
    }
}

impl Handle {
    /// To ask how the sources stand.
    pub fn readiness(&self) -> Readiness {
        Readiness(self.context.clone())
    }

    /// With `amqp.fail_fast`, completes with the first failure; without, never.
    pub fn failed(&self) -> impl Future<Output = Trouble> + Send + 'static {
        let context = self.context.clone();
        async move {
            if !context.settings.amqp.fail_fast {
                return std::future::pending().await;
            }
            context.board.failed().await
        }
    }

    /// Stops the sources and waits until they have taken, and acknowledged, their last message. What they did not take
    /// stays with the broker; publishes and calls go on.
    pub async fn stop_sources(&mut self) {
        self.context.sources_stop.cancel();
        while self.sources.join_next().await.is_some() {}
    }

    /// Waits until everything has ended, which begins with the `shutdown` given to [`start`]: consumers are cancelled,
    /// publishes in flight are given a last chance, then the connections are closed.
    pub async fn join(mut self) {
        while self.sources.join_next().await.is_some() {}
        while self.users.join_next().await.is_some() {}
        self.context.trials.close().await;
        self.links_stop.cancel();
        while self.links.join_next().await.is_some() {}
    }
}

/// Starts everything; must be called within a tokio runtime. Returns at once: what the broker lacks is tried again and
/// shown in [`Handle::readiness`].
pub fn start(
    settings: &Settings,
    hub: &Hub,
    jobs: UpstreamJobs,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Handle {
    let board = Board::new(settings.sources.iter().flat_map(subjects));
    let sources_stop = shutdown.child_token();
    let (settings, trials) = (settings.clone(), Spare::new(&settings.amqp, "trials"));
    let streams = tokio::sync::Mutex::default();
    let context = Arc::new(Context { settings, board, metrics, stop: shutdown, sources_stop, trials, streams });
    let settings = &context.settings;
    let (mut sources, mut users) = (JoinSet::new(), JoinSet::new());
    let (mut links, links_stop) = (JoinSet::new(), CancellationToken::new());
    let (consume_state, consume) = Link::new();
    let (publish_state, publish) = Link::new();
    links.spawn(link::keep(BrokerLink::Consume, context.clone(), consume_state, links_stop.clone()));
    links.spawn(link::keep(BrokerLink::Publish, context.clone(), publish_state, links_stop.clone()));
    for source in &settings.sources {
        let Some(state) = hub.by_name(&source.name) else { continue };
        let feed = Feed::new(state.clone());
        match &source.input {
            Input::Exchange(input) => {
                let source = ExchangeSource::new(context.clone(), feed, source, input);
                sources.spawn(supervise(source, consume.clone(), context.clone()));
            }
            Input::Queue(input) => {
                let source = QueueSource::new(context.clone(), feed, source, input);
                sources.spawn(supervise(source, consume.clone(), context.clone()));
            }
            Input::Stream(stream) => {
                if let Supply::Queue(queue) = &stream.supply {
                    let relay = Relay::new(context.clone(), state.info().id, source, (queue, stream));
                    sources.spawn(supervise(relay, publish.clone(), context.clone()));
                }
                let source = StreamSource::new(context.clone(), feed, source, stream);
                sources.spawn(supervise(source, consume.clone(), context.clone()));
            }
        }
    }
    let (requests, requests_end) = mpsc::channel(settings.call.in_flight_max.clamp(1, Semaphore::MAX_PERMITS));
    let replies = requests.clone();
    users.spawn(Consumers::new(context.clone(), consume.clone(), jobs.consumes, replies).run());
    if !settings.presences.0.is_empty() && !settings.amqp.presence_exchange.is_empty() {
        let links = (consume.clone(), publish.clone());
        users.spawn(Carrier::new(context.clone(), hub.presence().clone(), links).run());
    }
    users.spawn(Caller::new(context.clone(), consume, jobs.calls, requests).run());
    users.spawn(Publisher::new(context.clone(), publish, jobs.publishes, requests_end).run());
    Handle { context, sources, users, links, links_stop }
}

/// What of a source has to stand.
fn subjects(source: &config::Source) -> impl Iterator<Item = Subject> {
    let moves = matches!(&source.input, Input::Stream(StreamInput { supply: Supply::Queue(_), .. }));
    let relay = moves.then(|| Subject::Relay(source.name.clone()));
    std::iter::once(Subject::Source(source.name.clone())).chain(relay)
}

/// What the hub keeps of a source. `epoch` names positions that are good on this node and until its end only; a stream's
/// are good everywhere.
pub fn state(source: &config::Source, id: SourceId, epoch: Epoch) -> Arc<SourceState> {
    let (name, raw_frames, events) = (source.name.as_str().into(), source.frames, source.events.clone());
    match &source.input {
        Input::Stream(input) => {
            let epoch = stream::epoch(&input.stream);
            SourceState::of_stream(Arc::new(SourceInfo { id, name, epoch, raw_frames, events }), source.log)
        }
        Input::Exchange(_) | Input::Queue(_) => {
            let info = SourceInfo { id, name, epoch, raw_frames, events };
            SourceState::new(Arc::new(info), source.log, exchange::binding_mode(source))
        }
    }
}

/// Runs a source on every connection that there is, until the sources stop.
async fn supervise<S: Source<Link = Arc<Live>>>(mut source: S, mut link: Link, context: Arc<Context>) {
    let mut backoff = Backoff::new(context.settings.amqp.backoff_max);
    loop {
        let live = tokio::select! {
            live = link.up() => live,
            () = context.sources_stop.cancelled() => return,
        };
        let since = Instant::now();
        let ended = tokio::select! {
            ended = source.run(&live, &context.board) => ended,
            () = outlived(&live) => Err(words::of_lost(None, &live.peer)),
        };
        // A source that stopped has lost nothing, and sessions that are still there shall hear of no outage.
        let Err(trouble) = ended else { return };
        backoff.stood_for(since.elapsed());
        let (is_alive, subject) = (live.is_alive(), source.subject());
        let trouble = if is_alive {
            Trouble(format!("source '{}': {trouble}", source.name()))
        } else {
            tokio::select! {
                trouble = link.lost(&live) => trouble,
                () = context.sources_stop.cancelled() => return,
            }
        };
        // Who hears of the outage finds that this is not ready.
        context.board.down(subject, &trouble);
        source.lost();
        if is_alive {
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = context.sources_stop.cancelled() => return,
            }
        }
    }
}

/// Completes some time after a connection is gone: whoever uses it has had its errors by then.
async fn outlived(live: &Live) {
    live.life.gone.cancelled().await;
    tokio::time::sleep(LAG_MAX).await;
}
