//! Calls: a request goes out on the publishing connection with the name of our one reply queue, and the answer is matched
//! by an id of ours. A call ends with its answer, its time, the loss of what it needs, or when nobody waits for it any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lapin::Consumer;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::hub::upstream::CallJob;
use crate::metrics::CallResult;
use crate::model::outgoing::{CallOutcome, PublishOutcome, Reply};
use crate::source::{Backoff, Subject, Trouble};

use super::Context;
use super::connection::Live;
use super::exchange::{limits, short};
use super::link::{Link, State};
use super::mapping;
use super::outbound::{self, Answer, Destination, Outbound};
use super::words;

/// Bytes of answers that the broker keeps for us before it drops the oldest.
const REPLY_QUEUE_BYTES_MAX: usize = 64 << 20;

/// Answers every call, whether there is a broker or not.
pub(crate) struct Caller {
    context: Arc<Context>,
    link: Link,
    jobs: mpsc::Receiver<CallJob>,
    requests: mpsc::Sender<Outbound>,
    /// Part of every correlation id, so that answers to a process before this one match nothing.
    nonce: u64,
    next_id: u64,
}

/// The calls that wait on one reply queue.
struct Session {
    reply_queue: ShortString,
    replies: Consumer,
    waiting: HashMap<String, oneshot::Sender<Reply>>,
    calls: FuturesUnordered<BoxFuture<'static, (String, oneshot::Sender<CallOutcome>, CallOutcome)>>,
}

impl Caller {
    /// Requests go to the publisher through `requests`.
    pub(crate) fn new(
        context: Arc<Context>,
        link: Link,
        jobs: mpsc::Receiver<CallJob>,
        requests: mpsc::Sender<Outbound>,
    ) -> Self {
        Self { context, link, jobs, requests, nonce: fastrand::u64(..), next_id: 0 }
    }

    /// Until the stop.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(self.context.settings.amqp.backoff_max);
        let mut pause = Duration::ZERO;
        let mut last = None;
        while let Some(live) = self.refuse_until_up(pause, last.take()).await {
            let since = Instant::now();
            let ended = match self.open(&live).await {
                Ok(session) => self.serve(&live, session).await,
                Err(trouble) => Err(trouble),
            };
            backoff.stood_for(since.elapsed());
            let Err(trouble) = ended else { break };
            pause = if live.is_alive() {
                self.context.board.down(Subject::Replies, &trouble);
                backoff.pause()
            } else {
                Duration::ZERO
            };
            last = Some(trouble);
        }
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            self.give(job.outcome, CallOutcome::Unavailable(STOPPING.into()));
        }
    }

    /// While there is no connection, or the pause after a failure lasts, every call is answered with the reason.
    async fn refuse_until_up(&mut self, pause: Duration, last: Option<Trouble>) -> Option<Arc<Live>> {
        let ready_at = Instant::now() + pause;
        loop {
            let state = self.link.state();
            let trouble = match (&state, &last) {
                (State::Up(live), _) if live.is_alive() && Instant::now() >= ready_at => return Some(live.clone()),
                (State::Down(trouble), _) | (State::Up(_), Some(trouble)) => trouble.0.clone(),
                (State::Up(_), None) => "the connection was lost".to_owned(),
            };
            let unavailable = CallOutcome::Unavailable(format!("the broker cannot be reached now: {trouble}"));
            tokio::select! {
                biased;
                () = self.context.stop.cancelled() => return None,
                () = self.link.changed() => {}
                () = tokio::time::sleep_until(ready_at), if Instant::now() < ready_at => {}
                Some(job) = self.jobs.recv() => self.give(job.outcome, unavailable),
                else => return None,
            }
        }
    }

    /// Declares and consumes the reply queue.
    async fn open(&self, live: &Arc<Live>) -> Result<(lapin::Channel, Session), Trouble> {
        let channel = live.channel().await?;
        let amqp = &self.context.settings.amqp;
        let name = format!("{}{}.replies.{:016x}", amqp.queue_prefix, amqp.node, fastrand::u64(..));
        let reply_queue = short(&name)?;
        let failed = |error: lapin::Error| words::of_own_queue(&error, &name, &live.peer);
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(reply_queue.clone(), options, limits(REPLY_QUEUE_BYTES_MAX)).await.map_err(failed)?;
        channel.basic_qos(amqp.prefetch, BasicQosOptions::default()).await.map_err(failed)?;
        let tag = short("replies")?;
        let options = BasicConsumeOptions::default();
        let replies = channel.basic_consume(reply_queue.clone(), tag, options, FieldTable::default()).await;
        let replies = replies.map_err(failed)?;
        self.context.board.up(Subject::Replies, format!("calls are answered through queue '{name}'"));
        let session = Session { reply_queue, replies, waiting: HashMap::new(), calls: FuturesUnordered::new() };
        Ok((channel, session))
    }

    /// Serves until the stop (`Ok`) or until the reply queue is lost. The channel is held for as long.
    async fn serve(
        &mut self,
        live: &Arc<Live>,
        (_channel, mut session): (lapin::Channel, Session),
    ) -> Result<(), Trouble> {
        let mut link = self.link.clone();
        let ended = loop {
            tokio::select! {
                biased;
                () = self.context.stop.cancelled() => break Ok(()),
                trouble = link.lost(live) => break Err(trouble),
                reply = session.replies.next() => match reply {
                    Some(Ok(delivery)) => session.reply(delivery).await,
                    Some(Err(error)) => break Err(Trouble(words::quoted(&error))),
                    None => break Err(Trouble("the reply queue was deleted".into())),
                },
                Some((id, place, outcome)) = session.calls.next() => {
                    session.waiting.remove(&id);
                    self.give(place, outcome);
                }
                Some(job) = self.jobs.recv() => self.call(&mut session, job),
            }
        };
        // Without their queue no answer can come: each call ends as soon as it is told so.
        session.waiting.clear();
        while let Some((_, place, outcome)) = session.calls.next().await {
            self.give(place, outcome);
        }
        ended
    }

    /// Sends a request on its way.
    fn call(&mut self, session: &mut Session, job: CallJob) {
        if session.calls.len() >= self.context.settings.call.in_flight_max {
            let sentence = "too many calls wait for their answers: try again later";
            return self.give(job.outcome, CallOutcome::Unavailable(sentence.into()));
        }
        let CallJob { request, outcome } = job;
        let (verdict_place, verdict) = oneshot::channel();
        let context = self.context.clone();
        let timeout = request.timeout.min(context.settings.call.timeout_max);
        let answer = Answer::Request(verdict_place);
        let checked = match Destination::of_call(&context.settings, &request.message) {
            Ok(destination) => outbound::checked(request.message, destination, answer),
            Err(sentence) => Err((answer, sentence)),
        };
        let mut outbound = match checked {
            Ok(outbound) => outbound,
            Err((_, sentence)) => return self.give(outcome, CallOutcome::Refused(sentence)),
        };
        self.next_id += 1;
        let id = format!("{:016x}.{:x}", self.nonce, self.next_id);
        // Neither is ever longer than a short string may be.
        let (Ok(correlation), Ok(expiration)) =
            (ShortString::try_new(id.as_str()), ShortString::try_new(timeout.as_millis().to_string()))
        else {
            return;
        };
        outbound.properties = outbound
            .properties
            .with_reply_to(session.reply_queue.clone())
            .with_correlation_id(correlation)
            .with_expiration(expiration);
        if self.requests.try_send(outbound).is_err() {
            let sentence = "too many calls wait for the broker: try again later";
            return self.give(outcome, CallOutcome::Unavailable(sentence.into()));
        }
        let (reply_place, reply) = oneshot::channel();
        session.waiting.insert(id.clone(), reply_place);
        let pending = Pending { outcome, reply, verdict, deadline: Instant::now() + timeout };
        session.calls.push(Box::pin(pending.end(id)));
    }

    fn give(&self, place: oneshot::Sender<CallOutcome>, outcome: CallOutcome) {
        if place.is_closed() {
            return self.context.metrics.call(CallResult::Abandoned);
        }
        self.context.metrics.call(&outcome);
        let _ = place.send(outcome);
    }
}

