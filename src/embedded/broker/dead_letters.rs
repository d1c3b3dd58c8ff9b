//! Dead letters on their way: what died in one queue is routed on to others, a piece a turn, because queues can be wired
//! so that one death causes many.

use std::sync::Arc;

use amq_protocol::types::FieldTable;

use super::super::dead_letter::{Death, Reason, bury, bury_unrecorded, is_cycle};
use super::super::message::{Message, Name, Publish, encode_properties, extra_keys, fits_content_header};
use super::super::queue::{Entry, QueueId};
use super::super::queue_arguments::DeadLetters;
use super::Broker;
use super::publishing::Terms;

/// Dead letters that may wait to be routed on. What dies beyond it has to wait its turn, or makes some of them go first;
/// only what dies of dead letters being routed on is gone then, because those may cause each other without end.
pub(super) const DYING_MAX: usize = 50_000;
/// How many are routed on in a turn, or at once when too many wait.
const BURIALS_A_TURN_MAX: usize = 500;

/// A message that died.
#[derive(Debug)]
pub(super) struct Dying {
    message: Arc<Message>,
    queue: Name,
    letters: DeadLetters,
    reason: Reason,
}

impl Broker {
    /// A message leaves its queue for the dead letters, if the queue has such.
    pub(super) fn dead_letter(&mut self, id: QueueId, entry: Entry, reason: Reason) {
        if self.dying.len() >= DYING_MAX && !self.is_burying {
            self.bury_some();
        }
        let Some(queue) = self.queues.get(&id) else { return };
        let Some(letters) = queue.declaration.rules.dead_letters.clone() else { return };
        if self.dying.len() >= DYING_MAX {
            tracing::warn!(queue = %queue.name, "too many dead letters at once: one is lost");
            return;
        }
        self.dying.push_back(Dying { message: entry.message, queue: queue.name.clone(), letters, reason });
    }

    /// Routes a piece of the dead letters on.
    pub(super) fn bury_some(&mut self) {
        self.is_burying = true;
        for _ in 0..BURIALS_A_TURN_MAX {
            let Some(dying) = self.dying.pop_front() else { break };
            self.bury_one(dying);
        }
        self.is_burying = false;
    }

    fn bury_one(&mut self, dying: Dying) {
        let exchange = dying.letters.exchange;
        if !self.exchanges.contains_key(&exchange) {
            return;
        }
        let new_key = dying.letters.routing_key;
        let death = Death { queue: &dying.queue, reason: dying.reason, unix_seconds: self.now.unix_seconds };
        let mut properties = bury(&dying.message, &death, new_key.as_deref());
        let mut properties_raw = encode_properties(&properties);
        let is_recorded = fits_content_header(&properties_raw);
        if !is_recorded {
            tracing::warn!(queue = %dying.queue, "a dead letter's headers leave no room for x-death");
            properties = bury_unrecorded(&dying.message, new_key.as_deref());
            properties_raw = encode_properties(&properties);
        }
        let key = new_key.unwrap_or_else(|| dying.message.routing_key.clone());
        let headers = properties.headers().clone().unwrap_or_default();
        let mut keys = vec![key.clone()];
        keys.extend(extra_keys(&headers, "CC").unwrap_or_default());
        let mut queues = self.route(&exchange, &keys, Some(&headers));
        if dying.reason != Reason::Rejected {
            let record = is_recorded.then_some(&headers);
            queues.retain(|id| self.ends_there(*id, record));
        }
        let terms = Terms { priority: properties.priority().unwrap_or(0), ttl_milliseconds: None };
        let publish =
            Publish { exchange, routing_key: key, properties_raw, properties, body: dying.message.body.clone() };
        let message = Arc::new(Message::new(publish, &self.memory));
        for id in queues {
            self.offer(id, &message, terms);
        }
    }

    /// Whether a message that nobody rejected may go to a queue without going round for ever: not where it died like that
    /// before. Without a record of its deaths, only where it cannot die again.
    fn ends_there(&self, id: QueueId, record: Option<&FieldTable>) -> bool {
        let Some(queue) = self.queues.get(&id) else { return false };
        match record {
            Some(headers) => !is_cycle(headers, &queue.name),
            None => queue.declaration.rules.dead_letters.is_none(),
        }
    }
}
