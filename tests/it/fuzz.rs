//! What the fuzz targets begin with, and what they once found, plays through without a fault; and who adds a protocol adds it
//! there too.

use std::collections::BTreeSet;

use passerelle::protocol::REGISTRY;

use self::conversation::Talk;
use crate::repository::{entries, root, text};

#[allow(unreachable_pub, reason = "public in the crate of the fuzz targets")]
#[path = "../../fuzz/src/conversation.rs"]
mod conversation;
#[allow(unreachable_pub, reason = "public in the crate of the fuzz targets")]
#[path = "../../fuzz/src/frames.rs"]
mod frames;

/// What a target does with an input.
type Play = fn(&[u8]);

/// Each target by its name, as its own file says it.
const TARGETS: [(&str, Play); 7] = [
    ("cloudevents", |data| conversation::converse(&["cloudevents.json"], Talk::Messages, data)),
    ("json", |data| conversation::converse(&["passerelle.v1.json"], Talk::Messages, data)),
    ("mqtt", |data| conversation::converse(&["mqtt", "mqttv3.1"], Talk::Stream, data)),
    ("raw", |data| conversation::converse(&["passerelle.v1.raw"], Talk::Messages, data)),
    ("stomp", |data| conversation::converse(&["stomp", "v10.stomp", "v11.stomp", "v12.stomp"], Talk::Stream, data)),
    ("wamp", |data| conversation::converse(&["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"], Talk::Messages, data)),
    ("websocket", frames::read),
];

#[test]
fn every_kept_input_plays_through() {
    for (target, play) in TARGETS {
        let inputs = entries(&root().join("fuzz/corpus").join(target));
        assert!(!inputs.is_empty(), "{target} has nothing to begin with");
        for input in inputs {
            eprintln!("{}", input.display());
            play(&std::fs::read(input).expect("an input"));
        }
    }
}

#[test]
fn every_protocol_that_is_negotiated_has_a_target() {
    let files: String = TARGETS.iter().map(|(target, _)| text(format!("fuzz/targets/{target}.rs"))).collect();
    let negotiated: BTreeSet<&str> = REGISTRY.iter().filter(|row| row.negotiable).map(|row| row.name).collect();
    for name in negotiated {
        assert!(files.contains(&format!("\"{name}\"")), "no file in fuzz/targets names {name}");
    }
}
