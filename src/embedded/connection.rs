//! One connection's socket and clocks: reads, lets the conversation answer, writes, and minds heartbeats. It knows
//! nothing of methods.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, Moment, SessionId};
use super::conversation::{Conversation, Stage};
use super::fault::{Code, Fault};
use super::limits::{CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT, INPUT_BYTES, LOOK_INTERVAL};

/// The broker and the bells of those who wait for it.
#[derive(Debug)]
pub(crate) struct Floor {
    inside: Mutex<Inside>,
    /// Rung when the broker's next turn may be due earlier than was known.
    pub(crate) timer: Notify,
}

#[derive(Debug)]
struct Inside {
    broker: Broker,
    bells: HashMap<SessionId, Arc<Notify>>,
    due: Option<std::time::Instant>,
}

/// The time now, in both of the broker's clocks.
fn now() -> Moment {
    let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Moment { instant: std::time::Instant::now(), unix_seconds }
}

impl Floor {
    /// An empty broker.
    pub(crate) fn new(memory_bytes_max: usize) -> Self {
        let broker = Broker::new(memory_bytes_max, now());
        let inside = Inside { broker, bells: HashMap::new(), due: None };
        Self { inside: Mutex::new(inside), timer: Notify::new() }
    }

    /// One turn with the broker; whoever it concerns is woken at the end.
    pub(crate) fn turn<R>(&self, work: impl FnOnce(&mut Broker) -> R) -> R {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.broker.begin(now());
        let result = work(&mut inside.broker);
        let end = inside.broker.end();
        for bell in end.woken.iter().filter_map(|session| inside.bells.get(session)) {
            bell.notify_one();
        }
        if end.due.is_some_and(|due| inside.due.is_none_or(|known| due < known)) {
            self.timer.notify_one();
        }
        inside.due = end.due;
        result
    }

    /// A turn for its own sake; when the next one is due.
    pub(crate) fn tick(&self) -> Option<std::time::Instant> {
        self.turn(|_| ());
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).due
    }

    fn enlist(&self, session: SessionId, bell: Arc<Notify>) {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).bells.insert(session, bell);
    }

    fn dismiss(&self, session: SessionId) {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).bells.remove(&session);
    }
}

/// A connection. See the module.
pub(crate) struct Connection {
    stream: TcpStream,
    floor: Arc<Floor>,
    conversation: Conversation,
    input: BytesMut,
    bell: Arc<Notify>,
    enlisted: Option<SessionId>,
    last_received: Instant,
    last_sent: Instant,
    /// When the handshake, or the end, has to be over.
    stage_deadline: Option<Instant>,
    /// Whether that is about the end.
    is_ending: bool,
}

/// Why a connection is over, when it did not end by agreement.
#[derive(Debug)]
enum Gone {
    /// The peer closed it, or the network did.
    Lost,
    /// It took too long.
    TimedOut(&'static str),
}

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

impl Connection {
    /// A connection that was just accepted.
    pub(crate) fn new(stream: TcpStream, floor: Arc<Floor>, conversation: Conversation) -> Self {
        Self {
            stream,
            floor,
            conversation,
            input: BytesMut::new(),
            bell: Arc::new(Notify::new()),
            enlisted: None,
            last_received: Instant::now(),
            last_sent: Instant::now(),
            stage_deadline: Some(Instant::now() + HANDSHAKE_TIMEOUT),
            is_ending: false,
        }
    }

