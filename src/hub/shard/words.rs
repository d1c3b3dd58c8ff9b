//! What a shard is asked for and what it answers.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::hub::archive::Check;
use crate::hub::index::SubscriberId;
use crate::hub::shard::{Excerpt, SharedClaim};
use crate::model::cursor::JointCursor;
use crate::model::flow::Flow;
use crate::model::gap::GapReason;
use crate::model::publication::{Publication, SourceId};
use crate::model::rate::Rate;
use crate::model::selector::Selector;
use crate::model::topic::Pattern;

/// Names a subscription within its subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u32);

/// Whether a subscriber's cursors are one joint cursor, so that none of its subscriptions may run ahead of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorForm {
    /// A cursor a source: each subscription goes live when it can.
    Separate,
    /// One for all: they are opened, replayed in order and go live together.
    Joint,
    /// A cursor a source, as with `Separate`; but each subscription is sent what it wants whatever the others are, so that a
    /// message comes once for each that wants it, and none takes the place of another.
    Each,
}

/// A subscription as the shard needs it.
#[derive(Debug)]
pub struct SubscribeRequest {
    /// Its name.
    pub id: SubscriptionId,
    /// What it wants.
    pub wanted: Selector,
    /// Where it goes on, by source name.
    pub after: JointCursor,
    /// The newest messages of each matching topic first.
    pub last: Last,
    /// The only source, by name.
    pub source: Option<String>,
    /// What becomes of its messages when the subscriber falls behind.
    pub flow: Flow,
    /// How many messages a second it is sent at most: what comes faster it is sent as its flow says.
    pub max_rate: Option<Rate>,
}

/// How many of the newest messages a subscription wants first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Last {
    /// Of each matching topic; 0 for none.
    pub each: usize,
    /// Or, where none is wanted so, what was retained.
    pub retained: bool,
    /// In all.
    pub total_max: usize,
}

/// What a subscription waits for before it can be activated.
#[derive(Debug)]
pub struct Opening {
    /// One a source; all must stand.
    pub claims: Vec<Arc<SharedClaim>>,
    /// Cursors on which their streams have to say first whether they are genuine.
    pub checks: Vec<Arc<Check>>,
}

/// Where a subscription stands: from there another may go on in its place, as long as this is held.
#[derive(Debug)]
pub struct Place {
    /// Its cursors, by source name.
    pub after: JointCursor,
    /// What keeps it bound, one a source.
    pub claims: Vec<Arc<SharedClaim>>,
}

/// Why a subscription cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no source of that name.
    UnknownSource(String),
    /// The source cannot be bound so; the sentence says what to do.
    Refused(String),
}

/// A subscription whose bindings stand.
#[derive(Debug)]
pub struct Activated {
    /// Which.
    pub id: SubscriptionId,
    /// Where it stands in each of its sources: the position now, or, before a replay, where that begins.
    pub cursors: JointCursor,
    /// Whether a cursor was given for each source and nothing was missed since.
    pub resumed: bool,
    /// What was missed.
    pub gaps: Vec<Missed>,
    /// Whether a replay follows.
    pub replay: bool,
}

/// A subscription that stood, and that nothing will come of any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Lapsed {
    /// Whose.
    pub subscriber: SubscriberId,
    /// Which.
    pub subscription: SubscriptionId,
    /// Of which sources it misses what is published since.
    pub gaps: Vec<Missed>,
    /// Why, in a sentence for the client.
    pub sentence: String,
}

/// Something that a subscription missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Which subscription.
    pub subscription: SubscriptionId,
    /// Its pattern.
    pub pattern: Pattern,
    /// The source's name.
    pub source: Arc<str>,
    /// Why.
    pub reason: GapReason,
    /// How many, if known.
    pub missed: Option<u64>,
}

