//! What the admin listener shows, as plain data, and the trait through which it asks for it. It names nothing that
//! answers: the composition root implements the trait.

use std::future::Future;

use serde::Serialize;

use crate::model::publication::UnixMillis;

/// Where the admin listener's answers come from.
pub trait AdminView: Send + Sync + 'static {
    /// Every metric as Prometheus text.
    fn metrics(&self) -> String;

    /// Whether this node should be sent clients.
    fn readiness(&self) -> Readiness;

    /// Begins to send everybody away, and takes nobody in any more. Asking again changes nothing.
    fn drain(&self);

    /// Sessions of this node, at most `limit` of them.
    fn connections(&self, limit: usize) -> impl Future<Output = Listing<ConnectionRow>> + Send;

    /// Topics that the logs hold, those with the newest messages first, at most `limit` of them.
    fn topics(&self, limit: usize) -> impl Future<Output = Listing<TopicRow>> + Send;
}

/// Whether this node should be sent clients, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The answer.
    pub ready: bool,
    /// Sentences; there may be some of them although the node is ready, such as an outage that sessions sit out.
    pub reasons: Vec<String>,
}

/// What readiness needs to know of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReadiness<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it has its link now.
    pub up: bool,
    /// Whether it ever had it.
    pub ever_up: bool,
    /// What stands in the way, in words, where that is known.
    pub obstacle: Option<&'a str>,
}

/// What readiness needs to know of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePhase {
    /// It takes clients.
    Serving,
    /// It is stopping and sends its clients away.
    Draining,
}

/// What a later outage does to readiness, after every source had its first link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// Nothing: sessions stay.
    StayReady,
    /// The node is not ready (`server.ready_on_outage = false`).
    BecomeUnready,
}

/// A bounded part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<Row> {
    /// The rows, at most as many as were asked for.
    pub rows: Vec<Row>,
    /// How many there are in all.
    pub total: usize,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectionRow {
    /// Its name, as in `welcome` and in the log.
    pub connection: String,
    /// Who it is: a name, `anonymous` or `unauthenticated`.
    pub user: String,
    /// The subprotocol's name.
    pub protocol: &'static str,
    /// `websocket` or `sse`.
    pub transport: &'static str,
    /// The client's address, as far as it is known.
    pub address: Option<String>,
    /// Name and version of the client's program, as it says.
    pub client: Option<String>,
    /// When it began.
    pub since_ms: UnixMillis,
    /// The first of the patterns that stand.
    pub patterns: Vec<String>,
    /// Subscriptions in all.
    pub subscriptions: usize,
    /// Subscriptions whose bindings do not stand yet.
    pub pending: usize,
    /// Messages that it was sent since it began.
    pub matched: u64,
    /// Bytes that wait for its socket.
    pub outbox_bytes: usize,
    /// What it missed last.
    pub last_gap: Option<GapRow>,
}

/// A gap as it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GapRow {
    /// The subscription that missed something.
    pub pattern: String,
    /// The source.
    pub source: String,
    /// Why.
    pub reason: &'static str,
    /// How many messages, when that is known.
    pub missed: Option<u64>,
}

/// One topic of one source's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicRow {
    /// The source.
    pub source: String,
    /// The topic.
    pub topic: String,
    /// Messages that the log holds.
    pub messages: u64,
    /// When the newest was received.
    pub last_ms: UnixMillis,
}

impl Readiness {
    /// Not ready until every source had its first link, and not while draining; a later outage as `on_outage` says.
    pub fn of<'a>(
        phase: NodePhase,
        on_outage: OnOutage,
        sources: impl IntoIterator<Item = SourceReadiness<'a>>,
    ) -> Self {
        let mut readiness = Self { ready: true, reasons: Vec::new() };
        if phase == NodePhase::Draining {
            readiness.ready = false;
            readiness.reasons.push("this node is draining: new clients belong on another".to_owned());
        }
        for source in sources.into_iter().filter(|source| !source.up) {
            if !source.ever_up || on_outage == OnOutage::BecomeUnready {
                readiness.ready = false;
            }
            readiness.reasons.push(source.sentence());
        }
        readiness
    }
}

impl SourceReadiness<'_> {
    fn sentence(&self) -> String {
        let state = if self.ever_up { "lost its broker" } else { "does not stand yet" };
        match self.obstacle {
            Some(obstacle) => format!("source '{}' {state}: {obstacle}", self.name),
            None => format!("source '{}' {state}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: SourceReadiness<'_> = SourceReadiness { name: "events", up: true, ever_up: true, obstacle: None };
    const LOST: SourceReadiness<'_> = SourceReadiness { name: "events", up: false, ever_up: true, obstacle: None };
    const NEVER: SourceReadiness<'_> = SourceReadiness {
        name: "orders",
        up: false,
        ever_up: false,
        obstacle: Some("exchange 'orders' does not exist on vhost '/'"),
    };

    #[test]
    fn one_source_that_never_had_its_link_is_enough() {
        let readiness = Readiness::of(NodePhase::Serving, OnOutage::StayReady, [UP, NEVER]);
        assert!(!readiness.ready);
        let sentence = "source 'orders' does not stand yet: exchange 'orders' does not exist on vhost '/'";
        assert_eq!(readiness.reasons, [sentence]);
    }

    #[test]
    fn a_later_outage_is_told_and_decides_only_where_it_should() {
        let stays = Readiness::of(NodePhase::Serving, OnOutage::StayReady, [LOST]);
        assert!(stays.ready);
        assert_eq!(stays.reasons, ["source 'events' lost its broker"]);
        assert!(!Readiness::of(NodePhase::Serving, OnOutage::BecomeUnready, [LOST]).ready);
    }

    #[test]
    fn draining_is_never_ready() {
        assert!(Readiness::of(NodePhase::Serving, OnOutage::StayReady, [UP]).ready);
        assert!(!Readiness::of(NodePhase::Draining, OnOutage::StayReady, [UP]).ready);
    }
}
