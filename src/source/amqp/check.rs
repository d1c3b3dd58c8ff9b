//! `passerelle check --connect`: what is missing or dangerous at the broker, without changing anything there beyond one
//! queue of our own that goes with the connection.

use std::sync::Arc;
use std::time::Duration;

use lapin::Queue;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use crate::config::{self, Consume, ExchangeInput, Input, QueueInput, Settings, StreamInput, Supply};
use crate::hub::interest::BindingMode;
use crate::metrics::BrokerLink;
use crate::source::Trouble;

use super::connection::{self, Live};
use super::exchange::{binding_mode, short};
use super::outbound;
use super::probe;
use super::stream;
use super::turn::Turn;
use super::words::{self, Refusal};

/// How long the broker may take for any one question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A key that stands for whatever clients may want of an exchange.
const ANY_KEY: &str = "passerelle.check";

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The configuration's key or section that it is about.
    pub key: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Connects, and tells what would not work. Empty when everything would.
pub async fn check(settings: &Settings) -> Vec<Finding> {
    let live = match connection::connect(&settings.amqp, BrokerLink::Consume).await {
        Ok(live) => Arc::new(live),
        Err(trouble) => return vec![finding("amqp.url", trouble)],
    };
    let mut findings = Vec::new();
    for source in &settings.sources {
        let key = format!("source.{}", source.name);
        let looked = match &source.input {
            Input::Exchange(input) => exchange_source(&live, settings, (source, input), &key).await,
            Input::Queue(input) => queue_source(&live, settings, input, &key).await,
            Input::Stream(input) => match &input.supply {
                Supply::Queue(queue) => relay(&live, settings, (queue, input), &key).await,
                supply => stream_source(&live, (input, supply), &key).await,
            },
        };
        findings.extend(looked.err().map(|trouble| finding(&key, trouble)));
    }
    for consume in &settings.consume {
        let key = format!("consume.{}", consume.name);
        let looked = consumed_queue(&live, consume, &key).await;
        findings.extend(looked.err().map(|message| Finding { key, message }));
    }
    for (exchange, key) in outbound::exchanges(settings) {
        if is_declared_by_a_source(settings, &exchange) {
            continue;
        }
        if let Err(error) = passive_exchange(&live, &exchange).await {
            let vhost = &live.peer.vhost;
            let message = match words::refusal(&error) {
                Some(Refusal::NotFound) => {
                    format!("exchange '{exchange}' does not exist on vhost '{vhost}': create it or correct {key}")
                }
                _ => format!("exchange '{exchange}' on vhost '{vhost}': {}", words::quoted(&error)),
            };
            findings.push(Finding { key, message });
        }
    }
    live.close().await;
    findings
}

fn finding(key: &str, trouble: Trouble) -> Finding {
    Finding { key: key.to_owned(), message: trouble.0 }
}

fn is_declared_by_a_source(settings: &Settings, exchange: &str) -> bool {
    settings.sources.iter().any(|source| match &source.input {
        Input::Exchange(input) => input.declare && input.exchange == exchange,
        Input::Queue(_) | Input::Stream(_) => false,
    })
}

/// Asks for an exchange; the default one is always there.
async fn passive_exchange(live: &Live, exchange: &str) -> lapin::Result<()> {
    if exchange.is_empty() {
        return Ok(());
    }
    let answered = within(async {
        let channel = live.channel().await.map_err(other)?;
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let name = short(exchange).map_err(other)?;
        channel.exchange_declare(name, lapin::ExchangeKind::Topic, options, FieldTable::default()).await
    });
    answered.await
}

