//! Every metric in one struct, with methods named after what happened. Labels are resolved once, when it is made, so
//! that counting is an addition; the hot path counts by batch.
//!
//! It knows no socket and nothing global: whoever counts holds a reference. No label is ever a topic, user or address.

mod labels;

use std::time::Duration;

use prometheus::local::LocalHistogram;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::model::close::CloseReason;
use crate::model::gap::GapReason;
use crate::model::publication::{Publication, PublishedAt, SourceId, UnixMillis};
use crate::protocol::{ProtocolId, REGISTRY};

pub use labels::{BrokerLink, CallResult, DropReason, Handshake, PublishResult, Rejection, Settling, Transport};

use labels::Label;

/// Upper bounds of the latency histograms in seconds; publishers tell milliseconds, so none is finer.
const LATENCY_BUCKETS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Every metric of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sources: Vec<SourceMetrics>,
    protocols: Vec<ProtocolMetrics>,
    links: Vec<IntGauge>,
    gaps: Vec<IntCounter>,
    drops: Vec<IntCounter>,
    handshakes: Vec<IntCounter>,
    closes: Vec<IntCounter>,
    publishes: Vec<IntCounter>,
    calls: Vec<IntCounter>,
    settled: Vec<IntCounter>,
    consumers: IntGauge,
    held: IntGauge,
    subscriptions: IntGauge,
    outbox_bytes: IntGauge,
    slow_sessions: IntGauge,
    kept_sessions: IntGauge,
    abandoned_groups: IntGauge,
    kept_subscriptions: IntGauge,
    presence_members: IntGauge,
    presence_nodes: IntGauge,
    presence_rejected: IntCounter,
    falls: IntCounter,
    looked_at: IntCounter,
    publish_to_socket: Histogram,
    receive_to_socket: Histogram,
}

/// One source's.
#[derive(Debug)]
struct SourceMetrics {
    messages: IntCounter,
    bytes: IntCounter,
    rejected: Vec<IntCounter>,
    unsettled: IntGauge,
    bindings: IntGauge,
    fetches: IntCounter,
    relays: IntGauge,
    relayed: IntCounter,
    last_kept: IntGauge,
    last_evicted: IntCounter,
}

/// One subprotocol's.
#[derive(Debug)]
struct ProtocolMetrics {
    deliveries: IntCounter,
    bytes: IntCounter,
    encodes: IntCounter,
    connections: Vec<IntGauge>,
}

/// One shard's latency histograms: observed without touching what other threads see, until [`Latencies::flush`].
#[derive(Debug)]
pub struct Latencies {
    publish_to_socket: LocalHistogram,
    receive_to_socket: LocalHistogram,
}

