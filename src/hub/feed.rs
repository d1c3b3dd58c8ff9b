//! The sequencer: what a source holds of the hub. Drafts get their positions here, in the order in which they are
//! appended.
//!
//! A [`Feed`] is the only way in: a source sees neither shards nor subscribers, only this and the interest that it
//! turns into bindings. A [`SourceState`] is what the shards see of the same source. No lock here is held over an await.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::config::LogBounds;
use crate::hub::archive::Archive;
use crate::hub::interest::{BindingMode, Interest};
use crate::hub::log::Log;
use crate::hub::presence::{Presence, Terms};
use crate::model::gap::GapReason;
use crate::model::publication::{Draft, Publication, SourceId, SourceInfo, UnixMillis};
use crate::model::topic::Pattern;

/// All sources of this node, in the order of their ids.
#[derive(Debug)]
pub struct Hub {
    sources: Vec<Arc<SourceState>>,
    presence: Arc<Presence>,
}

impl Hub {
    /// Holds these; a source's id must be its place in the list.
    pub fn new(sources: Vec<Arc<SourceState>>) -> Self {
        debug_assert!(sources.iter().enumerate().all(|(place, source)| source.info.id.index() == place));
        Self { sources, presence: Arc::new(Presence::new(Terms::default())) }
    }

    /// With presence, which is off otherwise.
    #[must_use]
    pub fn with_presence(self, terms: Terms) -> Self {
        Self { presence: Arc::new(Presence::new(terms)), ..self }
    }

    /// Who is subscribed to what, on all nodes.
    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// Every source, indexable by [`SourceId::index`].
    pub fn sources(&self) -> &[Arc<SourceState>] {
        &self.sources
    }

    /// The source with this id.
    pub fn source(&self, id: SourceId) -> Option<&Arc<SourceState>> {
        self.sources.get(id.index())
    }

    /// The source with this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<SourceState>> {
        self.sources.iter().find(|source| &*source.info.name == name)
    }
}

/// Whether a source's link to the broker stands, and how often that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Whether it stands.
    pub up: bool,
    /// Transitions since the start: who remembers the number sees an outage that began and ended in between.
    pub changes: u64,
}

/// One source's shared state: its log, its interest, its link, and the doorbells of the shards.
#[derive(Debug)]
pub struct SourceState {
    info: Arc<SourceInfo>,
    log: Mutex<Log>,
    /// What a stream has beside the log.
    archive: Option<Archive>,
    interest: Interest,
    /// Transitions of the link. It starts down, so an odd number is up.
    link_changes: AtomicU64,
    /// Whether bindings were lost with the link, and the hole that this makes is not noted yet.
    owes_hole: AtomicBool,
    /// How often its stream turned out to be another one.
    remade: AtomicU64,
    /// One a shard, added at start.
    doorbells: Mutex<Vec<Arc<Notify>>>,
}

impl SourceState {
    /// A source whose link is not up yet.
    pub fn new(info: Arc<SourceInfo>, bounds: LogBounds, bindings: BindingMode) -> Arc<Self> {
        Self::with(Log::new(info, bounds), None, bindings)
    }

    /// A source that is a stream; its info's epoch is the same on every node.
    pub fn of_stream(info: Arc<SourceInfo>, bounds: LogBounds) -> Arc<Self> {
        let everything = BindingMode::Fixed(vec![Pattern::all()]);
        Self::with(Log::of_stream(info, bounds), Some(Archive::default()), everything)
    }

    fn with(log: Log, archive: Option<Archive>, bindings: BindingMode) -> Arc<Self> {
        let info = log.info().clone();
        Arc::new(Self {
            log: Mutex::new(log),
            archive,
            interest: Interest::new(&info.name, bindings),
            info,
            link_changes: AtomicU64::new(0),
            owes_hole: AtomicBool::new(false),
            remade: AtomicU64::new(0),
            doorbells: Mutex::new(Vec::new()),
        })
    }