/// A piece of a replay, or of what a subscriber that fell behind is sent from the log.
#[derive(Debug, Default)]
pub struct Replay {
    /// What to send, in order.
    pub messages: Vec<Replayed>,
    /// Or instead what others are sent too, whatever their cursors, for one subscription: its frames are shared.
    pub excerpt: Option<(SubscriptionId, Excerpt)>,
    /// Publications that were looked at in logs for this.
    pub looked_at: u64,
    /// Whether it is a replay that somebody asked for, not what is live and late.
    pub asked_for: bool,
    /// What turned out to be gone meanwhile; to be told before `messages`.
    pub gaps: Vec<Missed>,
    /// Which of that had left a log.
    pub(super) lost: Vec<Lost>,
    /// Subscriptions that are live from now on; to be told after `messages`.
    pub caught_up: Vec<CaughtUp>,
    /// Whether anything was read at all; if not, see `wait`.
    pub progressed: bool,
    /// For what the subscriber waits where nothing was read.
    pub wait: Wait,
}

/// A stretch of which something had left the log, or the stream behind it, before a subscription came to read it.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) subscription: SubscriptionId,
    pub(super) source: SourceId,
    pub(super) reason: GapReason,
    /// It begins after the start, and ends with the end: what follows was there.
    pub(super) span: Range<u64>,
}

/// For what those wait who have something to read and read nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wait {
    /// For the shard to come as far, or for a source to fetch it: to be asked again when anything of
    /// [`crate::hub::shard::Shard::awaited`] has come.
    pub shard: bool,
    /// For this moment, because they were sent as much as they may be.
    pub until: Option<Instant>,
}

/// A message of a replay.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// The message.
    pub publication: Arc<Publication>,
    /// The joint cursor after it; empty where cursors are separate.
    pub position: JointCursor,
    /// The subscription that wants it; one of them, where it is sent once for all.
    pub subscription: SubscriptionId,
}

impl Replay {
    /// Leaves out what was published under a name.
    pub(super) fn leave_out(&mut self, origin: &Arc<str>) {
        self.retain(|publication| publication.draft.attributes.origin.as_ref() != Some(origin));
    }

    /// Leaves out some of the messages. What is shared stays so unless one of it goes.
    pub(super) fn retain(&mut self, keep: impl Fn(&Publication) -> bool) {
        let has_other = |(_, excerpt): &mut (_, Excerpt)| !excerpt.publications().iter().all(|one| keep(one));
        if let Some((subscription, excerpt)) = self.excerpt.take_if(has_other) {
            self.messages = excerpt.publications().iter().cloned().map(|one| Replayed::of(subscription, one)).collect();
        }
        self.messages.retain(|replayed| keep(&replayed.publication));
    }

    /// Whether there is anything to tell or to send, or that was read and is not to be sent.
    pub(super) fn has_brought(&self) -> bool {
        self.progressed || !self.gaps.is_empty()
    }

    /// What there is to send.
    pub(super) fn publications(&self) -> impl Iterator<Item = &Arc<Publication>> {
        let shared = self.excerpt.as_ref().map_or(&[][..], |(_, excerpt)| excerpt.publications());
        shared.iter().chain(self.messages.iter().map(|replayed| &replayed.publication))
    }
}

impl Replayed {
    /// A message for a subscriber whose cursors are separate.
    pub(super) fn of(subscription: SubscriptionId, publication: Arc<Publication>) -> Self {
        Self { publication, position: JointCursor::default(), subscription }
    }
}

/// A subscription that has been sent everything and is live from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaughtUp {
    /// Which.
    pub id: SubscriptionId,
    /// Where it stands in each of its sources.
    pub cursors: JointCursor,
}

/// Something to tell a subscriber between its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It missed something.
    Gap(Missed),
    /// A source lost its broker.
    Outage(Arc<str>),
    /// It has it back.
    Restored(Arc<str>),
}

/// What the shard took in one turn.
#[derive(Debug, Default)]
pub struct Taken {
    /// Whether there may be more to take at once.
    pub more: bool,
    /// To be told before the turn's messages.
    pub notices: Vec<(SubscriberId, Notice)>,
    /// Who reads on by [`crate::hub::shard::Shard::replay`]: because the shard itself fell behind, or in their own time.
    pub fallen: Vec<SubscriberId>,
}
