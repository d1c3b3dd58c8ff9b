//! The way up: bounded queues through which sessions hand publishes, calls and queues to be consumed to whoever holds the
//! broker connection. Deliveries of such a queue are its client's alone, so they come down here too and pass no log.

mod repeats;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use repeats::{Claim, Key, Repeats};

use crate::config::Publish;
use crate::model::delivery::{ConsumeNews, ConsumeOrder, ConsumeRefusal, ConsumeRequest};
use crate::model::outgoing::{CallOutcome, Outgoing, PublishOutcome, Request};

/// A publish and the promise of its outcome. Whoever stops waiting for that abandons the answer, not the message.
#[derive(Debug)]
pub struct PublishJob {
    /// What to publish.
    pub message: Outgoing,
    /// What the outcome is owed to.
    pub outcome: Promise,
}

/// The promise of a publish's outcome: to whoever waits for it, and to those who repeat it. Dropped without one it says that the
/// server stops.
#[derive(Debug)]
pub struct Promise {
    answer: oneshot::Sender<PublishOutcome>,
    first: Option<First>,
}

/// The first of several publishes under one message id; given up when it is dropped.
#[derive(Debug)]
pub struct First {
    repeats: Arc<Mutex<Repeats>>,
    /// Boxed: most publishes have none, and each is moved several times.
    key: Option<Box<Key>>,
}

/// A call and the place for its outcome. Dropping the place cancels the call.
#[derive(Debug)]
pub struct CallJob {
    /// What to ask.
    pub request: Request,
    /// Where the outcome goes.
    pub outcome: oneshot::Sender<CallOutcome>,
}

/// A queue to be consumed, until the sender of its orders is dropped: then whatever is held goes back at once.
#[derive(Debug)]
pub struct ConsumeJob {
    /// Which, and how.
    pub request: ConsumeRequest,
    /// What its session wants of it.
    pub orders: mpsc::Receiver<ConsumeOrder>,
    /// Where its session is told. Whoever sends waits for room.
    pub news: mpsc::Sender<ConsumeNews>,
}

/// A session's end of a queue that it consumes.
#[derive(Debug)]
pub struct Consumption {
    /// Has room for all that a session which orders each thing once can order.
    pub orders: mpsc::Sender<ConsumeOrder>,
    /// Ends after [`ConsumeNews::Ended`], or when all is settled after [`ConsumeNews::Stopped`].
    pub news: mpsc::Receiver<ConsumeNews>,
}

/// What sessions hold: cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstream {
    publishes: mpsc::Sender<PublishJob>,
    calls: mpsc::Sender<CallJob>,
    repeats: Arc<Mutex<Repeats>>,
    consumes: mpsc::Sender<ConsumeJob>,
}

/// What the publisher holds.
#[derive(Debug)]
pub struct UpstreamJobs {
    /// Publishes in the order in which the sessions handed them over.
    pub publishes: mpsc::Receiver<PublishJob>,
    /// Calls likewise.
    pub calls: mpsc::Receiver<CallJob>,
    /// Queues to be consumed.
    pub consumes: mpsc::Receiver<ConsumeJob>,
}

impl Upstream {
    /// Both ends; each queue holds at most `jobs_max`.
    pub fn new(jobs_max: usize, settings: &Publish) -> (Self, UpstreamJobs) {
        let (publishes, publishes_end) = mpsc::channel(jobs_max);
        let (calls, calls_end) = mpsc::channel(jobs_max);
        let (consumes, consumes_end) = mpsc::channel(jobs_max);
        let repeats = Repeats::new(settings.repeat_window, settings.repeats_max);
        let repeats = Arc::new(Mutex::new(repeats));
        let jobs = UpstreamJobs { publishes: publishes_end, calls: calls_end, consumes: consumes_end };
        (Self { publishes, calls, consumes, repeats }, jobs)
    }

    /// Publishes and waits for the broker's word. What was confirmed a short while ago under the same message id is not
    /// published again. Dropping the future changes nothing of that.
    pub async fn publish(&self, message: Outgoing) -> PublishOutcome {
        let mut first = None;
        if let Some(key) = Key::of(&message) {
            let claim = locked(&self.repeats).claim(&key, Instant::now());
            match claim {
                Claim::Answered(outcome) => return outcome,
                Claim::Second(first) => return first.await.unwrap_or_else(|_| unavailable(GIVEN_UP)),
                Claim::First => first = Some(First { repeats: self.repeats.clone(), key: Some(Box::new(key)) }),
            }
        }
        let (answer, told) = oneshot::channel();
        match self.publishes.try_send(PublishJob { message, outcome: Promise { answer, first } }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(job)) => job.outcome.tell(unavailable(FULL)),
            Err(mpsc::error::TrySendError::Closed(job)) => job.outcome.tell(unavailable(STOPPING)),
        }
        told.await.unwrap_or_else(|_| unavailable(STOPPING))
    }

    /// Publishes without waiting for the broker's word, which nobody is left to hear: it is handed over when this returns, before
    /// whatever is published next.
    pub fn publish_unheard(&self, message: Outgoing) {
        let (answer, _) = oneshot::channel();
        // As with its outcome.
        let _ = self.publishes.try_send(PublishJob { message, outcome: Promise { answer, first: None } });
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

    /// Consumes a queue, and goes on after every lost link.
    pub fn consume(&self, request: ConsumeRequest) -> Consumption {
        // Beside one settlement for each delivery there is the one order to stop.
        let (orders, orders_end) = mpsc::channel(usize::from(request.prefetch) + 1);
        let (news_end, news) = mpsc::channel(NEWS_MAX);
        let told = news_end.clone();
        let refuse = |sentence: &str| {
            // The channel is new and has room.
            let _ = told.try_send(ConsumeNews::Ended(ConsumeRefusal::Unavailable(sentence.into())));
        };
        match self.consumes.try_send(ConsumeJob { request, orders: orders_end, news: news_end }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => refuse(FULL),
            Err(mpsc::error::TrySendError::Closed(_)) => refuse(STOPPING),
        }
        Consumption { orders, news }
    }
}

