//! Queues that clients consume: a task and a channel for each, so that the end of one concerns its client only. Here is
//! its life from link to link; what happens on one channel lies in [`super::desk`]. The channels are on a connection of their
//! own, because the broker closes some over what clients ask for; once it has, that is asked for on trial first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::hub::upstream::ConsumeJob;
use crate::model::delivery::{
    ConsumeNews, ConsumeOrder, ConsumeRefusal, ConsumeRequest, QueueBinding, QueueDeclaration, QueueOrigin, Settled,
};
use crate::model::topic::Topic;
use crate::source::Backoff;

use super::Context;
use super::connection::Live;
use super::desk::{Desk, End};
use super::groups::Groups;
use super::intake::of_a_queue;
use super::link::Link;
use super::outbound::Outbound;
use super::probe;
use super::refusals::Refusals;
use super::spare::Spare;
use super::words::{self, Refusal};

/// Takes in every queue that a client wants to consume.
pub(crate) struct Consumers {
    context: Arc<Context>,
    link: Link,
    jobs: mpsc::Receiver<ConsumeJob>,
    publisher: mpsc::Sender<Outbound>,
    groups: Groups,
    room: Arc<Room>,
}

/// Where queues are consumed.
struct Room {
    spare: Arc<Spare>,
    refusals: Mutex<Refusals>,
}

/// One queue of one client.
struct Consumption {
    context: Arc<Context>,
    link: Link,
    job: ConsumeJob,
    publisher: mpsc::Sender<Outbound>,
    room: Arc<Room>,
    /// Whether it was consumed before.
    has_stood: bool,
}

/// Why a channel does not consume.
enum Failure {
    /// It cannot, and the client is told so.
    Refused(ConsumeRefusal),
    /// The connection or the channel is gone: try again.
    Lost,
}

/// What the broker said instead, and of which binding if it was about one.
struct Unconsumed {
    error: lapin::Error,
    binding: Option<QueueBinding>,
}

impl From<lapin::Error> for Unconsumed {
    fn from(error: lapin::Error) -> Self {
        Self { error, binding: None }
    }
}

/// Nobody wants the queue any more.
pub(super) struct Over;

impl Consumers {
    /// While the link that consumes stands, and on it where there is no other connection; what clients answer goes to the
    /// publisher.
    pub(crate) fn new(
        context: Arc<Context>,
        link: Link,
        jobs: mpsc::Receiver<ConsumeJob>,
        publisher: mpsc::Sender<Outbound>,
    ) -> Self {
        let spare = Spare::new(&context.settings.amqp, "client queues");
        let room = Arc::new(Room { spare, refusals: Mutex::default() });
        let mqtt = &context.settings.mqtt;
        let groups = Groups::new(mqtt.abandoned_shares_max, mqtt.share_expiry);
        Self { context, link, jobs, publisher, groups, room }
    }

    /// Until the stop.
    pub(crate) async fn run(mut self) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.context.stop.cancelled() => break,
                Some(over) = running.join_next() => self.over(over.ok().flatten()),
                job = self.jobs.recv() => match job {
                    Some(job) => self.begin(job, &mut running),
                    None => break,
                },
            }
        }
        // Each of them hears the stop itself.
        while running.join_next().await.is_some() {}
        self.room.spare.close().await;
    }

    fn begin(&mut self, job: ConsumeJob, running: &mut JoinSet<Option<Topic>>) {
        match self.admit(&job.request, running.len()) {
            Ok(()) => _ = running.spawn(Consumption::new(self, job).run()),
            // Its first news always finds room, and a session that is gone needs none.
            Err(sentence) => _ = job.news.try_send(ConsumeNews::Ended(ConsumeRefusal::Limit(sentence))),
        }
    }

    /// Whether one more may be consumed, where so many are; a sentence that says why not.
    fn admit(&mut self, request: &ConsumeRequest, running: usize) -> Result<(), String> {
        let max = self.context.settings.amqp.client_queues_max;
        if running >= max {
            return Err(format!(
                "all clients together may consume {max} queues (amqp.client_queues_max): try again when one is free"
            ));
        }
        let Some(queue) = request.group_queue() else { return Ok(()) };
        let joined = self.groups.join(queue, Instant::now());
        self.context.metrics.abandoned_groups(self.groups.abandoned());
        joined.map_err(|many| many.to_string())
    }

    /// One is consumed no more: a group's, if it is named.
    fn over(&mut self, group: Option<Topic>) {
        if let Some(queue) = group {
            self.groups.leave(&queue, Instant::now());
            self.context.metrics.abandoned_groups(self.groups.abandoned());
        }
    }
}

