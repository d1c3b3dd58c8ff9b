//! One established connection: its socket, the reader of its frames, its codec, its session and what waits to be written.
//!
//! It writes to its socket and reads nothing of the hub: the driver decides what is written and when.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::hub::outbox::{Outbox, OutboxBounds, Overflow, Started};
use crate::hub::shard::Place;
use crate::hub::turn::Delivery;
use crate::model::close::CloseReason;
use crate::model::delivery::{ConsumeOrder, DeliveryTag, Settlement};
use crate::model::topic::Pattern;
use crate::protocol::{Codec, Outbound, ProtocolId, Receiving};
use crate::session::{ClientName, ConsumeKey, JobKey, Session};
use crate::transport::driver::Admission;
use crate::transport::driver::plan::{Form, Plan};
use crate::transport::driver::polling::Polling;
use crate::transport::seats::Seat;
use crate::transport::socket::{Socket, Written};
use crate::transport::websocket::Opcode;
use crate::transport::websocket::reader::Reader;
use crate::transport::websocket::writer::{self, Packing};
use crate::transport::wire::Framing;

/// Pieces of one vectored write. Below 64 the calls themselves begin to cost more than the bytes.
const SLICES_MAX: usize = 128;

/// Small frames up to this many bytes together are copied side by side: cheaper than a piece each.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// An established connection.
pub(super) struct Connection {
    pub(super) socket: Socket,
    /// Reads frames; an event stream has none, for nobody speaks there but the server.
    pub(super) reader: Option<Reader>,
    pub(super) codec: Box<dyn Codec + Send>,
    pub(super) session: Session,
    pub(super) outbox: Outbox,
    pub(super) framing: Framing,
    pub(super) protocol: ProtocolId,
    /// Which bytes it shares with others.
    pub(super) plan: Plan,
    pub(super) stage: Stage,
    /// Whether the first frame in the outbox is partly written.
    started: Started,
    /// Whether anything came since the last heartbeat.
    pub(super) heard: bool,
    /// Heartbeats in a row that brought no sign of life.
    pub(super) silent: u8,
    /// Heartbeats in a row at which the peer was there and took nothing.
    pub(super) stalled: u32,
    /// Whether the socket took anything of what waited since the last heartbeat.
    pub(super) drained: bool,
    /// Whether anything but pings and positions was sent since the last heartbeat.
    pub(super) sent: bool,
    /// When it was last told something.
    pub(super) sent_at: Instant,
    /// Whether there may be something to read that was left until the session takes more.
    pub(super) unread: bool,
    /// Whether it stands in the queue of those that are read on.
    pub(super) reads_in_turn: bool,
    /// Whether it stands in the queue of those that replay.
    pub(super) replays_in_turn: bool,
    /// Whether a replay goes on when the socket has drained.
    pub(super) replays_when_drained: bool,
    /// Whether it goes on when the client has said that it takes more.
    pub(super) replays_when_told: bool,
    /// Whether its client is heard only when what its URL asked for stands.
    pub(super) is_opening: bool,
    /// Whether the codec has more to say of what came.
    pub(super) has_more: bool,
    /// What was read while the session took no more, from the next message on.
    pub(super) held: Vec<u8>,
    /// Messages that it was sent.
    pub(super) delivered: u64,
    pub(super) peer: Option<IpAddr>,
    pub(super) since: SystemTime,
    /// The queues that it consumes. What it holds of them goes back as soon as these are dropped.
    pub(super) consumptions: Vec<(ConsumeKey, mpsc::Sender<ConsumeOrder>)>,
    /// Deliveries that its client does not settle: to be settled so when the socket has taken them.
    pub(super) handed_out: Vec<(DeliveryTag, Settlement)>,
    /// Patterns with presence among whose members it counts.
    pub(super) attending: BTreeSet<Pattern>,
    /// Those of them whose members it is to be told when its socket has drained.
    pub(super) owed: BTreeSet<Pattern>,
    /// What cancels each of its calls: its client, or its end.
    calls: Vec<(JobKey, CancellationToken)>,
    /// The session that it has claimed.
    pub(super) claimed: Option<ClientName>,
    /// Where subscriptions of that stood before, until they are asked for: from then on the shard knows, and claims them.
    pub(super) left: BTreeMap<Pattern, Place>,
    /// What it collects, and when that is answered, if it is a poll.
    pub(super) polling: Option<Box<Polling>>,
    /// Its place among all connections, given back when it goes.
    pub(super) _seat: Rc<Seat>,
}

