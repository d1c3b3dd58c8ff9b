//! The subscribers: one thread that only counts. It walks frame heads and reads no payload, so that it costs a small part
//! of the server that it measures.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use mio::{Events, Interest, Poll, Token};

use crate::Progress;

/// What one read may take.
const READ_BYTES: usize = 1 << 18;

/// Many subscribers and what waits for each.
pub(crate) struct Subscribers {
    poll: Poll,
    all: Vec<Subscriber>,
    buffer: Vec<u8>,
}

struct Subscriber {
    stream: mio::net::TcpStream,
    frames: Frames,
}

/// Counts data frames in a stream of bytes.
#[derive(Default)]
struct Frames {
    /// The start of a frame whose head is not complete.
    head: Vec<u8>,
    /// Payload bytes of the current frame still to come.
    rest: u64,
    received: u64,
}

impl Subscribers {
    /// Connects, one after the other, and sends each one's first words.
    pub(crate) fn connect(
        url: &str,
        protocol: Option<&str>,
        hello: Option<&str>,
        count: usize,
    ) -> anyhow::Result<Self> {
        let (poll, mut all) = (Poll::new()?, Vec::with_capacity(count));
        let address = url.strip_prefix("ws://").context("--url starts with ws://")?;
        let (authority, path) = address.split_once('/').unwrap_or((address, ""));
        let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: cGFzc2VyZWxsZS1iZW5jaA==\r\n{protocol}\r\n"
        );
        for index in 0..count {
            let mut stream = TcpStream::connect(authority)?;
            stream.write_all(request.as_bytes())?;
            let mut frames = Frames::default();
            frames.count(&shake_hands(&mut stream)?)?;
            if let Some(text) = hello {
                stream.write_all(&text_frame(text)?)?;
            }
            stream.set_nonblocking(true)?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            all.push(Subscriber { stream, frames });
        }
        Ok(Self { poll, all, buffer: vec![0; READ_BYTES] })
    }

    /// Reads whatever comes for a while, and forgets it.
    pub(crate) fn settle(&mut self, duration: Duration) -> anyhow::Result<()> {
        self.run(&Progress::default(), duration)?;
        for subscriber in &mut self.all {
            subscriber.frames.received = 0;
        }
        Ok(())
    }

    /// Receives for a while and tells the publisher how far everybody is.
    pub(crate) fn run(&mut self, progress: &Progress, duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration;
        let mut events = Events::with_capacity(1024);
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if let Err(error) = self.poll.poll(&mut events, Some(left)) {
                ensure!(error.kind() == ErrorKind::Interrupted, error);
            }
            for event in &events {
                let subscriber = self.all.get_mut(event.token().0).context("no such subscriber")?;
                subscriber.receive(&mut self.buffer)?;
            }
            let slowest = self.all.iter().map(|subscriber| subscriber.frames.received).min().unwrap_or(0);
            if progress.slowest.swap(slowest, Ordering::Relaxed) != slowest {
                progress.risen.notify_one();
            }
        }
        Ok(())
    }

    /// What all have received together.
    pub(crate) fn received(&self) -> u64 {
        self.all.iter().map(|subscriber| subscriber.frames.received).sum()
    }
}

impl Subscriber {
    fn receive(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(count) => {
                    self.frames.count(buffer.get(..count).unwrap_or_default())?;
                    // A short read emptied the socket: its next byte is a new event.
                    if count < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Frames {
    fn count(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        if !self.head.is_empty() {
            let mut joined = std::mem::take(&mut self.head);
            joined.extend_from_slice(bytes);
            return self.count(&joined);
        }
        loop {
            let taken = self.rest.min(bytes.len() as u64);
            self.rest -= taken;
            bytes = bytes.get(taken as usize..).unwrap_or_default();
            if self.rest > 0 || bytes.is_empty() {
                return Ok(());
            }
            let Some((opcode, head, payload)) = head(bytes) else {
                self.head = bytes.to_vec();
                return Ok(());
            };
            ensure!(
                opcode != 8,
                "the server said goodbye: {}",
                String::from_utf8_lossy(bytes.get(head..).unwrap_or_default())
            );
            self.received += u64::from(matches!(opcode, 1 | 2));
            bytes = bytes.get(head..).unwrap_or_default();
            self.rest = payload;
        }
    }
}

/// Opcode, length of the head and length of the payload, once the head is there.
fn head(bytes: &[u8]) -> Option<(u8, usize, u64)> {
    let opcode = bytes.first()? & 0x0f;
    let (head, payload) = match bytes.get(1)? & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    Some((opcode, head, payload))
}

/// Reads the answer; returns what came behind it.
fn shake_hands(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "no handshake: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            ensure!(answer.starts_with(b"HTTP/1.1 101"), "refused: {}", String::from_utf8_lossy(&answer));
            return Ok(answer.split_off(end + 4));
        }
    }
}

/// A client's frame, masked with zeros, which leave it readable.
fn text_frame(text: &str) -> anyhow::Result<Vec<u8>> {
    let length = u16::try_from(text.len()).context("the first words are too long")?;
    let mut frame = vec![0x81];
    match u8::try_from(length).ok().filter(|short| *short < 126) {
        Some(short) => frame.push(0x80 | short),
        None => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    Ok(frame)
}
