//! An exchange or a queue without a network: a broker that routes what is bound and loses what is not, and a node's side of it
//! that does what `source/amqp` does, one small step at a time. It writes down what truly happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use passerelle::config::LogBounds;
use passerelle::hub::feed::{Feed, Meanwhile, SourceState};
use passerelle::hub::interest::{BindingKind, BindingMode};
use passerelle::model::cursor::{Cursor, Epoch};
use passerelle::model::gap::GapReason;
use passerelle::model::publication::Draft;
use passerelle::model::topic::{Pattern, Topic};
use passerelle::model::value::Headers;

use crate::history::record::{Binding, Fate, Moment, Number, Published, SourceTruth, Span, Truth};
use crate::history::source::{BEGIN, Held, Kind, World, draft, info};

/// How the source's link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    /// Its queue is there, and its bindings are being made.
    Opening,
    Up,
}

/// The binder's next step.
#[derive(Debug)]
enum Work {
    Bind(Pattern),
    /// The broker has bound it; the node has not heard yet.
    Confirm(Pattern),
    Unbind(Pattern),
    /// The node has let go of it; the broker has not yet.
    Remove(Pattern),
}

/// One source, with its broker.
pub(crate) struct Bound {
    place: usize,
    kind: Kind,
    bounds: LogBounds,
    state: Arc<SourceState>,
    feed: Feed,
    /// What the log holds.
    held: Held,
    link: Link,
    /// When the link was lost, until it is back.
    lost_at: Option<Moment>,
    at_broker: BTreeSet<Pattern>,
    /// What the broker has for this node.
    waiting: VecDeque<Number>,
    /// What a queue would bring again if the link were lost now.
    unsettled: VecDeque<Number>,
    again: BTreeSet<Number>,
    work: VecDeque<Work>,
    /// When each offset of each log came to be.
    offsets: BTreeMap<u64, Vec<Moment>>,
}

/// Messages that the node has taken and not acknowledged yet.
const UNSETTLED_MAX: usize = 3;

/// More than a run's log can grow, or nodes start in it.
const FAR: u64 = 1_000_000;

impl Bound {
    pub(crate) fn new(place: usize, kind: Kind, bounds: LogBounds, truth: &mut Truth) -> Self {
        truth.sources.push(SourceTruth {
            name: info(place, Epoch(1)).name.to_string(),
            is_queue: kind == Kind::Queue,
            restarts: vec![BEGIN],
            ..SourceTruth::default()
        });
        let state = fresh(place, kind, bounds, Epoch(1));
        let end = state.log().end();
        Self {
            place,
            kind,
            bounds,
            feed: Feed::new(state.clone()),
            held: Held::default(),
            offsets: BTreeMap::from([(1, vec![BEGIN; end as usize + 1])]),
            state,
            link: Link::Down,
            lost_at: None,
            at_broker: BTreeSet::new(),
            waiting: VecDeque::new(),
            unsettled: VecDeque::new(),
            again: BTreeSet::new(),
            work: VecDeque::new(),
        }
    }

    pub(crate) fn state(&self) -> &Arc<SourceState> {
        &self.state
    }

    /// Somebody publishes.
    pub(crate) fn publish(&mut self, topic: Topic, headers: Headers, world: &mut World) {
        let number = world.truth.messages.len();
        let routed = self.kind == Kind::Queue || self.at_broker.iter().any(|bound| bound.matches(&topic));
        let at = Span::at(world.clock.tick());
        world.truth.messages.push(Published { headers, ..Published::new(self.place, topic, at, Fate::Lost) });
        if routed {
            self.waiting.push_back(number);
        }
    }

    /// The node takes some of what the broker has; whether there was anything.
    pub(crate) fn deliver(&mut self, count: usize, world: &mut World) -> bool {
        if self.link != Link::Up || self.waiting.is_empty() {
            return false;
        }
        let mut drafts: Vec<Draft> = Vec::new();
        let end = self.state.log().end();
        for _ in 0..count {
            let Some(number) = self.waiting.pop_front() else { break };
            let at = Span::at(world.clock.tick());
            let redelivered = self.again.remove(&number);
            let message = &mut world.truth.messages[number];
            // What comes again was there before: its first place is what it is judged by.
            if message.fate == Fate::Logged {
                message.again.push(at.from);
            } else {
                (message.at, message.fate) = (at, Fate::Logged);
            }
            drafts.push(draft(number, redelivered, world));
            self.held.push(end + drafts.len() as u64, number);
            self.offsets.entry(self.epoch()).or_default().push(at.from);
            if self.kind == Kind::Queue {
                self.unsettled.push_back(number);
            }
        }
        while self.unsettled.len() > UNSETTLED_MAX {
            self.unsettled.pop_front();
        }
        self.feed.append(drafts, world.clock.now_ms);
        self.held.note(&self.state, world);
        true
    }

    /// The broker drops the oldest of what it has for us, and the node hears of it, or not of how many.
    pub(crate) fn drop_head(&mut self, world: &mut World) {
        let (count, is_counted) = (world.rng.usize(1..4), world.rng.bool());
        if self.link != Link::Up || self.kind == Kind::Queue || self.waiting.is_empty() {
            return;
        }
        let dropped: Vec<Number> = self.waiting.drain(..count.min(self.waiting.len())).collect();
        let at = world.clock.tick();
        for number in &dropped {
            let message = &mut world.truth.messages[*number];
            (message.at, message.fate) = (Span::at(at), Fate::Dropped);
        }
        world.truth.sources[self.place].drops.push(at);
        self.feed.hole(GapReason::Slow, is_counted.then_some(dropped.len() as u64));
        self.note_offsets(at);
    }

