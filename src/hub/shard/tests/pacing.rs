//! Subscriptions that are sent so many messages a second at most. Time is the bench's own and goes on where a test says so.

use std::time::Duration;

use super::*;
use crate::model::rate::Rate;

const TICKERS: [&str; 10] = ["x.0", "x.1", "x.2", "x.3", "x.4", "x.5", "x.6", "x.7", "x.8", "x.9"];

impl Bench {
    pub(super) fn paced(
        &mut self,
        subscriber: SubscriberId,
        (pattern, rate): (&str, u64),
        flow: Flow,
        after: &[u64],
    ) -> Activated {
        let request = SubscribeRequest { flow, max_rate: Rate::new(rate), ..self.request(pattern, after) };
        self.open(subscriber, request).pop().unwrap()
    }

    pub(super) fn seen(&self, subscriber: SubscriberId) -> Vec<&str> {
        self.seen.get(&subscriber).into_iter().flatten().map(String::as_str).collect()
    }

    /// Takes all turns, and what may be sent now.
    pub(super) fn pass(&mut self, subscriber: SubscriberId) {
        while self.turn() {}
        loop {
            let before = self.seen(subscriber).len();
            self.replay(subscriber);
            if self.seen(subscriber).len() == before {
                return;
            }
        }
    }
}

fn numbers(count: u64) -> Vec<String> {
    (1..=count).map(|number| format!("a{number}")).collect()
}

#[test]
fn a_lone_message_leaves_at_once_and_what_is_quiet_waits_for_nothing() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.paced(subscriber, ("x", 1), Flow::Latest, &[]);
    for number in 1..=3 {
        assert!(!bench.shard.has_replay(subscriber), "nothing to be looked at");
        append(&bench.hub, 0, "y");
        append(&bench.hub, 0, "x");
        bench.pass(subscriber);
        assert_eq!(bench.seen(subscriber).len(), number);
        bench.now += Duration::from_secs(60);
    }
    assert_eq!(bench.until, None, "nobody waits for a moment");
}

#[test]
fn latest_is_sent_at_its_rate_and_ends_with_the_last_value_of_each_topic() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.paced(subscriber, ("x.#", 5), Flow::Latest, &[]);
    let began = bench.now;
    for number in 0..1_000_usize {
        append(&bench.hub, 0, TICKERS[number % 10]);
        bench.pass(subscriber);
        bench.now += Duration::from_millis(2);
        assert!(bench.seen(subscriber).len() as u128 <= 1 + (bench.now - began).as_millis() * 5 / 1_000);
    }
    let meanwhile = bench.seen(subscriber).len();
    assert!((10..=11).contains(&meanwhile), "{meanwhile} in two seconds");
    bench.settle(&[subscriber]);
    let seen: Vec<u64> = bench.seen(subscriber).iter().map(|name| name[1..].parse().unwrap()).collect();
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
    let total = bench.now - began;
    assert!(seen.len() as u128 <= 1 + total.as_millis() * 5 / 1_000, "{} in {total:?}", seen.len());
    assert!((991..=1_000).all(|last| seen.contains(&last)), "{seen:?}");
    assert_eq!((&bench.gaps[..], &bench.notices[..]), (&[][..], &[][..]), "being superseded is no loss");
}

#[test]
fn catch_up_is_sent_everything_late() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.paced(subscriber, ("x.#", 50), Flow::CatchUp, &[]);
    let began = bench.now;
    (0..400_usize).for_each(|number| append(&bench.hub, 0, TICKERS[number % 10]));
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], numbers(400));
    let took = bench.now - began;
    assert!((7_800..=8_000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(bench.gaps, []);
}

/// One that was to be slow has ended, and sends another what that had left to it as fast as can be: that is no debt which would
/// keep the rest back when something else is to be slow.
#[test]
fn what_was_sent_without_a_rate_is_no_debt() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "x", &[]);
    bench.paced(subscriber, ("x.#", 1), Flow::CatchUp, &[]);
    let slow = SubscriptionId(bench.next);
    (0..1_000).for_each(|_| append(&bench.hub, 0, "x"));
    while bench.turn() {}
    let ended = bench.shard.unsubscribe(subscriber, slow);
    assert_eq!(ended, []);
    (0..5).for_each(|_| drop(bench.replay(subscriber)));
    let sent = bench.seen(subscriber).len();
    assert!((2..1_000).contains(&sent), "{sent} so far");
    bench.paced(subscriber, ("y", 100), Flow::CatchUp, &[]);
    let began = bench.now;
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], numbers(1_000));
    let took = (bench.now - began).as_secs();
    assert!(took <= 1_000 - sent as u64, "{took} s for {}", 1_000 - sent);
}