impl Metrics {
    /// All of them at zero; `source_names` in the order of [`SourceId`].
    ///
    /// # Errors
    /// When two metrics have the same name or one is ill-formed: a fault of this file, found by every test of it.
    pub fn new<S: AsRef<str>>(source_names: &[S]) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let maker = Maker { registry: &registry };
        maker.build_info()?;
        maker.process()?;
        let (gap, drop) = ("Gaps told to clients, by reason.", "Messages thrown away before their client got them.");
        let handshake =
            "Attempts to open a WebSocket, a stream or a poll, and connections that came to no request, by result.";
        let calls = "Calls of clients, by result; `abandoned`: nobody waited for the answer any more.";
        Ok(Self {
            sources: maker.sources(source_names)?,
            protocols: maker.protocols()?,
            links: maker.gauges::<BrokerLink>("amqp_link_up", "Whether a connection to the broker stands.", "link")?,
            gaps: maker.counters::<GapReason>("gaps_total", gap, "reason")?,
            drops: maker.counters::<DropReason>("drops_total", drop, "reason")?,
            handshakes: maker.counters::<Handshake>("handshakes_total", handshake, "result")?,
            closes: maker.counters::<CloseReason>("closes_total", "Sessions that ended, by reason.", "reason")?,
            publishes: maker.counters::<PublishResult>(
                "publishes_total",
                "Publishes of clients, by result.",
                "result",
            )?,
            calls: maker.counters::<CallResult>("calls_total", calls, "result")?,
            settled: maker.counters::<Settling>(
                "settled_total",
                "Deliveries that clients consumed, by their end.",
                "result",
            )?,
            consumers: maker.gauge("consumers", "Queues that clients consume, over all sessions.")?,
            held: maker.gauge("held_deliveries", "Deliveries that clients hold and have not settled.")?,
            subscriptions: maker
                .gauge("subscriptions", "Patterns subscribed whose bindings stand, over all sessions.")?,
            outbox_bytes: maker.gauge("outbox_bytes", "Bytes that wait for their client's socket.")?,
            slow_sessions: maker.gauge("slow_sessions", "Sessions whose socket takes no more at present.")?,
            kept_sessions: maker.gauge("kept_sessions", "Sessions of MQTT clients that are away.")?,
            abandoned_groups: maker.gauge(
                "abandoned_groups",
                "Groups of MQTT clients without a member here whose queue the broker may keep.",
            )?,
            kept_subscriptions: maker.gauge("kept_subscriptions", "Subscriptions of those sessions.")?,
            presence_members: maker
                .gauge("presence_members", "Subscriptions to patterns with presence, over all nodes.")?,
            presence_nodes: maker.gauge("presence_nodes", "Nodes known through presence, this one included.")?,
            presence_rejected: maker
                .counter("presence_rejected_total", "Messages between nodes that cannot be read and were ignored.")?,
            falls: maker.counter("fell_behind_total", "Times that a session left what is live for the log.")?,
            looked_at: maker.counter(
                "log_reads_total",
                "Messages looked at in logs for who came back or fell behind; shared by those who read the same.",
            )?,
            publish_to_socket: maker.latency("publish_to_socket_seconds", "From the publisher's clock")?,
            receive_to_socket: maker.latency("receive_to_socket_seconds", "From the broker's delivery")?,
            registry,
        })
    }

    /// Everything as Prometheus text.
    pub fn render(&self) -> String {
        let encoded = TextEncoder::new().encode_to_string(&self.registry.gather());
        encoded.unwrap_or_else(|error| format!("# {error}\n"))
    }

    /// A source received `messages` with `bytes` of payload in all.
    pub fn source_received(&self, source: SourceId, messages: u64, bytes: u64) {
        if let Some(metrics) = self.sources.get(source.index()) {
            metrics.messages.inc_by(messages);
            metrics.bytes.inc_by(bytes);
        }
    }

    /// A source could not make a message of a delivery.
    pub fn source_rejected(&self, source: SourceId, reason: Rejection) {
        if let Some(metrics) = self.sources.get(source.index()) {
            metrics.rejected[reason.index()].inc();
        }
    }

    /// A source now holds this many deliveries that it has not acknowledged.
    pub fn source_unsettled(&self, source: SourceId, deliveries: usize) {
        if let Some(metrics) = self.sources.get(source.index()) {
            metrics.unsettled.set(signed(deliveries));
        }
    }

    /// A stream was read, for a page that the log no longer held or to look a cursor up.
    pub fn stream_fetch(&self, source: SourceId) {
        if let Some(metrics) = self.sources.get(source.index()) {
            metrics.fetches.inc();
        }
    }

    /// This node moves a source's queue into its stream.
    pub fn relay_began(&self, source: SourceId) {
        if let Some(metrics) = self.sources.get(source.index()) {
            metrics.relays.set(1);
        }
    }

    /// It does so no longer.
    pub fn relay_ended(&self, source: SourceId) {
        if let Some(metrics) = self.sources.get(source.index()) {
            metrics.relays.set(0);
        }
    }

    /// So many messages were moved from a source's queue into its stream.
    pub fn relayed(&self, source: SourceId, messages: usize) {
        if let Some(metrics) = self.sources.get(source.index()) {
            metrics.relayed.inc_by(messages as u64);
        }
    }

    /// A source's log keeps so many last messages, and so many had to go since this was told before.
    pub fn last_messages(&self, source: SourceId, kept: usize, evicted: u64) {
        if let Some(metrics) = self.sources.get(source.index()) {
            metrics.last_kept.set(signed(kept));
            metrics.last_evicted.inc_by(evicted);
        }
    }

    /// This many bindings of a source now stand on the broker.
    pub fn bindings(&self, source: SourceId, bindings: usize) {
        if let Some(metrics) = self.sources.get(source.index()) {
            metrics.bindings.set(signed(bindings));
        }
    }

    /// A connection to the broker stands.
    pub fn link_up(&self, link: BrokerLink) {
        self.links[link.index()].set(1);
    }

    /// A connection to the broker is gone.
    pub fn link_down(&self, link: BrokerLink) {
        self.links[link.index()].set(0);
    }

    /// A shard handed `messages` with `bytes` of frames in all to sockets.
    pub fn deliveries(&self, protocol: ProtocolId, messages: u64, bytes: u64) {
        if let Some(metrics) = self.protocols.get(usize::from(protocol.0)) {
            metrics.deliveries.inc_by(messages);
            metrics.bytes.inc_by(bytes);
        }
    }

    /// A shard encoded this many messages, each for all its subscribers.
    pub fn encodes(&self, protocol: ProtocolId, messages: u64) {
        if let Some(metrics) = self.protocols.get(usize::from(protocol.0)) {
            metrics.encodes.inc_by(messages);
        }
    }

    /// A session began.
    pub fn connection_opened(&self, protocol: ProtocolId, transport: Transport) {
        if let Some(metrics) = self.protocols.get(usize::from(protocol.0)) {
            metrics.connections[transport.index()].inc();
        }
    }

    /// A session that [`Self::connection_opened`] counted is gone.
    pub fn connection_closed(&self, protocol: ProtocolId, transport: Transport, reason: CloseReason) {
        if let Some(metrics) = self.protocols.get(usize::from(protocol.0)) {
            metrics.connections[transport.index()].dec();
        }
        self.closes[reason.index()].inc();
    }

    /// Clients were told of this many gaps.
    pub fn gaps(&self, reason: GapReason, gaps: u64) {
        self.gaps[reason.index()].inc_by(gaps);
    }

    /// This many messages were thrown away before their client got them.
    pub fn drops(&self, reason: DropReason, messages: u64) {
        self.drops[reason.index()].inc_by(messages);
    }

    /// An attempt to open a session ended.
    pub fn handshake(&self, result: Handshake) {
        self.handshakes[result.index()].inc();
    }

    /// A client's publish was answered.
    pub fn publish(&self, result: impl Into<PublishResult>) {
        self.publishes[result.into().index()].inc();
    }

    /// A client's call was answered, or abandoned.
    pub fn call(&self, result: impl Into<CallResult>) {
        self.calls[result.into().index()].inc();
    }

    /// Deliveries that clients consumed came to an end.
    pub fn settled(&self, how: impl Into<Settling>, deliveries: usize) {
        self.settled[how.into().index()].inc_by(deliveries as u64);
    }

    /// Clients began to consume a queue (1), or no longer do (-1).
    pub fn consumers_changed(&self, by: i64) {
        self.consumers.add(by);
    }

    /// Clients hold this many deliveries more (or, negative, less).
    pub fn held_changed(&self, by: i64) {
        self.held.add(by);
    }

    /// Subscriptions came (positive) or went (negative).
    pub fn subscriptions_changed(&self, by: i64) {
        self.subscriptions.add(by);
    }

    /// A shard's outboxes hold so many bytes more (or, negative, less) than when it last said so.
    pub fn outbox_bytes_changed(&self, by: i64) {
        self.outbox_bytes.add(by);
    }

    /// Sessions became slow (positive), or no longer are (negative).
    pub fn slow_sessions_changed(&self, by: i64) {
        self.slow_sessions.add(by);
    }

    /// So many sessions are kept whose clients are away, with so many subscriptions in all.
    pub fn kept(&self, sessions: usize, subscriptions: usize) {
        self.kept_sessions.set(signed(sessions));
        self.kept_subscriptions.set(signed(subscriptions));
    }

    /// So many groups are without a member whose queue the broker may keep.
    pub fn abandoned_groups(&self, groups: usize) {
        self.abandoned_groups.set(signed(groups));
    }

    /// So many members of patterns with presence are known, on so many nodes.
    pub fn presence(&self, members: u64, nodes: usize) {
        self.presence_members.set(i64::try_from(members).unwrap_or(i64::MAX));
        self.presence_nodes.set(signed(nodes));
    }

    /// Something came over the exchange of presence that no node can have sent.
    pub fn presence_rejected(&self) {
        self.presence_rejected.inc();
    }

    /// A session was too slow for what is live and goes on from the log.
    pub fn fell_behind(&self) {
        self.falls.inc();
    }

    /// A replay looked at so many messages in a log.
    pub fn looked_at(&self, messages: u64) {
        self.looked_at.inc_by(messages);
    }

    /// Latency histograms for one shard.
    pub fn latencies(&self) -> Latencies {
        Latencies {
            publish_to_socket: self.publish_to_socket.local(),
            receive_to_socket: self.receive_to_socket.local(),
        }
    }
}

