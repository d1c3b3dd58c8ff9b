//! What a client's frames ask for.
//!
//! Each frame that asks for a receipt gets it once it is done: a `SEND` when the broker has confirmed it, but for a request, of
//! which the reply says so; a `SUBSCRIBE` when everything that is published from then on will come.

use std::collections::VecDeque;
use std::sync::Arc;

use super::codec::{Listening, Mode, Queue, Standing, Stomp, bad_frame};
use super::destination::Destination;
use super::frame::{Frame, Verb};
use super::heart_beat::HeartBeat;
use super::label::Name;
use super::receipts::Answers;
use super::version::Version;
use crate::model::cursor::JointCursor;
use crate::model::delivery::{DeliveryTag, Settlement};
use crate::model::flow::Flow;
use crate::model::outgoing::{Outgoing, Target};
use crate::model::topic::{Pattern, Topic};
use crate::model::value::{Headers, Value};
use crate::protocol::json::filter;
use crate::protocol::{Command, Consumed, Echo, ErrorCode, Fault, Only, Said, Subscribe, Which};

/// What RabbitMQ's plugin takes anybody for who says nothing else; here it is as good as nothing.
const GUEST: &str = "guest";

/// Headers of `SEND` that say what is to become of the message, or what RabbitMQ makes properties of; no header of the message.
const OWN_HEADERS: &[&str] = &[
    "destination",
    "content-type",
    "content-length",
    "content-encoding",
    "receipt",
    "transaction",
    "reply-to",
    "correlation-id",
    "amqp-message-id",
    "echo",
    "persistent",
    "priority",
    "expiration",
    "expires",
    "timestamp",
    "type",
    "user-id",
    "app-id",
    "cluster-id",
];

impl Stomp {
    /// What a frame says. The first thing is the result; what else there is waits in `said`.
    pub(super) fn frame(&mut self, frame: Frame) -> Result<Said, Fault> {
        match (frame.verb, self.standing) {
            (Verb::Connect | Verb::Stomp, Standing::New) => self.connect(&frame),
            (Verb::Connect | Verb::Stomp, _) => Err(bad_frame("this session is connected already".into())),
            (verb, Standing::New) => {
                let message = format!("the first frame is CONNECT or STOMP: send it before {}", verb.name());
                Err(bad_frame(message))
            }
            (Verb::Begin | Verb::Commit | Verb::Abort, _) => self.transaction(&frame),
            (Verb::Send | Verb::Ack | Verb::Nack, _) => match frame.header("transaction") {
                Some(name) => {
                    let (name, receipt) = (name.to_owned(), frame.header("receipt").map(str::to_owned));
                    self.transactions.add(&name, frame).map_err(bad_frame)?;
                    Ok(self.answered(receipt.as_deref()))
                }
                None => self.done_at_once(&frame, Answers::receipt(frame.header("receipt"))),
            },
            (Verb::Subscribe, _) => self.subscribe(&frame),
            (Verb::Unsubscribe, _) => self.unsubscribe(&frame),
            (Verb::Disconnect, _) => {
                self.standing = Standing::Over;
                Ok(Said::Command(Command::Leave { id: Answers::receipt(frame.header("receipt")).into_id() }))
            }
            (Verb::Connected | Verb::Message | Verb::Receipt | Verb::Error, _) => {
                Err(bad_frame(format!("{} is a frame of the server's", frame.verb.name())))
            }
        }
    }

    /// A receipt for what needs nobody's word.
    fn answered(&self, receipt: Option<&str>) -> Said {
        receipt.map_or(Said::Nothing, |id| Said::Answered(self.receipt(id)))
    }

    fn connect(&mut self, frame: &Frame) -> Result<Said, Fault> {
        let heart_beat = frame.header("heart-beat").map_or(Ok(HeartBeat::NONE), HeartBeat::parse);
        let heart_beat = heart_beat.map_err(|error| bad_frame(format!("heart-beat {error}")))?;
        let Some(version) = Version::negotiate(frame.header("accept-version")) else {
            return Err(bad_frame(
                "this server speaks STOMP 1.0, 1.1 and 1.2: name one of them in accept-version".into(),
            ));
        };
        self.speak(version);
        self.agree(heart_beat);
        self.standing = Standing::Connected;
        let (login, passcode) = (frame.header("login"), frame.header("passcode"));
        let is_guest = login.is_none_or(|login| login.is_empty() || login == GUEST);
        let token = passcode.filter(|passcode| !(is_guest && (passcode.is_empty() || *passcode == GUEST)));
        Ok(Said::Command(Command::Connect { id: None, token: token.map(str::to_owned), client: None, claim: None }))
    }

