//! Taking deliveries: everything that is ready, up to a bound, is mapped, appended to the feed in one go and acknowledged
//! with one frame. What the broker had to drop because we were slow comes over a second queue and is told as a hole at its
//! place: all consumers share a channel, so delivery tags say what came before what, as long as all drops are taken
//! before more messages are let come. That queue may have had to drop some of them in turn: a third one tells that.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicRejectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use tokio_util::sync::CancellationToken;

use crate::config::Rejected;
use crate::hub::feed::Feed;
use crate::metrics::{Metrics, Rejection};
use crate::model::gap::GapReason;
use crate::model::publication::{Draft, UnixMillis};
use crate::source::Trouble;

use super::connection::ANSWER_TIMEOUT;
use super::mapping::Mapper;
use super::words;

/// Deliveries that are taken, appended and acknowledged together at most.
pub(crate) const BATCH_MAX: usize = 250;

/// Between two acknowledgements that are no further apart than this the broker hardly drops more than it sends ahead.
const PAUSE: Duration = Duration::from_millis(100);

/// Rounds of letting drops through before messages are; publishers who are faster must not delay those for ever.
const ROUNDS_MAX: usize = 1_000;

/// How long the broker may take to confirm that a consumer was cancelled.
pub(crate) const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// What one source does with its deliveries, whatever kind of source it is.
pub(crate) struct Receiver<'a> {
    /// Where they are settled.
    pub(crate) channel: &'a Channel,
    /// Where they come from.
    pub(crate) deliveries: Consumer,
    /// Where the broker tells what it dropped, on the same channel.
    pub(crate) drops: Option<Drops>,
    /// Makes drafts of them.
    pub(crate) mapper: &'a mut Mapper,
    /// Where they go.
    pub(crate) feed: &'a Feed,
    /// Counts them.
    pub(crate) metrics: &'a Metrics,
    /// What becomes of those that cannot be mapped.
    pub(crate) rejected: Rejected,
    /// Counts and logs those.
    pub(crate) complaints: &'a mut Complaints,
    /// Whether what is not acknowledged comes again: then nothing is taken that can no longer be acknowledged.
    pub(crate) comes_again: bool,
}

/// The consumers of what the broker dropped.
pub(crate) struct Drops {
    consumer: Consumer,
    /// Brings one message where the queue of drops did not keep all of them.
    uncounted: Consumer,
    /// Dropped messages whose place among the deliveries is not reached yet, in order.
    pending: VecDeque<Dropped>,
    /// When anything was acknowledged last.
    settled: Option<Instant>,
}

/// What is kept of a message that the broker had to drop.
struct Dropped {
    tag: u64,
    /// Nothing once it is acknowledged.
    acker: Option<Acker>,
    /// How many messages it stands for, when that is known.
    count: Option<u64>,
}

/// One delivery or one drop, in the order of their tags.
#[expect(clippy::large_enum_variant, reason = "messages are the rule and drops the exception")]
enum Taken {
    Message(Delivery),
    Drop(Dropped),
}

impl Taken {
    fn tag(&self) -> u64 {
        match self {
            Self::Message(delivery) => delivery.delivery_tag,
            Self::Drop(dropped) => dropped.tag,
        }
    }
}

impl Drops {
    /// Counts what the first consumer brings, unless the second brings anything.
    pub(crate) fn new(consumer: Consumer, uncounted: Consumer) -> Self {
        Self { consumer, uncounted, pending: VecDeque::new(), settled: None }
    }

    /// Waits for the next drop.
    async fn next(&mut self) -> Result<Dropped, Trouble> {
        tokio::select! {
            next = self.consumer.next() => Dropped::new(next, &self.consumer, Some(1)),
            next = self.uncounted.next() => Dropped::new(next, &self.uncounted, None),
        }
    }

