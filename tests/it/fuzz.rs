//! What the fuzz targets begin with, and what they once found, plays through without a fault; and who adds a protocol adds it
//! there too.

use std::collections::BTreeSet;

use passerelle::protocol::REGISTRY;

use self::targets::{PROTOCOLS, TARGETS, play};
use crate::repository::{entries, files_below, root};

#[allow(unreachable_pub, reason = "public in the crate of the fuzz targets")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

#[test]
fn every_kept_input_plays_through() {
    for (target, _) in TARGETS {
        let inputs = entries(&root().join("fuzz/corpus").join(target));
        assert!(!inputs.is_empty(), "{target} has nothing to begin with");
        for input in inputs {
            eprintln!("{}", input.display());
            play(target, &std::fs::read(input).expect("an input"));
        }
    }
}

#[test]
fn every_target_has_a_program_of_its_name() {
    let programs: BTreeSet<_> = files_below("fuzz/targets").into_iter().collect();
    let named = TARGETS.map(|(target, _)| format!("fuzz/targets/{target}.rs").into());
    assert_eq!(programs, BTreeSet::from(named));
}

#[test]
fn every_protocol_that_is_negotiated_has_a_target() {
    let negotiated: BTreeSet<&str> = REGISTRY.iter().filter(|row| row.negotiable).map(|row| row.name).collect();
    assert_eq!(negotiated, PROTOCOLS.concat().into_iter().collect());
}