    fn transaction(&mut self, frame: &Frame) -> Result<Said, Fault> {
        let name = needed(frame, "transaction")?;
        let receipt = frame.header("receipt");
        match frame.verb {
            Verb::Begin => self.transactions.begin(name).map_err(bad_frame)?,
            Verb::Commit => return self.commit(name, receipt),
            _ => drop(self.transactions.end(name).map_err(bad_frame)?),
        }
        Ok(self.answered(receipt))
    }

    /// Everything that waited, in order, and one receipt for all.
    fn commit(&mut self, name: &str, receipt: Option<&str>) -> Result<Said, Fault> {
        let frames = self.transactions.end(name).map_err(bad_frame)?;
        let number = self.commits;
        self.commits += 1;
        self.committed.insert(number, (0, receipt.map(str::to_owned)));
        let mut all = VecDeque::new();
        for frame in frames {
            self.committed.entry(number).and_modify(|(left, _)| *left += 1);
            all.push_back(self.done_at_once(&frame, Answers::Part(number))?);
            all.append(&mut self.said);
        }
        if self.committed.get(&number).is_some_and(|(left, _)| *left == 0) {
            self.committed.remove(&number);
            all.push_back(self.answered(receipt));
        }
        all.retain(|said| !matches!(said, Said::Nothing));
        self.said = all;
        Ok(Said::Nothing)
    }

    fn done_at_once(&mut self, frame: &Frame, answers: Answers) -> Result<Said, Fault> {
        match frame.verb {
            Verb::Send => self.send(frame, answers),
            Verb::Ack => self.acknowledge(frame, answers, Settlement::Acknowledge),
            _ => {
                let requeue = frame.header("requeue").is_none_or(|value| value != "false");
                let settlement = if requeue { Settlement::Requeue } else { Settlement::Discard };
                self.acknowledge(frame, answers, settlement)
            }
        }
    }

    fn send(&mut self, frame: &Frame, answers: Answers) -> Result<Said, Fault> {
        let (topic, target) = match destination(frame)? {
            Destination::Topic(key) => (key, Target::Routed),
            Destination::Exchange { name, key } => (key, Target::Exchange(name)),
            Destination::Queue(name) | Destination::ExistingQueue(name) => (name, Target::Queue),
            other @ (Destination::TemporaryQueue(_) | Destination::ReplyQueue(_)) => {
                return Err(bad_frame(format!("nothing can be sent to {other}: its name is good in reply-to only")));
            }
        };
        let topic = Topic::parse(&topic).map_err(|error| bad_frame(format!("destination {error}")))?;
        let message = Outgoing {
            content_type: frame.header("content-type").map(str::to_owned),
            message_id: frame.header("amqp-message-id").map(str::to_owned),
            headers: headers_of(frame),
            target,
            ..Outgoing::new(topic, frame.body.clone())
        };
        let Some(to) = frame.header("reply-to") else {
            let echo = if frame.header("echo") == Some("false") { Echo::Nothing } else { Echo::All };
            return Ok(Said::Command(Command::Publish { id: answers.into_id(), message, mandatory: false, echo }));
        };
        if !matches!(Destination::parse(to), Ok(Destination::TemporaryQueue(_))) {
            let sentence = "reply-to is /temp-queue/NAME here: replies come as messages of a subscription of that name";
            return Err(bad_frame(sentence.into()));
        }
        // Its part of a transaction, or its receipt, is answered at once: the broker's word is the reply itself.
        let target = if message.target == Target::Routed { Target::Published } else { message.target };
        let message = Outgoing { target, ..message };
        let (to, correlation) = (to.to_owned(), frame.header("correlation-id").map(str::to_owned));
        let answered = match answers {
            Answers::Receipt(receipt) => Said::Answered(self.receipt(&receipt)),
            Answers::Part(number) => self.part_at_once(number),
            Answers::Nobody | Answers::Reply { .. } => Said::Nothing,
        };
        let id = Answers::Reply { to, correlation, receipt: None }.into_id();
        if !matches!(answered, Said::Nothing) {
            self.said.push_back(answered);
        }
        Ok(Said::Command(Command::Call { id, message, timeout: None }))
    }