/// How far a connection is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Everything flows.
    Open,
    /// Nothing new is written; what waits is, and the peer's closing frame is awaited.
    Closing(CloseReason),
    /// The peer broke the protocol, so nothing that it says is understood any more: when the outbox is empty our side
    /// is shut, and what still comes is passed over, because a socket that is dropped unread would take the closing frame
    /// with it.
    Shutting(CloseReason),
    /// Both sides have closed: when the outbox is empty the socket goes.
    Flushing(CloseReason),
    /// The socket is of no use any more.
    Dead(CloseReason),
}

impl Connection {
    /// A connection whose first frame is the answer to its request.
    pub(super) fn new(admission: Admission, reader: Option<Reader>) -> Self {
        let mut outbox = Outbox::default();
        outbox.push(admission.head);
        Self {
            socket: admission.socket,
            reader,
            codec: admission.codec,
            session: admission.session,
            outbox,
            framing: admission.framing,
            protocol: admission.protocol,
            plan: Form::of(admission.protocol, admission.framing).plain(),
            stage: Stage::Open,
            started: Started::No,
            heard: true,
            silent: 0,
            stalled: 0,
            drained: false,
            sent: true,
            sent_at: Instant::now(),
            unread: false,
            reads_in_turn: false,
            replays_in_turn: false,
            replays_when_drained: false,
            replays_when_told: false,
            is_opening: false,
            has_more: false,
            held: Vec::new(),
            delivered: 0,
            peer: admission.peer,
            since: SystemTime::now(),
            consumptions: Vec::new(),
            handed_out: Vec::new(),
            attending: BTreeSet::new(),
            owed: BTreeSet::new(),
            calls: Vec::new(),
            claimed: None,
            left: BTreeMap::new(),
            polling: None,
            _seat: admission.seat,
        }
    }

    /// How many messages its client takes until it has said something.
    pub(super) fn room(&self) -> usize {
        match self.codec.receiving() {
            Receiving::Shared => usize::MAX,
            Receiving::Own(room) => room,
        }
    }

    /// A call begins; what is returned cancels it.
    pub(super) fn call_begins(&mut self, call: JobKey) -> CancellationToken {
        let token = CancellationToken::new();
        self.calls.push((call, token.clone()));
        token
    }

    /// A call has ended, or ends because nobody waits for it.
    pub(super) fn call_ends(&mut self, call: JobKey) {
        self.calls.extract_if(.., |(known, _)| *known == call).for_each(|(_, token)| token.cancel());
        if self.calls.is_empty() {
            // An idle connection holds no memory for calls.
            self.calls = Vec::new();
        }
    }

