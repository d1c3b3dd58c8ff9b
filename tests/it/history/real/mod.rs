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
mod schedule;
mod traveller;
mod visit;
mod world;

use std::ops::Range;
use std::sync::OnceLock;

use crate::history::real::account::Account;
use crate::history::real::rule::check;
use crate::history::real::schedule::Schedule;
use crate::history::rule::Violation;
use crate::history::seeds;
use crate::rabbit::Rabbit;

/// What `cargo test` runs.
const SEEDS: Range<u64> = 0..10;

/// The broker of all runs: each has names of its own there, and kills it when it likes.
fn rabbit() -> &'static Rabbit {
    static RABBIT: OnceLock<Rabbit> = OnceLock::new();
    RABBIT.get_or_init(Rabbit::start)
}

/// What is wrong with a run, for a person to read.
fn report(schedule: &Schedule, account: &Account, violations: &[Violation]) -> String {
    let sentence = |one: &Violation| format!("  {:?} {}\n", one.history, one.sentence);
    let sentences: String = violations.iter().take(12).map(sentence).collect();
    let first = violations.iter().find_map(|one| one.history);
    let history = first.map(|history| {
        let journey = &account.journeys[history];
        format!("{journey:?}\n{}", account.record.truth.readable(&account.record.histories[history]))
    });
    let Account { lives, harms, .. } = account;
    let mut schedule = schedule.clone();
    let (seed, clients) = (schedule.seed, std::mem::take(&mut schedule.clients).len());
    format!(
        "seed {seed} breaks the rule {} times:\n{sentences}\n{schedule:#?}\nand {clients} clients; lives {lives:?}, {harms:?}\n{}",
        violations.len(),
        history.unwrap_or_default()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_or_cut_nothing_is_lost_or_repeated_in_silence() {
    let rabbit = rabbit();
    let mut reports = Vec::new();
    let seeds = seeds("HISTORY_REAL_SEEDS", SEEDS);
    for seed in seeds.clone() {
        let schedule = Schedule::draw(seed);
        let began = std::time::Instant::now();
        let account = world::run(&schedule, rabbit).await;
        let violations = check(&account);
        let (histories, messages) = (account.record.histories.len(), account.record.truth.messages.len());
        let took = began.elapsed();
        eprintln!("seed {seed}: {messages} messages, {histories} histories, {took:?}: {} violations", violations.len());
        if !violations.is_empty() {
            reports.push(report(&schedule, &account, &violations));
        }
    }
    assert!(
        reports.is_empty(),
        "{} of seeds {seeds:?} break the rule\n\n{}",
        reports.len(),
        reports[..reports.len().min(3)].join("\n")
    );
}
