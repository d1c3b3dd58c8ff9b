//! Presence over several nodes: a fanout exchange of ours, on which each node publishes its bulletins and from which it
//! reads everybody's through a queue of its own. What they say is the hub's; this carries them and keeps the time.
//!
//! Not part of readiness: without it a node knows its own members, and all else works.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use tokio::sync::watch;

use crate::config;
use crate::hub::presence::Presence;
use crate::model::presence::{Bulletin, NodeId};
use crate::source::{Backoff, Subject, Trouble};

use super::Context;
use super::connection::{ANSWER_TIMEOUT, Live};
use super::exchange::{self, limits, short};
use super::link::{self, Link};
use super::{binder, bulletin, words};

/// Bytes of bulletins that the broker keeps for us before it drops the oldest, which is noticed and asked for again.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// Bulletins that the broker sends ahead.
const PREFETCH: u16 = 256;

/// Bulletins in a row before it is the others' turn: a whole account must not overrun anybody's queue.
const BULLETINS_MAX: usize = 4;

/// Heartbeats for which this node may not hear itself.
const ECHO_HEARTBEATS_MAX: u32 = 3;

/// How long the last word may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// The key that names the exchange.
pub(super) const KEY: &str = "amqp.presence_exchange";

/// See the module.
pub(crate) struct Carrier {
    context: Arc<Context>,
    presence: Arc<Presence>,
    consume: Link,
    publish: Link,
}

/// What stands on a pair of links.
struct Line {
    exchange: ShortString,
    bulletins: Consumer,
    /// Publishes; on a connection of its own, because a broker in need stops everything on one that publishes.
    channel: Channel,
    /// Whether that connection is stopped now.
    blocked: watch::Receiver<Option<String>>,
    /// This node, whose words are to come back to it, and until when. The broker tells nobody when it deletes an exchange with
    /// its bindings.
    awaited: Option<(NodeId, Instant)>,
    /// Holds the queue.
    _listening: Channel,
}

impl Carrier {
    /// On both links.
    pub(crate) fn new(context: Arc<Context>, presence: Arc<Presence>, (consume, publish): (Link, Link)) -> Self {
        Self { context, presence, consume, publish }
    }

    /// Until the stop.
    pub(crate) async fn run(self) {
        tokio::select! {
            () = self.carry() => {}
            () = self.expire() => {}
        }
    }

    /// Nodes fall silent whether this one has a link or not. But a broker in need lets nobody be heard.
    async fn expire(&self) {
        let mut period = tokio::time::interval(self.context.settings.amqp.presence_heartbeat / 2);
        loop {
            period.tick().await;
            if self.is_stopped() {
                self.presence.excuse(Instant::now());
            } else {
                self.presence.expire(Instant::now());
            }
        }
    }

    /// Whether the broker stops whoever publishes, as far as this node has found out by publishing.
    fn is_stopped(&self) -> bool {
        matches!(self.publish.state(), link::State::Up(live) if live.blocked.borrow().is_some())
    }

    async fn carry(&self) {
        let (mut consume, mut publish) = (self.consume.clone(), self.publish.clone());
        let mut backoff = Backoff::new(self.context.settings.amqp.backoff_max);
        loop {
            let links = tokio::select! {
                links = both(&mut consume, &mut publish) => links,
                () = self.context.stop.cancelled() => return,
            };
            let since = Instant::now();
            let ended = self.serve(&links).await;
            self.presence.link_down();
            let Err(trouble) = ended else { return };
            backoff.stood_for(since.elapsed());
            if links.0.is_alive() && links.1.is_alive() {
                let trouble = Trouble(format!("presence knows this node only: {trouble}"));
                self.context.board.down(Subject::Presence, &trouble);
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = self.context.stop.cancelled() => return,
            }
        }
    }

    /// Carries until the stop (`Ok`) or until a link is lost.
    async fn serve(&self, links: &(Arc<Live>, Arc<Live>)) -> Result<(), Trouble> {
        let config::Amqp { queue_prefix, node, .. } = &self.context.settings.amqp;
        let queue = short(&format!("{queue_prefix}{node}.presence.{:016x}", fastrand::u64(..)))?;
        let ended = self.share(links, &queue).await;
        exchange::delete(&links.0, &[&queue], exchange::patience(&ended)).await;
        ended
    }

