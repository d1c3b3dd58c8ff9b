//! A queue source: consumes an existing queue, or one that we declare. It takes messages away from whoever else consumes
//! that queue, so it makes sure that nobody does, unless it was told to share.

use std::sync::Arc;
use std::time::Instant;

use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};

use crate::config::{self, QueueInput, Rejected};
use crate::hub::feed::{Feed, Meanwhile};
use crate::source::{Board, Source, Subject, Trouble};

use super::Context;
use super::connection::Live;
use super::exchange::short;
use super::mapping::Mapper;
use super::receive::{Complaints, Receiver};
use super::words::{self, Refusal};

/// See the module.
pub(crate) struct QueueSource {
    context: Arc<Context>,
    feed: Feed,
    name: String,
    section: String,
    input: QueueInput,
    rejected: Rejected,
    mapper: Mapper,
    complaints: Complaints,
}

impl QueueSource {
    /// The source that is configured so.
    pub(crate) fn new(context: Arc<Context>, feed: Feed, source: &config::Source, input: &QueueInput) -> Self {
        feed.keeps_everything();
        Self {
            context,
            feed,
            name: source.name.clone(),
            section: format!("source.{}", source.name),
            input: input.clone(),
            rejected: source.rejected,
            mapper: Mapper::new(source),
            complaints: Complaints::new(&source.name),
        }
    }

    /// Declares or checks the queue; answers how many consume it.
    async fn check_queue(&self, live: &Live, channel: &Channel, declare: bool) -> Result<u32, Trouble> {
        let options = QueueDeclareOptions { passive: !declare, durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        if declare && !self.input.shared {
            // Of several nodes one consumes at a time, and the next takes over when it goes.
            arguments.insert(short("x-single-active-consumer")?, AMQPValue::Boolean(true));
        }
        let declared = channel.queue_declare(short(&self.input.queue)?, options, arguments).await;
        declared.map(|queue| queue.consumer_count()).map_err(|error| self.trouble(live, &error))
    }

    fn refuse_consumers(&self, others: u32) -> Result<(), Trouble> {
        if others > 0 && !self.input.shared { Err(words::has_consumers(&self.input.queue, others)) } else { Ok(()) }
    }

    /// Starts consuming: exclusively where that can be had. A queue with a single active consumer refuses that, and a quorum
    /// queue accepts a second exclusive consumer without a word, so the count is looked at once more afterwards.
    async fn consume(&self, live: &Live, mut channel: Channel) -> Result<(Channel, Consumer), Trouble> {
        let exclusively = !self.input.shared && !self.input.declare;
        let mut consumed = self.consume_on(&channel, exclusively).await;
        if exclusively && consumed.as_ref().is_err_and(|error| words::refusal(error) == Some(Refusal::AccessRefused)) {
            channel = live.channel().await?;
            let others = self.check_queue(live, &channel, false).await?;
            self.refuse_consumers(others)?;
            consumed = self.consume_on(&channel, false).await;
        }
        let consumer = consumed.map_err(|error| self.trouble(live, &error))?;
        let all = self.check_queue(live, &channel, false).await?;
        self.refuse_consumers(all.saturating_sub(1))?;
        Ok((channel, consumer))
    }

    async fn consume_on(&self, channel: &Channel, exclusive: bool) -> lapin::Result<Consumer> {
        channel.basic_qos(self.context.settings.amqp.prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
        let (queue, tag) = (self.input.queue.as_str().into(), "messages".into());
        channel.basic_consume(queue, tag, options, FieldTable::default()).await
    }

    fn trouble(&self, live: &Live, error: &lapin::Error) -> Trouble {
        words::of_queue(error, &self.input.queue, (&live.peer, &self.section))
    }
}

impl Source for QueueSource {
    type Link = Arc<Live>;

    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&mut self, live: &Arc<Live>, board: &Board) -> Result<(), Trouble> {
        let channel = live.channel().await?;
        let others = self.check_queue(live, &channel, self.input.declare).await?;
        self.refuse_consumers(others)?;
        let (channel, deliveries) = self.consume(live, channel).await?;
        // The queue kept what came meanwhile, so nothing is lost and no hole is told.
        self.feed.link_up_bound(Instant::now());
        let queue = &self.input.queue;
        board.up(Subject::Source(self.name.clone()), format_args!("source '{}' consumes queue '{queue}'", self.name));
        let mut receiver = Receiver {
            channel: &channel,
            deliveries,
            drops: None,
            mapper: &mut self.mapper,
            feed: &self.feed,
            metrics: &self.context.metrics,
            rejected: self.rejected,
            complaints: &mut self.complaints,
            comes_again: true,
        };
        receiver.run(&self.context.sources_stop).await
    }

    fn lost(&mut self) {
        self.feed.link_down(Meanwhile::Kept);
        self.context.metrics.source_unsettled(self.feed.info().id, 0);
    }
}
