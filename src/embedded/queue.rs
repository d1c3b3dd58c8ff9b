//! A queue: messages in order, and the rules that it was declared with. Knows neither who consumes it nor where its
//! dead letters go; the broker asks it and acts.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amq_protocol::types::FieldTable;

use super::broker::{ConsumerId, SessionId};
use super::message::{Charge, Message, Name};
use super::queue_arguments::{Overflow, Rules};

/// A queue for ever: a queue declared anew under the same name is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct QueueId(pub(crate) u64);

/// Where a message stands in its queue: by priority, then by age. It comes back to this place when it is requeued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// 255 less the priority, so that the highest comes first.
    rank: u8,
    sequence: u64,
}

/// A message in a queue, or on its way from it to a consumer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) message: Arc<Message>,
    /// Whether it was handed out before.
    pub(crate) redelivered: bool,
    /// When its time to live ends.
    pub(crate) expires: Option<Instant>,
    /// What the place costs.
    pub(crate) _charge: Charge,
}

/// Which end of a time to live counts as over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// What ends now may still be handed out: a time to live of 0 reaches a waiting consumer.
    Before,
    /// What ends now is over.
    ByNow,
}

/// How a queue was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declaration {
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    /// The connection that alone may use it.
    pub(crate) owner: Option<SessionId>,
    pub(crate) rules: Rules,
}

/// A queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: Name,
    /// The arguments as they were sent: what a second declaration is compared with.
    pub(crate) arguments: FieldTable,
    pub(crate) declaration: Declaration,
    entries: BTreeMap<Place, Entry>,
    next_sequence: u64,
    body_bytes: usize,
    /// Who consumes, the next in turn first.
    pub(crate) consumers: VecDeque<ConsumerId>,
    /// Whether its one consumer asked to be the only one.
    pub(crate) exclusively_consumed: bool,
    /// The exchanges that it is or was bound to.
    pub(crate) bound_to: HashSet<Name>,
    /// When it was last declared, consumed or read: what `x-expires` counts from.
    pub(crate) used: Instant,
    /// When the broker will look at it again.
    pub(crate) timer: Option<Instant>,
}

impl Queue {
    /// An empty queue.
    pub(crate) fn new(name: Name, arguments: FieldTable, declaration: Declaration, now: Instant) -> Self {
        Self {
            name,
            arguments,
            declaration,
            entries: BTreeMap::new(),
            next_sequence: 0,
            body_bytes: 0,
            consumers: VecDeque::new(),
            exclusively_consumed: false,
            bound_to: HashSet::new(),
            used: now,
            timer: None,
        }
    }

    /// Messages that wait for a consumer.
    pub(crate) fn ready(&self) -> usize {
        self.entries.len()
    }

    /// Appends a message.
    pub(crate) fn push(&mut self, entry: Entry, priority: u8) {
        let highest = self.declaration.rules.max_priority.unwrap_or(0);
        let place = Place { rank: u8::MAX - priority.min(highest), sequence: self.next_sequence };
        self.next_sequence += 1;
        self.restore(place, entry);
    }

    /// Puts a message back where it stood.
    pub(crate) fn restore(&mut self, place: Place, entry: Entry) {
        self.body_bytes += entry.message.body.len();
        self.entries.insert(place, entry);
    }

    /// Takes the first message.
    pub(crate) fn pop(&mut self) -> Option<(Place, Entry)> {
        let (place, entry) = self.entries.pop_first()?;
        self.body_bytes -= entry.message.body.len();
        Some((place, entry))
    }

    /// Takes the first message if its time to live has ended.
    pub(crate) fn pop_expired(&mut self, now: Instant, ended: Ended) -> Option<Entry> {
        let (_, first) = self.entries.first_key_value()?;
        let over = first.expires.is_some_and(|end| match ended {
            Ended::Before => end < now,
            Ended::ByNow => end <= now,
        });
        if over { self.pop().map(|(_, entry)| entry) } else { None }
    }

    /// Takes the first message if the queue holds more than it may. One that refuses publishes has confirmed what it holds: when
    /// requeued messages make it too long, it only refuses until it is shorter.
    pub(crate) fn pop_excess(&mut self) -> Option<Entry> {
        let rules = &self.declaration.rules;
        if rules.overflow != Overflow::DropHead {
            return None;
        }
        let over = rules.max_length.is_some_and(|most| self.entries.len() as u64 > most)
            || rules.max_length_bytes.is_some_and(|most| self.body_bytes as u64 > most);
        if over { self.pop().map(|(_, entry)| entry) } else { None }
    }

    /// Whether a message of this size would be refused.
    pub(crate) fn refuses(&self, body_bytes: usize) -> bool {
        let rules = &self.declaration.rules;
        rules.overflow != Overflow::DropHead
            && (rules.max_length.is_some_and(|most| self.entries.len() as u64 >= most)
                || rules.max_length_bytes.is_some_and(|most| (self.body_bytes + body_bytes) as u64 > most))
    }

