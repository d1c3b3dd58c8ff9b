//! A whole run out of one number: sources, nodes with their shards, and clients that come, read, stop reading, go and come
//! back, while links fail, brokers drop, logs overflow, streams are cut, shards lag and nodes start anew. The same number gives
//! the same run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;
use passerelle::hub::feed::SourceState;
use passerelle::hub::log::{LIVE_BYTES_MIN, LIVE_MESSAGES_MIN, ReadBounds};
use passerelle::hub::shard::CursorForm;
use passerelle::model::selector::Selector;
use passerelle::protocol::{Command, Only};
use passerelle::session::limits::Terms;

use crate::history::client::{Note, Notes, Page, Saved, Stream, Subscription, Wish};
use crate::history::node::{Frame, Front, LineId, terms};
use crate::history::record::{AskedFor, Cursors, FORGED, History, Line, Received, Record, Told, What};
use crate::history::scenario::{Scenario, Terrain};
use crate::history::source::{Clock, Source, World};
use crate::history::tamper::{Tamper, Tampering};

/// After so many rounds a run that has nothing more to do must be at rest.
const ROUNDS_MAX: usize = 20_000;

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
    world: World,
    scenario: Scenario,
    sources: Vec<Source>,
    names: Vec<String>,
    /// The shards of all nodes: as many of each, one node after the other.
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
pub(crate) fn run(seed: u64, terrain: Terrain, tampering: Option<Tampering>) -> Record {
    let mut simulation = Simulation::new(seed, terrain, tampering);
    for step in 0..simulation.scenario.steps {
        simulation.step(step);
    }
    simulation.settle();
    simulation.record.tampered = simulation.tamper.planted;
    simulation.record.truth = simulation.world.truth;
    simulation.record
}

impl Simulation {
    fn new(seed: u64, terrain: Terrain, tampering: Option<Tampering>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let scenario = Scenario::draw(terrain, &mut rng);
        let mut world =
            World { rng, clock: Clock::new(), truth: Default::default(), payload: scenario.payload.clone() };
        world.truth.remembered = LIVE_MESSAGES_MIN;
        let kinds = scenario.kinds.iter().map(|kind| (*kind, scenario.nodes));
        let sources: Vec<Source> =
            kinds.enumerate().map(|(place, kind)| Source::new(place, kind, scenario.log, &mut world)).collect();
        let mut simulation = Self {
            names: world.truth.sources.iter().map(|source| source.name.clone()).collect(),
            sources,
            fronts: Vec::new(),
            stalled: vec![0; scenario.shards * scenario.nodes],
            clients: Vec::new(),
            terms: terms(),
            next_line: 0,
            lines: BTreeMap::new(),
            tamper: Tamper::new(tampering, seed),
            record: Record::default(),
            scenario,
            world,
        };
        simulation.fronts = (0..simulation.stalled.len()).map(|front| simulation.front(front)).collect();
        for _ in 0..simulation.scenario.clients {
            let client = simulation.new_client();
            simulation.clients.push(client);
        }
        simulation
    }

    /// A new shard at this place.
    fn front(&self, place: usize) -> Front {
        let node = self.node_of(place);
        let states: Vec<Arc<SourceState>> = self.sources.iter().map(|source| source.state(node).clone()).collect();
        Front::new(&states, self.scenario.drop_oldest_keep, self.scenario.sockets)
    }

    /// The node of the shard at this place.
    fn node_of(&self, front: usize) -> usize {
        front / self.scenario.shards
    }

    fn bounds(&mut self) -> ReadBounds {
        ReadBounds { messages_max: self.world.rng.usize(1..12), bytes_max: LIVE_BYTES_MIN }
    }

