//! The codec of one session: frames in, commands out; events in, frames out. What it remembers is what the session does not:
//! which ids the client gave, what waits in transactions, what it has still to acknowledge, and when heart-beats are due.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::heart_beat::HeartBeat;
use super::label::Name;
use super::message;
use super::reader::{Limits, Reader, Received};
use super::receipts::Answers;
use super::transactions::Transactions;
use super::version::Version;
use super::writer::{self, ConnectedFrame, ErrorFrame, HEART_BEAT};
use crate::model::close::CloseReason;
use crate::model::delivery::{Delivery, DeliveryTag, Settlement};
use crate::model::label::Label;
use crate::protocol::missing::Untold;
use crate::protocol::{
    Codec, CommandId, ErrorCode, Event, Fault, Gap, HandOut, Incoming, Message, Opening, Outbound, Receiving, Said,
    Tick,
};

/// Headers of one frame.
const HEADERS_MAX: usize = 100;

/// Bytes of a frame before its body.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What this server does of heart-beats: as often as the client wants, and it minds when the client stops.
const HEART_BEATS: HeartBeat = HeartBeat { sends: Some(Duration::from_secs(1)), wants: Some(Duration::from_secs(1)) };

/// The codec.
#[derive(Debug)]
pub(super) struct Stomp {
    reader: Reader,
    /// What came after the first frame of a message, and how much of that was read.
    pending: Vec<u8>,
    read: usize,
    /// What the frame that was read last says, beyond the first thing.
    pub(super) said: VecDeque<Said>,
    pub(super) standing: Standing,
    pub(super) version: Version,
    pub(super) subscriptions: BTreeMap<String, Listening>,
    pub(super) transactions: Transactions,
    /// Of committed transactions: parts that are not done yet, and the receipt for all of them.
    pub(super) committed: BTreeMap<u64, (usize, Option<String>)>,
    pub(super) commits: u64,
    untold: Untold<Label>,
    pub(super) heart_beat: HeartBeat,
    beats: Beats,
}

/// How far the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody has said who they are.
    New,
    /// `CONNECT` came, or was answered.
    Connected,
    /// `ERROR` was sent, or `DISCONNECT` came: nothing more is said.
    Over,
}

/// What a subscription of the client listens to.
#[derive(Debug)]
pub(super) enum Listening {
    /// Topics.
    Topics(Label),
    /// A queue.
    Queue(Queue),
}

/// A queue that is consumed.
#[derive(Debug)]
pub(super) struct Queue {
    /// The subscription's id; none where a client of 1.0 gave none.
    pub(super) id: Option<String>,
    /// As the session calls it.
    pub(super) name: String,
    /// As the client wrote it.
    pub(super) destination: String,
    pub(super) mode: Mode,
    /// What the client has still to acknowledge, in the order in which it came.
    pub(super) held: VecDeque<DeliveryTag>,
}

/// How messages are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// By being sent.
    Auto,
    /// By the client, each with all before it.
    Client,
    /// By the client, one by one.
    ClientIndividual,
}

/// When heart-beats are due.
#[derive(Debug, Default)]
struct Beats {
    send_at: Option<Instant>,
    expect_by: Option<Instant>,
    /// Whether anything came since the client was last looked for.
    heard: bool,
}

impl Stomp {
    pub(super) fn new(opening: &Opening) -> Self {
        let limits = Limits {
            headers_max: HEADERS_MAX,
            head_bytes_max: HEAD_BYTES_MAX,
            body_bytes_max: opening.message_bytes_max,
        };
        Self {
            reader: Reader::new(limits),
            pending: Vec::new(),
            read: 0,
            said: VecDeque::new(),
            standing: Standing::New,
            version: Version::V10,
            subscriptions: BTreeMap::new(),
            transactions: Transactions::default(),
            committed: BTreeMap::new(),
            commits: 0,
            untold: Untold::default(),
            heart_beat: HeartBeat::NONE,
            beats: Beats::default(),
        }
    }

    /// The first thing that bytes say. What comes after it is left in them.
    fn read(&mut self, input: &mut &[u8]) -> Result<Said, Fault> {
        while self.standing != Standing::Over {
            match self.reader.next(input).map_err(|error| bad_frame(error.to_string()))? {
                Some(Received::Frame(frame)) => {
                    let said = self.frame(frame)?;
                    if !matches!(said, Said::Nothing) {
                        return Ok(said);
                    }
                    // What a transaction held.
                    if let Some(said) = self.said.pop_front() {
                        return Ok(said);
                    }
                }
                Some(Received::HeartBeat) => {}
                None => break,
            }
        }
        *input = &[];
        Ok(Said::Nothing)
    }

