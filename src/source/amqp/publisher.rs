//! Publishes: every message mandatory and confirmed, many in flight, each answered exactly once. What the broker says about
//! one message must not be told about another: confirms are matched by the library, returned messages by our own id.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amq_protocol::protocol::basic::gen_properties;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, PublisherConfirm};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::hub::upstream::{First, PublishJob};
use crate::model::outgoing::PublishOutcome;
use crate::source::Trouble;

use super::Context;
use super::binder;
use super::connection::Live;
use super::link::{Link, State};
use super::outbound::{self, Answer, Destination, Outbound};
use super::probe;
use super::rights::{self, Rights};
use super::words::{self, Refusal};

/// How long the answer "there is no such exchange" is believed.
const MISSING_FOR: Duration = Duration::from_secs(1);

/// How long a question about an exchange, or a new channel, may hold up the publishes behind it.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a frame with properties that are not theirs: its head and end, the class, a weight and the size of the body.
const PROPERTIES_FRAME_BYTES: usize = 20;

/// How long publishes in flight may take at a stop.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Answers every job, whether there is a broker or not.
pub(crate) struct Publisher {
    context: Arc<Context>,
    link: Link,
    jobs: mpsc::Receiver<PublishJob>,
    requests: mpsc::Receiver<Outbound>,
}

impl Publisher {
    /// `jobs` are clients' publishes, `requests` those of calls.
    pub(crate) fn new(
        context: Arc<Context>,
        link: Link,
        jobs: mpsc::Receiver<PublishJob>,
        requests: mpsc::Receiver<Outbound>,
    ) -> Self {
        Self { context, link, jobs, requests }
    }

    /// Until the stop.
    pub(crate) async fn run(mut self) {
        while let Some(live) = self.refuse_until_up().await {
            let mut session = Session::new(self.context.clone(), live.clone());
            let unavailable = self.serve(&mut session).await;
            session.fail_all(&unavailable);
            if self.context.stop.is_cancelled() {
                break;
            }
        }
        self.jobs.close();
        self.requests.close();
        while let Ok(job) = self.jobs.try_recv() {
            Answer::Publish(job.outcome).give(&self.context.metrics, PublishOutcome::Unavailable(STOPPING.into()));
        }
    }

    /// While there is no connection, every job is answered with the reason.
    async fn refuse_until_up(&mut self) -> Option<Arc<Live>> {
        loop {
            let trouble = match self.link.state() {
                State::Up(live) => return Some(live),
                State::Down(trouble) => trouble,
            };
            let unavailable = || PublishOutcome::Unavailable(format!("the broker cannot be reached now: {trouble}"));
            tokio::select! {
                biased;
                () = self.context.stop.cancelled() => return None,
                () = self.link.changed() => {}
                Some(job) = self.jobs.recv() => Answer::Publish(job.outcome).give(&self.context.metrics, unavailable()),
                Some(request) = self.requests.recv() => request.answer.give(&self.context.metrics, unavailable()),
                else => return None,
            }
        }
    }

    /// Publishes until the connection is lost or the program stops; answers what those still in flight are to be told.
    async fn serve(&mut self, session: &mut Session) -> String {
        let mut blocked = session.live.blocked.subscribe();
        let live = session.live.clone();
        let window = self.context.settings.publish.in_flight_max.max(1);
        loop {
            let has_room = session.waiting.len() < window;
            let late = session.next_deadline();
            tokio::select! {
                biased;
                () = self.context.stop.cancelled() => {
                    // What is answered within the last chance is answered truly.
                    let _ = timeout(LAST_CHANCE, session.drain()).await;
                    return STOPPING.into();
                }
                trouble = self.link.lost(&live) => return format!("{trouble}; it is not known whether the message arrived"),
                Ok(()) = blocked.changed() => {
                    if let Some(reason) = blocked.borrow_and_update().clone() {
                        session.doubt_all(&doubt_sentence(&reason));
                    }
                }
                Some((id, confirmed)) = session.confirms.next() => session.settle(id, confirmed),
                () = binder::sleep_until(late) => session.time_out(),
                Some(job) = self.jobs.recv(), if has_room => session.publish_job(job).await,
                Some(request) = self.requests.recv(), if has_room => session.publish(request).await,
            }
        }
    }
}

