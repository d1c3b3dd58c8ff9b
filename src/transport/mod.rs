//! Listeners, HTTP, WebSocket, Server-Sent Events: the only room, with the AMQP side, that touches sockets.

pub mod admin;
pub mod websocket;
