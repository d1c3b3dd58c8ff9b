//! An exchange source: one exclusive queue of ours, bound to what this node's sessions want.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Consumer};

use crate::config::{self, Bindings, ExchangeInput, ExchangeKind, Rejected};
use crate::hub::feed::{Feed, Meanwhile};
use crate::hub::interest::{BindingKind, BindingMode};
use crate::model::topic::{Pattern, Topic};
use crate::source::{Board, Source, Subject, Trouble};

use super::Context;
use super::binder::{Binder, Target};
use super::connection::{ANSWER_TIMEOUT, Live};
use super::mapping::Mapper;
use super::receive::{CANCEL_TIMEOUT, Complaints, Drops, Receiver};
use super::words;

/// Drops that the broker sends ahead before we acknowledge any: so many bodies may have to be held here.
const DROPS_PREFETCH: u16 = 1_000;

/// The least that the queue of drops holds. It holds an eighth of what the source's own queue does, if that is more.
const DROPS_BYTES_MIN: usize = 1 << 20;

/// See the module.
pub(crate) struct ExchangeSource {
    context: Arc<Context>,
    feed: Feed,
    name: String,
    section: String,
    input: ExchangeInput,
    has_template: bool,
    mapper: Mapper,
    complaints: Complaints,
}

impl ExchangeSource {
    /// The source that is configured so.
    pub(crate) fn new(context: Arc<Context>, feed: Feed, source: &config::Source, input: &ExchangeInput) -> Self {
        Self {
            context,
            feed,
            name: source.name.clone(),
            section: format!("source.{}", source.name),
            input: input.clone(),
            has_template: source.topic.is_some(),
            mapper: Mapper::new(source),
            complaints: Complaints::new(&source.name),
        }
    }

    /// Names for the three queues that nobody else has.
    fn queues(&self) -> Result<Queues, Trouble> {
        let config::Amqp { queue_prefix, node, .. } = &self.context.settings.amqp;
        let main = format!("{queue_prefix}{node}.{}.{:016x}", self.name, fastrand::u64(..));
        let (drops, uncounted) = (short(&format!("{main}.dropped"))?, short(&format!("{main}.uncounted"))?);
        let drops_bytes_max = (self.input.queue_bytes_max / 8).max(DROPS_BYTES_MIN);
        Ok(Queues { main: short(&main)?, drops, uncounted, drops_bytes_max })
    }

    async fn declare_queues(&self, live: &Live, channel: &Channel, queues: &Queues) -> Result<(), Trouble> {
        let Queues { main, drops, uncounted, drops_bytes_max } = queues;
        let mut arguments = FieldTable::default();
        // One is enough to tell that there were any.
        arguments.insert(short("x-max-length")?, AMQPValue::LongInt(1));
        declare(live, channel, uncounted.as_str(), arguments).await?;
        declare(live, channel, drops.as_str(), dropping(*drops_bytes_max, uncounted)).await?;
        declare(live, channel, main.as_str(), dropping(self.input.queue_bytes_max, drops)).await
    }

    async fn consume(&self, live: &Live, channel: &Channel, queues: &Queues) -> Result<(Consumer, Drops), Trouble> {
        let failed = |error: lapin::Error| words::of_own_queue(&error, queues.main.as_str(), &live.peer);
        let open = async |queue: &ShortString, tag: &str, prefetch| {
            // It holds for the consumers that start after it.
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let (options, nothing) = (BasicConsumeOptions::default(), FieldTable::default());
            channel.basic_consume(queue.clone(), tag.into(), options, nothing).await
        };
        let uncounted = open(&queues.uncounted, "uncounted", 1).await.map_err(failed)?;
        let drops = open(&queues.drops, "dropped", DROPS_PREFETCH).await.map_err(failed)?;
        let main = open(&queues.main, "messages", self.context.settings.amqp.prefetch).await.map_err(failed)?;
        Ok((main, Drops::new(drops, uncounted)))
    }

