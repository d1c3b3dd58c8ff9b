//! The socket that the AMQP library reads and writes: plain or TLS, with an [`Inspector`] in between, and a switch that
//! ends it whatever the library is waiting for.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use bytes::{Buf, BytesMut};
use futures_util::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::inspect::{Closed, HEADER, Inspector, Returned, shortened_headers};

/// The largest frame that is asked for: RabbitMQ's own default.
pub(crate) const FRAME_BYTES_MAX: u32 = 131_072;

/// The largest content header that is accepted. RabbitMQ cannot split one, and so sends it longer than was agreed when its
/// publisher had agreed on more, or when the message died and carries more than it was published with.
const CONTENT_HEADER_BYTES_MAX: u32 = 4 << 20;

const FRAME_HEAD_BYTES: usize = 7;
const READ_BYTES: usize = 64 << 10;

/// What carries the bytes.
pub(crate) enum Socket {
    /// `amqp://`
    Plain(TcpStream),
    /// `amqps://`
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection's life, shared with whoever supervises it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    /// Ends the connection at once.
    pub(crate) kill: CancellationToken,
    /// Is cancelled once the library has let go of the socket.
    pub(crate) gone: CancellationToken,
    /// How much of it is used up: the library uses no channel's number again that the broker has closed.
    pub(crate) closed: Closed,
}

/// See the module.
pub(crate) struct Wire {
    socket: Socket,
    inspector: Inspector,
    /// Read and not yet handed on; the first `ready` bytes were inspected.
    inbox: BytesMut,
    ready: usize,
    /// The peer does not speak AMQP 0-9-1 frames: the library is to see what it said.
    foreign: bool,
    ended: bool,
    life: Life,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Wire {
    /// Around a connected socket.
    pub(crate) fn new(socket: Socket, returned: Returned, life: Life) -> Self {
        Self {
            socket,
            inspector: Inspector::new(returned, life.closed.clone()),
            inbox: BytesMut::new(),
            ready: 0,
            foreign: false,
            ended: false,
            killed: Box::pin(life.kill.clone().cancelled_owned()),
            life,
        }
    }

    /// Looks at every whole frame in the inbox, up to the first returned message behind one that is not.
    fn inspect(&mut self) -> io::Result<()> {
        let mut at = 0;
        while !self.foreign {
            let Some(&[kind, high, low, a, b, c, d]) = self.inbox.get(at..at + FRAME_HEAD_BYTES) else { break };
            // A peer that refuses the protocol answers with the header that it wants instead: "AMQP" and a version.
            if kind == b'A' {
                self.foreign = true;
                break;
            }
            let (channel, size) = (u16::from_be_bytes([high, low]), u32::from_be_bytes([a, b, c, d]));
            let size_max = if kind == HEADER { CONTENT_HEADER_BYTES_MAX } else { FRAME_BYTES_MAX };
            if size > size_max {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a frame of {size} bytes was received"),
                ));
            }
            let mut whole = FRAME_HEAD_BYTES + size as usize + 1;
            let Some(payload) = self.inbox.get_mut(at + FRAME_HEAD_BYTES..at + whole - 1) else { break };
            let returned = self.inspector.is_returned(kind, channel, payload);
            if (returned && at > 0) || self.inbox.len() < at + whole {
                break;
            }
            if kind == HEADER && !returned && whole > self.inspector.frame_bytes_max() as usize {
                whole = self.shorten(at, whole);
            }
            if let Some(payload) = self.inbox.get_mut(at + FRAME_HEAD_BYTES..at + whole - 1) {
                self.inspector.look(kind, channel, payload);
            }
            if returned {
                self.inbox.advance(whole);
            } else {
                at += whole;
            }
        }
        self.ready = if self.foreign { self.inbox.len() } else { at };
        Ok(())
    }

    /// Takes the headers out of a content header that the library would end the connection for, after which the message
    /// would come first again; how long the frame is without them. Whoever gets the message says so, with its name.
    fn shorten(&mut self, at: usize, whole: usize) -> usize {
        let payload_at = at + FRAME_HEAD_BYTES;
        let Some(payload) = self.inbox.get_mut(payload_at..at + whole - 1) else { return whole };
        let Some((headers, left)) = shortened_headers(payload) else { return whole };
        let bytes = payload.len() - headers.len() + left.len();
        if let (Some(place), Ok(size)) = (self.inbox.get_mut(at + 3..payload_at), u32::try_from(bytes)) {
            place.copy_from_slice(&size.to_be_bytes());
        }
        let after = self.inbox.split_off(payload_at + headers.end);
        self.inbox.truncate(payload_at + headers.start);
        self.inbox.extend_from_slice(&left);
        self.inbox.unsplit(after);
        FRAME_HEAD_BYTES + bytes + 1
    }

    /// Reads once into the inbox.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inbox.reserve(READ_BYTES);
        // Polled once and dropped: a read that is not ready has taken nothing.
        let polled = match &mut self.socket {
            Socket::Plain(stream) => pin!(stream.read_buf(&mut self.inbox)).poll(context),
            Socket::Tls(stream) => pin!(stream.read_buf(&mut self.inbox)).poll(context),
        };
        polled.map_ok(|count| self.ended = count == 0)
    }

    fn poll_killed(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.killed.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl futures_io::AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let wire = &mut *self;
        wire.poll_killed(context)?;
        loop {
            if wire.ready == 0 {
                wire.inspect()?;
            }
            if wire.ready > 0 {
                let count = wire.ready.min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..count), wire.inbox.get(..count)) {
                    to.copy_from_slice(from);
                }
                wire.inbox.advance(count);
                wire.ready -= count;
                return Poll::Ready(Ok(count));
            }
            if wire.ended {
                return Poll::Ready(Ok(0));
            }
            match wire.poll_fill(context)? {
                Poll::Ready(()) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl futures_io::AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(context),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.life.gone.cancel();
    }
}

