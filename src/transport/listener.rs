//! Listening sockets. One acceptor deals accepted sockets out to the shards in turn, so that each holds as many
//! connections as the others; from then on a connection never leaves its shard.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Connections that the kernel may hold before they are accepted.
const BACKLOG: i32 = 4096;

/// How long accepting rests after the system had no descriptor or memory left for a connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A socket on its way to a shard.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// TCP, with the peer's address.
    Tcp(std::net::TcpStream, SocketAddr),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// A bound address.
#[derive(Debug)]
pub(crate) enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, whose file goes when the listener does.
    Unix(UnixListener, SocketFile),
}

/// Removes the socket's file in the end.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that is gone already is what we want.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds a TCP address; port 0 takes a free one.
///
/// # Errors
/// When the address is taken or not ours.
pub(crate) fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Binds a Unix socket, in place of one that nobody listens on any more.
///
/// # Errors
/// When another process listens there, or the folder cannot be written to.
pub(crate) fn bind_unix(path: &Path) -> io::Result<Listener> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(there) if there.file_type().is_socket() => remove_abandoned(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket stands there")),
    }
    Ok(Listener::Unix(UnixListener::bind(path)?, SocketFile(path.to_owned())))
}

/// Removes a socket that nobody listens on, of which nothing but a refusal is a sign.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

impl Listener {
    /// Where it listens, in words.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |address| format!("http://{address}/"))
            }
            Self::Unix(_, file) => file.0.display().to_string(),
        }
    }

    /// Accepts until told to stop, and deals the sockets out.
    pub(crate) async fn deal(self, shards: Vec<mpsc::Sender<Accepted>>, stop: CancellationToken) {
        for shard in shards.iter().cycle() {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.accept() => accepted,
            };
            // A shard whose queue is full delays accepting, which is what the kernel's backlog is for.
            if shard.send(accepted).await.is_err() {
                return;
            }
        }
    }

    /// The next socket, whatever it takes: what fails here concerns one connection or passes.
    async fn accept(&self) -> Accepted {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => {
                    listener.accept().await.and_then(|(stream, peer)| Ok(Accepted::Tcp(stream.into_std()?, peer)))
                }
                Self::Unix(listener, _) => {
                    listener.accept().await.and_then(|(stream, _)| Ok(Accepted::Unix(stream.into_std()?)))
                }
            };
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) if is_exhausted(&error) => {
                    tracing::warn!(%error, "cannot accept a connection: raise the limit of open files");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
                Err(error) => tracing::debug!(%error, "a connection ended before it was accepted"),
            }
        }
    }
}

/// Whether the system is out of descriptors or memory, so that trying again at once would only spin.
fn is_exhausted(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM.
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

/// A socket that a shard's runtime drives during the handshake.
#[derive(Debug)]
pub(crate) enum Handshaking {
    /// TCP, with the peer's address.
    Tcp(TcpStream, SocketAddr),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Accepted {
    /// Hands the socket to the runtime of the thread that this runs on.
    pub(crate) fn adopt(self) -> io::Result<Handshaking> {
        Ok(match self {
            Self::Tcp(stream, peer) => Handshaking::Tcp(TcpStream::from_std(stream)?, peer),
            Self::Unix(stream) => Handshaking::Unix(UnixStream::from_std(stream)?),
        })
    }
}
