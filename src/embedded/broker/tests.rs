//! The core by itself: a bench that plays clients, and models that say what must come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use amq_protocol::protocol::{BasicProperties, basic, exchange, queue};
use amq_protocol::types::{AMQPValue, FieldTable};
use bytes::Bytes;
use proptest::prelude::*;

use super::super::dead_letter::properties;
use super::super::fault::{Code, Fault, short};
use super::super::limits::{ENTRY_OVERHEAD, MESSAGE_OVERHEAD};
use super::super::message::{Publish, encode_properties};
use super::*;
use crate::model::topic::{Pattern, Topic};

/// A broker, its clock and the words of clients.
struct Bench {
    broker: Broker,
    now: Instant,
}

/// A delivery as the tests see it: tag, body, whether redelivered.
type Seen = (u64, String, bool);

fn arguments(fields: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(short(name), value.clone());
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

impl Bench {
    fn new() -> Self {
        Self::with_memory(1 << 20)
    }

    fn with_memory(memory_bytes_max: usize) -> Self {
        let now = Instant::now();
        Self { broker: Broker::new(memory_bytes_max, Moment { instant: now, unix_seconds: 1_000 }), now }
    }

    fn channel(&mut self) -> ChannelRef {
        let at = ChannelRef { session: self.broker.open_session(true), number: 1 };
        self.broker.open_channel(at);
        at
    }

    /// Lets time pass and the broker do what is due.
    fn wait(&mut self, milliseconds: u64) -> TurnEnd {
        self.now += Duration::from_millis(milliseconds);
        self.broker.begin(Moment { instant: self.now, unix_seconds: 1_000 });
        self.broker.end()
    }

    fn queue_with(&mut self, at: ChannelRef, name: &str, fields: &[(&str, AMQPValue)]) {
        let method = queue::Declare { queue: short(name), arguments: arguments(fields), ..Default::default() };
        self.broker.declare_queue(at, &method).unwrap();
    }

    fn queue(&mut self, at: ChannelRef, name: &str) {
        self.queue_with(at, name, &[]);
    }

    fn bind(&mut self, at: ChannelRef, queue: &str, source: &str, key: &str) -> Result<(), Fault> {
        self.broker.bind_queue(at, queue, &Link { source, key, arguments: &FieldTable::default() })
    }

    fn publish_with(
        &mut self,
        at: ChannelRef,
        [exchange, key, body]: [&str; 3],
        properties: BasicProperties,
    ) -> Result<Published, Fault> {
        let publish = Publish {
            exchange: exchange.into(),
            routing_key: key.into(),
            properties_raw: encode_properties(&properties),
            properties,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        self.broker.publish(at, publish)
    }

    fn publish(&mut self, at: ChannelRef, exchange: &str, key: &str, body: &str) -> Published {
        self.publish_with(at, [exchange, key, body], BasicProperties::default()).unwrap()
    }

    fn consume(&mut self, at: ChannelRef, queue: &str, tag: &str) -> Result<Name, Fault> {
        let method = basic::Consume { queue: short(queue), consumer_tag: short(tag), ..Default::default() };
        self.broker.consume(at, &method)
    }

    fn prefetch(&mut self, at: ChannelRef, prefetch_count: u16) {
        self.broker.set_prefetch(at, &basic::Qos { prefetch_count, global: false }).unwrap();
    }

    fn delivered(&mut self, at: ChannelRef) -> Vec<Seen> {
        let outbox = self.broker.take_outbox(at.session);
        self.broker.feed(at.session);
        let seen = outbox.into_iter().filter_map(|outgoing| match outgoing {
            Outgoing::Deliver { delivery_tag, redelivered, message, .. } => {
                Some((delivery_tag, String::from_utf8(message.body.to_vec()).unwrap(), redelivered))
            }
            Outgoing::Cancel { .. } => None,
        });
        seen.collect()
    }

    fn get(&mut self, at: ChannelRef, queue: &str) -> Option<(Seen, Arc<Message>)> {
        let method = basic::Get { queue: short(queue), no_ack: false };
        let fetched = self.broker.get(at, &method).unwrap()?;
        let body = String::from_utf8(fetched.message.body.to_vec()).unwrap();
        Some(((fetched.delivery_tag, body, fetched.redelivered), fetched.message))
    }

    fn ready(&self, queue: &str) -> usize {
        self.broker.queue_names.get(queue).map_or(0, |id| self.broker.queues[id].ready())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish,
    Settle { which: usize, multiple: bool, verdict: u8 },
    Recover,
    Prefetch(u16),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Publish),
        6 => (any::<usize>(), any::<bool>(), 0..3_u8).prop_map(|(which, multiple, verdict)| Step::Settle { which, multiple, verdict }),
        1 => Just(Step::Recover),
        1 => (0..4_u16).prop_map(Step::Prefetch),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 0..120)
}

/// What one consumer of one queue must be handed: always the oldest that waits, as long as its credit reaches.
#[derive(Default)]
struct Model {
    ready: BTreeSet<usize>,
    handed_out: BTreeSet<usize>,
    unsettled: BTreeMap<u64, usize>,
    prefetch: usize,
    last_tag: u64,
}

impl Model {
    fn deliveries(&mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        while self.prefetch == 0 || self.unsettled.len() < self.prefetch {
            let Some(message) = self.ready.pop_first() else { break };
            self.last_tag += 1;
            self.unsettled.insert(self.last_tag, message);
            all.push((self.last_tag, message.to_string(), !self.handed_out.insert(message)));
        }
        all
    }
}

proptest! {
    #[test]
    fn deliveries_follow_the_model_whatever_is_settled(steps in steps(), first_prefetch in 0..4_u16) {
        let mut bench = Bench::new();
        let mut at = bench.channel();
        bench.queue(at, "q");
        bench.prefetch(at, first_prefetch);
        bench.consume(at, "q", "c").unwrap();
        let mut model = Model { prefetch: first_prefetch.into(), ..Model::default() };
        let mut prefetch = first_prefetch;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Publish => {
                    bench.publish(at, "", "q", &number.to_string());
                    model.ready.insert(number);
                }
                Step::Settle { .. } if model.unsettled.is_empty() => continue,
                Step::Settle { which, multiple, verdict } => {
                    let tag = *model.unsettled.keys().nth(which % model.unsettled.len()).unwrap();
                    let settled: Vec<u64> = model.unsettled.keys().copied().filter(|each| if multiple { *each <= tag } else { *each == tag }).collect();
                    let verdict = [Verdict::Acknowledge, Verdict::Requeue, Verdict::Discard][usize::from(verdict)];
                    bench.broker.settle(at, Which::new(tag, multiple), verdict).unwrap();
                    let messages = settled.into_iter().filter_map(|tag| model.unsettled.remove(&tag)).collect::<Vec<_>>();
                    if verdict == Verdict::Requeue {
                        model.ready.extend(messages);
                    }
                }
                Step::Recover => {
                    bench.broker.recover(at).unwrap();
                    model.ready.extend(std::mem::take(&mut model.unsettled).into_values());
                }
                Step::Prefetch(next) => prefetch = next,
                Step::Reopen => {
                    bench.broker.close_session(at.session);
                    at = bench.channel();
                    bench.prefetch(at, prefetch);
                    bench.consume(at, "q", "c").unwrap();
                    model.ready.extend(std::mem::take(&mut model.unsettled).into_values());
                    model.prefetch = prefetch.into();
                    model.last_tag = 0;
                }
            }
            bench.wait(0);
            prop_assert_eq!(bench.delivered(at), model.deliveries());
            prop_assert_eq!(bench.ready("q"), model.ready.len());
        }
        bench.broker.close_session(at.session);
        let held = model.ready.len() + model.unsettled.len();
        prop_assert_eq!(bench.broker.memory.used() >= held * (MESSAGE_OVERHEAD + ENTRY_OVERHEAD), true);
        prop_assert!(held > 0 || bench.broker.memory.used() == 0, "nothing is held, so nothing is charged");
    }

    #[test]
    fn a_topic_exchange_routes_as_the_naive_matcher_does(
        bindings in prop::collection::vec((0..5_usize, "([ab*#]|)([.]([ab*#]|)){0,4}"), 0..20),
        keys in prop::collection::vec("([abc]|)([.]([abc]|)){0,4}", 1..10),
    ) {
        let mut bench = Bench::new();
        let at = bench.channel();
        (0..5).for_each(|number| bench.queue(at, &number.to_string()));
        for (queue, key) in &bindings {
            bench.bind(at, &queue.to_string(), "amq.topic", key).unwrap();
        }
        for key in keys {
            let published = bench.publish(at, "amq.topic", &key, "");
            let topic = Topic::parse(&key).unwrap();
            let expected: BTreeSet<usize> = bindings.iter()
                .filter(|(_, pattern)| Pattern::parse(pattern).unwrap().matches(&topic)).map(|(queue, _)| *queue).collect();
            let got: BTreeSet<usize> = (0..5).filter(|number| bench.get(at, &number.to_string()).is_some()).collect();
            prop_assert_eq!(published.routed, !expected.is_empty());
            prop_assert_eq!(got, expected, "{}", key);
            prop_assert!((0..5).all(|number| bench.ready(&number.to_string()) == 0), "each queue gets it once");
        }
    }
}

