//! What one client holds of one queue on one channel: deliveries go out under tags of our own and are settled under them,
//! or go back in time. The broker's tags stay here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery as Incoming;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions};
use lapin::protocol::basic::AMQPProperties;
use lapin::{Acker, Channel, Consumer};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::hub::upstream::ConsumeJob;
use crate::metrics::Settling;
use crate::model::delivery::{ConsumeNews, ConsumeOrder, ConsumeRequest, Delivery, DeliveryTag, Settled, Settlement};
use crate::model::outgoing::{Outgoing, PublishOutcome, Reply, Target};
use crate::model::topic::Topic;

use super::Context;
use super::connection::Live;
use super::consume::Over;
use super::mapping;
use super::outbound::{self, Answer, Outbound};
use super::receive::now;

/// How long the broker may take to hear that a channel is closed or a consumer cancelled.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Desk {
    context: Arc<Context>,
    channel: Channel,
    consumer: Consumer,
    /// Drawn for this channel, so that no tag of another names anything here.
    link: u64,
    /// Counted here, not by the broker.
    next: u64,
    /// By number, and so by age.
    held: BTreeMap<u64, Held>,
    /// Where answers go out: publishing here would have a broker that is short of memory leave our acknowledgements unread.
    publisher: mpsc::Sender<Outbound>,
    /// On their way, each with the delivery that it answers.
    answers: FuturesUnordered<BoxFuture<'static, (DeliveryTag, PublishOutcome)>>,
    stopped: bool,
}

struct Held {
    acker: Acker,
    since: Instant,
    asker: Option<Asker>,
}

/// Who waits for an answer to a delivery.
#[derive(Clone)]
struct Asker {
    /// The queue that they listen to.
    reply_to: Topic,
    correlation_id: Option<String>,
}

/// How serving on a channel ends.
pub(super) enum End {
    /// The channel, or the consumer on it, is gone.
    Lost,
    /// Nobody wants it any more.
    Over,
}

/// The channel is gone.
struct Gone;

impl From<Over> for End {
    fn from(Over: Over) -> Self {
        Self::Over
    }
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        Self::Lost
    }
}

impl Desk {
    /// Nothing is held yet.
    pub(super) fn new(
        context: Arc<Context>,
        (channel, consumer): (Channel, Consumer),
        publisher: mpsc::Sender<Outbound>,
    ) -> Self {
        context.metrics.consumers_changed(1);
        let (link, held, answers) = (fastrand::u64(..), BTreeMap::new(), FuturesUnordered::new());
        Self { context, channel, consumer, link, next: 0, held, publisher, answers, stopped: false }
    }

