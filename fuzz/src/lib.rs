//! What the fuzz targets do with their input: [`conversation`] plays a client of one protocol against codec and session,
//! [`frames`] reads WebSocket frames. The integration tests play the kept corpora through the same functions.

pub mod conversation;
pub mod frames;

use self::conversation::{Talk, converse};

/// What a target does with an input.
pub type Play = fn(&[u8]);

/// Every target by its name, which is that of its file and of its corpus.
pub const TARGETS: [(&str, Play); 7] = [
    ("cloudevents", |data| converse(CLOUD_EVENTS, Talk::Messages, data)),
    ("json", |data| converse(JSON, Talk::Messages, data)),
    ("mqtt", |data| converse(MQTT, Talk::Stream, data)),
    ("raw", |data| converse(RAW, Talk::Messages, data)),
    ("stomp", |data| converse(STOMP, Talk::Stream, data)),
    ("wamp", |data| converse(WAMP, Talk::Messages, data)),
    ("websocket", frames::read),
];

/// The protocols of each: an input says which of them it is in.
pub const PROTOCOLS: [&[&str]; 6] = [CLOUD_EVENTS, JSON, MQTT, RAW, STOMP, WAMP];

const CLOUD_EVENTS: &[&str] = &["cloudevents.json"];
const JSON: &[&str] = &["passerelle.v1.json"];
const MQTT: &[&str] = &["mqtt", "mqttv3.1"];
const RAW: &[&str] = &["passerelle.v1.raw"];
const STOMP: &[&str] = &["stomp", "v10.stomp", "v11.stomp", "v12.stomp"];
const WAMP: &[&str] = &["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"];

/// Has a target play an input.
///
/// # Panics
/// When anything that must hold does not, or there is no such target.
pub fn play(target: &str, data: &[u8]) {
    let known = TARGETS.iter().find(|(name, _)| *name == target);
    known.expect("a target's name").1(data);
}
