//! Conversations frame by frame, without a socket: the handshake, every code of refusal, contents, confirms, and bytes
//! that mean nothing.

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, BasicProperties, basic, channel, confirm, connection, exchange, queue, tx};
use amq_protocol::types::{AMQPValue, FieldTable};
use bytes::BytesMut;
use proptest::prelude::*;

use crate::embedded::broker::{Broker, Moment};
use crate::embedded::conversation::{Conversation, House, Stage};
use crate::embedded::fault::short;
use crate::embedded::message::Account;

/// The other side of a conversation.
struct Client {
    conversation: Conversation,
    input: BytesMut,
}

fn broker(memory_bytes_max: usize) -> Broker {
    Broker::new(memory_bytes_max, Moment { instant: std::time::Instant::now(), unix_seconds: 0 })
}

fn bytes(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(Vec::new().into()).unwrap().into_inner().0
}

pub(super) fn method(number: u16, class: AMQPClass) -> Vec<u8> {
    bytes(&AMQPFrame::Method(number, class))
}

fn basic(method: basic::AMQPMethod) -> AMQPClass {
    AMQPClass::Basic(method)
}

fn connection(method: connection::AMQPMethod) -> AMQPClass {
    AMQPClass::Connection(method)
}

pub(super) fn open_channel(number: u16) -> Vec<u8> {
    method(number, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})))
}

fn declare(number: u16, queue: &str) -> Vec<u8> {
    let declare = queue::Declare { queue: short(queue), ..Default::default() };
    method(number, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))
}

pub(super) fn publish(number: u16, routing_key: &str, mandatory: bool, body: &[u8]) -> Vec<u8> {
    send(number, basic::Publish { routing_key: short(routing_key), mandatory, ..Default::default() }, body)
}

fn send(number: u16, head: basic::Publish, body: &[u8]) -> Vec<u8> {
    let header =
        AMQPContentHeader { class_id: 60, body_size: body.len() as u64, properties: BasicProperties::default() };
    let mut all = method(number, basic(basic::AMQPMethod::Publish(head)));
    all.extend(bytes(&AMQPFrame::Header(number, header)));
    for piece in body.chunks(4_000) {
        all.extend(bytes(&AMQPFrame::Body(number, piece.to_vec())));
    }
    all
}

pub(super) fn start_ok(password: &str, abilities: &[&str]) -> Vec<u8> {
    let mut capabilities = FieldTable::default();
    for ability in abilities {
        capabilities.insert(short(ability), AMQPValue::Boolean(true));
    }
    let mut client_properties = FieldTable::default();
    client_properties.insert(short("capabilities"), AMQPValue::FieldTable(capabilities));
    let response = format!("\0guest\0{password}").into();
    let answer = connection::StartOk { client_properties, mechanism: short("PLAIN"), response, ..Default::default() };
    method(0, connection(connection::AMQPMethod::StartOk(answer)))
}

fn tune_ok(channel_max: u16, frame_max: u32) -> Vec<u8> {
    let answer = connection::TuneOk { channel_max, frame_max, heartbeat: 7 };
    method(0, connection(connection::AMQPMethod::TuneOk(answer)))
}

fn open(vhost: &str) -> Vec<u8> {
    method(0, connection(connection::AMQPMethod::Open(connection::Open { virtual_host: short(vhost) })))
}

pub(super) const EVERYTHING: [&str; 2] = ["authentication_failure_close", "connection.blocked"];

impl Client {
    fn new(is_local: bool) -> Self {
        let house = House { connections_max: 2, assembling: Account::default() };
        Self { conversation: Conversation::new(house, is_local), input: BytesMut::new() }
    }

