//! Clients that go while there is still something to be done for them.

use tokio::task::LocalSet;

use super::answers::loading;
use super::*;
use crate::model::outgoing::PublishOutcome;
use crate::protocol::{mqtt, raw};
use crate::session::ConsumeKey;

/// A raw client that may have one publish in flight, has one, and has said more.
async fn held_up() -> (Bench, TcpStream) {
    let mut settings = Settings::default();
    settings.limits.publishes_in_flight_max = 1;
    let mut bench = Bench::with(settings);
    bench.feed.link_up_bound(Instant::now());
    let (mut client, socket) = bench.connect(None);
    let publish = Topic::parse("a").ok();
    let codec = (raw::SUBPROTOCOL.codec)(Opening { publish, ..Opening::default() });
    bench.driver.admit(Admission { codec, ..bench.admission(&raw::SUBPROTOCOL, socket) });
    for text in ["1", "2", "3"] {
        say(&mut client, 1, text.as_bytes());
    }
    bench.serve_jobs_until("it is not read", |bench| !bench.connection().session.reading()).await;
    (bench, client)
}

/// It gives up what it holds at once, and what it has said counts.
#[tokio::test]
async fn who_hangs_up_while_it_is_not_read_holds_no_delivery_back() {
    let test = async {
        let (mut bench, client) = held_up().await;
        let (orders, mut consumed) = mpsc::channel(1);
        bench.connection().consumptions.push((ConsumeKey(0), orders));
        drop(client);
        let is_given_up = |_: &mut Bench| consumed.try_recv() == Err(mpsc::error::TryRecvError::Disconnected);
        bench.serve_jobs_until("it holds nothing", is_given_up).await;
        assert_eq!(bench.driver.open, 1, "there is more to be read");
        for text in ["1", "2", "3"] {
            let mut job = None;
            let take = |bench: &mut Bench| {
                job = bench.jobs.publishes.try_recv().ok();
                job.is_some()
            };
            bench.serve_jobs_until("it is published", take).await;
            let job = job.unwrap();
            assert_eq!(job.message.payload, text);
            job.outcome.tell(PublishOutcome::Confirmed { routed: true });
        }
        bench.serve_jobs_until("it is gone", |bench| bench.driver.open == 0).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn who_is_not_read_is_not_silent() {
    let test = async {
        let (mut bench, _client) = held_up().await;
        let now = Instant::now();
        for heartbeat in 1..5 {
            bench.driver.rounds(now + HEARTBEAT * heartbeat);
        }
        assert!(bench.connection().is_open());
    };
    LocalSet::new().run_until(test).await;
}

/// Nor is one whose protocol counts the seconds itself.
#[tokio::test]
async fn who_is_not_read_need_not_keep_its_promise() {
    const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x05\x02\0\x02\0\0\0";
    const PUBLISH: &[u8] = b"\x32\x07\0\x01a\0\x01\0x";
    let test = async {
        let mut settings = Settings::default();
        settings.limits.publishes_in_flight_max = 1;
        let mut bench = Bench::with(settings);
        let (mut client, socket) = bench.connect(None);
        bench.driver.admit(bench.admission(&mqtt::SUBPROTOCOLS[0], socket));
        say(&mut client, 2, &[CONNECT, PUBLISH].concat());
        bench.serve_jobs_until("it is not read", |bench| !bench.connection().session.reading()).await;
        let now = Instant::now();
        for second in 1..10 {
            bench.driver.rounds(now + Duration::from_secs(second));
        }
        assert!(bench.connection().is_open());
        bench.jobs.publishes.try_recv().unwrap().outcome.tell(PublishOutcome::Confirmed { routed: true });
        bench.serve_jobs_until("it is read", |bench| bench.connection().session.reading()).await;
        for second in 10..20 {
            bench.driver.rounds(now + Duration::from_secs(second));
        }
        assert_eq!(bench.driver.open, 0, "now it is silent");
    };
    LocalSet::new().run_until(test).await;
}

#[test]
fn who_closes_and_reads_nothing_more_is_let_go() {
    let (mut bench, mut client) = loading();
    say(&mut client.stream, 8, &1000_u16.to_be_bytes());
    let is_closing = |driver: &Driver| driver.slots[0].connection.as_deref().is_some_and(|one| !one.is_open());
    bench.serve_until("it is closing", is_closing);
    bench.driver.rounds(Instant::now() + FAREWELL);
    assert_eq!(bench.driver.open, 0);
}