    /// Before messages are acknowledged after a pause: takes every drop that the broker has made in it. It sends only so many
    /// ahead of their acknowledgements. While messages are not acknowledged no more of them come, and drops alone are let
    /// through; otherwise later messages would overtake the rest of the drops and leave the hole behind.
    async fn gather(&mut self, channel: &Channel) -> Result<(), Trouble> {
        if self.settled.is_some_and(|settled| settled.elapsed() < PAUSE) {
            return Ok(());
        }
        for _ in 0..ROUNDS_MAX {
            let waiting = waiting(channel, &self.consumer).await? + waiting(channel, &self.uncounted).await?;
            self.take_ready()?;
            if waiting == 0 {
                break;
            }
            let ackers = self.pending.iter_mut().filter_map(|dropped| dropped.acker.take());
            try_join_all(ackers.map(async |acker| acknowledge_one(&acker).await)).await?;
        }
        Ok(())
    }

    /// Takes all that are there; their number is bounded by the prefetch.
    fn take_ready(&mut self) -> Result<(), Trouble> {
        let before = self.pending.len();
        while let Some(next) = self.consumer.next().now_or_never() {
            self.pending.push_back(Dropped::new(next, &self.consumer, Some(1))?);
        }
        while let Some(next) = self.uncounted.next().now_or_never() {
            self.pending.push_back(Dropped::new(next, &self.uncounted, None)?);
        }
        if self.pending.len() > before {
            self.pending.make_contiguous().sort_by_key(|dropped| dropped.tag);
        }
        Ok(())
    }

    /// Moves those whose tags are below the bound.
    fn take_below(&mut self, tag: u64, batch: &mut Vec<Taken>) {
        while let Some(next) = self.pending.pop_front_if(|next| next.tag < tag) {
            batch.push(Taken::Drop(next));
        }
    }
}

impl Dropped {
    fn new(next: Option<lapin::Result<Delivery>>, consumer: &Consumer, count: Option<u64>) -> Result<Self, Trouble> {
        let Delivery { delivery_tag, acker, .. } = delivered(next, consumer)?;
        Ok(Self { tag: delivery_tag, acker: Some(acker), count })
    }
}

/// What was dropped at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hole {
    /// Nothing.
    Nothing,
    /// So many messages, when that is known.
    Of(Option<u64>),
}

impl Hole {
    /// With so many more.
    fn and(self, count: Option<u64>) -> Self {
        match self {
            Self::Nothing => Self::Of(count),
            Self::Of(before) => Self::Of(before.zip(count).map(|(before, count)| before + count)),
        }
    }
}