    /// A client with an open connection and channel 1.
    fn open(broker: &mut Broker) -> Self {
        let mut client = Self::new(true);
        let handshake = [
            &b"AMQP\0\0\x09\x01"[..],
            &start_ok("guest", &EVERYTHING),
            &tune_ok(0, 4_096),
            &open("/"),
            &open_channel(1),
        ];
        let answers = client.say(broker, &handshake.concat());
        assert!(matches!(&answers[..], [.., AMQPFrame::Method(1, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_)))]));
        client
    }

    /// Sends bytes; what comes back.
    fn say(&mut self, broker: &mut Broker, bytes: &[u8]) -> Vec<AMQPFrame> {
        self.input.extend_from_slice(bytes);
        self.conversation.receive(&mut self.input, broker);
        self.conversation.collect(broker);
        broker.end();
        self.heard()
    }

    fn heard(&mut self) -> Vec<AMQPFrame> {
        let mut rest = self.conversation.output.pending().to_vec();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (after, frame) = parse_frame(&rest[..]).unwrap();
            frames.push(frame);
            rest = after.to_vec();
        }
        let sent = self.conversation.output.pending().len();
        self.conversation.output.advance(sent);
        frames
    }

    /// The code with which the last frame that came back closes something, and the method that was to blame.
    fn refused(&mut self, broker: &mut Broker, bytes: &[u8]) -> (u16, (u16, u16)) {
        match self.say(broker, bytes).last() {
            Some(AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)))) => {
                assert!(matches!(self.conversation.stage(), Stage::Closing | Stage::Closed));
                (close.reply_code, (close.class_id, close.method_id))
            }
            Some(AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Close(close)))) => {
                assert_eq!(self.conversation.stage(), Stage::Open);
                (close.reply_code, (close.class_id, close.method_id))
            }
            other => panic!("no refusal but {other:?}"),
        }
    }
}

/// The number of the method in a frame of a channel.
fn names(frames: &[AMQPFrame]) -> Vec<(u16, u16)> {
    let number = |frame: &AMQPFrame| match frame {
        AMQPFrame::Method(_, class) => (class.get_amqp_class_id(), class.get_amqp_method_id()),
        AMQPFrame::Header(..) => (0, 2),
        AMQPFrame::Body(..) => (0, 3),
        _ => (0, 0),
    };
    frames.iter().map(number).collect()
}

#[test]
fn whoever_speaks_something_else_is_told_what_is_spoken_here() {
    let mut broker = broker(1 << 20);
    let mut client = Client::new(true);
    client.input.extend_from_slice(b"GET / HTTP/1.1\r\n");
    client.conversation.receive(&mut client.input, &mut broker);
    assert_eq!(client.conversation.output.pending(), b"AMQP\0\0\x09\x01");
    assert_eq!(client.conversation.stage(), Stage::Closed);
}

#[test]
fn the_handshake_is_tuned_by_the_client() {
    let mut broker = broker(1 << 20);
    let client = Client::open(&mut broker);
    assert_eq!(client.conversation.frame_bytes_max(), 4_096);
    assert_eq!(client.conversation.heartbeat(), Some(std::time::Duration::from_secs(7)));
    for (channel_max, frame_max) in [(0, 4_095), (0, 131_073), (2_048, 0)] {
        let mut client = Client::new(true);
        client.say(&mut broker, &[&b"AMQP\0\0\x09\x01"[..], &start_ok("guest", &EVERYTHING)].concat());
        assert_eq!(client.refused(&mut broker, &tune_ok(channel_max, frame_max)).0, 530);
    }
}

#[test]
fn strangers_and_other_vhosts_and_one_too_many_are_refused() {
    let mut broker = broker(1 << 20);
    let greeting = b"AMQP\0\0\x09\x01";
    let mut client = Client::new(true);
    client.say(&mut broker, greeting);
    assert_eq!(client.refused(&mut broker, &start_ok("wrong", &EVERYTHING)).0, 403);
    let mut remote = Client::new(false);
    remote.say(&mut broker, greeting);
    assert_eq!(remote.refused(&mut broker, &start_ok("guest", &EVERYTHING)).0, 403);
    let mut old = Client::new(true);
    old.say(&mut broker, greeting);
    assert!(old.say(&mut broker, &start_ok("wrong", &[])).is_empty());
    assert_eq!(old.conversation.stage(), Stage::Closed);
    let mut elsewhere = Client::new(true);
    elsewhere.say(&mut broker, &[greeting, &start_ok("guest", &EVERYTHING)[..], &tune_ok(0, 0)].concat());
    assert_eq!(elsewhere.refused(&mut broker, &open("other")).0, 530);
    let _two = [Client::open(&mut broker), Client::open(&mut broker)];
    let mut third = Client::new(true);
    third.say(&mut broker, &[greeting, &start_ok("guest", &EVERYTHING)[..], &tune_ok(0, 0)].concat());
    assert_eq!(third.refused(&mut broker, &open("/")).0, 530);
}

