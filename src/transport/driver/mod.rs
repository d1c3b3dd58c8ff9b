//! The driver: the loop of one shard's thread. It owns the shard and its established connections, reads and writes their
//! sockets itself, and does what their sessions ask for. Nothing here waits for one connection.
//!
//! Its connections stand in a `mio` poll whose descriptor is watched by the thread's tokio runtime as one more thing to
//! wait for; so handshakes and timers live in tokio, while an established connection costs neither task nor waker.
//!
//! Reading order: this file is the loop, [`flow`] the way down, [`inbound`] the way up,
//! [`consuming`] queues that clients consume, [`attending`] who listens to what, [`rounds`] what comes with time,
//! [`polling`] sessions that are one HTTP answer each, [`claiming`] those that outlive their connections.

mod agenda;
mod apart;
mod attending;
mod awaiting;
mod claiming;
mod connection;
mod consuming;
mod flow;
mod inbound;
mod plan;
mod polling;
mod rota;
mod rounds;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::{Events, Poll, Registry, Token};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::Settings;
use crate::hub::feed::Hub;
use crate::hub::index::SubscriberId;
use crate::hub::outbox::OutboxBounds;
use crate::hub::shard::{CursorForm, Opening, Shard, SubscriptionId};
use crate::hub::upstream::Upstream;
use crate::metrics::{Latencies, Metrics, Transport};
use crate::model::close::CloseReason;
use crate::protocol::{Codec, ProtocolId};
use crate::session::{Completion, Session};
use crate::transport::admin::view::{ConnectionRow, Listing};
use crate::transport::liveness::Liveness;
use crate::transport::poll::Waiting;
use crate::transport::seats::Seat;
use crate::transport::sessions::Sessions;
use crate::transport::socket::Socket;
use crate::transport::websocket::deflate::Negotiated;
use crate::transport::websocket::reader::{Limits as FrameLimits, Reader, Scratch};
use crate::transport::wire::{Framing, Wire};
use agenda::Agenda;
use attending::Attendance;
use awaiting::Awaiting;
use claiming::{Claim, Waited};
use connection::{Connection, Stage};
pub(crate) use flow::unix_millis;
use plan::Form;
use polling::Polling;
pub(crate) use polling::{Answered, Poll as PollRequest};
use rota::Rota;
pub(crate) use rota::Ticket;

/// Sockets that one look at the poll reports.
const EVENTS_MAX: usize = 1024;

/// Bytes that one read takes; one buffer serves all connections of a shard.
const READ_BYTES: usize = 64 << 10;

/// Frames of one message from a client.
const FRAGMENTS_MAX: u32 = 16_384;

/// How long a peer may take to answer our closing frame.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a client may have to wait until it is heard, for the bindings of what its URL asked for.
const GREETING: Duration = Duration::from_secs(3);

/// What all shards of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) hub: Hub,
    pub(crate) upstream: Upstream,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) sessions: Arc<Sessions>,
}

/// A connection whose handshake is over, on its way into the loop.
pub(crate) struct Admission {
    pub(crate) socket: Socket,
    /// What the client sent after its request.
    pub(crate) leftover: Vec<u8>,
    /// The answer to its request, to be written first.
    pub(crate) head: Bytes,
    pub(crate) framing: Framing,
    pub(crate) deflate: Option<Negotiated>,
    pub(crate) protocol: ProtocolId,
    pub(crate) codec: Box<dyn Codec + Send>,
    pub(crate) session: Session,
    /// Why it ends before it began.
    pub(crate) refusal: Option<(CloseReason, String)>,
    /// What the request itself asked for.
    pub(crate) commands: Vec<crate::protocol::Command>,
    pub(crate) form: CursorForm,
    pub(crate) peer: Option<std::net::IpAddr>,
    /// That it is a poll, of which the socket is another's.
    pub(crate) poll: Option<PollRequest>,
    /// Shared with whoever serves the request of a poll, so that each counts once, and for as long as anything of it is left.
    pub(crate) seat: Rc<Seat>,
}

/// What a shard is told from outside its thread.
#[derive(Debug)]
pub(crate) enum Control {
    /// Give everybody what the logs hold, say goodbye to them, who are to come back within this time, and end when they
    /// are gone. By now nothing more should arrive.
    Drain(Duration),
    /// Describe so many connections.
    Connections(usize, oneshot::Sender<Listing<ConnectionRow>>),
    /// End a connection, because another of its client has come; the sender is dropped when that is done.
    Yield(Ticket, oneshot::Sender<()>),
}

/// An answer to something that a session asked for.
#[derive(Debug)]
struct Answer {
    ticket: Ticket,
    news: News,
}

