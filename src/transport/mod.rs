//! Listeners, HTTP, WebSocket, Server-Sent Events: the only room, with the AMQP side, that touches sockets.
//!
//! The way in: [`listener`] accepts and deals out, [`shard`] runs the handshake in [`http`], [`gate`] and [`opening`], and
//! [`driver`] owns what came of it. The admin listener has its own small server in [`admin`].

pub mod admin;
pub(crate) mod driver;
pub(crate) mod cross_origin;
pub(crate) mod gate;
pub(crate) mod http;
pub(crate) mod liveness;
pub(crate) mod listener;
pub(crate) mod opening;
pub(crate) mod pages;
pub(crate) mod poll;
pub(crate) mod publish;
pub(crate) mod seats;
pub(crate) mod sessions;
pub(crate) mod shard;
pub(crate) mod socket;
pub mod websocket;
pub(crate) mod wire;
