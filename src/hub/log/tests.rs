//! The log against a model of the whole world: a broker that delivers what is bound while the link stands, publishers
//! whose every message is remembered, and clients who come back with cursors. Loss is decided there by definition.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::LastBounds;
use crate::model::cursor::Epoch;
use crate::model::publication::{Attributes, SourceId};

const PATTERNS: [&str; 10] = ["#", "*.*", "a.*", "a.#", "*.b", "a.b", "a", "b", "*", "#.b"];
const TOPICS: [&str; 6] = ["a.b", "a", "b", "a.c", "c.b", "a.b.c"];

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Publish { topic: usize, bytes: usize },
    Drop { topic: usize },
    Bind(usize),
    Unbind(usize),
    LinkDown,
    LinkUp { hole_first: bool },
    Pass(u64),
    TakeCursor,
    Resume { pattern: usize, cursor: usize },
    Follow { messages_max: usize, bytes_max: usize },
    Newest { pattern: usize, each: usize, total: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (any_pattern, any_topic) = (0..PATTERNS.len(), 0..TOPICS.len());
    prop_oneof![
        12 => (any_topic.clone(), 0..40usize).prop_map(|(topic, bytes)| Step::Publish { topic, bytes }),
        1 => any_topic.prop_map(|topic| Step::Drop { topic }),
        4 => any_pattern.clone().prop_map(Step::Bind),
        3 => any_pattern.clone().prop_map(Step::Unbind),
        1 => Just(Step::LinkDown),
        2 => any::<bool>().prop_map(|hole_first| Step::LinkUp { hole_first }),
        2 => (0..40u64).prop_map(Step::Pass),
        6 => Just(Step::TakeCursor),
        8 => (any_pattern.clone(), 0..12usize).prop_map(|(pattern, cursor)| Step::Resume { pattern, cursor }),
        4 => (1..5usize, 0..100usize).prop_map(|(messages_max, bytes_max)| Step::Follow { messages_max, bytes_max }),
        2 => (any_pattern, 0..4usize, 0..6usize).prop_map(|(pattern, each, total)| Step::Newest { pattern, each, total }),
    ]
}

/// A message that was published, wherever it went.
struct Message {
    time: usize,
    topic: Topic,
    bytes: usize,
    at: UnixMillis,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing was bound for it, or the link was away.
    Lost,
    /// The broker dropped it and said so.
    Dropped,
    Logged(u64),
    Evicted(u64),
}

impl Message {
    fn offset(&self) -> u64 {
        match self.fate {
            Fate::Logged(offset) | Fate::Evicted(offset) => offset,
            Fate::Lost | Fate::Dropped => 0,
        }
    }
}

/// What was bound while the moment lasted; nothing stands without a link.
#[derive(Clone)]
struct Moment {
    is_linked: bool,
    bound: Vec<Pattern>,
}

impl Moment {
    /// Whether what is bound, or will be once the link is back, includes the pattern.
    fn binds(&self, pattern: &Pattern) -> bool {
        self.bound.iter().any(|bound| bound.includes(pattern))
    }

    fn covers(&self, pattern: &Pattern) -> bool {
        self.is_linked && self.binds(pattern)
    }
}

struct World {
    log: Log,
    bounds: Bounds,
    now: UnixMillis,
    messages: Vec<Message>,
    /// One after each step.
    moments: Vec<Moment>,
    /// The moment at which each was taken, and the offset.
    cursors: Vec<(usize, u64)>,
    followed: u64,
    holes: Vec<u64>,
    holes_told: Vec<u64>,
}

fn info() -> Arc<SourceInfo> {
    Arc::new(SourceInfo::new(SourceId(0), "events", Epoch(7)))
}

fn bounds(remembered_max: usize) -> Bounds {
    let ring = RingBounds {
        messages_max: 12,
        bytes_max: 300,
        age_max_ms: 100,
        trail_max: remembered_max,
        lapsed_topics_max: remembered_max,
        last: LastBounds { each: 0, messages_max: 0, bytes_max: 0 },
    };
    Bounds { ring, holes_max: remembered_max, ended_intervals_max: remembered_max }
}

fn draft(topic: &Topic, bytes: usize, received_at: UnixMillis) -> Draft {
    let payload = Bytes::from(vec![0; bytes]);
    Draft { topic: topic.clone(), payload, attributes: Attributes::default(), received_at }
}

impl World {
    fn new(bounds: Bounds) -> Self {
        Self {
            log: Log::bounded(info(), bounds),
            bounds,
            now: 1000,
            messages: Vec::new(),
            moments: vec![Moment { is_linked: true, bound: Vec::new() }],
            cursors: vec![(0, 0)],
            followed: 0,
            holes: Vec::new(),
            holes_told: Vec::new(),
        }
    }

