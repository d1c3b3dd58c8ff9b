//! What a run against a real broker is like, drawn from its number: sources, nodes, publishers, clients, and what is done to
//! them and when. Plain data, and the same for the same number; how fast the machine carries it out is not part of it.

use fastrand::Rng;
use passerelle::model::flow::Flow;

/// How long publishers publish and things go wrong, in milliseconds.
const LENGTH_MS: std::ops::Range<u64> = 3_000..4_500;
/// One run of so many kills the broker, which takes its time to come back.
const BROKER_DIES_EVERY: u64 = 3;

pub(crate) const TOPICS: [&str; 8] = ["a", "b", "a.b", "a.c", "b.c", "a.b.c", "c.b", "c"];
const PATTERNS: [&str; 12] = ["#", "a.#", "*.b", "a.*", "#.c", "a", "b", "a.b", "*", "*.*", "b.#", "#.b.#"];

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) length_ms: u64,
    pub(crate) sources: Vec<Source>,
    pub(crate) publishers: Vec<Publisher>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) clients: Vec<Client>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) kind: Kind,
    /// Its log keeps messages and, on demand, bindings this long; nothing for longer than a run takes.
    pub(crate) keeps_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An exchange, bound to what is wanted.
    OnDemand,
    /// An exchange, bound to everything.
    Fixed,
    Stream,
    /// A queue, which the first node alone consumes.
    Queue,
    /// A queue that one node at a time moves into a stream, which all read.
    Moved,
}

impl Kind {
    pub(crate) fn is_exchange(self) -> bool {
        matches!(self, Self::OnDemand | Self::Fixed)
    }

    /// Whether it is published to a queue, which may bring a message again.
    pub(crate) fn has_queue(self) -> bool {
        matches!(self, Self::Queue | Self::Moved)
    }

    /// Whether all nodes read the same stream.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Stream | Self::Moved)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OnDemand | Self::Fixed => "events",
            Self::Stream => "stored",
            Self::Queue => "jobs",
            Self::Moved => "work",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publisher {
    /// Between two bursts.
    pub(crate) pace_ms: u64,
    /// Messages under way at a time, at most.
    pub(crate) burst_max: usize,
}

/// Something is harmed, and mended after a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// After the one before was mended, or after the beginning.
    pub(crate) after_ms: u64,
    pub(crate) what: Harm,
    pub(crate) for_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// SIGKILL; started again on the same data.
    Broker,
    /// SIGKILL; another process takes its place.
    Node(usize),
    /// The node's connections to the broker are cut, and new ones refused.
    Links(usize),
    /// They stay, and nothing passes.
    Stall(usize),
    /// All clients of a node lose their lines at once.
    Lines(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Json,
    EventStream,
    Raw,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) transport: Transport,
    pub(crate) patterns: Vec<&'static str>,
    /// The only source it reads, by its place.
    pub(crate) source: Option<usize>,
    pub(crate) flow: Flow,
    /// It asks for the messages of this publisher only.
    pub(crate) publisher: Option<usize>,
    pub(crate) comes_at_ms: u64,
    /// Where it stays and for how long, before it comes to the last.
    pub(crate) stays: Vec<Stay>,
    pub(crate) last_node: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stay {
    pub(crate) node: usize,
    pub(crate) for_ms: u64,
    /// How long it is away afterwards.
    pub(crate) away_ms: u64,
}

impl Schedule {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let nodes = if rng.u8(..4) == 0 { 3 } else { 2 };
        let sources = draw_sources(seed, &mut rng);
        let length_ms = rng.u64(LENGTH_MS);
        let publishers: Vec<Publisher> =
            (0..rng.usize(2..5)).map(|_| Publisher { pace_ms: rng.u64(15..60), burst_max: rng.usize(1..6) }).collect();
        let mut schedule =
            Self { seed, nodes, length_ms, sources, publishers, faults: Vec::new(), clients: Vec::new() };
        schedule.faults = schedule.draw_faults(&mut rng);
        schedule.clients = (0..rng.usize(100..240)).map(|_| schedule.draw_client(&mut rng)).collect();
        schedule
    }

