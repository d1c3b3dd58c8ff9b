//! `passerelle check --connect`: what is missing or dangerous at the broker, without changing anything there beyond queues
//! of our own that go with the connection. What is to be declared and exists is declared once more, which changes nothing
//! and tells whether it is the same.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use crate::config::{self, Consume, ExchangeInput, Input, QueueInput, Settings, StreamInput, Supply};
use crate::hub::interest::BindingMode;
use crate::model::delivery::QueueDeclaration;
use crate::source::Trouble;

use super::connection::{self, Live};
use super::exchange::short;
use super::intake::Intake;
use super::stream::declare as streams;
use super::turn::Turn;
use super::words::{self, Refusal};
use super::{consume, exchange, outbound, presence, probe};

/// How long the broker may take for any one question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The configuration's key or section that it is about.
    pub key: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Connects, and tells what would not work. Empty when everything that is looked at would.
pub async fn check(settings: &Settings) -> Vec<Finding> {
    let live = match connection::connect(&settings.amqp, "check").await {
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
        findings.extend(looked.err().map(|trouble| finding(&key, trouble)));
    }
    for (exchange, key) in outbound::exchanges(settings) {
        let looked = published_to(&live, settings, &exchange, &key).await;
        findings.extend(looked.err().map(|trouble| finding(&key, trouble)));
    }
    findings.extend(shared_presence(&live, settings).await.err().map(|trouble| finding(presence::KEY, trouble)));
    live.close().await;
    findings
}

fn finding(key: &str, trouble: Trouble) -> Finding {
    Finding { key: key.to_owned(), message: trouble.0 }
}