const STOPPING: &str = "the server is stopping: connect again";

impl Session {
    /// An answer, perhaps to a call that nobody waits for any more.
    async fn reply(&mut self, delivery: Delivery) {
        let acker = delivery.acker.clone();
        let id = delivery.properties.correlation_id().as_ref().map(ShortString::as_str);
        if let Some(place) = id.and_then(|id| self.waiting.remove(id)) {
            mapping::tell_if_shortened(&delivery, self.reply_queue.as_str());
            let properties = &delivery.properties;
            let content_type = mapping::property(properties.content_type());
            let headers = properties.headers().as_ref().map(mapping::headers).unwrap_or_default();
            let _ = place.send(Reply { payload: delivery.data.into(), content_type, headers });
        }
        // A failure shows on the consumer as well, where it is acted on.
        let _ = acker.ack(BasicAckOptions::default()).await;
    }
}

/// One call under way.
struct Pending {
    outcome: oneshot::Sender<CallOutcome>,
    reply: oneshot::Receiver<Reply>,
    verdict: oneshot::Receiver<PublishOutcome>,
    deadline: Instant,
}

impl Pending {
    /// Waits for whatever ends it first.
    async fn end(mut self, id: String) -> (String, oneshot::Sender<CallOutcome>, CallOutcome) {
        let outcome = tokio::select! {
            biased;
            // The place is closed, so nobody is told.
            () = self.outcome.closed() => CallOutcome::TimedOut,
            reply = &mut self.reply => match reply {
                Ok(reply) => CallOutcome::Replied(reply),
                Err(_) => CallOutcome::Unavailable("lost the connection to the broker before the answer came".into()),
            },
            failure = failure(self.verdict) => failure,
            () = tokio::time::sleep_until(self.deadline) => CallOutcome::TimedOut,
        };
        (id, self.outcome, outcome)
    }
}

/// What ends a call because its request did not get through; never completes if it did.
async fn failure(verdict: oneshot::Receiver<PublishOutcome>) -> CallOutcome {
    match verdict.await {
        Ok(PublishOutcome::Confirmed { routed: true }) => std::future::pending().await,
        Ok(PublishOutcome::Confirmed { routed: false }) => CallOutcome::Unroutable,
        Ok(PublishOutcome::Refused(sentence)) => CallOutcome::Refused(sentence),
        Ok(PublishOutcome::Unavailable(sentence)) => CallOutcome::Unavailable(sentence),
        Err(_) => CallOutcome::Unavailable(STOPPING.into()),
    }
}