impl Consumption {
    fn new(of: &Consumers, job: ConsumeJob) -> Self {
        let Consumers { context, link, publisher, room, .. } = of;
        let (context, link, publisher, room) = (context.clone(), link.clone(), publisher.clone(), room.clone());
        Self { context, link, job, publisher, room, has_stood: false }
    }

    /// Until its client has gone or lets it go, it is refused, or the program stops. Gives a group's queue back.
    async fn run(mut self) -> Option<Topic> {
        // Whatever ends it, there is nobody left to tell.
        let _ = self.live().await;
        self.job.request.group_queue().cloned()
    }

    async fn live(&mut self) -> Result<(), Over> {
        let mut backoff = Backoff::new(self.context.settings.amqp.backoff_max);
        let mut pause = Duration::ZERO;
        loop {
            let live = self.connected(pause).await?;
            let since = Instant::now();
            match self.open(&live).await {
                Ok((channel, consumer)) => self.serve(&live, channel, consumer).await?,
                Err(Failure::Refused(refusal)) => {
                    self.tell(ConsumeNews::Ended(refusal)).await?;
                    return Ok(());
                }
                Err(Failure::Lost) => self.tell(ConsumeNews::Away).await?,
            }
            backoff.stood_for(since.elapsed());
            pause = backoff.pause();
        }
    }

    /// Waits for a connection, after a pause; a client that has to wait for its first is told.
    async fn connected(&mut self, pause: Duration) -> Result<Arc<Live>, Over> {
        let mut link = self.link.clone();
        if !matches!(link.state(), super::link::State::Up(_)) {
            self.tell(ConsumeNews::Away).await?;
        }
        let spare = self.room.spare.clone();
        let connected = async move {
            tokio::time::sleep(pause).await;
            let shared = link.up().await;
            // One that is just being lost says that no other can be had now.
            if shared.is_alive() { spare.live().await.unwrap_or(shared) } else { shared }
        };
        tokio::pin!(connected);
        loop {
            tokio::select! {
                biased;
                () = self.context.stop.cancelled() => return Err(Over),
                order = self.job.orders.recv() => self.obey_without_link(order).await?,
                live = &mut connected => return Ok(live),
            }
        }
    }

    /// Nothing is held, so there is nothing to settle, and to stop is to be over.
    async fn obey_without_link(&mut self, order: Option<ConsumeOrder>) -> Result<(), Over> {
        match order {
            Some(ConsumeOrder::Settle(tag, _) | ConsumeOrder::Answer(tag, _)) => {
                self.tell(ConsumeNews::Settled(tag, Settled::Stale)).await
            }
            Some(ConsumeOrder::Stop) => {
                self.tell(ConsumeNews::Stopped).await?;
                Err(Over)
            }
            None => Err(Over),
        }
    }

    async fn open(&self, live: &Live) -> Result<(Channel, Consumer), Failure> {
        let request = &self.job.request;
        let recalled = self.room.refusals().recall(request, Instant::now());
        if let Some(refusal) = recalled {
            return Err(self.refused(refusal));
        }
        if live.has_refused() {
            self.try_out().await?;
        }
        let channel = match live.channel().await {
            Ok(channel) => channel,
            Err(trouble) if live.is_alive() => return Err(Failure::Refused(ConsumeRefusal::Limit(trouble.0))),
            Err(_) => return Err(Failure::Lost),
        };
        match consume(&channel, request).await {
            Ok(consumer) => Ok((channel, consumer)),
            Err(unconsumed) => {
                let failure = self.failure(&unconsumed, live);
                if let Failure::Refused(refusal) = &failure {
                    self.room.refusals().note(request, refusal.clone(), Instant::now());
                }
                Err(failure)
            }
        }
    }

    /// Whatever can be asked without consuming, where nobody else needs the channel.
    async fn try_out(&self) -> Result<(), Failure> {
        let Some(trial) = self.context.trials.live().await else { return Ok(()) };
        let Err(unconsumed) = prepare_on_trial(&trial, &self.job.request).await else { return Ok(()) };
        match self.failure(&unconsumed, &trial) {
            // Nothing is known then.
            Failure::Lost => Ok(()),
            refused => Err(refused),
        }
    }

