//! Makes sure of a stream: that it is there, as it is configured, and bound to what fills it.

use lapin::Channel;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};

use crate::config::{Bindings, StreamInput, Supply};
use crate::source::Trouble;
use crate::source::amqp::Context;
use crate::source::amqp::connection::Live;
use crate::source::amqp::exchange::short;
use crate::source::amqp::receive;
use crate::source::amqp::words::{self, Refusal};

/// Segments that a stream's bytes are divided into: the stream drops whole ones only, so a finer division keeps closer to
/// the bound.
const SEGMENTS: u64 = 8;

/// Bytes of a segment at least and at most.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=500 << 20;

/// Makes sure that there is the stream, declares it if that is wanted, and binds it to the exchange that fills it. Whether it
/// is new, and so certainly empty.
///
/// # Errors
/// What is missing or refused, in words that name the key of `section`.
pub(in crate::source::amqp) async fn prepare(
    context: &Context,
    live: &Live,
    (input, section): (&StreamInput, &str),
) -> Result<bool, Trouble> {
    let failed = |error: lapin::Error| words::of_stream(&error, &input.stream, (&live.peer, section));
    // RabbitMQ 3.10 says that a stream is there a little before anybody can consume it, and ends the connection of who tries to
    // meanwhile.
    let alone = context.streams.lock().await;
    let mut channel = live.channel().await?;
    let mut is_new = false;
    match ask(&channel, input).await {
        Err(error) if input.declare && words::refusal(&error) == Some(Refusal::NotFound) => {
            channel = live.channel().await?;
            is_new = true;
        }
        asked => _ = asked.map_err(failed)?,
    }
    if input.declare {
        declare(live, &channel, input, section).await?;
    }
    drop(alone);
    match &input.supply {
        Supply::Others => {}
        Supply::Exchange { exchange, bindings } => {
            let bound = bind(&channel, input, exchange, &binding_keys(bindings)).await;
            bound.map_err(|error| words::of_exchange(&error, exchange, (&live.peer, section)))?;
        }
        Supply::Queue(_) => {
            let made = bind_own(&channel, input).await;
            made.map_err(|error| words::of_relay(&error, &input.stream, &live.peer))?;
        }
    }
    // It did what it was for.
    receive::close(&channel, "prepared").await;
    Ok(is_new)
}

/// Declares the stream.
///
/// # Errors
/// When it exists otherwise, or the broker does not let us; in words.
pub(in crate::source::amqp) async fn declare(
    live: &Live,
    channel: &Channel,
    input: &StreamInput,
    section: &str,
) -> Result<(), Trouble> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(short(&input.stream)?, options, retention(input)?).await;
    declared.map(drop).map_err(|error| words::of_stream(&error, &input.stream, (&live.peer, section)))
}

/// A broker with much to do may send nothing for long. Whoever took its stream for empty would take what it holds for new.
///
/// # Errors
/// When it is not empty, or the broker refuses to say; in words.
pub(super) async fn make_sure_it_is_empty(live: &Live, input: &StreamInput, section: &str) -> Result<(), Trouble> {
    let channel = live.channel().await?;
    let stream = &input.stream;
    let messages =
        ask(&channel, input).await.map_err(|error| words::of_stream(&error, stream, (&live.peer, section)))?;
    // It did what it was for.
    receive::close(&channel, "counted").await;
    if messages > 0 {
        return Err(Trouble(format!("stream '{stream}' holds messages and RabbitMQ sends none yet: trying again")));
    }
    Ok(())
}

/// Asks for the stream; how many messages the broker has counted in it, as of some seconds ago.
async fn ask(channel: &Channel, input: &StreamInput) -> lapin::Result<u32> {
    let options = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(input.stream.as_str().into(), options, FieldTable::default()).await;
    asked.map(|queue| queue.message_count())
}

async fn bind(channel: &Channel, input: &StreamInput, exchange: &str, keys: &[String]) -> lapin::Result<()> {
    for key in keys {
        let (queue, options) = (input.stream.as_str().into(), QueueBindOptions::default());
        channel.queue_bind(queue, exchange.into(), key.as_str().into(), options, FieldTable::default()).await?;
    }
    Ok(())
}

/// The exchange by whose way messages are moved into the stream: of the stream's name, and fanout, so that they keep their
/// topic as routing key.
async fn bind_own(channel: &Channel, input: &StreamInput) -> lapin::Result<()> {
    declare_own(channel, input).await?;
    bind(channel, input, &input.stream, &[String::new()]).await
}

/// Declares it.
pub(in crate::source::amqp) async fn declare_own(channel: &Channel, input: &StreamInput) -> lapin::Result<()> {
    let (exchange, kind) = (input.stream.as_str(), lapin::ExchangeKind::Fanout);
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(exchange.into(), kind, options, FieldTable::default()).await
}

/// The arguments of a stream that we declare.
fn retention(input: &StreamInput) -> Result<FieldTable, Trouble> {
    let whole = |number: u64| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    let segment = (input.retention_bytes / SEGMENTS).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
    let mut arguments = FieldTable::default();
    for (name, value) in [
        ("x-queue-type", text("stream")),
        ("x-max-age", text(&format!("{}s", input.retention_age.as_secs().max(1)))),
        ("x-max-length-bytes", whole(input.retention_bytes)),
        ("x-stream-max-segment-size-bytes", whole(segment)),
    ] {
        arguments.insert(short(name)?, value);
    }
    Ok(arguments)
}

/// The keys with which the stream is bound; fanout and headers exchanges do not look at them.
fn binding_keys(bindings: &Bindings) -> Vec<String> {
    match bindings {
        Bindings::List(patterns) => patterns.iter().map(ToString::to_string).collect(),
        Bindings::All | Bindings::OnDemand => vec!["#".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn segments_follow_the_retention_within_what_the_broker_takes() {
        let argument = |bytes| {
            let input = StreamInput { retention_bytes: bytes, ..StreamInput::new("s") };
            let arguments = retention(&input).unwrap();
            arguments.inner().get("x-stream-max-segment-size-bytes").cloned()
        };
        assert_eq!(argument(8 << 20), Some(AMQPValue::LongLongInt(1 << 20)));
        assert_eq!(argument(1), Some(AMQPValue::LongLongInt(64 << 10)));
        assert_eq!(argument(u64::MAX), Some(AMQPValue::LongLongInt(500 << 20)));
    }

    #[test]
    fn retention_by_age_is_told_in_seconds() {
        let input = StreamInput { retention_age: Duration::from_millis(1), ..StreamInput::new("s") };
        let arguments = retention(&input).unwrap();
        assert_eq!(arguments.inner().get("x-max-age"), Some(&AMQPValue::LongString(LongString::from("1s"))));
    }
}
