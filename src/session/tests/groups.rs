//! A client that joins and leaves one group again and again, without waiting for anything, against a broker that takes its time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use super::player::Player;

const FILTER: &str = "$share/g/orders/+";

/// Messages that one consumer is sent ahead, as the client's Receive Maximum says.
const PREFETCH: usize = 2;

/// What the client or the broker does.
#[derive(Debug, Clone, Copy)]
enum Step {
    Subscribe(u8),
    SubscribeTwice(u8),
    Unsubscribe,
    Acknowledge,
    Publish,
    /// The broker goes on with one of its consumers.
    Serve(usize),
    /// It loses the channel of one.
    Lose(usize),
}

/// One consumer of the group's queue.
#[derive(Debug, Default)]
struct Consumer {
    stands: bool,
    is_to_stop: bool,
    has_stopped: bool,
    /// By the number of its tag.
    held: BTreeMap<u64, u32>,
}

struct World {
    player: Player,
    packets: u16,
    unanswered: BTreeSet<String>,
    /// The quality of the membership that was asked for last.
    wanted: Option<u8>,
    queue: VecDeque<u32>,
    published: u32,
    consumers: Vec<Consumer>,
    /// By tag.
    deliveries: u64,
    unacknowledged: VecDeque<String>,
    received: BTreeMap<u32, usize>,
    done: BTreeSet<u32>,
    losses: usize,
    last_qos: Option<u8>,
}

impl World {
    fn new() -> Self {
        let (mut player, _) = Player::new(&[("protocol", "mqtt")]);
        player.receive(&format!("CONNECT 5 id=anna receive={PREFETCH}"));
        Self {
            player,
            packets: 0,
            unanswered: BTreeSet::new(),
            wanted: None,
            queue: VecDeque::new(),
            published: 0,
            consumers: Vec::new(),
            deliveries: 0,
            unacknowledged: VecDeque::new(),
            received: BTreeMap::new(),
            done: BTreeSet::new(),
            losses: 0,
            last_qos: None,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Subscribe(qos) => self.ask("SUBSCRIBE", &format!("{FILTER}:{qos}"), Some(qos)),
            Step::SubscribeTwice(qos) => {
                let filters = format!("{FILTER}:{} {FILTER}:{qos}", 1 - qos);
                self.ask("SUBSCRIBE", &filters, Some(qos));
            }
            Step::Unsubscribe => self.ask("UNSUBSCRIBE", FILTER, None),
            Step::Acknowledge => {
                if let Some(packet) = self.unacknowledged.pop_front() {
                    self.send(&format!("PUBACK {packet}"));
                }
            }
            Step::Publish => {
                self.queue.push_back(self.published);
                self.published += 1;
            }
            Step::Serve(which) => _ = self.serve(which % self.consumers.len().max(1)),
            Step::Lose(which) => self.lose(which % self.consumers.len().max(1)),
        }
    }

    fn ask(&mut self, kind: &str, filters: &str, wanted: Option<u8>) {
        self.packets += 1;
        self.wanted = wanted;
        let answer = if kind == "SUBSCRIBE" { "SUBACK" } else { "UNSUBACK" };
        self.unanswered.insert(format!("{answer} {}", self.packets));
        self.send(&format!("{kind} {} {filters}", self.packets));
    }

    fn send(&mut self, packet: &str) {
        let lines = self.player.receive(packet);
        self.take(lines);
    }

    fn tell(&mut self, which: usize, news: &str) {
        let lines = self.player.happen(&format!("consumed {which} {news}"));
        self.take(lines);
    }