    pub(crate) fn link_down(&mut self, world: &mut World) {
        if self.link == Link::Down {
            return;
        }
        let at = world.clock.tick();
        self.lose(at, &mut world.truth);
        self.feed.link_down(if self.kind == Kind::Queue { Meanwhile::Kept } else { Meanwhile::Lost });
        self.note_offsets(at);
        self.link = Link::Down;
    }

    /// What the broker's side of a lost link takes with it.
    fn lose(&mut self, at: Moment, truth: &mut Truth) {
        self.work.clear();
        if let Some(lost) = self.lost_at.replace(at) {
            truth.sources[self.place].outages.push((lost, at));
        }
        if self.kind == Kind::Queue {
            self.again.extend(&self.unsettled);
            while let Some(number) = self.unsettled.pop_back() {
                self.waiting.push_front(number);
            }
            return;
        }
        for number in self.waiting.drain(..) {
            truth.messages[number].at = Span::at(at);
        }
        self.at_broker.clear();
        let bindings = &mut truth.sources[self.place].bindings;
        bindings.iter_mut().filter(|binding| binding.to.is_none()).for_each(|binding| binding.to = Some(at));
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link == Link::Up
    }

    /// The next step towards a link, or of the binder's work on one; whether there was any.
    pub(crate) fn step(&mut self, world: &mut World) -> bool {
        if self.link == Link::Down {
            self.link = Link::Opening;
            self.plan(world);
            return true;
        }
        if let Some(work) = self.work.pop_front() {
            self.carry_out(work, world);
            return true;
        }
        if self.link == Link::Opening {
            self.link_up(world);
            return true;
        }
        self.plan(world);
        !self.work.is_empty()
    }

    fn plan(&mut self, world: &World) {
        let plan = self.feed.interest().plan(world.clock.now());
        self.work.extend(plan.bind.into_iter().map(Work::Bind));
        self.work.extend(plan.unbind.into_iter().map(Work::Unbind));
    }

    fn carry_out(&mut self, work: Work, world: &mut World) {
        let at = world.clock.tick();
        let bindings = &mut world.truth.sources[self.place].bindings;
        match work {
            Work::Bind(pattern) => {
                self.at_broker.insert(pattern.clone());
                self.work.push_front(Work::Confirm(pattern));
            }
            Work::Confirm(pattern) => {
                self.feed.bound(&pattern);
                let stands = bindings.iter().any(|known| known.pattern == pattern && known.to.is_none());
                if !stands {
                    bindings.push(Binding { pattern, from: at, to: None });
                }
                self.note_offsets(at);
            }
            Work::Unbind(pattern) => {
                self.feed.unbound(&pattern);
                let ended = bindings.iter_mut().filter(|known| known.pattern == pattern && known.to.is_none());
                ended.for_each(|known| known.to = Some(at));
                self.work.push_front(Work::Remove(pattern));
            }
            Work::Remove(pattern) => drop(self.at_broker.remove(&pattern)),
        }
    }

    fn link_up(&mut self, world: &mut World) {
        let at = world.clock.tick();
        self.feed.link_up();
        self.note_offsets(at);
        self.link = Link::Up;
        if let Some(lost) = self.lost_at.take() {
            world.truth.sources[self.place].outages.push((lost, at));
        }
    }

    /// The node is gone with everything that it had; a new one begins.
    pub(crate) fn restart(&mut self, world: &mut World) {
        let at = world.clock.tick();
        self.lose(at, &mut world.truth);
        world.truth.sources[self.place].restarts.push(at);
        let epoch = self.epoch() + 1;
        self.state = fresh(self.place, self.kind, self.bounds, Epoch(epoch));
        self.feed = Feed::new(self.state.clone());
        self.held = Held::default();
        self.note_offsets(at);
        self.link = Link::Down;
    }

    pub(crate) fn expire(&mut self, world: &mut World) {
        self.feed.expire(world.clock.now_ms);
        self.held.note(&self.state, world);
    }

    /// What a cursor of this source stands for.
    pub(crate) fn moment(&self, cursor: Cursor) -> Option<Span> {
        let moments = self.offsets.get(&cursor.epoch.0)?;
        moments.get(usize::try_from(cursor.offset).ok()?).map(|at| Span::at(*at))
    }

    /// A cursor that this source never gave.
    pub(crate) fn forged(&self, world: &mut World) -> Cursor {
        let beyond = self.state.log().end() + FAR;
        match world.rng.u8(..3) {
            0 => Cursor::FOREIGN,
            1 => Cursor { epoch: Epoch(self.epoch() + FAR), offset: world.rng.u64(..beyond) },
            _ => Cursor { epoch: Epoch(self.epoch()), offset: beyond },
        }
    }

    fn epoch(&self) -> u64 {
        self.state.info().epoch.0
    }

    /// Offsets that came to be since the last look did so now.
    fn note_offsets(&mut self, at: Moment) {
        let (epoch, end) = (self.epoch(), self.state.log().end() as usize);
        self.offsets.entry(epoch).or_default().resize(end + 1, at);
    }
}

fn fresh(place: usize, kind: Kind, bounds: LogBounds, epoch: Epoch) -> Arc<SourceState> {
    let mode = match kind {
        Kind::OnDemand => {
            BindingMode::OnDemand { kind: BindingKind::Topic, linger: Duration::from_secs(2), bindings_max: 100 }
        }
        Kind::Fixed | Kind::Queue | Kind::Stream => BindingMode::Fixed(vec![Pattern::all()]),
    };
    let state = SourceState::new(info(place, epoch), bounds, mode);
    if kind == Kind::Queue {
        Feed::new(state.clone()).keeps_everything();
    }
    state
}