#[test]
fn drop_oldest_keeps_the_newest_and_counts_the_others() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.paced(subscriber, ("x.#", 1), Flow::DropOldest, &[]);
    append(&bench.hub, 0, "x");
    bench.pass(subscriber);
    (0..6).for_each(|_| append(&bench.hub, 0, "x"));
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen(subscriber), ["a1", "a6", "a7"]);
    let told: Vec<_> = bench.gaps.iter().map(|gap| (gap.reason, gap.missed)).collect();
    assert_eq!(told, [(GapReason::Slow, Some(4))]);
}

#[test]
fn what_a_paced_subscription_wants_comes_once_and_at_its_rate() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    let other = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "#", &[]);
    bench.subscribe(other, "#", &[]);
    bench.paced(subscriber, ("x.#", 1), Flow::Latest, &[]);
    for topic in ["y", "x", "x", "y", "x"] {
        append(&bench.hub, 0, topic);
    }
    bench.pass(subscriber);
    assert_eq!(bench.seen(subscriber), ["a1", "a4", "a5"], "the first of its rate is the newest already");
    assert_eq!(bench.seen[&other], numbers(5), "nobody else is concerned");
    append(&bench.hub, 0, "x");
    append(&bench.hub, 0, "y");
    bench.pass(subscriber);
    assert_eq!(bench.seen(subscriber)[3..], ["a7"]);
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen(subscriber)[3..], ["a7", "a6"]);
}

/// One that listens to everything at a rate and to a topic at a lower one, and was sent all but the second of that topic.
fn slower_and_faster() -> (Bench, SubscriberId) {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.paced(subscriber, ("#", 100), Flow::CatchUp, &[]);
    bench.paced(subscriber, ("x", 1), Flow::CatchUp, &[]);
    for topic in ["x", "y", "x", "y", "y"] {
        append(&bench.hub, 0, topic);
    }
    bench.pass(subscriber);
    let mut seen = bench.seen(subscriber);
    seen.sort_unstable();
    assert_eq!(seen, ["a1", "a2", "a4", "a5"]);
    (bench, subscriber)
}

#[test]
fn of_several_rates_the_strictest_holds_for_what_all_of_them_want() {
    let (mut bench, subscriber) = slower_and_faster();
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen(subscriber)[4..], ["a3"]);
}

/// The faster of two has come further than the slower: what either had sent comes again, and what it had not comes once.
#[test]
fn a_cursor_asks_for_what_each_of_several_rates_had_sent() {
    let (mut bench, subscriber) = slower_and_faster();
    bench.subscribe(subscriber, "*", &[0, 0]);
    bench.pass(subscriber);
    assert_eq!(bench.seen(subscriber)[4..], ["a1", "a2", "a4", "a5"]);
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen(subscriber)[8..], ["a3"]);
}

#[test]
fn what_it_had_still_to_send_comes_to_others_when_it_ends() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "x.#", &[]);
    bench.paced(subscriber, ("#", 1), Flow::CatchUp, &[]);
    for topic in ["x", "y", "x.y", "y", "x"] {
        append(&bench.hub, 0, topic);
    }
    bench.pass(subscriber);
    assert_eq!(bench.seen(subscriber), ["a1"]);
    let paced = SubscriptionId(bench.next);
    assert_eq!(bench.shard.unsubscribe(subscriber, paced), []);
    append(&bench.hub, 0, "x");
    let now = bench.now;
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen(subscriber), ["a1", "a6", "a3", "a5"], "not what it alone wanted");
    assert_eq!(bench.now, now, "nobody paces what is left");
    assert!(!bench.shard.has_replay(subscriber));
    append(&bench.hub, 0, "y");
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen(subscriber).len(), 4);
    bench.shard.leave(subscriber);
    assert_eq!(bench.hub.sources()[0].interest().patterns(9), [], "every claim was given back once");
    assert_eq!(bench.shard.subscriptions(), 0);
}