/// What somebody says, the code that answers it, and the method to blame.
type Mistake = (&'static str, Vec<u8>, (u16, (u16, u16)));

/// What a client says wrong on channel 1 after declaring `q`.
fn mistakes() -> Vec<Mistake> {
    let passive = queue::Declare { queue: short("none"), passive: true, ..Default::default() };
    let reserved = exchange::Declare { exchange: short("amq.x"), kind: short("topic"), ..Default::default() };
    let unknown = exchange::Declare { exchange: short("x"), kind: short("odd"), ..Default::default() };
    let plugin = exchange::Declare { exchange: short("x"), kind: short("x-odd"), ..Default::default() };
    let durable = queue::Declare { queue: short("q"), durable: true, ..Default::default() };
    let mut arguments = FieldTable::default();
    arguments.insert(short("x-queue-type"), AMQPValue::LongString("stream".into()));
    let stream = queue::Declare { queue: short("s"), durable: true, arguments, ..Default::default() };
    let immediate = basic::Publish { immediate: true, ..Default::default() };
    let queue_method = |declare| method(1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    let exchange_method = |declare| method(1, AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)));
    let mut bad_end = declare(1, "q");
    *bad_end.last_mut().unwrap() = 0;
    let header = |size| {
        let header = AMQPContentHeader { class_id: 60, body_size: size, properties: BasicProperties::default() };
        bytes(&AMQPFrame::Header(1, header))
    };
    let begun = method(1, basic(basic::AMQPMethod::Publish(basic::Publish::default())));
    let nowhere = basic::Publish { exchange: short("none"), ..Default::default() };
    let nowhere = method(1, basic(basic::AMQPMethod::Publish(nowhere)));
    let body = |length: usize| bytes(&AMQPFrame::Body(1, vec![0; length]));
    vec![
        ("missing queue", queue_method(passive), (404, (50, 10))),
        ("reserved name", exchange_method(reserved), (403, (40, 10))),
        ("declared otherwise", queue_method(durable), (406, (50, 10))),
        ("stream", queue_method(stream), (406, (50, 10))),
        ("unknown tag", method(1, basic(basic::AMQPMethod::Ack(basic::Ack::default()))), (406, (60, 80))),
        ("bad frame end", bad_end, (501, (0, 0))),
        ("unknown frame", vec![4, 0, 1, 0, 0, 0, 0, 0xCE], (501, (0, 0))),
        ("too large a frame", vec![3, 0, 1, 0, 0, 16, 0], (501, (0, 0))),
        ("unreadable method", vec![1, 0, 1, 0, 0, 0, 5, 0, 50, 0, 10, 0, 0xCE], (502, (50, 10))),
        ("unknown method", vec![1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 99, 0xCE], (502, (60, 99))),
        ("the server's method", method(1, basic(basic::AMQPMethod::GetEmpty(basic::GetEmpty {}))), (503, (60, 72))),
        ("unknown exchange type", exchange_method(unknown), (503, (40, 10))),
        ("closed channel", declare(2, "q"), (504, (50, 10))),
        ("opened twice", open_channel(1), (504, (20, 10))),
        ("content without method", header(0), (505, (0, 0))),
        ("body before header", [begun.clone(), body(1)].concat(), (505, (60, 40))),
        ("method within content", [begun.clone(), declare(1, "q")].concat(), (505, (60, 40))),
        ("more body than announced", [begun.clone(), header(3), body(4)].concat(), (505, (60, 40))),
        ("too large a message", [begun, header(1 << 40)].concat(), (406, (60, 40))),
        ("publish to nowhere", [nowhere.clone(), header(0)].concat(), (404, (60, 40))),
        ("publish to nowhere with a body", [nowhere, header(1), body(1)].concat(), (404, (60, 40))),
        ("transactions", method(1, AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {}))), (540, (90, 10))),
        ("prefetch in bytes", vec![1, 0, 1, 0, 0, 0, 11, 0, 60, 0, 10, 0, 0, 0, 10, 0, 1, 0, 0xCE], (540, (60, 10))),
        ("plugin's exchange type", exchange_method(plugin), (540, (40, 10))),
        ("immediate", method(1, basic(basic::AMQPMethod::Publish(immediate))), (540, (60, 40))),
    ]
}

#[test]
fn every_mistake_has_its_code() {
    for (name, mistake, expected) in mistakes() {
        let mut broker = broker(1 << 20);
        let mut client = Client::open(&mut broker);
        client.say(&mut broker, &declare(1, "q"));
        assert_eq!(client.refused(&mut broker, &mistake), expected, "{name}");
    }
}

