//! The admin listener over real sockets, in front of a view made of constants.

use std::future::pending;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::view::{ConnectionRow, GapRow, Listing, NodePhase, OnOutage, Readiness, TopicRow};
use super::*;

/// A node with 3 connections and no topic; `phase` decides readiness.
struct Constant {
    phase: NodePhase,
}

impl AdminView for Constant {
    fn metrics(&self) -> String {
        "passerelle_build_info 1\n".into()
    }

    fn readiness(&self) -> Readiness {
        Readiness::of(self.phase, OnOutage::StayReady, [])
    }

    fn drain(&self) {}

    async fn connections(&self, limit: usize) -> Listing<ConnectionRow> {
        let row = |number: usize| ConnectionRow {
            connection: format!("c{number}"),
            user: "anonymous".into(),
            protocol: "passerelle.v1.json",
            transport: "websocket",
            address: None,
            client: None,
            since_ms: 7,
            patterns: vec!["orders.#".into()],
            subscriptions: 1,
            pending: 0,
            matched: 12,
            outbox_bytes: 0,
            last_gap: Some(GapRow {
                pattern: "orders.#".into(),
                source: "events".into(),
                reason: "outage",
                missed: None,
            }),
        };
        Listing { rows: (0..3.min(limit)).map(row).collect(), total: 3 }
    }

    async fn topics(&self, _limit: usize) -> Listing<TopicRow> {
        pending().await
    }
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start(listen: &str, phase: NodePhase) -> Running {
    start_patiently(listen, phase, Patience::default()).await
}

async fn start_patiently(listen: &str, phase: NodePhase, patience: Patience) -> Running {
    let listener = AdminListener::bind(listen.parse().unwrap()).await.unwrap();
    let port = listener.address().port();
    let stop = CancellationToken::new();
    let task = tokio::spawn(listener.serve_patiently(Arc::new(Constant { phase }), stop.clone(), patience));
    Running { address: SocketAddr::from(([127, 0, 0, 1], port)), stop, task }
}

/// Sends a text as it stands and reads until the peer closes.
async fn exchange(running: &Running, request: &str) -> String {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn ask(running: &Running, method: &str, target: &str) -> String {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    exchange(running, &request).await
}

#[track_caller]
fn holds(answer: &str, status: u16, piece: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(piece), "no `{piece}` in {answer}");
}

#[tokio::test]
async fn probes_and_metrics_are_answered() {
    let running = start("127.0.0.1:0", NodePhase::Serving).await;
    holds(&ask(&running, "GET", "/metrics").await, 200, "\r\n\r\npasserelle_build_info 1\n");
    holds(&ask(&running, "GET", "/metrics").await, 200, "content-type: text/plain; version=0.0.4");
    holds(&ask(&running, "GET", "/livez").await, 200, r#"{"live":true}"#);
    holds(&ask(&running, "GET", "/readyz").await, 200, r#"{"ready":true,"reasons":[]}"#);
    let head = ask(&running, "HEAD", "/livez").await;
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn a_draining_node_is_alive_but_not_ready() {
    let running = start("127.0.0.1:0", NodePhase::Draining).await;
    holds(&ask(&running, "GET", "/livez").await, 200, "live");
    holds(&ask(&running, "GET", "/readyz").await, 503, r#"{"ready":false,"reasons":["this node is draining"#);
}

#[tokio::test]
async fn lists_are_bounded() {
    let running = start("127.0.0.1:0", NodePhase::Serving).await;
    let all = ask(&running, "GET", "/api/v1/connections").await;
    holds(&all, 200, r#""connection":"c2""#);
    holds(&all, 200, r#""last_gap":{"missed":null,"pattern":"orders.#","reason":"outage","source":"events"}"#);
    let two = ask(&running, "GET", "/api/v1/connections?limit=2").await;
    holds(&two, 200, r#""total":3"#);
    assert!(!two.contains("\"c2\""), "{two}");
    for query in ["limit=0", "limit=10001", "limit=x", "limit", "offset=3"] {
        let answer = ask(&running, "GET", &format!("/api/v1/connections?{query}")).await;
        holds(&answer, 400, "10000");
    }
}

#[tokio::test]
async fn shards_that_do_not_answer_are_not_waited_for() {
    let patience = Patience { view: Duration::from_millis(1), ..Patience::default() };
    let running = start_patiently("127.0.0.1:0", NodePhase::Serving, patience).await;
    holds(&ask(&running, "GET", "/api/v1/topics").await, 503, "too busy");
}

#[tokio::test]
async fn what_is_not_here_is_said_in_json() {
    let running = start("127.0.0.1:0", NodePhase::Serving).await;
    holds(&ask(&running, "GET", "/").await, 404, r#""error":"not_found""#);
    holds(&ask(&running, "GET", "/api/v1/nothing").await, 404, "/api/v1/topics");
    let answer = ask(&running, "POST", "/metrics").await;
    holds(&answer, 405, "allow: GET, HEAD");
    holds(&answer, 405, r#""error":"method_not_allowed""#);
}

#[tokio::test]
async fn a_rebound_name_reads_nothing() {
    let running = start("127.0.0.1:0", NodePhase::Serving).await;
    let request = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    holds(&exchange(&running, request).await, 403, "not this machine's");
}

#[tokio::test]
async fn the_api_is_called_by_a_name_of_this_machine_wherever_the_listener_listens() {
    let running = start("0.0.0.0:0", NodePhase::Serving).await;
    holds(&ask(&running, "GET", "/api/v1/connections").await, 200, "connections");
    let named = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: node.example:8081\r\nConnection: close\r\n\r\n");
    holds(&exchange(&running, &named("/metrics")).await, 200, "passerelle_build_info");
    holds(&exchange(&running, &named("/api/v1/connections")).await, 403, "this machine only");
    holds(&exchange(&running, &named("/api/v1/nothing")).await, 403, "this machine only");
}

#[tokio::test]
async fn heads_have_limits() {
    let running = start("127.0.0.1:0", NodePhase::Serving).await;
    let flood = "X: y\r\n".repeat(HEAD_FIELDS_MAX + 1);
    let answer = exchange(&running, &format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{flood}\r\n")).await;
    holds(&answer, 431, "");
    let long = "y".repeat(2 * HEAD_BYTES_MAX);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    // The peer may close while we still write; only its answer counts.
    let _ = stream.write_all(format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {long}").as_bytes()).await;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 431");
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let patience = Patience { head: Duration::from_millis(20), ..Patience::default() };
    let running = start_patiently("127.0.0.1:0", NodePhase::Serving, patience).await;
    let answer = exchange(&running, "GET /livez HTTP/1.1\r\n").await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connection_does_not_live_for_ever() {
    let patience = Patience { connection: Duration::from_millis(20), ..Patience::default() };
    let running = start_patiently("127.0.0.1:0", NodePhase::Serving, patience).await;
    assert_eq!(exchange(&running, "").await, "");
}

#[tokio::test]
async fn stopping_ends_idle_connections() {
    let running = start("127.0.0.1:0", NodePhase::Serving).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start).await.unwrap();
    running.stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_told_in_words() {
    let running = start("127.0.0.1:0", NodePhase::Serving).await;
    let error = AdminListener::bind(running.address).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{} is in use: set admin.listen", running.address));
}
