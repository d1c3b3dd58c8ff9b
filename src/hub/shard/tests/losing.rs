//! What the log has let go of before a paced subscription came to it: told to that, and to whoever had left it to that.

use std::time::Duration;

use super::*;

impl Bench {
    /// With one source, whose log lets go of what is beyond these bounds.
    fn forgetful(bounds: LogBounds) -> Self {
        let state = SourceState::new(Arc::new(test_info()), bounds, BindingMode::Fixed(vec![Pattern::all()]));
        Feed::new(state.clone()).link_up_bound(Instant::now());
        let hub = Hub::new(vec![state]);
        Self { shard: Shard::new(&hub, 2), hub, ..Self::new() }
    }

    /// What was told to be missing, by pattern.
    fn told(&self) -> Vec<(&str, GapReason, Option<u64>)> {
        self.gaps.iter().map(|gap| (gap.pattern.as_str(), gap.reason, gap.missed)).collect()
    }
}

/// The log holds little more than a thousand messages, and many more come while one waits for its time.
#[test]
fn what_the_log_has_let_go_of_meanwhile_is_a_gap() {
    let mut bench = Bench::forgetful(LogBounds { bytes_max: 0, messages_max: 0, ..LogBounds::default() });
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.paced(subscriber, ("x", 1), Flow::CatchUp, &[]);
    for _ in 0..3_000 {
        append(&bench.hub, 0, "x");
        bench.turn();
    }
    bench.pass(subscriber);
    bench.now += Duration::from_secs(1);
    bench.pass(subscriber);
    let seen: Vec<u64> = bench.seen(subscriber).iter().map(|name| name[1..].parse().unwrap()).collect();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[0] > 1 && seen[1] == seen[0] + 1, "the gap comes before what follows it: {seen:?}");
    let told: Vec<_> = bench.gaps.iter().map(|gap| (gap.reason, gap.missed)).collect();
    assert!(
        matches!(told[..], [(GapReason::Slow, missed)] if missed.is_none_or(|missed| missed == seen[0] - 1)),
        "{told:?}"
    );
}

/// A session listens to everything, and to one topic at a rate, and what it has left to that the log has let go of: it misses
/// that as well. What was superseded, or dropped as it was asked for, it misses by its own wish.
#[test]
fn what_was_left_to_a_rate_and_is_gone_is_a_gap_for_whoever_left_it() {
    for (flow, told) in [
        (Flow::CatchUp, vec![("x", Some(976)), ("#", Some(976))]),
        (Flow::Latest, vec![]),
        (Flow::DropOldest, vec![("x", Some(976)), ("x", Some(1_022)), ("#", Some(976))]),
    ] {
        let mut bench = Bench::forgetful(LogBounds { bytes_max: 1 << 20, messages_max: 0, ..LogBounds::default() });
        let subscriber = bench.shard.join(CursorForm::Separate);
        bench.subscribe(subscriber, "#", &[]);
        bench.subscribe(subscriber, "y.#", &[]);
        bench.paced(subscriber, ("x", 1), flow, &[]);
        for _ in 0..2_000 {
            append(&bench.hub, 0, "x");
            bench.turn();
        }
        bench.subscribe(subscriber, "*", &[]);
        bench.pass(subscriber);
        let told: Vec<_> = told.into_iter().map(|(pattern, missed)| (pattern, GapReason::Slow, missed)).collect();
        assert_eq!(bench.told(), told, "{flow:?}");
    }
}

/// Two rates, and the faster has come past what it left to the slower.
#[test]
fn what_a_faster_one_left_to_a_slower_is_a_gap_for_both_and_once_for_each() {
    let mut bench = Bench::forgetful(LogBounds { bytes_max: 1 << 20, messages_max: 0, ..LogBounds::default() });
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.paced(subscriber, ("#", 1_000), Flow::CatchUp, &[]);
    bench.paced(subscriber, ("x", 1), Flow::CatchUp, &[]);
    for _ in 0..10 {
        append(&bench.hub, 0, "x");
    }
    while bench.turn() {}
    (0..50).for_each(|_| drop(bench.replay(subscriber)));
    assert_eq!(bench.seen(subscriber), ["a1"]);
    for _ in 0..2_000 {
        append(&bench.hub, 0, "y");
        bench.turn();
    }
    bench.shard.forget_passages();
    bench.now += Duration::from_secs(1);
    (0..50).for_each(|_| drop(bench.replay(subscriber)));
    let missed = |pattern: &str| -> u64 {
        bench.told().iter().filter(|(told, ..)| *told == pattern).map(|(.., missed)| missed.unwrap()).sum()
    };
    assert_eq!((missed("x"), missed("#")), (9, 9 + 2_000 - 1_024), "{:?}", bench.told());
}