#[test]
fn consumers_take_turns_and_the_highest_priority_goes_first() {
    let mut bench = Bench::new();
    let [publisher, one, two] = [bench.channel(), bench.channel(), bench.channel()];
    bench.queue(publisher, "q");
    bench.consume(one, "q", "").unwrap();
    bench.consume(two, "q", "").unwrap();
    (0..4).for_each(|number| drop(bench.publish(publisher, "", "q", &number.to_string())));
    let bodies = |seen: Vec<Seen>| seen.into_iter().map(|(_, body, _)| body).collect::<Vec<_>>();
    assert_eq!(
        (bodies(bench.delivered(one)), bodies(bench.delivered(two))),
        (vec!["0".into(), "2".into()], vec!["1".into(), "3".into()])
    );
    let first = bench.channel();
    bench.prefetch(first, 1);
    let priority = arguments(&[("x-priority", AMQPValue::LongInt(5))]);
    let method = basic::Consume { queue: short("q"), arguments: priority, ..Default::default() };
    bench.broker.consume(first, &method).unwrap();
    (4..6).for_each(|number| drop(bench.publish(publisher, "", "q", &number.to_string())));
    assert_eq!(bodies(bench.delivered(first)), ["4"], "until its credit ends");
    assert_eq!(bench.delivered(one).len() + bench.delivered(two).len(), 1);
}

