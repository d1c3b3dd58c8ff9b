//! Clients that send and get CloudEvents.

#![no_main]

use libfuzzer_sys::fuzz_target;
use passerelle_fuzz::conversation::{Talk, converse};

fuzz_target!(|data: &[u8]| converse(&["cloudevents.json"], Talk::Messages, data));