impl Latencies {
    /// The first subscribers' sockets took `publication` at `now`: observed once a publication, not once a subscriber.
    ///
    /// A clock that runs behind the publisher's counts as no time at all.
    pub fn written(&self, publication: &Publication, now: UnixMillis) {
        let since = |then: UnixMillis| Duration::from_millis(now.saturating_sub(then)).as_secs_f64();
        self.receive_to_socket.observe(since(publication.draft.received_at));
        if let PublishedAt::Millis(published_at) = publication.draft.attributes.published_at {
            self.publish_to_socket.observe(since(published_at));
        }
    }

    /// Adds what was observed to what [`Metrics::render`] shows; once a turn is enough. Dropping flushes too.
    pub fn flush(&self) {
        self.publish_to_socket.flush();
        self.receive_to_socket.flush();
    }
}

/// Makes and registers.
struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn build_info(&self) -> prometheus::Result<()> {
        let vector = self.gauge_vector("build_info", "Always 1; the labels say what runs.", &["version"])?;
        vector.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);
        Ok(())
    }

    /// `process_*` where the operating system tells; elsewhere nothing.
    fn process(&self) -> prometheus::Result<()> {
        #[cfg(target_os = "linux")]
        self.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(())
    }

    fn sources<S: AsRef<str>>(&self, names: &[S]) -> prometheus::Result<Vec<SourceMetrics>> {
        let source = &["source"];
        let messages = self.counter_vector("source_messages_total", "Messages received from the broker.", source)?;
        let bytes = self.counter_vector("source_bytes_total", "Bytes of the payloads received.", source)?;
        let rejected = "Deliveries that could not become a message, by reason.";
        let rejected = self.counter_vector("source_rejected_total", rejected, &["source", "reason"])?;
        let unsettled = "Deliveries received and not yet acknowledged.";
        let unsettled = self.gauge_vector("source_unsettled", unsettled, source)?;
        let bindings = self.gauge_vector("bindings", "Bindings that stand on the broker.", source)?;
        let fetches = "Pages read from a stream that the log no longer held, and cursors looked up in it.";
        let fetches = self.counter_vector("stream_fetches_total", fetches, source)?;
        let relays = "Whether this node is the one that moves the source's queue into its stream.";
        let relays = self.gauge_vector("relay", relays, source)?;
        let relayed = "Messages moved from the source's queue into its stream by this node.";
        let relayed = self.counter_vector("relayed_total", relayed, source)?;
        let last_kept = "Messages kept beyond the log because they are the last of their topics.";
        let last_kept = self.gauge_vector("last_messages", last_kept, source)?;
        let last_evicted = "Last messages of topics that had to go because there are too many.";
        let last_evicted = self.counter_vector("last_evicted_total", last_evicted, source)?;
        let one = |name: &str| {
            let reasons = Rejection::ALL.iter();
            Ok(SourceMetrics {
                messages: messages.get_metric_with_label_values(&[name])?,
                bytes: bytes.get_metric_with_label_values(&[name])?,
                rejected: reasons
                    .map(|reason| rejected.get_metric_with_label_values(&[name, reason.name()]))
                    .collect::<Result<_, _>>()?,
                unsettled: unsettled.get_metric_with_label_values(&[name])?,
                bindings: bindings.get_metric_with_label_values(&[name])?,
                fetches: fetches.get_metric_with_label_values(&[name])?,
                relays: relays.get_metric_with_label_values(&[name])?,
                relayed: relayed.get_metric_with_label_values(&[name])?,
                last_kept: last_kept.get_metric_with_label_values(&[name])?,
                last_evicted: last_evicted.get_metric_with_label_values(&[name])?,
            })
        };
        names.iter().map(|name| one(name.as_ref())).collect()
    }

    fn protocols(&self) -> prometheus::Result<Vec<ProtocolMetrics>> {
        let protocol = &["protocol"];
        let deliveries = self.counter_vector("deliveries_total", "Messages handed to clients' sockets.", protocol)?;
        let bytes =
            self.counter_vector("delivered_bytes_total", "Bytes of the frames handed to clients' sockets.", protocol)?;
        let encodes = "Messages encoded; far below the deliveries, because subscribers share frames.";
        let encodes = self.counter_vector("encodes_total", encodes, protocol)?;
        let connections = self.gauge_vector("connections", "Open sessions.", &["protocol", "transport"])?;
        let one = |name: &str| {
            let transports = Transport::ALL.iter();
            Ok(ProtocolMetrics {
                deliveries: deliveries.get_metric_with_label_values(&[name])?,
                bytes: bytes.get_metric_with_label_values(&[name])?,
                encodes: encodes.get_metric_with_label_values(&[name])?,
                connections: transports
                    .map(|transport| connections.get_metric_with_label_values(&[name, transport.name()]))
                    .collect::<Result<_, _>>()?,
            })
        };
        REGISTRY.iter().map(|row| one(row.name)).collect()
    }

    /// One counter a value of the label.
    fn counters<L: Label>(&self, name: &str, help: &str, label: &str) -> prometheus::Result<Vec<IntCounter>> {
        let vector = self.counter_vector(name, help, &[label])?;
        L::ALL.iter().map(|value| vector.get_metric_with_label_values(&[value.name()])).collect()
    }

    /// One gauge a value of the label.
    fn gauges<L: Label>(&self, name: &str, help: &str, label: &str) -> prometheus::Result<Vec<IntGauge>> {
        let vector = self.gauge_vector(name, help, &[label])?;
        L::ALL.iter().map(|value| vector.get_metric_with_label_values(&[value.name()])).collect()
    }

    fn counter_vector(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.registered(IntCounterVec::new(options(name, help), labels)?)
    }

    fn gauge_vector(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.registered(IntGaugeVec::new(options(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.registered(IntCounter::with_opts(options(name, help))?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.registered(IntGauge::with_opts(options(name, help))?)
    }

    fn latency(&self, name: &str, from: &str) -> prometheus::Result<Histogram> {
        let help = format!("{from} to the subscribers' sockets, once a message and shard.");
        let buckets = LATENCY_BUCKETS.to_vec();
        self.registered(Histogram::with_opts(HistogramOpts { common_opts: options(name, &help), buckets })?)
    }

    fn registered<C>(&self, metric: C) -> prometheus::Result<C>
    where
        C: prometheus::core::Collector + Clone + 'static,
    {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("passerelle")
}

/// Counts beyond what a gauge can hold do not occur; were there one, it would read as the most.
fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
