//! Settling what was handed out: acknowledged, rejected, put back; and how much may be unsettled.

use std::collections::HashSet;

use amq_protocol::protocol::basic;

use super::super::dead_letter::Reason;
use super::super::fault::Fault;
use super::super::queue::QueueId;
use super::{Broker, ChannelRef, Unsettled};

/// What a client says of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done with.
    Acknowledge,
    /// Back to its place in the queue.
    Requeue,
    /// Gone, to the dead letters where there are any.
    Discard,
}

/// Which deliveries a verdict is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// This one.
    One(u64),
    /// All up to this one; 0 is all there are.
    UpTo(u64),
}

impl Which {
    /// The delivery tag and the flag of `basic.ack` and `basic.nack`.
    pub(crate) fn new(delivery_tag: u64, multiple: bool) -> Self {
        if multiple { Self::UpTo(delivery_tag) } else { Self::One(delivery_tag) }
    }
}

impl Broker {
    /// Settles deliveries.
    ///
    /// # Errors
    /// 406 when there is no such delivery on this channel.
    pub(crate) fn settle(&mut self, at: ChannelRef, which: Which, verdict: Verdict) -> Result<(), Fault> {
        let ledger = self.open_ledger(at)?;
        let unknown = |tag: u64| Fault::precondition(format!("unknown delivery tag {tag}"));
        let settled = match which {
            Which::UpTo(0) => std::mem::take(&mut ledger.unsettled),
            Which::UpTo(tag) if ledger.unsettled.contains_key(&tag) => {
                let later = ledger.unsettled.split_off(&tag.saturating_add(1));
                std::mem::replace(&mut ledger.unsettled, later)
            }
            Which::One(tag) if ledger.unsettled.contains_key(&tag) => {
                ledger.unsettled.remove_entry(&tag).into_iter().collect()
            }
            Which::One(tag) | Which::UpTo(tag) => return Err(unknown(tag)),
        };
        let mut queues = self.free_credit(at, settled.values());
        match verdict {
            Verdict::Acknowledge => {}
            Verdict::Requeue => queues.extend(self.give_back(settled.into_values())),
            Verdict::Discard => {
                for (_, unsettled) in settled {
                    self.dead_letter(unsettled.queue, unsettled.entry, Reason::Rejected);
                }
            }
        }
        queues.into_iter().for_each(|queue| self.resume(queue));
        Ok(())
    }

    /// `basic.recover`: everything unsettled goes back and is handed out again, perhaps to others.
    ///
    /// # Errors
    /// 504 when the channel is not open.
    pub(crate) fn recover(&mut self, at: ChannelRef) -> Result<(), Fault> {
        self.settle(at, Which::UpTo(0), Verdict::Requeue)
    }

    /// `basic.qos`: how much may be unsettled, for each consumer to come or for the channel as a whole.
    ///
    /// # Errors
    /// 504 when the channel is not open.
    pub(crate) fn set_prefetch(&mut self, at: ChannelRef, method: &basic::Qos) -> Result<(), Fault> {
        let ledger = self.open_ledger(at)?;
        if !method.global {
            ledger.prefetch_each = method.prefetch_count;
            return Ok(());
        }
        ledger.prefetch_all = method.prefetch_count;
        self.queues_of(at).into_iter().for_each(|queue| self.dispatch(queue));
        Ok(())
    }

    /// The queues that a channel consumes.
    fn queues_of(&self, at: ChannelRef) -> HashSet<QueueId> {
        let consumers = self.ledger(at).into_iter().flat_map(|ledger| ledger.consumers.values());
        consumers.filter_map(|id| self.consumers.get(id)).map(|consumer| consumer.queue).collect()
    }

    /// Deliveries no longer count against their consumers' limits; the queues that may now go on.
    fn free_credit<'a>(&mut self, at: ChannelRef, settled: impl Iterator<Item = &'a Unsettled>) -> HashSet<QueueId> {
        let mut queues = HashSet::new();
        let mut freed = 0;
        for unsettled in settled {
            let Some(id) = unsettled.consumer else { continue };
            freed += 1;
            let Some(consumer) = self.consumers.get_mut(&id) else { continue };
            consumer.in_flight = consumer.in_flight.saturating_sub(1);
            if consumer.prefetch > 0 {
                queues.insert(consumer.queue);
            }
        }
        let Some(ledger) = self.ledger_mut(at) else { return queues };
        ledger.in_flight = ledger.in_flight.saturating_sub(freed);
        if ledger.prefetch_all > 0 {
            queues.extend(self.queues_of(at));
        }
        queues
    }

    /// Puts deliveries back where they stood, marked as redelivered; the queues that got some. Those of a queue that is
    /// gone go with it.
    pub(super) fn give_back(&mut self, unsettled: impl Iterator<Item = Unsettled>) -> HashSet<QueueId> {
        let mut queues = HashSet::new();
        for mut each in unsettled {
            if let Some(queue) = self.queues.get_mut(&each.queue) {
                each.entry.redelivered = true;
                queue.restore(each.place, each.entry);
                queues.insert(each.queue);
            }
        }
        queues
    }
}
