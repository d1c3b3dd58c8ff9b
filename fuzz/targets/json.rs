//! Clients of passerelle's own JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| passerelle_fuzz::play("json", data));
