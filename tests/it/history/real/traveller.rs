//! A client of a run: it goes from node to node with the cursors that it has, reads all the while, and writes down what its
//! subscriptions were told. What it keeps and asks for is decided as in a simulation, by [`crate::history::client`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use passerelle::model::cursor::{Cursor, JointCursor};
use passerelle::model::topic::{Pattern, Topic};
use passerelle::protocol::Command;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::history::client::{Note, Notes, Page, Saved, Stream, Subscription, Wish};
use crate::history::node::Frame;
use crate::history::real::account::Journey;
use crate::history::real::line::{Heard, Line};
use crate::history::real::schedule::{Client, TOPICS, Transport};
use crate::history::real::world::World;
use crate::history::record::{Cursors, History, Number, Received, Span, Told, What};
use crate::program::PATIENCE;

/// Before it tries again where it was not let in.
const PAUSE: Duration = Duration::from_millis(30);

enum Logic {
    Page(Page),
    Stream(Stream),
    /// A raw client: it is given messages and has no cursors.
    Raw,
}

/// A client, and the histories of its patterns.
pub(crate) struct Traveller {
    world: Arc<World>,
    plan: Client,
    logic: Logic,
    histories: Vec<History>,
    journeys: Vec<Journey>,
    /// Each cursor that it was given: from when on things may not be accounted for by it, and when it came.
    cursors: HashMap<(String, Cursor), Span>,
    /// Up to when everything in each source is accounted for at least.
    accounted: Vec<u64>,
    /// Which messages each history has, and whether a replay is under way there.
    came: Vec<BTreeSet<Number>>,
    replays: Vec<bool>,
    /// What is certain to come to each history on this line: of which source, on which of all topics.
    certain: Vec<BTreeSet<(usize, usize)>>,
    is_last: bool,
    is_settled: bool,
}

impl Traveller {
    pub(crate) fn new(number: usize, plan: Client, world: Arc<World>) -> Self {
        let name = |place: usize| world.book.names[place].clone();
        let wish = |pattern: &str| Wish {
            wanted: Pattern::parse(pattern).expect("a pattern").into(),
            source: plan.source.map(name),
            last: 0,
            flow: plan.flow,
        };
        let wishes: Vec<Wish> = plan.patterns.iter().map(|pattern| wish(pattern)).collect();
        let sources: Vec<usize> =
            (0..world.book.names.len()).filter(|one| plan.source.is_none_or(|of| of == *one)).collect();
        let of_wish = |wish: &Wish| {
            let about = format!("{:?}, {}, publisher {:?}", plan.transport, plan.flow.name(), plan.publisher);
            let name = format!("client {number}: {}, {about}", wish.wanted.pattern);
            History { name, wanted: wish.wanted.clone(), sources: sources.clone(), told: Vec::new() }
        };
        let histories: Vec<History> = wishes.iter().map(of_wish).collect();
        let count = histories.len();
        let beside = |place: usize| wishes.iter().enumerate().filter(move |(other, _)| *other != place);
        let journey = |place: usize| Journey {
            flow: plan.flow,
            publisher: plan.publisher,
            is_raw: plan.transport == Transport::Raw,
            beside: beside(place).map(|(_, wish)| wish.wanted.pattern.clone()).collect(),
            visits: Vec::new(),
            finished: false,
        };
        let journeys = (0..count).map(journey).collect();
        let wishes = wishes.into_iter().enumerate();
        let logic = match plan.transport {
            Transport::Json => {
                let mut page = Page::default();
                page.subscriptions = wishes.map(|(place, wish)| Subscription::new(place, wish, Saved::new())).collect();
                Logic::Page(page)
            }
            Transport::EventStream => Logic::Stream(Stream::new(wishes.collect())),
            Transport::Raw => Logic::Raw,
        };
        Self {
            logic,
            accounted: vec![0; world.book.names.len()],
            histories,
            journeys,
            cursors: HashMap::new(),
            came: vec![BTreeSet::new(); count],
            replays: vec![false; count],
            certain: vec![BTreeSet::new(); count],
            is_last: false,
            is_settled: false,
            plan,
            world,
        }
    }

    /// Stays where it is planned, then at the last node until it has everything.
    pub(crate) async fn travel(mut self) -> Vec<(History, Journey)> {
        sleep(Duration::from_millis(self.plan.comes_at_ms)).await;
        for stay in self.plan.stays.clone() {
            let until = Instant::now() + Duration::from_millis(stay.for_ms);
            tokio::select! {
                biased;
                () = self.stay(stay.node) => {}
                () = sleep_until(until) => {}
            }
            self.leave();
            sleep(Duration::from_millis(stay.away_ms)).await;
        }
        let mut end = self.world.end.subscribe();
        let node = self.plan.last_node;
        self.is_last = true;
        tokio::select! {
            biased;
            () = self.stay(node) => {}
            () = async { drop(end.wait_for(Option::is_some).await); sleep(PATIENCE).await } => {}
        }
        let finished = self.has_everything();
        self.journeys.iter_mut().for_each(|journey| journey.finished = finished);
        self.histories.into_iter().zip(self.journeys).collect()
    }

