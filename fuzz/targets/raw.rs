//! Clients that send and get bare payloads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use passerelle_fuzz::conversation::{Talk, converse};

fuzz_target!(|data: &[u8]| converse(&["passerelle.v1.raw"], Talk::Messages, data));