    fn moment(&self) -> &Moment {
        self.moments.last().unwrap()
    }

    fn take(&mut self, step: &Step) {
        let mut moment = self.moment().clone();
        match step {
            Step::Publish { topic, bytes } => self.publish(TOPICS[*topic], *bytes),
            Step::Drop { topic } => self.drop_at_broker(TOPICS[*topic]),
            Step::Bind(place) => self.bind(&mut moment, &pattern(PATTERNS[*place])),
            Step::Unbind(place) if moment.is_linked => {
                let pattern = pattern(PATTERNS[*place]);
                moment.bound.retain(|bound| *bound != pattern);
                self.log.unbound(&pattern);
            }
            Step::LinkDown => {
                moment.is_linked = false;
                self.log.unbound_all();
            }
            Step::LinkUp { hole_first } if !moment.is_linked => self.link_up(&mut moment, *hole_first),
            Step::Pass(time) => {
                self.now += time;
                self.log.expire(self.now);
                self.evict();
            }
            Step::TakeCursor => self.cursors.push((self.moments.len() - 1, self.log.end())),
            Step::Resume { pattern: place, .. } => {
                // Whoever resumes waits for the binding.
                if !moment.is_linked {
                    self.link_up(&mut moment, false);
                }
                let pattern = pattern(PATTERNS[*place]);
                if !moment.covers(&pattern) {
                    self.bind(&mut moment, &pattern);
                }
            }
            Step::Follow { messages_max, bytes_max } => self.follow(*messages_max, *bytes_max),
            Step::Newest { pattern: place, each, total } => self.newest(&pattern(PATTERNS[*place]), *each, *total),
            Step::Unbind(_) | Step::LinkUp { .. } => {}
        }
        self.moments.push(moment);
        assert_eq!(self.log.messages(), self.kept().count());
        assert_eq!(self.log.bytes(), self.kept().map(|message| message.bytes).sum::<usize>());
    }

    fn bind(&mut self, moment: &mut Moment, pattern: &Pattern) {
        if moment.is_linked && !moment.bound.contains(pattern) {
            moment.bound.push(pattern.clone());
            self.log.bound(pattern);
        }
    }

    fn link_up(&mut self, moment: &mut Moment, hole_first: bool) {
        moment.is_linked = true;
        if hole_first {
            self.hole(GapReason::Outage, None);
        }
        moment.bound.iter().for_each(|pattern| self.log.bound(pattern));
        if !hole_first {
            self.hole(GapReason::Outage, None);
        }
    }

    fn hole(&mut self, reason: GapReason, missed: Option<u64>) {
        self.holes.push(self.log.end());
        self.log.hole(reason, missed);
    }

    fn publish(&mut self, topic: &str, bytes: usize) {
        let topic = Topic::parse(topic).unwrap();
        let is_delivered = self.moment().is_linked && self.moment().bound.iter().any(|bound| bound.matches(&topic));
        let fate = if is_delivered { Fate::Logged(self.log.end() + 1) } else { Fate::Lost };
        let draft = draft(&topic, bytes, self.now);
        let bytes = bytes + topic.as_str().len();
        self.messages.push(Message { time: self.moments.len(), topic, bytes, at: self.now, fate });
        if is_delivered {
            self.evict();
            let positions = self.log.append(vec![draft], self.now);
            assert_eq!(positions, self.log.end()..self.log.end() + 1);
        }
    }

    fn drop_at_broker(&mut self, topic: &str) {
        let topic = Topic::parse(topic).unwrap();
        if self.moment().is_linked && self.moment().bound.iter().any(|bound| bound.matches(&topic)) {
            self.hole(GapReason::Slow, Some(1));
            let time = self.moments.len();
            self.messages.push(Message { time, topic, bytes: 0, at: self.now, fate: Fate::Dropped });
        }
    }

