//! The AMQP side against a real RabbitMQ: sources, publishes and calls through a hub, without any client.

pub(crate) mod bridge;
mod broken;
mod calls;
mod checks;
mod embedded;
mod poison;
mod publishes;
mod queues;
mod refused;
mod sources;
mod tls;
