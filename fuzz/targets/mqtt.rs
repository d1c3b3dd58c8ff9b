//! MQTT clients of all versions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use passerelle_fuzz::conversation::{Talk, converse};

fuzz_target!(|data: &[u8]| converse(&["mqtt", "mqttv3.1"], Talk::Stream, data));