const STOPPING: &str = "the server is stopping: connect again";
const TIMED_OUT: &str = "the broker did not confirm in time; it is not known whether the message arrived";

fn blocked_sentence(reason: &str) -> String {
    format!("the broker accepts no messages now ({reason}): try again later")
}

/// Of what was sent before the broker said so: it keeps what it has not read, and takes it when it can.
fn doubt_sentence(reason: &str) -> String {
    format!(
        "the broker accepts no messages now ({reason}); it is not known whether this one arrives when it does again"
    )
}

/// The publishes on one connection.
struct Session {
    context: Arc<Context>,
    live: Arc<Live>,
    channel: Option<Channel>,
    /// What somebody still waits for, by id.
    waiting: HashMap<i64, Waiting>,
    /// What nobody waits for and somebody may repeat, by id: the broker's late word is for those.
    doubtful: HashMap<i64, First>,
    /// When each of them is late, in order; those answered since are passed over.
    deadlines: VecDeque<(Instant, i64)>,
    /// What the broker has not confirmed yet, whether anybody still waits for it or not.
    confirms: FuturesUnordered<BoxFuture<'static, (i64, lapin::Result<Confirmation>)>>,
    /// Exchanges that were seen to exist (`None`), or when they were missed and the sentence for that.
    exchanges: HashMap<String, Option<(Instant, String)>>,
    rights: Rights,
    next_id: i64,
}

struct Waiting {
    answer: Answer,
    exchange: String,
    topic: String,
    payload_bytes: usize,
}

impl Session {
    fn new(context: Arc<Context>, live: Arc<Live>) -> Self {
        Self {
            rights: Rights::new(&context.settings.amqp),
            context,
            live,
            channel: None,
            waiting: HashMap::new(),
            doubtful: HashMap::new(),
            deadlines: VecDeque::new(),
            confirms: FuturesUnordered::new(),
            exchanges: HashMap::new(),
            next_id: 0,
        }
    }

    /// Checks a client's publish and publishes it.
    async fn publish_job(&mut self, job: PublishJob) {
        let PublishJob { message, outcome } = job;
        let answer = Answer::Publish(outcome);
        let context = self.context.clone();
        let checked = match Destination::of_publish(&context.settings, &message) {
            Ok(destination) => outbound::checked(message, destination, answer),
            Err(sentence) => Err((answer, sentence)),
        };
        match checked {
            Ok(mut outbound) => {
                let mode = if context.settings.publish.persistent { 2 } else { 1 };
                outbound.properties = outbound.properties.with_delivery_mode(mode);
                self.publish(outbound).await;
            }
            Err((answer, sentence)) => answer.give(&context.metrics, PublishOutcome::Refused(sentence)),
        }
    }