/// The runtime as the AMQP library wants to see it: tokio's current one, with [`Wire`] for its sockets.
#[derive(Debug, Clone)]
pub(crate) struct Kit(async_rs::Tokio);

impl Kit {
    /// Bound to the runtime of the caller.
    pub(crate) fn current() -> Self {
        Self(async_rs::Tokio::current())
    }
}

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <async_rs::Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Wire;
    type Sleep = tokio::time::Sleep;

    /// The library never asks for this; it is refused rather than done without an inspector.
    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static> {
        Err::<Wire, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(&self, address: SocketAddr) -> impl Future<Output = io::Result<Wire>> + Send + 'static {
        let connecting = TcpStream::connect(address);
        async move { Ok(Wire::new(Socket::Plain(connecting.await?), Returned::default(), Life::default())) }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_io::AsyncRead;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(life: Life) -> (TcpStream, Wire) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        (peer, Wire::new(Socket::Plain(socket), Returned::default(), life))
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1][..], &size, payload, &[0xce]].concat()
    }

    /// Reads to the end in pieces of odd sizes.
    async fn read_all(mut wire: Wire) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let mut piece = vec![0; 1 + fastrand::usize(..700)];
            let count = poll_fn(|context| Pin::new(&mut wire).poll_read(context, &mut piece)).await?;
            if count == 0 {
                return Ok(all);
            }
            all.extend_from_slice(&piece[..count]);
        }
    }

    #[tokio::test]
    async fn frames_pass_whole_in_whatever_pieces_they_come_and_returned_ones_do_not() {
        let (mut peer, wire) = pair(Life::default()).await;
        let mut sent = Vec::new();
        let mut expected = Vec::new();
        for number in 0..300u32 {
            let body = frame(3, &vec![7; fastrand::usize(..900)]);
            sent.extend_from_slice(&body);
            expected.extend_from_slice(&body);
            if number % 3 == 0 {
                sent.extend(frame(1, &[&[0, 60, 0, 50, 1, 56][..], &[0, 0, 0]].concat()));
                sent.extend(frame(2, &[&[0, 60, 0, 0][..], &2u64.to_be_bytes(), &[0, 0]].concat()));
                sent.extend(frame(3, b"xy"));
            }
        }
        let reading = tokio::spawn(read_all(wire));
        let mut rest = sent.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(1 + fastrand::usize(..3_000)));
            peer.write_all(piece).await.unwrap();
            rest = after;
        }
        drop(peer);
        assert_eq!(reading.await.unwrap().unwrap(), expected);
    }

    #[tokio::test]
    async fn a_peer_that_wants_another_protocol_is_heard_and_an_endless_frame_is_not() {
        let (mut peer, wire) = pair(Life::default()).await;
        peer.write_all(b"AMQP\x00\x01\x00\x00").await.unwrap();
        drop(peer);
        assert_eq!(read_all(wire).await.unwrap(), b"AMQP\x00\x01\x00\x00");
        let (mut peer, wire) = pair(Life::default()).await;
        peer.write_all(&[3, 0, 1, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
        assert_eq!(read_all(wire).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_content_header_that_is_too_long_for_the_library_passes_with_what_says_so_and_its_offset() {
        let header = |fields: &[u8]| {
            // Content type, headers, delivery mode.
            let length = u32::try_from(fields.len()).unwrap().to_be_bytes();
            let properties = [&[0b1011_0000, 0, 1, b't'][..], &length, fields, &[2]].concat();
            frame(2, &[&[0, 60, 0, 0][..], &3u64.to_be_bytes(), &properties].concat())
        };
        let offset = b"\x0fx-stream-offsetl\0\0\0\0\0\0\0\x07";
        let text = |length: u32| [&b"\x01kS"[..], &length.to_be_bytes(), &vec![b'y'; length as usize]].concat();
        let long = |length| [header(&[&text(length)[..], offset].concat()), frame(3, b"abc")].concat();
        let said = b"\x16x-passerelle-shortenedt\x01";
        let short = [header(&[&said[..], offset].concat()), frame(3, b"abc")].concat();
        let tune = frame(1, &[&[0, 10, 0, 30, 0, 0][..], &8_192u32.to_be_bytes(), &[0, 0]].concat());
        for (sent, expected) in [
            (
                [long(131_000), long(131_020), long(3 << 20)].concat(),
                [long(131_000), short.clone(), short.clone()].concat(),
            ),
            ([tune.clone(), long(8_000), long(8_192)].concat(), [tune, long(8_000), short].concat()),
        ] {
            let (mut peer, wire) = pair(Life::default()).await;
            let reading = tokio::spawn(read_all(wire));
            peer.write_all(&sent).await.unwrap();
            drop(peer);
            assert!(reading.await.unwrap().unwrap() == expected);
        }
    }

    #[tokio::test]
    async fn the_switch_ends_a_read_that_waits_and_the_end_is_told() {
        let life = Life::default();
        let (_peer, wire) = pair(life.clone()).await;
        let reading = tokio::spawn(read_all(wire));
        life.kill.cancel();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        life.gone.cancelled().await;
    }
}