#[test]
fn a_single_active_consumer_makes_way_when_it_goes() {
    let mut bench = Bench::new();
    let [one, two] = [bench.channel(), bench.channel()];
    bench.queue_with(one, "q", &[("x-single-active-consumer", AMQPValue::Boolean(true))]);
    bench.consume(one, "q", "").unwrap();
    bench.consume(two, "q", "").unwrap();
    bench.publish(one, "", "q", "a");
    bench.publish(one, "", "q", "b");
    assert_eq!((bench.delivered(one).len(), bench.delivered(two).len()), (2, 0));
    bench.broker.close_session(one.session);
    assert_eq!(bench.delivered(two), [(1, "a".into(), true), (2, "b".into(), true)]);
}

#[test]
fn a_connection_that_does_not_read_is_given_no_more_than_its_outbox_and_the_rest_later() {
    let mut bench = Bench::with_memory(64 << 20);
    let at = bench.channel();
    bench.queue(at, "q");
    bench.consume(at, "q", "").unwrap();
    let body = "x".repeat(10_000);
    (0..100).for_each(|_| drop(bench.publish(at, "", "q", &body)));
    assert!(bench.ready("q") > 50, "the outbox is bounded");
    let mut seen = 0;
    while let count @ 1.. = bench.delivered(at).len() {
        seen += count;
    }
    assert_eq!((seen, bench.ready("q")), (100, 0));
}

#[test]
fn what_a_session_owned_goes_with_it_and_what_it_held_goes_back() {
    let mut bench = Bench::new();
    let [owner, other] = [bench.channel(), bench.channel()];
    let exclusive = queue::Declare { queue: short("own"), exclusive: true, ..Default::default() };
    bench.broker.declare_queue(owner, &exclusive).unwrap();
    let abandoned = queue::Declare { queue: short("auto"), auto_delete: true, ..Default::default() };
    bench.broker.declare_queue(owner, &abandoned).unwrap();
    bench.queue(owner, "shared");
    bench.bind(owner, "own", "amq.topic", "#").unwrap();
    bench.publish(owner, "", "shared", "a");
    assert_eq!(bench.consume(other, "own", "").unwrap_err().code, Code::ResourceLocked);
    bench.consume(owner, "auto", "").unwrap();
    bench.consume(owner, "shared", "").unwrap();
    bench.consume(other, "shared", "").unwrap();
    assert_eq!(bench.delivered(owner).len(), 1);
    bench.broker.close_session(owner.session);
    assert_eq!(bench.delivered(other), [(1, "a".into(), true)]);
    assert_eq!(bench.consume(other, "own", "").unwrap_err().code, Code::NotFound);
    assert_eq!(bench.consume(other, "auto", "").unwrap_err().code, Code::NotFound);
    assert_eq!(bench.broker.bindings, 0);
    assert!(!bench.publish(other, "amq.topic", "a", "").routed);
}

