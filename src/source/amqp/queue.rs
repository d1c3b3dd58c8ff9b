//! A queue source: consumes an existing queue, or one that we declare. It takes messages away from whoever else consumes
//! that queue, so it makes sure that nobody does, unless it was told to share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::Channel;

use crate::config::{self, QueueInput, Rejected};
use crate::hub::feed::{Feed, Meanwhile};
use crate::model::gap::GapReason;
use crate::source::{Board, Source, Subject, Trouble};

use super::Context;
use super::connection::Live;
use super::exchange::short;
use super::intake::{Denial, Intake};
use super::mapping::Mapper;
use super::receive::{self, Complaints, Receiver};
use super::turn::{self, Turn};
use super::words;

/// The broker ends neither a connection nor what is on it in one moment: so long the rest may take after the first.
const LINGER: Duration = Duration::from_millis(500);

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
    /// A queue that this source alone asks for: while a connection that it lost lives on at the broker, it cannot be had. So
    /// what that connection still holds is not taken for another node's.
    mark: String,
    /// What became of its messages since it was last consumed here; nothing before that was ever so.
    meanwhile: Option<Meanwhile>,
    rejected: Rejected,
    mapper: Mapper,
    complaints: Complaints,
}

impl QueueSource {
    /// The source that is configured so.
    pub(crate) fn new(context: Arc<Context>, feed: Feed, source: &config::Source, input: &QueueInput) -> Self {
        feed.keeps_everything();
        let section = format!("source.{}", source.name);
        let config::Amqp { queue_prefix, node, .. } = &context.settings.amqp;
        Self {
            intake: Intake::new(input, &section, context.settings.amqp.prefetch),
            is_shared: input.shared,
            has_another_node: false,
            meanwhile: None,
            section,
            mark: format!("{queue_prefix}{node}.{}.{:016x}.mark", source.name, fastrand::u64(..)),
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
    async fn turn(&mut self, live: &Live, channel: &Channel) -> Result<Turn, Denial> {
        let consumers = self.intake.consumers(live, channel).await?;
        if !turn::hold(live, &short(&self.mark)?).await? {
            return Err(Denial::Other(words::is_held_by_us(self.intake.queue())));
        }
        if consumers == 0 || !self.has_another_node {
            let turn = self.take_turn(live).await?;
            self.has_another_node = turn.is_none();
            if let Some(turn) = turn {
                return Ok(turn);
            }
        }
        receive::close(channel, "another node's").await;
        Err(Denial::Elsewhere(words::has_another_node(self.intake.queue(), &self.section)))
    }

    /// Takes the turn, unless another node has it.
    async fn take_turn(&self, live: &Live) -> Result<Option<Turn>, Trouble> {
        let (prefix, queue) = (&self.context.settings.amqp.queue_prefix, self.intake.queue());
        let turn = Turn::take(live, prefix, queue).await?;
        if turn.is_none() && self.meanwhile.is_some() {
            tokio::time::sleep(LINGER).await;
            return Turn::take(live, prefix, queue).await;
        }
        Ok(turn)
    }

    /// Makes sure that no stranger consumes it.
    async fn alone(&self, live: &Live, channel: &Channel) -> Result<(), Denial> {
        let mut others = self.intake.consumers(live, channel).await?;
        if self.meanwhile.is_some() && !self.intake.bears(others) {
            tokio::time::sleep(LINGER).await;
            others = self.intake.consumers(live, channel).await?;
        }
        self.intake.refuse(channel, others).await
    }

    /// Consumes when it is this node's turn, until the stop or until something fails.
    async fn consume(&mut self, live: &Live, board: &Board) -> Result<(), Denial> {
        if self.meanwhile.is_some() && self.intake.is_to_be_made(live).await? {
            self.meanwhile = Some(Meanwhile::Lost);
        }
        let channel = live.channel().await?;
        if self.is_shared {
            return self.serve(live, channel, board).await;
        }
        let turn = self.turn(live, &channel).await?;
        let ended = self.serve(live, channel, board).await;
        turn.over(live).await;
        ended
    }

    /// The queue keeps what comes while it is not consumed, unless it was seen that it was gone or that others had it.
    fn stands(&mut self) {
        if self.meanwhile.replace(Meanwhile::Kept) == Some(Meanwhile::Lost) {
            self.feed.hole(GapReason::Outage, None);
        }
        self.feed.link_up_bound(Instant::now());
    }

    async fn serve(&mut self, live: &Live, channel: Channel, board: &Board) -> Result<(), Denial> {
        self.alone(live, &channel).await?;
        let (channel, deliveries) = self.intake.open(live, channel).await?;
        self.stands();
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
        let is_cancelled = ended.is_err() && is_left_standing(live, &channel).await;
        // Back to the queue goes what was sent ahead, before it is another node's turn.
        receive::close(&channel, "consumed").await;
        ended.map_err(|trouble| if is_cancelled { Denial::Elsewhere(trouble) } else { Denial::Other(trouble) })
    }
}

impl Source for QueueSource {
    type Link = Arc<Live>;

    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&mut self, live: &Arc<Live>, board: &Board) -> Result<(), Trouble> {
        let ended = self.consume(live, board).await;
        if let (Err(Denial::Elsewhere(_)), Some(meanwhile)) = (&ended, &mut self.meanwhile) {
            *meanwhile = Meanwhile::Lost;
        }
        Ok(ended?)
    }

    fn lost(&mut self) {
        self.feed.link_down(Meanwhile::Kept);
        self.context.metrics.source_unsettled(self.feed.info().id, 0);
    }
}

/// Whether a consumer ended alone, as when its queue is deleted: all else stands, and does so a moment later.
async fn is_left_standing(live: &Live, channel: &Channel) -> bool {
    if !channel.status().connected() {
        return false;
    }
    tokio::time::sleep(LINGER).await;
    live.is_alive() && channel.status().connected()
}
