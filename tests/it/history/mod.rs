//! The history checker: runs of hub, sessions and clients, and a rule that tells whether anybody lost, repeated or was told
//! anything wrongly. See [`rule`] for the rule, [`simulation`] for the runs, [`tamper`] for the bugs that it must find.
//!
//! `HISTORY_SEEDS=1000..2000` runs others than the usual seeds, and `HISTORY_SEEDS=1234` a single one; `scripts/history` runs
//! ten thousand. [`real`] is the same on a real broker. A seed that breaks the rule prints what its subscription was told.

mod broker;
mod client;
mod gaps;
mod ground;
mod node;
mod phase;
mod real;
mod record;
mod rule;
mod rule_tests;
mod scenario;
mod simulation;
mod source;
mod stored;
mod stream;
mod tamper;

use std::ops::Range;

use crate::history::record::Record;
use crate::history::rule::{Violation, check};
use crate::history::scenario::Terrain;
use crate::history::simulation::run;
use crate::history::tamper::Tampering;

/// What `cargo test` runs.
const SEEDS: Range<u64> = 0..200;

/// So many runs with a planted bug say how often it is found.
const PLANTED: usize = 20;

/// Among so many runs they are looked for: not every run has a chance for each.
const RUNS_MAX: u64 = 400;

/// The seeds that the environment asks for, or else the usual ones.
fn seeds(variable: &str, usual: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var(variable) else { return usual };
    let number = |text: &str| {
        text.trim().parse::<u64>().unwrap_or_else(|_| panic!("{variable} is a number, or two as in 0..1000"))
    };
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&text)..number(&text) + 1,
    }
}

/// What is wrong with a run, for a person to read.
fn report(seed: u64, record: &Record, violations: &[Violation]) -> String {
    let sentences: String = violations.iter().take(12).map(|one| format!("  {}\n", one.sentence)).collect();
    let first = violations.iter().find_map(|one| one.history);
    let history = first.map(|history| record.truth.readable(&record.histories[history])).unwrap_or_default();
    format!("seed {seed} breaks the rule {} times:\n{sentences}\n{history}", violations.len())
}

#[test]
fn whatever_happens_nothing_is_lost_or_repeated_in_silence() {
    let mut reports = Vec::new();
    let mut broken = 0;
    for seed in seeds("HISTORY_SEEDS", SEEDS) {
        let record = run(seed, Terrain::Any, None);
        let violations = check(&record);
        if !violations.is_empty() {
            broken += 1;
            if reports.len() < 3 {
                reports.push(report(seed, &record, &violations));
            }
        }
    }
    assert_eq!(broken, 0, "seeds that break the rule\n\n{}", reports.join("\n"));
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..5 {
        let tell = |record: &Record| -> String {
            record.histories.iter().map(|history| record.truth.readable(history)).collect()
        };
        let (once, again) = (run(seed, Terrain::Any, None), run(seed, Terrain::Any, None));
        assert_eq!(tell(&once), tell(&again));
        assert!(once.histories.len() > 3);
    }
}

/// A bug in a run may be without consequence, as when the client goes before it could tell; most are not.
#[test]
fn every_planted_bug_is_found() {
    for (tampering, terrain) in Tampering::ALL.into_iter().flat_map(|one| Terrain::ALL.map(|terrain| (one, terrain))) {
        let runs = (0..RUNS_MAX).map(|seed| run(seed, terrain, Some(tampering))).filter(|record| record.tampered);
        let found: Vec<bool> = runs.take(PLANTED).map(|record| !check(&record).is_empty()).collect();
        let (count, planted) = (found.iter().filter(|found| **found).count(), found.len());
        eprintln!("{tampering:?} in {terrain:?}: planted in {planted} runs, found in {count}");
        assert!(count > 0 && count * 4 >= planted, "{tampering:?} in {terrain:?}: found in {count} of {planted} runs");
    }
}