#[test]
fn a_queue_declared_anew_is_another_one() {
    let mut bench = Bench::new();
    let at = bench.channel();
    bench.queue(at, "q");
    bench.publish(at, "", "q", "a");
    bench.consume(at, "q", "c").unwrap();
    bench.broker.delete_queue(at, &queue::Delete { queue: short("q"), ..Default::default() }).unwrap();
    bench.queue(at, "q");
    let told = bench.broker.take_outbox(at.session);
    assert!(matches!(&told.back(), Some(Outgoing::Cancel { consumer_tag, .. }) if **consumer_tag == *"c"));
    bench.broker.settle(at, Which::One(1), Verdict::Requeue).unwrap();
    assert_eq!(bench.ready("q"), 0, "the old queue's message is not the new one's");
}

#[test]
fn too_long_queues_shed_to_the_dead_letters_and_a_circle_ends() {
    let mut bench = Bench::new();
    let at = bench.channel();
    let to = |queue: &'static str| {
        [
            ("x-max-length", AMQPValue::LongInt(1)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(queue)),
        ]
    };
    bench.queue_with(at, "one", &to("two"));
    bench.queue_with(at, "two", &to("one"));
    for body in ["a", "b", "c", "d"] {
        bench.publish(at, "", "one", body);
        bench.wait(0);
    }
    assert!(bench.broker.dying.is_empty());
    let ((_, body, _), _) = bench.get(at, "one").unwrap();
    assert_eq!(body, "d");
    let ((_, _, _), dead) = bench.get(at, "two").unwrap();
    assert!(properties(&dead).headers().as_ref().unwrap().contains_key("x-death"));
}

#[test]
fn a_death_that_no_frame_has_room_for_is_not_written_down_and_ends_at_the_first_queue_without_dead_letters() {
    let mut bench = Bench::new();
    let at = bench.channel();
    let to = |queue| [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(queue))];
    bench.queue(at, "last");
    bench.queue_with(at, "one", &[&to("two")[..], &[("x-max-length", AMQPValue::LongInt(0))]].concat());
    bench.queue_with(at, "two", &[&to("one")[..], &[("x-max-length", AMQPValue::LongInt(0))]].concat());
    bench.queue_with(at, "short", &[&to("last")[..], &[("x-max-length", AMQPValue::LongInt(0))]].concat());
    let fits = |length: usize| BasicProperties::default().with_headers(arguments(&[("k", text(&"y".repeat(length)))]));
    // Class, weight, size and flags, the table's length, a name, a letter and the text's length stand before the text.
    let longest = fits(131_072 - 8 - 12 - 2 - 4 - 2 - 1 - 4);
    assert_eq!(encode_properties(&longest).len() + 12 + 8, 131_072);
    for properties in [longest.clone(), fits(100)] {
        bench.publish_with(at, ["", "short", ""], properties).unwrap();
    }
    bench.wait(0);
    let recorded = |message: Arc<Message>| {
        assert!(message.properties.len() + 12 + 8 <= 131_072);
        properties(&message).headers().as_ref().unwrap().contains_key("x-death")
    };
    let buried = [bench.get(at, "last").unwrap().1, bench.get(at, "last").unwrap().1];
    assert_eq!(buried.map(recorded), [false, true]);
    bench.publish_with(at, ["", "one", ""], longest).unwrap();
    bench.wait(0);
    assert!(bench.broker.dying.is_empty(), "it goes round only as long as that can be told");
}

#[test]
fn time_to_live_ends_at_the_head_and_unused_queues_go() {
    let mut bench = Bench::new();
    let at = bench.channel();
    bench.queue(at, "dead");
    let dead = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    bench.queue_with(at, "q", &dead);
    bench.queue_with(at, "unused", &[("x-expires", AMQPValue::LongInt(1_000))]);
    let expiring = BasicProperties::default().with_expiration(short("100"));
    bench.publish_with(at, ["", "q", "a"], expiring.clone()).unwrap();
    bench.publish(at, "", "q", "b");
    bench.publish_with(at, ["", "q", "c"], expiring).unwrap();
    let due = bench.wait(0).due.unwrap();
    assert_eq!(due, bench.now + Duration::from_millis(100));
    bench.wait(100);
    assert_eq!((bench.ready("dead"), bench.ready("q")), (1, 2), "c waits behind b, as in RabbitMQ");
    assert!(bench.broker.queue_names.contains_key("unused"));
    assert_eq!(bench.get(at, "q").unwrap().0.1, "b");
    bench.wait(1);
    assert_eq!((bench.ready("dead"), bench.ready("q")), (2, 0));
    bench.wait(1_000);
    assert!(!bench.broker.queue_names.contains_key("unused"));
    assert!(bench.wait(0).due.is_none());
}

