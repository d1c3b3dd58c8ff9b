//! One subscriber in a hundred reads nothing for long: what the ninety-nine others cost is counted, with it and without it.

use super::*;

const READERS: usize = 99;
const ROUNDS: usize = 60;

/// Messages that come together.
const ROUND: usize = 5;

/// What it took to serve those who read. A delivery is one call to the socket.
#[derive(Debug, Default, PartialEq, Eq)]
struct Work {
    turns: usize,
    /// Messages written for the wire, for whomever.
    encodes: u64,
    /// Pieces of bytes that were built to be shared: each is an allocation.
    pieces: usize,
    deliveries: usize,
    bytes: usize,
}

/// One turn: each reader takes what it is given, and the stalled one nothing.
fn turn(bench: &mut Bench, stalled: Option<SubscriberId>, work: &mut Work) -> bool {
    let taken = bench.shard.take(SMALL);
    let mut pieces = BTreeSet::new();
    for subscriber in bench.shard.turn().0.close() {
        let (turn, _) = bench.shard.turn();
        let (delivery, _) = turn.delivery(subscriber, Encoding(0), &mut bench.names);
        let Delivery::Joined(bytes) = delivery else { panic!("everybody is sent the same, so it is shared") };
        if Some(subscriber) == stalled {
            let (source, read) = turn.origin().unwrap();
            bench.shard.fall_behind(subscriber, source, read);
            continue;
        }
        pieces.insert(bytes.as_ptr());
        work.deliveries += 1;
        work.bytes += bytes.len();
    }
    bench.shard.turn().0.end();
    work.turns += 1;
    work.pieces += pieces.len();
    work.encodes = bench.names.0;
    taken.more
}

/// Publishes to the readers, and to one more that takes nothing if there is to be one. Answers that one, too.
fn serve(has_stalled: bool) -> (Work, Bench, Option<SubscriberId>) {
    let mut bench = Bench::new();
    let join = |bench: &mut Bench| {
        let subscriber = bench.shard.join(CursorForm::Separate);
        assert_eq!(bench.subscribe(subscriber, "x.#", &[]).len(), 1);
        subscriber
    };
    (0..READERS).for_each(|_| _ = join(&mut bench));
    let stalled = has_stalled.then(|| join(&mut bench));
    let mut work = Work::default();
    for _ in 0..ROUNDS {
        (0..ROUND).for_each(|number| append(&bench.hub, 0, ["x", "x.y"][number % 2]));
        while turn(&mut bench, stalled, &mut work) {}
    }
    (work, bench, stalled)
}

#[test]
fn the_others_cost_nothing_more_and_the_stalled_one_goes_on_from_the_log() {
    let (alone, ..) = serve(false);
    let (beside, mut bench, stalled) = serve(true);
    println!("{alone:?}");
    assert_eq!(beside, alone);
    assert!(alone.turns >= ROUNDS && alone.deliveries >= ROUNDS * READERS && alone.encodes == (ROUNDS * ROUND) as u64);
    let stalled = stalled.unwrap();
    assert!(bench.shard.has_replay(stalled));
    bench.settle(&[stalled]);
    let expected: Vec<String> = (1..=ROUNDS * ROUND).map(|number| format!("a{number}")).collect();
    assert_eq!(bench.seen[&stalled], expected);
    assert_eq!(bench.gaps, []);
}
