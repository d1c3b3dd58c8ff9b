//! WAMP clients in all serializations.

#![no_main]

use libfuzzer_sys::fuzz_target;
use passerelle_fuzz::conversation::{Talk, converse};

fuzz_target!(|data: &[u8]| converse(&["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"], Talk::Messages, data));