impl Promise {
    /// Tells the outcome.
    pub fn tell(self, outcome: PublishOutcome) {
        if let Some(first) = self.first {
            first.tell(&outcome);
        }
        // Whoever asked may have gone.
        let _ = self.answer.send(outcome);
    }

    /// Tells whoever waits that it is not known yet whether the message arrived. Who repeats it is told the same, until the first
    /// is told the outcome after all; there is none where nobody can repeat it.
    pub fn doubt(self, sentence: &str) -> Option<First> {
        let doubt = unavailable(sentence);
        if let Some(first) = &self.first {
            first.doubt(&doubt);
        }
        // Whoever asked may have gone.
        let _ = self.answer.send(doubt);
        self.first
    }
}

impl First {
    /// Tells the outcome to those who repeat it.
    pub fn tell(mut self, outcome: &PublishOutcome) {
        self.settle(Some(outcome));
    }

    fn doubt(&self, doubt: &PublishOutcome) {
        if let Some(key) = &self.key {
            locked(&self.repeats).doubt(key, doubt);
        }
    }

    fn settle(&mut self, outcome: Option<&PublishOutcome>) {
        if let Some(key) = self.key.take() {
            locked(&self.repeats).settle(*key, outcome, Instant::now());
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        self.settle(None);
    }
}

fn locked(repeats: &Mutex<Repeats>) -> MutexGuard<'_, Repeats> {
    repeats.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unavailable(sentence: &str) -> PublishOutcome {
    PublishOutcome::Unavailable(sentence.into())
}

const GIVEN_UP: &str = "the first publish under this message_id was given up: it may or may not have been sent";
/// News of one queue that may wait for its session.
const NEWS_MAX: usize = 64;

const FULL: &str = "too many messages wait for the broker: try again later";
const STOPPING: &str = "the server is stopping: connect again";

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;

    use super::*;
    use crate::model::topic::Topic;

    const DONE: PublishOutcome = PublishOutcome::Confirmed { routed: true };

    fn message() -> Outgoing {
        let message_id = Some("m".to_owned());
        Outgoing { message_id, ..Outgoing::new(Topic::parse("a").unwrap(), Bytes::new()) }
    }

    fn look(publish: std::pin::Pin<&mut impl Future<Output = PublishOutcome>>) -> Poll<PublishOutcome> {
        publish.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn upstream() -> (Upstream, UpstreamJobs) {
        Upstream::new(9, &crate::config::Settings::default().publish)
    }

    /// A line that was lost takes the waiting along, as a request over HTTP does.
    #[test]
    fn who_no_longer_waits_has_published_all_the_same() {
        let (upstream, mut jobs) = upstream();
        {
            let lost = pin!(upstream.publish(message()));
            assert!(look(lost).is_pending());
        }
        let mut again = pin!(upstream.publish(message()));
        assert!(look(again.as_mut()).is_pending());
        jobs.publishes.try_recv().unwrap().outcome.tell(DONE);
        assert_eq!(look(again), Poll::Ready(DONE));
        assert_eq!(look(pin!(upstream.publish(message()))), Poll::Ready(DONE));
        assert!(jobs.publishes.try_recv().is_err(), "it was published once");
    }

    #[test]
    fn what_is_in_doubt_is_not_published_again_until_its_outcome_is_known() {
        for (outcome, is_published_again) in [(Some(DONE), false), (Some(unavailable("no")), true), (None, true)] {
            let (upstream, mut jobs) = upstream();
            let (mut first, mut second) = (pin!(upstream.publish(message())), pin!(upstream.publish(message())));
            assert!(look(first.as_mut()).is_pending() && look(second.as_mut()).is_pending());
            let late = jobs.publishes.try_recv().unwrap().outcome.doubt("who knows").unwrap();
            for told in [first, second, pin!(upstream.publish(message()))] {
                assert_eq!(look(told), Poll::Ready(unavailable("who knows")));
            }
            match &outcome {
                Some(outcome) => late.tell(outcome),
                None => drop(late),
            }
            let mut again = pin!(upstream.publish(message()));
            assert_eq!(look(again.as_mut()).is_pending(), is_published_again, "{outcome:?}");
            assert_eq!(jobs.publishes.try_recv().is_ok(), is_published_again);
        }
    }
}
