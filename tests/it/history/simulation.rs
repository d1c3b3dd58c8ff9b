//! A whole run out of one number: sources, a node with its shards, and clients that come, read, stop reading, go and come
//! back, while links fail, brokers drop, logs overflow, shards lag and nodes start anew. The same number gives the same run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use passerelle::config::LogBounds;
use passerelle::hub::feed::SourceState;
use passerelle::hub::log::{LIVE_BYTES_MIN, LIVE_MESSAGES_MIN, ReadBounds};
use passerelle::hub::shard::CursorForm;
use passerelle::model::flow::Flow;
use passerelle::model::topic::{Pattern, Topic};
use passerelle::protocol::Command;
use passerelle::session::limits::Terms;

use crate::history::broker::{Clock, Kind, Source};
use crate::history::client::{Note, Notes, Page, Saved, Stream, Subscription, Wish};
use crate::history::node::{Frame, Front, LineId, Sockets, terms};
use crate::history::record::{Cursors, History, Line, Received, Record, Told, What};
use crate::history::tamper::{Tamper, Tampering};

const TOPICS: [&str; 10] = ["a", "b", "a.b", "a.c", "b.c", "a.b.c", "c.b", "a.a", "c", "b.a.c"];
const PATTERNS: [&str; 16] =
    ["#", "a.#", "*.b", "a.*", "#.c", "a", "b", "a.b", "*", "*.*", "b.#", "c", "a.b.c", "#.b.#", "c.*", "b.c"];

/// After so many rounds a run that has nothing more to do must be at rest.
const ROUNDS_MAX: usize = 20_000;

/// What one run is like; drawn from its number.
struct Scenario {
    steps: usize,
    clients: usize,
    shards: usize,
    kinds: Vec<Kind>,
    payload: Bytes,
    sockets: Sockets,
    drop_oldest_keep: usize,
    /// How many messages one burst may bring.
    burst_max: usize,
    age_max_ms: u64,
    /// How often a client changes what it does, in a thousand steps.
    restless: u32,
}

impl Scenario {
    fn draw(rng: &mut Rng) -> Self {
        let kinds = [Kind::OnDemand, Kind::OnDemand, Kind::OnDemand, Kind::Fixed, Kind::Queue];
        let payload = if rng.u8(..3) == 0 { rng.usize(20_000..200_000) } else { 0 };
        let crowded = rng.u8(..12) == 0;
        Self {
            steps: rng.usize(150..700),
            clients: if crowded { rng.usize(60..150) } else { rng.usize(3..14) },
            shards: rng.usize(1..4),
            kinds: (0..rng.usize(1..4)).map(|_| kinds[rng.usize(..kinds.len())]).collect(),
            payload: Bytes::from(vec![0; payload]),
            sockets: Sockets { takes_max: rng.usize(1..12), waiting_max: rng.usize(1..20) },
            drop_oldest_keep: rng.usize(1..6),
            burst_max: if rng.u8(..20) == 0 { LIVE_MESSAGES_MIN + 200 } else { 6 },
            age_max_ms: if rng.u8(..4) == 0 { 1_000 } else { 600_000 },
            restless: rng.u32(20..250),
        }
    }
}

/// A client, and the connection that it has.
struct Client {
    kind: ClientKind,
    line: Option<(usize, LineId)>,
}

enum ClientKind {
    Page(Page),
    Stream(Stream),
}

/// One run.
pub(crate) struct Simulation {
    rng: Rng,
    scenario: Scenario,
    clock: Clock,
    sources: Vec<Source>,
    names: Vec<String>,
    fronts: Vec<Front>,
    /// Until which step each shard does nothing.
    stalled: Vec<usize>,
    clients: Vec<Client>,
    terms: Arc<Terms>,
    next_line: LineId,
    /// The place of each connection in the record.
    lines: BTreeMap<LineId, usize>,
    tamper: Tamper,
    record: Record,
}

/// The record of the run with this number; what was tampered with on the way is none of the hub's doing.
pub(crate) fn run(seed: u64, tampering: Option<Tampering>) -> Record {
    let mut simulation = Simulation::new(seed, tampering);
    for step in 0..simulation.scenario.steps {
        simulation.step(step);
    }
    simulation.settle();
    simulation.record.tampered = simulation.tamper.planted;
    simulation.record
}