    /// Receives through these queues until the stop (`Ok`) or until something fails.
    async fn serve(
        &mut self,
        live: &Arc<Live>,
        (channel, queues): (&Channel, &Queues),
        board: &Board,
    ) -> Result<(), Trouble> {
        self.declare_queues(live, channel, queues).await?;
        // Copies that the binder may hold while the receiver changes what is ours.
        let (context, feed) = (self.context.clone(), self.feed.clone());
        let target = Target {
            queue: queues.main.clone(),
            exchange: short(&self.input.exchange)?,
            section: self.section.clone(),
            topic_of_empty_key: Topic::parse(&self.name)
                .ok()
                .filter(|_| !self.has_template && !feed.interest().is_fixed()),
        };
        let mut binder = Binder::new(live, &feed, &context, target).await?;
        binder.begin().await?;
        let (deliveries, drops) = self.consume(live, channel, queues).await?;
        feed.link_up();
        let exchange = &self.input.exchange;
        board.up(Subject::Source(self.name.clone()), format!("source '{}' reads exchange '{exchange}'", self.name));
        let mut receiver = Receiver {
            channel,
            deliveries,
            drops: Some(drops),
            mapper: &mut self.mapper,
            feed: &feed,
            metrics: &context.metrics,
            // Our queue dead-letters nowhere but to the queue of drops, so there is nothing to choose here.
            rejected: Rejected::Acknowledge,
            complaints: &mut self.complaints,
            comes_again: false,
        };
        tokio::select! {
            ended = receiver.run(&context.sources_stop) => ended,
            ended = binder.run() => ended,
        }
    }
}

impl Source for ExchangeSource {
    type Link = Arc<Live>;

    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&mut self, live: &Arc<Live>, board: &Board) -> Result<(), Trouble> {
        let channel = live.channel().await?;
        ensure(live, &channel, &self.input, &self.section).await?;
        let queues = self.queues()?;
        let ended = self.serve(live, (&channel, &queues), board).await;
        delete(live, &[&queues.main, &queues.drops, &queues.uncounted], patience(&ended)).await;
        ended
    }

    fn lost(&mut self) {
        self.feed.link_down(Meanwhile::Lost);
        self.context.metrics.bindings(self.feed.info().id, 0);
        self.context.metrics.source_unsettled(self.feed.info().id, 0);
    }
}

/// The names of a source's three queues.
struct Queues {
    main: ShortString,
    /// Has what the main one had to drop, to be counted.
    drops: ShortString,
    /// Has one message when that one had to drop some in turn, for its own limit or because of an operator's policy.
    uncounted: ShortString,
    drops_bytes_max: usize,
}

/// Makes sure that the exchange exists, and declares it where that is configured.
///
/// # Errors
/// When it does not exist, exists otherwise, or the broker does not let us; in words.
pub(super) async fn ensure(
    live: &Live,
    channel: &Channel,
    input: &ExchangeInput,
    section: &str,
) -> Result<(), Trouble> {
    let options =
        ExchangeDeclareOptions { passive: !input.declare, durable: true, ..ExchangeDeclareOptions::default() };
    let name = short(&input.exchange)?;
    let declared = channel.exchange_declare(name, kind(input.kind), options, FieldTable::default()).await;
    declared.map_err(|error| words::of_exchange(&error, &input.exchange, (&live.peer, section)))
}

async fn declare(live: &Live, channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), Trouble> {
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(short(name)?, options, arguments).await;
    declared.map(|_| ()).map_err(|error| words::of_own_queue(&error, name, &live.peer))
}

/// How long the queues of what has ended may take to be deleted: a stop waits for nobody, and what was made in vain is tried
/// again, so that it must not stay beside its successor.
pub(crate) const fn patience(ended: &Result<(), Trouble>) -> Duration {
    if ended.is_ok() { CANCEL_TIMEOUT } else { ANSWER_TIMEOUT }
}

/// Deletes queues of ours that nobody reads any more, or that were not even declared. They would live as long as the
/// connection, and if that stands they would fill.
pub(crate) async fn delete(live: &Live, queues: &[&ShortString], patience: Duration) {
    if !live.is_alive() {
        return;
    }
    let deleted = async {
        // The channel on which they were used may be gone.
        let channel = live.channel().await.ok()?;
        for queue in queues {
            channel.queue_delete((*queue).clone(), QueueDeleteOptions::default()).await.ok()?;
        }
        channel.close(200, "deleted".into()).await.ok()
    };
    // They go with the connection in any case.
    let _ = tokio::time::timeout(patience, deleted).await;
}

