//! STOMP clients of all versions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use passerelle_fuzz::conversation::{Talk, converse};

fuzz_target!(|data: &[u8]| converse(&["stomp", "v10.stomp", "v11.stomp", "v12.stomp"], Talk::Stream, data));
