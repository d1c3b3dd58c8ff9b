//! STOMP 1.0, 1.1 and 1.2 as a protocol: frames in and out, destinations as RabbitMQ's STOMP plugin reads them, heart-beats.
//!
//! Sans-I/O: it knows no socket, no clock, no session and none of the words of the session.

pub mod destination;
mod escape;
pub mod frame;
pub mod heart_beat;
pub mod reader;
pub mod version;
pub mod writer;