    /// Goes on with a consumer; whether there was anything to do.
    fn serve(&mut self, which: usize) -> bool {
        let Some(consumer) = self.consumers.get_mut(which).filter(|consumer| !consumer.has_stopped) else {
            return false;
        };
        if consumer.is_to_stop {
            consumer.has_stopped = true;
            self.tell(which, "stopped");
        } else if !std::mem::replace(&mut consumer.stands, true) {
            self.tell(which, "stands");
        } else if consumer.held.len() < PREFETCH
            && let Some(message) = self.queue.pop_front()
        {
            self.deliveries += 1;
            consumer.held.insert(self.deliveries, message);
            self.tell(which, &format!("brings {message}"));
        } else {
            return false;
        }
        true
    }

    fn lose(&mut self, which: usize) {
        let Some(consumer) = self.consumers.get_mut(which) else { return };
        self.losses += 1;
        consumer.stands = false;
        for (_, message) in std::mem::take(&mut consumer.held).into_iter().rev() {
            self.queue.push_front(message);
        }
        self.tell(which, "away");
    }

    /// What a step caused.
    fn take(&mut self, lines: Vec<String>) {
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["=", "consume", ..] => self.consumers.push(Consumer::default()),
                ["=", "stop", which] => self.consumers[which.parse::<usize>().unwrap()].is_to_stop = true,
                ["=", "settle", which, tag, settlement] => self.settle(which.parse().unwrap(), tag, settlement),
                ["<", kind @ ("SUBACK" | "UNSUBACK"), packet, ref reasons @ ..] => {
                    assert!(self.unanswered.remove(&format!("{kind} {packet}")), "answered before: {line}");
                    assert!(reasons.iter().all(|reason| ["00", "01", "11"].contains(reason)), "{line}");
                }
                ["<", "PUBLISH", _, ref options @ .., "|", message] => {
                    *self.received.entry(message.parse().unwrap()).or_default() += 1;
                    let packet = options.iter().find_map(|option| option.strip_prefix("packet="));
                    self.unacknowledged.extend(packet.map(str::to_owned));
                    self.last_qos = Some(u8::from(packet.is_some()));
                }
                _ => panic!("unexpected: {line}"),
            }
        }
    }

    fn settle(&mut self, which: usize, tag: &str, settlement: &str) {
        let number = u64::from_str_radix(tag.split_once('.').unwrap().1, 16).unwrap();
        let message = self.consumers[which].held.remove(&number).expect("what is settled is held");
        match settlement {
            "Requeue" => self.queue.push_front(message),
            _ => assert!(self.done.insert(message), "{message} was acknowledged twice"),
        }
        self.tell(which, &format!("settled {number}"));
    }

    /// Until nothing is left to do.
    fn rest(&mut self) {
        loop {
            let served = (0..self.consumers.len()).filter(|which| self.serve(*which)).count();
            if served == 0 && self.unacknowledged.is_empty() {
                return;
            }
            self.step(Step::Acknowledge);
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..2_u8).prop_map(Step::Subscribe),
        (0..2_u8).prop_map(Step::SubscribeTwice),
        Just(Step::Unsubscribe),
        Just(Step::Acknowledge),
        Just(Step::Publish),
        Just(Step::Publish),
        (0..40_usize).prop_map(Step::Serve),
        (0..40_usize).prop_map(Step::Serve),
        (0..40_usize).prop_map(Step::Lose),
    ];
    vec(step, 0..60)
}

proptest! {
    /// Each packet has its answer, the last word counts, and every message is had once by who is a member at the end: twice
    /// only where its channel was lost.
    #[test]
    fn a_membership_is_as_it_was_asked_for_last_whatever_is_under_way(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.rest();
        prop_assert_eq!(&world.unanswered, &BTreeSet::new());
        prop_assert!(world.received.values().all(|times| *times <= 1 + world.losses));
        let stand = world.consumers.iter().filter(|consumer| !consumer.has_stopped).count();
        prop_assert_eq!(stand, usize::from(world.wanted.is_some()));
        if world.wanted.is_some() {
            world.step(Step::Publish);
            world.rest();
            prop_assert_eq!(world.last_qos, world.wanted);
            prop_assert_eq!(world.done.len(), world.published as usize);
        }
    }
}
