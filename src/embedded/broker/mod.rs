//! The broker itself: exchanges, queues, consumers and what each connection is to be sent. It does no I/O, is not
//! asynchronous and reads no clock: whoever holds it tells it the time at the beginning of a turn and carries out, at the
//! end, what the turn asks for.
//!
//! One mutex around it is all the concurrency there is. A turn is bounded: what a client may cause in one request is
//! bounded by the limits, and dead letters, which can cause each other, are taken up a piece at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::exchange::{Declaration, Exchange, Kind};
use super::fault::{Code, Fault};
use super::limits::OUTBOX_BYTES_MAX;
use super::message::{Account, Message, Name};
use super::queue::{Entry, Place, Queue, QueueId};

mod dead_letters;
mod delivery;
mod publishing;
mod settling;
mod topology;

#[cfg(test)]
mod tests;

pub(crate) use publishing::Published;
pub(crate) use settling::{Verdict, Which};
pub(crate) use topology::Link;

/// The one user there is, as in the URLs that clients use by default.
pub(crate) const USER: &str = "guest";

/// A connection that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// A consumer for ever: one made anew under the same tag is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConsumerId(u64);

/// A channel of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChannelRef {
    pub(crate) session: SessionId,
    pub(crate) number: u16,
}

/// The time of a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// For what runs out.
    pub(crate) instant: Instant,
    /// For what is written down: seconds since 1970.
    pub(crate) unix_seconds: u64,
}

/// Something that a connection is to be sent without having asked for it just now.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A message for a consumer.
    Deliver { channel: u16, consumer_tag: Name, delivery_tag: u64, redelivered: bool, message: Arc<Message> },
    /// The end of a consumer whose queue is gone.
    Cancel { channel: u16, consumer_tag: Name },
}

/// What the end of a turn asks of whoever holds the broker.
#[derive(Debug)]
pub(crate) struct TurnEnd {
    /// Connections that have something to be sent, or may publish again.
    pub(crate) woken: Vec<SessionId>,
    /// When the broker wants its next turn, if nothing else happens.
    pub(crate) due: Option<Instant>,
}

/// The broker. See the module.
#[derive(Debug)]
pub(crate) struct Broker {
    now: Moment,
    exchanges: HashMap<Name, Exchange>,
    queue_names: HashMap<Name, QueueId>,
    queues: HashMap<QueueId, Queue>,
    bindings: usize,
    consumers: HashMap<ConsumerId, Consumer>,
    sessions: HashMap<SessionId, Session>,
    /// Who gets direct replies, by the token in the address.
    reply_addresses: HashMap<Name, ChannelRef>,
    /// Messages that died and are not yet routed on.
    dying: VecDeque<dead_letters::Dying>,
    /// Whether some of them are being routed on.
    is_burying: bool,
    timers: BTreeSet<(Instant, QueueId)>,
    woken: Vec<SessionId>,
    memory: Account,
    memory_bytes_max: usize,
    /// Whether publishers have to wait.
    alarm: bool,
    last_id: u64,
}

#[derive(Debug)]
struct Session {
    /// Whether the client wants to be told when a consumer's queue is gone.
    cancel_notify: bool,
    ledgers: HashMap<u16, Ledger>,
    outbox: VecDeque<Outgoing>,
    outbox_bytes: usize,
    /// Queues that had something for this connection while its outbox was full.
    starved: HashSet<QueueId>,
    /// Whether it stands in `woken`.
    is_woken: bool,
    /// Whether it waits for the alarm to end.
    is_blocked: bool,
}

/// What one channel consumes and has not yet settled.
#[derive(Debug, Default)]
struct Ledger {
    consumers: HashMap<Name, ConsumerId>,
    unsettled: BTreeMap<u64, Unsettled>,
    last_delivery_tag: u64,
    /// Deliveries to consumers among the unsettled.
    in_flight: usize,
    /// For consumers to come; 0 is no limit.
    prefetch_each: u16,
    /// For all consumers together; 0 is no limit.
    prefetch_all: u16,
    reply: Option<ReplyConsumer>,
}

/// The consumer of direct replies, one a channel.
#[derive(Debug)]
struct ReplyConsumer {
    tag: Name,
    address: Name,
}

