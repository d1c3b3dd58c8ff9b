//! passerelle bridges AMQP to WebSocket: it consumes from RabbitMQ and fans every message out to the browsers
//! that subscribed to its topic, over whichever subprotocol they negotiate.
//!
//! The modules, in reading order:
//!
//! | module | what it holds |
//! |---|---|
//! | [`model`] | topics, publications, cursors, endings: plain data |
//! | [`hub`] | feed, log, index, interest, shards: what decides who gets what |
//! | [`protocol`] | codecs between bytes and the words of the session |
//! | [`session`] | one client's conversation as a state machine |
//! | [`auth`] | who a client is and what it may do |
//! | [`source`] | what comes from RabbitMQ and what goes there |
//! | [`embedded`] | the AMQP 0-9-1 listener for those who have no RabbitMQ yet |
//! | [`transport`] | listeners, HTTP, WebSocket, Server-Sent Events |
//! | [`config`] | files, environment and flags, and what they mean |
//! | [`metrics`] | every metric |
//! | [`app`] | which puts it all together |
//! | [`cli`] | the commands |

pub mod model;

pub mod hub;

pub mod protocol;

pub mod session;

pub mod auth;

pub mod source;

pub mod embedded;

pub mod transport;

pub mod config;

pub mod metrics;

pub mod app;

pub mod cli;