    /// Its id, name and epoch.
    pub fn info(&self) -> &Arc<SourceInfo> {
        &self.info
    }

    /// The log. Hold it for short, never over an await: the source appends through the same lock.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its stream has beside the log; nothing where it is no stream.
    pub fn archive(&self) -> Option<&Archive> {
        self.archive.as_ref()
    }

    /// How often its stream turned out to be another one by the same name: what was read of it before is void.
    pub fn remade(&self) -> u64 {
        self.remade.load(Ordering::Acquire)
    }

    /// How often claims or cursors were answered: who waits for one looks again when it has risen.
    pub fn tellings(&self) -> u64 {
        self.interest.tellings() + self.archive.as_ref().map_or(0, Archive::tellings)
    }

    /// Who wants what of it.
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// Whether its link stands.
    pub fn link(&self) -> Link {
        let changes = self.link_changes.load(Ordering::Acquire);
        Link { up: is_up(changes), changes }
    }

    /// Whether its link ever stood.
    pub fn ever_up(&self) -> bool {
        self.link().changes > 0
    }

    /// Adds a shard's doorbell: rung after appends, holes, bindings and changes of the link.
    pub fn add_doorbell(&self, doorbell: Arc<Notify>) {
        self.interest.add_doorbell(doorbell.clone());
        self.doorbells.lock().unwrap_or_else(PoisonError::into_inner).push(doorbell);
    }

    fn ring(&self) {
        for doorbell in self.doorbells.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            doorbell.notify_one();
        }
    }

    /// Counts a transition to `up`; whether it was one.
    fn turn_link(&self, up: bool) -> bool {
        let turned = self
            .link_changes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |changes| (is_up(changes) != up).then_some(changes + 1));
        turned.is_ok()
    }
}

/// The link starts down, so it is up after an odd number of changes.
fn is_up(changes: u64) -> bool {
    changes % 2 == 1
}

/// Where the log of a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStanding {
    /// Whether anything is known of the stream.
    pub has_begun: bool,
    /// The position of the last message that came.
    pub end: u64,
    /// What came after this position is in the log.
    pub floor: u64,
}

/// What becomes of messages while a source has no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// They are lost.
    Lost,
    /// A queue keeps them.
    Kept,
}

/// What a source holds of the hub. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed(Arc<SourceState>);

impl Feed {
    /// The way in for this source.
    pub fn new(source: Arc<SourceState>) -> Self {
        Self(source)
    }

    /// Its id, name and epoch.
    pub fn info(&self) -> &Arc<SourceInfo> {
        &self.0.info
    }

    /// Gives positions, logs, and rings the doorbells. When this returns, the drafts may be acknowledged: the log has them.
    pub fn append(&self, drafts: Vec<Draft>, now: UnixMillis) {
        if drafts.is_empty() {
            return;
        }
        self.0.log().append(drafts, now);
        self.0.ring();
    }

    /// Likewise for drafts whose positions are the stream's; those that the log has are passed over.
    pub fn append_placed(&self, drafts: Vec<(u64, Draft)>, now: UnixMillis) {
        if drafts.is_empty() {
            return;
        }
        self.0.log().append_placed(drafts, now);
        self.0.ring();
    }

    /// Where the log of a stream stands.
    pub fn standing(&self) -> StreamStanding {
        let log = self.0.log();
        StreamStanding { has_begun: log.has_begun(), end: log.end(), floor: log.floor() }
    }

    /// The stream was found to end with this position; 0 where it is empty.
    pub fn begin(&self, position: u64) {
        self.0.log().begin(position);
    }

    /// What follows the log's end was cut off from the stream up to this offset of it, before it came here.
    pub fn cut(&self, offset: u64) {
        self.0.log().cut(offset);
        self.0.ring();
    }