#[derive(Debug)]
struct Unsettled {
    queue: QueueId,
    place: Place,
    entry: Entry,
    /// Who holds it; nobody in particular after `basic.get`.
    consumer: Option<ConsumerId>,
}

#[derive(Debug)]
struct Consumer {
    at: ChannelRef,
    tag: Name,
    queue: QueueId,
    no_ack: bool,
    prefetch: u16,
    in_flight: usize,
    priority: i64,
}

impl Broker {
    /// A broker with the predeclared exchanges and nothing else.
    pub(crate) fn new(memory_bytes_max: usize, now: Moment) -> Self {
        let predeclared = |kind, internal| {
            Exchange::new(Declaration { kind, durable: true, auto_delete: false, internal, alternate: None })
        };
        let exchanges = [
            ("", Kind::Direct, false),
            ("amq.direct", Kind::Direct, false),
            ("amq.fanout", Kind::Fanout, false),
            ("amq.topic", Kind::Topic, false),
            ("amq.headers", Kind::Headers, false),
            ("amq.match", Kind::Headers, false),
            ("amq.rabbitmq.trace", Kind::Topic, true),
        ];
        Self {
            now,
            exchanges: exchanges.map(|(name, kind, internal)| (name.into(), predeclared(kind, internal))).into(),
            queue_names: HashMap::new(),
            queues: HashMap::new(),
            bindings: 0,
            consumers: HashMap::new(),
            sessions: HashMap::new(),
            reply_addresses: HashMap::new(),
            dying: VecDeque::new(),
            is_burying: false,
            timers: BTreeSet::new(),
            woken: Vec::new(),
            memory: Account::default(),
            memory_bytes_max,
            alarm: false,
            last_id: 0,
        }
    }

    /// Begins a turn: tells the time.
    pub(crate) fn begin(&mut self, now: Moment) {
        self.now = now;
    }

    /// Ends a turn: takes up a piece of what died, and says who has to be woken and when the next turn is due.
    pub(crate) fn end(&mut self) -> TurnEnd {
        self.run_timers();
        self.bury_some();
        self.watch_memory();
        let mut woken = std::mem::take(&mut self.woken);
        woken.retain(|id| match self.sessions.get_mut(id) {
            Some(session) => {
                session.is_woken = false;
                !session.outbox.is_empty() || (session.is_blocked && !self.alarm)
            }
            None => false,
        });
        let due = if self.dying.is_empty() { self.timers.first().map(|(at, _)| *at) } else { Some(self.now.instant) };
        TurnEnd { woken, due }
    }

    /// Opens a session for a connection.
    pub(crate) fn open_session(&mut self, cancel_notify: bool) -> SessionId {
        let id = SessionId(self.next_id());
        let session = Session {
            cancel_notify,
            ledgers: HashMap::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            starved: HashSet::new(),
            is_woken: false,
            is_blocked: false,
        };
        self.sessions.insert(id, session);
        id
    }