    fn kept(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| matches!(message.fate, Fate::Logged(_)))
    }

    /// The bounds by definition.
    fn evict(&mut self) {
        let bounds = self.bounds.ring;
        loop {
            let (count, bytes) = (self.kept().count(), self.kept().map(|message| message.bytes).sum::<usize>());
            let oldest = self.messages.iter_mut().find(|message| matches!(message.fate, Fate::Logged(_)));
            let Some(oldest) = oldest else { return };
            let is_too_much = count > 1 && (count > bounds.messages_max || bytes > bounds.bytes_max);
            if !is_too_much && oldest.at + bounds.age_max_ms >= self.now {
                return;
            }
            oldest.fate = Fate::Evicted(oldest.offset());
        }
    }

    fn follow(&mut self, messages_max: usize, bytes_max: usize) {
        let tail = self.log.tail(self.followed, messages_max, bytes_max);
        let evicted = self.messages.iter().filter(|message| matches!(message.fate, Fate::Evicted(_)));
        let evicted = evicted.map(Message::offset).max().unwrap_or(0);
        assert_eq!(tail.overrun, (evicted > self.followed).then_some(evicted));
        let waiting: Vec<_> = self.kept().filter(|message| message.offset() > self.followed).collect();
        let given: Vec<u64> = tail.publications.iter().map(|publication| publication.offset).collect();
        let expected: Vec<u64> = waiting.iter().take(given.len()).map(|message| message.offset()).collect();
        assert_eq!(given, expected);
        let bytes: usize = waiting.iter().take(given.len()).map(|message| message.bytes).sum();
        assert!(given.len() <= messages_max && (bytes <= bytes_max || given.len() == 1));
        assert!(!given.is_empty() || waiting.is_empty());
        assert_eq!(tail.next == tail.end, given.len() == waiting.len());
        self.holes_told.extend(tail.holes.iter().map(|hole| hole.at));
        self.followed = tail.next;
        let told: Vec<u64> = self.holes.iter().copied().filter(|at| *at < self.followed).collect();
        if self.bounds.holes_max > 100 {
            assert_eq!(self.holes_told, told);
        }
    }

    fn newest(&self, pattern: &Pattern, each: usize, total: usize) {
        let kept: Vec<&Message> = self.kept().filter(|message| pattern.matches(&message.topic)).collect();
        let is_newest_of_topic = |place: usize| {
            let later = kept[place + 1..].iter().filter(|later| later.topic == kept[place].topic);
            later.count() < each
        };
        let mut expected: Vec<u64> =
            (0..kept.len()).filter(|place| is_newest_of_topic(*place)).map(|place| kept[place].offset()).collect();
        expected.drain(..expected.len().saturating_sub(total));
        let newest = self.log.newest(&pattern.clone().into(), each, total);
        assert_eq!(newest.iter().map(|publication| publication.offset).collect::<Vec<_>>(), expected);
    }
}

/// Somebody who had a cursor, and what has become of the messages since.
struct Return<'a> {
    world: &'a World,
    pattern: Pattern,
    offset: u64,
    since: usize,
    gaps: Vec<LogGap>,
}

impl<'a> Return<'a> {
    fn new(world: &'a World, pattern: &str, cursor: usize) -> Self {
        let (since, offset) = world.cursors[cursor % world.cursors.len()];
        let pattern = Pattern::parse(pattern).unwrap();
        let resume = world.log.resume(&pattern, Cursor { epoch: Epoch(7), offset });
        assert_eq!(resume.judged_until, world.log.end());
        let this = Self { world, pattern, offset, since, gaps: resume.gaps };
        let published: Vec<u64> = this.messages().map(Message::offset).collect();
        let kept: Vec<u64> = this.with(|fate| matches!(fate, Fate::Logged(_))).map(Message::offset).collect();
        assert_eq!(this.read(resume.read_after), kept);
        assert!(!this.gaps.is_empty() || published == kept, "lost without a word: {published:?}, {kept:?}");
        this
    }

    /// The matching messages since the cursor.
    fn messages(&self) -> impl Iterator<Item = &Message> {
        let messages = self.world.messages.iter();
        messages.filter(|message| message.time > self.since && self.pattern.matches(&message.topic))
    }

    fn with(&self, fate: impl Fn(Fate) -> bool) -> impl Iterator<Item = &Message> {
        self.messages().filter(move |message| fate(message.fate))
    }

    fn moments(&self) -> &[Moment] {
        &self.world.moments[self.since..]
    }

    fn reads(&self, reason: GapReason) -> Option<&LogGap> {
        self.gaps.iter().find(|gap| gap.reason == reason)
    }

    fn read(&self, read_after: u64) -> Vec<u64> {
        let log = &self.world.log;
        let (mut after, mut offsets) = (read_after, Vec::new());
        assert!(read_after >= self.offset);
        while after < log.end() {
            let chunk = log.read(&self.pattern, after, log.end(), ReadBounds { messages_max: 3, bytes_max: 90 });
            assert_eq!(chunk.gap, None);
            assert!(chunk.next > after && chunk.publications.len() <= 3);
            offsets.extend(chunk.publications.iter().map(|publication| publication.offset));
            after = chunk.next;
        }
        offsets
    }