#[test]
fn too_many_that_have_ended_are_told_as_a_gap() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "#", &[]);
    let mut told = Vec::new();
    for _ in 0..20 {
        bench.paced(subscriber, ("x", 1), Flow::CatchUp, &[]);
        append(&bench.hub, 0, "x");
        append(&bench.hub, 0, "x");
        while bench.turn() {}
        told.extend(bench.shard.unsubscribe(subscriber, SubscriptionId(bench.next)));
    }
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.iter().all(|gap| (gap.pattern.as_str(), gap.reason) == ("#", GapReason::Slow)));
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen(subscriber).len(), 32);
}

#[test]
fn another_rate_goes_on_where_the_one_before_has_come_to() {
    for rate in [None, Rate::new(1_000)] {
        let mut bench = Bench::new();
        let subscriber = bench.shard.join(CursorForm::Separate);
        bench.paced(subscriber, ("x", 1), Flow::CatchUp, &[]);
        (0..5).for_each(|_| append(&bench.hub, 0, "x"));
        bench.pass(subscriber);
        assert_eq!(bench.seen(subscriber), ["a1"]);
        let again = SubscribeRequest { max_rate: rate, ..bench.request("x", &[]) };
        let activated = bench.open(subscriber, again).pop().unwrap();
        assert_eq!((activated.replay, activated.cursors.0[0].1.offset), (false, 1 + BINDING));
        bench.pass(subscriber);
        append(&bench.hub, 0, "x");
        bench.pass(subscriber);
        assert_eq!(bench.seen[&subscriber], numbers(6), "{rate:?}");
        assert_eq!(bench.shard.cursors(subscriber).0[0].1.offset, 6 + BINDING);
    }
}

#[test]
fn a_replay_is_paced_and_of_latest_it_is_the_newest_of_each_topic() {
    for (flow, expected) in [(Flow::CatchUp, numbers(7)), (Flow::Latest, vec!["a5".into(), "a6".into(), "a7".into()])] {
        let mut bench = Bench::new();
        for topic in ["x", "x.y", "x", "x", "x", "x.y", "x.y.z"] {
            append(&bench.hub, 0, topic);
        }
        while bench.turn() {}
        let subscriber = bench.shard.join(CursorForm::Separate);
        let activated = bench.paced(subscriber, ("x.#", 1), flow, &[0, 0]);
        assert!(activated.resumed && activated.replay);
        bench.pass(subscriber);
        assert_eq!(bench.seen(subscriber).len(), 1);
        assert_eq!(bench.shard.cursors(subscriber).0[0].1.offset, expected[0][1..].parse::<u64>().unwrap() + BINDING);
        let began = bench.now;
        bench.settle(&[subscriber]);
        assert_eq!(bench.seen[&subscriber], expected);
        assert_eq!(bench.now - began, Duration::from_secs(expected.len() as u64 - 1));
        assert_eq!((bench.caught_up.len(), bench.gaps.len()), (1, 0));
    }
}

#[test]
fn the_newest_of_each_topic_that_were_asked_for_are_paced_too() {
    let mut bench = Bench::new();
    (0..6).for_each(|_| append(&bench.hub, 0, "x"));
    while bench.turn() {}
    let subscriber = bench.shard.join(CursorForm::Separate);
    let last = Last { each: 4, total_max: 10, retained: false };
    let request = SubscribeRequest { last, max_rate: Rate::new(1), ..bench.request("x", &[]) };
    bench.open(subscriber, request);
    bench.pass(subscriber);
    assert_eq!(bench.seen(subscriber), ["a3"]);
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen(subscriber), ["a3", "a4", "a5", "a6"]);
}

#[test]
fn a_slow_replay_keeps_no_other_from_its_own() {
    let mut bench = Bench::new();
    (0..6).for_each(|_| append(&bench.hub, 0, "x"));
    append(&bench.hub, 0, "y");
    while bench.turn() {}
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.paced(subscriber, ("x", 1), Flow::CatchUp, &[0, 0]);
    bench.subscribe(subscriber, "y", &[0, 0]);
    bench.pass(subscriber);
    assert_eq!(bench.seen(subscriber), ["a1", "a7"]);
}

#[test]
fn who_falls_behind_within_the_turn_that_woke_it_loses_nothing() {
    for form in [CursorForm::Separate, CursorForm::Joint] {
        let mut bench = Bench::new();
        let subscriber = bench.shard.join(form);
        let requests = [("y", None), ("x", Rate::new(1))]
            .map(|(pattern, max_rate)| SubscribeRequest { max_rate, ..bench.request(pattern, &[]) });
        let ids = [requests[0].id, requests[1].id];
        _ = requests.map(|request| bench.shard.subscribe(subscriber, request).unwrap());
        _ = ids.map(|id| bench.shard.activate(subscriber, id));
        bench.full.insert(subscriber);
        for topic in ["y", "x", "y"] {
            append(&bench.hub, 0, topic);
        }
        while bench.turn() {}
        bench.full.clear();
        bench.settle(&[subscriber]);
        let mut seen = bench.seen(subscriber);
        seen.sort_unstable();
        assert_eq!(seen, ["a1", "a2", "a3"], "{form:?}");
    }
}

