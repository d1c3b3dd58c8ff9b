//! A socket whose handshake is over: non-blocking, registered with the shard's poll, without a buffer or task of its own.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

/// A plain stream over TCP or a Unix socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(mio::net::TcpStream),
    /// A Unix socket.
    Unix(mio::net::UnixStream),
    /// None: what is sent is collected for an HTTP answer. It takes nothing and brings nothing.
    Absent,
}

/// How one attempt to write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// So many bytes were taken.
    Bytes(usize),
    /// The socket would block: wait for it to drain.
    WouldBlock,
    /// The connection is gone.
    Gone,
}

impl Socket {
    /// Takes a socket over from tokio.
    pub(crate) fn from_tcp(stream: tokio::net::TcpStream) -> io::Result<Self> {
        Ok(Self::Tcp(mio::net::TcpStream::from_std(stream.into_std()?)))
    }

    /// Takes a Unix socket over from tokio.
    pub(crate) fn from_unix(stream: tokio::net::UnixStream) -> io::Result<Self> {
        Ok(Self::Unix(mio::net::UnixStream::from_std(stream.into_std()?)))
    }

    /// Both directions, edge-triggered: nothing has to be registered again.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interest),
            Self::Unix(stream) => stream.register(registry, token, interest),
            Self::Absent => Ok(()),
        }
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
            Self::Absent => Ok(()),
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Absent => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes one piece.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Written {
        outcome(|| match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Absent => Err(io::ErrorKind::WouldBlock.into()),
        })
    }

    /// Writes several pieces with one call.
    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Written {
        outcome(|| match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
            Self::Absent => Err(io::ErrorKind::WouldBlock.into()),
        })
    }

    /// How long data may wait for the peer before the kernel gives it up.
    pub(crate) fn limit_unacknowledged(&self, most: Duration) {
        if let Self::Tcp(stream) = self {
            limit_unacknowledged(stream, most);
        }
    }

    /// Both ends of a TCP connection.
    pub(crate) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().zip(stream.peer_addr().ok()),
            Self::Unix(_) | Self::Absent => None,
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn finish(&mut self) {
        // The peer may be gone already; there is nobody left to tell.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Absent => Ok(()),
        };
    }
}

/// Tries again where a signal came in between.
fn outcome(mut attempt: impl FnMut() -> io::Result<usize>) -> Written {
    loop {
        match attempt() {
            Ok(written) => return Written::Bytes(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::WouldBlock,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Written::Gone,
        }
    }
}

/// Settings of an accepted TCP socket: no delay for lone messages, and an end for data that a vanished peer never
/// acknowledges, so that it cannot hold a stream for longer than two heartbeats.
pub(crate) fn prepare(stream: &impl AsFd, unacknowledged_max: Duration) {
    // It is not worth refusing a client for where the system does not know it.
    let _ = SockRef::from(stream).set_tcp_nodelay(true);
    limit_unacknowledged(stream, unacknowledged_max);
}

/// How long data may wait for a peer: less than two heartbeats, and enough for one to see that the peer is only slow.
pub(crate) fn unacknowledged_max(heartbeat: Duration) -> Duration {
    heartbeat.mul_f64(1.75)
}

/// The kernel ends a connection whose peer has not acknowledged, or not taken, what waits for it for so long.
fn limit_unacknowledged(stream: &impl AsFd, most: Duration) {
    // As above.
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(most));
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, most);
}
