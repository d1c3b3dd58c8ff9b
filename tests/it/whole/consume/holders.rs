//! Who holds what, over a random history: clients acknowledge, give back, keep and vanish, and at no moment does a message
//! have two holders, or come again after it was acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::Scene;
use crate::program::PATIENCE;
use crate::whole::Broker;
use crate::whole::client::Client;

const MESSAGES: u32 = 150;
const CLIENTS: usize = 8;
const PREFETCH: u16 = 4;

/// How long a client that keeps something waits for more before it looks at that again.
const MOMENT: Duration = Duration::from_millis(20);

/// What all clients together know, as each of them sees it.
#[derive(Debug, Default)]
struct History {
    /// By message: the client that holds it.
    held: BTreeMap<u64, usize>,
    acknowledged: BTreeSet<u64>,
    /// Messages that came again.
    again: usize,
}

impl History {
    /// A message comes to a client.
    fn comes(&mut self, message: &Value, to: usize) {
        let number = message["data"].as_u64().expect("a number");
        let before = self.held.insert(number, to);
        assert_eq!(before, None, "{number} has two holders, the second is {to}");
        assert!(!self.acknowledged.contains(&number), "{number} was acknowledged");
        self.again += usize::from(message["redelivered"] == true);
    }
}

/// One client, and what it read and did not look at yet.
struct Holder {
    number: usize,
    client: Client,
    unread: VecDeque<Value>,
    /// Held, with the tags.
    kept: Vec<(u64, Value)>,
    history: Arc<Mutex<History>>,
}

impl Holder {
    async fn new(scene: &Scene, number: usize, history: &Arc<Mutex<History>>) -> Self {
        let client = scene.client(PREFETCH).await;
        Self { number, client, unread: VecDeque::new(), kept: Vec::new(), history: history.clone() }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no other client failed")
    }

    /// The next object that is no message; those are put aside.
    async fn read(&mut self) -> Option<Value> {
        let object = self.client.news().await;
        if object["op"] != "message" {
            return Some(object);
        }
        self.history().comes(&object, self.number);
        self.unread.push_back(object);
        None
    }

    /// Settles a message, of which nothing is held from the moment in which the server may hear of it.
    async fn settle(&mut self, (number, tag): (u64, Value), op: &str) {
        {
            let mut history = self.history();
            history.held.remove(&number);
            if op == "ack" {
                history.acknowledged.insert(number);
            }
        }
        self.client.send(Message::text(json!({ "op": op, "id": number, "delivery_tag": tag }).to_string())).await;
        loop {
            if let Some(reply) = self.read().await {
                return assert_eq!((&reply["op"], &reply["id"]), (&json!("ok"), &json!(number)), "{reply}");
            }
        }
    }

    /// One message, or one of those that were kept, and what becomes of it. False when the client is to vanish.
    async fn step(&mut self, random: &mut Rng) -> bool {
        if self.kept.is_empty() {
            while self.unread.is_empty() {
                self.read().await;
            }
        } else if self.unread.is_empty() {
            // In vain where others hold all the rest.
            let _ = tokio::time::timeout(MOMENT, self.read()).await;
        }
        let next = match self.unread.pop_front() {
            Some(message) => (message["data"].as_u64().expect("a number"), message["delivery_tag"].clone()),
            None => self.kept.remove(random.usize(..self.kept.len())),
        };
        match random.u8(..10) {
            0 => {
                self.kept.push(next);
                false
            }
            1..3 => {
                self.kept.push(next);
                true
            }
            3..5 => {
                self.settle(next, "nack").await;
                true
            }
            _ => {
                self.settle(next, "ack").await;
                true
            }
        }
    }

    /// Gone without a word: it holds nothing from now on.
    fn vanish(self) {
        self.history().held.retain(|_, holder| *holder != self.number);
    }
}

async fn live(scene: Arc<Scene>, number: usize, history: Arc<Mutex<History>>, mut random: Rng) {
    loop {
        let mut holder = Holder::new(&scene, number, &history).await;
        while holder.step(&mut random).await {}
        holder.vanish();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_has_two_holders_at_any_moment() {
    for broker in Broker::BOTH {
        let seed = fastrand::u64(..);
        println!("{broker:?}, seed {seed}");
        let scene = Arc::new(Scene::new(broker, &[]).await);
        scene.fill(0..MESSAGES).await;
        let history = Arc::new(Mutex::new(History::default()));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let random = Rng::with_seed(seed.wrapping_add(number as u64));
            clients.spawn(live(scene.clone(), number, history.clone(), random));
        }
        let done = async {
            while history.lock().expect("no client failed").acknowledged.len() < MESSAGES as usize {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ended = clients.join_next() => panic!("a client failed: {ended:?}"),
            done = tokio::time::timeout(2 * PATIENCE, done) => done.expect("all is acknowledged in time"),
        }
        clients.shutdown().await;
        assert!(history.lock().expect("no client failed").again > 0, "the history was dull");
        scene.until_left().await;
        assert_eq!(scene.ready().await, 0, "{broker:?}");
    }
}
