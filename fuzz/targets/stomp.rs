//! STOMP clients of all versions.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| passerelle_fuzz::play("stomp", data));
