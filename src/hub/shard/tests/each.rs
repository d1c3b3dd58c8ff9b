//! Subscriptions of one subscriber that are told apart: each is sent what it wants whatever the others are, in the order of the
//! log, live, late and in replays.

use super::*;

/// A subscriber that takes its messages by subscription, as a protocol with labels does.
struct Apart {
    bench: Bench,
    subscriber: SubscriberId,
    /// What came, in order: for which subscription, and what.
    seen: Vec<(u32, String)>,
}

impl Apart {
    fn new() -> Self {
        let mut bench = Bench::new();
        let subscriber = bench.shard.join(CursorForm::Each);
        Self { bench, subscriber, seen: Vec::new() }
    }

    fn turn(&mut self, full: bool) -> bool {
        let taken = self.bench.shard.take(SMALL);
        for subscriber in self.bench.shard.turn().0.close() {
            let sequence = self.bench.shard.turn().0.sequence(subscriber);
            if full {
                let (source, read) = self.bench.shard.turn().0.origin().unwrap();
                self.bench.shard.fall_behind(subscriber, source, read);
                continue;
            }
            for envelope in sequence {
                let publication = self.bench.shard.turn().0.publication(envelope).clone();
                let wants = |(_, wanted, sources): &(SubscriptionId, &Selector, Vec<SourceId>)| {
                    sources.contains(&publication.source.id) && wanted.matches(&publication.draft)
                };
                let live = self.bench.shard.live(subscriber).filter(wants).map(|(id, ..)| id.0);
                self.seen.extend(live.map(|id| (id, name(&publication))));
            }
        }
        self.bench.shard.turn().0.end();
        taken.more
    }

    /// One step of what is to be read from the logs; how many messages it brought.
    fn replay(&mut self, messages_max: usize) -> usize {
        let replay = self.bench.shard.replay(self.subscriber, ReadBounds { messages_max, ..SMALL }, self.bench.now);
        assert_eq!(replay.gaps, []);
        let before = self.seen.len();
        if let Some((subscription, excerpt)) = &replay.excerpt {
            self.seen.extend(excerpt.publications().iter().map(|one| (subscription.0, name(one))));
        }
        self.seen.extend(replay.messages.iter().map(|one| (one.subscription.0, name(&one.publication))));
        self.seen.len() - before
    }

    fn settle(&mut self) {
        while self.turn(false) || self.bench.shard.has_replay(self.subscriber) {
            self.replay(3);
        }
    }

    fn of(&self, subscription: SubscriptionId) -> Vec<&str> {
        self.seen.iter().filter(|(id, _)| *id == subscription.0).map(|(_, name)| name.as_str()).collect()
    }
}

#[test]
fn two_subscriptions_on_one_pattern_are_two_and_one_may_go() {
    let mut apart = Apart::new();
    let (subscriber, before) = (apart.subscriber, apart.bench.next);
    let [first, second] = [1, 2].map(|number| SubscriptionId(before + number));
    apart.bench.subscribe(subscriber, "x.#", &[]);
    apart.bench.subscribe(subscriber, "x.#", &[]);
    append(&apart.bench.hub, 0, "x");
    apart.settle();
    assert_eq!(apart.seen, [(first.0, "a1".to_owned()), (second.0, "a1".to_owned())]);
    apart.bench.shard.unsubscribe(subscriber, first);
    append(&apart.bench.hub, 0, "x");
    apart.settle();
    assert_eq!((apart.of(first), apart.of(second)), (vec!["a1"], vec!["a1", "a2"]));
    apart.bench.shard.unsubscribe(subscriber, second);
    append(&apart.bench.hub, 0, "x");
    apart.settle();
    assert_eq!(apart.seen.len(), 3);
}

#[test]
fn a_replay_of_one_repeats_nothing_of_the_other_and_leaves_nothing_out() {
    let mut apart = Apart::new();
    let (subscriber, before) = (apart.subscriber, apart.bench.next);
    let [live, late] = [1, 2].map(|number| SubscriptionId(before + number));
    apart.bench.subscribe(subscriber, "#", &[]);
    (0..5).for_each(|_| append(&apart.bench.hub, 0, "x"));
    apart.settle();
    apart.bench.subscribe(subscriber, "x", &[2, 0]);
    apart.settle();
    assert_eq!(apart.of(live), ["a1", "a2", "a3", "a4", "a5"]);
    assert_eq!(apart.of(late), ["a3", "a4", "a5"]);
}