#[test]
fn with_a_joint_cursor_nothing_runs_ahead_of_what_waits() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Joint);
    let requests = ["x", "y"].map(|pattern| SubscribeRequest { max_rate: Rate::new(2), ..bench.request(pattern, &[]) });
    let ids = [requests[0].id, requests[1].id];
    _ = requests.map(|request| bench.shard.subscribe(subscriber, request).unwrap());
    _ = ids.map(|id| bench.shard.activate(subscriber, id));
    for (source, topic) in [(0, "x"), (0, "y"), (1, "x"), (0, "x"), (0, "y")] {
        append(&bench.hub, source, topic);
    }
    let began = bench.now;
    let mut positions = Vec::new();
    while bench.turn() {}
    while bench.shard.has_replay(subscriber) {
        positions.extend(bench.replay(subscriber));
        bench.now = bench.until.take().unwrap_or(bench.now);
    }
    assert_eq!(bench.seen(subscriber), ["a1", "a2", "b1", "a3", "a4"]);
    assert_eq!(bench.now - began, Duration::from_secs(1), "three of x, at two a second");
    let offsets =
        |position: &JointCursor| position.0.iter().map(|(_, cursor)| cursor.offset - BINDING).collect::<Vec<_>>();
    assert_eq!(positions.iter().map(offsets).collect::<Vec<_>>(), [[1, 0], [2, 0], [2, 1], [3, 1], [4, 1]]);
}

/// One source says more than may be sent, and another one says a little.
#[test]
fn a_source_that_never_falls_silent_keeps_no_other_from_who_is_paced() {
    for (form, flow) in [CursorForm::Separate, CursorForm::Joint].into_iter().zip([Flow::Latest, Flow::CatchUp]) {
        let mut bench = Bench::new();
        let subscriber = bench.shard.join(form);
        bench.paced(subscriber, ("#", 2), flow, &[]);
        for step in 0..50 {
            append(&bench.hub, 0, "x");
            if step == 10 {
                ["x", "y", "x.y"].into_iter().for_each(|topic| append(&bench.hub, 1, topic));
            }
            bench.pass(subscriber);
            bench.now += Duration::from_millis(100);
        }
        let seen = bench.seen(subscriber);
        assert_eq!(seen.len(), 10, "two a second: {seen:?}");
        let of_other: Vec<_> = seen.iter().enumerate().filter(|(_, name)| name.starts_with('b')).collect();
        assert_eq!(of_other, [(2, &"b1"), (4, &"b2"), (6, &"b3")], "{form:?}");
    }
}

#[derive(Debug, Clone)]
enum Paced {
    Append(usize, usize),
    /// To a pattern, perhaps at a rate; to one that stands it says it anew.
    Subscribe(usize, Option<u64>),
    Unsubscribe(usize),
    Turn,
    Replay,
    Full,
    Drained,
    Wait(u64),
}

fn paced() -> impl Strategy<Value = Paced> {
    prop_oneof![
        6 => (0usize..2, 0usize..4).prop_map(|(source, topic)| Paced::Append(source, topic)),
        3 => (0usize..6, prop::option::of(1u64..4)).prop_map(|(pattern, rate)| Paced::Subscribe(pattern, rate)),
        1 => (0usize..6).prop_map(Paced::Unsubscribe),
        3 => Just(Paced::Turn),
        4 => Just(Paced::Replay),
        1 => Just(Paced::Full),
        2 => Just(Paced::Drained),
        2 => (0u64..900).prop_map(Paced::Wait),
    ]
}

