//! STOMP 1.0, 1.1 and 1.2 as a protocol: heart-beats.
//!
//! Sans-I/O: it knows no socket, no clock, no session and none of the words of the session.

pub mod heart_beat;