    /// The first thing that a message says. The rest of it is copied once, however many frames it holds.
    fn begin(&mut self, mut input: &[u8]) -> Result<Said, Fault> {
        let said = self.read(&mut input);
        (self.pending, self.read) = (input.to_vec(), 0);
        said
    }

    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.pending.is_empty() && self.said.is_empty()
    }

    /// From now on the client's frames are read as of this version.
    pub(super) fn speak(&mut self, version: Version) {
        self.version = version;
        self.reader.speak(version);
    }

    /// What this server and a client that says this of itself do.
    pub(super) fn agree(&mut self, client: HeartBeat) {
        self.heart_beat = HEART_BEATS.agree(client);
    }

    /// The queue subscription that holds a delivery.
    pub(super) fn holder(&mut self, tag: DeliveryTag) -> Option<&mut Queue> {
        self.subscriptions.values_mut().find_map(|listening| match listening {
            Listening::Queue(queue) if queue.held.contains(&tag) => Some(queue),
            Listening::Queue(_) | Listening::Topics(_) => None,
        })
    }

    /// A delivery for the subscription that has it, and how that wants it acknowledged.
    fn delivered(&mut self, delivery: &Delivery) -> Option<(Outbound, Mode)> {
        let version = self.version;
        let queue = self.subscriptions.values_mut().find_map(|listening| match listening {
            Listening::Queue(queue) if *queue.name == *delivery.queue => Some(queue),
            Listening::Queue(_) | Listening::Topics(_) => None,
        })?;
        let acknowledges = queue.mode != Mode::Auto;
        if acknowledges {
            queue.held.push_back(delivery.tag);
        }
        let name = Name { version, acknowledges, exchange: None, id: queue.id.as_deref() };
        Some((message::of_delivery(&name, &queue.destination, delivery), queue.mode))
    }

    fn revoked(&mut self, tags: &[DeliveryTag]) {
        for listening in self.subscriptions.values_mut() {
            if let Listening::Queue(queue) = listening {
                queue.held.retain(|tag| !tags.contains(tag));
            }
        }
    }

    fn missed(&mut self, gap: &Gap) {
        if let Some(label) = &gap.label {
            self.untold.note(label, gap);
        }
    }

    /// A label that is used no more has nothing to be told.
    pub(super) fn forget(&mut self, label: &Label) {
        self.untold.forget(label);
    }

    fn done(&mut self, id: &CommandId) -> Option<Outbound> {
        match Answers::of(id) {
            Answers::Receipt(receipt) => Some(self.receipt(&receipt)),
            Answers::Part(number) => self.part_done(number),
            Answers::Nobody | Answers::Reply { .. } => None,
        }
    }

    fn part_done(&mut self, number: u64) -> Option<Outbound> {
        let (left, _) = self.committed.get_mut(&number)?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        let (_, receipt) = self.committed.remove(&number)?;
        Some(self.receipt(&receipt?))
    }

    pub(super) fn receipt(&self, id: &str) -> Outbound {
        Outbound::Text(writer::receipt(self.version, id))
    }

    /// The reply to a request, and with it the receipt of the request, where it asked for one.
    fn replied(&self, event: &Event) -> Option<Outbound> {
        let Event::Result { id, reply } = event else { return None };
        let Answers::Reply { to, correlation, .. } = Answers::of(id) else { return None };
        Some(message::of_reply(self.version, (&to, correlation.as_deref()), reply))
    }

    fn failed(&mut self, id: &CommandId, code: ErrorCode, sentence: &str) -> Option<Outbound> {
        let receipt = match Answers::of(id) {
            // Nobody answered a request: nothing comes, as from RabbitMQ, and the session goes on.
            Answers::Reply { .. } if code == ErrorCode::Timeout => return None,
            Answers::Receipt(receipt) => Some(receipt),
            Answers::Part(number) => self.committed.remove(&number).and_then(|(_, receipt)| receipt),
            Answers::Reply { receipt, .. } => receipt,
            Answers::Nobody => None,
        };
        self.standing = Standing::Over;
        Some(self.error(code.name(), receipt.as_deref(), sentence))
    }

    fn error(&self, word: &str, receipt_id: Option<&str>, sentence: &str) -> Outbound {
        let frame = ErrorFrame { message: word, receipt_id, detail: sentence };
        Outbound::Text(writer::error(self.version, &frame))
    }
}

