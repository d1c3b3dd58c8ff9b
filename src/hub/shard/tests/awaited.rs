//! Who waits is brought on by what it waits for and by nothing else: everywhere in these tests the bench sees to that. Here are
//! streams whose logs let go of everything, and at the end only those are asked who have something to wait for no more.

use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use crate::hub::archive::{Fetched, Stretch};
use crate::model::rate::Rate;
use crate::model::stream;

/// How long a log keeps anything.
const AGE_MS: u64 = 1_000;

/// Messages of a page.
const PAGE: u64 = 2;

const FORMS: [CursorForm; 3] = [CursorForm::Separate, CursorForm::Joint, CursorForm::Each];

#[derive(Debug, Clone)]
enum Step {
    /// Of the stream, or of the other source.
    Place(usize),
    Append(usize),
    /// The logs let go of what is there.
    Age,
    /// To a pattern, with a cursor that so many messages follow, in one of the flows and perhaps at a rate.
    Subscribe(usize, usize, Option<u64>, (usize, Option<u64>)),
    Unsubscribe(usize, usize),
    Turn,
    Replay(usize),
    Full(usize),
    Drained(usize),
    Answer,
    Remade,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..4).prop_map(Step::Place),
        2 => (0usize..4).prop_map(Step::Append),
        2 => Just(Step::Age),
        4 => (0usize..3, 0usize..6, prop::option::weighted(0.8, 0u64..6), (0usize..3, prop::option::of(1u64..4)))
            .prop_map(|(who, pattern, after, flow)| Step::Subscribe(who, pattern, after, flow)),
        1 => (0usize..3, 0usize..2).prop_map(|(who, number)| Step::Unsubscribe(who, number)),
        4 => Just(Step::Turn),
        6 => (0usize..3).prop_map(Step::Replay),
        1 => (0usize..3).prop_map(Step::Full),
        1 => (0usize..3).prop_map(Step::Drained),
        2 => Just(Step::Answer),
        1 => Just(Step::Remade),
    ]
}

/// A bench whose first source is a stream, of which it has all messages.
struct Stream {
    bench: Bench,
    who: Vec<SubscriberId>,
    placed: Vec<Arc<Publication>>,
    millis: u64,
}

impl Stream {
    fn new() -> Self {
        let bounds = || LogBounds { age_max: Duration::from_millis(AGE_MS), ..LogBounds::default() };
        let info = |number: usize| Arc::new(SourceInfo::new(SourceId(number as u16), SOURCES[number], Epoch(1)));
        let states = vec![
            SourceState::of_stream(info(0), bounds()),
            SourceState::new(info(1), bounds(), BindingMode::Fixed(vec![Pattern::all()])),
        ];
        let hub = Hub::new(states);
        Feed::new(hub.sources()[0].clone()).begin(0);
        hub.sources().iter().for_each(|state| Feed::new(state.clone()).link_up_bound(Instant::now()));
        let mut bench = Bench { shard: Shard::new(&hub, 2), hub, ..Bench::new() };
        let who = FORMS.iter().map(|form| bench.shard.join(*form)).collect();
        Self { bench, who, placed: Vec::new(), millis: 0 }
    }

    fn feed(&self, source: usize) -> Feed {
        Feed::new(self.bench.hub.sources()[source].clone())
    }

    fn draft(&self, topic: usize) -> Draft {
        let topic = Topic::parse(TOPICS[topic]).unwrap();
        Draft { topic, payload: Bytes::new(), attributes: Attributes::default(), received_at: self.millis }
    }

    fn place(&mut self, topic: usize) {
        let offset = self.placed.len() as u64;
        let (feed, draft) = (self.feed(0), self.draft(topic));
        let position = stream::position(offset, offset + 5).unwrap();
        self.placed.push(Arc::new(Publication { source: feed.info().clone(), offset: position, draft: draft.clone() }));
        feed.append_placed(vec![(position, draft)], self.millis);
    }

    fn append(&self, topic: usize) {
        self.feed(1).append(vec![self.draft(topic)], self.millis);
    }

