//! Listeners, HTTP, WebSocket, Server-Sent Events.

pub mod admin;
