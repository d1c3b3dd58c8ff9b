//! WAMP v2: lists of typed elements, in JSON, MessagePack or CBOR, one a WebSocket message, both ways. This is the message
//! level alone: what bytes are which message, which is refused and how, and what a router's messages look like.
//!
//! Bytes become a [`value::Value`] by [`serializer`] ([`json`], [`msgpack`] and [`cbor`], the latter two over [`reader`]);
//! [`client_message`] makes of it what a client asked ([`fields`], [`options`], [`uri`]), or a [`refusal`];
//! [`router_message`] is the way back. Section names in comments are those of the WAMP specification.

mod cbor;
pub mod challenge;
pub mod client_message;
mod fields;
pub mod history;
pub mod id;
mod json;
pub mod kind;
pub mod malformed;
mod msgpack;
pub mod options;
mod reader;
pub mod reasons;
pub mod refusal;
pub mod router_message;
pub mod serializer;
mod time;
pub mod uri;
pub mod value;

#[cfg(test)]
mod tests;
