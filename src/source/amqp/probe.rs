//! Questions to the broker that change nothing there, for `check --connect` and for trials: where it can only refuse, the way in
//! which it does tells whether something may be done. It asks for rights first, and only then for what is missing or wrong here.

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Queue};

use crate::source::Trouble;

use super::connection::Live;
use super::exchange::short;
use super::stream;
use super::words::{self, Refusal};

/// A key that stands for whatever clients may want of an exchange, or send to one.
pub(super) const KEY: &str = "passerelle.check";

/// Asks for an exchange; the default one is always there.
pub(super) async fn exchange(live: &Live, exchange: &str) -> lapin::Result<()> {
    if exchange.is_empty() {
        return Ok(());
    }
    let (channel, name) = (channel(live).await?, short(exchange).map_err(other)?);
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name, lapin::ExchangeKind::Topic, options, FieldTable::default()).await
}

/// Asks for a queue.
pub(super) async fn queue(live: &Live, queue: &str) -> lapin::Result<Queue> {
    let (channel, name) = (channel(live).await?, short(queue).map_err(other)?);
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name, options, FieldTable::default()).await
}

/// Whether what has this name is a stream; it has to be readable. From a queue nothing is taken, which refuses the offset.
pub(super) async fn is_stream(live: &Live, name: &str) -> lapin::Result<bool> {
    match stream::look(live, name).await {
        Ok(()) => Ok(true),
        Err(error) if words::is_of_a_queue(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a stream may be declared that is not there: asks for one that goes with the connection, which no stream can.
pub(super) async fn new_stream(live: &Live, name: &str) -> lapin::Result<()> {
    let (channel, name) = (channel(live).await?, short(name).map_err(other)?);
    let options = QueueDeclareOptions { durable: true, exclusive: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    match channel.queue_declare(name, options, arguments).await {
        Err(error) if words::refusal(&error) == Some(Refusal::Precondition) && !words::has_no_streams(&error) => Ok(()),
        asked => asked.map(drop),
    }
}

/// Whether queues may be bound to an exchange with this key, which has to be there: asks for a queue that is not, or that is
/// another connection's alone. What is bound for a moment only would take an exchange along that goes with its last binding.
pub(super) async fn bind(live: &Live, (exchange, key): (&str, &str), queue: &str) -> lapin::Result<()> {
    let channel = channel(live).await?;
    let [name, exchange, key] = [short(queue), short(exchange), short(key)];
    let (name, exchange, key) = (name.map_err(other)?, exchange.map_err(other)?, key.map_err(other)?);
    match channel.queue_bind(name, exchange, key, QueueBindOptions::default(), FieldTable::default()).await {
        Err(error) if is_not_found(&error) && words::quoted(&error).contains(queue) => Ok(()),
        Err(error) if words::refusal(&error) == Some(Refusal::Locked) => Ok(()),
        asked => asked,
    }
}

/// Whether messages may be published to an exchange, which has to be there: sends one that expires at no time that there is.
/// Topics that RabbitMQ forbids are another matter.
pub(super) async fn publish(live: &Live, exchange: &str) -> lapin::Result<()> {
    let (channel, exchange) = (channel(live).await?, short(exchange).map_err(other)?);
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let properties = AMQPProperties::default().with_expiration("never".into());
    let sent = channel.basic_publish(exchange, KEY.into(), BasicPublishOptions::default(), &[], properties).await;
    match sent?.await {
        Err(error) if words::quoted(&error).contains("invalid expiration") => Ok(()),
        Err(error) if words::is_about_topic(&error) => Ok(()),
        asked => asked.map(drop),
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    words::refusal(error) == Some(Refusal::NotFound)
}

/// A channel that may be closed for an answer.
pub(super) async fn channel(live: &Live) -> lapin::Result<Channel> {
    live.channel().await.map_err(other)
}

fn other(trouble: Trouble) -> lapin::Error {
    std::io::Error::other(trouble.0).into()
}