    /// Reads at a node, on one line after another, until it has everything.
    async fn stay(&mut self, node: usize) {
        loop {
            self.visit(node).await;
            if self.has_everything() {
                return;
            }
            self.leave();
            sleep(PAUSE).await;
        }
    }

    /// One line, from its beginning to its end.
    async fn visit(&mut self, node: usize) {
        let Some((address, life)) = self.world.nodes[node].address() else { return };
        let mut cut = self.world.nodes[node].lines.subscribe();
        let mut notes = Notes::new();
        let commands = self.connect(&mut notes);
        let opened = Line::open(&address, &self.plan, &self.world.book, &commands);
        let Ok(Ok(mut line)) = timeout(PATIENCE, opened).await else {
            self.disconnect(&mut Notes::new());
            return;
        };
        let now = self.world.book.now();
        self.journeys.iter_mut().for_each(|journey| journey.visits.push((now, life)));
        self.note(notes);
        self.certain.iter_mut().for_each(BTreeSet::clear);
        let (mut end, mut calm) = (self.world.end.subscribe(), self.world.calm.subscribe());
        let mut commands = commands;
        while line.say(std::mem::take(&mut commands), self.plan.publisher).await {
            tokio::select! {
                biased;
                heard = line.next(&self.world.book) => match heard {
                    Some(Heard::Frame(frame)) => commands = self.read(frame),
                    Some(Heard::Else) => {}
                    None => return,
                },
                _ = cut.changed() => return,
                _ = end.changed() => {}
                _ = calm.changed() => {}
            }
            self.settle();
            if self.has_everything() {
                return;
            }
        }
    }

    fn connect(&mut self, notes: &mut Notes) -> Vec<Command> {
        match &mut self.logic {
            Logic::Page(page) => page.connect(notes),
            Logic::Stream(stream) => stream.connect(notes),
            Logic::Raw => {
                let asked = |place| (place, Note::Asked { after: Saved::new(), last: false, flow: self.plan.flow });
                notes.extend((0..self.histories.len()).map(asked));
                Vec::new()
            }
        }
    }

    fn disconnect(&mut self, notes: &mut Notes) {
        match &mut self.logic {
            Logic::Page(page) => page.disconnect(notes),
            Logic::Stream(stream) => stream.disconnect(notes),
            Logic::Raw => {
                notes.extend((0..self.histories.len()).map(|place| (place, Note::Ended { kept: Saved::new() })));
            }
        }
    }

    /// Its line is lost. Who was not connected has nothing to write down.
    fn leave(&mut self) {
        let mut notes = Notes::new();
        self.disconnect(&mut notes);
        notes.retain(|(place, _)| {
            let last = self.histories[*place].told.last();
            last.is_some_and(|told| !matches!(told.what, What::Ended { .. }))
        });
        self.note(notes);
    }

    fn read(&mut self, frame: Frame) -> Vec<Command> {
        self.learn(&frame);
        self.conclude(&frame);
        let mut notes = Notes::new();
        let commands = match &mut self.logic {
            Logic::Page(page) => page.read(frame, &self.world.book.names, &mut notes),
            Logic::Stream(stream) => {
                stream.read(frame, &mut notes);
                Vec::new()
            }
            Logic::Raw => {
                let Frame::Message(message) = frame else { return Vec::new() };
                let heard =
                    self.histories.iter().enumerate().filter(|(_, one)| one.wanted.pattern.matches(&message.topic));
                let number = message.number;
                let received = Received { number, ..Received::default() };
                notes.extend(heard.map(|(place, _)| (place, Note::Message(received))));
                Vec::new()
            }
        };
        self.note(notes);
        commands
    }

