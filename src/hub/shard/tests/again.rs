//! Subscriptions that ask for the newest messages and take the place of one on the same pattern.

use std::time::Duration;

use super::*;
use crate::model::rate::Rate;

impl Bench {
    /// One that asks for so many of the newest messages of each topic.
    fn newest(&mut self, pattern: &str, each: usize) -> SubscribeRequest {
        let last = Last { each, total_max: 100, ..Last::default() };
        SubscribeRequest { last, ..self.request(pattern, &[]) }
    }
}

#[test]
fn the_newest_come_first_to_who_subscribes_again_too() {
    for (number, expected) in [(None, ["a2", "a3"]), (Some(1), ["a1", "a3"])] {
        let mut bench = Bench::new();
        let subscriber = bench.shard.join(CursorForm::Separate);
        bench.subscribe(subscriber, "x", &[]);
        [1, 2, 1].into_iter().for_each(|number| append_with(&bench.hub, 0, "x", numbered(number)));
        bench.settle(&[subscriber]);
        let mut request = bench.newest("x", 2);
        request.wanted.filter = number.and_then(of_number);
        let id = request.id;
        let activated = bench.open(subscriber, request).pop().unwrap();
        assert!(activated.replay && !activated.resumed);
        bench.settle(&[subscriber]);
        assert_eq!(bench.seen[&subscriber][3..], expected);
        assert_eq!(bench.caught_up, [id]);
        append_with(&bench.hub, 0, "x", numbered(1));
        bench.settle(&[subscriber]);
        assert_eq!(bench.seen[&subscriber][5..], ["a4"]);
    }
}

/// What the one before had not been sent comes from there on, so that it is not among the newest as well.
#[test]
fn what_has_not_come_yet_comes_once_though_it_is_among_the_newest() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "x", &[]);
    (0..3).for_each(|_| append(&bench.hub, 0, "x"));
    bench.settle(&[subscriber]);
    append(&bench.hub, 0, "x");
    let again = bench.newest("x", 2);
    bench.open(subscriber, again);
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a1", "a2", "a3", "a3", "a4"]);
}

#[test]
fn the_newest_that_were_still_to_come_come_if_they_are_asked_for_again() {
    let mut bench = Bench::new();
    (0..5).for_each(|_| append(&bench.hub, 0, "x"));
    while bench.turn() {}
    let subscriber = bench.shard.join(CursorForm::Separate);
    for _ in 0..2 {
        let request = bench.newest("x", 5);
        bench.open(subscriber, request);
        bench.replay(subscriber);
        assert_eq!(bench.seen.remove(&subscriber).unwrap(), ["a1", "a2", "a3"]);
    }
    bench.settle(&[subscriber]);
    assert_eq!(bench.seen[&subscriber], ["a4", "a5"]);
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, usize),
    /// With so many of the newest of each topic, and perhaps a rate.
    Again(usize, Option<u64>),
    Turn,
    Replay,
    Full,
    Drained,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..2, 0usize..2).prop_map(|(source, topic)| Step::Append(source, topic)),
        2 => (0usize..4, prop::option::of(1u64..4)).prop_map(|(each, rate)| Step::Again(each, rate)),
        3 => Just(Step::Turn),
        3 => Just(Step::Replay),
        1 => Just(Step::Full),
        2 => Just(Step::Drained),
        2 => (0u64..900).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// However often one subscribes again, slow or paced or not: everything comes, nothing more often than it was asked for, and
    /// the newest that were asked for last all come.
    #[test]
    fn who_subscribes_again_is_sent_everything_and_what_it_asks_for(steps in prop::collection::vec(step(), 0..80)) {
        let mut bench = Bench::new();
        let subscriber = bench.shard.join(CursorForm::Separate);
        bench.subscribe(subscriber, "#", &[]);
        // Of each source and topic, what was published.
        let mut log: BTreeMap<(usize, usize), Vec<String>> = BTreeMap::new();
        let mut counts = [0; 2];
        let mut most: BTreeMap<String, usize> = BTreeMap::new();
        let (mut asked, mut seen_before) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Append(source, topic) => {
                    append(&bench.hub, source, TOPICS[topic]);
                    counts[source] += 1;
                    let name = format!("{}{}", SOURCES[source], counts[source]);
                    most.insert(name.clone(), 1);
                    log.entry((source, topic)).or_default().push(name);
                }
                Step::Again(each, rate) => {
                    asked = log.values().flat_map(|names| names.iter().rev().take(each).cloned()).collect();
                    asked.iter().for_each(|name| *most.entry(name.clone()).or_default() += 1);
                    seen_before = bench.seen.get(&subscriber).map_or(0, Vec::len);
                    let request = SubscribeRequest { max_rate: rate.and_then(Rate::new), ..bench.newest("#", each) };
                    bench.open(subscriber, request);
                }
                Step::Turn => drop(bench.turn()),
                Step::Replay => drop(bench.replay(subscriber)),
                Step::Full => drop(bench.full.insert(subscriber)),
                Step::Drained => drop(bench.full.remove(&subscriber)),
                Step::Wait(millis) => bench.now += Duration::from_millis(millis),
            }
        }
        bench.full.clear();
        bench.settle(&[subscriber]);
        prop_assert_eq!(&bench.gaps, &[]);
        let seen = bench.seen.remove(&subscriber).unwrap_or_default();
        for (name, most) in &most {
            let count = seen.iter().filter(|known| *known == name).count();
            prop_assert!((1..=*most).contains(&count), "{} came {} times of {}: {:?}", name, count, most, &seen);
        }
        for name in &asked {
            prop_assert!(seen[seen_before..].contains(name), "{} of {:?} did not come: {:?}", name, &asked, &seen);
        }
    }
}