impl Simulation {
    fn new(seed: u64, tampering: Option<Tampering>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let scenario = Scenario::draw(&mut rng);
        let mut record = Record::default();
        record.truth.remembered = LIVE_MESSAGES_MIN;
        let bounds = LogBounds {
            messages_max: LIVE_MESSAGES_MIN,
            bytes_max: LIVE_BYTES_MIN,
            age_max: Duration::from_millis(scenario.age_max_ms),
            ..LogBounds::default()
        };
        let kinds = scenario.kinds.iter().enumerate();
        let sources: Vec<Source> =
            kinds.map(|(place, kind)| Source::new(place, *kind, bounds, &mut record.truth)).collect();
        let mut simulation = Self {
            clock: Clock { moment: 0, now_ms: 1_000, start: Instant::now() },
            names: record.truth.sources.iter().map(|source| source.name.clone()).collect(),
            sources,
            fronts: Vec::new(),
            stalled: vec![0; scenario.shards],
            clients: Vec::new(),
            terms: terms(),
            next_line: 0,
            lines: BTreeMap::new(),
            tamper: Tamper::new(tampering, seed),
            record,
            scenario,
            rng,
        };
        simulation.start_node();
        for _ in 0..simulation.scenario.clients {
            let client = simulation.new_client();
            simulation.clients.push(client);
        }
        simulation
    }

    fn start_node(&mut self) {
        let states: Vec<Arc<SourceState>> = self.sources.iter().map(|source| source.state.clone()).collect();
        let Scenario { drop_oldest_keep, sockets, .. } = self.scenario;
        self.fronts = (0..self.scenario.shards).map(|_| Front::new(&states, drop_oldest_keep, sockets)).collect();
    }

    fn bounds(&mut self) -> ReadBounds {
        ReadBounds { messages_max: self.rng.usize(1..12), bytes_max: LIVE_BYTES_MIN }
    }

    fn step(&mut self, step: usize) {
        let source = self.rng.usize(..self.sources.len());
        let shard = self.rng.usize(..self.fronts.len());
        let restless = self.scenario.restless;
        let restart = if self.rng.u8(..4) == 0 { 4 } else { 0 };
        let weights = [200, 160, 260, 160, 100, 6, 6, restart, restless, 30, 12, 40];
        match self.draw(&weights) {
            0 => self.publish(source),
            1 => {
                let count = self.rng.usize(1..2 * self.scenario.burst_max);
                let (truth, clock) = (&mut self.record.truth, &mut self.clock);
                self.sources[source].deliver(count, &self.scenario.payload, truth, clock);
            }
            2 => self.work(shard, step),
            3 => {
                let client = self.rng.usize(..self.clients.len());
                let count = self.rng.usize(1..20);
                self.read(client, count);
            }
            4 => drop(self.sources[source].step(&mut self.record.truth, &mut self.clock)),
            5 => self.sources[source].link_down(&mut self.record.truth, &mut self.clock),
            6 => {
                let (count, counted) = (self.rng.usize(1..4), self.rng.bool());
                self.sources[source].drop_head(count, counted, &mut self.record.truth, &mut self.clock);
            }
            7 => self.restart(),
            8 => self.client_acts(),
            9 => {
                self.clock.now_ms += self.rng.u64(1..400);
                self.sources.iter().for_each(|source| source.expire(&self.clock));
            }
            10 => self.stalled[shard] = step + self.rng.usize(10..120),
            _ => {
                let client = self.rng.usize(..self.clients.len());
                if let Some((shard, line)) = self.clients[client].line {
                    self.fronts[shard].heartbeat(line);
                }
            }
        }
    }

    fn draw(&mut self, weights: &[u32]) -> usize {
        let mut drawn = self.rng.u32(..weights.iter().sum::<u32>());
        weights
            .iter()
            .position(|weight| {
                let here = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                here
            })
            .unwrap_or_default()
    }

    fn publish(&mut self, source: usize) {
        for _ in 0..self.rng.usize(1..=self.scenario.burst_max) {
            let topic = Topic::parse(TOPICS[self.rng.usize(..TOPICS.len())]).expect("a topic");
            self.sources[source].publish(topic, &mut self.record.truth, &mut self.clock);
        }
    }

    fn work(&mut self, shard: usize, step: usize) {
        if self.stalled[shard] > step {
            return;
        }
        let bounds = self.bounds();
        let front = &mut self.fronts[shard];
        front.turn(bounds);
        front.check_openings();
        front.replay_some(self.rng.usize(1..4), bounds);
    }

    /// The client reads some of what its socket has.
    fn read(&mut self, client: usize, count: usize) -> bool {
        let Some((shard, line)) = self.clients[client].line else { return false };
        let frames = self.fronts[shard].read(line, count);
        let any = !frames.is_empty();
        for frame in self.tamper.pass(line, frames) {
            self.note_line(line, &frame);
            let mut notes = Notes::new();
            let commands = match &mut self.clients[client].kind {
                ClientKind::Page(page) => page.read(frame, &self.names, &mut notes),
                ClientKind::Stream(stream) => {
                    stream.read(frame, &mut notes);
                    Vec::new()
                }
            };
            self.note(notes);
            self.say(client, commands);
        }
        any
    }