/// Only what is told apart by label has subscriptions of several flows that read one source beside each other.
#[test]
fn who_drops_the_oldest_drops_its_own_and_nobody_elses() {
    for drops_first in [false, true] {
        let mut apart = Apart::new();
        let subscriber = apart.subscriber;
        let flows = if drops_first { [Flow::DropOldest, Flow::CatchUp] } else { [Flow::CatchUp, Flow::DropOldest] };
        let ids = [("x", flows[0]), ("y", flows[1])].map(|(topic, flow)| {
            let request = SubscribeRequest { flow, ..apart.bench.request(topic, &[]) };
            let id = request.id;
            apart.bench.open(subscriber, request);
            id
        });
        for _ in 0..5 {
            append(&apart.bench.hub, 0, "x");
            append(&apart.bench.hub, 0, "y");
        }
        while apart.turn(true) {}
        let mut missed = BTreeMap::new();
        while apart.bench.shard.has_replay(subscriber) {
            let replay = apart.bench.shard.replay(subscriber, SMALL, apart.bench.now);
            replay.gaps.iter().for_each(|gap| *missed.entry(gap.subscription).or_insert(0) += gap.missed.unwrap());
            let came = replay.publications().map(|one| name(one));
            let to = replay.excerpt.iter().map(|(id, excerpt)| (*id, excerpt.publications().len()));
            let to =
                to.flat_map(|(id, count)| vec![id; count]).chain(replay.messages.iter().map(|one| one.subscription));
            apart.seen.extend(to.map(|id| id.0).zip(came));
        }
        let [all, newest] = if drops_first { [ids[1], ids[0]] } else { ids };
        let every: Vec<String> =
            (0..5).map(|number| format!("a{}", 2 * number + if drops_first { 2 } else { 1 })).collect();
        assert_eq!(apart.of(all), every);
        let kept = if drops_first { ["a7", "a9"] } else { ["a8", "a10"] };
        assert_eq!((apart.of(newest), missed), (kept.to_vec(), [(newest, 3)].into()));
    }
}

/// A window that is nearly full: what a step brings is bounded also where a passage holds more.
#[test]
fn a_step_brings_no_more_than_was_asked_for() {
    let mut apart = Apart::new();
    let other = apart.bench.shard.join(CursorForm::Separate);
    (0..20).for_each(|_| append(&apart.bench.hub, 0, "x"));
    while apart.bench.turn() {}
    apart.bench.subscribe(other, "x", &[0, 0]);
    // Reads the passage that the next one finds.
    while apart.bench.shard.has_replay(other) {
        let now = apart.bench.now;
        apart.bench.shard.replay(other, ReadBounds { messages_max: 100, ..SMALL }, now);
    }
    apart.bench.subscribe(apart.subscriber, "x", &[0, 0]);
    let mut steps = Vec::new();
    while apart.bench.shard.has_replay(apart.subscriber) {
        steps.push(apart.replay(7));
    }
    assert_eq!(steps.iter().sum::<usize>(), 20);
    assert!(steps.iter().all(|step| *step <= 7), "{steps:?}");
    let names: Vec<String> = (1..=20).map(|number| format!("a{number}")).collect();
    assert_eq!(apart.seen.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>(), names);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever stalls, is subscribed and is ended in between: each subscription gets what it wants once, and among all of them
    /// a source's messages never go back.
    #[test]
    fn each_is_sent_what_it_wants_once_and_in_order(steps in prop::collection::vec((0..12_u8, 0..6_usize, 0..4_usize), 0..120)) {
        let mut apart = Apart::new();
        let subscriber = apart.subscriber;
        let mut published: Vec<(String, &str)> = Vec::new();
        let mut counts = [0; 2];
        // Which, its pattern, and what was published when it began and when it ended.
        let mut wishes: Vec<(SubscriptionId, &str, usize, Option<usize>)> = Vec::new();
        for (kind, number, topic) in steps {
            match kind {
                0..=4 => {
                    let source = number % 2;
                    counts[source] += 1;
                    append(&apart.bench.hub, source, TOPICS[topic]);
                    published.push((format!("{}{}", SOURCES[source], counts[source]), TOPICS[topic]));
                }
                5 if wishes.len() < 6 => {
                    apart.bench.subscribe(subscriber, PATTERNS[number], &[]);
                    wishes.push((SubscriptionId(apart.bench.next), PATTERNS[number], published.len(), None));
                }
                6 => {
                    if let Some((id, .., ended @ None)) = wishes.get_mut(number) {
                        // What it has not been sent by now it is not owed any more.
                        apart.settle();
                        apart.bench.shard.unsubscribe(subscriber, *id);
                        *ended = Some(published.len());
                    }
                }
                7 | 8 => drop(apart.turn(true)),
                9 => drop(apart.turn(false)),
                _ => drop(apart.replay(1 + number)),
            }
        }
        apart.settle();
        for (id, pattern, began, ended) in &wishes {
            let matching = Pattern::parse(pattern).unwrap();
            let wanted = &published[*began..ended.unwrap_or(published.len())];
            for source in SOURCES {
                let expected: Vec<&str> = wanted.iter()
                    .filter(|(name, topic)| name.starts_with(source) && matching.matches(&Topic::parse(topic).unwrap()))
                    .map(|(name, _)| name.as_str()).collect();
                let seen: Vec<&str> = apart.of(*id).into_iter().filter(|name| name.starts_with(source)).collect();
                prop_assert_eq!(seen, expected, "{:?} on {}", id, pattern);
            }
        }
        for source in SOURCES {
            let numbers: Vec<u32> = apart.seen.iter().filter_map(|(_, name)| name.strip_prefix(source)?.parse().ok()).collect();
            prop_assert!(numbers.is_sorted(), "{:?}", apart.seen);
        }
    }
}
