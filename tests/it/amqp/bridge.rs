//! What the tests here have in common: a hub with its AMQP side running, and a plain AMQP client beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};
use passerelle::config::{ExchangeInput, Input, QueueInput, Secret, Settings, Source};
use passerelle::hub::feed::{Hub, SourceState};
use passerelle::hub::interest::Claim;
use passerelle::hub::upstream::Upstream;
use passerelle::metrics::Metrics;
use passerelle::model::cursor::Epoch;
use passerelle::model::gap::GapReason;
use passerelle::model::outgoing::{Outgoing, PublishOutcome};
use passerelle::model::publication::{Publication, SourceId};
use passerelle::model::topic::{Pattern, Topic};
use passerelle::source::amqp::{self, Handle, Readiness};
use tokio_util::sync::CancellationToken;

use crate::rabbit::{Rabbit, connect};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A hub with its AMQP side.
pub(crate) struct Bridge {
    pub(crate) hub: Hub,
    pub(crate) upstream: Upstream,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Arc<Metrics>,
    stop: CancellationToken,
    handle: Handle,
}

impl Bridge {
    /// Runs with these settings.
    pub(crate) fn start(settings: &Settings) -> Self {
        let states = settings.sources.iter().enumerate();
        let states =
            states.map(|(place, source)| amqp::state(source, SourceId(u16::try_from(place).unwrap()), Epoch(1)));
        let hub = Hub::new(states.collect());
        let names: Vec<&str> = settings.sources.iter().map(|source| source.name.as_str()).collect();
        let metrics = Arc::new(Metrics::new(&names).unwrap());
        let (upstream, jobs) = Upstream::new(8192, &settings.publish);
        let stop = CancellationToken::new();
        let handle = amqp::start(settings, &hub, jobs, metrics.clone(), stop.clone());
        Self { readiness: handle.readiness(), hub, upstream, metrics, stop, handle }
    }

