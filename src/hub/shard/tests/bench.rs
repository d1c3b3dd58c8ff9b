//! A shard whose subscribers write down what they are sent, and what is said to it in tests.

use super::*;

pub(super) const SOURCES: [&str; 2] = ["a", "b"];
pub(super) const TOPICS: [&str; 4] = ["x", "x.y", "y", "x.y.z"];
pub(super) const PATTERNS: [&str; 6] = ["#", "x", "x.#", "*.y", "y", "none"];
pub(super) const SMALL: ReadBounds = ReadBounds { messages_max: 3, bytes_max: 1 << 20 };

/// The position that a source's only binding took before the first message.
pub(super) const BINDING: u64 = 1;

/// Writes a message as its source and number, the first being 1, and counts.
pub(super) struct Names(pub(super) u64);

pub(super) fn name(publication: &Publication) -> String {
    format!("{}{}", publication.source.name, publication.offset - BINDING)
}

impl Encode for Names {
    fn encode(&mut self, _: Encoding, publication: &Publication) -> Bytes {
        self.0 += 1;
        format!("{} ", name(publication)).into()
    }
}

pub(super) fn hub() -> Hub {
    let state = |(number, name): (usize, &&str)| {
        let info = SourceInfo { id: SourceId(number as u16), name: (*name).into(), ..test_info() };
        let state = SourceState::new(Arc::new(info), LogBounds::default(), BindingMode::Fixed(vec![Pattern::all()]));
        Feed::new(state.clone()).link_up_bound(Instant::now());
        state
    };
    Hub::new(SOURCES.iter().enumerate().map(state).collect())
}

pub(super) fn test_info() -> SourceInfo {
    SourceInfo::new(SourceId(0), "a", Epoch(1))
}

pub(super) fn append(hub: &Hub, source: usize, topic: &str) {
    append_with(hub, source, topic, Headers::default());
}

pub(super) fn append_with(hub: &Hub, source: usize, topic: &str, headers: Headers) {
    let topic = Topic::parse(topic).unwrap();
    let attributes = Attributes { headers, ..Attributes::default() };
    let draft = Draft { topic, payload: Bytes::new(), attributes, received_at: 0 };
    Feed::new(hub.sources()[source].clone()).append(vec![draft], 0);
}

/// Headers of which one is a number.
pub(super) fn numbered(number: i64) -> Headers {
    Headers(vec![("number".into(), Value::Int(number))])
}

/// Lets in what carries this number.
pub(super) fn of_number(number: i64) -> Option<Arc<Filter>> {
    let number = Scalar::Number(Number::new(number as f64).unwrap());
    Filter::new(Combination::All, [("number".to_owned(), number)].into()).unwrap().map(Arc::new)
}

/// A shard whose subscribers write down what they are sent.
pub(super) struct Bench {
    pub(super) hub: Hub,
    pub(super) shard: Shard,
    pub(super) seen: BTreeMap<SubscriberId, Vec<String>>,
    pub(super) notices: Vec<(SubscriberId, Notice)>,
    /// Told by replays.
    pub(super) gaps: Vec<Missed>,
    pub(super) caught_up: Vec<SubscriptionId>,
    pub(super) next: u32,
    /// Whose sockets take no more.
    pub(super) full: BTreeSet<SubscriberId>,
    /// Publications that replays looked at.
    pub(super) looked_at: u64,
    pub(super) names: Names,
    /// Goes on only where a test says so, or where everybody waits for it.
    pub(super) now: Instant,
    /// When those may go on who were sent as much as they may be.
    pub(super) until: Option<Instant>,
    /// Who waits, as it was when they were asked.
    pub(super) waits: BTreeMap<SubscriberId, Waits>,
}