    fn failure(&self, Unconsumed { error, binding }: &Unconsumed, live: &Live) -> Failure {
        let ConsumeRequest { queue, origin, .. } = &self.job.request;
        let sentence = match (binding, origin) {
            (Some(QueueBinding { exchange, section, .. }), _) => {
                words::of_exchange(error, exchange, (&live.peer, section)).0
            }
            (None, QueueOrigin::Opened { section, .. }) => {
                words::of_consumed(error, queue.as_str(), (&live.peer, section))
            }
            (None, QueueOrigin::Group { .. }) => words::of_share(error, queue.as_str(), &live.peer),
        };
        match words::refusal(error) {
            Some(Refusal::NotFound) => self.refused(ConsumeRefusal::NotFound(sentence)),
            Some(Refusal::InUse) => self.refused(ConsumeRefusal::InUse(sentence)),
            Some(_) => self.refused(ConsumeRefusal::Refused(sentence)),
            None => Failure::Lost,
        }
    }

    fn refused(&self, refusal: ConsumeRefusal) -> Failure {
        match refusal {
            // Perhaps by ourselves: a broker may take long to see that a connection of ours is gone.
            ConsumeRefusal::InUse(_) if self.has_stood => Failure::Lost,
            refusal => Failure::Refused(refusal),
        }
    }

    /// Serves on one channel until that is lost.
    async fn serve(&mut self, live: &Live, channel: Channel, consumer: Consumer) -> Result<(), Over> {
        self.has_stood = true;
        self.tell(ConsumeNews::Stands).await?;
        let mut desk = Desk::new(self.context.clone(), (channel, consumer), self.publisher.clone());
        match desk.serve(live, &mut self.job).await {
            End::Lost => {
                desk.lost().await;
                self.tell(ConsumeNews::Away).await?;
                if !desk.has_stopped() {
                    return Ok(());
                }
                // Its client does not want it again, and may still wait for the answer to that.
                self.tell(ConsumeNews::Stopped).await?;
                Err(Over)
            }
            End::Over => {
                desk.close().await;
                Err(Over)
            }
        }
    }

    async fn tell(&self, news: ConsumeNews) -> Result<(), Over> {
        self.job.news.send(news).await.map_err(|_| Over)
    }
}

impl Room {
    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prepares a queue as [`consume`] does, and asks for one that is to be there.
async fn prepare_on_trial(trial: &Live, request: &ConsumeRequest) -> Result<(), Unconsumed> {
    if let QueueOrigin::Opened { declaration: None, .. } = request.origin {
        probe::queue(trial, request.queue.as_str()).await?;
        return Ok(());
    }
    let channel = probe::channel(trial).await?;
    prepare(&channel, request).await
}

/// Declares and binds the queue if it is to be.
async fn prepare(channel: &Channel, request: &ConsumeRequest) -> Result<(), Unconsumed> {
    let queue = request.queue.as_str();
    match &request.origin {
        QueueOrigin::Opened { declaration: None, .. } => {}
        QueueOrigin::Opened { declaration: Some(declaration), .. } => declare(channel, queue, *declaration).await?,
        QueueOrigin::Group { declaration, bindings } => {
            declare(channel, queue, *declaration).await?;
            for binding in bindings {
                bind(channel, queue, binding).await?;
            }
        }
    }
    Ok(())
}

/// Prepares the queue and consumes it.
async fn consume(channel: &Channel, request: &ConsumeRequest) -> Result<Consumer, Unconsumed> {
    prepare(channel, request).await?;
    channel.basic_qos(request.prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions { exclusive: request.exclusive, ..BasicConsumeOptions::default() };
    Ok(channel.basic_consume(request.queue.as_str().into(), "client".into(), options, of_a_queue()).await?)
}

async fn bind(channel: &Channel, queue: &str, binding: &QueueBinding) -> Result<(), Unconsumed> {
    let QueueBinding { exchange, key, .. } = binding;
    let (options, nothing) = (QueueBindOptions::default(), FieldTable::default());
    let bound = channel.queue_bind(queue.into(), exchange.as_str().into(), key.as_str().into(), options, nothing).await;
    bound.map_err(|error| Unconsumed { error, binding: Some(binding.clone()) })
}

/// Declares a queue for clients.
pub(super) async fn declare(channel: &Channel, queue: &str, declaration: QueueDeclaration) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    if let Some(expires) = declaration.expires {
        let millis = i64::try_from(expires.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(millis));
    }
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, arguments).await.map(drop)
}