/// Neither names queue nor key: both mean the queue that was declared last, by its name.
#[test]
fn what_was_bound_without_a_name_is_unbound_without_one() {
    let mut broker = broker(1 << 20);
    let mut client = Client::open(&mut broker);
    let exchange = short("amq.direct");
    let bind = queue::Bind { exchange: exchange.clone(), ..Default::default() };
    let bind = method(1, AMQPClass::Queue(queue::AMQPMethod::Bind(bind)));
    let unbind = queue::Unbind { exchange: exchange.clone(), ..Default::default() };
    let unbind = method(1, AMQPClass::Queue(queue::AMQPMethod::Unbind(unbind)));
    let message = basic::Publish { exchange, routing_key: short("q"), mandatory: true, ..Default::default() };
    let message = send(1, message, b"");
    client.say(&mut broker, &[declare(1, "q"), bind].concat());
    assert!(client.say(&mut broker, &message).is_empty(), "it is routed");
    assert_eq!(names(&client.say(&mut broker, &unbind)), [(50, 51)]);
    assert_eq!(names(&client.say(&mut broker, &message))[0], (60, 50), "it comes back");
}

#[test]
fn a_channel_that_ended_is_deaf_until_the_client_knows_and_others_go_on() {
    let mut broker = broker(1 << 20);
    let mut client = Client::open(&mut broker);
    client.say(&mut broker, &open_channel(2));
    let missing = method(1, basic(basic::AMQPMethod::Get(basic::Get { queue: short("none"), no_ack: true })));
    assert_eq!(client.refused(&mut broker, &missing).0, 404);
    assert!(client.say(&mut broker, &[declare(1, "q"), publish(1, "q", true, b"x")].concat()).is_empty());
    assert_eq!(names(&client.say(&mut broker, &declare(2, "q"))), [(50, 11)]);
    let close_ok = method(1, AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})));
    assert!(client.say(&mut broker, &close_ok).is_empty());
    assert_eq!(names(&client.say(&mut broker, &[open_channel(1), declare(1, "q")].concat())), [(20, 11), (50, 11)]);
}

#[test]
fn what_is_returned_comes_before_its_confirm_and_confirms_are_gathered() {
    let mut broker = broker(1 << 20);
    let mut client = Client::open(&mut broker);
    let select = method(1, AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false })));
    client.say(&mut broker, &[declare(1, "q"), select].concat());
    let publishes = [
        publish(1, "q", false, b"1"),
        publish(1, "q", false, b"2"),
        publish(1, "none", true, b"3"),
        publish(1, "none", false, b"4"),
    ];
    let answers = client.say(&mut broker, &publishes.concat());
    assert_eq!(names(&answers), [(60, 80), (60, 50), (0, 2), (0, 3), (60, 80), (60, 80)]);
    let acks: Vec<_> = answers
        .iter()
        .filter_map(|frame| match frame {
            AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) => {
                Some((ack.delivery_tag, ack.multiple))
            }
            _ => None,
        })
        .collect();
    assert_eq!(acks, [(2, true), (3, false), (4, false)]);
}