    /// Whether the client wants no more of it.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopped
    }

    /// Hands out and settles.
    pub(super) async fn serve(&mut self, live: &Live, job: &mut ConsumeJob) -> End {
        loop {
            match self.step(live, job).await {
                Ok(()) if self.stopped && self.held.is_empty() => return End::Over,
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    async fn step(&mut self, live: &Live, job: &mut ConsumeJob) -> Result<(), End> {
        let due = self.due(&job.request);
        tokio::select! {
            biased;
            () = self.context.stop.cancelled() => Err(End::Over),
            order = job.orders.recv() => match order {
                Some(ConsumeOrder::Settle(tag, settlement)) => {
                    let settled = self.settle(tag, settlement).await?;
                    tell(job, ConsumeNews::Settled(tag, settled)).await
                }
                Some(ConsumeOrder::Answer(tag, reply)) => self.answer(tag, reply, job).await,
                Some(ConsumeOrder::Stop) => {
                    self.cancel().await?;
                    tell(job, ConsumeNews::Stopped).await
                }
                None => Err(End::Over),
            },
            Some((tag, outcome)) = self.answers.next() => {
                let settled = self.answered(tag, outcome).await?;
                tell(job, ConsumeNews::Settled(tag, settled)).await
            }
            next = self.consumer.next(), if !self.stopped => match next {
                Some(Ok(delivery)) => self.hand_out(delivery, job).await,
                // Whether the queue is gone or only this consumer shows when it is consumed again.
                Some(Err(_)) | None => Err(End::Lost),
            },
            () = live.life.gone.cancelled() => Err(End::Lost),
            () = super::binder::sleep_until(due.map(Instant::into_std)) => self.expire(job).await,
        }
    }

    /// When the delivery that is held longest goes back.
    fn due(&self, request: &ConsumeRequest) -> Option<Instant> {
        self.held.first_key_value().map(|(_, held)| held.since + request.hold_max)
    }

    async fn hand_out(&mut self, mut delivery: Incoming, job: &ConsumeJob) -> Result<(), End> {
        if delivery.acker.poisoned() {
            return Err(End::Lost);
        }
        let tag = DeliveryTag { link: self.link, number: self.next };
        self.next += 1;
        let asker = Asker::of(&delivery.properties);
        let draft = mapping::consumed(&mut delivery, &job.request, now());
        self.held.insert(tag.number, Held { acker: delivery.acker, since: Instant::now(), asker });
        self.context.metrics.held_changed(1);
        let queue = job.request.asked.clone();
        tell(job, ConsumeNews::Delivered(Box::new(Delivery { tag, queue, draft }))).await
    }

    fn held(&self, tag: DeliveryTag) -> Option<&Held> {
        self.held.get(&tag.number).filter(|_| tag.link == self.link)
    }

    /// Sends an answer on its way to whoever asked. Where nobody said that they wait for one there is only to acknowledge.
    async fn answer(&mut self, tag: DeliveryTag, reply: Reply, job: &ConsumeJob) -> Result<(), End> {
        let asker = self.held(tag).and_then(|held| held.asker.clone());
        let settled = match asker {
            None => self.settle(tag, Settlement::Acknowledge).await?,
            Some(asker) => match self.send(asker, reply) {
                Ok(verdict) => {
                    let lost = PublishOutcome::Unavailable("the publisher has stopped".into());
                    self.answers.push(Box::pin(async move { (tag, verdict.await.unwrap_or(lost)) }));
                    return Ok(());
                }
                Err(sentence) => Settled::Refused(sentence),
            },
        };
        tell(job, ConsumeNews::Settled(tag, settled)).await
    }

    fn send(&self, asker: Asker, reply: Reply) -> Result<oneshot::Receiver<PublishOutcome>, String> {
        let (place, verdict) = oneshot::channel();
        let outbound = outbound::reply(asker.addressed(reply), Answer::Request(place))?;
        match self.publisher.try_send(outbound) {
            Ok(()) => Ok(verdict),
            Err(_) => Err("too many messages wait for the broker: answer again later".into()),
        }
    }

    /// Acknowledges what the broker has taken the answer to, even if nobody waits for that any more.
    async fn answered(&mut self, tag: DeliveryTag, outcome: PublishOutcome) -> Result<Settled, Gone> {
        match outcome {
            PublishOutcome::Confirmed { .. } => self.settle(tag, Settlement::Acknowledge).await,
            PublishOutcome::Refused(sentence) | PublishOutcome::Unavailable(sentence) => Ok(Settled::Refused(sentence)),
        }
    }

    /// Tells the broker, if the delivery is held here.
    async fn settle(&mut self, tag: DeliveryTag, settlement: Settlement) -> Result<Settled, Gone> {
        let Some(held) = self.held(tag) else { return Ok(Settled::Stale) };
        // While this fails the delivery counts as held, and so as lost with the channel.
        told(&held.acker, settlement).await?;
        self.forget(tag.number);
        self.context.metrics.settled(settlement, 1);
        Ok(Settled::Told)
    }

    /// Gives back what was held for too long, the oldest of it.
    async fn expire(&mut self, job: &ConsumeJob) -> Result<(), End> {
        let Some((&number, held)) = self.held.first_key_value() else { return Ok(()) };
        told(&held.acker, Settlement::Requeue).await?;
        self.forget(number);
        self.context.metrics.settled(Settling::Expired, 1);
        tell(job, ConsumeNews::Expired(DeliveryTag { link: self.link, number })).await
    }

    /// Takes no more. What the broker had sent ahead goes back unseen.
    async fn cancel(&mut self) -> Result<(), Gone> {
        self.stopped = true;
        let cancelled = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        let Ok(Ok(())) = tokio::time::timeout(CLOSE_TIMEOUT, cancelled).await else { return Err(Gone) };
        while let Some(Some(Ok(unseen))) = self.consumer.next().now_or_never() {
            told(&unseen.acker, Settlement::Requeue).await?;
        }
        Ok(())
    }

    /// The broker has taken everything back, or does when the channel of a cancelled consumer is closed.
    pub(super) async fn lost(&mut self) {
        if self.channel.status().connected() {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.channel.close(200, "OK".into())).await;
        }
        self.let_go(Settling::Lost);
    }

    /// Closes the channel, by which everything goes back at once and in order.
    pub(super) async fn close(&mut self) {
        // A broker that does not hear this has lost the channel with the connection.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.channel.close(200, "OK".into())).await;
        self.let_go(Settling::Returned);
    }

    fn forget(&mut self, number: u64) {
        if self.held.remove(&number).is_some() {
            self.context.metrics.held_changed(-1);
        }
    }

    fn let_go(&mut self, how: Settling) {
        let held = std::mem::take(&mut self.held).len();
        self.context.metrics.held_changed(-(held as i64));
        self.context.metrics.settled(how, held);
    }
}

impl Asker {
    fn of(properties: &AMQPProperties) -> Option<Self> {
        let reply_to = Topic::parse(properties.reply_to().as_ref()?.as_str()).ok()?;
        Some(Self { reply_to, correlation_id: mapping::property(properties.correlation_id()) })
    }

    /// An answer to them.
    fn addressed(self, Reply { payload, content_type, headers }: Reply) -> Outgoing {
        let message = Outgoing::new(self.reply_to, payload);
        Outgoing { target: Target::Queue, content_type, correlation_id: self.correlation_id, headers, ..message }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.let_go(Settling::Lost);
        self.context.metrics.consumers_changed(-1);
    }
}

/// Tells the broker of a settlement.
async fn told(acker: &Acker, settlement: Settlement) -> Result<(), Gone> {
    let nack = |requeue| acker.nack(BasicNackOptions { multiple: false, requeue });
    let told = match settlement {
        Settlement::Acknowledge => acker.ack(BasicAckOptions { multiple: false }).await,
        Settlement::Requeue => nack(true).await,
        Settlement::Discard => nack(false).await,
    };
    match told {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Gone),
    }
}

async fn tell(job: &ConsumeJob, news: ConsumeNews) -> Result<(), End> {
    job.news.send(news).await.map_err(|_| End::Over)
}
