//! Clients that send and get bare payloads.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| passerelle_fuzz::play("raw", data));
