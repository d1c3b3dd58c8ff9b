//! Carries a schedule out: the real program on a real RabbitMQ, publishers, clients, and whatever is done to them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};
use passerelle::model::topic::Topic;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::history::real::account::{Account, Harmed, Journey};
use crate::history::real::node::{Node, moved_into};
use crate::history::real::proxy::Way;
use crate::history::real::publisher::{Book, Publisher, exchange};
use crate::history::real::schedule::{Fault, Harm, Kind, Schedule};
use crate::history::real::traveller::Traveller;
use crate::history::record::{Fate, History, Number, SourceTruth};
use crate::program::PATIENCE;
use crate::rabbit::{Rabbit, connect};

/// The last message on a topic.
pub(crate) struct Marker {
    pub(crate) number: Number,
    pub(crate) source: usize,
    pub(crate) publisher: usize,
    pub(crate) topic: Topic,
}

/// What all of a run share.
pub(crate) struct World {
    pub(crate) book: Book,
    pub(crate) nodes: Vec<Node>,
    /// The node of each life.
    lives: Mutex<Vec<usize>>,
    harms: Mutex<Vec<Harmed>>,
    /// Whether nothing more is done to anybody.
    pub(crate) calm: watch::Sender<bool>,
    /// How many clients have come to their last node since then, and listen there.
    pub(crate) settled: watch::Sender<usize>,
    /// Once everything was published: the last messages, in the order in which they were.
    pub(crate) end: watch::Sender<Option<Vec<Marker>>>,
    rabbit: &'static Rabbit,
}

/// The account of the run with this schedule.
pub(crate) async fn run(schedule: &Schedule, rabbit: &'static Rabbit) -> Account {
    let word = format!("history{:x}", fastrand::u64(..));
    prepare(schedule, &word, rabbit).await;
    let names: Vec<String> = schedule.sources.iter().map(|source| source.kind.name().to_owned()).collect();
    let mut nodes = Vec::new();
    for place in 0..schedule.nodes {
        nodes.push(Node::new(place, schedule, &word, rabbit.address()).await);
    }
    let world = Arc::new(World {
        book: Book::new(names),
        nodes,
        lives: Mutex::default(),
        harms: Mutex::default(),
        calm: watch::Sender::new(false),
        settled: watch::Sender::new(0),
        end: watch::Sender::new(None),
        rabbit,
    });
    // The first declares the stream: RabbitMQ 3.10 was seen to fail inwardly where two do so at the same moment.
    for node in 0..schedule.nodes {
        world.start(node).await;
    }
    let mut clients = JoinSet::new();
    for (number, plan) in schedule.clients.iter().enumerate() {
        let traveller = Traveller::new(number, plan.clone(), world.clone());
        clients.spawn(async move { (number, traveller.travel().await) });
    }
    world.publish(schedule, &word).await;
    let mut travelled = Vec::new();
    while let Some(client) = clients.join_next().await {
        travelled.push(client.expect("a client reads what it understands"));
    }
    travelled.sort_by_key(|(number, _)| *number);
    for node in &world.nodes {
        node.kill().await;
    }
    let stored = read_stream(schedule, &word, &world).await;
    let mut account = world.account(schedule, travelled.into_iter().flat_map(|(_, told)| told).collect());
    keep_to(&mut account, &stored);
    clear(schedule, &word, rabbit).await;
    account
}

/// What the stream holds, as the broker itself gives it.
async fn read_stream(schedule: &Schedule, word: &str, world: &World) -> BTreeSet<Number> {
    let source = schedule.sources.iter().position(|source| source.kind == Kind::Stream).expect("a stream");
    let last =
        world.end.borrow().iter().flatten().rev().find(|marker| marker.source == source).map(|marker| marker.number);
    let (_connection, channel) = channel(world.rabbit).await;
    channel.basic_qos(1_000, BasicQosOptions::default()).await.expect("a prefetch");
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let name = exchange(word, Kind::Stream.name());
    let reading = channel.basic_consume(name.as_str().into(), "".into(), BasicConsumeOptions::default(), arguments);
    let mut reading = reading.await.expect("a consumer");
    let mut stored = BTreeSet::new();
    while last.is_some_and(|last| !stored.contains(&last)) {
        let delivery = timeout(PATIENCE, reading.next()).await.expect("the end of the stream in time");
        let delivery = delivery.expect("a consumer").expect("a delivery");
        stored.insert(String::from_utf8_lossy(&delivery.data).parse().expect("a number"));
        delivery.acker.ack(BasicAckOptions::default()).await.expect("an acknowledgement");
    }
    stored
}

/// What was confirmed and is not in the stream nobody can be given: a broker that starts listens before it routes to its
/// streams, and confirms what reaches no queue. At any other time it has to hold what it confirmed.
fn keep_to(account: &mut Account, stored: &BTreeSet<Number>) {
    let mut lost = 0;
    for (number, message) in account.record.truth.messages.iter_mut().enumerate() {
        let is_lost = account.sources[message.source].kind == Kind::Stream && !stored.contains(&number);
        let may_have_started = account.harms.iter().any(|harm| (harm.from..=harm.to).contains(&message.at.from));
        if is_lost && may_have_started && message.fate == Fate::Logged {
            message.fate = Fate::Lost;
            lost += 1;
        }
    }
    if lost > 0 {
        account
            .warnings
            .push(format!("the broker confirmed {lost} messages that its stream did not get when it started"));
    }
}

impl World {
    async fn start(&self, node: usize) {
        let life = {
            let mut lives = self.lives.lock().expect("the lock");
            lives.push(node);
            lives.len() - 1
        };
        self.nodes[node].start(life).await;
    }

