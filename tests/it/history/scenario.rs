//! What a run is like, and what is published and wanted in it: drawn from its number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use passerelle::config::LogBounds;
use passerelle::hub::log::{LIVE_BYTES_MIN, LIVE_MESSAGES_MIN};
use passerelle::model::filter::{Combination, Filter, Scalar};
use passerelle::model::flow::Flow;
use passerelle::model::selector::Selector;
use passerelle::model::topic::{Pattern, Topic};
use passerelle::model::value::{Headers, Value};

use crate::history::client::Wish;
use crate::history::node::Sockets;
use crate::history::source::Kind;

const TOPICS: [&str; 10] = ["a", "b", "a.b", "a.c", "b.c", "a.b.c", "c.b", "a.a", "c", "b.a.c"];
const PATTERNS: [&str; 16] =
    ["#", "a.#", "*.b", "a.*", "#.c", "a", "b", "a.b", "*", "*.*", "b.#", "c", "a.b.c", "#.b.#", "c.*", "b.c"];

/// Headers that messages carry and filters name.
const FIELDS: [&str; 2] = ["region", "kind"];
const VALUES: [&str; 2] = ["eu", "us"];

/// What is to be in a run whatever its number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terrain {
    /// Anything.
    Any,
    /// Streams alone.
    Streams,
    /// Subscriptions with a filter alone.
    Filters,
}

impl Terrain {
    pub(crate) const ALL: [Self; 3] = [Self::Any, Self::Streams, Self::Filters];
}

/// What one run is like.
pub(crate) struct Scenario {
    pub(crate) steps: usize,
    pub(crate) clients: usize,
    pub(crate) nodes: usize,
    /// Of each node.
    pub(crate) shards: usize,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) log: LogBounds,
    pub(crate) payload: Bytes,
    pub(crate) sockets: Sockets,
    pub(crate) drop_oldest_keep: usize,
    /// How many messages one burst may bring.
    pub(crate) burst_max: usize,
    /// How often a client changes what it does, in a thousand steps.
    pub(crate) restless: u32,
    /// How often a stream is made anew.
    pub(crate) remade: u32,
    /// Of ten subscriptions so many have a filter.
    filtered: u8,
}

impl Scenario {
    pub(crate) fn draw(terrain: Terrain, rng: &mut Rng) -> Self {
        let kinds =
            [Kind::OnDemand, Kind::OnDemand, Kind::OnDemand, Kind::Fixed, Kind::Queue, Kind::Stream, Kind::Stream];
        let payload = if rng.u8(..3) == 0 { rng.usize(20_000..200_000) } else { 0 };
        let crowded = rng.u8(..12) == 0;
        // The truth of an exchange is one node's, so it is only streams that several read.
        let streams = rng.u8(..6) == 0 || terrain == Terrain::Streams;
        let nodes = if streams { rng.usize(1..3) } else { 1 };
        let mut kind = || if streams { Kind::Stream } else { kinds[rng.usize(..kinds.len())] };
        let kinds = [kind(), kind(), kind()];
        let age_max_ms = if rng.u8(..4) == 0 { 1_000 } else { 600_000 };
        Self {
            steps: rng.usize(150..700),
            clients: if crowded { rng.usize(60..150) } else { rng.usize(3..14) },
            nodes,
            shards: rng.usize(1..4),
            kinds: kinds[..rng.usize(1..4)].to_vec(),
            log: LogBounds {
                messages_max: LIVE_MESSAGES_MIN,
                bytes_max: LIVE_BYTES_MIN,
                age_max: Duration::from_millis(age_max_ms),
                ..LogBounds::default()
            },
            payload: Bytes::from(vec![0; payload]),
            sockets: Sockets { takes_max: rng.usize(1..12), waiting_max: rng.usize(1..20) },
            drop_oldest_keep: rng.usize(1..6),
            burst_max: if rng.u8(..20) == 0 { LIVE_MESSAGES_MIN + 200 } else { 6 },
            restless: rng.u32(20..250),
            remade: if rng.u8(..4) == 0 { 4 } else { 0 },
            filtered: if terrain == Terrain::Filters { 10 } else { rng.u8(..5) },
        }
    }

    /// The topic and the headers of a message.
    pub(crate) fn message(rng: &mut Rng) -> (Topic, Headers) {
        let topic = Topic::parse(TOPICS[rng.usize(..TOPICS.len())]).expect("a topic");
        let mut headers = Vec::new();
        for field in FIELDS {
            if rng.u8(..4) > 0 {
                headers.push((field.to_owned(), Value::Text(VALUES[rng.usize(..VALUES.len())].to_owned())));
            }
        }
        (topic, Headers(headers))
    }

    pub(crate) fn pattern(rng: &mut Rng) -> Pattern {
        Pattern::parse(PATTERNS[rng.usize(..PATTERNS.len())]).expect("a pattern")
    }

    /// What a subscription is to be like, of one source or of all.
    pub(crate) fn wish(&self, source: Option<String>, rng: &mut Rng) -> Wish {
        let filter = if rng.u8(..10) < self.filtered { filter(rng) } else { None };
        let wanted = Selector { pattern: Self::pattern(rng), filter };
        let last = if rng.u8(..5) == 0 { rng.usize(1..4) } else { 0 };
        Wish { wanted, source, last, flow: Flow::ALL[rng.usize(..3)] }
    }
}

/// One field, or all or any of both.
fn filter(rng: &mut Rng) -> Option<Arc<Filter>> {
    let combination = if rng.bool() { Combination::All } else { Combination::Any };
    let mut value = || Scalar::Text(VALUES[rng.usize(..VALUES.len())].to_owned());
    let mut fields: BTreeMap<String, Scalar> = FIELDS.iter().map(|name| ((*name).to_owned(), value())).collect();
    if let Some(name) = FIELDS.get(rng.usize(..2 * FIELDS.len())) {
        fields.remove(*name);
    }
    Filter::new(combination, fields).expect("a filter").map(Arc::new)
}