#[test]
fn bodies_are_put_together_and_taken_apart_within_the_agreed_frames() {
    let mut broker = broker(1 << 20);
    let mut client = Client::open(&mut broker);
    let body: Vec<u8> = (0..50_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    client.say(&mut broker, &[declare(1, "q"), publish(1, "q", false, &body)].concat());
    let get = method(1, basic(basic::AMQPMethod::Get(basic::Get { queue: short("q"), no_ack: true })));
    let answers = client.say(&mut broker, &get);
    let pieces: Vec<&Vec<u8>> = answers
        .iter()
        .filter_map(|frame| if let AMQPFrame::Body(_, piece) = frame { Some(piece) } else { None })
        .collect();
    assert!(pieces.iter().all(|piece| piece.len() + 8 <= 4_096));
    assert_eq!(pieces.into_iter().flatten().copied().collect::<Vec<u8>>(), body);
}

#[test]
fn the_answer_to_consume_comes_before_its_deliveries_and_that_to_cancel_after() {
    let mut broker = broker(1 << 20);
    let mut client = Client::open(&mut broker);
    let tag = short("c");
    let consume = basic::Consume { queue: short("q"), consumer_tag: tag.clone(), no_ack: true, ..Default::default() };
    let cancel = basic::Cancel { consumer_tag: tag, nowait: false };
    let script = [
        declare(1, "q"),
        publish(1, "q", false, b"1"),
        method(1, basic(basic::AMQPMethod::Consume(consume))),
        publish(1, "q", false, b"2"),
        method(1, basic(basic::AMQPMethod::Cancel(cancel))),
        publish(1, "q", false, b"3"),
    ];
    let delivery = [(60, 60), (0, 2), (0, 3)];
    let expected = [&[(50, 11), (60, 21)][..], &delivery, &delivery, &[(60, 31)]].concat();
    assert_eq!(names(&client.say(&mut broker, &script.concat())), expected);
}

#[test]
fn who_publishes_into_a_full_broker_waits_until_there_is_room() {
    let mut broker = broker(20_000);
    let mut client = Client::open(&mut broker);
    let mut consumer = Client::open(&mut broker);
    client.say(&mut broker, &declare(1, "q"));
    let script = [publish(1, "q", false, &[0; 30_000]), declare(1, "after")].concat();
    assert_eq!(names(&client.say(&mut broker, &script)), [(10, 60)], "blocked, and nothing after it is answered");
    let get = method(1, basic(basic::AMQPMethod::Get(basic::Get { queue: short("q"), no_ack: true })));
    assert_eq!(consumer.say(&mut broker, &get).len(), 2 + 8);
    assert_eq!(names(&client.say(&mut broker, &[])), [(10, 61), (50, 11)]);
}

#[test]
fn a_full_output_stops_the_reading_of_requests_not_the_conversation() {
    let mut broker = broker(64 << 20);
    let mut client = Client::open(&mut broker);
    client.say(&mut broker, &[declare(1, "q"), publish(1, "q", false, &[0; 900_000])].concat());
    let get = method(1, basic(basic::AMQPMethod::Get(basic::Get { queue: short("q"), no_ack: false })));
    let recover = method(1, basic(basic::AMQPMethod::RecoverAsync(basic::RecoverAsync { requeue: true })));
    let script = [get, recover].concat().repeat(10);
    let mut rounds = 0;
    let mut fetched = 0;
    client.input.extend_from_slice(&script);
    while fetched < 10 {
        client.conversation.receive(&mut client.input, &mut broker);
        assert!(client.conversation.output.pending().len() < 3 << 20, "bounded");
        fetched += names(&client.heard()).iter().filter(|name| **name == (60, 71)).count();
        rounds += 1;
    }
    assert!(rounds > 3);
}

#[test]
fn a_consumer_is_not_forgotten_when_an_answer_made_room_for_it() {
    let mut broker = broker(64 << 20);
    let mut client = Client::open(&mut broker);
    client.say(&mut broker, &[declare(1, "q"), publish(1, "q", false, &[0; 10_000]).repeat(60)].concat());
    let consume = basic::Consume { queue: short("q"), ..Default::default() };
    let script = [method(1, basic(basic::AMQPMethod::Consume(consume))), declare(1, "other")].concat();
    let answers = names(&client.say(&mut broker, &script));
    assert_eq!(answers.iter().filter(|name| **name == (60, 60)).count(), 60, "more than the outbox holds at once");
}

#[test]
fn closing_gives_everything_back_and_ends() {
    let mut broker = broker(1 << 20);
    let mut client = Client::open(&mut broker);
    let close = method(0, connection(connection::AMQPMethod::Close(connection::Close::default())));
    assert_eq!(names(&client.say(&mut broker, &close)), [(10, 51)]);
    assert_eq!((client.conversation.stage(), broker.sessions()), (Stage::Closed, 0));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(noise: Vec<u8>, after in 0..4_usize) {
        let mut broker = broker(1 << 20);
        let mut client = if after == 3 { Client::open(&mut broker) } else { Client::new(true) };
        let handshake = [&b"AMQP\0\0\x09\x01"[..], &start_ok("guest", &EVERYTHING)];
        for known in handshake.iter().take(if after == 3 { 0 } else { after }) {
            client.say(&mut broker, known);
        }
        client.input.extend_from_slice(&noise);
        client.conversation.receive(&mut client.input, &mut broker);
        client.conversation.collect(&mut broker);
    }

    #[test]
    fn bent_conversations_never_panic(
        which in prop::collection::vec(0..30_usize, 1..20),
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut broker = broker(1 << 20);
        let mut client = Client::open(&mut broker);
        let consume = basic::Consume { queue: short("q"), ..Default::default() };
        let mut phrases: Vec<Vec<u8>> = mistakes().into_iter().map(|(_, bytes, _)| bytes).collect();
        phrases.extend([declare(1, "q"), publish(1, "q", true, b"abc"), method(1, basic(basic::AMQPMethod::Consume(consume)))]);
        let mut script: Vec<u8> = which.iter().flat_map(|each| phrases[each % phrases.len()].clone()).collect();
        for (at, byte) in bends {
            let at = at.index(script.len());
            script[at] = byte;
        }
        client.input.extend_from_slice(&script);
        client.conversation.receive(&mut client.input, &mut broker);
        client.conversation.collect(&mut broker);
        client.conversation.leave(&mut broker);
        prop_assert_eq!(broker.sessions(), 0);
    }
}