    /// Publishes while things go wrong, and to the end when all is well again.
    async fn publish(self: &Arc<Self>, schedule: &Schedule, word: &str) {
        let stop = watch::Sender::new(false);
        let mut publishing = Vec::new();
        for place in 0..schedule.publishers.len() {
            let publisher = Publisher::new(place, schedule, self.rabbit.url(), word.to_owned());
            let (world, stopped) = (self.clone(), stop.subscribe());
            publishing.push(tokio::spawn(async move { publisher.run(&world.book, stopped).await }));
        }
        let until = Instant::now() + Duration::from_millis(schedule.length_ms);
        for fault in &schedule.faults {
            sleep(Duration::from_millis(fault.after_ms)).await;
            self.harm(fault).await;
        }
        sleep_until(until).await;
        self.calm.send_replace(true);
        let mut settled = self.settled.subscribe();
        let all = settled.wait_for(|settled| *settled == schedule.clients.len());
        // Who does not settle does not come to the end either, and that is told.
        let _ = timeout(PATIENCE, all).await;
        stop.send_replace(true);
        let mut markers = Vec::new();
        for publishing in publishing {
            let mut publisher = publishing.await.expect("a publisher goes on");
            markers.extend(publisher.end(&self.book).await);
        }
        let messages = self.book.messages();
        let marker = |number: Number| {
            let (message, publisher) = &messages[number];
            Marker { number, source: message.source, publisher: *publisher, topic: message.topic.clone() }
        };
        self.end.send_replace(Some(markers.into_iter().map(marker).collect()));
    }

    /// Does harm, and returns when it is mended.
    async fn harm(&self, fault: &Fault) {
        let moment = Duration::from_millis(fault.for_ms);
        match fault.what {
            Harm::Broker => {
                let nodes: Vec<usize> = (0..self.nodes.len()).collect();
                let work = async || {
                    let rabbit = self.rabbit;
                    blocking(move || rabbit.kill()).await;
                    sleep(moment).await;
                    blocking(move || rabbit.run()).await;
                };
                self.until_they_stand_again(&nodes, work).await;
            }
            Harm::Node(node) => {
                self.nodes[node].kill().await;
                sleep(moment).await;
                self.start(node).await;
            }
            Harm::Links(node) => {
                self.until_they_stand_again(&[node], async || self.nodes[node].proxy.harm(Way::Cut, moment).await)
                    .await;
            }
            Harm::Stall(node) => self.nodes[node].proxy.harm(Way::Stalled, moment).await,
            Harm::Lines(node) => self.nodes[node].lines.send_modify(|count| *count += 1),
        }
    }

    /// Notes that these nodes' links were lost by this, until all their sources stand again.
    async fn until_they_stand_again(&self, nodes: &[usize], work: impl AsyncFnOnce()) {
        let from = self.book.now();
        let stood: Vec<usize> = nodes.iter().map(|node| self.nodes[*node].times_stood()).collect();
        work().await;
        for (node, stood) in nodes.iter().zip(stood) {
            self.nodes[*node].stands_again(stood).await;
            let harmed = Harmed { node: *node, from, to: self.book.now() };
            self.harms.lock().expect("the lock").push(harmed);
        }
    }

    fn account(&self, schedule: &Schedule, travelled: Vec<(History, Journey)>) -> Account {
        let mut account = Account { sources: schedule.sources.clone(), ..Account::default() };
        let of_source = |(name, kind): (&String, Kind)| SourceTruth {
            name: name.clone(),
            is_queue: kind.has_queue(),
            ..SourceTruth::default()
        };
        let kinds = schedule.sources.iter().map(|source| source.kind);
        account.record.truth.sources = self.book.names.iter().zip(kinds).map(of_source).collect();
        (account.record.truth.messages, account.publishers) = self.book.messages().into_iter().unzip();
        (account.record.histories, account.journeys) = travelled.into_iter().unzip();
        account.lives = self.lives.lock().expect("the lock").clone();
        account.warnings = self.nodes.iter().flat_map(Node::warnings).collect();
        account.harms = self.harms.lock().expect("the lock").clone();
        account
    }
}

/// Runs what blocks where it disturbs nobody.
async fn blocking(work: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(work).await.expect("it is done");
}

async fn channel(rabbit: &Rabbit) -> (Connection, Channel) {
    let connection = connect(&rabbit.url()).await;
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

/// Makes the exchanges of a run, and its queue.
async fn prepare(schedule: &Schedule, word: &str, rabbit: &Rabbit) {
    let (_connection, channel) = channel(rabbit).await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    for source in &schedule.sources {
        let name = exchange(word, source.kind.name());
        let declared =
            channel.exchange_declare(name.as_str().into(), ExchangeKind::Topic, durable, FieldTable::default());
        declared.await.expect("an exchange");
        if source.kind.has_queue() {
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let declared = channel.queue_declare(name.as_str().into(), durable, FieldTable::default());
            declared.await.expect("a queue");
            let (queue, key) = (name.as_str().into(), "#".into());
            let bound = channel.queue_bind(
                queue,
                name.as_str().into(),
                key,
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bound.await.expect("a binding");
        }
    }
}

/// Takes away what a run made.
async fn clear(schedule: &Schedule, word: &str, rabbit: &Rabbit) {
    let (_connection, channel) = channel(rabbit).await;
    for source in &schedule.sources {
        let name = exchange(word, source.kind.name());
        let gone = channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default());
        gone.await.expect("the exchange's end");
        if !source.kind.is_exchange() {
            let gone = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default());
            gone.await.expect("the queue's end");
        }
        if source.kind == Kind::Moved {
            let name = moved_into(&name);
            let gone = channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default());
            gone.await.expect("the exchange's end");
            let gone = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default());
            gone.await.expect("the stream's end");
        }
    }
}