impl Bench {
    /// Does a step; what was published by then goes into `log`, and which subscription has each pattern into `standing`.
    fn step(
        &mut self,
        subscriber: SubscriberId,
        step: Paced,
        log: &mut [Vec<&str>; 2],
        standing: &mut BTreeMap<usize, SubscriptionId>,
    ) {
        match step {
            Paced::Append(source, topic) => {
                append(&self.hub, source, TOPICS[topic]);
                log[source].push(TOPICS[topic]);
            }
            Paced::Subscribe(pattern, rate) => {
                let request = self.request(PATTERNS[pattern], &[]);
                standing.insert(pattern, request.id);
                self.open(subscriber, SubscribeRequest { max_rate: rate.and_then(Rate::new), ..request });
            }
            Paced::Unsubscribe(pattern) => {
                if let Some(id) = standing.remove(&pattern) {
                    assert_eq!(self.shard.unsubscribe(subscriber, id), []);
                }
            }
            Paced::Turn => drop(self.turn()),
            Paced::Replay => drop(self.replay(subscriber)),
            Paced::Full => drop(self.full.insert(subscriber)),
            Paced::Drained => drop(self.full.remove(&subscriber)),
            Paced::Wait(millis) => self.now += Duration::from_millis(millis),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever else a session is sent, and at which rates: who asks for everything from the beginning gets everything from then
    /// on, and once what nobody had sent, unless who sends it changes meanwhile: what is asked for again may come twice.
    #[test]
    fn who_asks_for_everything_gets_it_whatever_others_had_sent(
        before in prop::collection::vec(paced(), 0..60),
        rate in prop::option::of(1u64..4),
        after in prop::collection::vec(paced(), 0..40),
    ) {
        let mut bench = Bench::new();
        let subscriber = bench.shard.join(CursorForm::Separate);
        let (mut log, mut standing) = Default::default();
        before.into_iter().for_each(|step| bench.step(subscriber, step, &mut log, &mut standing));
        let seen_before = bench.seen(subscriber).len();
        let request = bench.request("*.#", &[0, 0]);
        bench.open(subscriber, SubscribeRequest { max_rate: rate.and_then(Rate::new), ..request });
        let changes = after.iter().any(|step| matches!(step, Paced::Subscribe(..) | Paced::Unsubscribe(_)));
        after.into_iter().for_each(|step| bench.step(subscriber, step, &mut log, &mut standing));
        bench.full.clear();
        bench.settle(&[subscriber]);
        prop_assert_eq!(&bench.gaps, &[]);
        let seen = bench.seen(subscriber);
        let (old, new) = seen.split_at(seen_before);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        new.iter().for_each(|name| *counts.entry(name).or_default() += 1);
        for (source, topics) in SOURCES.iter().zip(&log) {
            for number in 1..=topics.len() {
                let name = format!("{source}{number}");
                let count = counts.get(&*name).copied().unwrap_or(0);
                let most = if changes || old.contains(&&*name) { 2 } else { 1 };
                prop_assert!((1..=most).contains(&count), "{} came {} times: {:?}, then {:?}", name, count, old, new);
            }
        }
    }

    /// However paced and other subscriptions of one session come, are replaced and go: what one of them was there for and
    /// still is comes, and nothing comes twice.
    #[test]
    fn a_session_is_sent_what_it_is_owed_once(steps in prop::collection::vec(paced(), 0..80)) {
        let mut bench = Bench::new();
        let subscriber = bench.shard.join(CursorForm::Separate);
        let (mut log, mut standing): ([Vec<&str>; 2], _) = Default::default();
        // After how many messages of each source each pattern began.
        let mut begins: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for step in steps {
            if let Paced::Subscribe(pattern, _) = step {
                begins.entry(pattern).or_insert_with(|| log.iter().map(Vec::len).collect());
            }
            bench.step(subscriber, step, &mut log, &mut standing);
            begins.retain(|pattern, _| standing.contains_key(pattern));
        }
        bench.full.clear();
        bench.settle(&[subscriber]);
        prop_assert_eq!(&bench.gaps, &[]);
        let seen = bench.seen.remove(&subscriber).unwrap_or_default();
        let once: BTreeSet<&String> = seen.iter().collect();
        prop_assert_eq!(once.len(), seen.len(), "twice: {:?}", &seen);
        for (pattern, since) in &begins {
            let pattern = Pattern::parse(PATTERNS[*pattern]).unwrap();
            for (source, topics) in log.iter().enumerate() {
                for (number, topic) in topics.iter().enumerate().skip(since[source]) {
                    let name = format!("{}{}", SOURCES[source], number + 1);
                    let is_owed = pattern.matches(&Topic::parse(topic).unwrap());
                    prop_assert!(!is_owed || once.contains(&name), "{} of {:?} is missing: {:?}", name, pattern, &seen);
                }
            }
        }
    }
}
