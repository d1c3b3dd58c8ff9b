//! A queue source: consumes an existing queue, or one that we declare. It takes messages away from whoever else consumes
//! that queue, so it makes sure that nobody does, unless it was told to share.

use std::sync::Arc;
use std::time::Instant;

use lapin::Channel;

use crate::config::{self, QueueInput, Rejected};
use crate::hub::feed::{Feed, Meanwhile};
use crate::source::{Board, Source, Subject, Trouble};

use super::Context;
use super::connection::Live;
use super::intake::Intake;
use super::mapping::Mapper;
use super::receive::{self, Complaints, Receiver};
use super::turn::Turn;
use super::words;

/// See the module.
pub(crate) struct QueueSource {
    context: Arc<Context>,
    feed: Feed,
    name: String,
    section: String,
    intake: Intake,
    /// Whether passerelle shares the messages with others.
    is_shared: bool,
    /// Whether another node was found to consume it, for as long as anybody does.
    has_another_node: bool,
    rejected: Rejected,
    mapper: Mapper,
    complaints: Complaints,
}

impl QueueSource {
    /// The source that is configured so.
    pub(crate) fn new(context: Arc<Context>, feed: Feed, source: &config::Source, input: &QueueInput) -> Self {
        feed.keeps_everything();
        let section = format!("source.{}", source.name);
        Self {
            intake: Intake::new(input, &section, context.settings.amqp.prefetch),
            is_shared: input.shared,
            has_another_node: false,
            section,
            context,
            feed,
            name: source.name.clone(),
            rejected: source.rejected,
            mapper: Mapper::new(source),
            complaints: Complaints::new(&source.name),
        }
    }

    /// Makes this node the one that consumes. Who waits for another node asks for that once, not with each try: a refusal is
    /// an error in the broker's log.
    async fn turn(&mut self, live: &Live, channel: &Channel) -> Result<Turn, Trouble> {
        let consumers = self.intake.consumers(live, channel).await?;
        if consumers == 0 || !self.has_another_node {
            let prefix = &self.context.settings.amqp.queue_prefix;
            let turn = Turn::take(live, prefix, self.intake.queue()).await?;
            self.has_another_node = turn.is_none();
            if let Some(turn) = turn {
                return Ok(turn);
            }
        }
        receive::close(channel, "another node's").await;
        Err(words::has_another_node(self.intake.queue(), &self.section))
    }

    async fn serve(&mut self, live: &Live, channel: Channel, board: &Board) -> Result<(), Trouble> {
        let others = self.intake.consumers(live, &channel).await?;
        self.intake.refuse(&channel, others).await?;
        let (channel, deliveries) = self.intake.open(live, channel).await?;
        // The queue kept what came meanwhile, so nothing is lost and no hole is told.
        self.feed.link_up_bound(Instant::now());
        let queue = self.intake.queue();
        board.up(Subject::Source(self.name.clone()), format!("source '{}' consumes queue '{queue}'", self.name));
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
        let ended = receiver.run(&self.context.sources_stop).await;
        // Back to the queue goes what was sent ahead, before it is another node's turn.
        receive::close(&channel, "consumed").await;
        ended
    }
}

impl Source for QueueSource {
    type Link = Arc<Live>;

    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&mut self, live: &Arc<Live>, board: &Board) -> Result<(), Trouble> {
        let channel = live.channel().await?;
        if self.is_shared {
            return self.serve(live, channel, board).await;
        }
        let turn = self.turn(live, &channel).await?;
        let ended = self.serve(live, channel, board).await;
        turn.over(live).await;
        ended
    }

    fn lost(&mut self) {
        self.feed.link_down(Meanwhile::Kept);
        self.context.metrics.source_unsettled(self.feed.info().id, 0);
    }
}