impl Receiver<'_> {
    /// Receives until the stop, or until the channel fails.
    ///
    /// # Errors
    /// When the consumer was cancelled, or channel or connection are gone; in words.
    pub(crate) async fn run(&mut self, stop: &CancellationToken) -> Result<(), Trouble> {
        loop {
            let mut batch = Vec::new();
            if self.drops.as_ref().is_none_or(|drops| drops.pending.is_empty()) {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return self.cancel().await,
                    next = self.deliveries.next() => {
                        batch.push(Taken::Message(delivered(next, &self.deliveries)?));
                    }
                    next = next_drop(self.drops.as_mut()) => {
                        let next = next?;
                        if let Some(drops) = &mut self.drops {
                            drops.pending.push_back(next);
                        }
                    }
                }
            }
            let failure = self.fill(&mut batch).err();
            self.settle(batch).await?;
            if let Some(trouble) = failure {
                return Err(trouble);
            }
        }
    }

    /// Takes what else is ready. A failure is told only after what came before it.
    fn fill(&mut self, batch: &mut Vec<Taken>) -> Result<(), Trouble> {
        // Drops seen before the deliveries ran out have their place before whatever comes next.
        let seen = self.drops.as_ref().and_then(|drops| drops.pending.back()).map(|drop| drop.tag + 1);
        let rest = take_ready(&mut self.deliveries, batch, Taken::Message);
        let ran_out = matches!(rest, Ok(Rest::Nothing));
        let mut result = rest.map(drop);
        let last = batch.last().map(Taken::tag);
        if let Some(drops) = &mut self.drops {
            let taken = drops.take_ready();
            let reached = seen.filter(|_| ran_out).max(last).unwrap_or(0);
            drops.take_below(reached, batch);
            batch.sort_by_key(Taken::tag);
            result = result.and(taken);
        }
        result
    }

    /// Appends, notes holes, and acknowledges.
    async fn settle(&mut self, batch: Vec<Taken>) -> Result<(), Trouble> {
        let source = self.feed.info().id;
        self.metrics.source_unsettled(source, batch.len());
        let now = now();
        let mut drafts = Vec::with_capacity(batch.len());
        let mut refused = Vec::new();
        let (mut acker, mut dropped, mut messages, mut bytes) = (None, Hole::Nothing, 0, 0);
        for taken in batch {
            match taken {
                Taken::Drop(drop) => {
                    self.append(&mut drafts, now);
                    dropped = dropped.and(drop.count);
                    match (drop.count, drop.acker) {
                        // The next of these has the same place, and comes before this batch is settled.
                        (None, Some(uncounted)) => acknowledge_one(&uncounted).await?,
                        (_, counted) => acker = counted.or(acker),
                    }
                }
                Taken::Message(delivery) if self.comes_again && delivery.acker.poisoned() => {}
                Taken::Message(mut delivery) => {
                    self.note_drops(&mut dropped);
                    messages += 1;
                    bytes += delivery.data.len() as u64;
                    match self.mapper.draft(&mut delivery, now) {
                        Ok(draft) => drafts.push(draft),
                        Err(reason) => {
                            self.metrics.source_rejected(source, reason);
                            self.complaints.rejected(reason, &delivery);
                            if self.rejected == Rejected::DeadLetter {
                                refused.push(delivery.acker);
                                continue;
                            }
                        }
                    }
                    acker = Some(delivery.acker);
                }
            }
        }
        self.metrics.source_received(source, messages, bytes);
        self.append(&mut drafts, now);
        self.note_drops(&mut dropped);
        if let Some(drops) = self.drops.as_mut().filter(|_| acker.is_some()) {
            drops.gather(self.channel).await?;
            drops.settled = Some(Instant::now());
        }
        settle(acker, refused).await?;
        self.metrics.source_unsettled(source, 0);
        Ok(())
    }

    fn append(&self, drafts: &mut Vec<Draft>, now: UnixMillis) {
        self.feed.append(std::mem::take(drafts), now);
    }

    fn note_drops(&self, dropped: &mut Hole) {
        if let Hole::Of(missed) = std::mem::replace(dropped, Hole::Nothing) {
            self.feed.hole(GapReason::Slow, missed);
        }
    }

    /// Takes no more; what was not taken goes back to the queue when the channel closes.
    async fn cancel(&mut self) -> Result<(), Trouble> {
        cancel(self.channel, &self.deliveries).await;
        Ok(())
    }
}

/// What a consumer has after what was taken from it.
pub(crate) enum Rest {
    /// Nothing, for the moment.
    Nothing,
    /// Perhaps more: the batch is full.
    Perhaps,
}

/// Takes what else is ready into the batch, up to [`BATCH_MAX`] in all.
///
/// # Errors
/// When the consumer ended, in words; what came before that is in the batch.
pub(crate) fn take_ready<T>(
    consumer: &mut Consumer,
    batch: &mut Vec<T>,
    wrap: fn(Delivery) -> T,
) -> Result<Rest, Trouble> {
    while batch.len() < BATCH_MAX {
        let Some(next) = consumer.next().now_or_never() else { return Ok(Rest::Nothing) };
        batch.push(wrap(delivered(next, consumer)?));
    }
    Ok(Rest::Perhaps)
}

/// Acknowledges a delivery and all before it.
///
/// # Errors
/// When the channel is gone, in words.
pub(crate) async fn acknowledge(last: &Acker) -> Result<(), Trouble> {
    let acknowledged = last.ack(BasicAckOptions { multiple: true }).await;
    acknowledged.map(drop).map_err(|error| Trouble(words::quoted(&error)))
}

async fn acknowledge_one(delivery: &Acker) -> Result<(), Trouble> {
    let acknowledged = delivery.ack(BasicAckOptions::default()).await;
    acknowledged.map(drop).map_err(|error| Trouble(words::quoted(&error)))
}

/// Rejects some and acknowledges all others up to the last: the refused ones first and singly, so that the one
/// acknowledgement does not take them along.
///
/// # Errors
/// When the channel is gone, in words.
pub(crate) async fn settle(last: Option<Acker>, refused: Vec<Acker>) -> Result<(), Trouble> {
    for acker in refused {
        let rejected = acker.reject(BasicRejectOptions { requeue: false }).await;
        rejected.map_err(|error| Trouble(words::quoted(&error)))?;
    }
    match last {
        Some(acker) => acknowledge(&acker).await,
        None => Ok(()),
    }
}