    /// Publishes; the outcome comes with the confirm, or at once if there is none to wait for.
    async fn publish(&mut self, outbound: Outbound) {
        if let Err(outcome) = self.prepare(&outbound).await {
            return outbound.answer.give(&self.context.metrics, outcome);
        }
        let Some(channel) = self.channel.clone() else { return };
        let Outbound { exchange, topic, payload, properties, headers, answer, .. } = outbound;
        self.next_id += 1;
        let id = self.next_id;
        let properties = properties.with_headers(outbound::with_id(headers, id));
        let payload_bytes = payload.len();
        let sentence = too_large(&properties, self.live.frame_bytes_max()).or_else(|| self.too_long(payload_bytes));
        if let Some(sentence) = sentence {
            return answer.give(&self.context.metrics, PublishOutcome::Refused(sentence));
        }
        let topic_name = topic.as_str().to_owned();
        let waiting = Waiting { answer, exchange: exchange.clone(), topic: topic_name, payload_bytes };
        self.waiting.insert(id, waiting);
        let late = Instant::now() + self.context.settings.publish.timeout;
        self.deadlines.push_back((late, id));
        // Both were checked to be no longer than this allows.
        let (Ok(exchange), Ok(key)) = (ShortString::try_new(exchange), ShortString::try_new(topic.as_str())) else {
            return self.answer(id, PublishOutcome::Refused("the topic is too long".into()));
        };
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let mut sending =
            Box::pin(async move { channel.basic_publish(exchange, key, options, &payload, properties).await });
        let mut blocked = self.live.blocked.subscribe();
        tokio::select! {
            biased;
            sent = &mut sending => match sent {
                Ok(confirm) => self.confirms.push(Box::pin(confirmed(id, confirm))),
                Err(error) => self.channel_failed(&error),
            },
            // A blocked or dead connection writes nothing, perhaps for ever. What the library has it writes when it can.
            _ = blocked.wait_for(Option::is_some) => {
                self.confirms.push(Box::pin(sent_late(id, sending)));
                self.doubt_all(&doubt_sentence("it is low on resources"));
            }
            () = self.live.life.gone.cancelled() => {}
            () = tokio::time::sleep_until(late.into()) => {
                self.confirms.push(Box::pin(sent_late(id, sending)));
                self.time_out();
            }
        }
    }

    /// Why the broker would not take a payload, if it would not: it ends the channel over one, with everybody's publishes.
    fn too_long(&self, payload_bytes: usize) -> Option<String> {
        let bytes_max = self.live.payload_bytes_max();
        (payload_bytes > bytes_max).then(|| {
            format!(
                "the payload has {payload_bytes} bytes, and the broker takes {bytes_max}: send less at once, or raise its \
                 max_message_size"
            )
        })
    }