    fn step(&mut self, step: usize) {
        let source = self.world.rng.usize(..self.sources.len());
        let node = self.world.rng.usize(..self.scenario.nodes);
        let shard = self.world.rng.usize(..self.fronts.len());
        let restless = self.scenario.restless;
        let restart = if self.world.rng.u8(..4) == 0 { 4 } else { 0 };
        let weights = [200, 160, 260, 160, 100, 6, 6, restart, restless, 30, 12, 40, self.scenario.remade];
        match self.draw(&weights) {
            0 => self.publish(source),
            1 => {
                let count = self.world.rng.usize(1..2 * self.scenario.burst_max);
                self.sources[source].deliver(node, count, &mut self.world);
            }
            2 => self.work(shard, step),
            3 => {
                let client = self.world.rng.usize(..self.clients.len());
                let count = self.world.rng.usize(1..20);
                self.read(client, count);
            }
            4 => drop(self.sources[source].step(node, &mut self.world)),
            5 => self.sources[source].link_down(node, &mut self.world),
            6 => self.sources[source].shorten(&mut self.world),
            7 => self.restart(node),
            8 => self.client_acts(),
            9 => {
                self.world.clock.now_ms += self.world.rng.u64(1..400);
                self.sources.iter_mut().for_each(|source| source.expire(&mut self.world));
            }
            10 => self.stalled[shard] = step + self.world.rng.usize(10..120),
            11 => {
                let client = self.world.rng.usize(..self.clients.len());
                if let Some((shard, line)) = self.clients[client].line {
                    self.fronts[shard].heartbeat(line);
                }
            }
            _ => self.sources[source].remake(&mut self.world),
        }
    }

    fn draw(&mut self, weights: &[u32]) -> usize {
        let mut drawn = self.world.rng.u32(..weights.iter().sum::<u32>());
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
        for _ in 0..self.world.rng.usize(1..=self.scenario.burst_max) {
            let (topic, headers) = Scenario::message(&mut self.world.rng);
            self.sources[source].publish(topic, headers, &mut self.world);
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
        front.replay_some(self.world.rng.usize(1..4), bounds);
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
        let (number, replay, redelivered) = (message.number, message.replay, message.redelivered);
        let received = Received { number, replay, redelivered, ..Received::default() };
        if let Some(place) = self.lines.get(&line) {
            self.record.lines[*place].messages.push(received);
        }
    }

    fn say(&mut self, client: usize, commands: Vec<Command>) {
        let Some((shard, line)) = self.clients[client].line else { return };
        for command in commands {
            if let Command::Subscribe(subscribe) = &command
                && let Some(place) = self.lines.get(&line)
            {
                let source = match &subscribe.only {
                    Some(Only::Source(name)) => Some(self.place_of(name)),
                    Some(Only::Exchange(_)) | None => None,
                };
                let wanted = Selector { pattern: subscribe.pattern.clone(), filter: subscribe.filter.clone() };
                let replays = !subscribe.after.0.is_empty() || subscribe.last > 0;
                self.record.lines[*place].asked.push(AskedFor { wanted, source, replays });
            }
            self.fronts[shard].command(line, command);
        }
    }

    fn place_of(&self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).expect("a source's name")
    }

    fn note(&mut self, notes: Notes) {
        for (history, note) in notes {
            let what = match note {
                Note::Asked { after, last, flow } => What::Asked { after: self.cursors(after), last, flow },
                Note::Subscribed { cursors, resumed } => {
                    What::Subscribed { cursors: self.cursors(cursors.0.into_iter().collect()), resumed }
                }
                Note::Message(received) => What::Message(received),
                Note::Gap { source, reason, missed } => What::Gap { source: self.place_of(&source), reason, missed },
                Note::CaughtUp { cursors } => What::CaughtUp { cursors: self.cursors(cursors.0.into_iter().collect()) },
                Note::Ended { kept } => What::Ended { kept: self.cursors(kept) },
            };
            let at = self.world.clock.tick();
            self.record.histories[history].told.push(Told { at, what });
        }
    }

    fn cursors(&self, saved: Saved) -> Cursors {
        let of =
            |(name, source): (&String, &Source)| saved.get(name).map(|cursor| source.moment(*cursor).unwrap_or(FORGED));
        self.names.iter().zip(&self.sources).map(of).collect()
    }