    /// A part of a transaction that nobody has to be waited for.
    fn part_at_once(&mut self, number: u64) -> Said {
        if let Some((left, _)) = self.committed.get_mut(&number) {
            *left -= 1;
        }
        Said::Nothing
    }

    fn subscribe(&mut self, frame: &Frame) -> Result<Said, Fault> {
        let written = needed(frame, "destination")?;
        let id = match (frame.header("id"), self.version) {
            (Some(id), _) => Some(id),
            (None, Version::V10) => None,
            (None, _) => return Err(bad_frame("SUBSCRIBE needs an id, by which its messages are told apart".into())),
        };
        let key = id.unwrap_or(written).to_owned();
        if self.subscriptions.contains_key(&key) {
            return Err(bad_frame(format!(
                "there is a subscription {key:?} already: UNSUBSCRIBE it or choose another id"
            )));
        }
        if frame.header("selector").is_some() {
            let sentence = "there are no selectors here: write a filter of headers, as filter:{\"region\":\"eu\"}";
            return Err(bad_frame(sentence.into()));
        }
        let mode = mode(frame)?;
        let receipt = Answers::receipt(frame.header("receipt")).into_id();
        let (key_pattern, only) = match destination(frame)? {
            Destination::Topic(pattern) => (pattern, None),
            Destination::Exchange { name, key } => (key, Some(name)),
            Destination::Queue(name) | Destination::ExistingQueue(name) => {
                // As many as may be where it does not say, and for 0, as with RabbitMQ's plugin.
                let prefetch = number(frame, "prefetch-count")?.filter(|count| *count > 0).or(Some(u16::MAX));
                let (id, destination) = (id.map(str::to_owned), written.to_owned());
                let queue = Queue { id, name: name.clone(), destination, mode, held: VecDeque::new() };
                self.subscriptions.insert(key, Listening::Queue(queue));
                return Ok(Said::Command(Command::Consume {
                    id: receipt,
                    queue: Consumed::Queue(name),
                    prefetch,
                    exclusive: false,
                }));
            }
            other @ (Destination::TemporaryQueue(_) | Destination::ReplyQueue(_)) => {
                return Err(bad_frame(format!("{other} cannot be subscribed: replies come by themselves")));
            }
        };
        let name = Name { version: self.version, acknowledges: mode != Mode::Auto, exchange: only.as_deref(), id };
        let label = name.label();
        let subscribe = Subscribe {
            id: receipt,
            after: frame.header("after").map(JointCursor::of_client).unwrap_or_default(),
            last: number(frame, "last")?.map_or(0, usize::from),
            filter: filter_of(frame)?,
            flow: flow(frame)?,
            only: only.map(Only::Exchange),
            label: Some(label.clone()),
            ..Subscribe::to(pattern(&key_pattern)?)
        };
        self.subscriptions.insert(key, Listening::Topics(label));
        Ok(Said::Command(Command::Subscribe(subscribe)))
    }

    fn unsubscribe(&mut self, frame: &Frame) -> Result<Said, Fault> {
        let id = Answers::receipt(frame.header("receipt")).into_id();
        let key = match frame.header("id") {
            Some(key) => key,
            None if self.version == Version::V10 => needed(frame, "destination")?,
            None => return Err(bad_frame("UNSUBSCRIBE needs the id of its SUBSCRIBE".into())),
        };
        match self.subscriptions.remove(key) {
            Some(Listening::Topics(label)) => {
                self.forget(&label);
                Ok(Said::Command(Command::Unsubscribe { id, which: Which::Label(label) }))
            }
            Some(Listening::Queue(queue)) => {
                // What the client has not acknowledged it will not acknowledge any more.
                let back = |tag| Command::Settle { id: None, tag: Some(tag), settlement: Settlement::Requeue };
                self.said.extend(queue.held.into_iter().map(back).map(Said::Command));
                Ok(Said::Command(Command::Cancel { id, queue: queue.name }))
            }
            None => Err(bad_frame(format!("there is no subscription {key:?}"))),
        }
    }

