//! Handing out: consumers, whose turn it is, and `basic.get`.

use std::sync::Arc;

use amq_protocol::protocol::basic;

use super::super::fault::{Code, Fault};
use super::super::limits::{CONSUMERS_MAX, CONSUMERS_OF_A_QUEUE_MAX};
use super::super::message::{Message, Name};
use super::super::queue::{Ended, QueueId};
use super::super::table::{field, integer};
use super::topology::REPLY_TO;
use super::{Broker, ChannelRef, Consumer, ConsumerId, Outgoing, ReplyConsumer, Unsettled};

/// A message fetched by `basic.get`.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) delivery_tag: u64,
    pub(crate) redelivered: bool,
    /// Messages left in the queue.
    pub(crate) left: usize,
    pub(crate) message: Arc<Message>,
}

/// Whether a consumer can be handed a message.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// It has to settle something first.
    Busy,
    /// Its connection has to be written to first.
    Full,
}

impl Broker {
    /// `basic.consume`; returns the consumer's tag. Deliveries begin at once.
    ///
    /// # Errors
    /// 403 when the queue is exclusively consumed, 404 and 405 for queues that are missing or somebody else's, 406 for a
    /// reply consumer that wants to acknowledge and for one that takes the queue for a stream, 506 at the limit, 530 for a
    /// tag in use.
    pub(crate) fn consume(&mut self, at: ChannelRef, method: &basic::Consume) -> Result<Name, Fault> {
        let tag: Name = match method.consumer_tag.as_str() {
            "" => Self::fresh_name("amq.ctag-"),
            tag => tag.into(),
        };
        let ledger = self.open_ledger(at)?;
        let taken = ledger.consumers.contains_key(&tag) || ledger.reply.as_ref().is_some_and(|reply| reply.tag == tag);
        if taken {
            return Err(Fault::new(Code::NotAllowed, format!("attempt to reuse consumer tag '{tag}'")));
        }
        let prefetch = ledger.prefetch_each;
        if method.queue.as_str() == REPLY_TO {
            return self.consume_replies(at, method, tag);
        }
        let queue = self.consumable_queue(at, method)?;
        let id = ConsumerId(self.next_id());
        let priority = field(&method.arguments, "x-priority").and_then(integer).unwrap_or(0);
        let no_ack = method.no_ack;
        let consumer = Consumer { at, tag: tag.clone(), queue, no_ack, prefetch, in_flight: 0, priority };
        self.consumers.insert(id, consumer);
        self.open_ledger(at)?.consumers.insert(tag.clone(), id);
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.consumers.push_back(id);
            queue.exclusively_consumed = method.exclusive;
        }
        self.dispatch(queue);
        Ok(tag)
    }

    fn consumable_queue(&self, at: ChannelRef, method: &basic::Consume) -> Result<QueueId, Fault> {
        let name = method.queue.as_str();
        let id = self.usable_queue(at.session, name)?;
        let Some(queue) = self.queues.get(&id) else { return Err(Fault::missing("queue", name)) };
        if field(&method.arguments, "x-stream-offset").is_some() {
            return Err(Fault::precondition(format!(
                "invalid arg 'x-stream-offset' for queue '{name}' in vhost '/' of queue type classic"
            )));
        }
        if queue.exclusively_consumed || (method.exclusive && !queue.consumers.is_empty()) {
            return Err(Fault::refused(format!("queue '{name}' in vhost '/' in exclusive use")));
        }
        if method.exclusive && queue.declaration.rules.single_active_consumer {
            return Err(Fault::refused(format!(
                "queue '{name}' in vhost '/' has a single active consumer, not an exclusive one"
            )));
        }
        if self.consumers.len() >= CONSUMERS_MAX {
            return Err(Fault::limit("consumers", CONSUMERS_MAX));
        }
        if queue.consumers.len() >= CONSUMERS_OF_A_QUEUE_MAX {
            return Err(Fault::limit("consumers of a queue", CONSUMERS_OF_A_QUEUE_MAX));
        }
        Ok(id)
    }

    fn consume_replies(&mut self, at: ChannelRef, method: &basic::Consume, tag: Name) -> Result<Name, Fault> {
        if !method.no_ack {
            return Err(Fault::precondition("reply consumer cannot acknowledge"));
        }
        let address = Self::fresh_name("");
        let ledger = self.open_ledger(at)?;
        if ledger.reply.is_some() {
            return Err(Fault::precondition("reply consumer already set"));
        }
        ledger.reply = Some(ReplyConsumer { tag: tag.clone(), address: address.clone() });
        self.reply_addresses.insert(address, at);
        Ok(tag)
    }

    /// `basic.cancel`; a consumer that is not there is as good as cancelled. What it was handed stays with its channel.
    pub(crate) fn cancel(&mut self, at: ChannelRef, tag: &str) {
        let Some(ledger) = self.ledger_mut(at) else { return };
        if let Some(reply) = ledger.reply.take_if(|reply| &*reply.tag == tag) {
            self.reply_addresses.remove(&reply.address);
            return;
        }
        let Some(id) = ledger.consumers.remove(tag) else { return };
        if let Some(queue) = self.detach(id) {
            self.delete_if_abandoned(queue);
            self.dispatch(queue);
        }
    }

    /// Takes a consumer off its queue; which queue that is.
    pub(super) fn detach(&mut self, id: ConsumerId) -> Option<QueueId> {
        let consumer = self.consumers.remove(&id)?;
        let now = self.now.instant;
        let queue = self.queues.get_mut(&consumer.queue)?;
        queue.consumers.retain(|each| *each != id);
        queue.exclusively_consumed = false;
        queue.used = now;
        self.set_timer(consumer.queue);
        Some(consumer.queue)
    }

    /// `basic.get`; `None` when the queue is empty.
    ///
    /// # Errors
    /// 404 and 405 for queues that are missing or somebody else's.
    pub(crate) fn get(&mut self, at: ChannelRef, method: &basic::Get) -> Result<Option<Fetched>, Fault> {
        let id = self.usable_queue(at.session, method.queue.as_str())?;
        let now = self.now.instant;
        if !self.expire(id, Ended::ByNow) {
            return Ok(None);
        }
        let Some(queue) = self.queues.get_mut(&id) else { return Ok(None) };
        queue.used = now;
        let popped = queue.pop();
        let left = queue.ready();
        self.set_timer(id);
        let Some((place, entry)) = popped else { return Ok(None) };
        let ledger = self.open_ledger(at)?;
        ledger.last_delivery_tag += 1;
        let delivery_tag = ledger.last_delivery_tag;
        let (redelivered, message) = (entry.redelivered, entry.message.clone());
        if !method.no_ack {
            ledger.unsettled.insert(delivery_tag, Unsettled { queue: id, place, entry, consumer: None });
        }
        Ok(Some(Fetched { delivery_tag, redelivered, left, message }))
    }

    /// Hands out a queue's messages while there are some and somebody can take them.
    pub(super) fn dispatch(&mut self, id: QueueId) {
        while self.queues.get(&id).is_some_and(|queue| queue.ready() > 0 && !queue.consumers.is_empty()) {
            if !self.expire(id, Ended::Before) {
                break;
            }
            let Some(consumer) = self.next_consumer(id) else { break };
            if !self.hand_over(id, consumer) {
                break;
            }
        }
        self.set_timer(id);
    }

    /// Hands out what came back to a queue, and drops what is then too much.
    pub(super) fn resume(&mut self, id: QueueId) {
        self.dispatch(id);
        self.trim(id);
    }

    /// The consumer whose turn it is: of the ready ones the first with the highest priority. It goes to the end of the line.
    fn next_consumer(&mut self, id: QueueId) -> Option<ConsumerId> {
        let queue = self.queues.get(&id)?;
        let single = queue.declaration.rules.single_active_consumer;
        let line = if single { 1 } else { queue.consumers.len() };
        let mut best: Option<(i64, usize)> = None;
        let mut full = Vec::new();
        for (position, candidate) in queue.consumers.iter().take(line).enumerate() {
            let Some(consumer) = self.consumers.get(candidate) else { continue };
            if best.is_some_and(|(priority, _)| priority >= consumer.priority) {
                continue;
            }
            match self.readiness(consumer) {
                Readiness::Ready => best = Some((consumer.priority, position)),
                Readiness::Full => full.push(consumer.at.session),
                Readiness::Busy => {}
            }
        }
        for session in full {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.starved.insert(id);
            }
        }
        let (_, position) = best?;
        let queue = self.queues.get_mut(&id)?;
        if single {
            return queue.consumers.front().copied();
        }
        let consumer = queue.consumers.remove(position)?;
        queue.consumers.push_back(consumer);
        Some(consumer)
    }

    fn readiness(&self, consumer: &Consumer) -> Readiness {
        let Some(session) = self.sessions.get(&consumer.at.session) else { return Readiness::Busy };
        let Some(ledger) = session.ledgers.get(&consumer.at.number) else { return Readiness::Busy };
        let beyond = |limit: u16, in_flight: usize| limit > 0 && in_flight >= usize::from(limit);
        let waits = beyond(consumer.prefetch, consumer.in_flight) || beyond(ledger.prefetch_all, ledger.in_flight);
        if waits && !consumer.no_ack {
            Readiness::Busy
        } else if session.is_full() {
            Readiness::Full
        } else {
            Readiness::Ready
        }
    }

    /// Hands the first message of a queue to a consumer. Whether that was possible.
    fn hand_over(&mut self, id: QueueId, consumer_id: ConsumerId) -> bool {
        let Some(consumer) = self.consumers.get_mut(&consumer_id) else { return false };
        let Some(session) = self.sessions.get_mut(&consumer.at.session) else { return false };
        let Some(ledger) = session.ledgers.get_mut(&consumer.at.number) else { return false };
        let Some((place, entry)) = self.queues.get_mut(&id).and_then(super::super::queue::Queue::pop) else {
            return false;
        };
        ledger.last_delivery_tag += 1;
        let outgoing = Outgoing::Deliver {
            channel: consumer.at.number,
            consumer_tag: consumer.tag.clone(),
            delivery_tag: ledger.last_delivery_tag,
            redelivered: entry.redelivered,
            message: entry.message.clone(),
        };
        if !consumer.no_ack {
            consumer.in_flight += 1;
            ledger.in_flight += 1;
            let unsettled = Unsettled { queue: id, place, entry, consumer: Some(consumer_id) };
            ledger.unsettled.insert(ledger.last_delivery_tag, unsettled);
        }
        let session = consumer.at.session;
        self.send(session, outgoing);
        true
    }
}
