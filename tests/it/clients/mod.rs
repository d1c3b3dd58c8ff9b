//! Other people's clients, from `tests/clients`: what they publish, receive, ask and answer, on the embedded broker and on
//! RabbitMQ. Nothing here speaks a protocol itself where a library of theirs can.

mod broker_events;
mod downward;
mod event_source;
mod mqtt;
mod mqtt_groups;
mod proxy;
pub(crate) mod script;
mod stomp;
mod tutorials;
mod upward;
mod wamp;