impl Codec for Stomp {
    fn decode(&mut self, message: Incoming<'_>) -> Result<Said, Fault> {
        self.beats.heard = true;
        match message {
            Incoming::Text(text) => self.begin(text.as_bytes()),
            Incoming::Binary(bytes) => self.begin(bytes),
        }
    }

    fn more(&mut self) -> Result<Said, Fault> {
        if let Some(said) = self.said.pop_front() {
            return Ok(said);
        }
        let pending = std::mem::take(&mut self.pending);
        let mut input = pending.get(self.read..).unwrap_or_default();
        let said = self.read(&mut input);
        self.read = pending.len() - input.len();
        if !input.is_empty() {
            self.pending = pending;
        }
        said
    }

    fn hand_out(&mut self, delivery: Box<Delivery>) -> HandOut {
        match self.delivered(&delivery) {
            Some((outbound, Mode::Auto)) => HandOut::Settled(Some(outbound), Settlement::Acknowledge),
            Some((outbound, Mode::Client | Mode::ClientIndividual)) => HandOut::Written(outbound),
            None => HandOut::Settled(None, Settlement::Requeue),
        }
    }

    fn encode(&mut self, event: &Event) -> Option<Outbound> {
        match event {
            Event::Welcome { connection, server, user, .. } => {
                let (version, heart_beat, user) = (self.version, self.heart_beat, user.as_deref());
                let frame = ConnectedFrame { version, session: connection, server, heart_beat, user };
                Some(Outbound::Text(writer::connected(&frame)))
            }
            Event::Subscribed { id, .. } | Event::Done { id, .. } => self.done(id),
            Event::Delivered(delivery) => self.delivered(delivery).map(|(outbound, _)| outbound),
            Event::Result { .. } => self.replied(event),
            Event::Error { id, code, message } => self.failed(id, *code, message),
            Event::Revoked { tags } => {
                self.revoked(tags);
                None
            }
            Event::Gap(gap) => {
                self.missed(gap);
                None
            }
            // For these the protocol has no word: what was missed is told by the next message.
            Event::CaughtUp { .. }
            | Event::Position { .. }
            | Event::Outage { .. }
            | Event::Restored { .. }
            | Event::Presence { .. }
            | Event::Joined { .. }
            | Event::Left { .. }
            | Event::Goodbye { .. }
            | Event::Pong { .. } => None,
        }
    }

    fn farewell(&mut self, reason: CloseReason, detail: &str) -> Option<Outbound> {
        let over = std::mem::replace(&mut self.standing, Standing::Over) == Standing::Over;
        (!over && reason != CloseReason::Normal).then(|| self.error(reason.name(), None, detail))
    }

    fn tick(&mut self, now: Instant) -> Tick {
        let mut tick = Tick::default();
        if self.beats.send_at.is_some_and(|at| at <= now) {
            tick.send = Some(Outbound::Text(HEART_BEAT));
        }
        if self.beats.expect_by.is_some_and(|by| by <= now) {
            if !self.beats.heard {
                tick.end = Some((CloseReason::Timeout, "no heart-beat came in time: send what CONNECT promised"));
            }
            self.beats.heard = false;
        }
        self.beats.send_at = next(self.beats.send_at, self.heart_beat.sends, now);
        // Looked for once a patience: who sent nothing from one look to the next is gone.
        self.beats.expect_by = next(self.beats.expect_by, self.heart_beat.patience(), now);
        tick.next = self.beats.send_at.into_iter().chain(self.beats.expect_by).min();
        tick
    }

    fn excuse(&mut self) {
        self.beats.heard = true;
    }

    fn receiving(&self) -> Receiving {
        if self.untold.is_empty() { Receiving::Shared } else { Receiving::Own(usize::MAX) }
    }

    fn message(&mut self, message: Message<'_>) -> Option<Outbound> {
        let [label] = message.labels else { return None };
        let missing = self.untold.take(label);
        Some(message::of_publication(&Name::of(label)?, message.publication, message.stage, missing.as_ref()))
    }
}

/// When something that comes round is due after this time.
fn next(due: Option<Instant>, period: Option<Duration>, now: Instant) -> Option<Instant> {
    match due {
        Some(due) if due > now => Some(due),
        _ => now.checked_add(period?),
    }
}

/// What a client sent that is no frame, or makes no sense; its session ends with it.
pub(super) fn bad_frame(message: String) -> Fault {
    Fault::Reply { id: None, code: ErrorCode::BadMessage, message }
}
