//! The history checker: runs of hub, sessions and clients, and a rule that tells whether anybody lost, repeated or was told
//! anything wrongly. See [`rule`] for the rule, [`simulation`] for the runs, [`tamper`] for the bugs that it must find.
//!
//! `HISTORY_SEEDS=1000..2000` runs others than the usual seeds, and `HISTORY_SEEDS=1234` a single one; `scripts/history` runs
//! ten thousand. A seed that breaks the rule prints what its subscription was told.

mod broker;
mod client;
mod ground;
mod node;
mod phase;
mod record;
mod rule;
mod rule_tests;
mod simulation;
mod tamper;

use std::ops::Range;

use crate::history::record::Record;
use crate::history::rule::{Violation, check};
use crate::history::simulation::run;
use crate::history::tamper::Tampering;

/// What `cargo test` runs.
const SEEDS: Range<u64> = 0..200;

/// The seeds that the environment asks for.
fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("HISTORY_SEEDS") else { return SEEDS };
    let number = |text: &str| text.trim().parse::<u64>().expect("HISTORY_SEEDS is a number, or two as in 0..1000");
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
    for seed in seeds() {
        let record = run(seed, None);
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
        let (once, again) = (run(seed, None), run(seed, None));
        assert_eq!(tell(&once), tell(&again));
        assert!(once.histories.len() > 3);
    }
}

#[test]
fn every_planted_bug_is_found() {
    for tampering in Tampering::ALL {
        let found = (0..40).find(|seed| !check(&run(*seed, Some(tampering))).is_empty());
        assert!(found.is_some(), "{tampering:?} was not found in forty runs");
    }
}

#[test]
fn debug() {
    let Ok(text) = std::env::var("DBG") else { return };
    let record = run(seeds().start, None);
    for s in &record.truth.sources {
        eprintln!(
            "{} {} outages {:?} drops {:?} restarts {:?} q{}",
            s.name, s.is_queue, s.outages, s.drops, s.restarts, s.is_queue
        );
        for b in &s.bindings {
            eprintln!("    {} {}..{:?}", b.pattern, b.from, b.to);
        }
    }
    for line in &record.lines {
        if line.name == text {
            eprintln!("{:?}", line.replays.iter().map(|p| p.to_string()).collect::<Vec<_>>());
            for m in &line.messages {
                eprintln!("{m:?}");
            }
        }
    }
    for h in &record.histories {
        if h.name.contains(&text) {
            eprintln!("{}", record.truth.readable(h));
        }
    }
}

#[test]
fn summary() {
    if std::env::var("HISTORY_SUM").is_err() {
        return;
    }
    let mut kinds: std::collections::BTreeMap<String, (usize, u64, usize)> = Default::default();
    let mut broken = 0;
    for seed in seeds() {
        let record = run(seed, None);
        let v = check(&record);
        broken += usize::from(!v.is_empty());
        for one in v {
            let k: String = one.sentence.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            let mut k = k;
            while k.contains("00") {
                k = k.replace("00", "0");
            }
            let size = one.history.map_or(9999, |h| record.histories[h].told.len());
            let e = kinds.entry(k).or_insert((0, seed, size));
            e.0 += 1;
            if size < e.2 {
                e.1 = seed;
                e.2 = size;
            }
        }
    }
    eprintln!("broken {broken}");
    for (k, v) in kinds {
        eprintln!("{v:?} {k}");
    }
}
