//! A small TCP proxy between a client and passerelle, which cuts connections where it was told to: after so many bytes of
//! the answer, wherever that is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The proxy; it ends with the test.
pub(super) struct Proxy {
    /// Host and port for the client.
    pub(super) address: String,
    target: Arc<Mutex<String>>,
    accepted: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Cuts the first connections after so many bytes each; all others stay whole.
    pub(super) async fn start(target: &str, cuts: &[u64]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let target = Arc::new(Mutex::new(target.to_owned()));
        let accepted = Arc::new(AtomicUsize::new(0));
        let (to, count, mut cuts) = (target.clone(), accepted.clone(), VecDeque::from(cuts.to_vec()));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let target = to.lock().expect("the lock").clone();
                tokio::spawn(carry(client, target, cuts.pop_front().unwrap_or(u64::MAX)));
            }
        });
        Self { address, target, accepted, accepting }
    }

    /// Leads connections from now on somewhere else.
    pub(super) fn redirect(&self, target: &str) {
        target.clone_into(&mut self.target.lock().expect("the lock"));
    }

    /// How many connections there were.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries bytes until one side ends or enough went down; then both sides are closed.
async fn carry(mut client: TcpStream, target: String, bytes: u64) {
    // A target that is away refuses, and so does the proxy.
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let mut from_server = from_server.take(bytes);
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}