/// The broker keeps so many bytes and drops the oldest of what is more.
pub(crate) fn limits(bytes_max: usize) -> FieldTable {
    let mut arguments = FieldTable::default();
    let bytes_max = AMQPValue::LongLongInt(i64::try_from(bytes_max).unwrap_or(i64::MAX));
    for (name, value) in
        [("x-max-length-bytes", bytes_max), ("x-overflow", AMQPValue::LongString(LongString::from("drop-head")))]
    {
        if let Ok(name) = ShortString::try_new(name) {
            arguments.insert(name, value);
        }
    }
    arguments
}

/// Likewise, and what is dropped goes into another queue.
fn dropping(bytes_max: usize, into: &ShortString) -> FieldTable {
    let mut arguments = limits(bytes_max);
    for (name, value) in [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", into.as_str())] {
        arguments.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    }
    arguments
}

/// A name as AMQP carries it.
///
/// # Errors
/// When it is too long for that.
pub(crate) fn short(name: &str) -> Result<ShortString, Trouble> {
    ShortString::try_new(name)
        .map_err(|_| Trouble(format!("the name '{name}' is longer than the 255 bytes that AMQP allows")))
}

fn kind(kind: ExchangeKind) -> lapin::ExchangeKind {
    match kind {
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
        ExchangeKind::Headers => lapin::ExchangeKind::Headers,
    }
}

/// How the hub is to plan this source's bindings. Where the topic is not the routing key, what sessions want says nothing
/// about what to bind, so everything is; fanout and headers exchanges are bound once whatever is wanted.
pub(super) fn binding_mode(source: &config::Source) -> BindingMode {
    let everything = || BindingMode::Fixed(vec![Pattern::all()]);
    let config::Input::Exchange(input) = &source.input else { return everything() };
    let on_demand = |kind| BindingMode::OnDemand {
        kind,
        linger: input.linger.max(Duration::ZERO),
        // One is for the empty key, which the binder binds beside a pattern that means its topic.
        bindings_max: input.bindings_max.saturating_sub(1).max(1),
    };
    match (&input.bindings, input.kind) {
        (Bindings::List(patterns), _) => BindingMode::Fixed(patterns.clone()),
        (Bindings::OnDemand, ExchangeKind::Topic) if source.topic.is_none() => on_demand(BindingKind::Topic),
        (Bindings::OnDemand, ExchangeKind::Direct) if source.topic.is_none() => on_demand(BindingKind::Direct),
        _ => everything(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TemplatePart, TopicTemplate};

    fn source(kind: ExchangeKind, bindings: Bindings) -> config::Source {
        let input = ExchangeInput { kind, bindings, ..ExchangeInput::new("x") };
        config::Source { input: config::Input::Exchange(input), ..config::Source::events() }
    }

    #[test]
    fn demand_decides_only_where_the_topic_is_the_routing_key() {
        let everything = BindingMode::Fixed(vec![Pattern::all()]);
        let mut topic = source(ExchangeKind::Topic, Bindings::OnDemand);
        assert!(matches!(binding_mode(&topic), BindingMode::OnDemand { kind: BindingKind::Topic, .. }));
        topic.topic = Some(TopicTemplate(vec![TemplatePart::Source]));
        assert_eq!(binding_mode(&topic), everything);
        let direct = source(ExchangeKind::Direct, Bindings::OnDemand);
        assert!(matches!(binding_mode(&direct), BindingMode::OnDemand { kind: BindingKind::Direct, .. }));
        for kind in [ExchangeKind::Fanout, ExchangeKind::Headers] {
            assert_eq!(binding_mode(&source(kind, Bindings::OnDemand)), everything);
        }
        let list = vec![Pattern::parse("a.*").unwrap()];
        let listed = source(ExchangeKind::Direct, Bindings::List(list.clone()));
        assert_eq!(binding_mode(&listed), BindingMode::Fixed(list));
    }
}
