//! A way to the broker on which a node can be made to lag: of what the broker sends, that for one kind of consumer is held
//! back for a while, and everything else passes.

use std::io::Result;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use crate::rabbit::Rabbit;

/// Bytes of a frame before its payload: its kind, its channel, and the payload's length.
const HEAD: usize = 7;

/// The broker's consent to a source's consumer, by the tag that the source gives it; other consumers have others.
const CONSUME_OK: &[u8] = b"\0\x3c\0\x15\x08messages";

/// What begins a message.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// The channel of what concerns the connection itself.
const CONNECTION: [u8; 2] = [0, 0];

/// Frames that are held at most: more than a source lets the broker send ahead.
const HELD_MAX: usize = 65_536;

/// What is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Nothing,
    /// What the source is sent as it comes.
    Live,
    /// What the source is sent, and what others are from their first message on: the consent to send it passes.
    LiveAndOthersMessages,
}

impl Held {
    /// Whether a frame has to wait, and with it those behind it.
    fn holds(self, frame: &[u8], is_live: bool) -> bool {
        match self {
            Self::Nothing => false,
            Self::Live => is_live,
            Self::LiveAndOthersMessages => is_live || frame[HEAD..].starts_with(&DELIVER),
        }
    }
}

/// The way; it ends with the test.
pub(super) struct Lag {
    address: SocketAddr,
    held: watch::Sender<Held>,
    accepting: JoinHandle<()>,
}

impl Lag {
    /// A way to the shared broker, on which nothing is held yet.
    pub(super) async fn new() -> Self {
        let broker = Rabbit::shared().address();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let held = watch::Sender::new(Held::Nothing);
        let watched = held.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                let broker = TcpStream::connect(broker).await.expect("the broker");
                tokio::spawn(carry(node, broker, watched.clone()));
            }
        });
        Self { address, held, accepting }
    }

    /// For a node's configuration.
    pub(super) fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }

    /// Holds back what comes from now on.
    pub(super) fn hold(&self, what: Held) {
        self.held.send_replace(what);
    }

    /// Lets it go on, with what was held.
    pub(super) fn release(&self) {
        self.held.send_replace(Held::Nothing);
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries bytes both ways until one side ends.
async fn carry(node: TcpStream, broker: TcpStream, held: watch::Receiver<Held>) {
    for stream in [&node, &broker] {
        stream.set_nodelay(true).expect("an open socket");
    }
    let ((mut from_node, to_node), (from_broker, mut to_broker)) = (node.into_split(), broker.into_split());
    let to_node = Mutex::new(to_node);
    let ((live, waiting_live), (others, waiting_others)) = (mpsc::channel(HELD_MAX), mpsc::channel(HELD_MAX));
    tokio::select! {
        _ = copy(&mut from_node, &mut to_broker) => {}
        _ = sort(from_broker, &to_node, (live, others)) => {}
        _ = pass(waiting_live, (held.clone(), true), &to_node) => {}
        _ = pass(waiting_others, (held, false), &to_node) => {}
    }
}

type Frames = mpsc::Sender<Vec<u8>>;

/// Sorts the broker's frames by their channels. Those of the connection itself, heartbeats among them, pass at once.
async fn sort(mut from: OwnedReadHalf, to: &Mutex<OwnedWriteHalf>, (live, others): (Frames, Frames)) -> Result<()> {
    // The last that consumes under this tag is the source's: it may look twice where to begin.
    let mut consuming = None;
    loop {
        let mut frame = vec![0; HEAD];
        from.read_exact(&mut frame).await?;
        let channel = [frame[1], frame[2]];
        let length = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
        // One byte ends it.
        frame.resize(HEAD + length + 1, 0);
        from.read_exact(&mut frame[HEAD..]).await?;
        if frame[HEAD..].starts_with(CONSUME_OK) {
            // It is not overtaken by what follows, because nothing is held when a node begins.
            consuming = Some(channel);
        }
        let sorted = match channel {
            CONNECTION => {
                to.lock().await.write_all(&frame).await?;
                continue;
            }
            channel if consuming == Some(channel) => &live,
            _ => &others,
        };
        sorted.send(frame).await.expect("somebody passes it on");
    }
}

/// Passes frames on, while they are not held.
async fn pass(
    mut waiting: mpsc::Receiver<Vec<u8>>,
    (mut held, is_live): (watch::Receiver<Held>, bool),
    to: &Mutex<OwnedWriteHalf>,
) -> Result<()> {
    while let Some(frame) = waiting.recv().await {
        // The test is over where nobody can release it any more.
        let _ = held.wait_for(|held| !held.holds(&frame, is_live)).await;
        to.lock().await.write_all(&frame).await?;
    }
    Ok(())
}
