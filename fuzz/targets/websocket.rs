//! Frames of WebSocket clients.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| passerelle_fuzz::play("websocket", data));