    /// Makes sure of what a publish needs.
    async fn prepare(&mut self, outbound: &Outbound) -> Result<(), PublishOutcome> {
        if let Some(reason) = self.live.blocked.borrow().clone() {
            return Err(PublishOutcome::Unavailable(blocked_sentence(&reason)));
        }
        let prepared = timeout(QUESTION_TIMEOUT, async {
            if let Some(sentence) = self.missing(outbound).await? {
                return Ok(Some(sentence));
            }
            if let Some(sentence) = self.rights.refusal(&outbound.exchange, outbound.topic.as_str()).await? {
                return Ok(Some(sentence));
            }
            self.open_channel().await.map(|()| None)
        });
        match prepared.await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(sentence))) => Err(PublishOutcome::Refused(sentence)),
            Ok(Err(trouble)) => {
                Err(PublishOutcome::Unavailable(format!("the broker cannot be reached now: {trouble}")))
            }
            Err(_) => Err(PublishOutcome::Unavailable("the broker does not answer now: try again later".into())),
        }
    }

    /// Asks for the exchange before its first use, on a channel that may be closed for it: a publish to one that does not
    /// exist would close the channel of all others. Where something was refused already, that is a trial's.
    async fn missing(&mut self, outbound: &Outbound) -> Result<Option<String>, Trouble> {
        let exchange = &outbound.exchange;
        match self.exchanges.get(exchange) {
            _ if exchange.is_empty() => return Ok(None),
            Some(None) => return Ok(None),
            Some(Some((since, sentence))) if since.elapsed() < MISSING_FOR => return Ok(Some(sentence.clone())),
            Some(Some(_)) | None => {}
        }
        let trial = if self.live.has_refused() { self.context.trials.live().await } else { None };
        let sentence = match probe::exchange(trial.as_ref().unwrap_or(&self.live), exchange).await {
            Ok(()) => None,
            Err(error) if words::refusal(&error) == Some(Refusal::NotFound) => {
                let (vhost, key) = (&self.live.peer.vhost, &outbound.key);
                let sentence =
                    format!("exchange '{exchange}' does not exist on vhost '{vhost}': create it or correct {key}");
                tracing::warn!("{sentence}");
                Some(sentence)
            }
            Err(error) => return Err(Trouble(words::quoted(&error))),
        };
        self.exchanges.insert(exchange.clone(), sentence.clone().map(|sentence| (Instant::now(), sentence)));
        Ok(sentence)
    }

    async fn open_channel(&mut self) -> Result<(), Trouble> {
        if self.channel.as_ref().is_some_and(|channel| channel.status().connected()) {
            return Ok(());
        }
        self.abandon_channel("the broker closed the channel; it is not known whether the message arrived");
        let channel = self.live.channel().await?;
        let confirming = channel.confirm_select(ConfirmSelectOptions::default()).await;
        confirming.map_err(|error| Trouble(words::quoted(&error)))?;
        self.channel = Some(channel);
        Ok(())
    }

    /// The broker's word on one publish.
    fn settle(&mut self, id: i64, confirmed: lapin::Result<Confirmation>) {
        let returned = self.live.returned.take(id);
        match confirmed {
            Ok(Confirmation::Ack(_)) => self.answer(id, PublishOutcome::Confirmed { routed: !returned }),
            Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => {
                let sentence = "the broker did not take the message, perhaps because a queue is full: try again later";
                self.answer(id, PublishOutcome::Refused(sentence.into()));
            }
            // Those of a channel that is gone were all answered when it went.
            Err(error) if self.waiting.contains_key(&id) => self.channel_failed(&error),
            Err(_) => drop(self.doubtful.remove(&id)),
        }
    }

    /// The channel is gone, because of one publish at most; every one in flight learns what is known about it.
    fn channel_failed(&mut self, error: &lapin::Error) {
        let refusal = words::refusal(error);
        let text = words::quoted(error);
        let is_alone = self.waiting.len() == 1;
        if refusal == Some(Refusal::NotFound) {
            // Whichever it was is asked for again.
            self.exchanges.clear();
        }
        let is_forbidden = rights::is_forbidden(error);
        self.live.note(error);
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            let too_long = self.too_long(waiting.payload_bytes);
            let is_meant = is_alone || too_long.is_some() || waiting.is_named_in(&text);
            let is_refused = refusal.is_some() && is_meant;
            let sentence = too_long.unwrap_or_else(|| rights::sentence(&text));
            if is_forbidden && is_refused {
                self.rights.refused(&waiting.exchange, &waiting.topic, &sentence);
            } else if is_forbidden {
                // A long topic is not named in full, so any of them may be the one.
                self.rights.doubt(&waiting.exchange);
            }
            let outcome = if is_refused {
                PublishOutcome::Refused(sentence)
            } else {
                PublishOutcome::Unavailable(format!(
                    "the broker closed the channel ({text}); it is not known whether this message arrived"
                ))
            };
            waiting.answer.give(&self.context.metrics, outcome);
        }
        self.abandon_channel(&text);
    }

    fn abandon_channel(&mut self, sentence: &str) {
        self.fail_all(sentence);
        self.channel = None;
        self.doubtful.clear();
        self.confirms.clear();
        self.deadlines.clear();
        self.live.returned.clear();
    }

    fn fail_all(&mut self, sentence: &str) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            waiting.answer.give(&self.context.metrics, PublishOutcome::Unavailable(sentence.to_owned()));
        }
    }

    /// Tells all in flight that nobody knows yet.
    fn doubt_all(&mut self, sentence: &str) {
        let ids: Vec<i64> = self.waiting.keys().copied().collect();
        ids.into_iter().for_each(|id| self.doubt(id, sentence));
    }

    fn doubt(&mut self, id: i64, sentence: &str) {
        let first = self.waiting.remove(&id).and_then(|waiting| waiting.answer.doubt(&self.context.metrics, sentence));
        self.doubtful.extend(first.map(|first| (id, first)));
    }

    fn answer(&mut self, id: i64, outcome: PublishOutcome) {
        if let Some(waiting) = self.waiting.remove(&id) {
            waiting.answer.give(&self.context.metrics, outcome);
        } else if let Some(first) = self.doubtful.remove(&id) {
            first.tell(&outcome);
        }
    }

    /// When the oldest that somebody still waits for is late.
    fn next_deadline(&mut self) -> Option<Instant> {
        while self.deadlines.front().is_some_and(|(_, id)| !self.waiting.contains_key(id)) {
            self.deadlines.pop_front();
        }
        self.deadlines.front().map(|(late, _)| *late)
    }

    /// Answers those that are late. Their confirms are still waited for; when too many of those have gathered, the channel
    /// is given up, and they with it.
    fn time_out(&mut self) {
        let now = Instant::now();
        while let Some((_, id)) = self.deadlines.pop_front_if(|(late, _)| *late <= now) {
            self.doubt(id, TIMED_OUT);
        }
        let abandoned = self.confirms.len().saturating_sub(self.waiting.len());
        if abandoned > self.context.settings.publish.in_flight_max / 2 {
            tracing::warn!(abandoned, "RabbitMQ does not confirm publishes: opening a new channel");
            self.abandon_channel(TIMED_OUT);
        }
    }

    /// Waits for all confirms.
    async fn drain(&mut self) {
        while !self.waiting.is_empty() {
            match self.confirms.next().await {
                Some((id, confirmed)) => self.settle(id, confirmed),
                None => return,
            }
        }
    }
}

