//! Sessions that outlive their connections, over real sockets.

use std::collections::BTreeMap;

use tokio::task::LocalSet;

use super::*;
use crate::hub::interest::BindingKind;
use crate::hub::shard::Place;
use crate::model::cursor::JointCursor;
use crate::model::outgoing::Outgoing;
use crate::protocol::mqtt::{self, Memory};
use crate::session::ClientName;
use crate::transport::driver::claiming;
use crate::transport::sessions::{Claimed, Holder, Kept};

/// `CONNECT` of 5.0 by client `anna`, with a session that lasts a minute: to begin anew or to go on.
fn connect(anew: bool) -> Vec<u8> {
    let flags = if anew { 2 } else { 0 };
    [&[0x10, 22, 0, 4][..], b"MQTT", &[5, flags, 0, 0, 5, 0x11, 0, 0, 0, 60, 0, 4], b"anna"].concat()
}

/// Likewise, with a will for topic `w` that waits for so long.
fn connect_with_will(delay_seconds: u8) -> Vec<u8> {
    let will = [&[5, 0x18, 0, 0, 0, delay_seconds, 0, 1, b'w', 0, 4][..], b"gone"].concat();
    let head = [&[0x10, 37, 0, 4][..], b"MQTT", &[5, 4, 0, 0, 5, 0x11, 0, 0, 0, 60, 0, 4], b"anna"].concat();
    [head, will].concat()
}

/// `SUBSCRIBE` to everything at QoS 1.
const SUBSCRIBE: [u8; 9] = [0x82, 7, 0, 1, 0, 0, 1, b'#', 1];

/// More than are asked for at once, in as many packets.
const MANY: usize = PACKETS * FILTERS;
const PACKETS: usize = 2;
const FILTERS: usize = 1_000;

/// `SUBSCRIBE`s to so many topics at QoS 1.
fn subscribe_to_many() -> Vec<u8> {
    let filter = |number: usize| [&[0, 4], format!("{number:04}").as_bytes(), &[1]].concat();
    let packet = |packet: usize| {
        let filters: Vec<u8> = (0..FILTERS).flat_map(|number| filter(packet * FILTERS + number)).collect();
        let length = filters.len() + 3;
        [&[0x82, length as u8 | 0x80, (length >> 7) as u8, 0, packet as u8 + 1, 0], &filters[..]].concat()
    };
    (0..PACKETS).flat_map(packet).collect()
}

const DISCONNECT: [u8; 2] = [0xe0, 0];

/// The kind of a packet in its first byte.
const PUBLISH: u8 = 0x32;
const PUBLISH_AGAIN: u8 = 0x3a;

fn anna() -> ClientName {
    ClientName { user: None, client: "anna".into() }
}

impl Bench {
    /// A client that has said this.
    async fn mqtt(&mut self, words: &[u8]) -> TcpStream {
        let (mut client, socket) = self.connect(None);
        let admission = self.mqtt_admission(socket);
        self.driver.admit(admission);
        say(&mut client, 2, words);
        client
    }

    fn mqtt_admission(&self, socket: Socket) -> Admission {
        let row = &mqtt::SUBPROTOCOLS[0];
        let opening = Opening { session_expiry_max: HEARTBEAT, ..Opening::default() };
        Admission { codec: (row.codec)(opening), ..self.admission(row, socket) }
    }

    /// A client that has said this together with its request.
    fn mqtt_at_once(&mut self, socket: Socket, words: &[u8]) {
        let admission = Admission { leftover: frame_of(2, words), ..self.mqtt_admission(socket) };
        self.driver.admit(admission);
    }

    /// What is kept of the client's session, which is kept on.
    fn kept<R>(&self, look: impl FnOnce(&Kept) -> R) -> R {
        let sessions = &self.driver.shared.sessions;
        let Claimed::Now(Some(kept)) = sessions.claim(&anna(), &self.holder(1)) else { panic!("it is kept") };
        let seen = look(&kept);
        assert!(sessions.release(&anna(), &self.holder(1), Some(kept)).is_none());
        seen
    }

    /// A connection of another shard.
    fn holder(&self, shard: usize) -> Holder {
        Holder { shard, ticket: Ticket::of(SubscriberId(0)), controls: self.driver.controls.clone() }
    }

    /// The next packet that a client is sent, acknowledged where it is a message.
    async fn packet(&mut self, client: &mut TcpStream) -> Vec<u8> {
        client.set_nonblocking(true).unwrap();
        let there = |_: &mut Self| client.peek(&mut [0]).is_ok();
        self.serve_jobs_until("a packet comes", there).await;
        client.set_nonblocking(false).unwrap();
        binary(client)
    }

