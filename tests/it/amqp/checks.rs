//! `check --connect`: what it finds at the broker, and that it leaves everything there as it is.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use passerelle::config::{
    Bindings, Consume, Input, Presence, QueueInput, Secret, Settings, Source, StreamInput, Supply,
};
use passerelle::model::queue::QueueTemplate;
use passerelle::model::topic::Pattern;
use passerelle::source::amqp;

use super::bridge::*;
use super::embedded::Running;
use crate::rabbit::Rabbit;

fn stream_source(name: &str, input: StreamInput) -> Source {
    Source { name: name.into(), input: Input::Stream(input), ..Source::events() }
}

fn declared(queue: &str) -> QueueInput {
    QueueInput { queue: queue.into(), shared: false, declare: true }
}

fn consumed(name: &str, queue: &str, expires: Option<Duration>) -> Consume {
    Consume {
        name: name.into(),
        queue: QueueTemplate::parse(queue).unwrap(),
        declare: expires.is_some(),
        expires,
        prefetch_max: 1,
        hold_max: Duration::from_secs(60),
    }
}

/// As somebody of their own, who may do everything until something else is said.
fn as_user(rabbit: &Rabbit, settings: &mut Settings) -> String {
    let user = unique("user");
    rabbit.ctl(&["add_user", &user, "secret"]);
    rabbit.ctl(&["set_permissions", &user, ".*", ".*", ".*"]);
    settings.amqp.urls = vec![Secret::new(rabbit.url_as(&format!("{user}:secret"), "%2f"))];
    user
}

/// Each finding's key, and that it says this.
async fn finds(settings: &Settings, expected: &[(&str, &str)]) {
    let found = amqp::check(settings).await;
    let matches = found.iter().zip(expected);
    let says = matches.into_iter().all(|(found, (key, words))| found.key == *key && found.message.contains(words));
    assert!(says && found.len() == expected.len(), "{found:#?}");
}

/// A node on another's embedded broker has none to read.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_looked_for_at_a_broker_that_can_have_none() {
    let running = Running::start();
    let stream = StreamInput { declare: true, ..StreamInput::new("s") };
    let mut settings = Settings { sources: vec![stream_source("s", stream)], ..Settings::default() };
    settings.amqp.urls = vec![Secret::new(format!("amqp://guest:guest@{}", running.address))];
    let says = format!("stream 's' needs RabbitMQ, and at {} is an embedded broker", running.address);
    finds(&settings, &[("source.s", &says)]).await;
    running.stop().await;
}

/// A stream that is not there yet is not made to see whether it can be.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_may_not_be_declared_is_named_and_none_is_made() {
    let rabbit = Rabbit::shared();
    let name = unique("stream");
    let stream = StreamInput { declare: true, ..StreamInput::new(&name) };
    let mut settings = settings(rabbit, vec![stream_source("s", stream)]);
    let user = as_user(rabbit, &mut settings);
    finds(&settings, &[]).await;
    rabbit.ctl(&["set_permissions", &user, "^passerelle", ".*", ".*"]);
    finds(&settings, &[("source.s", &format!("may not use stream '{name}"))]).await;
    let listed = rabbit.ctl(&["list_queues", "name", "--no-table-headers"]);
    assert!(listed.lines().all(|each| each != name), "{listed}");
}

/// An exchange that goes with its last binding goes with one that is made to see whether it can be.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_deletes_itself_outlives_the_check() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let exchange = unique("topic");
    let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
    let (name, kind) = (exchange.as_str(), ExchangeKind::Topic);
    client.channel.exchange_declare(name.into(), kind.clone(), options, FieldTable::default()).await.unwrap();
    finds(&settings(rabbit, vec![exchange_source("events", name)]), &[]).await;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    client.channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await.expect("it is there");
}