    fn draw_faults(&self, rng: &mut Rng) -> Vec<Fault> {
        let mut faults: Vec<Fault> = (0..rng.usize(2..5))
            .map(|_| {
                let node = rng.usize(..self.nodes);
                let what = [Harm::Node(node), Harm::Links(node), Harm::Stall(node), Harm::Lines(node)][rng.usize(..4)];
                Fault { after_ms: rng.u64(200..900), what, for_ms: rng.u64(50..700) }
            })
            .collect();
        if broker_dies(self.seed) {
            faults.truncate(2);
            let fault = Fault { after_ms: rng.u64(300..900), what: Harm::Broker, for_ms: rng.u64(..300) };
            faults.insert(rng.usize(..=faults.len()), fault);
        }
        faults
    }

    fn draw_client(&self, rng: &mut Rng) -> Client {
        let transport = match rng.u8(..10) {
            0..=4 => Transport::Json,
            5..=8 => Transport::EventStream,
            _ => Transport::Raw,
        };
        let mut patterns: Vec<&str> = (0..rng.usize(1..3)).map(|_| PATTERNS[rng.usize(..PATTERNS.len())]).collect();
        patterns.sort_unstable();
        patterns.dedup();
        let only = rng.usize(..self.sources.len());
        let has_queue = self.sources.iter().any(|source| source.kind == Kind::Queue);
        // Only the first node has the queue: who goes elsewhere reads another source.
        let stays_put = has_queue && (self.sources[only].kind == Kind::Queue || rng.u8(..4) == 0);
        let source = (rng.u8(..3) == 0 || has_queue && !stays_put).then_some(only);
        let mut node = || if stays_put { 0 } else { rng.usize(..self.nodes) };
        let (last_node, nodes) = (node(), [node(), node(), node(), node()]);
        let stays = nodes[..rng.usize(..nodes.len())].iter();
        let stays = stays.map(|node| Stay {
            node: *node,
            for_ms: rng.u64(20..1_500),
            away_ms: rng.u64(..=1) * rng.u64(..1_200),
        });
        Client {
            transport,
            patterns,
            source,
            stays: stays.collect(),
            last_node,
            flow: [Flow::CatchUp, Flow::CatchUp, Flow::Latest, Flow::DropOldest][rng.usize(..4)],
            publisher: (rng.u8(..6) == 0).then(|| rng.usize(..self.publishers.len())),
            comes_at_ms: rng.u64(..=1) * rng.u64(..2_000),
        }
    }
}

fn broker_dies(seed: u64) -> bool {
    seed % BROKER_DIES_EVERY == 1
}

fn draw_sources(seed: u64, rng: &mut Rng) -> Vec<Source> {
    let exchange = if rng.u8(..3) == 0 { Kind::Fixed } else { Kind::OnDemand };
    let mut kinds = vec![exchange, Kind::Stream];
    match rng.u8(..6) {
        0 => kinds.push(Kind::Queue),
        // A broker that is killed may have confirmed what its streams do not hold, and this queue no longer has it.
        1..=3 if !broker_dies(seed) => kinds.push(Kind::Moved),
        _ => {}
    }
    let keeps_ms = |rng: &mut Rng| (rng.u8(..3) == 0).then_some(1_000);
    kinds.into_iter().map(|kind| Source { kind, keeps_ms: keeps_ms(rng) }).collect()
}

#[test]
fn a_seed_gives_the_same_schedule_again() {
    for seed in 0..50 {
        let schedule = Schedule::draw(seed);
        assert_eq!(schedule, Schedule::draw(seed));
        assert_ne!(schedule, Schedule::draw(seed + 1));
        assert!(schedule.sources[0].kind.is_exchange() && schedule.sources[1].kind == Kind::Stream);
        assert!(schedule.clients.len() >= 100 && schedule.publishers.len() >= 2 && schedule.nodes >= 2);
    }
}