    /// Answers one fetch as the source does, if any is wanted.
    fn answer(&self) -> bool {
        let archive = self.bench.hub.sources()[0].archive().unwrap();
        let Some(fetch) = archive.next(|| 0..=u64::MAX).now_or_never() else { return false };
        let after = fetch.after();
        let is_genuine = stream::named(after).is_none() || self.placed.iter().any(|one| one.offset == after);
        let following = self.placed.iter().filter(|one| one.offset > after).take(PAGE as usize);
        let publications: Vec<_> = following.cloned().collect();
        let until = publications.last().map_or(0, |last| last.offset);
        fetch.answer(if is_genuine { Fetched::Genuine(Stretch { publications, until }) } else { Fetched::Foreign });
        true
    }

    fn subscribe(&mut self, who: usize, pattern: usize, after: Option<u64>, (flow, rate): (usize, Option<u64>)) {
        let subscriber = self.who[who];
        // A joint cursor comes with all that it is for.
        if FORMS[who] == CursorForm::Joint && !self.bench.subscriptions(subscriber).is_empty() {
            return;
        }
        let mut request = self.bench.request(PATTERNS[pattern], &[]);
        if let Some(back) = after {
            let named = self.placed.iter().rev().nth(back as usize).map_or(0, |one| one.offset);
            let end = self.bench.hub.sources()[1].log().end();
            let cursor = |name: &str, offset| (name.to_owned(), Cursor { epoch: Epoch(1), offset });
            request.after = JointCursor(vec![cursor("a", named), cursor("b", end.saturating_sub(back))]);
        }
        let max_rate = rate.and_then(Rate::new);
        let request = SubscribeRequest { flow: Flow::ALL[flow], max_rate, ..request };
        let id = request.id;
        let opening = self.bench.shard.subscribe(subscriber, request).unwrap();
        while Shard::stands(&opening) == Ok(false) && self.answer() {}
        assert_eq!(Shard::stands(&opening), Ok(true));
        self.bench.waits.remove(&subscriber);
        self.bench.shard.activate(subscriber, id);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Place(topic) => self.place(topic),
            Step::Append(topic) => self.append(topic),
            Step::Age => {
                self.millis += 2 * AGE_MS;
                self.place(0);
            }
            Step::Subscribe(who, pattern, after, flow) => self.subscribe(who, pattern, after, flow),
            Step::Unsubscribe(who, number) => {
                let standing = self.bench.subscriptions(self.who[who]);
                if let Some((id, false)) = standing.get(number) {
                    self.bench.shard.unsubscribe(self.who[who], *id);
                }
            }
            Step::Turn => drop(self.bench.turn()),
            // Who waits for its time too is not asked before: it could pass over what others have brought.
            Step::Replay(who) if !self.bench.is_brought(self.who[who]) && self.waits_for_its_time(who) => {}
            Step::Replay(who) => drop(self.bench.replay(self.who[who])),
            Step::Full(who) => drop(self.bench.full.insert(self.who[who])),
            Step::Drained(who) => drop(self.bench.full.remove(&self.who[who])),
            Step::Answer => drop(self.answer()),
            Step::Remade => {
                self.placed.clear();
                self.feed(0).remade(0);
            }
        }
    }

    fn waits_for_its_time(&self, who: usize) -> bool {
        self.bench.waits.get(&self.who[who]).is_some_and(|waits| waits.until.is_some())
    }

    /// Asks only those who are to be asked; whether anybody was.
    fn serve(&mut self) -> bool {
        let brought = |bench: &Bench, who: &SubscriberId| bench.shard.has_replay(*who) && bench.is_brought(*who);
        let asked: Vec<SubscriberId> = self.who.iter().copied().filter(|who| brought(&self.bench, who)).collect();
        asked.iter().for_each(|who| drop(self.bench.replay(*who)));
        !asked.is_empty()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nobody_who_waits_is_forgotten(steps in prop::collection::vec(step(), 0..80)) {
        let mut stream = Stream::new();
        for step in steps {
            stream.step(step);
        }
        stream.bench.full.clear();
        loop {
            let more = stream.bench.turn();
            let was_asked = stream.serve();
            let was_answered = stream.answer();
            if more || was_asked || was_answered {
                continue;
            }
            // Of who has ended meanwhile a moment may be left that is past.
            let now = stream.bench.now;
            let until = stream.bench.waits.values().filter_map(|waits| waits.until).filter(|until| *until > now);
            match until.min() {
                Some(until) => stream.bench.now = until,
                None => break,
            }
        }
        for who in &stream.who {
            prop_assert!(!stream.bench.shard.has_replay(*who), "it was not asked again");
        }
    }
}
