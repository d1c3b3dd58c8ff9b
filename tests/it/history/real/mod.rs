//! The history checker for real: the program on two or three nodes, a RabbitMQ of its own, several publishers and hundreds of
//! clients, of which all but the publishers are killed, cut off and moved about. See [`rule`] for what is judged.
//!
//! A seed gives the schedule of a run; what happens within it is up to the machine. `HISTORY_REAL_SEEDS=0..200` runs others
//! than the usual ones; `scripts/history real` does.

mod account;
mod line;
mod node;
mod proxy;
mod publisher;
mod rule;
mod rule_tests;
mod schedule;
mod tamper;
mod traveller;
mod visit;
mod world;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

use fastrand::Rng;
use tokio::sync::Mutex;

use crate::history::real::account::Account;
use crate::history::real::rule::{check, check_some};
use crate::history::real::schedule::Schedule;
use crate::history::real::tamper::Tampering;
use crate::history::rule::Violation;
use crate::history::seeds;
use crate::rabbit::Rabbit;

/// What `cargo test` runs.
const SEEDS: Range<u64> = 0..10;
/// The run into which bugs are planted, each kind in so many places.
const PLANTED_SEED: u64 = 2;
const PLANTED: usize = 20;
/// Histories that a report shows.
const HISTORIES_SHOWN: usize = 3;

/// The broker of all runs: each has names of its own there, and kills it when it likes.
fn rabbit() -> &'static Rabbit {
    static RABBIT: OnceLock<Rabbit> = OnceLock::new();
    RABBIT.get_or_init(Rabbit::start)
}

/// What is wrong with a run, for a person to read.
fn report(schedule: &Schedule, account: &Account, violations: &[Violation]) -> String {
    let sentence = |one: &Violation| format!("  {:?} {}\n", one.history, one.sentence);
    let sentences: String = violations.iter().take(12).map(sentence).collect();
    let broken: BTreeSet<usize> = violations.iter().filter_map(|one| one.history).collect();
    let history = |history: &usize| {
        let journey = &account.journeys[*history];
        format!("{journey:?}\n{}", account.record.truth.readable(&account.record.histories[*history]))
    };
    let histories: String = broken.iter().take(HISTORIES_SHOWN).map(history).collect();
    let Account { lives, harms, warnings, .. } = account;
    let (seed, count) = (schedule.seed, violations.len());
    let clients = schedule.clients.len();
    let schedule = Schedule { clients: Vec::new(), ..schedule.clone() };
    format!(
        "seed {seed} breaks the rule {count} times:\n{sentences}\n{schedule:?}\nand {clients} clients; lives {lives:?}, {harms:?}\n{}\n{histories}",
        warnings.join("\n")
    )
}

/// Runs one schedule after the other: one may kill the broker of another.
async fn run(schedule: &Schedule) -> Account {
    static TURN: Mutex<()> = Mutex::const_new(());
    let _turn = TURN.lock().await;
    world::run(schedule, rabbit()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_or_cut_nothing_is_lost_or_repeated_in_silence() {
    let mut broken = Vec::new();
    for seed in seeds("HISTORY_REAL_SEEDS", SEEDS) {
        let schedule = Schedule::draw(seed);
        let began = Instant::now();
        let account = run(&schedule).await;
        let violations = check(&account);
        let (histories, messages) = (account.record.histories.len(), account.record.truth.messages.len());
        let (took, count) = (began.elapsed(), violations.len());
        eprintln!("seed {seed}: {messages} messages, {histories} histories, {took:?}: {count} violations");
        let of_broker = account.warnings.iter().filter(|one| one.starts_with("the broker"));
        of_broker.for_each(|one| eprintln!("seed {seed}: {one}"));
        if !violations.is_empty() {
            // At once, for there may be many seeds to come.
            eprintln!("{}", report(&schedule, &account, &violations));
            broken.push(seed);
        }
    }
    assert!(broken.is_empty(), "these seeds break the rule, as is told above: {broken:?}");
}

/// Some bugs are without consequence, as a message lost that nobody was owed yet; most are not.
#[tokio::test(flavor = "multi_thread")]
async fn every_bug_that_is_planted_into_a_real_run_is_found() {
    let schedule = Schedule { faults: Vec::new(), ..Schedule::draw(PLANTED_SEED) };
    let account = run(&schedule).await;
    let violations = check(&account);
    assert!(violations.is_empty(), "{}", report(&schedule, &account, &violations));
    let mut rng = Rng::with_seed(PLANTED_SEED);
    for tampering in Tampering::ALL {
        let mut found = 0;
        for _ in 0..PLANTED {
            let mut tampered = account.clone();
            let history = tampering.plant(&mut tampered, &mut rng);
            let history = history.unwrap_or_else(|| panic!("{tampering:?} has no place in this run"));
            found += usize::from(!check_some(&tampered, history..history + 1).is_empty());
        }
        eprintln!("{tampering:?}: planted {PLANTED} times, found {found} times");
        assert!(found * 2 >= PLANTED, "{tampering:?} was found {found} of {PLANTED} times");
    }
}
