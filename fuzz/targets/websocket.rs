//! Frames of WebSocket clients.

#![no_main]

use libfuzzer_sys::fuzz_target;
use passerelle_fuzz::frames::read;

fuzz_target!(|data: &[u8]| read(data));
