//! The way up: bounded queues through which sessions hand publishes and calls to whoever holds the broker connection.

use tokio::sync::{mpsc, oneshot};

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
    pub fn new(jobs_max: usize) -> (Self, UpstreamJobs) {
        let (publishes, publishes_end) = mpsc::channel(jobs_max);
        let (calls, calls_end) = mpsc::channel(jobs_max);
        (Self { publishes, calls }, UpstreamJobs { publishes: publishes_end, calls: calls_end })
    }

    /// Publishes and waits for the broker's word.
    pub async fn publish(&self, message: Outgoing) -> PublishOutcome {
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

const FULL: &str = "too many messages wait for the broker: try again later";
const STOPPING: &str = "the server is stopping: connect again";