    fn note_line(&mut self, line: LineId, frame: &Frame) {
        let Frame::Message(message) = frame else { return };
        let received =
            Received { number: message.number, replay: message.replay, redelivered: message.redelivered, early: false };
        if let Some(place) = self.lines.get(&line) {
            self.record.lines[*place].messages.push(received);
        }
    }

    fn say(&mut self, client: usize, commands: Vec<Command>) {
        let Some((shard, line)) = self.clients[client].line else { return };
        for command in commands {
            if let Command::Subscribe(subscribe) = &command
                && (!subscribe.after.0.is_empty() || subscribe.last > 0)
                && let Some(place) = self.lines.get(&line)
            {
                self.record.lines[*place].replays.push(subscribe.pattern.clone());
            }
            self.fronts[shard].command(line, command);
        }
    }

    fn note(&mut self, notes: Notes) {
        for (history, note) in notes {
            let what = match note {
                Note::Asked { after, last, flow } => What::Asked { after: self.cursors(after), last, flow },
                Note::Subscribed { cursors, resumed } => {
                    What::Subscribed { cursors: self.cursors(cursors.0.into_iter().collect()), resumed }
                }
                Note::Message(received) => What::Message(received),
                Note::Gap { source, reason, missed } => {
                    let source = self.names.iter().position(|name| *name == source).expect("a source's name");
                    What::Gap { source, reason, missed }
                }
                Note::CaughtUp { cursors } => What::CaughtUp { cursors: self.cursors(cursors.0.into_iter().collect()) },
                Note::Ended { kept } => What::Ended { kept: self.cursors(kept) },
            };
            let at = self.clock.tick();
            self.record.histories[history].told.push(Told { at, what });
        }
    }

    fn cursors(&self, saved: Saved) -> Cursors {
        let of = |source: &Source| saved.get(&self.names[source.place]).and_then(|cursor| source.moment(*cursor));
        self.sources.iter().map(of).collect()
    }

    fn client_acts(&mut self) {
        let client = self.rng.usize(..self.clients.len());
        let connected = self.clients[client].line.is_some();
        match self.rng.u8(..10) {
            0..=2 if connected => self.disconnect(client),
            _ if !connected => self.connect(client),
            3..=5 => self.subscribe(client),
            6 => self.unsubscribe(client),
            7 | 8 => self.replace(client),
            _ => {
                // It goes for good, and somebody else comes.
                self.disconnect(client);
                self.clients[client] = self.new_client();
            }
        }
    }

    fn connect(&mut self, client: usize) {
        let shard = self.rng.usize(..self.fronts.len());
        let line = self.next_line;
        self.next_line += 1;
        self.lines.insert(line, self.record.lines.len());
        self.record.lines.push(Line { name: format!("connection {line}"), ..Line::default() });
        let mut notes = Notes::new();
        let (form, commands) = match &mut self.clients[client].kind {
            ClientKind::Page(page) => (CursorForm::Separate, page.connect(&mut notes)),
            ClientKind::Stream(stream) => (CursorForm::Joint, stream.connect(&mut notes)),
        };
        self.clients[client].line = Some((shard, line));
        self.fronts[shard].connect(line, form, &self.terms, self.clock.now());
        self.note(notes);
        self.say(client, commands);
    }

    fn disconnect(&mut self, client: usize) {
        let Some((shard, line)) = self.clients[client].line.take() else { return };
        self.fronts[shard].disconnect(line);
        let mut notes = Notes::new();
        match &mut self.clients[client].kind {
            ClientKind::Page(page) => page.disconnect(&mut notes),
            ClientKind::Stream(stream) => stream.disconnect(&mut notes),
        }
        self.note(notes);
    }

    fn new_client(&mut self) -> Client {
        let number = self.next_line;
        let kind = if self.rng.u8(..3) == 0 {
            let wish = self.wish();
            let wishes = (0..self.rng.usize(1..4)).map(|_| self.pattern()).collect::<std::collections::BTreeSet<_>>();
            let wishes = wishes.into_iter().map(|pattern| Wish { pattern, ..wish.clone() });
            let wishes: Vec<Wish> = wishes.collect();
            let with_history = |wish: Wish| (self.new_history(&format!("stream {number}"), &wish), wish);
            ClientKind::Stream(Stream::new(wishes.into_iter().map(with_history).collect()))
        } else {
            ClientKind::Page(Page::default())
        };
        Client { kind, line: None }
    }

