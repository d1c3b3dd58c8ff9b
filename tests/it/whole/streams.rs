//! Stream sources: cursors that are good after a restart, on another node and when the log has long let go of what
//! follows, and those that are not.

use std::time::Duration;

use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, EventStream, Service};
use super::{Broker, own_host, word};
use crate::program::{PATIENCE, Program, until};
use crate::rabbit::Rabbit;

/// So many messages are more than a stream keeps in the test that has it cut.
const CUT_MESSAGES: u64 = 3_000;

/// A stream of a test's own on the shared broker, bound to `amq.topic` with `WORD.#`.
pub(super) struct Stream {
    pub(super) word: String,
    /// Its virtual host, and the address there.
    pub(super) host: String,
    pub(super) url: String,
    pub(super) service: Service,
}

impl Stream {
    pub(super) async fn new() -> Self {
        Self::at("/".into(), Rabbit::shared().url()).await
    }

    /// On a virtual host of its own.
    pub(super) async fn alone() -> Self {
        let (host, url) = own_host();
        Self::at(host, url).await
    }

    async fn at(host: String, url: String) -> Self {
        let service = Service::connect(&url).await;
        Self { word: word(), host, url, service }
    }

    /// What a program needs to declare it and read it; `more` wins.
    fn environment(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let key = |key: &str| format!("PASSERELLE_SOURCE__EVENTS__{key}");
        let mut all = vec![
            (key("STREAM"), self.word.clone()),
            (key("DECLARE"), "true".to_owned()),
            (key("EXCHANGE"), "amq.topic".to_owned()),
            (key("BINDINGS"), format!("[\"{}.#\"]", self.word)),
        ];
        all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all
    }

    pub(super) async fn serve(&self, more: &[(&str, &str)]) -> Program {
        self.serve_over(&self.url, more).await
    }

    /// Likewise, with another way to the broker.
    pub(super) async fn serve_over(&self, url: &str, more: &[(&str, &str)]) -> Program {
        let environment = self.environment(more);
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        let program = Program::start(Some(url), &environment);
        program.ready().await;
        program
    }

    /// A topic of the stream.
    pub(super) fn topic(&self, rest: &str) -> String {
        format!("{}.{rest}", self.word)
    }

    pub(super) async fn publish(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.service.publish(&self.topic(["even", "odd"][number as usize % 2]), &number.to_string()).await;
        }
    }

    /// Asks for everything after a cursor.
    async fn resume(&self, client: &mut Client, after: &Value) -> Value {
        let after = json!({ "events": after });
        client.ask(json!({ "op": "subscribe", "pattern": self.topic("#"), "after": after })).await
    }

    /// How many consumers there are on its virtual host: the broker lists those of streams with their channels only.
    fn consumers(&self) -> usize {
        let listed = Rabbit::shared().ctl(&["list_channels", "vhost", "consumer_count", "--no-table-headers"]);
        let ours = listed.lines().filter_map(|line| line.strip_prefix(&self.host));
        ours.map(|count| count.trim().parse::<usize>().expect("a number")).sum()
    }

    async fn delete(&self) {
        let deleted = self.service.channel.queue_delete(self.word.as_str().into(), QueueDeleteOptions::default());
        deleted.await.expect("the stream's end");
    }
}

/// The next messages, which must bear these numbers in this order; the cursor of the last.
async fn expect(client: &mut Client, numbers: std::ops::Range<u64>) -> Value {
    let mut cursor = Value::Null;
    for number in numbers {
        let message = client.news().await;
        assert_eq!((&message["op"], &message["data"]), (&json!("message"), &json!(number)), "{message}");
        cursor = message["cursor"].clone();
    }
    cursor
}

async fn expect_caught_up(client: &mut Client) {
    let news = client.news().await;
    assert_eq!(news["op"], "caught_up", "{news}");
}