async fn within<T>(question: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    match tokio::time::timeout(QUESTION_TIMEOUT, question).await {
        Ok(answered) => answered,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

fn other(trouble: Trouble) -> lapin::Error {
    std::io::Error::other(trouble.0).into()
}

/// The exchange is there, and a queue of ours can be declared and bound to it.
async fn exchange_source(
    live: &Live,
    settings: &Settings,
    (source, input): (&config::Source, &ExchangeInput),
    key: &str,
) -> Result<(), Trouble> {
    let exchange = &input.exchange;
    let declares_it = match passive_exchange(live, exchange).await {
        Ok(()) => false,
        Err(error) if input.declare && words::refusal(&error) == Some(Refusal::NotFound) => true,
        Err(error) => return Err(words::of_exchange(&error, exchange, (&live.peer, key))),
    };
    let amqp = &settings.amqp;
    let queue = format!("{}{}.check.{:016x}", amqp.queue_prefix, amqp.node, fastrand::u64(..));
    let channel = live.channel().await?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let declared = within(channel.queue_declare(short(&queue)?, options, FieldTable::default())).await;
    declared.map_err(|error| words::of_own_queue(&error, &queue, &live.peer))?;
    if declares_it {
        return Ok(());
    }
    bindings(live, (source, input), &format!("{queue}.none"), key).await
}

/// Queues of ours may be bound with what the source binds. Where that is up to clients, some topics may be forbidden.
async fn bindings(
    live: &Live,
    (source, input): (&config::Source, &ExchangeInput),
    missing: &str,
    key: &str,
) -> Result<(), Trouble> {
    let exchange = input.exchange.as_str();
    let of_exchange = |error: lapin::Error| words::of_exchange(&error, exchange, (&live.peer, key));
    let BindingMode::Fixed(patterns) = binding_mode(source) else {
        let asked = within(probe::bind(live, (exchange, ANY_KEY), missing)).await;
        return asked.or_else(|error| if words::is_about_topic(&error) { Ok(()) } else { Err(of_exchange(error)) });
    };
    for pattern in &patterns {
        within(probe::bind(live, (exchange, pattern.as_str()), missing)).await.map_err(of_exchange)?;
    }
    Ok(())
}

/// The queue is there, is one, may be consumed, and nobody else does.
async fn queue_source(live: &Live, settings: &Settings, input: &QueueInput, key: &str) -> Result<(), Trouble> {
    let trouble = |error: lapin::Error| words::of_queue(&error, &input.queue, (&live.peer, key));
    let Some(queue) = passive_queue(live, &input.queue, input.declare).await.map_err(trouble)? else { return Ok(()) };
    if is_stream(live, &input.queue).await.map_err(trouble)? {
        return Err(words::not_a_queue(&input.queue, key));
    }
    if queue.consumer_count() == 0 || input.shared {
        return Ok(());
    }
    match Turn::take(live, &settings.amqp.queue_prefix, &input.queue).await? {
        None => Err(words::has_another_node(&input.queue, key)),
        Some(turn) => {
            turn.over(live).await;
            Err(words::has_consumers(&input.queue, queue.consumer_count()))
        }
    }
}

/// Asks for a queue; nothing when it is not there, and that is right because it is declared on demand.
async fn passive_queue(live: &Live, queue: &str, declare: bool) -> lapin::Result<Option<Queue>> {
    let asked = within(async {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let (channel, name) = (live.channel().await.map_err(other)?, short(queue).map_err(other)?);
        channel.queue_declare(name, options, FieldTable::default()).await
    });
    match asked.await {
        Err(error) if declare && words::refusal(&error) == Some(Refusal::NotFound) => Ok(None),
        asked => asked.map(Some),
    }
}

/// Whether what has this name is a stream. To tell, it has to be readable; from a queue nothing is taken.
async fn is_stream(live: &Live, name: &str) -> lapin::Result<bool> {
    match within(stream::look(live, name)).await {
        Ok(()) => Ok(true),
        Err(error) if words::is_of_a_queue(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The stream is there and is one, and so is the exchange that it is bound to.
async fn stream_source(live: &Arc<Live>, (input, supply): (&StreamInput, &Supply), key: &str) -> Result<(), Trouble> {
    if let Supply::Exchange { exchange, .. } = supply {
        let asked = passive_exchange(live, exchange).await;
        asked.map_err(|error| words::of_exchange(&error, exchange, (&live.peer, key)))?;
    }
    let asked = within(stream::look(live, &input.stream)).await;
    match asked {
        Ok(()) => Ok(()),
        Err(error) if input.declare && words::refusal(&error) == Some(Refusal::NotFound) => Ok(()),
        Err(error) => Err(words::of_stream(&error, &input.stream, (&live.peer, key))),
    }
}

/// The queue is there, and if anybody consumes it, that is another node; the stream is one, or can be made.
async fn relay(
    live: &Arc<Live>,
    settings: &Settings,
    (queue, input): (&QueueInput, &StreamInput),
    key: &str,
) -> Result<(), Trouble> {
    let Some(turn) = Turn::take(live, &settings.amqp.queue_prefix, &queue.queue).await? else {
        return stream_source(live, (input, &input.supply), key).await;
    };
    let looked = queue_source(live, settings, queue, key).await;
    turn.over(live).await;
    looked?;
    stream_source(live, (input, &input.supply), key).await
}

/// The queue is there, is one and may be consumed, where it is one for all.
async fn consumed_queue(live: &Live, consume: &Consume, section: &str) -> Result<(), String> {
    let Ok(queue) = consume.queue.render(None) else { return Ok(()) };
    let queue = queue.as_str();
    let sentence = |error: lapin::Error| words::of_consumed(&error, queue, (&live.peer, section));
    if passive_queue(live, queue, consume.declare).await.map_err(sentence)?.is_none() {
        return Ok(());
    }
    if is_stream(live, queue).await.map_err(sentence)? {
        return Err(words::not_consumed(queue, section));
    }
    Ok(())
}