    /// A gap is told when something was or may have been missed, with the right reason and number, and never otherwise.
    fn is_judged_exactly(&self) {
        let evicted = self.with(|fate| matches!(fate, Fate::Evicted(_))).count() as u64;
        let expired = (evicted > 0).then_some(LogGap { reason: GapReason::Expired, missed: Some(evicted) });
        assert_eq!(self.reads(GapReason::Expired), expired.as_ref());
        let is_uncovered = self.moments().iter().any(|moment| !moment.covers(&self.pattern));
        let drops =
            self.world.messages.iter().filter(|message| message.time > self.since && message.fate == Fate::Dropped);
        let drops: Vec<&Message> = drops.filter(|drop| self.world.moments[drop.time].covers(&self.pattern)).collect();
        assert_eq!(self.gaps.is_empty(), evicted == 0 && !is_uncovered && drops.is_empty(), "{:?}", self.gaps);
        let slow = self.reads(GapReason::Slow);
        assert_eq!(slow.is_some(), !drops.is_empty());
        if let Some(missed) = slow.and_then(|slow| slow.missed) {
            assert_eq!(missed as usize, drops.iter().filter(|drop| self.pattern.matches(&drop.topic)).count());
        }
        let was_unbound = self.moments().iter().any(|moment| !moment.binds(&self.pattern));
        assert!(was_unbound || self.reads(GapReason::Unbound).is_none(), "{:?}", self.gaps);
        let was_away = self.world.moments.iter().any(|moment| !moment.is_linked);
        assert!(was_away || self.reads(GapReason::Outage).is_none(), "{:?}", self.gaps);
        if !was_unbound {
            assert_eq!(self.reads(GapReason::Outage).is_some(), is_uncovered);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn losses_are_told_exactly(steps in proptest::collection::vec(step(), 0..150)) {
        let mut world = World::new(bounds(10_000));
        for step in &steps {
            world.take(step);
            if let Step::Resume { pattern, cursor } = step {
                Return::new(&world, PATTERNS[*pattern], *cursor).is_judged_exactly();
            }
        }
    }

    /// What the log may remember beyond its ring is bounded; past those bounds it may tell too much, never too little.
    #[test]
    fn nothing_is_lost_without_a_word_when_little_is_remembered(
        steps in proptest::collection::vec(step(), 0..150), remembered_max in 0..6usize
    ) {
        let mut world = World::new(bounds(remembered_max));
        for step in &steps {
            world.take(step);
            if let Step::Resume { pattern, cursor } = step {
                Return::new(&world, PATTERNS[*pattern], *cursor);
            }
        }
    }
}

fn log() -> Log {
    Log::bounded(info(), bounds(100))
}

fn append(log: &mut Log, topic: &str) -> u64 {
    log.append(vec![draft(&Topic::parse(topic).unwrap(), 1, 0)], 0);
    log.end()
}

fn resumed(log: &Log, text: &str, offset: u64) -> Vec<(GapReason, Option<u64>)> {
    let resume = log.resume(&pattern(text), Cursor { epoch: Epoch(7), offset });
    resume.gaps.iter().map(|gap| (gap.reason, gap.missed)).collect()
}

#[test]
fn a_cursor_of_another_log_starts_at_the_end() {
    let mut log = log();
    append(&mut log, "a");
    for cursor in [Cursor { epoch: Epoch(8), offset: 0 }, Cursor { epoch: Epoch(7), offset: 2 }] {
        let resume = log.resume(&pattern("a"), cursor);
        assert_eq!(resume.gaps, [LogGap { reason: GapReason::UnknownCursor, missed: None }]);
        assert_eq!(resume.read_after, 1);
    }
}

/// The topic was quiet, its last subscriber left and came back: in between nobody would have noticed a message.
#[test]
fn a_binding_made_anew_on_a_quiet_source_tells_an_old_cursor_from_a_new_one() {
    let mut log = log();
    log.bound(&pattern("a"));
    let before = log.end();
    log.unbound(&pattern("a"));
    log.bound(&pattern("a"));
    assert_eq!(resumed(&log, "a", before), [(GapReason::Unbound, None)]);
    assert_eq!(resumed(&log, "a", log.end()), []);
}

/// A night with a restart of the broker and no message: in the morning's cursor the outage is past.
#[test]
fn a_cursor_from_after_an_outage_has_no_gap() {
    let mut log = log();
    log.bound(&pattern("a"));
    let before = log.end();
    log.unbound_all();
    log.bound(&pattern("a"));
    log.hole(GapReason::Outage, None);
    assert_eq!(resumed(&log, "a", before), [(GapReason::Outage, None)]);
    assert_eq!(resumed(&log, "a", log.end()), []);
}

#[test]
fn an_absorbed_binding_and_its_cover_chain_up() {
    let mut log = log();
    log.bound(&pattern("a.b"));
    let first = append(&mut log, "a.b");
    log.bound(&pattern("a.#"));
    log.unbound(&pattern("a.b"));
    append(&mut log, "a.b");
    assert_eq!(resumed(&log, "a.b", first), []);
    assert_eq!(resumed(&log, "a.*", first), [(GapReason::Unbound, None)]);
}

#[test]
fn losses_are_told_in_order_once_a_reason() {
    let mut log = log();
    log.bound(&pattern("#"));
    let start = log.end();
    for _ in 0..15 {
        append(&mut log, "a");
    }
    log.hole(GapReason::Slow, Some(2));
    log.hole(GapReason::Slow, Some(3));
    log.hole(GapReason::Slow, Some(0));
    assert_eq!(resumed(&log, "#", start), [(GapReason::Expired, Some(3)), (GapReason::Slow, Some(5))]);
    assert_eq!(resumed(&log, "a", start), [(GapReason::Expired, Some(3)), (GapReason::Slow, None)]);
    assert_eq!(resumed(&log, "b", start), [(GapReason::Slow, None)]);
}

/// Somebody reads in chunks while the source goes on: what left the log meanwhile is told with the next chunk.
#[test]
fn a_slow_reader_is_told_what_left_the_log_before_it_was_read() {
    let mut log = log();
    for _ in 0..10 {
        append(&mut log, "a");
        append(&mut log, "b");
    }
    let chunk = log.read(&pattern("a"), 8, 20, ReadBounds { messages_max: 2, bytes_max: 1000 });
    assert_eq!((chunk.next, chunk.gap), (11, None));
    for _ in 0..10 {
        append(&mut log, "a");
    }
    let chunk = log.read(&pattern("a"), 11, 20, ReadBounds { messages_max: 9, bytes_max: 1000 });
    assert_eq!(chunk.gap, Some(LogGap { reason: GapReason::Slow, missed: Some(3) }));
    assert_eq!((chunk.next, chunk.publications.len()), (20, 1));
    assert_eq!(log.overrun(&pattern("b"), 11).unwrap().missed, Some(4));
    assert_eq!(log.overrun(&pattern("c"), 11), None);
}

/// Wide patterns over many topics are read by merging or by scanning; both must say the same.
#[test]
fn reading_agrees_with_the_naive_matcher_whatever_the_way() {
    let mut log = Log::new(info(), LogBounds::default());
    for number in 0..3000u64 {
        append(&mut log, &format!("t{}.{}", number % 150, if number % 7 == 0 { "x" } else { "y" }));
    }
    for text in ["t1.*", "t3.#", "*.x", "*.*", "t2.x", "nothing.#", "#"] {
        let pattern = pattern(text);
        for (after, until) in [(0, 3000), (100, 2000), (2990, 3000), (5, 5)] {
            let all = log.read(&pattern, after, until, ReadBounds { messages_max: 5000, bytes_max: 1 << 20 });
            let offsets: Vec<u64> = all.publications.iter().map(|publication| publication.offset).collect();
            let everything = log.tail(0, 5000, 1 << 20).publications;
            let expected = everything.iter().filter(|kept| kept.offset > after && kept.offset <= until);
            let expected = expected.filter(|kept| pattern.matches(&kept.draft.topic)).map(|kept| kept.offset);
            assert!(expected.eq(offsets), "{pattern} after {after} until {until}");
        }
    }
}

#[test]
fn topics_are_counted_in_order() {
    let mut log = log();
    for topic in ["b", "a", "c", "a", "b"].iter().chain(&["a"; 10]) {
        append(&mut log, topic);
    }
    let counts: Vec<_> = log.topics(2).into_iter().map(|count| (count.topic.to_string(), count.messages)).collect();
    assert_eq!(counts, [("a".to_owned(), 11), ("b".to_owned(), 1)]);
}

#[test]
fn a_log_that_is_configured_away_still_carries_live_messages() {
    let none = LogBounds { messages_max: 0, bytes_max: 0, age_max: std::time::Duration::ZERO, ..LogBounds::default() };
    let mut log = Log::new(info(), none);
    let topic = Topic::parse("a").unwrap();
    log.append((0..256).map(|_| draft(&topic, 1000, 5)).collect(), 5);
    assert_eq!(log.tail(0, 1000, usize::MAX).publications.len(), 256);
}
