//! A source without a network: a broker that routes what is bound and loses what is not, and a node's side of it that does
//! what `source/amqp` does, one small step at a time. It writes down what truly happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use passerelle::config::LogBounds;
use passerelle::hub::feed::{Feed, Meanwhile, SourceState};
use passerelle::hub::interest::{BindingKind, BindingMode};
use passerelle::model::cursor::{Cursor, Epoch};
use passerelle::model::gap::GapReason;
use passerelle::model::publication::{Attributes, Draft, RawFrames, SourceId, SourceInfo};
use passerelle::model::topic::{Pattern, Topic};

use crate::history::record::{Binding, Fate, Moment, Number, Published, SourceTruth, Span, Truth};

/// What kind of source it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An exchange, bound to what is wanted.
    OnDemand,
    /// An exchange that is bound to everything.
    Fixed,
    /// A queue.
    Queue,
}

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

/// Time and the order of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) moment: Moment,
    pub(crate) now_ms: u64,
    pub(crate) start: Instant,
}

impl Clock {
    /// The next moment.
    pub(crate) fn tick(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }
}

/// One source, with its broker.
pub(crate) struct Source {
    pub(crate) place: usize,
    kind: Kind,
    bounds: LogBounds,
    pub(crate) state: Arc<SourceState>,
    feed: Feed,
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

impl Source {
    pub(crate) fn new(place: usize, kind: Kind, bounds: LogBounds, truth: &mut Truth) -> Self {
        let name = ["events", "orders", "stock"][place];
        truth.sources.push(SourceTruth {
            name: name.to_owned(),
            is_queue: kind == Kind::Queue,
            ..SourceTruth::default()
        });
        let state = fresh(place, kind, bounds, Epoch(1));
        let end = state.log().end();
        Self {
            place,
            kind,
            bounds,
            feed: Feed::new(state.clone()),
            offsets: BTreeMap::from([(1, vec![0; end as usize + 1])]),
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

    /// Somebody publishes.
    pub(crate) fn publish(&mut self, topic: Topic, truth: &mut Truth, clock: &mut Clock) {
        let number = truth.messages.len();
        let routed = self.kind == Kind::Queue || self.at_broker.iter().any(|bound| bound.matches(&topic));
        let at = Span::at(clock.tick());
        truth.messages.push(Published { source: self.place, topic, at, fate: Fate::Lost, again: Vec::new() });
        if routed {
            self.waiting.push_back(number);
        }
    }

    /// The node takes some of what the broker has.
    pub(crate) fn deliver(&mut self, count: usize, payload: &Bytes, truth: &mut Truth, clock: &mut Clock) {
        if self.link != Link::Up {
            return;
        }
        let mut drafts = Vec::new();
        for _ in 0..count {
            let Some(number) = self.waiting.pop_front() else { break };
            let at = Span::at(clock.tick());
            let message = &mut truth.messages[number];
            let redelivered = self.again.remove(&number);
            // What comes again was there before: its first place is what it is judged by.
            if message.fate == Fate::Logged {
                message.again.push(at.from);
            } else {
                (message.at, message.fate) = (at, Fate::Logged);
            }
            let attributes = Attributes { message_id: Some(number.to_string()), redelivered, ..Attributes::default() };
            let received_at = clock.now_ms;
            let topic = message.topic.clone();
            drafts.push(Draft { topic, payload: payload.clone(), attributes, received_at });
            self.offsets.entry(self.epoch()).or_default().push(at.from);
            if self.kind == Kind::Queue {
                self.unsettled.push_back(number);
            }
        }
        while self.unsettled.len() > UNSETTLED_MAX {
            self.unsettled.pop_front();
        }
        self.feed.append(drafts, clock.now_ms);
    }

    /// The broker drops the oldest of what it has for us, and the node hears of it; `counted` is whether of how many.
    pub(crate) fn drop_head(&mut self, count: usize, counted: bool, truth: &mut Truth, clock: &mut Clock) {
        if self.link != Link::Up || self.kind == Kind::Queue || self.waiting.is_empty() {
            return;
        }
        let dropped: Vec<Number> = self.waiting.drain(..count.min(self.waiting.len())).collect();
        let at = clock.tick();
        for number in &dropped {
            (truth.messages[*number].at, truth.messages[*number].fate) = (Span::at(at), Fate::Dropped);
        }
        truth.sources[self.place].drops.push(at);
        self.feed.hole(GapReason::Slow, counted.then_some(dropped.len() as u64));
        self.note_offsets(at);
    }

    pub(crate) fn link_down(&mut self, truth: &mut Truth, clock: &mut Clock) {
        if self.link == Link::Down {
            return;
        }
        let at = clock.tick();
        self.lose(at, truth);
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
    pub(crate) fn step(&mut self, truth: &mut Truth, clock: &mut Clock) -> bool {
        if self.link == Link::Down {
            self.link = Link::Opening;
            self.plan(clock);
            return true;
        }
        if let Some(work) = self.work.pop_front() {
            self.carry_out(work, truth, clock);
            return true;
        }
        if self.link == Link::Opening {
            self.link_up(truth, clock);
            return true;
        }
        self.plan(clock);
        !self.work.is_empty()
    }

    fn plan(&mut self, clock: &Clock) {
        let plan = self.feed.interest().plan(clock.now());
        self.work.extend(plan.bind.into_iter().map(Work::Bind));
        self.work.extend(plan.unbind.into_iter().map(Work::Unbind));
    }

    fn carry_out(&mut self, work: Work, truth: &mut Truth, clock: &mut Clock) {
        let at = clock.tick();
        let bindings = &mut truth.sources[self.place].bindings;
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

    fn link_up(&mut self, truth: &mut Truth, clock: &mut Clock) {
        let at = clock.tick();
        self.feed.link_up();
        self.note_offsets(at);
        self.link = Link::Up;
        if let Some(lost) = self.lost_at.take() {
            truth.sources[self.place].outages.push((lost, at));
        }
    }

    /// The node is gone with everything that it had; a new one begins.
    pub(crate) fn restart(&mut self, truth: &mut Truth, clock: &mut Clock) {
        let at = clock.tick();
        self.lose(at, truth);
        truth.sources[self.place].restarts.push(at);
        let epoch = self.epoch() + 1;
        self.state = fresh(self.place, self.kind, self.bounds, Epoch(epoch));
        self.feed = Feed::new(self.state.clone());
        self.note_offsets(at);
        self.link = Link::Down;
    }

    pub(crate) fn expire(&self, clock: &Clock) {
        self.feed.expire(clock.now_ms);
    }

    /// What a cursor of this source stands for.
    pub(crate) fn moment(&self, cursor: Cursor) -> Option<Span> {
        let moments = self.offsets.get(&cursor.epoch.0)?;
        moments.get(usize::try_from(cursor.offset).ok()?).map(|at| Span::at(*at))
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
    let name = ["events", "orders", "stock"][place];
    let info = SourceInfo {
        id: SourceId(place as u16),
        name: name.into(),
        epoch,
        raw_frames: RawFrames::Auto,
        events: Default::default(),
    };
    let mode = match kind {
        Kind::OnDemand => {
            BindingMode::OnDemand { kind: BindingKind::Topic, linger: Duration::from_secs(2), bindings_max: 100 }
        }
        Kind::Fixed | Kind::Queue => BindingMode::Fixed(vec![Pattern::all()]),
    };
    let state = SourceState::new(Arc::new(info), bounds, mode);
    if kind == Kind::Queue {
        Feed::new(state.clone()).keeps_everything();
    }
    state
}