#[test]
fn many_dead_letters_are_taken_up_a_piece_a_turn() {
    let mut bench = Bench::with_memory(64 << 20);
    let at = bench.channel();
    bench.queue(at, "dead");
    bench.queue_with(
        at,
        "q",
        &[
            ("x-message-ttl", AMQPValue::LongInt(10)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text("dead")),
        ],
    );
    (0..1_200).for_each(|_| drop(bench.publish(at, "", "q", "")));
    let end = bench.wait(10);
    assert!(bench.ready("dead") < 1_200 && end.due == Some(bench.now), "the next turn is due at once");
    while bench.wait(0).due.is_some() {}
    assert_eq!(bench.ready("dead"), 1_200);
}

#[test]
fn no_dead_letter_is_lost_however_many_die_at_once() {
    const DEATHS: usize = dead_letters::DYING_MAX + 700;
    let mut bench = Bench::with_memory(256 << 20);
    let at = bench.channel();
    let dead = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    bench.queue(at, "dead");
    bench.queue_with(at, "short", &[&dead[..], &[("x-max-length", AMQPValue::LongInt(0))]].concat());
    bench.queue_with(at, "rejected", &dead);
    bench.consume(at, "rejected", "").unwrap();
    // All within one turn, as far as the broker knows.
    (0..DEATHS).for_each(|_| drop(bench.publish(at, "", "short", "")));
    assert_eq!(bench.ready("dead") + bench.broker.dying.len(), DEATHS);
    let full = bench.broker.dying.len();
    for _ in 0..1_200 {
        bench.publish(at, "", "rejected", "");
        bench.delivered(at);
    }
    assert!(full + 1_200 > dead_letters::DYING_MAX);
    bench.broker.settle(at, Which::UpTo(0), Verdict::Discard).unwrap();
    while bench.wait(0).due.is_some() {}
    assert_eq!(bench.ready("dead"), DEATHS + 1_200);
}

#[test]
fn a_full_broker_raises_the_alarm_and_wakes_whom_it_blocked() {
    let mut bench = Bench::with_memory(100_000);
    let at = bench.channel();
    bench.queue(at, "q");
    while !bench.broker.is_alarmed() {
        bench.publish(at, "", "q", &"x".repeat(1_000));
    }
    bench.broker.set_blocked(at.session, true);
    assert!(bench.wait(0).woken.is_empty());
    bench.broker.purge_queue(at, "q").unwrap();
    assert_eq!(bench.wait(0).woken, [at.session]);
    assert_eq!((bench.broker.is_alarmed(), bench.broker.memory.used()), (false, 0));
}

#[test]
fn replies_go_straight_to_the_channel_that_asked() {
    let mut bench = Bench::new();
    let [asker, server] = [bench.channel(), bench.channel()];
    bench.queue(server, "rpc");
    let ask = BasicProperties::default().with_reply_to(short("amq.rabbitmq.reply-to"));
    assert_eq!(bench.publish_with(asker, ["", "rpc", "?"], ask.clone()).unwrap_err().code, Code::PreconditionFailed);
    assert_eq!(bench.consume(asker, "amq.rabbitmq.reply-to", "").unwrap_err().code, Code::PreconditionFailed);
    let method = basic::Consume { queue: short("amq.rabbitmq.reply-to"), no_ack: true, ..Default::default() };
    bench.broker.consume(asker, &method).unwrap();
    bench.publish_with(asker, ["", "rpc", "?"], ask).unwrap();
    let (_, request) = bench.get(server, "rpc").unwrap();
    let address = properties(&request).reply_to().clone().unwrap();
    assert!(
        !bench.publish(server, "", address.as_str(), "!").routed,
        "a reply is not counted as routed, as in RabbitMQ"
    );
    assert_eq!(bench.delivered(asker), [(1, "!".into(), false)]);
    bench.broker.close_session(asker.session);
    bench.publish(server, "", address.as_str(), "too late");
    assert!(bench.broker.reply_addresses.is_empty());
}

