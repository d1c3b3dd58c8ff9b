//! The embedded AMQP 0-9-1 listener: a broker in memory for those who have no RabbitMQ yet, spoken to by lapin, pika,
//! amqplib and the Java client as if it were one.
//!
//! The room from the inside out: `table`, `message`, `trie`, `exchange`, `queue` and `broker` are the core, which does no
//! I/O and reads no clock; `wire`, `login`, `channel`, `output` and `conversation` speak the protocol, bytes in and bytes
//! out; `connection` and [`Listener`] are the thin shell around them. What RabbitMQ has and this has not is
//! refused with the protocol's own codes, and the text says to use RabbitMQ. Nothing outlives the process.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Embedded;

mod broker;
mod channel;
mod connection;
mod conversation;
mod dead_letter;
mod exchange;
mod fault;
mod limits;
mod login;
mod message;
mod output;
mod queue;
mod queue_arguments;
mod table;
mod trie;
mod wire;

#[cfg(test)]
mod tests;

use connection::{Connection, Floor};
use conversation::{Conversation, House};
use limits::{KEEPALIVE_AFTER, REFUSALS_MAX};
use message::Account;

/// How long accepting pauses when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the listener could not be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{address} is in use, perhaps by RabbitMQ; to use it: --amqp amqp://guest:guest@localhost{}", port(*address))]
    InUse {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The system refused for another reason.
    #[error("cannot listen on {address}: {error}")]
    Refused {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// The port as a URL shows it: not at all when it is the usual one.
fn port(address: SocketAddr) -> String {
    if address.port() == 5672 { String::new() } else { format!(":{}", address.port()) }
}

/// The embedded broker with its socket, not yet serving.
#[derive(Debug)]
pub struct Listener {
    socket: StdTcpListener,
    address: SocketAddr,
    floor: Arc<Floor>,
    house: House,
}

impl Listener {
    /// Takes the address of the configuration; port 0 is any free one.
    ///
    /// # Errors
    /// When the address cannot be had; the text says what to do.
    pub fn bind(config: &Embedded) -> Result<Self, BindError> {
        let address = config.listen;
        let bind = || {
            let socket = StdTcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            io::Result::Ok((socket, address))
        };
        let (socket, address) = bind().map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address },
            _ => BindError::Refused { address, error },
        })?;
        Ok(Self {
            socket,
            address,
            floor: Arc::new(Floor::new(config.memory_bytes_max)),
            house: House { connections_max: config.connections_max, assembling: Account::default() },
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled; then every client is told (320), and it ends when they have gone, within
    /// seconds.
    ///
    /// # Errors
    /// When the socket cannot be handed to the runtime.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let listener = TcpListener::from_std(self.socket)?;
        let connections = TaskTracker::new();
        let accepting = async {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        if connections.len() >= self.house.connections_max + REFUSALS_MAX {
                            tracing::warn!(
                                most = self.house.connections_max,
                                "embedded broker is full of connections: one is dropped"
                            );
                            continue;
                        }
                        let connection = admit(stream, peer, &self.floor, &self.house);
                        connections.spawn(connection.run(shutdown.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "embedded broker cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = keep_time(&self.floor) => {}
            () = shutdown.cancelled() => {}
        }
        drop(listener);
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, floor: &Arc<Floor>, house: &House) -> Connection {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch delays off");
    }
    // A client that agreed to no heartbeats may go behind more than is read, and its last words never come.
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER)) {
        tracing::debug!(%error, "cannot have the system look after a peer");
    }
    let conversation = Conversation::new(house.clone(), peer.ip().to_canonical().is_loopback());
    Connection::new(stream, floor.clone(), conversation)
}

/// Gives the broker a turn whenever one is due.
async fn keep_time(floor: &Floor) {
    loop {
        match floor.tick() {
            Some(due) => tokio::select! {
                () = sleep_until(Instant::from_std(due)) => {}
                () = floor.timer.notified() => {}
            },
            None => floor.timer.notified().await,
        }
        // Dead letters may keep the broker busy for many turns: others get theirs in between.
        tokio::task::yield_now().await;
    }
}