    fn client_acts(&mut self) {
        let client = self.world.rng.usize(..self.clients.len());
        let connected = self.clients[client].line.is_some();
        match self.world.rng.u8(..10) {
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
        let shard = self.world.rng.usize(..self.fronts.len());
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
        self.fronts[shard].connect(line, form, &self.terms, self.world.clock.now());
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
        let kind = if self.world.rng.u8(..3) == 0 {
            let wish = self.wish();
            let patterns = (0..self.world.rng.usize(1..4)).map(|_| Scenario::pattern(&mut self.world.rng));
            let patterns = patterns.collect::<BTreeSet<_>>();
            let wishes = patterns.into_iter().map(|pattern| {
                let wanted = Selector { pattern, filter: wish.wanted.filter.clone() };
                Wish { wanted, ..wish.clone() }
            });
            let wishes: Vec<Wish> = wishes.collect();
            let with_history = |wish: Wish| (self.new_history(&format!("stream {number}"), &wish), wish);
            let stream = Stream::new(wishes.into_iter().map(with_history).collect());
            ClientKind::Stream(stream.after(self.forged()))
        } else {
            ClientKind::Page(Page::default())
        };
        Client { kind, line: None }
    }

    fn wish(&mut self) -> Wish {
        let only = self.world.rng.usize(..self.names.len());
        let source = (self.world.rng.u8(..4) == 0).then(|| self.names[only].clone());
        self.scenario.wish(source, &mut self.world.rng)
    }

    /// Sometimes cursors that nobody gave.
    fn forged(&mut self) -> Saved {
        let mut saved = Saved::new();
        if self.world.rng.u8(..15) == 0 {
            for (name, source) in self.names.iter().zip(&self.sources) {
                if self.world.rng.bool() {
                    saved.insert(name.clone(), source.forged(&mut self.world));
                }
            }
        }
        saved
    }

    fn new_history(&mut self, client: &str, wish: &Wish) -> usize {
        let Wish { wanted, source, flow, .. } = wish;
        let reads = |name: &&String| source.as_ref().is_none_or(|only| only == *name);
        let sources = (0..self.names.len()).filter(|place| reads(&&self.names[*place])).collect();
        let history = self.record.histories.len();
        let filter = wanted.filter.as_ref().map_or(String::new(), |filter| format!(", {filter:?}"));
        let name = format!("history {history}: {client}, {}, {}{filter}", wanted.pattern, flow.name());
        self.record.histories.push(History { name, wanted: wanted.clone(), sources, told: Vec::new() });
        history
    }

    fn subscribe(&mut self, client: usize) {
        let wish = self.wish();
        let ClientKind::Page(page) = &self.clients[client].kind else { return };
        if page.subscriptions.len() > 4
            || page.subscriptions.iter().any(|one| one.wish.wanted.pattern == wish.wanted.pattern)
        {
            return;
        }
        let history = self.new_history(&format!("client {client}"), &wish);
        let mut notes = Notes::new();
        let subscription = Subscription::new(history, wish, self.forged());
        let ClientKind::Page(page) = &mut self.clients[client].kind else { return };
        let commands = page.subscribe(subscription, &mut notes);
        self.note(notes);
        self.say(client, commands);
    }

    /// Ends a subscription; sometimes another one begins where it ended.
    fn unsubscribe(&mut self, client: usize) {
        let place = match &self.clients[client].kind {
            ClientKind::Page(page) if !page.subscriptions.is_empty() => {
                self.world.rng.usize(..page.subscriptions.len())
            }
            _ => return,
        };
        let again = self.world.rng.bool();
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
        let resumes = self.world.rng.bool();
        let place = self.world.rng.usize(..5);
        let mut notes = Notes::new();
        let ClientKind::Page(page) = &mut self.clients[client].kind else { return };
        let commands = page.replace(place, resumes, &mut notes);
        self.note(notes);
        self.say(client, commands);
    }

    fn restart(&mut self, node: usize) {
        for client in 0..self.clients.len() {
            if self.clients[client].line.is_some_and(|(front, _)| self.node_of(front) == node) {
                self.disconnect(client);
            }
        }
        self.sources.iter_mut().for_each(|source| source.restart(node, &mut self.world));
        for front in 0..self.fronts.len() {
            if self.node_of(front) == node {
                self.fronts[front] = self.front(front);
            }
        }
    }

    /// Everything is mended and everybody comes back and reads, until there is nothing left to do.
    fn settle(&mut self) {
        for client in 0..self.clients.len() {
            if self.clients[client].line.is_none() {
                self.connect(client);
            }
        }
        let mut idle = 0;
        for _ in 0..ROUNDS_MAX {
            // What is wanted in one round is brought in the next.
            idle = if self.settle_some() { 0 } else { idle + 1 };
            if idle > 1 {
                let waiting = self.clients.iter().flat_map(|client| match &client.kind {
                    ClientKind::Page(page) => page.waiting(),
                    ClientKind::Stream(stream) => stream.waiting(),
                });
                self.record.stuck = waiting.collect();
                return;
            }
        }
        panic!("after {ROUNDS_MAX} rounds the run is not at rest");
    }

    fn settle_some(&mut self) -> bool {
        let mut busy = false;
        for source in &mut self.sources {
            for node in 0..self.scenario.nodes {
                while source.step(node, &mut self.world) || !source.is_up(node) {
                    busy = true;
                }
                busy |= source.deliver(node, usize::MAX, &mut self.world);
            }
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
        busy
    }
}
