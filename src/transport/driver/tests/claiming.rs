//! Sessions that outlive their connections, over real sockets.

use tokio::task::LocalSet;

use super::*;
use crate::model::outgoing::Outgoing;
use crate::protocol::mqtt::{self, Memory};
use crate::session::ClientName;
use crate::transport::driver::claiming;
use crate::transport::sessions::{Holder, Kept};

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

const DISCONNECT: [u8; 2] = [0xe0, 0];

/// The kind of a packet in its first byte.
const PUBLISH: u8 = 0x32;
const PUBLISH_AGAIN: u8 = 0x3a;

impl Bench {
    /// A client that has said this.
    async fn mqtt(&mut self, words: &[u8]) -> TcpStream {
        let (mut client, socket) = self.connect(None);
        let row = &mqtt::SUBPROTOCOLS[0];
        let opening = Opening { session_expiry_max: HEARTBEAT, ..Opening::default() };
        let admission = Admission { codec: (row.codec)(opening), ..self.admission(row, socket) };
        self.driver.admit(admission);
        say(&mut client, 2, words);
        client
    }

    /// The next packet that a client is sent, acknowledged where it is a message.
    async fn packet(&mut self, client: &mut TcpStream) -> Vec<u8> {
        client.set_nonblocking(true).unwrap();
        let there = |_: &mut Self| client.peek(&mut [0]).is_ok();
        self.serve_jobs_until("a packet comes", there).await;
        client.set_nonblocking(false).unwrap();
        binary(client)
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
        let mut client = bench.mqtt(&[&connect(true)[..], &SUBSCRIBE].concat()).await;
        assert!(!bench.is_welcome_again(&mut client).await);
        assert_eq!(bench.packet(&mut client).await[0], 0x90);
        bench.publish(2);
        let first = bench.packet(&mut client).await;
        let second = bench.packet(&mut client).await;
        assert_eq!((first[0], second[0]), (PUBLISH, PUBLISH));
        acknowledge(&mut client, &first);
        bench.serve_jobs().await;
        drop(client);
        bench.serve_jobs_until("it is gone", |bench| bench.driver.open == 0).await;
        assert_eq!(bench.driver.shared.sessions.kept(), 1);
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
        let mut first = bench.mqtt(&[&connect(true)[..], &SUBSCRIBE].concat()).await;
        assert!(!bench.is_welcome_again(&mut first).await);
        assert_eq!(bench.packet(&mut first).await[0], 0x90);
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
        assert_eq!(bench.driver.shared.sessions.kept(), 1, "of the last");
    })
    .await;
}

/// However much that is beside the bounds of what waits for a slow reader.
#[tokio::test]
async fn all_that_was_not_acknowledged_comes_again() {
    const MESSAGES: usize = 35;
    run(async {
        let mut bench = Bench::new();
        let mut first = bench.mqtt(&[&connect(true)[..], &SUBSCRIBE].concat()).await;
        assert!(!bench.is_welcome_again(&mut first).await);
        assert_eq!(bench.packet(&mut first).await[0], 0x90);
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
        let mut first = bench.mqtt(&[&connect(true)[..], &SUBSCRIBE].concat()).await;
        assert!(!bench.is_welcome_again(&mut first).await);
        assert_eq!(bench.packet(&mut first).await[0], 0x90);
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
        assert_eq!(bench.driver.shared.sessions.kept(), 1);
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

/// Otherwise it would wait for a client that is gone, and be kept for ever.
#[tokio::test]
async fn a_will_that_is_due_while_its_session_passes_is_published_when_the_claimant_is_gone() {
    run(async {
        let mut bench = Bench::new();
        let sessions = bench.driver.shared.sessions.clone();
        let name = ClientName { user: None, client: "anna".into() };
        let holder =
            |shard| Holder { shard, ticket: Ticket::of(SubscriberId(0)), controls: bench.driver.controls.clone() };
        let [first, second] = [holder(0), holder(1)];
        sessions.claim(&name, &first);
        sessions.claim(&name, &second);
        let now = Instant::now();
        let will = Outgoing::new(Topic::parse("w").unwrap(), Bytes::new());
        let upstream = bench.driver.shared.upstream.clone();
        let attending = tokio::task::spawn_local(claiming::attend(sessions.clone(), upstream, name.clone(), now));
        let timer = attending.abort_handle();
        let left = Kept { memory: Memory::empty(), places: vec![], expires_at: now, will: Some((now, will)), timer };
        sessions.release(&name, &first, Some(Box::new(left)));
        bench.serve_jobs().await;
        assert!(bench.jobs.publishes.try_recv().is_err(), "its client is there");
        sessions.abandon(&name, &second);
        let job = tokio::time::timeout(PATIENCE, bench.jobs.publishes.recv()).await.unwrap();
        assert_eq!(job.map(|job| job.message.topic.to_string()).as_deref(), Some("w"));
        tokio::time::timeout(PATIENCE, attending).await.unwrap().unwrap();
        assert_eq!(sessions.kept(), 0);
    })
    .await;
}
