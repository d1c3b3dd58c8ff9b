//! A connection beside the two links, on which to do what the broker may refuse because of what a client asked for. It refuses
//! by closing a channel, whose number the library does not use again, so that refusals on a link would end it for everybody
//! after so many. This one is opened when it is first wanted, and when it is worn another takes its place for whoever comes
//! then. Where the broker allows no further connection there is none for a while, and who wants it does without.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Mutex;

use crate::config::Amqp;

use super::connection::{self, Live};

/// After an attempt in vain the broker is asked for no other connection for so long.
const PAUSE: Duration = Duration::from_secs(5);

/// Worn connections that somebody may still use; with one more the oldest is ended, and they go on with the newest.
const WORN_MAX: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Spare {
    amqp: Amqp,
    /// What it is for, in its name at the broker and in the log.
    purpose: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Arc<Live>>,
    /// Those before it, oldest first; whoever uses them keeps them.
    worn: VecDeque<Weak<Live>>,
    /// When an attempt was in vain, if the last one was.
    failed: Option<Instant>,
}

impl Spare {
    /// Not opened yet.
    pub(super) fn new(amqp: &Amqp, purpose: &'static str) -> Arc<Self> {
        Arc::new(Self { amqp: amqp.clone(), purpose, state: Mutex::default() })
    }

    /// One that stands and is not worn, if the broker allows it.
    pub(super) async fn live(self: &Arc<Self>) -> Option<Arc<Live>> {
        if let Some(live) = self.state.lock().await.usable() {
            return Some(live.clone());
        }
        // Whoever asks may give up meanwhile, and others want it too.
        let this = self.clone();
        tokio::spawn(async move { this.renewed().await }).await.ok()?
    }

    async fn renewed(&self) -> Option<Arc<Live>> {
        let mut state = self.state.lock().await;
        if state.usable().is_none() {
            state.retire().await;
            if state.failed.is_none_or(|failed| failed.elapsed() >= PAUSE) {
                self.renew(&mut state).await;
            }
        }
        state.live.clone()
    }

    async fn renew(&self, state: &mut State) {
        let mut connected = connection::connect(&self.amqp, self.purpose).await;
        // Where there may be no more of them, those that are worn give way.
        if connected.is_err() && state.end_worn(0).await {
            connected = connection::connect(&self.amqp, self.purpose).await;
        }
        let failed_before = std::mem::replace(&mut state.failed, connected.is_err().then(Instant::now)).is_some();
        match connected {
            Ok(live) => state.live = Some(Arc::new(live)),
            Err(_) if failed_before => {}
            Err(trouble) => tracing::warn!(
                "RabbitMQ gives no connection for {}, so that what it refuses clients is at the cost of all: {trouble}",
                self.purpose
            ),
        }
    }

    /// Says goodbye, when nobody wants it any more.
    pub(super) async fn close(&self) {
        // One that is just being opened is dropped when it is there.
        let Ok(mut state) = self.state.try_lock() else { return };
        state.end_worn(0).await;
        if let Some(live) = state.live.take() {
            live.close().await;
        }
    }
}

impl State {
    fn usable(&self) -> Option<&Arc<Live>> {
        self.live.as_ref().filter(|live| live.is_alive() && !live.is_worn())
    }

    async fn retire(&mut self) {
        let Some(live) = self.live.take() else { return };
        self.worn.retain(|worn| worn.strong_count() > 0);
        self.worn.push_back(Arc::downgrade(&live));
        if let Some(unused) = Arc::into_inner(live) {
            unused.close().await;
        }
        self.end_worn(WORN_MAX).await;
    }

    /// Ends the oldest until so many are left; whether any was.
    async fn end_worn(&mut self, left: usize) -> bool {
        let more = self.worn.len().saturating_sub(left);
        let ended: Vec<_> = self.worn.drain(..more).filter_map(|worn| worn.upgrade()).collect();
        join_all(ended.iter().map(|worn| worn.close())).await;
        !ended.is_empty()
    }
}