async fn within<T>(question: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    match tokio::time::timeout(QUESTION_TIMEOUT, question).await {
        Ok(answered) => answered,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// Nothing, where what was asked for is not there and passerelle declares it.
fn unless_declared<T>(asked: lapin::Result<T>, declare: bool) -> lapin::Result<Option<T>> {
    match asked {
        Err(error) if declare && words::refusal(&error) == Some(Refusal::NotFound) => Ok(None),
        asked => asked.map(Some),
    }
}

/// The exchange is there, is as it is to be, and a queue of ours can be declared and bound to it.
async fn exchange_source(
    live: &Live,
    settings: &Settings,
    (source, input): (&config::Source, &ExchangeInput),
    key: &str,
) -> Result<(), Trouble> {
    let asked = within(probe::exchange(live, &input.exchange)).await;
    let found = unless_declared(asked, input.declare);
    let found = found.map_err(|error| words::of_exchange(&error, &input.exchange, (&live.peer, key)))?;
    let queue = own_queue(live, settings).await?;
    if found.is_none() {
        return Ok(());
    }
    if input.declare {
        exchange::ensure(live, &live.channel().await?, input, key).await?;
    }
    bindings(live, (source, input), &format!("{queue}.none"), key).await
}

/// A queue of ours can be declared.
async fn own_queue(live: &Live, settings: &Settings) -> Result<String, Trouble> {
    let amqp = &settings.amqp;
    let queue = format!("{}{}.check.{:016x}", amqp.queue_prefix, amqp.node, fastrand::u64(..));
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let channel = live.channel().await?;
    let declared = within(channel.queue_declare(short(&queue)?, options, FieldTable::default())).await;
    declared.map_err(|error| words::of_own_queue(&error, &queue, &live.peer))?;
    Ok(queue)
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
    let BindingMode::Fixed(patterns) = exchange::binding_mode(source) else {
        let asked = within(probe::bind(live, (exchange, probe::KEY), missing)).await;
        return asked.or_else(|error| if words::is_about_topic(&error) { Ok(()) } else { Err(of_exchange(error)) });
    };
    for pattern in &patterns {
        within(probe::bind(live, (exchange, pattern.as_str()), missing)).await.map_err(of_exchange)?;
    }
    Ok(())
}

/// The queue is there, is one and as it is to be, may be consumed, and nobody else does.
async fn queue_source(live: &Live, settings: &Settings, input: &QueueInput, key: &str) -> Result<(), Trouble> {
    let trouble = |error: lapin::Error| words::of_queue(&error, &input.queue, (&live.peer, key));
    let asked = within(probe::queue(live, &input.queue)).await;
    let Some(queue) = unless_declared(asked, input.declare).map_err(trouble)? else { return Ok(()) };
    if within(probe::is_stream(live, &input.queue)).await.map_err(trouble)? {
        return Err(words::not_a_queue(&input.queue, key));
    }
    if input.declare {
        Intake::new(input, key, settings.amqp.prefetch).consumers(live, &live.channel().await?).await?;
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

/// The stream is there, is one and as it is to be, or can be made; and so is the exchange that it is bound to.
async fn stream_source(live: &Live, (input, supply): (&StreamInput, &Supply), key: &str) -> Result<(), Trouble> {
    if let Supply::Exchange { exchange, .. } = supply {
        let asked = within(probe::exchange(live, exchange)).await;
        asked.map_err(|error| words::of_exchange(&error, exchange, (&live.peer, key)))?;
    }
    let trouble = |error: lapin::Error| words::of_stream(&error, &input.stream, (&live.peer, key));
    let looked = within(probe::is_stream(live, &input.stream)).await;
    match unless_declared(looked, input.declare).map_err(trouble)? {
        Some(false) => Err(words::not_a_stream(&input.stream)),
        Some(true) if input.declare => streams::declare(live, &live.channel().await?, input, key).await,
        Some(true) => Ok(()),
        None => within(probe::new_stream(live, &input.stream)).await.map_err(trouble),
    }
}

/// The queue is there, and if anybody consumes it, that is another node; the stream is one, or can be made, and so is the
/// exchange of its name.
async fn relay(
    live: &Live,
    settings: &Settings,
    (queue, input): (&QueueInput, &StreamInput),
    key: &str,
) -> Result<(), Trouble> {
    if let Some(turn) = Turn::take(live, &settings.amqp.queue_prefix, &queue.queue).await? {
        let looked = queue_source(live, settings, queue, key).await;
        turn.over(live).await;
        looked?;
    }
    stream_source(live, (input, &input.supply), key).await?;
    let trouble = |error: lapin::Error| words::of_relay(&error, &input.stream, &live.peer);
    let asked = within(probe::exchange(live, &input.stream)).await;
    match unless_declared(asked, true).map_err(trouble)? {
        Some(()) => within(streams::declare_own(&live.channel().await?, input)).await.map_err(trouble),
        None => Ok(()),
    }
}

/// The queue is there, is one and as it is to be, and may be consumed, where it is one for all.
async fn consumed_queue(live: &Live, consumed: &Consume, section: &str) -> Result<(), Trouble> {
    let Ok(queue) = consumed.queue.render(None) else { return Ok(()) };
    let queue = queue.as_str();
    let trouble = |error: lapin::Error| Trouble(words::of_consumed(&error, queue, (&live.peer, section)));
    let asked = within(probe::queue(live, queue)).await;
    if unless_declared(asked, consumed.declare).map_err(trouble)?.is_none() {
        return Ok(());
    }
    if within(probe::is_stream(live, queue)).await.map_err(trouble)? {
        return Err(Trouble(words::not_consumed(queue, section)));
    }
    if consumed.declare {
        let declaration = QueueDeclaration { expires: consumed.expires };
        within(consume::declare(&live.channel().await?, queue, declaration)).await.map_err(trouble)?;
    }
    Ok(())
}

/// The exchange is there, and if clients may publish, so may we.
async fn published_to(live: &Live, settings: &Settings, exchange: &str, key: &str) -> Result<(), Trouble> {
    let trouble = |error: lapin::Error| words::of_publish(&error, exchange, (&live.peer, key));
    let found = unless_declared(within(probe::exchange(live, exchange)).await, is_declared(settings, exchange));
    let is_there = found.map_err(trouble)?.is_some() && !exchange.is_empty();
    if is_there && settings.auth.anonymous_publish == Some(true) {
        within(probe::publish(live, exchange)).await.map_err(trouble)?;
    }
    Ok(())
}

/// Whether a source declares it.
fn is_declared(settings: &Settings, exchange: &str) -> bool {
    settings.sources.iter().any(|source| match &source.input {
        Input::Exchange(input) => input.declare && input.exchange == exchange,
        Input::Queue(_) | Input::Stream(_) => false,
    })
}

/// The exchange through which nodes share presence is the right one, or is not there yet.
async fn shared_presence(live: &Live, settings: &Settings) -> Result<(), Trouble> {
    let exchange = settings.amqp.presence_exchange.as_str();
    if settings.presences.0.is_empty() || exchange.is_empty() {
        return Ok(());
    }
    let asked = within(probe::exchange(live, exchange)).await;
    let found = unless_declared(asked, true);
    match found.map_err(|error| words::of_presence(&error, exchange, (&live.peer, presence::KEY)))? {
        Some(()) => presence::declare(live, &live.channel().await?, &short(exchange)?).await,
        None => Ok(()),
    }
}