/// What somebody waits for who had something to read and read nothing.
pub(super) struct Waits {
    pub(super) awaited: Vec<(SourceId, Awaited)>,
    pub(super) reached: Vec<Reached>,
    pub(super) until: Option<Instant>,
    pub(super) subscriptions: Vec<(SubscriptionId, bool)>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let hub = hub();
        let shard = Shard::new(&hub, 2);
        Self {
            hub,
            shard,
            seen: BTreeMap::new(),
            notices: Vec::new(),
            gaps: Vec::new(),
            caught_up: Vec::new(),
            next: 0,
            full: BTreeSet::new(),
            looked_at: 0,
            names: Names(0),
            now: Instant::now(),
            until: None,
            waits: BTreeMap::new(),
        }
    }

    /// A subscription that goes on after so many messages of each source.
    pub(super) fn request(&mut self, pattern: &str, after: &[u64]) -> SubscribeRequest {
        self.next += 1;
        let cursor = |(name, messages): (&&str, &u64)| {
            ((*name).to_owned(), Cursor { epoch: Epoch(1), offset: *messages + BINDING })
        };
        SubscribeRequest {
            id: SubscriptionId(self.next),
            wanted: Pattern::parse(pattern).unwrap().into(),
            after: JointCursor(SOURCES.iter().zip(after).map(cursor).collect()),
            last: Last::default(),
            source: None,
            flow: Flow::CatchUp,
            max_rate: None,
        }
    }

    pub(super) fn subscribe(&mut self, subscriber: SubscriberId, pattern: &str, after: &[u64]) -> Vec<Activated> {
        let request = self.request(pattern, after);
        self.open(subscriber, request)
    }

    pub(super) fn subscribe_to(
        &mut self,
        subscriber: SubscriberId,
        (pattern, number): (&str, Option<i64>),
        after: &[u64],
    ) -> Vec<Activated> {
        let mut request = self.request(pattern, after);
        request.wanted.filter = number.and_then(of_number);
        self.open(subscriber, request)
    }

    pub(super) fn open(&mut self, subscriber: SubscriberId, request: SubscribeRequest) -> Vec<Activated> {
        let id = request.id;
        let opening = self.shard.subscribe(subscriber, request).unwrap();
        assert_eq!(Shard::stands(&opening), Ok(true));
        self.waits.remove(&subscriber);
        self.shard.activate(subscriber, id)
    }

    pub(super) fn turn(&mut self) -> bool {
        let taken = self.shard.take(SMALL);
        self.notices.extend(taken.notices);
        taken.fallen.iter().for_each(|subscriber| drop(self.waits.remove(subscriber)));
        for subscriber in self.shard.turn().0.close() {
            let (turn, _) = self.shard.turn();
            let (delivery, _) = turn.delivery(subscriber, Encoding(0), &mut self.names);
            if self.full.contains(&subscriber) {
                let (source, read) = turn.origin().unwrap();
                self.shard.fall_behind(subscriber, source, read);
                self.waits.remove(&subscriber);
                continue;
            }
            let bytes = match delivery {
                Delivery::Joined(bytes) => bytes.to_vec(),
                Delivery::Frames(frames) => frames.concat(),
            };
            let text = String::from_utf8(bytes).unwrap();
            self.seen.entry(subscriber).or_default().extend(text.split_whitespace().map(str::to_owned));
        }
        self.shard.turn().0.end();
        taken.more
    }

    pub(super) fn replay(&mut self, subscriber: SubscriberId) -> Vec<JointCursor> {
        if self.full.contains(&subscriber) {
            return Vec::new();
        }
        let is_brought = self.is_brought(subscriber);
        let reached = self.shard.reached();
        let replay = self.shard.replay(subscriber, SMALL, self.now);
        let is_sent = replay.progressed || !replay.caught_up.is_empty();
        assert!(is_brought || !is_sent, "nobody would have asked it: nothing came for which it waited");
        self.note_wait(subscriber, reached, replay.wait, is_sent);
        self.until = self.until.into_iter().chain(replay.wait.until).min();
        self.gaps.extend(replay.gaps);
        self.caught_up.extend(replay.caught_up.into_iter().map(|caught_up| caught_up.id));
        self.looked_at += replay.looked_at;
        let seen = self.seen.entry(subscriber).or_default();
        if let Some((_, excerpt)) = replay.excerpt {
            let frames = excerpt.frames(Encoding(0), replay.asked_for, &mut self.names);
            let text = String::from_utf8(frames.to_vec()).unwrap();
            seen.extend(text.split_whitespace().map(str::to_owned));
            assert_eq!(excerpt.publications().len(), text.split_whitespace().count());
        }
        let tell = |Replayed { publication, position, .. }| {
            seen.push(name(&publication));
            position
        };
        replay.messages.into_iter().map(tell).collect()
    }

    /// Whether somebody is to be asked: because it does not wait, or because something came for which it does.
    pub(super) fn is_brought(&self, subscriber: SubscriberId) -> bool {
        let Some(waits) = self.waits.get(&subscriber) else { return true };
        let now = self.shard.reached();
        let mut awaited = waits.awaited.iter().map(|(source, awaited)| (source.index(), *awaited));
        awaited.any(|(source, awaited)| now[source].brings(awaited, waits.reached[source]))
            || waits.until.is_some_and(|until| until <= self.now)
            || waits.subscriptions != self.subscriptions(subscriber)
    }

    pub(super) fn note_wait(&mut self, subscriber: SubscriberId, reached: Vec<Reached>, wait: Wait, is_sent: bool) {
        self.waits.remove(&subscriber);
        if !is_sent && self.shard.has_replay(subscriber) {
            let awaited = if wait.shard { self.shard.awaited(subscriber) } else { Vec::new() };
            let subscriptions = self.subscriptions(subscriber);
            self.waits.insert(subscriber, Waits { awaited, reached, until: wait.until, subscriptions });
        }
    }

    /// Those of a subscriber, each with whether it has ended and goes on for others.
    pub(super) fn subscriptions(&self, subscriber: SubscriberId) -> Vec<(SubscriptionId, bool)> {
        let all = &self.shard.subscribers[subscriber.index()].subscriptions;
        all.iter().map(|known| (known.id, known.is_parting())).collect()
    }

    pub(super) fn settle(&mut self, subscribers: &[SubscriberId]) {
        loop {
            let more = self.turn();
            subscribers.iter().for_each(|subscriber| drop(self.replay(*subscriber)));
            if let Some(until) = self.until.take().filter(|_| !more) {
                self.now = until;
            }
            if !more && !subscribers.iter().any(|subscriber| self.shard.has_replay(*subscriber)) {
                return;
            }
        }
    }
}