    /// Nobody is left to be answered.
    pub(super) fn abandon_calls(&mut self) {
        std::mem::take(&mut self.calls).into_iter().for_each(|(_, token)| token.cancel());
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// It is told something now.
    pub(super) fn note_sent(&mut self) {
        self.sent = true;
        self.sent_at = Instant::now();
    }

    /// Sends what a turn brought, and says how many bytes that is: all of it or nothing.
    ///
    /// # Errors
    /// [`Overflow`] when so much waits already that with this it would be more than `waiting_max` bytes.
    pub(super) fn deliver(
        &mut self,
        delivery: Delivery<'_>,
        waiting_max: usize,
        copied: &mut Vec<u8>,
    ) -> Result<usize, Overflow> {
        let frames = match &delivery {
            Delivery::Joined(joined) => std::slice::from_ref(joined),
            Delivery::Frames(frames) => *frames,
        };
        let bytes = frames.iter().map(Bytes::len).sum();
        if bytes == 0 {
            return Ok(0);
        }
        if !self.outbox.is_empty() && self.outbox.bytes() + bytes > waiting_max {
            return Err(Overflow);
        }
        self.note_sent();
        match frames {
            [frame] if self.outbox.is_empty() => {
                let written = self.write(frame);
                if written < bytes {
                    self.outbox.push(frame.slice(written..));
                    self.note_started(written);
                }
            }
            frames if self.outbox.is_empty() && bytes <= COPIED_BYTES_MAX => {
                copied.clear();
                frames.iter().for_each(|frame| copied.extend_from_slice(frame));
                let written = self.write(copied);
                if written < bytes {
                    self.outbox.push(Bytes::copy_from_slice(copied.get(written..).unwrap_or_default()));
                    self.note_started(written);
                }
            }
            frames => {
                let waits = !self.outbox.is_empty();
                frames.iter().for_each(|frame| self.outbox.push(frame.clone()));
                if !waits {
                    self.flush();
                }
            }
        }
        Ok(bytes)
    }

    /// Adds an answer, or a notice, to be sent with the next flush.
    pub(super) fn push(&mut self, frame: Bytes, bounds: OutboxBounds) -> Result<(), Overflow> {
        self.outbox.push_bounded(frame, bounds)
    }

    /// Adds a delivery that this client alone holds, likewise. They are bounded by how many it may hold: what the socket has not
    /// taken is not settled.
    pub(super) fn hand_out(&mut self, frame: Bytes) {
        self.note_sent();
        self.delivered += 1;
        self.outbox.push(frame);
    }

    /// Nobody is there any more, but what was said is still read, as fast as its session takes it: publishes among it count.
    pub(super) fn abandon(&mut self) {
        self.let_go();
        self.abandon_calls();
    }

    /// Gives back what it holds of the queues that it consumes.
    pub(super) fn let_go(&mut self) {
        self.consumptions = Vec::new();
        self.handed_out = Vec::new();
    }

    /// Writes what waits until the socket takes no more.
    pub(super) fn flush(&mut self) {
        while !self.outbox.is_empty() && !matches!(self.stage, Stage::Dead(_)) {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.outbox.slices(&mut slices);
            match self.socket.write_vectored(slices.get(..filled).unwrap_or_default()) {
                Written::Bytes(written) => {
                    self.outbox.advance(written);
                    self.drained = true;
                    self.started = Started::Yes;
                }
                Written::WouldBlock => return,
                Written::Gone => self.die(CloseReason::Lost),
            }
        }
        if self.outbox.is_empty() {
            self.started = Started::No;
            match self.stage {
                Stage::Flushing(reason) => {
                    self.socket.finish();
                    self.die(reason);
                }
                Stage::Shutting(_) => self.socket.finish(),
                Stage::Open | Stage::Closing(_) | Stage::Dead(_) => {}
            }
        }
    }

    /// Begins the end from our side: what was not begun to be written gives way to the closing frame.
    pub(super) fn close(&mut self, ending: Ending<'_>) {
        let Ending { reason, detail, keep } = ending;
        if !self.is_open() {
            return;
        }
        self.let_go();
        if keep == Keep::Nothing {
            self.outbox.drop_unstarted(self.started);
        }
        if self.framing.is_websocket() {
            if let Some(farewell) = self.codec.farewell(reason, detail) {
                self.outbox.push(plain_frame(&farewell));
            }
            self.outbox.push(writer::close(reason.code(), detail));
            self.stage = Stage::Closing(reason);
        } else {
            self.stage = Stage::Flushing(reason);
        }
        self.flush();
    }

    /// Our closing frame is the last word: see [`Stage::Shutting`].
    pub(super) fn shut(&mut self) {
        if let Stage::Closing(reason) = self.stage {
            self.stage = Stage::Shutting(reason);
            self.flush();
        }
    }

    /// The peer closed: its frame is answered, unless it is itself the answer to ours.
    pub(super) fn answer_close(&mut self, code: Option<u16>) {
        self.let_go();
        match self.stage {
            Stage::Open => {
                self.outbox.push(code.map_or_else(writer::close_without_code, |code| writer::close(code, "")));
                self.stage = Stage::Flushing(CloseReason::Normal);
            }
            Stage::Closing(reason) => self.stage = Stage::Flushing(reason),
            Stage::Shutting(_) | Stage::Flushing(_) | Stage::Dead(_) => {}
        }
        self.flush();
    }

    /// Gives the socket up. The first reason stands.
    pub(super) fn die(&mut self, reason: CloseReason) {
        self.let_go();
        self.stage = match self.stage {
            Stage::Closing(earlier) | Stage::Shutting(earlier) | Stage::Flushing(earlier) | Stage::Dead(earlier) => {
                Stage::Dead(earlier)
            }
            Stage::Open => Stage::Dead(reason),
        };
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        match self.socket.write(bytes) {
            Written::Bytes(written) => written,
            Written::WouldBlock => 0,
            Written::Gone => {
                self.die(CloseReason::Lost);
                bytes.len()
            }
        }
    }

    fn note_started(&mut self, written: usize) {
        self.started = if written > 0 { Started::Yes } else { Started::No };
    }
}

/// A last word, which is not worth compressing.
fn plain_frame(outbound: &Outbound) -> Bytes {
    match outbound {
        Outbound::Text(payload) => writer::frame(Opcode::Text, Packing::Plain, payload),
        Outbound::Binary(payload) => writer::frame(Opcode::Binary, Packing::Plain, payload),
    }
}

/// How our side ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending<'a> {
    /// The ending.
    pub(super) reason: CloseReason,
    /// A sentence of at most 123 bytes.
    pub(super) detail: &'a str,
    /// What becomes of frames that wait.
    pub(super) keep: Keep,
}

/// What becomes of frames that wait when a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// They are sent before the closing frame.
    Waiting,
    /// They are dropped: the peer would not read them.
    Nothing,
}
