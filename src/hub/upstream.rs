//! The way up: bounded queues through which sessions hand publishes and calls to whoever holds the broker connection.

mod repeats;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use repeats::{Claim, Key, Repeats};

use crate::config::Publish;
use crate::model::outgoing::{CallOutcome, Outgoing, PublishOutcome, Request};

/// A publish and the place for its outcome. Dropping the place abandons the answer, not the message.
#[derive(Debug)]
pub struct PublishJob {
    /// What to publish.
    pub message: Outgoing,
    /// Where the outcome goes.
    pub outcome: oneshot::Sender<PublishOutcome>,
}

/// A call and the place for its outcome. Dropping the place cancels the call.
#[derive(Debug)]
pub struct CallJob {
    /// What to ask.
    pub request: Request,
    /// Where the outcome goes.
    pub outcome: oneshot::Sender<CallOutcome>,
}

/// What sessions hold: cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstream {
    publishes: mpsc::Sender<PublishJob>,
    calls: mpsc::Sender<CallJob>,
    repeats: Arc<Mutex<Repeats>>,
}

/// What the publisher holds.
#[derive(Debug)]
pub struct UpstreamJobs {
    /// Publishes in the order in which the sessions handed them over.
    pub publishes: mpsc::Receiver<PublishJob>,
    /// Calls likewise.
    pub calls: mpsc::Receiver<CallJob>,
}

impl Upstream {
    /// Both ends; each queue holds at most `jobs_max`.
    pub fn new(jobs_max: usize, settings: &Publish) -> (Self, UpstreamJobs) {
        let (publishes, publishes_end) = mpsc::channel(jobs_max);
        let (calls, calls_end) = mpsc::channel(jobs_max);
        let repeats = Repeats::new(settings.repeat_window, settings.repeats_max);
        let repeats = Arc::new(Mutex::new(repeats));
        (Self { publishes, calls, repeats }, UpstreamJobs { publishes: publishes_end, calls: calls_end })
    }

    /// Publishes and waits for the broker's word. What was confirmed a short while ago under the same message id is not
    /// published again.
    pub async fn publish(&self, message: Outgoing) -> PublishOutcome {
        let Some(key) = Key::of(&message) else { return self.publish_once(message).await };
        let claim = self.repeats().claim(&key, Instant::now());
        match claim {
            Claim::Answered(outcome) => outcome,
            Claim::Second(first) => first.await.unwrap_or_else(|_| PublishOutcome::Unavailable(GIVEN_UP.into())),
            Claim::First => {
                let mut first = First { upstream: self, key: Some(key) };
                let outcome = self.publish_once(message).await;
                first.settle(Some(&outcome));
                outcome
            }
        }
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn publish_once(&self, message: Outgoing) -> PublishOutcome {
        let (outcome, answer) = oneshot::channel();
        match self.publishes.try_send(PublishJob { message, outcome }) {
            Ok(()) => answer.await.unwrap_or_else(|_| PublishOutcome::Unavailable(STOPPING.into())),
            Err(mpsc::error::TrySendError::Full(_)) => PublishOutcome::Unavailable(FULL.into()),
            Err(mpsc::error::TrySendError::Closed(_)) => PublishOutcome::Unavailable(STOPPING.into()),
        }
    }

    /// Calls and waits for the answer. Dropping the future cancels the call.
    pub async fn call(&self, request: Request) -> CallOutcome {
        let (outcome, answer) = oneshot::channel();
        match self.calls.try_send(CallJob { request, outcome }) {
            Ok(()) => answer.await.unwrap_or_else(|_| CallOutcome::Unavailable(STOPPING.into())),
            Err(mpsc::error::TrySendError::Full(_)) => CallOutcome::Unavailable(FULL.into()),
            Err(mpsc::error::TrySendError::Closed(_)) => CallOutcome::Unavailable(STOPPING.into()),
        }
    }
}

/// The first of several publishes under one message id; given up when it is dropped.
struct First<'a> {
    upstream: &'a Upstream,
    key: Option<Key>,
}

impl First<'_> {
    fn settle(&mut self, outcome: Option<&PublishOutcome>) {
        if let Some(key) = self.key.take() {
            self.upstream.repeats().settle(key, outcome, Instant::now());
        }
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        self.settle(None);
    }
}

const GIVEN_UP: &str = "the first publish under this message_id was given up: it may or may not have been sent";
const FULL: &str = "too many messages wait for the broker: try again later";
const STOPPING: &str = "the server is stopping: connect again";