/// What it says.
#[derive(Debug)]
enum News {
    /// Something is done.
    Completion(Completion),
    /// A claim need not wait any longer.
    Claim(Claim, Waited),
}

/// Whatever can wake the loop.
pub(crate) struct Inbox {
    pub(crate) admissions: mpsc::Receiver<Admission>,
    pub(crate) controls: mpsc::Receiver<Control>,
    /// Where other shards tell this one something.
    pub(crate) own_controls: mpsc::Sender<Control>,
    /// Which shard this is.
    pub(crate) number: usize,
    pub(crate) doorbell: Arc<Notify>,
    /// Polls whose answers are on their way to their sockets, which end with this thread.
    pub(crate) waiting: Waiting,
}

/// One shard's loop.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    /// Which shard this is, and where it is told something.
    number: usize,
    controls: mpsc::Sender<Control>,
    shard: Shard,
    wire: Wire,
    scratch: Scratch,
    registry: Registry,
    read_buffer: Vec<u8>,
    copy_buffer: Vec<u8>,
    /// By subscriber id.
    slots: Vec<Slot>,
    heartbeats: Rota,
    farewells: Rota,
    /// When codecs want to be asked what is due, and clients may have been told nothing for a heartbeat.
    ticks: Agenda,
    /// When polls are looked at.
    polls: Agenda,
    /// Whether a turn was taken that is not handed out yet.
    is_mid_turn: bool,
    /// Whether claims are kept for polls that may come.
    has_leases: bool,
    /// Until who is unknown has to have said who they are.
    strangers: Rota,
    /// Until who asked for something in the URL is heard in any case.
    greetings: Rota,
    /// Subscriptions whose bindings do not stand yet.
    openings: BTreeMap<(Ticket, SubscriptionId), Opening>,
    /// The version of every source's claims when the openings were last looked at.
    standings: Vec<u64>,
    /// Connections with something to replay, in turn.
    replaying: VecDeque<Ticket>,
    /// Those of whom it is not there yet.
    awaiting: Awaiting,
    /// When those go on that were sent as much as they may be.
    paced: Agenda,
    /// When anybody was last sent something from the logs, while what was read there is kept for others.
    replayed_at: Option<Instant>,
    /// Connections that have more to read than was fair to read at once.
    unread: VecDeque<Ticket>,
    /// What is watched of presence.
    attendance: Attendance,
    answers: mpsc::Sender<Answer>,
    answered: mpsc::Receiver<Answer>,
    latencies: Latencies,
    liveness: Liveness,
    outbox_bounds: OutboxBounds,
    /// Bytes that may wait for a socket before it falls behind what is live.
    behind_bytes: usize,
    /// What the gauges were last told.
    gauged: rounds::Gauged,
    /// When they are told next.
    gauge_at: Instant,
    /// Everybody is to be sent away, to come back within this time, once they have what the logs hold.
    dismissal: Option<Duration>,
    draining: bool,
    open: usize,
}

/// A place for a connection, and how many have had it.
#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

/// Answers that may wait for the loop; whoever has one more waits.
const ANSWERS_MAX: usize = 1024;

/// What one look at the poll found.
struct Ready {
    subscriber: SubscriberId,
    readable: bool,
    writable: bool,
    /// Whether the peer sends nothing more, or is gone.
    ended: bool,
}

impl Driver {
    fn new(
        shared: Arc<Shared>,
        registry: Registry,
        doorbell: Arc<Notify>,
        (number, controls): (usize, mpsc::Sender<Control>),
    ) -> Self {
        let settings = &shared.settings;
        let (answers, answered) = mpsc::channel(ANSWERS_MAX);
        Self {
            shard: Shard::new(&shared.hub, settings.limits.drop_oldest_keep),
            wire: Wire::new(settings.compression.clone()),
            scratch: Scratch::default(),
            registry,
            read_buffer: vec![0; READ_BYTES],
            copy_buffer: Vec::new(),
            slots: Vec::new(),
            heartbeats: Rota::new(settings.server.heartbeat),
            farewells: Rota::new(FAREWELL),
            strangers: Rota::new(settings.limits.unauthenticated_timeout),
            greetings: Rota::new(GREETING),
            ticks: Agenda::default(),
            polls: Agenda::default(),
            is_mid_turn: false,
            has_leases: false,
            openings: BTreeMap::new(),
            standings: Vec::new(),
            replaying: VecDeque::new(),
            awaiting: Awaiting::default(),
            paced: Agenda::default(),
            replayed_at: None,
            unread: VecDeque::new(),
            attendance: Attendance::new(shared.hub.presence().watch(doorbell)),
            answers,
            answered,
            latencies: shared.metrics.latencies(),
            liveness: Liveness::new(),
            outbox_bounds: OutboxBounds {
                frames_max: settings.limits.outbox_frames_max,
                bytes_max: settings.limits.outbox_bytes_max,
            },
            behind_bytes: settings.limits.behind_bytes,
            gauged: rounds::Gauged::default(),
            gauge_at: Instant::now(),
            dismissal: None,
            draining: false,
            open: 0,
            number,
            controls,
            shared,
        }
    }