    /// A client that has begun a session and is subscribed to everything.
    async fn listening(&mut self) -> TcpStream {
        let mut client = self.mqtt(&[&connect(true)[..], &SUBSCRIBE].concat()).await;
        assert!(!self.is_welcome_again(&mut client).await);
        assert_eq!(self.packet(&mut client).await[0], 0x90);
        client
    }

    /// Whether the client was welcomed to a session that was there before.
    async fn is_welcome_again(&mut self, client: &mut TcpStream) -> bool {
        let connack = self.packet(client).await;
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:?}");
        connack[2] == 1
    }
}

fn binary(client: &mut TcpStream) -> Vec<u8> {
    let (opcode, payload) = raw_frame(client);
    assert_eq!(opcode, 2, "{payload:?}");
    payload
}

fn cursors(places: &BTreeMap<Pattern, Place>) -> BTreeMap<Pattern, JointCursor> {
    places.iter().map(|(pattern, place)| (pattern.clone(), place.after.clone())).collect()
}

/// Acknowledges a message at QoS 1.
fn acknowledge(client: &mut TcpStream, packet: &[u8]) {
    say(client, 2, &[0x40, 2, packet_id(packet)[0], packet_id(packet)[1]]);
}

/// Behind the length, in one or two bytes, and the topic.
fn packet_id(packet: &[u8]) -> [u8; 2] {
    let length_bytes = if packet[1] < 0x80 { 1 } else { 2 };
    let topic = &packet[1 + length_bytes..];
    let at = 2 + usize::from(topic[1]);
    [topic[at], topic[at + 1]]
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn what_was_not_acknowledged_and_what_came_meanwhile_comes_to_who_is_back() {
    run(async {
        let mut bench = Bench::new();
        let mut client = bench.listening().await;
        bench.publish(2);
        let first = bench.packet(&mut client).await;
        let second = bench.packet(&mut client).await;
        assert_eq!((first[0], second[0]), (PUBLISH, PUBLISH));
        acknowledge(&mut client, &first);
        bench.serve_jobs().await;
        drop(client);
        bench.serve_jobs_until("it is gone", |bench| bench.driver.open == 0).await;
        assert_eq!(bench.driver.shared.sessions.kept().sessions, 1);
        bench.publish(1);
        bench.serve_jobs().await;
        let mut client = bench.mqtt(&connect(false)).await;
        assert!(bench.is_welcome_again(&mut client).await);
        let again = bench.packet(&mut client).await;
        assert_eq!((again[0], packet_id(&again)), (PUBLISH_AGAIN, packet_id(&second)));
        let third = bench.packet(&mut client).await;
        assert_eq!(third[0], PUBLISH);
        assert_ne!(packet_id(&third), packet_id(&second), "that is in use");
        for packet in [&again, &third] {
            acknowledge(&mut client, packet);
        }
        bench.publish(1);
        assert_eq!(bench.packet(&mut client).await[0], PUBLISH, "and it is live");
    })
    .await;
}

#[tokio::test]
async fn who_begins_anew_finds_nothing_and_a_second_connection_ends_the_first() {
    run(async {
        let mut bench = Bench::new();
        let mut first = bench.listening().await;
        let mut second = bench.mqtt(&connect(false)).await;
        assert!(bench.is_welcome_again(&mut second).await, "it goes over");
        let last = bench.packet(&mut first).await;
        assert_eq!((last[0], last[2]), (0xe0, 0x8e), "session taken over");
        bench.publish(1);
        assert_eq!(bench.packet(&mut second).await[0], PUBLISH);
        let mut third = bench.mqtt(&connect(true)).await;
        assert!(!bench.is_welcome_again(&mut third).await);
        say(&mut third, 2, &DISCONNECT);
        drop((first, second, third));
        bench.serve_jobs_until("all are gone", |bench| bench.driver.open == 0).await;
        assert_eq!(bench.driver.shared.sessions.kept().sessions, 1, "of the last");
    })
    .await;
}

/// However much that is beside the bounds of what waits for a slow reader.
#[tokio::test]
async fn all_that_was_not_acknowledged_comes_again() {
    const MESSAGES: usize = 35;
    run(async {
        let mut bench = Bench::new();
        let mut first = bench.listening().await;
        bench.feed.append((0..MESSAGES).map(|_| draft("news", 30_000)).collect(), 0);
        let mut sent = Vec::new();
        for _ in 0..MESSAGES {
            sent.push(packet_id(&bench.packet(&mut first).await));
        }
        drop(first);
        bench.serve_jobs_until("it is gone", |bench| bench.driver.open == 0).await;
        let mut second = bench.mqtt(&connect(false)).await;
        assert!(bench.is_welcome_again(&mut second).await);
        for id in sent {
            let again = bench.packet(&mut second).await;
            assert_eq!((again[0], packet_id(&again)), (PUBLISH_AGAIN, id));
        }
    })
    .await;
}

/// Also where its client says nothing more than that it is back, and its line before still stands.
#[tokio::test]
async fn who_takes_its_session_over_is_sent_all_at_once() {
    run(async {
        let mut bench = Bench::new();
        let mut first = bench.listening().await;
        bench.publish(1);
        let unanswered = bench.packet(&mut first).await;
        let mut second = bench.mqtt(&connect(false)).await;
        assert!(bench.is_welcome_again(&mut second).await);
        assert_eq!(packet_id(&bench.packet(&mut second).await), packet_id(&unanswered));
        bench.publish(1);
        assert_eq!(bench.packet(&mut second).await[0], PUBLISH, "and what comes then");
    })
    .await;
}

#[tokio::test]
async fn many_that_come_at_once_have_it_one_after_the_other() {
    run(async {
        let mut bench = Bench::new();
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(bench.mqtt(&connect(false)).await);
        }
        let mut last = clients.pop().unwrap();
        bench.is_welcome_again(&mut last).await;
        bench
            .serve_jobs_until("the others are gone", |bench| {
                bench
                    .driver
                    .slots
                    .iter()
                    .filter_map(|slot| slot.connection.as_ref())
                    .filter(|one| one.is_open())
                    .count()
                    == 1
            })
            .await;
        drop((clients, last));
        bench.serve_jobs_until("all are gone", |bench| bench.driver.open == 0).await;
        assert_eq!(bench.driver.shared.sessions.kept().sessions, 1);
    })
    .await;
}

