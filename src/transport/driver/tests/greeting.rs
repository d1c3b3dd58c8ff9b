//! A raw client is not told when it is subscribed: what it says before that is not taken, so that it comes back to it.

use tokio::task::LocalSet;

use super::*;
use crate::hub::feed::Meanwhile;
use crate::protocol::raw;

/// A raw client of `?pattern=chat&publish=chat` that speaks at once.
fn greet(bench: &mut Bench) -> TcpStream {
    let (mut client, socket) = bench.connect(None);
    say(&mut client, 1, b"hello");
    let chat = Topic::parse("chat").unwrap();
    let admission = Admission {
        codec: (raw::SUBPROTOCOL.codec)(Opening { publish: Some(chat), ..Opening::default() }),
        commands: vec![Command::Subscribe(Subscribe::to(Pattern::parse("chat").unwrap()))],
        ..bench.admission(&raw::SUBPROTOCOL, socket)
    };
    bench.driver.admit(admission);
    client
}

/// This is published, and nothing else is so far.
async fn published(bench: &mut Bench, expected: &[&str]) {
    let mut payloads = Vec::<Bytes>::new();
    let take = |bench: &mut Bench| {
        payloads.extend(std::iter::from_fn(|| bench.jobs.publishes.try_recv().ok()).map(|job| job.message.payload));
        payloads.len() >= expected.len()
    };
    bench.serve_jobs().await;
    bench.serve_jobs_until("it is published", take).await;
    assert_eq!(payloads, expected);
}

#[tokio::test]
async fn the_first_frame_is_published_when_the_subscription_stands() {
    let test = async {
        let mut bench = Bench::with(Settings::default());
        let mut client = greet(&mut bench);
        say(&mut client, 1, b"again");
        published(&mut bench, &[]).await;
        bench.feed.link_up_bound(Instant::now());
        published(&mut bench, &["hello", "again"]).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn it_waits_for_a_moment_only() {
    let test = async {
        let mut bench = Bench::with(Settings::default());
        let _client = greet(&mut bench);
        published(&mut bench, &[]).await;
        bench.driver.rounds(Instant::now() + GREETING);
        published(&mut bench, &["hello"]).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn while_the_broker_is_away_it_does_not_wait() {
    let test = async {
        let mut bench = Bench::new();
        bench.feed.link_down(Meanwhile::Lost);
        bench.serve();
        let _client = greet(&mut bench);
        published(&mut bench, &["hello"]).await;
    };
    LocalSet::new().run_until(test).await;
}
