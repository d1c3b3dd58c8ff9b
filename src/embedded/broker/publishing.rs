//! Publishing: which queues a message goes to, and what becomes of it there.

use std::sync::Arc;

use amq_protocol::types::FieldTable;

use super::super::exchange::Destination;
use super::super::fault::Fault;
use super::super::limits::{ENTRY_OVERHEAD, OUTBOX_BYTES_MAX};
use super::super::message::{Message, Name, Publish, expiration};
use super::super::queue::{Ended, Entry, QueueId};
use super::super::queue_arguments::Overflow;
use super::dead_letters::DYING_MAX;
use super::topology::REPLY_TO;
use super::{Broker, ChannelRef, Outgoing, USER};
use crate::embedded::dead_letter::Reason;

/// What became of a publish.
#[derive(Debug)]
pub(crate) struct Published {
    /// The message, to be returned to its publisher when it was mandatory and no queue got it.
    pub(crate) message: Arc<Message>,
    /// Whether any queue was found for it.
    pub(crate) routed: bool,
    /// Whether every queue took it; else its publisher gets a nack.
    pub(crate) accepted: bool,
}

/// What a queue needs to know of a message beside the message.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Terms {
    pub(super) priority: u8,
    pub(super) ttl_milliseconds: Option<u64>,
}

impl Broker {
    /// Publishes a message.
    ///
    /// # Errors
    /// 403 for an internal exchange, 404 for a missing one, 406 for properties that make no sense. The message is then
    /// nowhere.
    pub(crate) fn publish(&mut self, at: ChannelRef, mut publish: Publish) -> Result<Published, Fault> {
        let name = publish.exchange.clone();
        let exchange = self.exchanges.get(&name).ok_or_else(|| Fault::missing("exchange", &name))?;
        if exchange.declaration.internal {
            return Err(Fault::refused(format!("cannot publish to internal exchange '{name}' in vhost '/'")));
        }
        check_user(&publish)?;
        let keys = publish.keys()?;
        let terms = Terms {
            priority: publish.properties.priority().unwrap_or(0),
            ttl_milliseconds: expiration(&publish.properties)?,
        };
        self.address_reply(at, &mut publish)?;
        publish.hide_blind_copies();
        let queues = self.route(&name, &keys, publish.properties.headers().as_ref());
        let message = Arc::new(Message::new(publish, &self.memory));
        if name.is_empty() {
            self.reply(&keys, &message);
        }
        let mut accepted = true;
        for id in &queues {
            accepted &= self.offer(*id, &message, terms);
        }
        self.watch_memory();
        Ok(Published { message, routed: !queues.is_empty(), accepted })
    }

