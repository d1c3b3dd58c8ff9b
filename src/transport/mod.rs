//! transport

pub mod websocket;