    /// How many sessions are open.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Ends a session: what it held goes back, what was its own goes.
    pub(crate) fn close_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let numbers: Vec<u16> = session.ledgers.keys().copied().collect();
        for number in numbers {
            self.close_channel(ChannelRef { session: id, number });
        }
        self.sessions.remove(&id);
        let own = self.queues.iter().filter(|(_, queue)| queue.declaration.owner == Some(id));
        for queue in own.map(|(queue, _)| *queue).collect::<Vec<_>>() {
            self.remove_queue(queue);
        }
    }

    /// Opens a channel.
    pub(crate) fn open_channel(&mut self, at: ChannelRef) {
        if let Some(session) = self.sessions.get_mut(&at.session) {
            session.ledgers.insert(at.number, Ledger::default());
        }
    }

    /// Closes a channel: its consumers end first, so that what it held goes to others.
    pub(crate) fn close_channel(&mut self, at: ChannelRef) {
        let Some(ledger) = self.session_mut(at).and_then(|session| session.ledgers.remove(&at.number)) else { return };
        if let Some(session) = self.session_mut(at) {
            // What it was still to be sent is unsettled and goes back to its queue.
            session.outbox.retain(|outgoing| outgoing.channel() != at.number);
            session.outbox_bytes = session.outbox.iter().map(Outgoing::bytes).sum();
        }
        if let Some(reply) = ledger.reply {
            self.reply_addresses.remove(&reply.address);
        }
        let left: Vec<QueueId> = ledger.consumers.into_values().filter_map(|id| self.detach(id)).collect();
        let returned = self.give_back(ledger.unsettled.into_values());
        left.iter().for_each(|queue| self.delete_if_abandoned(*queue));
        // Those that were left too: a single active consumer may have made way for the next one.
        left.into_iter().chain(returned).for_each(|queue| self.resume(queue));
    }

    /// Whether publishers have to wait because too much is held.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.alarm
    }

    /// Notes that a connection waits for the alarm to end, or no longer does.
    pub(crate) fn set_blocked(&mut self, id: SessionId, is_blocked: bool) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.is_blocked = is_blocked;
        }
    }

    /// Raises the alarm when the account is over its bound, and ends it when a tenth of the bound is free again.
    fn watch_memory(&mut self) {
        let used = self.memory.used();
        if used > self.memory_bytes_max {
            if !self.alarm {
                tracing::warn!(used, most = self.memory_bytes_max, "embedded broker is full: publishers have to wait");
            }
            self.alarm = true;
        } else if self.alarm && used <= self.memory_bytes_max / 10 * 9 {
            self.alarm = false;
            tracing::info!(used, "embedded broker takes messages again");
            let blocked: Vec<_> =
                self.sessions.iter().filter(|(_, session)| session.is_blocked).map(|(id, _)| *id).collect();
            blocked.into_iter().for_each(|id| self.wake(id));
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A name that nobody can guess or has.
    fn fresh_name(prefix: &str) -> Name {
        let bytes: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
        format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)).into()
    }

    fn session_mut(&mut self, at: ChannelRef) -> Option<&mut Session> {
        self.sessions.get_mut(&at.session)
    }

    fn ledger(&self, at: ChannelRef) -> Option<&Ledger> {
        self.sessions.get(&at.session)?.ledgers.get(&at.number)
    }

    fn ledger_mut(&mut self, at: ChannelRef) -> Option<&mut Ledger> {
        self.sessions.get_mut(&at.session)?.ledgers.get_mut(&at.number)
    }

    /// The ledger of a channel that makes a request.
    fn open_ledger(&mut self, at: ChannelRef) -> Result<&mut Ledger, Fault> {
        let closed = || Fault::new(Code::ChannelError, format!("channel {} is not open", at.number));
        self.ledger_mut(at).ok_or_else(closed)
    }

    fn wake(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.is_woken) {
            session.is_woken = true;
            self.woken.push(id);
        }
    }

    fn send(&mut self, id: SessionId, outgoing: Outgoing) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.outbox_bytes += outgoing.bytes();
            session.outbox.push_back(outgoing);
            self.wake(id);
        }
    }

    /// Takes what a connection is to be sent.
    pub(crate) fn take_outbox(&mut self, id: SessionId) -> VecDeque<Outgoing> {
        let Some(session) = self.sessions.get_mut(&id) else { return VecDeque::new() };
        session.outbox_bytes = 0;
        std::mem::take(&mut session.outbox)
    }

    /// Hands a connection whose outbox was emptied what queues kept back for it. Whether there was anything.
    pub(crate) fn feed(&mut self, id: SessionId) -> bool {
        let starved =
            self.sessions.get_mut(&id).map(|session| std::mem::take(&mut session.starved)).unwrap_or_default();
        starved.into_iter().for_each(|queue| self.dispatch(queue));
        self.sessions.get(&id).is_some_and(|session| !session.outbox.is_empty())
    }
}

impl Session {
    fn is_full(&self) -> bool {
        self.outbox_bytes >= OUTBOX_BYTES_MAX
    }
}

impl Outgoing {
    fn channel(&self) -> u16 {
        match self {
            Self::Deliver { channel, .. } | Self::Cancel { channel, .. } => *channel,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Deliver { message, .. } => message.body.len() + message.properties.len() + 128,
            Self::Cancel { .. } => 64,
        }
    }
}