/// Ends a consumer; its channel stays.
pub(crate) async fn cancel(channel: &Channel, consumer: &Consumer) {
    let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    // A broker that is gone has ended it by itself.
    let _ = tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await;
}

/// Closes a channel, and with it goes back whatever is unsettled on it. One that is merely dropped would stay.
pub(crate) async fn close(channel: &Channel, why: &str) {
    // A broker that is gone has closed it by itself.
    let _ = tokio::time::timeout(CANCEL_TIMEOUT, channel.close(200, why.into())).await;
}

/// How many messages the broker has not sent yet. What it sent before it answered is here when this returns.
async fn waiting(channel: &Channel, consumer: &Consumer) -> Result<u32, Trouble> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = consumer.queue();
    let asked = channel.queue_declare(queue.clone(), options, FieldTable::default());
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(declared)) => Ok(declared.message_count()),
        Ok(Err(error)) => Err(Trouble(words::quoted(&error))),
        Err(_) => Err(Trouble(format!("RabbitMQ does not say how many messages queue '{queue}' has"))),
    }
}

async fn next_drop(drops: Option<&mut Drops>) -> Result<Dropped, Trouble> {
    match drops {
        Some(drops) => drops.next().await,
        None => std::future::pending().await,
    }
}

/// What a consumer's stream said: a delivery, or its end in words.
pub(crate) fn delivered(next: Option<lapin::Result<Delivery>>, consumer: &Consumer) -> Result<Delivery, Trouble> {
    match next {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(error)) => {
            Err(Trouble(format!("the consumer of queue '{}' failed: {}", consumer.queue(), words::quoted(&error))))
        }
        None => {
            Err(Trouble(format!("RabbitMQ cancelled the consumer of queue '{}': was it deleted?", consumer.queue())))
        }
    }
}

/// The time of day.
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Says which deliveries could not be mapped: the first of each reason, the tenth, the hundredth and so on, so that a flood
/// of them is no flood of lines.
#[derive(Debug)]
pub(crate) struct Complaints {
    source: String,
    counts: Vec<(Rejection, u64)>,
}

impl Complaints {
    /// About this source's deliveries.
    pub(crate) fn new(source: &str) -> Self {
        Self { source: source.to_owned(), counts: Vec::new() }
    }

    /// Counts one.
    pub(crate) fn rejected(&mut self, reason: Rejection, delivery: &Delivery) {
        let count = self.count(reason);
        if is_power_of_ten(count) {
            tracing::warn!(
                source = self.source,
                reason = reason.name(),
                exchange = delivery.exchange.as_str(),
                routing_key = %delivery.routing_key.as_str().escape_debug(),
                count,
                "a delivery cannot become a message; the 10th, 100th and so on are logged too"
            );
        }
    }

    fn count(&mut self, reason: Rejection) -> u64 {
        match self.counts.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.counts.push((reason, 1));
                1
            }
        }
    }
}

fn is_power_of_ten(count: u64) -> bool {
    count.checked_ilog10().is_some_and(|digits| 10u64.pow(digits) == count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_in_part_has_no_number() {
        let hole = Hole::Nothing.and(Some(1)).and(Some(1));
        assert_eq!(
            (hole, hole.and(None), Hole::Nothing.and(None).and(Some(1))),
            (Hole::Of(Some(2)), Hole::Of(None), Hole::Of(None))
        );
    }

    #[test]
    fn a_flood_of_complaints_is_logged_at_powers_of_ten() {
        let logged: Vec<u64> = (0..=100_000).filter(|count| is_power_of_ten(*count)).collect();
        assert_eq!(logged, [1, 10, 100, 1000, 10_000, 100_000]);
    }

    #[test]
    fn reasons_are_counted_apart() {
        let mut complaints = Complaints::new("a");
        assert_eq!([complaints.count(Rejection::Topic), complaints.count(Rejection::Topic)], [1, 2]);
        assert_eq!(complaints.count(Rejection::TooLarge), 1);
    }
}