/// What some clients will be refused is no mistake; what the source itself binds is.
#[tokio::test(flavor = "multi_thread")]
async fn rights_on_topics_are_looked_at_where_the_source_names_them() {
    let rabbit = Rabbit::shared();
    let mut list = exchange_source("list", "amq.topic");
    exchange_input(&mut list).bindings =
        Bindings::List(["orders.#", "news.#"].map(|text| Pattern::parse(text).unwrap()).into());
    let mut settings = settings(rabbit, vec![exchange_source("demand", "amq.topic"), list]);
    settings.auth.anonymous_publish = Some(true);
    let user = as_user(rabbit, &mut settings);
    rabbit.ctl(&["set_topic_permissions", &user, "amq.topic", "^orders\\.", "^orders\\."]);
    finds(&settings, &[("source.list", "access to topic 'news.#'")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_otherwise_than_it_is_declared_is_named() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let [queue, stream, direct, moved, work, topic, missing] =
        ["queue", "stream", "direct", "moved", "work", "topic", "missing"].map(unique);
    client.queue(&queue).await;
    client.queue(&work).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(stream.as_str().into(), options, arguments).await.unwrap();
    client.exchange(&direct, ExchangeKind::Direct).await;
    client.exchange(&moved, ExchangeKind::Topic).await;
    client.exchange(&topic, ExchangeKind::Topic).await;
    let mut exchange = exchange_source("x", &direct);
    exchange_input(&mut exchange).declare = true;
    let relayed = StreamInput { supply: Supply::Queue(declared(&missing)), declare: true, ..StreamInput::new(&moved) };
    let mut settings = settings(
        rabbit,
        vec![
            Source { input: Input::Queue(declared(&queue)), ..queue_source("q", &queue) },
            stream_source("s", StreamInput { declare: true, ..StreamInput::new(&stream) }),
            exchange,
            stream_source("moves", relayed),
        ],
    );
    settings.consume = vec![consumed("c", &work, Some(Duration::from_secs(60)))];
    settings.amqp.presence_exchange = topic.clone();
    let pattern = Pattern::parse("#").unwrap();
    settings.presences.0 = vec![Presence { name: "p".into(), pattern, join_leave: false, members_max: 1 }];
    let expected = [
        ("source.q", "exists on vhost '/' with other settings: remove source.q.declare"),
        ("source.s", "exists on vhost '/' with other settings: correct source.s.retention_age"),
        ("source.x", "exists on vhost '/' with other settings: correct source.x.type"),
        ("source.moves", "is no durable fanout exchange: name the stream otherwise"),
        ("consume.c", "exists on vhost '/' with other settings: remove consume.c.declare"),
        ("amqp.presence_exchange", "is no durable fanout exchange: name another in amqp.presence_exchange"),
    ];
    finds(&settings, &expected).await;
    let listed = rabbit.ctl(&["list_queues", "name", "--no-table-headers"]);
    assert!(listed.lines().all(|name| name != missing && name != moved), "nothing was declared: {listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_or_written_is_named() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let [queue, work, open, internal] = ["queue", "work", "open", "internal"].map(unique);
    client.queue(&queue).await;
    client.queue(&work).await;
    client.exchange(&open, ExchangeKind::Topic).await;
    let options = ExchangeDeclareOptions { internal: true, durable: true, ..ExchangeDeclareOptions::default() };
    let kind = ExchangeKind::Topic;
    client.channel.exchange_declare(internal.as_str().into(), kind, options, FieldTable::default()).await.unwrap();
    let mut settings = settings(rabbit, vec![queue_source("q", &queue)]);
    settings.consume = vec![consumed("c", &work, None)];
    settings.publish.exchange = open.clone();
    let user = as_user(rabbit, &mut settings);
    finds(&settings, &[]).await;
    settings.auth.anonymous_publish = Some(true);
    finds(&settings, &[]).await;
    settings.publish.exchange = internal;
    finds(&settings, &[("publish.exchange", "may not publish to exchange 'internal")]).await;
    settings.publish.exchange = open;
    rabbit.ctl(&["set_permissions", &user, ".*", "^passerelle|^amq.default$", "^passerelle"]);
    let expected = [
        ("source.q", "may not use queue"),
        ("consume.c", "may not use queue"),
        ("publish.exchange", "may not publish to exchange 'open"),
    ];
    finds(&settings, &expected).await;
    settings.auth.anonymous_publish = None;
    finds(&settings, &expected[..2]).await;
}