    /// Removes every message; how many there were.
    pub(crate) fn purge(&mut self) -> usize {
        self.body_bytes = 0;
        std::mem::take(&mut self.entries).len()
    }

    /// When something is due: its first message's end, or its own.
    pub(crate) fn due(&self) -> Option<Instant> {
        let message = self.entries.first_key_value().and_then(|(_, entry)| entry.expires);
        message.into_iter().chain(self.end_of_life()).min()
    }

    /// When it goes by itself unless somebody uses it.
    pub(crate) fn end_of_life(&self) -> Option<Instant> {
        let unused = self.consumers.is_empty();
        self.declaration.rules.expires.filter(|_| unused).and_then(|after| self.used.checked_add(after))
    }

    /// When a message that comes now ends: by its own time to live or the queue's, whichever is shorter.
    pub(crate) fn expiry(&self, now: Instant, own_milliseconds: Option<u64>) -> Option<Instant> {
        let own = own_milliseconds.map(Duration::from_millis);
        let shorter = own.into_iter().chain(self.declaration.rules.message_ttl).min()?;
        now.checked_add(shorter)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Account, Publish};
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn entry(number: u32) -> Entry {
        let account = Account::default();
        let publish = Publish {
            exchange: "".into(),
            routing_key: "".into(),
            properties: Default::default(),
            properties_raw: Bytes::from_static(&[0, 0]),
            body: Bytes::copy_from_slice(&number.to_be_bytes()),
        };
        let message = Arc::new(Message::new(publish, &account));
        Entry { message, redelivered: false, expires: None, _charge: account.charge(1) }
    }

    fn number(entry: &Entry) -> u32 {
        u32::from_be_bytes(entry.message.body[..].try_into().unwrap())
    }

    fn queue(rules: Rules) -> Queue {
        let declaration = Declaration { durable: false, auto_delete: false, owner: None, rules };
        Queue::new("q".into(), FieldTable::default(), declaration, Instant::now())
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Pop,
        Requeue(usize),
        Forget(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..5_u8).prop_map(Step::Push),
            4 => Just(Step::Pop),
            2 => any::<usize>().prop_map(Step::Requeue),
            1 => any::<usize>().prop_map(Step::Forget),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn the_order_is_priority_then_age_whatever_comes_back(steps in steps(), max_priority in prop::option::of(0..4_u8)) {
            let mut queue = queue(Rules { max_priority, ..Rules::default() });
            // The model: everything that waits, sorted by what the first must be.
            let mut model: Vec<(u8, u32)> = Vec::new();
            let mut out: Vec<(Place, Entry, u8)> = Vec::new();
            for (count, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(priority) => {
                        let number = u32::try_from(count).unwrap();
                        queue.push(entry(number), priority);
                        model.push((u8::MAX - priority.min(max_priority.unwrap_or(0)), number));
                    }
                    Step::Pop => {
                        let expected = model.iter().copied().min();
                        let popped = queue.pop();
                        prop_assert_eq!(popped.as_ref().map(|(_, entry)| number(entry)), expected.map(|(_, number)| number));
                        model.retain(|each| Some(*each) != expected);
                        out.extend(popped.zip(expected).map(|((place, entry), (rank, _))| (place, entry, rank)));
                    }
                    Step::Requeue(which) if !out.is_empty() => {
                        let (place, entry, rank) = out.swap_remove(which % out.len());
                        model.push((rank, number(&entry)));
                        queue.restore(place, entry);
                    }
                    Step::Forget(which) if !out.is_empty() => drop(out.swap_remove(which % out.len())),
                    _ => {}
                }
                prop_assert_eq!(queue.ready(), model.len());
                prop_assert_eq!(queue.body_bytes, 4 * model.len());
            }
        }
    }

    #[test]
    fn too_many_and_too_big_go_from_the_head_or_are_refused() {
        let mut dropping = queue(Rules { max_length: Some(2), max_length_bytes: Some(100), ..Rules::default() });
        (0..3).for_each(|each| dropping.push(entry(each), 0));
        assert_eq!(dropping.pop_excess().map(|entry| number(&entry)), Some(0));
        assert!(dropping.pop_excess().is_none() && !dropping.refuses(1_000));

        let rules = Rules { max_length_bytes: Some(8), overflow: Overflow::RejectPublish, ..Rules::default() };
        let mut refusing = queue(rules);
        refusing.push(entry(1), 0);
        assert!(!refusing.refuses(4) && refusing.refuses(5));
    }

    #[test]
    fn a_time_to_live_of_nothing_still_reaches_who_waits() {
        let mut queue = queue(Rules { message_ttl: Some(Duration::from_secs(5)), ..Rules::default() });
        let now = queue.used;
        assert_eq!(queue.expiry(now, Some(7_000)), Some(now + Duration::from_secs(5)), "the shorter counts");
        let expires = queue.expiry(now, Some(0));
        queue.push(Entry { expires, ..entry(1) }, 0);
        assert_eq!(queue.due(), Some(now));
        assert!(queue.pop_expired(now, Ended::Before).is_none());
        assert!(queue.pop_expired(now, Ended::ByNow).is_some());
    }
}