    /// Writes down when cursors came, and since when things are accounted for by them.
    fn learn(&mut self, frame: &Frame) {
        let now = self.world.book.now();
        let names = &self.world.book.names;
        let mut know = |name: &str, cursor: Cursor, accounted: &[u64]| {
            let from = accounted[names.iter().position(|known| known == name).expect("a source's name")];
            self.cursors.entry((name.to_owned(), cursor)).or_insert(Span { from, to: now });
        };
        match frame {
            Frame::Message(message) => {
                let sent_at = self.world.book.sent_at(message.number);
                let accounted = &mut self.accounted[message.source];
                *accounted = sent_at.max(*accounted);
                know(&names[message.source], message.cursor, &self.accounted);
                message.position.0.iter().for_each(|(name, cursor)| know(name, *cursor, &self.accounted));
            }
            Frame::Subscribed { cursors, .. } | Frame::CaughtUp { cursors, .. } | Frame::Position { cursors } => {
                cursors.0.iter().for_each(|(name, cursor)| know(name, *cursor, &self.accounted));
            }
            Frame::Unsubscribed(_) | Frame::Gap { .. } => {}
        }
    }

    /// What a message shows to a raw client, which is told nothing else: of all that it asked for and that the message
    /// matches one stands, nobody says which. So what matches all of those is certain to come.
    fn conclude(&mut self, frame: &Frame) {
        let (Logic::Raw, Frame::Message(message)) = (&self.logic, frame) else { return };
        let matched = |one: &&History| one.wanted.pattern.matches(&message.topic);
        let patterns = self.histories.iter().filter(matched).map(|one| topics(&one.wanted.pattern));
        let Some(shown) = patterns.reduce(|one, other| &one & &other) else { return };
        for (certain, _) in self.certain.iter_mut().zip(&self.histories).filter(|(_, one)| matched(one)) {
            certain.extend(shown.iter().map(|topic| (message.source, *topic)));
        }
    }

    /// Tells once that it listens where it will hear the end, which is a message on every topic of every source.
    fn settle(&mut self) {
        if self.is_settled || !self.is_last || !*self.world.calm.borrow() {
            return;
        }
        let all = |one: &History| one.sources.len() * topics(&one.wanted.pattern).len();
        if self.certain.iter().zip(&self.histories).all(|(certain, one)| certain.len() == all(one)) {
            self.is_settled = true;
            self.world.settled.send_modify(|settled| *settled += 1);
        }
    }

    fn note(&mut self, notes: Notes) {
        for (place, note) in notes {
            let what = match note {
                Note::Asked { after, last, flow } => {
                    self.replays[place] = !after.is_empty();
                    What::Asked { after: self.places(&after), last, flow }
                }
                Note::Subscribed { cursors, resumed } => {
                    let History { sources, wanted, .. } = &self.histories[place];
                    let pattern = &wanted.pattern;
                    let of_topic = |topic: usize| sources.iter().map(move |source| (*source, topic));
                    self.certain[place].extend(topics(pattern).into_iter().flat_map(of_topic));
                    What::Subscribed { cursors: self.joint_places(&cursors), resumed }
                }
                Note::Message(received) => {
                    self.came[place].insert(received.number);
                    What::Message(received)
                }
                Note::Gap { source, reason, missed } => {
                    What::Gap { source: self.world.book.source(&source), reason, missed }
                }
                Note::CaughtUp { cursors } => {
                    self.replays[place] = false;
                    What::CaughtUp { cursors: self.joint_places(&cursors) }
                }
                Note::Ended { kept } => What::Ended { kept: self.places(&kept) },
            };
            let at = self.world.book.now();
            self.histories[place].told.push(Told { at, what });
        }
    }

    fn joint_places(&self, cursors: &JointCursor) -> Cursors {
        self.places(&cursors.0.iter().cloned().collect::<BTreeMap<String, Cursor>>())
    }

    fn places(&self, saved: &Saved) -> Cursors {
        let of = |name: &String| saved.get(name).and_then(|cursor| self.cursors.get(&(name.clone(), *cursor)).copied());
        self.world.book.names.iter().map(of).collect()
    }

    /// Whether the last message of each source that is for it has come to each history, and nothing is being replayed.
    fn has_everything(&self) -> bool {
        let end = self.world.end.borrow();
        let Some(markers) = end.as_ref() else { return false };
        self.histories.iter().enumerate().all(|(place, history)| {
            let is_last_of = |source: usize| {
                let matching = markers.iter().rev().find(|marker| {
                    let is_of_publisher = self.plan.publisher.is_none_or(|publisher| publisher == marker.publisher);
                    marker.source == source && is_of_publisher && history.wanted.pattern.matches(&marker.topic)
                });
                matching.is_none_or(|marker| self.came[place].contains(&marker.number))
            };
            !self.replays[place] && history.sources.iter().all(|source| is_last_of(*source))
        })
    }
}

/// Which of all topics a pattern matches, by their places.
fn topics(pattern: &Pattern) -> BTreeSet<usize> {
    let matches = |topic: &str| pattern.matches(&Topic::parse(topic).expect("a topic"));
    (0..TOPICS.len()).filter(|place| matches(TOPICS[*place])).collect()
}
