//! Publishers, which number what they publish, and the book in which they note it down.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use fastrand::Rng;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use passerelle::model::cursor::{Cursor, JointCursor};
use passerelle::model::topic::Topic;
use passerelle::model::value::Headers;
use tokio::sync::watch;

use crate::history::node::Message;
use crate::history::real::schedule::{self, TOPICS};
use crate::history::record::{Fate, Moment, Number, Published, Span};

/// How long a confirm may take before nobody waits for it any more.
const CONFIRM_MAX: Duration = Duration::from_secs(10);
const PERSISTENT: u8 = 2;

/// All messages of a run, and its clock.
pub(crate) struct Book {
    began: Instant,
    /// Of the sources, by their places.
    pub(crate) names: Vec<String>,
    messages: Mutex<Vec<(Published, usize)>>,
}

impl Book {
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self { began: Instant::now(), names, messages: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Moment {
        self.began.elapsed().as_micros() as Moment
    }

    /// The place of a source.
    pub(crate) fn source(&self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).expect("a source's name")
    }

    /// The next number, for a message that is about to be sent.
    fn begin(&self, source: usize, topic: &str, publisher: usize) -> Number {
        let (topic, at) = (Topic::parse(topic).expect("a topic"), Span { from: self.now(), to: Moment::MAX });
        let published = Published::new(source, topic, at, Fate::Unknown);
        let mut messages = self.messages.lock().expect("the lock");
        messages.push((published, publisher));
        messages.len() - 1
    }

    fn confirmed(&self, number: Number) {
        let at = self.now();
        let mut messages = self.messages.lock().expect("the lock");
        (messages[number].0.at.to, messages[number].0.fate) = (at, Fate::Logged);
    }

    /// When a message was sent.
    pub(crate) fn sent_at(&self, number: Number) -> Moment {
        self.messages.lock().expect("the lock")[number].0.at.from
    }

    /// A message of which only the payload came.
    pub(crate) fn raw_message(&self, number: Number) -> Message {
        let messages = self.messages.lock().expect("the lock");
        let Published { source, topic, .. } = &messages[number].0;
        Message {
            number,
            source: *source,
            topic: topic.clone(),
            headers: Headers::default(),
            cursor: Cursor::FOREIGN,
            position: JointCursor::default(),
            replay: false,
            redelivered: false,
        }
    }

    /// All of them, with who published them.
    pub(crate) fn messages(&self) -> Vec<(Published, usize)> {
        self.messages.lock().expect("the lock").clone()
    }
}

/// The exchange to which a source's messages are published.
pub(crate) fn exchange(word: &str, source: &str) -> String {
    format!("{word}.{source}")
}

/// One publisher.
pub(crate) struct Publisher {
    place: usize,
    plan: schedule::Publisher,
    rng: Rng,
    url: String,
    word: String,
    line: Option<(Connection, Channel)>,
}

impl Publisher {
    pub(crate) fn new(place: usize, schedule: &schedule::Schedule, url: String, word: String) -> Self {
        let rng = Rng::with_seed(schedule.seed << 8 | place as u64);
        Self { place, plan: schedule.publishers[place].clone(), rng, url, word, line: None }
    }

    /// Publishes at its pace until it is told to stop.
    pub(crate) async fn run(mut self, book: &Book, stop: watch::Receiver<bool>) -> Self {
        while !*stop.borrow() {
            let burst: Vec<(usize, &str)> = (0..self.rng.usize(1..=self.plan.burst_max))
                .map(|_| (self.rng.usize(..book.names.len()), TOPICS[self.rng.usize(..TOPICS.len())]))
                .collect();
            self.publish(&burst, book).await;
            tokio::time::sleep(Duration::from_millis(self.plan.pace_ms)).await;
        }
        self
    }

    /// Publishes the last message on each topic of each source; their numbers.
    pub(crate) async fn end(&mut self, book: &Book) -> Vec<Number> {
        let all = (0..book.names.len()).flat_map(|source| TOPICS.map(|topic| (source, topic)));
        let all: Vec<(usize, &str)> = all.collect();
        let numbers = self.publish(&all, book).await;
        let messages = book.messages();
        assert!(numbers.iter().all(|number| messages[*number].0.fate == Fate::Logged), "the broker confirms the end");
        numbers
    }

    /// Publishes these together and waits for their confirms; what is not confirmed has an unknown fate.
    async fn publish(&mut self, burst: &[(usize, &str)], book: &Book) -> Vec<Number> {
        let mut confirms = Vec::new();
        let channel = self.channel().await;
        let mut numbers = Vec::new();
        for (source, topic) in burst {
            let number = book.begin(*source, topic, self.place);
            numbers.push(number);
            let (exchange, body) = (exchange(&self.word, &book.names[*source]), number.to_string());
            let properties = properties(self.place);
            let options = BasicPublishOptions::default();
            let sent = channel.basic_publish(exchange.into(), (*topic).into(), options, body.as_bytes(), properties);
            match sent.await {
                Ok(confirm) => confirms.push((number, confirm)),
                Err(_) => self.line = None,
            }
        }
        for (number, confirm) in confirms {
            match tokio::time::timeout(CONFIRM_MAX, confirm).await {
                Ok(Ok(confirmation)) if confirmation.is_ack() => book.confirmed(number),
                _ => self.line = None,
            }
        }
        numbers
    }

    /// A channel on a line that stands, however long that takes.
    async fn channel(&mut self) -> Channel {
        loop {
            if let Some((_, channel)) = self.line.as_ref().filter(|(connection, _)| connection.status().connected()) {
                return channel.clone();
            }
            match tokio::time::timeout(CONFIRM_MAX, connect(&self.url)).await {
                Ok(Ok(line)) => self.line = Some(line),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn connect(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

fn properties(publisher: usize) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("publisher".into(), AMQPValue::LongString(LongString::from(format!("p{publisher}"))));
    BasicProperties::default().with_headers(headers).with_delivery_mode(PERSISTENT)
}