    /// The stream was deleted and made anew: the log begins again, with what follows this position of the new one, and
    /// everybody is told that nothing before it counts.
    pub fn remade(&self, begins: u64) {
        let mut log = self.0.log();
        log.restart(begins);
        if let Some(archive) = &self.0.archive {
            archive.forget();
        }
        self.0.remade.fetch_add(1, Ordering::AcqRel);
        drop(log);
        self.0.ring();
    }

    /// Publications that the stream has from before the log: those among the last of their topics are kept.
    pub fn remember(&self, publications: Vec<Arc<Publication>>) {
        let mut log = self.0.log();
        publications.into_iter().for_each(|publication| log.remember(publication));
    }

    /// What readers want of the stream itself; nothing where the source is none.
    pub fn archive(&self) -> Option<&Archive> {
        self.0.archive.as_ref()
    }

    /// Wakes the shards after the archive was given an answer.
    pub fn answered(&self) {
        self.0.ring();
    }

    /// Lets the log drop what has grown too old; to be called now and then while nothing arrives.
    pub fn expire(&self, now: UnixMillis) {
        self.0.log().expire(now);
    }

    /// Notes that something was or may have been lost at this point; `missed` is how many, over all topics, when known.
    ///
    /// What a lost link costs is noted by [`Self::bound`].
    pub fn hole(&self, reason: GapReason, missed: Option<u64>) {
        let several = self.0.interest.held() > 1;
        let mut log = self.0.log();
        if several {
            log.bound_unheard();
        }
        log.hole(reason, missed);
        drop(log);
        self.0.ring();
    }

    /// The link stands, and with it everything that is fixed to be bound, for which nobody has to ask the broker.
    pub fn link_up_bound(&self, now: Instant) {
        let plan = self.interest().plan(now);
        plan.bind.iter().for_each(|pattern| self.bound(pattern));
        self.link_up();
    }

    /// The link stands, for the first time or again.
    pub fn link_up(&self) {
        if self.0.turn_link(true) {
            self.0.ring();
        }
    }

    /// The link is gone, and with it every binding made on demand: all claims are wanted again, nothing is in flight.
    ///
    /// To be called before anything is planned on a new link, also when the old one failed before it was up.
    pub fn link_down(&self, meanwhile: Meanwhile) {
        if meanwhile == Meanwhile::Lost && self.0.interest.bindings() > 0 {
            self.0.owes_hole.store(true, Ordering::Release);
        }
        if !self.0.interest.is_fixed() {
            self.0.log().unbound_all();
        }
        self.0.interest.lost();
        self.0.turn_link(false);
        self.0.ring();
    }

    /// Who wants what of it.
    pub fn interest(&self) -> &Interest {
        &self.0.interest
    }

    /// Whatever is published comes, however long that takes: a queue keeps its messages, also before the first link.
    pub fn keeps_everything(&self) {
        self.0.log().bound(&Pattern::all());
    }

    /// The broker confirmed this binding: the log covers it from here on, then the claims stand.
    ///
    /// The first one after a lost link comes after the hole that this made: whoever begins with a binding has missed
    /// nothing before it.
    pub fn bound(&self, pattern: &Pattern) {
        if self.0.owes_hole.swap(false, Ordering::AcqRel) {
            self.hole(GapReason::Outage, None);
        }
        match self.0.interest.fixed_once(pattern) {
            None => self.0.log().bound(pattern),
            // What a fixed list lets in is all there is of this source, so the whole list covers every pattern.
            Some(true) => self.0.log().bound(&Pattern::all()),
            Some(false) => {}
        }
        self.0.interest.stands(pattern);
        self.0.ring();
    }