#[derive(Debug, Clone)]
enum Losing {
    Append(usize),
    /// The log lets go of all that is there.
    Age,
    /// To a pattern, which is not there yet.
    Subscribe(usize),
    Replay,
    Wait(u64),
    Full,
    Drained,
}

fn losing() -> impl Strategy<Value = Losing> {
    prop_oneof![
        8 => (0usize..4).prop_map(Losing::Append),
        1 => Just(Losing::Age),
        2 => (0usize..6).prop_map(Losing::Subscribe),
        3 => Just(Losing::Replay),
        2 => (0u64..900).prop_map(Losing::Wait),
        1 => Just(Losing::Full),
        1 => Just(Losing::Drained),
    ]
}

/// What each subscription of a session was told to miss, and what of the messages since its beginning the session was not sent.
fn told_and_missed(steps: &[Losing], (paced, rate): (usize, u64)) -> Vec<(u64, u64)> {
    let mut bench = Bench::forgetful(LogBounds { age_max: Duration::from_secs(1), ..LogBounds::default() });
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.paced(subscriber, (PATTERNS[paced], rate), Flow::CatchUp, &[]);
    let mut standing = BTreeMap::from([(paced, (bench.next, 0))]);
    let (mut log, mut millis): (Vec<&str>, u64) = (Vec::new(), 0);
    for step in steps {
        match step {
            Losing::Append(topic) => {
                let (topic, attributes) = (TOPICS[*topic], Attributes::default());
                let draft = Draft {
                    topic: Topic::parse(topic).unwrap(),
                    payload: Bytes::new(),
                    attributes,
                    received_at: millis,
                };
                Feed::new(bench.hub.sources()[0].clone()).append(vec![draft], millis);
                log.push(topic);
                while bench.turn() {}
            }
            Losing::Age => {
                millis += 10_000;
                Feed::new(bench.hub.sources()[0].clone()).expire(millis);
            }
            Losing::Subscribe(pattern) if standing.contains_key(pattern) => {}
            Losing::Subscribe(pattern) => {
                bench.subscribe(subscriber, PATTERNS[*pattern], &[]);
                standing.insert(*pattern, (bench.next, log.len()));
            }
            Losing::Replay => drop(bench.replay(subscriber)),
            Losing::Wait(millis) => bench.now += Duration::from_millis(*millis),
            Losing::Full => drop(bench.full.insert(subscriber)),
            Losing::Drained => drop(bench.full.remove(&subscriber)),
        }
    }
    bench.full.clear();
    bench.settle(&[subscriber]);
    let seen: BTreeSet<String> = bench.seen.remove(&subscriber).unwrap_or_default().into_iter().collect();
    let count = |(pattern, (id, began)): (&usize, &(u32, usize))| {
        let gaps = bench.gaps.iter().filter(|gap| gap.subscription.0 == *id);
        let wanted = Pattern::parse(PATTERNS[*pattern]).unwrap();
        let owed =
            log.iter().zip(1usize..).skip(*began).filter(|(topic, _)| wanted.matches(&Topic::parse(topic).unwrap()));
        let missed = owed.filter(|(_, number)| !seen.contains(&format!("a{number}"))).count() as u64;
        (gaps.map(|gap| gap.missed.unwrap()).sum(), missed)
    };
    standing.iter().map(count).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whoever left something to a rate that is gone is told just how much of it that is.
    #[test]
    fn what_is_gone_is_told_to_all_who_miss_it(steps in prop::collection::vec(losing(), 0..80), paced in 0usize..6, rate in 1u64..4) {
        let is_full = steps.iter().any(|step| matches!(step, Losing::Full));
        for (told, missed) in told_and_missed(&steps, (paced, rate)) {
            // Who is behind by its socket, too, is told of all that has left the log before it came there, whoever sent it.
            prop_assert!(if is_full { told >= missed } else { told == missed }, "told {} of {}", told, missed);
        }
    }
}