    /// Runs until told to drain and the last connection is gone.
    ///
    /// # Errors
    /// When the system refuses a poll.
    pub(crate) async fn run(shared: Arc<Shared>, mut inbox: Inbox) -> io::Result<()> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        #[expect(deprecated, reason = "its successor is unsafe; a Poll owns its descriptor and never replaces it")]
        let mut poll = AsyncFd::new(poll)?;
        let mut events = Events::with_capacity(EVENTS_MAX);
        let own = (inbox.number, inbox.own_controls.clone());
        let mut driver = Self::new(shared, registry, inbox.doorbell.clone(), own);
        loop {
            let more = driver.work();
            if driver.draining && driver.open == 0 && !inbox.waiting.any() {
                break;
            }
            if more || driver.draining && driver.open == 0 {
                look(poll.get_mut(), &mut events)?;
                driver.sockets(&events);
                driver.take_waiting(&mut inbox);
                tokio::task::yield_now().await;
            } else {
                driver.wait(&mut poll, &mut events, &mut inbox).await?;
            }
        }
        driver.latencies.flush();
        Ok(())
    }

    /// Everything that can be done without waiting, a fair share of it. True when there is more.
    fn work(&mut self) -> bool {
        let mut more = self.turn();
        if !more {
            self.dismiss();
        }
        self.end_lapsed();
        self.check_openings();
        self.rouse();
        more |= self.replay_some();
        more |= self.read_some();
        more |= self.tell_changes();
        self.rounds(Instant::now());
        self.gauge_subscriptions();
        more
    }

    /// Sleeps until anything happens, and takes it in.
    async fn wait(&mut self, poll: &mut AsyncFd<Poll>, events: &mut Events, inbox: &mut Inbox) -> io::Result<()> {
        let next = self.next_round();
        let round = async {
            match next {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = inbox.doorbell.notified() => {}
            guard = poll.readable_mut() => {
                let mut guard = guard?;
                if look(guard.get_inner_mut(), events)? == Seen::All {
                    guard.clear_ready();
                }
                self.sockets(events);
            }
            Some(answer) = self.answered.recv() => self.answer(answer),
            Some(admission) = inbox.admissions.recv() => self.admit(admission),
            Some(control) = inbox.controls.recv() => self.control(control),
            () = round => {}
        }
        self.take_waiting(inbox);
        Ok(())
    }

    /// Takes in what waits in the channels, as many as were there when it began.
    fn take_waiting(&mut self, inbox: &mut Inbox) {
        for _ in 0..inbox.admissions.len() {
            let Ok(admission) = inbox.admissions.try_recv() else { break };
            self.admit(admission);
        }
        for _ in 0..self.answered.len() {
            let Ok(answer) = self.answered.try_recv() else { break };
            self.answer(answer);
        }
        for _ in 0..inbox.controls.len() {
            let Ok(control) = inbox.controls.try_recv() else { break };
            self.control(control);
        }
    }

    fn sockets(&mut self, events: &Events) {
        let ready: Vec<Ready> = events
            .iter()
            .map(|event| {
                let ended = event.is_read_closed() || event.is_error();
                Ready {
                    subscriber: SubscriberId(event.token().0 as u32),
                    readable: event.is_readable() || ended,
                    writable: event.is_writable(),
                    ended,
                }
            })
            .collect();
        for Ready { subscriber, readable, writable, ended } in ready {
            self.with(subscriber, |driver, connection| {
                if writable {
                    driver.drain(subscriber, connection);
                }
                if readable {
                    driver.read(subscriber, connection);
                }
                if ended && !driver.takes_words(connection) {
                    connection.abandon();
                }
            });
        }
    }

    /// Lends a connection out, and cleans up after it if that was its end.
    fn with<R>(&mut self, subscriber: SubscriberId, work: impl FnOnce(&mut Self, &mut Connection) -> R) -> Option<R> {
        let mut connection = self.slots.get_mut(subscriber.index())?.connection.take()?;
        let result = work(self, &mut connection);
        if connection.polling.is_some() {
            self.settle_poll(subscriber, &mut connection);
        }
        if let Stage::Dead(reason) = connection.stage {
            self.bury(subscriber, *connection, reason);
        } else if let Some(slot) = self.slots.get_mut(subscriber.index()) {
            slot.connection = Some(connection);
        }
        Some(result)
    }

    /// Likewise, unless another connection has the place by now.
    fn with_ticket<R>(&mut self, ticket: Ticket, work: impl FnOnce(&mut Self, &mut Connection) -> R) -> Option<R> {
        let current = self.slots.get(ticket.subscriber.index())?.generation == ticket.generation;
        if current { self.with(ticket.subscriber, work) } else { None }
    }

    fn ticket(&self, subscriber: SubscriberId) -> Ticket {
        let generation = self.slots.get(subscriber.index()).map_or(0, |slot| slot.generation);
        Ticket { subscriber, generation }
    }

    /// Takes an established connection in.
    fn admit(&mut self, mut admission: Admission) {
        let subscriber = self.shard.join(admission.form);
        if self.slots.len() <= subscriber.index() {
            self.slots.resize_with(subscriber.index() + 1, Slot::default);
        }
        if let Err(error) = admission.socket.register(&self.registry, Token(subscriber.index())) {
            tracing::warn!(%error, "cannot watch a connection");
            self.shard.leave(subscriber);
            return;
        }
        let limits = FrameLimits {
            message_bytes_max: self.shared.settings.limits.message_bytes_max,
            fragments_max: FRAGMENTS_MAX,
        };
        let reader = admission.framing.is_websocket().then(|| Reader::new(limits, admission.deflate));
        let words = inbound::FirstWords {
            refusal: admission.refusal.take(),
            commands: std::mem::take(&mut admission.commands),
            leftover: std::mem::take(&mut admission.leftover),
        };
        let now = Instant::now();
        let poll = admission.poll.take();
        let mut connection = Connection::new(admission, reader);
        connection.polling = poll.map(|poll| Box::new(Polling::new(poll, &self.shared.settings.poll, now)));
        let is_poll = connection.polling.is_some();
        if connection.codec.retains() {
            self.shard.keep_retained();
        }
        let stranger = connection.session.deadline().is_some();
        self.shared.metrics.connection_opened(connection.protocol, transport_of(&connection));
        self.open += 1;
        if let Some(slot) = self.slots.get_mut(subscriber.index()) {
            slot.generation = slot.generation.wrapping_add(1);
            slot.connection = Some(Box::new(connection));
        }
        let ticket = self.ticket(subscriber);
        if is_poll {
            self.polls.set(now, ticket);
        } else {
            self.heartbeats.set(now, ticket);
        }
        if stranger {
            self.strangers.set(now, ticket);
        }
        self.with(subscriber, |driver, connection| driver.greet(subscriber, connection, words));
        if self.draining {
            self.with(subscriber, |driver, connection| driver.say_goodbye(subscriber, connection, Duration::ZERO));
        }
    }

    /// Forgets a connection and frees all that it held.
    fn bury(&mut self, subscriber: SubscriberId, mut connection: Connection, reason: CloseReason) {
        // The socket is closed right after, which takes it out of the poll in any case.
        let _ = connection.socket.deregister(&self.registry);
        connection.abandon_calls();
        self.relinquish(subscriber, &mut connection);
        self.shard.leave(subscriber);
        let ticket = self.ticket(subscriber);
        self.awaiting.forget(ticket);
        self.paced.forget(ticket);
        self.ticks.forget(ticket);
        self.polls.forget(ticket);
        self.forget_openings(ticket);
        self.depart_from_all(ticket, &mut connection);
        let plan = Form::of(connection.protocol, connection.framing).plain();
        std::mem::replace(&mut connection.plan, plan).release(&mut self.wire);
        self.open -= 1;
        self.shared.metrics.connection_closed(connection.protocol, transport_of(&connection), reason);
        if tracing::enabled!(tracing::Level::DEBUG) {
            rounds::tell_end(&connection, reason);
        }
    }
}

/// Whether a look at the poll saw all that there was.
#[derive(PartialEq, Eq)]
enum Seen {
    All,
    Some,
}

/// One look at the poll, without waiting.
fn look(poll: &mut Poll, events: &mut Events) -> io::Result<Seen> {
    loop {
        match poll.poll(events, Some(Duration::ZERO)) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let all = events.iter().count() < EVENTS_MAX;
    Ok(if all { Seen::All } else { Seen::Some })
}

fn transport_of(connection: &Connection) -> Transport {
    match connection.framing {
        Framing::EventStream => Transport::Sse,
        Framing::Lines => Transport::Stream,
        Framing::Collected => Transport::Poll,
        Framing::WebSocket | Framing::Deflated => Transport::WebSocket,
    }
}

#[cfg(test)]
mod tests;