/// It is not published when the client is back in time, and at once when that lets the session end.
#[tokio::test]
async fn a_will_waits_as_long_as_its_client_may_come_back() {
    run(async {
        let mut bench = Bench::new();
        let mut wills = Vec::new();
        for anew in [false, true] {
            let mut client = bench.mqtt(&connect_with_will(30)).await;
            bench.is_welcome_again(&mut client).await;
            drop(client);
            bench.serve_jobs_until("it is gone", |bench| bench.driver.open == 0).await;
            assert!(bench.jobs.publishes.try_recv().is_err(), "it waits");
            let mut client = bench.mqtt(&connect(anew)).await;
            assert_eq!(bench.is_welcome_again(&mut client).await, !anew);
            say(&mut client, 2, &DISCONNECT);
            bench.serve_jobs_until("it is gone", |bench| bench.driver.open == 0).await;
            bench.serve_jobs().await;
            let will = bench.jobs.publishes.try_recv().ok();
            wills.push(will.map(|job| job.message.topic.to_string()));
        }
        assert_eq!(wills, [None, Some("w".to_owned())]);
    })
    .await;
}

/// What the new connection says of the topic stands [MQTT-3.1.4-3], however long the old line hangs.
#[tokio::test]
async fn a_will_comes_before_all_that_the_next_connection_publishes() {
    const PUBLISH_BACK: [u8; 9] = [0x30, 7, 0, 1, b'w', 0, b'i', b's', b' '];
    run(async {
        let mut bench = Bench::new();
        let mut first = bench.mqtt(&connect_with_will(0)).await;
        bench.is_welcome_again(&mut first).await;
        let mut second = bench.mqtt(&connect(false)).await;
        assert!(bench.is_welcome_again(&mut second).await);
        say(&mut second, 2, &PUBLISH_BACK);
        let mut payloads = Vec::new();
        let published = |bench: &mut Bench| {
            payloads.extend(bench.jobs.publishes.try_recv().map(|job| job.message.payload));
            payloads.len() == 2
        };
        bench.serve_jobs_until("both are published", published).await;
        assert_eq!(payloads, [&b"gone"[..], b"is "]);
        assert_eq!(bench.driver.open, 2, "the first has not answered yet");
    })
    .await;
}

/// What came while it was away would be lost, and nothing would say so.
#[tokio::test]
async fn who_is_gone_again_before_it_is_welcome_finds_its_place_the_next_time() {
    run(async {
        let mut bench = Bench::new();
        let client = bench.listening().await;
        drop(client);
        bench.serve_jobs_until("it is gone", |bench| bench.driver.open == 0).await;
        bench.publish(1);
        let (client, socket) = bench.connect(None);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        bench.mqtt_at_once(socket, &connect(false));
        assert_eq!((bench.driver.open, bench.driver.shared.sessions.kept().sessions), (0, 1), "it is gone again");
        let mut client = bench.mqtt(&connect(false)).await;
        assert!(bench.is_welcome_again(&mut client).await);
        assert_eq!(bench.packet(&mut client).await[0], PUBLISH);
    })
    .await;
}