    /// This binding is about to be removed: to be called before the broker is asked, so that the log never claims too much.
    pub fn unbound(&self, pattern: &Pattern) {
        if self.0.interest.is_fixed() {
            self.0.log().unbound(&Pattern::all());
        } else {
            self.0.log().unbound(pattern);
        }
        self.0.interest.gone(pattern);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::hub::interest::{BindingKind, Standing};
    use crate::model::cursor::{Cursor, Epoch};
    use crate::model::publication::Attributes;
    use crate::model::topic::Topic;

    const ON_DEMAND: BindingMode =
        BindingMode::OnDemand { kind: BindingKind::Topic, linger: std::time::Duration::from_secs(1), bindings_max: 9 };

    fn source(bindings: BindingMode) -> (Feed, Arc<SourceState>, Arc<Notify>) {
        let info = Arc::new(SourceInfo::new(SourceId(0), "events", Epoch(3)));
        let state = SourceState::new(info, LogBounds::default(), bindings);
        let doorbell = Arc::new(Notify::new());
        state.add_doorbell(doorbell.clone());
        (Feed::new(state.clone()), state, doorbell)
    }

    fn draft(topic: &str) -> Draft {
        let topic = Topic::parse(topic).unwrap();
        Draft { topic, payload: Bytes::new(), attributes: Attributes::default(), received_at: 0 }
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn gaps(state: &SourceState, text: &str, offset: u64) -> Vec<GapReason> {
        let resume = state.log().resume(&pattern(text), Cursor { epoch: Epoch(3), offset });
        resume.gaps.iter().map(|gap| gap.reason).collect()
    }

    /// Whether the doorbell rang since it was last asked.
    async fn rang(doorbell: &Notify) -> bool {
        tokio::select! {
            biased;
            () = doorbell.notified() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn whatever_shards_must_see_rings_their_doorbell() {
        let (feed, state, doorbell) = source(ON_DEMAND);
        feed.append(Vec::new(), 0);
        assert!(!rang(&doorbell).await);
        feed.append(vec![draft("a"), draft("b")], 0);
        assert!(rang(&doorbell).await && !rang(&doorbell).await);
        assert_eq!(state.log().end(), 2);
        feed.hole(GapReason::Slow, None);
        assert!(rang(&doorbell).await);
        feed.bound(&pattern("a"));
        assert!(rang(&doorbell).await);
        feed.link_up();
        assert!(rang(&doorbell).await);
        feed.link_down(Meanwhile::Lost);
        assert!(rang(&doorbell).await);
    }

    #[test]
    fn transitions_of_the_link_are_counted_once_each() {
        let (feed, state, _) = source(ON_DEMAND);
        feed.link_down(Meanwhile::Lost);
        assert_eq!((state.link(), state.ever_up()), (Link { up: false, changes: 0 }, false));
        feed.link_up();
        feed.link_up();
        assert_eq!((state.link(), state.ever_up()), (Link { up: true, changes: 1 }, true));
        feed.link_down(Meanwhile::Lost);
        assert_eq!((state.link(), state.ever_up()), (Link { up: false, changes: 2 }, true));
    }

    #[test]
    fn a_lost_link_ends_what_was_bound_on_demand() {
        let (feed, state, _) = source(ON_DEMAND);
        let claim = feed.interest().claim(&pattern("a"));
        feed.interest().plan(Instant::now());
        feed.bound(&pattern("a"));
        let before = state.log().end();
        assert_eq!((claim.standing(), gaps(&state, "a", before)), (Standing::Stands, vec![]));
        feed.link_down(Meanwhile::Lost);
        assert_eq!(claim.standing(), Standing::Wanted);
        assert_eq!(feed.interest().plan(Instant::now()).bind, [pattern("a")]);
        feed.bound(&pattern("a"));
        assert_eq!(gaps(&state, "a", before), [GapReason::Outage]);
        feed.unbound(&pattern("a"));
        feed.append(vec![draft("b")], 0);
        let last = state.log().end();
        assert_eq!(gaps(&state, "a", last - 1), [GapReason::Unbound]);
    }

    /// A queue keeps its messages while the link is away; an exchange with fixed bindings has its hole.
    #[test]
    fn fixed_bindings_cover_everything_once_all_stand_and_through_outages() {
        let (feed, state, _) = source(BindingMode::Fixed(vec![pattern("a"), pattern("b")]));
        feed.interest().plan(Instant::now());
        feed.bound(&pattern("a"));
        let early = state.log().end();
        feed.bound(&pattern("b"));
        let complete = state.log().end();
        assert_eq!(gaps(&state, "x.#", early), [GapReason::Unbound]);
        assert_eq!(gaps(&state, "x.#", complete), []);
        feed.link_down(Meanwhile::Kept);
        feed.interest().plan(Instant::now());
        feed.bound(&pattern("a"));
        feed.bound(&pattern("b"));
        assert_eq!(gaps(&state, "x.#", complete), []);
        feed.link_down(Meanwhile::Lost);
        feed.interest().plan(Instant::now());
        feed.bound(&pattern("a"));
        feed.bound(&pattern("b"));
        assert_eq!(gaps(&state, "x.#", complete), [GapReason::Outage]);
    }

    /// Whoever subscribes during the outage gets a cursor from after the hole, and has missed nothing.
    #[test]
    fn an_outage_is_before_what_is_bound_after_it() {
        let (feed, state, _) = source(ON_DEMAND);
        let _claim = feed.interest().claim(&pattern("a"));
        feed.interest().plan(Instant::now());
        feed.link_down(Meanwhile::Lost);
        feed.interest().plan(Instant::now());
        feed.bound(&pattern("a"));
        assert_eq!(state.log().end(), 1, "nothing was bound before, so nothing was lost");
        feed.link_down(Meanwhile::Lost);
        feed.interest().plan(Instant::now());
        feed.bound(&pattern("a"));
        let began = state.log().end();
        let tail = state.log().tail(0, 9, 9);
        assert_eq!(tail.holes.iter().map(|hole| hole.at).collect::<Vec<_>>(), [1]);
        assert_eq!((began, gaps(&state, "a", began)), (3, vec![]));
        feed.link_up();
        assert_eq!(state.log().end(), began);
    }

    /// The number of lost messages is told for a pattern only when all of them must have matched it.
    #[test]
    fn messages_of_a_binding_that_is_gone_or_not_confirmed_may_be_among_the_lost() {
        let missed = |feed: &Feed, state: &SourceState| {
            feed.hole(GapReason::Slow, Some(1));
            let log = state.log();
            log.tail(log.end() - 1, 9, 9).holes.last().map(|hole| hole.gap(&pattern("a")).missed)
        };
        let (feed, state, _) = source(ON_DEMAND);
        let _claim = feed.interest().claim(&pattern("a"));
        feed.interest().plan(Instant::now());
        feed.bound(&pattern("a"));
        assert_eq!(missed(&feed, &state), Some(Some(1)));
        let other = feed.interest().claim(&pattern("b"));
        assert_eq!(feed.interest().plan(Instant::now()).bind, [pattern("b")]);
        assert_eq!(missed(&feed, &state), Some(None), "the broker may have bound it");
        drop(other);
        feed.bound(&pattern("b"));
        feed.unbound(&pattern("b"));
        assert_eq!(missed(&feed, &state), Some(None), "its messages may still wait");
    }

    /// Also before it was ever read: what waits in a queue comes.
    #[test]
    fn a_queue_is_complete_from_the_start() {
        let (feed, state, _) = source(BindingMode::Fixed(vec![Pattern::all()]));
        feed.keeps_everything();
        let start = state.log().end();
        feed.interest().plan(Instant::now());
        feed.bound(&Pattern::all());
        assert_eq!(gaps(&state, "a", start), []);
    }

    #[test]
    fn sources_are_found_by_id_and_name() {
        let (_, state, _) = source(ON_DEMAND);
        let hub = Hub::new(vec![state]);
        assert!(hub.by_name("events").is_some() && hub.by_name("other").is_none());
        assert!(hub.source(SourceId(0)).is_some() && hub.source(SourceId(1)).is_none());
        assert_eq!(hub.sources().len(), 1);
    }
}
