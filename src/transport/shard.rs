//! A shard's thread: a tokio runtime of its own, on which sockets go through their handshake and then into the
//! [`Driver`]'s loop. Everything that happens to a connection happens on this thread.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use crate::metrics::Handshake;
use crate::protocol::Subprotocol;
use crate::session::limits::Terms;
use crate::session::{Session, Start};
use crate::transport::driver::{Admission, Control, Driver, Inbox, Shared};
use crate::transport::gate::Gate;
use crate::transport::http::{self, Caller, Taken};
use crate::transport::listener::{Accepted, Handshaking};
use crate::transport::opening::Known;
use crate::transport::poll::Waiting;
use crate::transport::seats::{Seat, Seats};
use crate::transport::socket::{self, Socket};

/// Sockets that may wait for a shard, and sessions that may wait for its loop.
const WAITING_MAX: usize = 1024;

/// Requests from outside that may wait for a shard.
const CONTROLS_MAX: usize = 16;

/// What is said to who comes when the server is full.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n\
    Connection: close\r\nContent-Length: 60\r\n\r\n{\"error\":\"the server is full: raise server.connections_max\"}";

/// What a shard's handshakes need to know.
pub(crate) struct Site {
    pub(crate) shared: Arc<Shared>,
    pub(crate) gate: Gate,
    /// Where sessions begin.
    pub(crate) admissions: mpsc::Sender<Admission>,
    /// Polls that are not answered.
    pub(crate) waiting: Waiting,
    terms: Arc<Terms>,
    names: Names,
}

/// Names for the sessions of a shard. Others remember them for longer than this node runs, a stream in what it keeps and nodes
/// of the same name in who is there: so none is given twice, here, elsewhere or after a restart.
struct Names {
    /// The node's name and what this shard has drawn at its start.
    prefix: String,
    given: Cell<u64>,
}

impl Names {
    fn new(node: &str) -> Self {
        Self { prefix: format!("{node}-{:016x}", fastrand::u64(..)), given: Cell::new(0) }
    }

    fn next(&self) -> Arc<str> {
        let number = self.given.get() + 1;
        self.given.set(number);
        format!("{}-{number}", self.prefix).into()
    }
}

/// A running shard.
#[derive(Debug)]
pub(crate) struct ShardHandle {
    /// Where its sockets go.
    pub(crate) accepted: mpsc::Sender<Accepted>,
    /// Where it is asked things.
    pub(crate) controls: mpsc::Sender<Control>,
    /// Its thread.
    pub(crate) thread: JoinHandle<io::Result<()>>,
}

/// Starts a shard.
///
/// # Errors
/// When the system refuses a thread or a runtime.
pub(crate) fn start(number: usize, shared: &Arc<Shared>, seats: &Seats) -> io::Result<ShardHandle> {
    let (accepted, sockets) = mpsc::channel(WAITING_MAX);
    let (controls, control) = mpsc::channel(CONTROLS_MAX);
    let doorbell = Arc::new(Notify::new());
    shared.hub.sources().iter().for_each(|source| source.add_doorbell(doorbell.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (shared, seats, own_controls) = (shared.clone(), seats.clone(), controls.clone());
    let thread = std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
        let (gate, terms) = (Gate::new(&shared.settings), Arc::new(Terms::new(&shared.settings)));
        let (admitted, admissions) = mpsc::channel(WAITING_MAX);
        let (names, waiting) = (Names::new(&shared.settings.amqp.node), Waiting::default());
        let waits = waiting.clone();
        let inbox = Inbox { admissions, controls: control, own_controls, number, doorbell, waiting: waits };
        let site = Rc::new(Site { gate, terms, shared: shared.clone(), admissions: admitted, waiting, names });
        LocalSet::new().block_on(&runtime, async move {
            tokio::task::spawn_local(receive(sockets, site, seats));
            Driver::run(shared, inbox).await
        })
    })?;
    Ok(ShardHandle { accepted, controls, thread })
}

/// Takes sockets in and gives each handshake a task of its own, so that what lives on stays small.
async fn receive(mut sockets: mpsc::Receiver<Accepted>, site: Rc<Site>, seats: Seats) {
    while let Some(accepted) = sockets.recv().await {
        match seats.take() {
            Some(seat) => {
                let site = site.clone();
                tokio::task::spawn_local(async move {
                    if let Some(admission) = shake_hands(accepted, Rc::new(seat), site.clone()).await {
                        // The loop is gone only when the server stops.
                        let _ = site.admissions.send(admission).await;
                    }
                });
            }
            None => turn_away(accepted, &site),
        }
    }
}

/// Serves HTTP until the socket becomes a session.
async fn shake_hands(accepted: Accepted, seat: Rc<Seat>, site: Rc<Site>) -> Option<Admission> {
    match accepted.adopt().ok()? {
        Handshaking::Tcp(stream, peer) => {
            socket::prepare(&stream, socket::unacknowledged_max(site.shared.settings.server.heartbeat));
            let taken = http::serve(stream, Caller { peer: Some(peer.ip()), seat: seat.clone() }, site).await?;
            admission(taken, seat, Socket::from_tcp)
        }
        Handshaking::Unix(stream) => {
            let taken = http::serve(stream, Caller { peer: None, seat: seat.clone() }, site).await?;
            admission(taken, seat, Socket::from_unix)
        }
    }
}

fn admission<S>(taken: Taken<S>, seat: Rc<Seat>, socket: impl FnOnce(S) -> io::Result<Socket>) -> Option<Admission> {
    let Taken { stream, leftover, opened } = taken;
    let socket = socket(stream).map_err(|error| tracing::warn!(%error, "cannot take a socket over")).ok()?;
    Some(opened.into_admission(socket, leftover, seat))
}

/// Says that there is no room, as far as the socket takes it without waiting.
fn turn_away(accepted: Accepted, site: &Site) {
    use std::io::Write;
    site.shared.metrics.handshake(Handshake::Full);
    // Whoever does not get the answer sees a closed connection, which says the same.
    let _ = match accepted {
        Accepted::Tcp(mut stream, _) => stream.write(FULL),
        Accepted::Unix(mut stream) => stream.write(FULL),
    };
}

impl Site {
    /// A path without the configured prefix, whether or not a proxy has taken it off already.
    pub(crate) fn local_path<'a>(&self, path: &'a str) -> &'a str {
        let prefix = self.shared.settings.server.path_prefix.as_str();
        match path.strip_prefix(prefix) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }

    /// A session for somebody, or for a stranger with what he is told.
    pub(crate) fn session(&self, known: Known, protocol: &'static Subprotocol) -> Session {
        let start =
            Start { connection: self.names.next(), protocol, admission: known.map_err(Arc::from), at: Instant::now() };
        Session::new(self.terms.clone(), start)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// What a stream kept of `echo: false` would otherwise be withheld from whoever has the name after a restart.
    #[test]
    fn no_name_is_given_twice_whatever_starts_anew() {
        let starts: Vec<Names> = (0..3).map(|_| Names::new("node")).collect();
        let names: HashSet<Arc<str>> = starts.iter().flat_map(|names| [names.next(), names.next()]).collect();
        assert_eq!(names.len(), 6, "{names:?}");
        assert!(names.iter().all(|name| name.starts_with("node-")));
    }
}