impl Waiting {
    /// Whether the broker's text on a closed channel is about this one: it names the exchange, and the topic if it was that.
    fn is_named_in(&self, text: &str) -> bool {
        let exchange = if self.exchange.is_empty() { "amq.default" } else { &self.exchange };
        let names_exchange = text.contains(&format!("exchange '{exchange}'"));
        let about_topic = text.contains("topic '");
        names_exchange && (!about_topic || text.contains(&format!("topic '{}'", self.topic)))
    }
}

/// Why the broker would not take these properties, if it would not: they must fit one frame (AMQP 0-9-1, section 4.2.6), and
/// over a larger one it ends the connection, with everybody's publishes. What it takes may be less than we ask for.
pub(crate) fn too_large(properties: &AMQPProperties, frame_bytes_max: usize) -> Option<String> {
    // Writing to memory cannot fail.
    let written = gen_properties(properties)(Vec::new().into()).ok()?;
    let bytes = PROPERTIES_FRAME_BYTES + written.into_inner().0.len();
    (bytes > frame_bytes_max).then(|| {
        format!(
            "the headers need a frame of {bytes} bytes, and the broker takes {frame_bytes_max}: put the data into the \
             payload, or raise frame_max at the broker"
        )
    })
}

async fn confirmed(id: i64, confirm: PublisherConfirm) -> (i64, lapin::Result<Confirmation>) {
    (id, confirm.await)
}

/// The same of what could not be written at once.
async fn sent_late(
    id: i64,
    sending: impl Future<Output = lapin::Result<PublisherConfirm>>,
) -> (i64, lapin::Result<Confirmation>) {
    match sending.await {
        Ok(confirm) => confirmed(id, confirm).await,
        Err(error) => (id, Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame};
    use lapin::types::FieldTable;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_refused_is_exactly_what_makes_a_larger_frame(text in ".{0,90}", number in any::<i64>(), off in 0usize..3) {
            let properties = AMQPProperties::default()
                .with_message_id(text.as_str().chars().take(40).collect::<String>().into())
                .with_headers(outbound::with_id(FieldTable::default(), number));
            let header = AMQPContentHeader { class_id: 60, body_size: 7, properties: properties.clone() };
            let frame = gen_frame(&AMQPFrame::Header(1, header))(Vec::new().into()).unwrap().into_inner().0;
            let frame_bytes_max = frame.len() + off - 1;
            prop_assert_eq!(too_large(&properties, frame_bytes_max).is_some(), frame.len() > frame_bytes_max);
        }
    }
}