    async fn share(&self, (consume, publish): &(Arc<Live>, Arc<Live>), queue: &ShortString) -> Result<(), Trouble> {
        let mut line = self.open(consume, publish, queue).await?;
        let exchange = &self.context.settings.amqp.presence_exchange;
        self.context.board.up(Subject::Presence, format!("presence is shared through exchange '{exchange}'"));
        self.presence.link_up();
        let (mut consume_link, mut publish_link) = (self.consume.clone(), self.publish.clone());
        loop {
            let (due, deaf) = (self.presence.due(), line.awaited.map(|(_, until)| until));
            tokio::select! {
                biased;
                () = self.context.stop.cancelled() => {
                    // Whoever does not hear it finds out by silence.
                    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, line.publish(self.presence.farewell())).await;
                    return Ok(());
                }
                trouble = consume_link.lost(consume) => return Err(trouble),
                trouble = publish_link.lost(publish) => return Err(trouble),
                // Who is held up is not heard, and who was gets as much time again.
                Ok(()) = line.blocked.changed() => line.awaited = None,
                () = may_tell(due, publish) => self.tell(&mut line).await?,
                next = line.bulletins.next() => match next {
                    Some(Ok(delivery)) => self.hear(&mut line, delivery).await,
                    Some(Err(error)) => return Err(Trouble(words::quoted(&error))),
                    None => return Err(Trouble("the queue of presence was deleted".into())),
                },
                () = binder::sleep_until(deaf) => {
                    let exchange = &self.context.settings.amqp.presence_exchange;
                    return Err(Trouble(format!("exchange '{exchange}' does not bring back what this node tells")));
                }
                () = self.presence.stirred() => {}
            }
        }
    }

    async fn open(&self, consume: &Live, publish: &Live, queue: &ShortString) -> Result<Line, Trouble> {
        let amqp = &self.context.settings.amqp;
        let exchange = short(&amqp.presence_exchange)?;
        let listening = consume.channel().await?;
        declare(consume, &listening, &exchange).await?;
        let failed = |error: lapin::Error| words::of_own_queue(&error, queue.as_str(), &consume.peer);
        let nothing = FieldTable::default;
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        listening.queue_declare(queue.clone(), options, limits(QUEUE_BYTES_MAX)).await.map_err(failed)?;
        let bound =
            listening.queue_bind(queue.clone(), exchange.clone(), short("")?, QueueBindOptions::default(), nothing());
        bound.await.map_err(failed)?;
        listening.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(failed)?;
        let options = BasicConsumeOptions::default();
        let bulletins =
            listening.basic_consume(queue.clone(), short("presence")?, options, nothing()).await.map_err(failed)?;
        let (channel, blocked) = (publish.channel().await?, publish.blocked.subscribe());
        Ok(Line { exchange, bulletins, channel, blocked, awaited: None, _listening: listening })
    }

    async fn tell(&self, line: &mut Line) -> Result<(), Trouble> {
        for _ in 0..BULLETINS_MAX {
            let Some(bulletin) = self.presence.bulletin(Instant::now()) else { break };
            let patience = self.context.settings.amqp.presence_heartbeat * ECHO_HEARTBEATS_MAX;
            line.awaited.get_or_insert((bulletin.node, Instant::now() + patience));
            line.publish(bulletin).await?;
        }
        Ok(())
    }

    async fn hear(&self, line: &mut Line, delivery: Delivery) {
        match bulletin::read(&delivery.data) {
            Some(bulletin) => {
                line.awaited.take_if(|(node, _)| *node == bulletin.node);
                self.presence.hear(bulletin, Instant::now());
            }
            None => self.context.metrics.presence_rejected(),
        }
        // A failure shows on the consumer as well, where it is acted on.
        let _ = delivery.acker.ack(BasicAckOptions::default()).await;
    }
}

/// Waits for both links, and until the one that publishes can: a broker in need opens no channel on it either.
async fn both(consume: &mut Link, publish: &mut Link) -> (Arc<Live>, Arc<Live>) {
    loop {
        let links = (consume.up().await, publish.up().await);
        tokio::select! {
            () = links.1.unblocked() => return links,
            _ = publish.lost(&links.1) => {}
        }
    }
}

/// Waits until there is something to tell and somebody takes it. Others hear nothing as long, and nothing is lost by it:
/// what has changed meanwhile is told afterwards.
async fn may_tell(due: Instant, publish: &Live) {
    binder::sleep_until(Some(due)).await;
    publish.unblocked().await;
}

impl Line {
    /// Without a confirm: what is lost is missed by its number, and asked for.
    async fn publish(&self, bulletin: Bulletin) -> Result<(), Trouble> {
        let (payload, options) = (bulletin::write(bulletin), BasicPublishOptions::default());
        let properties = BasicProperties::default().with_content_type(short("application/json")?);
        let published = self.channel.basic_publish(self.exchange.clone(), short("")?, options, &payload, properties);
        let mut blocked = self.blocked.clone();
        tokio::select! {
            biased;
            published = tokio::time::timeout(ANSWER_TIMEOUT, published) => match published {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(Trouble(words::quoted(&error))),
                Err(_) => Err(Trouble("the broker takes no messages".into())),
            },
            // The library has it and sends it when it can.
            _ = blocked.wait_for(Option::is_some) => Ok(()),
        }
    }
}

/// Makes sure of the exchange through which nodes share presence.
///
/// # Errors
/// When it is another one, or the broker does not let us; in words.
pub(super) async fn declare(live: &Live, channel: &Channel, exchange: &ShortString) -> Result<(), Trouble> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = lapin::ExchangeKind::Fanout;
    let declared = channel.exchange_declare(exchange.clone(), kind, options, FieldTable::default()).await;
    declared.map_err(|error| words::of_presence(&error, exchange.as_str(), (&live.peer, KEY)))
}