    /// Serves the connection until either side ends it.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        match self.converse(&shutdown).await {
            Ok(()) => self.linger().await,
            Err(Gone::Lost) => tracing::debug!("a client of the embedded broker went without a word"),
            Err(Gone::TimedOut(what)) => tracing::info!(what, "embedded broker gave up on a connection"),
        }
        self.floor.turn(|broker| self.conversation.leave(broker));
        if let Some(session) = self.enlisted {
            self.floor.dismiss(session);
        }
    }

    async fn converse(&mut self, shutdown: &CancellationToken) -> Result<(), Gone> {
        let mut is_stopping = false;
        loop {
            if !self.may_read() {
                // Silence does not count while nobody listens.
                self.last_received = Instant::now();
            }
            self.floor.turn(|broker| {
                self.conversation.receive(&mut self.input, broker);
                self.conversation.collect(broker);
            });
            self.note_stage();
            self.write()?;
            let is_idle = self.conversation.output.pending().is_empty();
            if is_idle && self.conversation.stage() == Stage::Closed {
                return Ok(());
            }
            if is_idle && self.conversation.is_stalled() {
                tokio::task::yield_now().await;
                continue;
            }
            self.look()?;
            tokio::select! {
                ready = self.stream.ready(self.interest()), if self.wants_socket() => {
                    if ready?.is_readable() && self.may_read() {
                        self.read()?;
                    }
                }
                () = self.bell.notified() => {}
                () = sleep_until(self.next_deadline()) => self.mind_time()?,
                () = shutdown.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    let fault = Fault::new(Code::ConnectionForced, "the embedded broker stops");
                    self.floor.turn(|broker| self.conversation.fail(&fault, (0, 0), broker));
                }
            }
        }
    }

    /// Follows the conversation: enlists an opened session, sets deadlines.
    fn note_stage(&mut self) {
        if self.enlisted.is_none()
            && let Some(session) = self.conversation.session()
        {
            self.enlisted = Some(session);
            self.floor.enlist(session, self.bell.clone());
            // Something may have been for it before it had a bell.
            self.bell.notify_one();
        }
        self.stage_deadline = match self.conversation.stage() {
            Stage::Open => None,
            Stage::Closing | Stage::Closed if !self.is_ending => {
                self.is_ending = true;
                Some(Instant::now() + CLOSE_TIMEOUT)
            }
            _ => self.stage_deadline,
        };
    }

    /// Whether more may be read: not beyond what one frame may need. A client that has to wait is read from too, so that
    /// its end is seen, and its silence.
    fn may_read(&self) -> bool {
        self.input.len() < self.conversation.frame_bytes_max() + INPUT_BYTES
    }

    /// Looks whether a client that is not read from, because it sent so much ahead, is still there. What it left unread
    /// goes with it: nobody was told that it had arrived.
    fn look(&self) -> Result<(), Gone> {
        let state = self.stream.ready(Interest::READABLE).now_or_never().transpose()?;
        let is_closed = state.is_some_and(|state| state.is_read_closed());
        if is_closed && !self.may_read() { Err(Gone::Lost) } else { Ok(()) }
    }

    /// When it has to be looked at again.
    fn look_deadline(&self) -> Option<Instant> {
        (!self.may_read()).then(|| Instant::now() + LOOK_INTERVAL)
    }

    fn wants_socket(&self) -> bool {
        self.may_read() || !self.conversation.output.pending().is_empty()
    }

    fn interest(&self) -> Interest {
        match (self.may_read(), self.conversation.output.pending().is_empty()) {
            (true, true) => Interest::READABLE,
            (true, false) => Interest::READABLE | Interest::WRITABLE,
            (false, _) => Interest::WRITABLE,
        }
    }

    fn read(&mut self) -> Result<(), Gone> {
        self.input.reserve(INPUT_BYTES);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(Gone::Lost),
            Ok(_) => {
                self.last_received = Instant::now();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&mut self) -> Result<(), Gone> {
        while !self.conversation.output.pending().is_empty() {
            match self.stream.try_write(self.conversation.output.pending()) {
                Ok(count) => {
                    self.conversation.output.advance(count);
                    self.last_sent = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// When the client must have been heard from: after two heartbeats. Not while we do not listen.
    fn silence_deadline(&self) -> Option<Instant> {
        let heartbeat = self.conversation.heartbeat().filter(|_| self.may_read())?;
        Some(self.last_received + heartbeat * 2)
    }

    /// When a sign of life is due: after half a heartbeat without any other.
    fn beat_deadline(&self) -> Option<Instant> {
        let heartbeat = self.conversation.heartbeat().filter(|_| self.conversation.output.pending().is_empty())?;
        Some(self.last_sent + heartbeat / 2)
    }

    fn next_deadline(&self) -> Instant {
        let deadlines = [self.stage_deadline, self.silence_deadline(), self.beat_deadline(), self.look_deadline()];
        deadlines.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600))
    }

    fn mind_time(&mut self) -> Result<(), Gone> {
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= Instant::now());
        if is_over(self.stage_deadline) {
            return Err(Gone::TimedOut("the handshake or the end took too long"));
        }
        if is_over(self.silence_deadline()) {
            return Err(Gone::TimedOut("two heartbeats were missed"));
        }
        if is_over(self.beat_deadline()) {
            self.conversation.beat();
        }
        Ok(())
    }

    /// Lets the peer read the last words: a socket closed with unread input would take them back.
    async fn linger(&mut self) {
        let stream = &mut self.stream;
        let read_to_end = async {
            stream.shutdown().await?;
            let mut rest = [0; 4_096];
            while stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        let _ended_or_not = timeout(CLOSE_TIMEOUT, read_to_end).await;
    }
}