    /// What was acknowledged by the client. Of topics nothing is held for it, so there that says nothing.
    fn acknowledge(&mut self, frame: &Frame, answers: Answers, settlement: Settlement) -> Result<Said, Fault> {
        let name = if self.version == Version::V12 { "id" } else { "message-id" };
        let text = needed(frame, name)?;
        if text.parse::<JointCursor>().is_ok() {
            return Ok(match answers {
                Answers::Receipt(receipt) => Said::Answered(self.receipt(&receipt)),
                Answers::Part(number) => self.part_at_once(number),
                Answers::Nobody | Answers::Reply { .. } => Said::Nothing,
            });
        }
        let tag = text.parse::<DeliveryTag>().ok();
        let Some((tag, queue)) = tag.and_then(|tag| Some((tag, self.holder(tag)?))) else {
            let message = "this session holds no such message: it was acknowledged, or went back to its queue".into();
            return Err(Fault::Reply { id: answers.into_id(), code: ErrorCode::StaleTag, message });
        };
        let count = match queue.mode {
            Mode::Client => queue.held.iter().position(|held| *held == tag).map_or(0, |place| place + 1),
            Mode::Auto | Mode::ClientIndividual => 0,
        };
        let mut tags: Vec<DeliveryTag> = queue.held.drain(..count).collect();
        if count == 0 {
            queue.held.retain(|held| *held != tag);
            tags.push(tag);
        }
        // The broker settles them in order, so the last one's answer is that of all.
        let settle = |(place, tag): (usize, &DeliveryTag)| {
            let is_last = place + 1 == tags.len();
            let id = if is_last { answers.clone().into_id() } else { None };
            Said::Command(Command::Settle { id, tag: Some(*tag), settlement })
        };
        let mut all: VecDeque<Said> = tags.iter().enumerate().map(settle).collect();
        let first = all.pop_front().unwrap_or(Said::Nothing);
        self.said.append(&mut all);
        Ok(first)
    }
}

fn needed<'a>(frame: &'a Frame, name: &str) -> Result<&'a str, Fault> {
    frame.header(name).ok_or_else(|| bad_frame(format!("{} needs the header {name}", frame.verb.name())))
}

fn destination(frame: &Frame) -> Result<Destination, Fault> {
    let text = needed(frame, "destination")?;
    Destination::parse(text).map_err(|error| bad_frame(format!("destination {error}")))
}

fn pattern(text: &str) -> Result<Pattern, Fault> {
    Pattern::parse(text).map_err(|error| bad_frame(format!("destination {error}")))
}

fn mode(frame: &Frame) -> Result<Mode, Fault> {
    match frame.header("ack") {
        None | Some("auto") => Ok(Mode::Auto),
        Some("client") => Ok(Mode::Client),
        Some("client-individual") => Ok(Mode::ClientIndividual),
        Some(_) => Err(bad_frame("ack is auto, client or client-individual".into())),
    }
}

fn number(frame: &Frame, name: &str) -> Result<Option<u16>, Fault> {
    let read = |text: &str| text.parse().map_err(|_| bad_frame(format!("{name} is a whole number up to {}", u16::MAX)));
    frame.header(name).map(read).transpose()
}

fn flow(frame: &Frame) -> Result<Option<Flow>, Fault> {
    let read =
        |text: &str| Flow::named(text).ok_or_else(|| bad_frame("on-slow is catch-up, latest or drop-oldest".into()));
    frame.header("on-slow").map(read).transpose()
}

fn filter_of(frame: &Frame) -> Result<Option<Arc<crate::model::filter::Filter>>, Fault> {
    let Some(text) = frame.header("filter") else { return Ok(None) };
    let filter = filter::read(text).map_err(|error| bad_frame(format!("filter {error}")))?;
    Ok(filter.map(Arc::new))
}

/// The message's own headers; of one that is repeated the first.
fn headers_of(frame: &Frame) -> Headers {
    let mut headers: Vec<(String, Value)> = Vec::new();
    for header in &frame.headers {
        let is_known = headers.iter().any(|(name, _)| *name == header.name);
        if !is_known && !OWN_HEADERS.contains(&header.name.as_str()) {
            headers.push((header.name.clone(), Value::Text(header.value.clone())));
        }
    }
    Headers(headers)
}
