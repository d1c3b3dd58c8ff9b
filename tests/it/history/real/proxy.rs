//! A way to the broker that the test can cut or stall.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// They wait, both ways.
    Stalled,
    /// Connections end, and so do new ones at once.
    Cut,
}

/// The way; it ends with the run.
pub(crate) struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(broker: (std::net::Ipv4Addr, u16)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let way = watch::Sender::new(Way::Open);
        let watched = way.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                tokio::spawn(carry(node, broker, watched.clone()));
            }
        });
        Self { address, way, accepting }
    }

    /// For a node's configuration.
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }

    /// Cuts or stalls it for a while.
    pub(crate) async fn harm(&self, way: Way, moment: Duration) {
        self.way.send_replace(way);
        tokio::time::sleep(moment).await;
        self.way.send_replace(Way::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries bytes both ways until one side ends or the way is cut.
async fn carry(node: TcpStream, broker: (std::net::Ipv4Addr, u16), way: watch::Receiver<Way>) {
    let mut cut = way.clone();
    let is_cut = async move { drop(cut.wait_for(|way| *way == Way::Cut).await) };
    let carried = async move {
        // A broker that is away refuses, and so does the way to it.
        let Ok(broker) = TcpStream::connect(broker).await else { return };
        for stream in [&node, &broker] {
            let _ = stream.set_nodelay(true);
        }
        let ((from_node, to_node), (from_broker, to_broker)) = (node.into_split(), broker.into_split());
        tokio::select! {
            () = pass(from_node, to_broker, way.clone()) => {}
            () = pass(from_broker, to_node, way) => {}
        }
    };
    tokio::select! {
        () = is_cut => {}
        () = carried => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if way.wait_for(|way| *way != Way::Stalled).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
