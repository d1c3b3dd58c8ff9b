//! passerelle bridges AMQP to WebSocket: it consumes from RabbitMQ and fans every message out to the browsers
//! that subscribed to its topic, over whichever subprotocol they negotiate.
//!
//! The modules, in reading order:
//!
//! | module | what it holds |
//! |---|---|
//! | [`model`] | topics, publications, cursors, endings: plain data |
//! | [`hub`] | sequencer, log, index, shards, interest: what decides who gets what |
pub mod config;
pub mod hub;
pub mod model;
