//! The admin listener: metrics, probes and the read-only API over plain HTTP/1.1. It knows the answers only through
//! [`AdminView`], and nothing of sessions, sources or shards.
//!
//! Limits: [`CONNECTIONS_MAX`] peers at a time (others wait in the backlog), [`HEAD_BYTES_MAX`] and
//! [`HEAD_FIELDS_MAX`] a request, and the times of `Patience`.

mod access;
mod answer;
pub mod view;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::answer::Desk;
use self::view::AdminView;

/// Peers at a time.
pub const CONNECTIONS_MAX: usize = 128;

/// Bytes of a request's head; also what is read ahead. The least that hyper takes.
pub const HEAD_BYTES_MAX: usize = 8 << 10;

/// Header fields of a request.
pub const HEAD_FIELDS_MAX: usize = 64;

/// How long the listener waits for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patience {
    /// For a request's head to arrive, counted from accept or from the answer before.
    head: Duration,
    /// For the shards to say what they hold.
    view: Duration,
    /// Until a connection takes no further request, so that a peer that never reads its answer goes away.
    connection: Duration,
    /// For the last answer to be read once a connection or the listener is to end.
    last_answer: Duration,
}

/// After a failed accept, which is mostly a lack of open files that passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener, bound and not yet answering.
#[derive(Debug)]
pub struct AdminListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminListener {
    /// Binds it.
    ///
    /// # Errors
    /// When the address cannot be had; the sentence names the key to change.
    pub async fn bind(listen: SocketAddr) -> io::Result<Self> {
        let in_words = |error: io::Error| match error.kind() {
            ErrorKind::AddrInUse => {
                io::Error::new(ErrorKind::AddrInUse, format!("{listen} is in use: set admin.listen"))
            }
            kind => io::Error::new(kind, format!("admin.listen = \"{listen}\": {error}")),
        };
        let listener = TcpListener::bind(listen).await.map_err(in_words)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens: with the port that it was given where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`, then lets answers under way finish for a few seconds. Stop it last: a load balancer asks
    /// here whether the node is draining.
    pub async fn serve<V: AdminView>(self, view: Arc<V>, stop: CancellationToken) {
        self.serve_patiently(view, stop, Patience::default()).await;
    }

    async fn serve_patiently<V: AdminView>(self, view: Arc<V>, stop: CancellationToken, patience: Patience) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        while let Some((stream, peer, place)) = next_peer(&self.listener, &places, &stop).await {
            let desk = Desk { listen: self.address, peer: peer.ip(), view: Arc::clone(&view), patience };
            let stop = stop.clone();
            connections.spawn(async move {
                converse(stream, desk, stop).await;
                drop(place);
            });
        }
        connections.close();
        connections.wait().await;
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // Longer than the usual interval of scrapes, so that Prometheus keeps its connection.
            head: Duration::from_secs(75),
            view: Duration::from_secs(5),
            connection: Duration::from_secs(600),
            last_answer: Duration::from_secs(5),
        }
    }
}

/// The next connection and its place among [`CONNECTIONS_MAX`]; nothing once the listener is to stop.
async fn next_peer(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let accept = async {
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer, place)),
                Err(error) => {
                    tracing::warn!(%error, "the admin listener cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await?
}

/// One connection, to its end.
async fn converse<V: AdminView>(stream: TcpStream, desk: Desk<V>, stop: CancellationToken) {
    let patience = desk.patience;
    let desk = Arc::new(desk);
    let service = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.answer(request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience.head)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEAD_FIELDS_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        // A peer's fault; hyper has answered what can be answered.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
        () = tokio::time::sleep(patience.connection) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(patience.last_answer, connection).await;
}

#[cfg(test)]
mod tests;
