//! A queue source: consumes an existing queue, or one that we declare. It takes messages away from whoever else consumes
//! that queue, so it makes sure that nobody does, unless it was told to share.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, QueueInput, Rejected};
use crate::hub::feed::{Feed, Meanwhile};
use crate::source::{Board, Source, Subject, Trouble};

use super::Context;
use super::connection::Live;
use super::intake::Intake;
use super::mapping::Mapper;
use super::receive::{Complaints, Receiver};

/// See the module.
pub(crate) struct QueueSource {
    context: Arc<Context>,
    feed: Feed,
    name: String,
    intake: Intake,
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
            context,
            feed,
            name: source.name.clone(),
            rejected: source.rejected,
            mapper: Mapper::new(source),
            complaints: Complaints::new(&source.name),
        }
    }
}

impl Source for QueueSource {
    type Link = Arc<Live>;

    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&mut self, live: &Arc<Live>, board: &Board) -> Result<(), Trouble> {
        let channel = live.channel().await?;
        let others = self.intake.consumers(live, &channel).await?;
        self.intake.refuse(others)?;
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
        receiver.run(&self.context.sources_stop).await
    }

    fn lost(&mut self) {
        self.feed.link_down(Meanwhile::Kept);
        self.context.metrics.source_unsettled(self.feed.info().id, 0);
    }
}