/// Another connection may come while the one before still asks for what was left to it.
#[tokio::test]
async fn places_that_were_not_asked_for_yet_stay_what_they_were() {
    run(async {
        let mut bench = Bench::new();
        let (mut client, socket) = bench.connect(None);
        bench.mqtt_at_once(socket, &[connect(true), subscribe_to_many()].concat());
        assert!(!bench.is_welcome_again(&mut client).await);
        for _ in 0..PACKETS {
            assert_eq!(bench.packet(&mut client).await[0], 0x90);
        }
        drop(client);
        bench.serve_jobs_until("it is gone", |bench| bench.driver.open == 0).await;
        let before = bench.kept(|kept| cursors(&kept.places));
        assert_eq!(before.len(), MANY);
        bench.publish(1);
        bench.serve_jobs().await;
        let (_client, socket) = bench.connect(None);
        bench.mqtt_at_once(socket, &connect(false));
        let left = cursors(&bench.connection().left);
        assert!(!left.is_empty() && left.len() < MANY, "{} are left", left.len());
        let ticket = bench.driver.ticket(SubscriberId(0));
        bench.driver.yield_to_another(ticket, oneshot::channel().0);
        let after = bench.kept(|kept| cursors(&kept.places));
        assert_eq!(after.len(), MANY);
        for pattern in left.keys() {
            assert_eq!(after[pattern], before[pattern]);
        }
    })
    .await;
}

/// It is not the shard that keeps it, nor for a time.
#[tokio::test]
async fn what_is_kept_stays_bound_until_the_session_has_ended() {
    run(async {
        // So many that none are folded.
        let bindings_max = 3 * MANY;
        let on_demand = BindingMode::OnDemand { kind: BindingKind::Topic, linger: Duration::ZERO, bindings_max };
        let mut bench = Bench::of(vec![source(0, "a", on_demand)]);
        bench.feed.link_up();
        let unbound = |bench: &Bench| bench.feed.interest().plan(Instant::now()).unbind.len();
        let (mut client, socket) = bench.connect(None);
        bench.mqtt_at_once(socket, &[connect(true), subscribe_to_many()].concat());
        assert!(!bench.is_welcome_again(&mut client).await);
        let is_bound = |bench: &mut Bench| {
            bench.bind();
            bench.feed.interest().bindings() == MANY + 1
        };
        bench.serve_jobs_until("all is bound, with what is retained", is_bound).await;
        for _ in 0..PACKETS {
            assert_eq!(bench.packet(&mut client).await[0], 0x90);
        }
        drop(client);
        bench.serve_jobs_until("it is gone", |bench| bench.driver.open == 0).await;
        assert_eq!(unbound(&bench), 0, "while it is away");
        let (client, socket) = bench.connect(None);
        bench.mqtt_at_once(socket, &connect(false));
        assert!(!bench.connection().left.is_empty());
        assert_eq!(unbound(&bench), 0, "while it asks for what it had");
        bench.serve_jobs_until("it has asked", |bench| bench.connection().left.is_empty()).await;
        assert_eq!(unbound(&bench), 0);
        drop(client);
        bench.serve_jobs_until("it is gone", |bench| bench.driver.open == 0).await;
        let mut client = bench.mqtt(&connect(true)).await;
        assert!(!bench.is_welcome_again(&mut client).await);
        assert_eq!(unbound(&bench), MANY, "it begins anew");
    })
    .await;
}

/// Otherwise it would wait for a client that is gone, and be kept for ever.
#[tokio::test]
async fn a_will_that_is_due_while_its_session_passes_is_published_when_the_claimant_is_gone() {
    run(async {
        let mut bench = Bench::new();
        let sessions = bench.driver.shared.sessions.clone();
        let [first, second] = [1, 2].map(|shard| bench.holder(shard));
        sessions.claim(&anna(), &first);
        sessions.claim(&anna(), &second);
        let now = Instant::now();
        let will = Outgoing::new(Topic::parse("w").unwrap(), Bytes::new());
        let upstream = bench.driver.shared.upstream.clone();
        let attending = tokio::task::spawn_local(claiming::attend(sessions.clone(), upstream, anna(), now));
        let timer = attending.abort_handle();
        let left =
            Kept { memory: Memory::empty(), places: BTreeMap::new(), expires_at: now, will: Some((now, will)), timer };
        sessions.release(&anna(), &first, Some(Box::new(left)));
        bench.serve_jobs().await;
        assert!(bench.jobs.publishes.try_recv().is_err(), "its client is there");
        sessions.abandon(&anna(), &second);
        let job = tokio::time::timeout(PATIENCE, bench.jobs.publishes.recv()).await.unwrap();
        assert_eq!(job.map(|job| job.message.topic.to_string()).as_deref(), Some("w"));
        tokio::time::timeout(PATIENCE, attending).await.unwrap().unwrap();
        assert_eq!(sessions.kept(), Count::default());
    })
    .await;
}
