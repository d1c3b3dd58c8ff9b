//! What the sources of a simulation have in common: the world that they change, and the questions that the run asks them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use passerelle::config::LogBounds;
use passerelle::hub::feed::SourceState;
use passerelle::model::cursor::{Cursor, Epoch};
use passerelle::model::publication::{Attributes, Draft, SourceId, SourceInfo};
use passerelle::model::topic::Topic;
use passerelle::model::value::Headers;

use crate::history::broker::Bound;
use crate::history::record::{Moment, Number, Span, Truth};
use crate::history::stream::Stream;

/// The moment at which everything begins. Before it is nothing but what somebody made up.
pub(crate) const BEGIN: Moment = 1;

/// What kind of source it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An exchange, bound to what is wanted.
    OnDemand,
    /// An exchange that is bound to everything.
    Fixed,
    /// A queue.
    Queue,
    /// A stream.
    Stream,
}

/// Time and the order of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) moment: Moment,
    pub(crate) now_ms: u64,
    pub(crate) start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { moment: BEGIN, now_ms: 1_000, start: Instant::now() }
    }

    /// The next moment.
    pub(crate) fn tick(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }
}

/// Chance, time, and what truly happens.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) clock: Clock,
    pub(crate) truth: Truth,
    /// Of every message.
    pub(crate) payload: Bytes,
}

/// One source, with its broker and as all nodes have it. Only a stream is read by several.
pub(crate) enum Source {
    Bound(Bound),
    Stream(Stream),
}

impl Source {
    pub(crate) fn new(place: usize, (kind, nodes): (Kind, usize), bounds: LogBounds, world: &mut World) -> Self {
        match kind {
            Kind::Stream => Self::Stream(Stream::new(place, nodes, bounds, world)),
            _ => Self::Bound(Bound::new(place, kind, bounds, &mut world.truth)),
        }
    }

    pub(crate) fn state(&self, node: usize) -> &Arc<SourceState> {
        match self {
            Self::Bound(bound) => bound.state(),
            Self::Stream(stream) => stream.state(node),
        }
    }

    /// Somebody publishes.
    pub(crate) fn publish(&mut self, topic: Topic, headers: Headers, world: &mut World) {
        match self {
            Self::Bound(bound) => bound.publish(topic, headers, world),
            Self::Stream(stream) => stream.publish(topic, headers, world),
        }
    }

    /// A node takes some of what the broker has; whether there was anything.
    pub(crate) fn deliver(&mut self, node: usize, count: usize, world: &mut World) -> bool {
        match self {
            Self::Bound(bound) => bound.deliver(count, world),
            Self::Stream(stream) => stream.deliver(node, count, world),
        }
    }

    /// The broker drops messages.
    pub(crate) fn shorten(&mut self, world: &mut World) {
        match self {
            Self::Bound(bound) => bound.drop_head(world),
            Self::Stream(stream) => stream.cut(world),
        }
    }

    /// A stream is deleted and made anew; anything else only loses its link.
    pub(crate) fn remake(&mut self, world: &mut World) {
        match self {
            Self::Bound(bound) => bound.link_down(world),
            Self::Stream(stream) => stream.remake(world),
        }
    }

    pub(crate) fn link_down(&mut self, node: usize, world: &mut World) {
        match self {
            Self::Bound(bound) => bound.link_down(world),
            Self::Stream(stream) => stream.link_down(node),
        }
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        match self {
            Self::Bound(bound) => bound.is_up(),
            Self::Stream(stream) => stream.is_up(node),
        }
    }

    /// The next step towards a link, or of the work on one; whether there was any.
    pub(crate) fn step(&mut self, node: usize, world: &mut World) -> bool {
        match self {
            Self::Bound(bound) => bound.step(world),
            Self::Stream(stream) => stream.step(node, world),
        }
    }

    /// A node is gone with everything that it had; a new one begins.
    pub(crate) fn restart(&mut self, node: usize, world: &mut World) {
        match self {
            Self::Bound(bound) => bound.restart(world),
            Self::Stream(stream) => stream.restart(node),
        }
    }

    pub(crate) fn expire(&mut self, world: &mut World) {
        match self {
            Self::Bound(bound) => bound.expire(world),
            Self::Stream(stream) => stream.expire(world),
        }
    }

    /// What a cursor of this source stands for; nothing where nobody gave it.
    pub(crate) fn moment(&self, cursor: Cursor) -> Option<Span> {
        match self {
            Self::Bound(bound) => bound.moment(cursor),
            Self::Stream(stream) => stream.moment(cursor),
        }
    }

    /// A cursor that this source never gave.
    pub(crate) fn forged(&self, world: &mut World) -> Cursor {
        match self {
            Self::Bound(bound) => bound.forged(world),
            Self::Stream(stream) => stream.forged(world),
        }
    }
}

/// What a log holds, by its own positions.
#[derive(Debug, Default)]
pub(crate) struct Held(VecDeque<(u64, Number)>);

impl Held {
    pub(crate) fn push(&mut self, position: u64, number: Number) {
        self.0.push_back((position, number));
    }

    /// Writes down what the log has let go of.
    pub(crate) fn note(&mut self, state: &SourceState, world: &mut World) {
        let evicted = state.log().evicted();
        if self.0.front().is_none_or(|(position, _)| *position > evicted) {
            return;
        }
        let at = world.clock.tick();
        while let Some((_, number)) = self.0.pop_front_if(|(position, _)| *position <= evicted) {
            world.truth.messages[number].evicted.get_or_insert(Span::at(at)).to = at;
        }
    }
}

/// The info of the source with this place.
pub(crate) fn info(place: usize, epoch: Epoch) -> Arc<SourceInfo> {
    let name = ["events", "orders", "stock"][place];
    Arc::new(SourceInfo::new(SourceId(place as u16), name, epoch))
}

/// A message as a node makes it of what came.
pub(crate) fn draft(number: Number, redelivered: bool, world: &World) -> Draft {
    let message = &world.truth.messages[number];
    let (headers, message_id) = (message.headers.clone(), Some(number.to_string()));
    let attributes = Attributes { message_id, redelivered, headers, ..Attributes::default() };
    let (topic, payload) = (message.topic.clone(), world.payload.clone());
    Draft { topic, payload, attributes, received_at: world.clock.now_ms }
}