#[test]
fn exchanges_lead_to_exchanges_and_around_in_circles_only_once() {
    let mut bench = Bench::new();
    let at = bench.channel();
    for (name, auto_delete) in [("one", false), ("two", true)] {
        let method =
            exchange::Declare { exchange: short(name), kind: short("topic"), auto_delete, ..Default::default() };
        bench.broker.declare_exchange(&method).unwrap();
    }
    let none = FieldTable::default();
    bench.broker.bind_exchange("two", &Link { source: "one", key: "a.#", arguments: &none }).unwrap();
    bench.broker.bind_exchange("one", &Link { source: "two", key: "#", arguments: &none }).unwrap();
    bench.queue(at, "q");
    bench.bind(at, "q", "two", "#.b").unwrap();
    bench.bind(at, "q", "one", "a.b").unwrap();
    assert!(bench.publish(at, "one", "a.b", "").routed);
    assert_eq!(bench.ready("q"), 1);
    bench.broker.unbind_queue(at, "q", &Link { source: "two", key: "#.b", arguments: &none }).unwrap();
    bench.broker.unbind_exchange("one", &Link { source: "two", key: "#", arguments: &none }).unwrap();
    assert!(!bench.broker.exchanges.contains_key("two"), "it lived as long as something was bound to it");
    assert_eq!(bench.broker.bindings, 1);
    bench.broker.delete_exchange(&exchange::Delete { exchange: short("one"), ..Default::default() }).unwrap();
    assert_eq!(bench.broker.bindings, 0);
}

#[test]
fn what_is_not_there_is_as_good_as_unbound() {
    let mut bench = Bench::new();
    let [at, other] = [bench.channel(), bench.channel()];
    let own = queue::Declare { queue: short("own"), exclusive: true, ..Default::default() };
    bench.broker.declare_queue(at, &own).unwrap();
    let arguments = FieldTable::default();
    let link = |source| Link { source, key: "a", arguments: &arguments };
    for source in ["amq.topic", "none"] {
        assert_eq!(bench.broker.unbind_queue(at, "none", &link(source)), Ok(()));
        assert_eq!(bench.broker.unbind_queue(at, "own", &link(source)), Ok(()));
        assert_eq!(bench.broker.unbind_exchange("none", &link(source)), Ok(()));
        assert_eq!(bench.broker.unbind_exchange("amq.fanout", &link(source)), Ok(()));
    }
    assert_eq!(bench.broker.unbind_queue(at, "none", &link("")).unwrap_err().code, Code::AccessRefused);
    assert_eq!(bench.broker.unbind_exchange("none", &link("")).unwrap_err().code, Code::AccessRefused);
    assert_eq!(bench.broker.unbind_queue(other, "own", &link("none")).unwrap_err().code, Code::ResourceLocked);
}

#[test]
fn a_refusing_queue_makes_its_publisher_a_nack() {
    let mut bench = Bench::new();
    let at = bench.channel();
    bench.queue_with(at, "q", &[("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", text("reject-publish"))]);
    assert!(bench.publish(at, "", "q", "a").accepted);
    let refused = bench.publish(at, "", "q", "b");
    assert!(refused.routed && !refused.accepted);
    assert_eq!(bench.ready("q"), 1);
}

/// Its publishers have the broker's word for all of it.
#[test]
fn a_refusing_queue_keeps_what_comes_back_to_it_though_it_is_full() {
    for overflow in ["reject-publish", "reject-publish-dlx"] {
        let mut bench = Bench::new();
        let [at, holder] = [bench.channel(), bench.channel()];
        bench.queue_with(at, "q", &[("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", text(overflow))]);
        assert!(bench.publish(at, "", "q", "a").accepted);
        assert!(bench.get(holder, "q").is_some());
        assert!(bench.publish(at, "", "q", "b").accepted, "there was room");
        bench.broker.close_session(holder.session);
        assert_eq!(bench.ready("q"), 2, "{overflow}");
        assert!(!bench.publish(at, "", "q", "c").accepted);
    }
}

#[test]
fn no_queue_is_taken_for_a_stream() {
    let mut bench = Bench::new();
    let at = bench.channel();
    bench.queue(at, "q");
    let offset = arguments(&[("x-stream-offset", text("first"))]);
    let method = basic::Consume { queue: short("q"), arguments: offset, ..Default::default() };
    assert_eq!(bench.broker.consume(at, &method).unwrap_err().code, Code::PreconditionFailed);
}