    /// Stops as the program would.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.handle.join()).await.expect("the AMQP side ends");
    }

    /// Stops the sources alone, as the program does before it drains.
    pub(crate) async fn stop_sources(&mut self) {
        tokio::time::timeout(PATIENCE, self.handle.stop_sources()).await.expect("the sources end");
    }

    /// Waits until every source stands.
    pub(crate) async fn ready(&self) {
        until("every source stands", || self.readiness.reasons().is_empty()).await;
    }

    /// The only reason why a source does not stand, once there is one that says this.
    pub(crate) async fn complains(&self, words: &str) {
        let says = || self.readiness.reasons().iter().any(|reason| reason.message.contains(words));
        until_or(says, || format!("{words:?} in {:?}", self.readiness.reasons())).await;
    }

    /// Publishes once there is a link to do so; whether the message found a queue.
    pub(crate) async fn publishes(&self, topic: &str) -> bool {
        let publishing = async {
            loop {
                match self.upstream.publish(outgoing(topic, "x")).await {
                    PublishOutcome::Confirmed { routed } => return routed,
                    PublishOutcome::Unavailable(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    outcome => panic!("{outcome:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, publishing).await.expect("a link to publish on")
    }

    /// The first failure, where the settings say that it ends everything.
    pub(crate) async fn failed(&self) -> passerelle::source::Trouble {
        self.handle.failed().await
    }

    pub(crate) fn source(&self, name: &str) -> &Arc<SourceState> {
        self.hub.by_name(name).unwrap()
    }

    /// Claims and waits until it stands.
    pub(crate) async fn claim(&self, source: &str, pattern: &str) -> Claim {
        let claim = self.source(source).interest().claim(&Pattern::parse(pattern).unwrap());
        tokio::time::timeout(PATIENCE, claim.settled()).await.expect("the claim is settled").expect("and stands");
        claim
    }

    /// Everything that the log of a source holds.
    pub(crate) fn log(&self, source: &str) -> Vec<Arc<Publication>> {
        self.source(source).log().tail(0, usize::MAX, usize::MAX).publications
    }

    /// The payloads in it, as text.
    pub(crate) fn payloads(&self, source: &str) -> Vec<String> {
        let text = |publication: &Arc<Publication>| String::from_utf8_lossy(&publication.draft.payload).into_owned();
        self.log(source).iter().map(text).collect()
    }

    /// The holes in it.
    pub(crate) fn holes(&self, source: &str) -> Vec<(GapReason, Option<u64>)> {
        let tail = self.source(source).log().tail(0, usize::MAX, usize::MAX);
        tail.holes.iter().map(|hole| (hole.reason, hole.missed)).collect()
    }

    /// Waits until a log holds so many.
    pub(crate) async fn received(&self, source: &str, count: usize) -> Vec<String> {
        until_or(|| self.log(source).len() >= count, || format!("{count} messages, {}", self.log(source).len())).await;
        self.payloads(source)
    }

    /// A metric's value, by the line's beginning.
    pub(crate) fn metric(&self, line: &str) -> Option<f64> {
        let text = self.metrics.render();
        let found = text.lines().find(|candidate| candidate.starts_with(line))?;
        found.rsplit(' ').next()?.parse().ok()
    }
}

/// A plain AMQP client.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
}

impl Client {
    pub(crate) async fn connect(rabbit: &Rabbit) -> Self {
        let connection = connect(&rabbit.url()).await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { connection, channel }
    }

    pub(crate) async fn exchange(&self, name: &str, kind: ExchangeKind) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        self.channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await.unwrap();
    }

    pub(crate) async fn queue(&self, name: &str) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
    }

    /// Publishes and waits for the confirm.
    pub(crate) async fn publish(&self, exchange: &str, key: &str, payload: &str) {
        self.publish_with(exchange, key, (payload, BasicProperties::default())).await;
    }

    pub(crate) async fn publish_with(&self, exchange: &str, key: &str, (payload, properties): (&str, BasicProperties)) {
        let options = BasicPublishOptions::default();
        let sent =
            self.channel.basic_publish(exchange.into(), key.into(), options, payload.as_bytes(), properties).await;
        assert!(sent.unwrap().await.unwrap().is_ack());
    }

    /// Publishes numbers without waiting for each.
    pub(crate) async fn publish_numbers(&self, exchange: &str, key: &str, numbers: std::ops::Range<usize>) {
        let mut confirms = Vec::new();
        for number in numbers {
            let (options, text) = (BasicPublishOptions::default(), number.to_string());
            let properties = BasicProperties::default();
            let sent = self.channel.basic_publish(exchange.into(), key.into(), options, text.as_bytes(), properties);
            confirms.push(sent.await.unwrap());
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    }
}

/// A name that no other test uses.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{what}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Settings for this broker with these sources, impatient enough for tests.
pub(crate) fn settings(rabbit: &Rabbit, sources: Vec<Source>) -> Settings {
    let mut settings = Settings { sources, ..Settings::default() };
    settings.amqp.urls = vec![Secret::new(rabbit.url())];
    settings.amqp.node = unique("node");
    settings.amqp.backoff_max = Duration::from_millis(500);
    settings
}

/// A source on a topic exchange, bound on demand.
pub(crate) fn exchange_source(name: &str, exchange: &str) -> Source {
    Source { name: name.into(), input: Input::Exchange(ExchangeInput::new(exchange)), ..Source::events() }
}

pub(crate) fn exchange_input(source: &mut Source) -> &mut ExchangeInput {
    match &mut source.input {
        Input::Exchange(input) => input,
        Input::Queue(_) | Input::Stream(_) => panic!("no exchange source"),
    }
}

pub(crate) fn queue_source(name: &str, queue: &str) -> Source {
    let input = QueueInput { queue: queue.into(), shared: false, declare: false };
    Source { name: name.into(), input: Input::Queue(input), ..Source::events() }
}

pub(crate) fn outgoing(topic: &str, payload: &str) -> Outgoing {
    Outgoing::new(Topic::parse(topic).unwrap(), payload.to_owned().into())
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, done: impl FnMut() -> bool) {
    until_or(done, || what.to_owned()).await;
}

/// Waits for a condition, and says how things stand when it does not come.
pub(crate) async fn until_or(mut done: impl FnMut() -> bool, what: impl Fn() -> String) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain for: {}", what());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