    /// The queues that a message goes to, each once: through exchanges bound to exchanges, and the alternate ones of those
    /// that know no way.
    pub(super) fn route(&self, exchange: &Name, keys: &[Name], headers: Option<&FieldTable>) -> Vec<QueueId> {
        if exchange.is_empty() {
            let mut found: Vec<QueueId> = keys.iter().filter_map(|key| self.queue_names.get(key).copied()).collect();
            found.sort_unstable();
            found.dedup();
            return found;
        }
        let mut found = Vec::new();
        let mut seen: Vec<&Name> = vec![exchange];
        let mut next = 0;
        while let Some(name) = seen.get(next).copied() {
            next += 1;
            let Some(exchange) = self.exchanges.get(name) else { continue };
            let mut matched = false;
            let mut further = Vec::new();
            exchange.route(keys, headers, |destination| {
                matched = true;
                match destination {
                    Destination::Queue(id) => found.push(*id),
                    Destination::Exchange(name) => further.push(name),
                }
            });
            further.extend(exchange.declaration.alternate.as_ref().filter(|_| !matched));
            for name in further {
                if !seen.contains(&name) {
                    seen.push(name);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A reply address of one's own is made out to the channel that will get the reply.
    fn address_reply(&self, at: ChannelRef, publish: &mut Publish) -> Result<(), Fault> {
        if publish.properties.reply_to().as_ref().is_none_or(|address| address.as_str() != REPLY_TO) {
            return Ok(());
        }
        let reply = self.ledger(at).and_then(|ledger| ledger.reply.as_ref());
        let reply = reply.ok_or_else(|| Fault::precondition("fast reply consumer does not exist"))?;
        publish.redirect_reply(&format!("{REPLY_TO}.{}", reply.address));
        Ok(())
    }

    /// Direct replies go straight to the channel that asked. Nothing is kept for one that does not read.
    fn reply(&mut self, keys: &[Name], message: &Arc<Message>) {
        for token in keys.iter().filter_map(|key| key.strip_prefix(REPLY_TO)?.strip_prefix('.')) {
            let Some(at) = self.reply_addresses.get(token).copied() else { continue };
            let Some(session) = self.sessions.get_mut(&at.session) else { continue };
            if session.outbox_bytes >= 16 * OUTBOX_BYTES_MAX {
                continue;
            }
            let Some(ledger) = session.ledgers.get_mut(&at.number) else { continue };
            let Some(reply) = &ledger.reply else { continue };
            ledger.last_delivery_tag += 1;
            let outgoing = Outgoing::Deliver {
                channel: at.number,
                consumer_tag: reply.tag.clone(),
                delivery_tag: ledger.last_delivery_tag,
                redelivered: false,
                message: message.clone(),
            };
            self.send(at.session, outgoing);
        }
    }

    /// Gives a queue a message. Whether it took it.
    pub(super) fn offer(&mut self, id: QueueId, message: &Arc<Message>, terms: Terms) -> bool {
        let now = self.now.instant;
        let charge = self.memory.charge(ENTRY_OVERHEAD);
        let Some(queue) = self.queues.get_mut(&id) else { return true };
        let expires = queue.expiry(now, terms.ttl_milliseconds);
        let entry = Entry { message: message.clone(), redelivered: false, expires, _charge: charge };
        if queue.refuses(message.body.len()) {
            if queue.declaration.rules.overflow == Overflow::RejectPublishDeadLetter {
                self.dead_letter(id, entry, Reason::MaxLength);
            }
            return false;
        }
        queue.push(entry, terms.priority);
        self.dispatch(id);
        self.trim(id);
        true
    }

    /// Drops what is too much or too old, and sets the queue's timer.
    pub(super) fn trim(&mut self, id: QueueId) {
        while let Some(entry) = self.queues.get_mut(&id).and_then(super::super::queue::Queue::pop_excess) {
            self.dead_letter(id, entry, Reason::MaxLength);
        }
        self.expire(id, Ended::ByNow);
        self.set_timer(id);
    }

    /// Drops the first messages while their time to live has ended. Whether all such went: no more than a bounded number
    /// of dead letters waits at any time.
    pub(super) fn expire(&mut self, id: QueueId, ended: Ended) -> bool {
        let now = self.now.instant;
        let has_letters = self.queues.get(&id).is_some_and(|queue| queue.declaration.rules.dead_letters.is_some());
        loop {
            if has_letters && self.dying.len() >= DYING_MAX {
                return false;
            }
            let Some(entry) = self.queues.get_mut(&id).and_then(|queue| queue.pop_expired(now, ended)) else {
                return true;
            };
            self.dead_letter(id, entry, Reason::Expired);
        }
    }

    /// Makes sure that the broker looks at a queue again when something in it is due.
    pub(super) fn set_timer(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let Some(due) = queue.due() else { return };
        if queue.timer.is_some_and(|at| at <= due) {
            return;
        }
        if let Some(later) = queue.timer.replace(due) {
            self.timers.remove(&(later, id));
        }
        self.timers.insert((due, id));
    }

    /// Does what is due by now.
    pub(super) fn run_timers(&mut self) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= self.now.instant) {
            self.timers.remove(&(at, id));
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            queue.timer = None;
            if queue.end_of_life().is_some_and(|end| end <= self.now.instant) {
                self.remove_queue(id);
                continue;
            }
            let done = self.expire(id, Ended::ByNow);
            // What had to wait behind an expired message may go out now.
            self.dispatch(id);
            if !done {
                return;
            }
        }
    }
}

fn check_user(publish: &Publish) -> Result<(), Fault> {
    match publish.properties.user_id() {
        Some(user) if user.as_str() != USER => {
            Err(Fault::precondition(format!("user_id property set to '{user}' but authenticated user was '{USER}'")))
        }
        _ => Ok(()),
    }
}