    fn pattern(&mut self) -> Pattern {
        Pattern::parse(PATTERNS[self.rng.usize(..PATTERNS.len())]).expect("a pattern")
    }

    fn wish(&mut self) -> Wish {
        let only = (self.rng.u8(..4) == 0).then(|| self.names[self.rng.usize(..self.names.len())].clone());
        let last = if self.rng.u8(..5) == 0 { self.rng.usize(1..4) } else { 0 };
        let flow = Flow::ALL[self.rng.usize(..3)];
        Wish { pattern: self.pattern(), source: only, last, flow }
    }

    fn new_history(&mut self, client: &str, wish: &Wish) -> usize {
        let Wish { pattern, source, flow, .. } = wish;
        let reads = |name: &&String| source.as_ref().is_none_or(|only| only == *name);
        let sources = (0..self.names.len()).filter(|place| reads(&&self.names[*place])).collect();
        let history = self.record.histories.len();
        let name = format!("history {history}: {client}, {pattern}, {}", flow.name());
        self.record.histories.push(History { name, pattern: pattern.clone(), sources, told: Vec::new() });
        history
    }

    fn subscribe(&mut self, client: usize) {
        let wish = self.wish();
        let ClientKind::Page(page) = &self.clients[client].kind else { return };
        if page.subscriptions.len() > 4 || page.subscriptions.iter().any(|one| one.wish.pattern == wish.pattern) {
            return;
        }
        let history = self.new_history(&format!("client {client}"), &wish);
        let mut notes = Notes::new();
        let subscription = Subscription::new(history, wish, Saved::new());
        let ClientKind::Page(page) = &mut self.clients[client].kind else { return };
        let commands = page.subscribe(subscription, &mut notes);
        self.note(notes);
        self.say(client, commands);
    }

    /// Ends a subscription; sometimes another one begins where it ended.
    fn unsubscribe(&mut self, client: usize) {
        let place = match &self.clients[client].kind {
            ClientKind::Page(page) if !page.subscriptions.is_empty() => self.rng.usize(..page.subscriptions.len()),
            _ => return,
        };
        let again = self.rng.bool();
        let ClientKind::Page(page) = &mut self.clients[client].kind else { return };
        let (wish, saved) = {
            let one = &page.subscriptions[place];
            (one.wish.clone(), one.saved().clone())
        };
        let mut notes = Notes::new();
        let mut commands = page.unsubscribe(place, &mut notes);
        if again {
            let history = self.new_history(&format!("client {client} again"), &wish);
            let ClientKind::Page(page) = &mut self.clients[client].kind else { return };
            commands.extend(page.subscribe(Subscription::new(history, wish, saved), &mut notes));
        }
        self.note(notes);
        self.say(client, commands);
    }

    fn replace(&mut self, client: usize) {
        let resumes = self.rng.bool();
        let place = self.rng.usize(..5);
        let mut notes = Notes::new();
        let ClientKind::Page(page) = &mut self.clients[client].kind else { return };
        let commands = page.replace(place, resumes, &mut notes);
        self.note(notes);
        self.say(client, commands);
    }

    fn restart(&mut self) {
        (0..self.clients.len()).for_each(|client| self.disconnect(client));
        let (truth, clock) = (&mut self.record.truth, &mut self.clock);
        self.sources.iter_mut().for_each(|source| source.restart(truth, clock));
        self.start_node();
    }

    /// Everything is mended and everybody comes back and reads, until there is nothing left to do.
    fn settle(&mut self) {
        for client in 0..self.clients.len() {
            if self.clients[client].line.is_none() {
                self.connect(client);
            }
        }
        for _ in 0..ROUNDS_MAX {
            let mut busy = false;
            let (truth, clock) = (&mut self.record.truth, &mut self.clock);
            for source in &mut self.sources {
                while source.step(truth, clock) || !source.is_up() {
                    busy = true;
                }
                let end = source.state.log().end();
                source.deliver(usize::MAX, &self.scenario.payload, truth, clock);
                busy |= source.state.log().end() > end;
            }
            let bounds = self.bounds();
            for front in &mut self.fronts {
                busy |= front.turn(bounds);
                front.check_openings();
                busy |= front.replay_some(16, bounds);
            }
            for client in 0..self.clients.len() {
                busy |= self.read(client, 50);
            }
            if !busy {
                return;
            }
        }
        panic!("after {ROUNDS_MAX} rounds the run is not at rest");
    }
}