/// A stream keeps no lists of what is in its messages' headers, and what we mark them with has to come back.
#[tokio::test(flavor = "multi_thread")]
async fn who_wants_no_echo_gets_none_from_a_stream() {
    let stream = Stream::new().await;
    let program = stream.serve(&[("PASSERELLE_AUTH__ANONYMOUS_PUBLISH", "true")]).await;
    let (mut own, mut other) = (Client::json(&program).await, Client::json(&program).await);
    own.subscribe(&stream.topic("a")).await;
    other.subscribe(&stream.topic("a")).await;
    for (number, echo) in [(1, false), (2, true)] {
        let publish = json!({ "op": "publish", "topic": stream.topic("a"), "data": number, "echo": echo });
        own.send(Message::text(publish.to_string())).await;
    }
    expect(&mut other, 1..3).await;
    let mut news = own.news().await;
    while news["op"] == "ok" {
        news = own.news().await;
    }
    assert_eq!(news["data"], json!(2), "{news}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_good_after_a_restart_and_on_another_node() {
    let stream = Stream::new().await;
    let first = stream.serve(&[]).await;
    let mut client = Client::json(&first).await;
    client.subscribe(&stream.topic("#")).await;
    stream.publish(0..100).await;
    let cursor = expect(&mut client, 0..100).await;
    drop((client, first));
    stream.publish(100..150).await;
    let second = stream.serve(&[("PASSERELLE_SERVER__SHARDS", "3")]).await;
    let third = stream.serve(&[]).await;
    // Ready is who stands in the stream, wherever; when the last message has come everything before it has.
    let mut live = Vec::new();
    for program in [&second, &third] {
        let mut client = Client::json(program).await;
        client.subscribe(&stream.topic("#")).await;
        live.push(client);
    }
    stream.publish(150..151).await;
    for client in &mut live {
        while client.news().await["data"] != 150 {}
    }
    for program in [&second, &third] {
        let mut client = Client::json(program).await;
        let subscribed = stream.resume(&mut client, &cursor).await;
        assert_eq!((&subscribed["op"], &subscribed["resumed"]), (&json!("subscribed"), &json!(true)), "{subscribed}");
        expect(&mut client, 100..151).await;
        expect_caught_up(&mut client).await;
    }
    let mut client = Client::json(&second).await;
    stream.resume(&mut client, &cursor).await;
    let cursor = expect(&mut client, 100..151).await;
    expect_caught_up(&mut client).await;
    stream.publish(151..160).await;
    assert_ne!(expect(&mut client, 151..160).await, cursor);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_has_let_go_comes_from_the_stream_and_once_for_all() {
    const ALL: u64 = 6_000;
    let stream = Stream::alone().await;
    let log = [("PASSERELLE_SOURCE__EVENTS__LOG__MESSAGES_MAX", "1024"), ("PASSERELLE_SERVER__SHARDS", "2")];
    let program = stream.serve(&log).await;
    let mut live = Client::json(&program).await;
    let start = live.subscribe(&stream.topic("#")).await["cursors"]["events"].clone();
    stream.publish(0..ALL).await;
    let mut cursors = vec![start];
    for number in 0..ALL {
        cursors.push(expect(&mut live, number..number + 1).await);
    }
    let fetches = async || program.metric("passerelle_stream_fetches_total{source=\"events\"}").await.unwrap();
    let one = {
        let mut client = Client::json(&program).await;
        let subscribed = stream.resume(&mut client, &cursors[0]).await;
        assert_eq!(subscribed["resumed"], true, "{subscribed}");
        expect(&mut client, 0..ALL).await;
        expect_caught_up(&mut client).await;
        fetches().await
    };
    // Five thousand messages in pages of a thousand.
    assert!((5.0..12.0).contains(&one), "{one} fetches");
    let resumed = (0..12).map(|number| {
        let (stream, program, cursors) = (&stream, &program, &cursors);
        async move {
            let from = number * 77;
            let mut client = Client::json(program).await;
            assert_eq!(stream.resume(&mut client, &cursors[from]).await["resumed"], true);
            expect(&mut client, from as u64..ALL).await;
            expect_caught_up(&mut client).await;
        }
    });
    futures_util::future::join_all(resumed).await;
    let all = fetches().await;
    assert!(all - one <= one, "one reader cost {one} fetches, twelve cost {}", all - one);
    // One reads what is live, one the answers to calls.
    until("the consumers for replays are gone", async || stream.consumers() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_that_no_stream_gave_are_told_as_a_gap_and_nothing_old_comes() {
    let stream = Stream::new().await;
    let program = stream.serve(&[]).await;
    let mut live = Client::json(&program).await;
    live.subscribe(&stream.topic("#")).await;
    stream.publish(0..20).await;
    let genuine = expect(&mut live, 0..20).await.as_str().unwrap().to_owned();
    let (epoch, position) = genuine.split_once('.').unwrap();
    let position = u64::from_str_radix(position, 36).unwrap();
    let of = |position: u64| format!("{epoch}.{}", base36(position));
    let forged = [
        of(position + 1),
        of(position - 1),
        of(position + (1 << 22)),
        of(position + (1 << 40)),
        of(u64::MAX),
        of(1),
        "zz.1".to_owned(),
        "1".to_owned(),
        "never a cursor".to_owned(),
    ];
    for (next, cursor) in (20..).zip(forged) {
        let mut client = Client::json(&program).await;
        let subscribed = stream.resume(&mut client, &json!(cursor)).await;
        assert_eq!((&subscribed["op"], &subscribed["resumed"]), (&json!("subscribed"), &json!(false)), "{cursor}");
        let gap = client.news().await;
        assert_eq!((&gap["op"], &gap["reason"]), (&json!("gap"), &json!("unknown_cursor")), "{cursor}");
        expect_caught_up(&mut client).await;
        stream.publish(next..next + 1).await;
        expect(&mut client, next..next + 1).await;
    }
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while digits.is_empty() || number > 0 {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap());
        number /= 36;
    }
    digits.iter().rev().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_is_recognised() {
    let stream = Stream::new().await;
    let program = stream.serve(&[]).await;
    let (mut live, mut gone) = (Client::json(&program).await, Client::json(&program).await);
    live.subscribe(&stream.topic("#")).await;
    gone.subscribe(&stream.topic("#")).await;
    stream.publish(0..30).await;
    let old = expect(&mut live, 0..30).await;
    expect(&mut gone, 0..30).await;
    drop(gone);
    stream.delete().await;
    assert_eq!(live.news().await["op"], "outage");
    // The program has declared it again; its clients are told of the gap, before anything new or the link's return.
    let mut told = vec![live.news().await, live.news().await];
    told.sort_by_key(|news| news["op"].to_string());
    assert_eq!((&told[0]["op"], &told[1]["op"]), (&json!("gap"), &json!("restored")), "{told:?}");
    assert_eq!((&told[0]["reason"], &told[0]["missed"]), (&json!("unknown_cursor"), &Value::Null));
    stream.publish(1000..1040).await;
    expect(&mut live, 1000..1040).await;
    let mut client = Client::json(&program).await;
    assert_eq!(stream.resume(&mut client, &old).await["resumed"], false);
    let gap = client.news().await;
    assert_eq!((&gap["op"], &gap["reason"]), (&json!("gap"), &json!("unknown_cursor")));
    expect_caught_up(&mut client).await;
    stream.publish(1040..1041).await;
    expect(&mut client, 1040..1041).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_stream_has_dropped_is_a_gap_of_unknown_size() {
    let stream = Stream::new().await;
    let small = [
        ("PASSERELLE_SOURCE__EVENTS__RETENTION_BYTES", "300 KiB"),
        ("PASSERELLE_SOURCE__EVENTS__LOG__MESSAGES_MAX", "1024"),
    ];
    let program = stream.serve(&small).await;
    let mut live = Client::json(&program).await;
    live.subscribe(&stream.topic("#")).await;
    stream.publish(0..1).await;
    let old = expect(&mut live, 0..1).await;
    drop((live, program));
    // RabbitMQ drops segments when it begins a new one: once all is confirmed it drops no more.
    let filling = "x".repeat(2_000);
    stream.service.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    for number in 0..CUT_MESSAGES {
        let body = json!({ "number": number, "filling": filling }).to_string();
        stream.service.publish(&stream.topic("even"), &body).await;
    }
    stream.service.channel.wait_for_confirms().await.expect("all are confirmed");
    // RabbitMQ 3.10 may send nothing of a stream that it has cut until something else is published; and of what there is by
    // now it may drop everything, when that begins a new segment.
    let beside = async {
        for number in CUT_MESSAGES.. {
            stream.service.publish(&stream.topic("even"), &json!({ "number": number }).to_string()).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = beside => {}
        () = resume_what_was_cut(&stream, &small, &old) => {}
    }
}

/// Resumes after a message that the stream has dropped.
async fn resume_what_was_cut(stream: &Stream, environment: &[(&str, &str)], old: &Value) {
    let program = stream.serve(environment).await;
    let mut client = Client::json(&program).await;
    let after = json!({ "events": old });
    let subscribed = client.ask(json!({ "op": "subscribe", "pattern": stream.topic("even"), "after": after })).await;
    assert_eq!(subscribed["resumed"], false, "{subscribed}");
    let gap = client.news().await;
    assert_eq!((&gap["op"], &gap["reason"], &gap["missed"]), (&json!("gap"), &json!("expired"), &Value::Null));
    let (mut next, mut last, mut caught_up) = (None, 0, 0);
    while last < CUT_MESSAGES || caught_up == 0 {
        let Ok(news) = tokio::time::timeout(PATIENCE / 2, client.news()).await else {
            let connections = program.get("/api/v1/connections").await;
            panic!("nothing after {last}, caught up {caught_up}: {connections}\n{}", program.get("/metrics").await);
        };
        match news["op"].as_str() {
            // It goes on dropping while it is read.
            Some("gap") => {
                assert_eq!(news["reason"], "expired", "{news}");
                next = None;
            }
            // The node may not know the end yet: the rest comes live.
            Some("caught_up") => caught_up += 1,
            _ => {
                let number = news["data"]["number"].as_u64().unwrap_or_else(|| panic!("no message: {news}"));
                assert!(number > last && next.is_none_or(|next| next == number), "{news} after {last}");
                (last, next) = (number, Some(number + 1));
            }
        }
    }
    assert_eq!(caught_up, 1, "it is told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_goes_on_at_another_node() {
    let stream = Stream::new().await;
    let (first, second) = (stream.serve(&[]).await, stream.serve(&[]).await);
    let query = format!("pattern={}.%23", stream.word);
    let mut events = EventStream::open(&first, &query, None).await;
    // The first event says that it stands.
    events.event().await;
    stream.publish(0..10).await;
    let mut id = None;
    for number in 0..10 {
        let message = events.message().await;
        assert_eq!(serde_json::from_str::<Value>(&message.data).unwrap()["data"], number);
        id = message.id;
    }
    drop((events, first));
    stream.publish(10..20).await;
    let mut events = EventStream::open(&second, &query, id.as_deref()).await;
    for number in 10..20 {
        let block = events.message().await;
        assert_eq!(serde_json::from_str::<Value>(&block.data).unwrap()["data"], number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_in_a_streams_place_is_named() {
    let queue = word();
    let service = Service::connect(&Rabbit::shared().url()).await;
    let (options, nothing) = (QueueDeclareOptions::default(), FieldTable::default());
    service.channel.queue_declare(queue.as_str().into(), options, nothing).await.expect("a queue");
    let mut program = Broker::Rabbit.start(&[("PASSERELLE_SOURCE__EVENTS__STREAM", &queue)]);
    program.said(&format!("'{queue}' is a queue and no stream: use queue = \"{queue}\", or name a stream"));
    let missing = word();
    let mut program = Broker::Rabbit.start(&[("PASSERELLE_SOURCE__EVENTS__STREAM", &missing)]);
    program.said(&format!("stream '{missing}' does not exist on vhost '/'"));
    assert!(program.get("/readyz").await.starts_with("HTTP/1.1 503"));
}
