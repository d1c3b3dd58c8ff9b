//! What happens when the broker is killed, frozen, out of memory or unwilling.

use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, ExchangeKind};
use passerelle::config::{self, Bindings, Secret};
use passerelle::hub::interest::Standing;
use passerelle::model::gap::GapReason;
use passerelle::model::outgoing::{CallOutcome, Outgoing, PublishOutcome, Request};
use passerelle::model::queue::QueueTemplate;
use passerelle::model::topic::Pattern;
use passerelle::source::amqp;

use super::bridge::*;
use crate::rabbit::{Rabbit, connect};

/// Publishes until an answer of this kind comes.
async fn publish_until(bridge: &Bridge, topic: &str, wanted: impl Fn(&PublishOutcome) -> bool) -> PublishOutcome {
    repeat_until(bridge, &outgoing(topic, "x"), wanted).await
}

async fn repeat_until(bridge: &Bridge, message: &Outgoing, wanted: impl Fn(&PublishOutcome) -> bool) -> PublishOutcome {
    let publishing = async {
        loop {
            let outcome = bridge.upstream.publish(message.clone()).await;
            if wanted(&outcome) {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, publishing).await.expect("the answer that is waited for")
}

fn is_confirmed(outcome: &PublishOutcome) -> bool {
    matches!(outcome, PublishOutcome::Confirmed { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_restarted_under_load_everything_comes_back_and_the_loss_is_told() {
    let rabbit = Rabbit::start();
    let client = Client::connect(&rabbit).await;
    client.exchange("x", ExchangeKind::Topic).await;
    client.queue("q").await;
    let mut settings = settings(&rabbit, vec![exchange_source("events", "x"), queue_source("work", "q")]);
    settings.publish.exchange = "x".into();
    settings.publish.timeout = Duration::from_secs(30);
    let bridge = Bridge::start(&settings);
    let _claims = (bridge.claim("events", "a.#").await, bridge.claim("work", "#").await);
    publish_until(&bridge, "a.b", is_confirmed).await;
    bridge.received("events", 1).await;
    let call = Request { message: outgoing("q", "asks"), timeout: Duration::from_secs(60) };
    let (upstream, mut load) = (bridge.upstream.clone(), tokio::task::JoinSet::new());
    for _ in 0..8 {
        let upstream = upstream.clone();
        load.spawn(async move {
            loop {
                match upstream.publish(outgoing("a.load", "x")).await {
                    PublishOutcome::Confirmed { .. } => {}
                    outcome => return outcome,
                }
            }
        });
    }
    let waiting = tokio::spawn(async move { upstream.call(call).await });
    bridge.received("work", 1).await;
    rabbit.kill();
    while let Some(outcome) = load.join_next().await {
        assert!(matches!(outcome.unwrap(), PublishOutcome::Unavailable(_)), "each publish in flight is answered");
    }
    assert!(matches!(waiting.await.unwrap(), CallOutcome::Unavailable(_)), "and so is each call");
    until("the outage is told", || !bridge.source("events").link().up && !bridge.source("work").link().up).await;
    bridge.complains("nothing listens").await;
    assert!(bridge.readiness.reasons().iter().all(|reason| reason.outage));
    let down = bridge.upstream.publish(outgoing("a.b", "x")).await;
    assert!(matches!(down, PublishOutcome::Unavailable(_)), "{down:?}");
    let before = bridge.log("events").len();
    rabbit.run();
    bridge.ready().await;
    let client = Client::connect(&rabbit).await;
    let _again = bridge.claim("events", "a.again").await;
    client.publish("x", "a.again", "again").await;
    client.publish("", "q", "kept").await;
    assert_eq!(bridge.received("events", before + 1).await.last().unwrap(), "again");
    until("the queue's message comes", || bridge.payloads("work").last().is_some_and(|last| last == "kept")).await;
    assert_eq!(bridge.holes("events"), [(GapReason::Outage, None)]);
    assert_eq!(bridge.holes("work"), [], "the queue kept its messages");
    assert_eq!((bridge.source("events").link().changes, bridge.source("work").link().changes), (3, 3));
    publish_until(&bridge, "a.b", is_confirmed).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_out_of_memory_refuses_publishes_and_still_delivers() {
    let rabbit = Rabbit::start();
    let client = Client::connect(&rabbit).await;
    client.exchange("x", ExchangeKind::Topic).await;
    client.queue("q").await;
    client.publish_numbers("", "q", 0..100).await;
    let mut settings = settings(&rabbit, vec![exchange_source("events", "x")]);
    settings.publish.exchange = "x".into();
    let bridge = Bridge::start(&settings);
    let _claim = bridge.claim("events", "#").await;
    publish_until(&bridge, "a", is_confirmed).await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "absolute", "1000"]);
    // The broker says so to whoever publishes; from then on the answer comes at once.
    let says = |outcome: &PublishOutcome| matches!(outcome, PublishOutcome::Unavailable(why) if why.contains("accepts no messages now"));
    publish_until(&bridge, "a", says).await;
    for _ in 0..100 {
        assert!(says(&bridge.upstream.publish(outgoing("a", "x")).await));
    }
    assert!(bridge.source("events").link().up, "the connection that consumes is not concerned");
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    publish_until(&bridge, "a", is_confirmed).await;
    // Stopping while blocked must end too.
    rabbit.ctl(&["set_vm_memory_high_watermark", "absolute", "1000"]);
    publish_until(&bridge, "a", says).await;
    bridge.stop().await;
}

/// The broker takes it when it reads on: nobody may be told that it was not taken, and who repeats it must not double it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_to_a_broker_that_stopped_reading_is_in_doubt_and_arrives_once() {
    let rabbit = Rabbit::start();
    let client = Client::connect(&rabbit).await;
    client.exchange("x", ExchangeKind::Topic).await;
    let mut settings = settings(&rabbit, vec![exchange_source("events", "x")]);
    settings.publish.exchange = "x".into();
    settings.publish.timeout = Duration::from_secs(1);
    let bridge = Bridge::start(&settings);
    let _claim = bridge.claim("events", "a").await;
    publish_until(&bridge, "warm", is_confirmed).await;
    let is_in_doubt = |outcome: &PublishOutcome| matches!(outcome, PublishOutcome::Unavailable(why) if why.contains("it is not known whether"));
    let mut sent: Vec<Outgoing> = Vec::new();
    let mut burst = async || {
        let numbers = sent.len()..sent.len() + 100;
        let numbered = |number: String| Outgoing { message_id: Some(number.clone()), ..outgoing("a", &number) };
        sent.extend(numbers.clone().map(|number| numbered(number.to_string())));
        let outcomes =
            join_all(sent[numbers.clone()].iter().map(|message| bridge.upstream.publish(message.clone()))).await;
        let doubtful = numbers.zip(&outcomes).find(|(_, outcome)| is_in_doubt(outcome)).map(|(number, _)| number);
        if let Some(number) = doubtful {
            let again = bridge.upstream.publish(sent[number].clone()).await;
            assert!(is_in_doubt(&again) || is_confirmed(&again), "{again:?}");
        }
        (doubtful.is_some(), outcomes.iter().all(is_confirmed))
    };
    rabbit.ctl(&["set_vm_memory_high_watermark", "absolute", "1000"]);
    let alarmed = async {
        loop {
            match burst().await {
                (_, true) => {}
                (has_doubts, false) => break has_doubts,
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, alarmed).await.expect("an alarm"), "it found some in flight");
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    publish_until(&bridge, "warm", is_confirmed).await;
    rabbit.freeze();
    assert_eq!(burst().await, (true, false));
    rabbit.thaw();
    for message in &sent {
        repeat_until(&bridge, message, |outcome| *outcome == PublishOutcome::Confirmed { routed: true }).await;
    }
    client.publish("x", "a", "last").await;
    until("all have come", || bridge.payloads("events").last().is_some_and(|last| last == "last")).await;
    let mut came = bridge.payloads("events");
    came.sort();
    came.dedup();
    assert_eq!(came.len(), bridge.log("events").len(), "each once: {:?}", bridge.payloads("events"));
    assert_eq!(came.len(), sent.len() + 1);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_noticed_and_a_stopped_one_too() {
    let rabbit = Rabbit::start();
    let client = Client::connect(&rabbit).await;
    client.exchange("x", ExchangeKind::Topic).await;
    let mut settings = settings(&rabbit, vec![exchange_source("events", "x")]);
    settings.publish.exchange = "x".into();
    settings.publish.timeout = Duration::from_millis(500);
    settings.amqp.heartbeat = Duration::from_secs(2);
    settings.amqp.connect_timeout = Duration::from_secs(2);
    let bridge = Bridge::start(&settings);
    let _claim = bridge.claim("events", "#").await;
    publish_until(&bridge, "a", is_confirmed).await;
    rabbit.freeze();
    let late = bridge.upstream.publish(outgoing("a", "x")).await;
    assert!(matches!(&late, PublishOutcome::Unavailable(why) if why.contains("did not confirm in time")), "{late:?}");
    until("the outage is noticed", || !bridge.source("events").link().up).await;
    bridge.complains("did not answer within amqp.connect_timeout").await;
    rabbit.thaw();
    bridge.ready().await;
    publish_until(&bridge, "a", is_confirmed).await;
    // And a stop by its operator, which says goodbye first.
    rabbit.stop();
    until("the outage is told", || !bridge.source("events").link().up).await;
    rabbit.run();
    let client = Client::connect(&rabbit).await;
    bridge.ready().await;
    let _again = bridge.claim("events", "again").await;
    client.publish("x", "again", "again").await;
    until("it arrives", || bridge.payloads("events").last().is_some_and(|last| last == "again")).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_names_the_key_to_change() {
    let rabbit = Rabbit::shared();
    let (vhost, user) = (unique("vhost"), unique("user"));
    rabbit.ctl(&["add_vhost", &vhost]);
    rabbit.ctl(&["add_user", &user, "secret-of-the-user"]);
    let mut settings = settings(rabbit, vec![exchange_source("events", "amq.topic")]);
    for (url, words) in [
        (
            rabbit.url_as("guest:secret-of-the-guest", "%2f"),
            "refused user 'guest': correct user and password in amqp.url",
        ),
        (rabbit.url_as("guest:guest", "nowhere"), "vhost 'nowhere' does not exist"),
        (rabbit.url_as(&format!("{user}:secret-of-the-user"), &vhost), "may not use vhost"),
        ("amqp://127.0.0.1:1".to_owned(), "nothing listens at 127.0.0.1:1: start RabbitMQ or correct amqp.url"),
        ("amqp://no-such-host.invalid".to_owned(), "cannot connect to no-such-host.invalid:5672"),
    ] {
        settings.amqp.urls = vec![Secret::new(url)];
        let bridge = Bridge::start(&settings);
        bridge.complains(words).await;
        assert!(bridge.readiness.reasons().iter().all(|reason| !reason.message.contains("secret")));
        let found = amqp::check(&settings).await;
        assert!(found[0].message.contains(words), "{found:?}");
        bridge.stop().await;
    }
    rabbit.ctl(&["set_permissions", "-p", &vhost, &user, "^passerelle\\.", ".*", "^passerelle\\."]);
    settings.amqp.urls = vec![Secret::new(rabbit.url_as(&format!("{user}:secret-of-the-user"), &vhost))];
    let bridge = Bridge::start(&settings);
    let claim = bridge.source("events").interest().claim(&Pattern::parse("a.#").unwrap());
    let refused = tokio::time::timeout(PATIENCE, claim.settled()).await.unwrap().unwrap_err();
    assert!(refused.contains(&format!("does not let user '{user}' bind 'a.#'")), "{refused}");
    bridge.ready().await;
    rabbit.ctl(&["set_permissions", "-p", &vhost, &user, "^nothing$", "^nothing$", "^nothing$"]);
    bridge.stop().await;
    let found = amqp::check(&settings).await;
    assert!(found[0].message.contains("may not declare and use queues such as 'passerelle."), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_of_the_broker_is_called_one() {
    let (rabbit, reader) = (Rabbit::shared(), Reader::new(".*"));
    let Reader { vhost, user } = &reader;
    let mut settings = settings(rabbit, vec![exchange_source("events", "amq.topic")]);
    settings.amqp.urls = vec![Secret::new(reader.url())];
    for (limits, of_whom, words) in [
        (["set_vhost_limits", "-p", vhost, r#"{"max-connections": 0}"#], "vhost", "as many connections as it may"),
        (["set_vhost_limits", "-p", vhost, r#"{"max-queues": 0}"#], "vhost", "' cannot be declared on vhost"),
        (["set_user_limits", user, r#"{"max-connections": 0}"#, "--quiet"], "user", "as many connections as it may"),
        (["set_user_limits", user, r#"{"max-channels": 0}"#, "--quiet"], "user", "over one channel too many"),
    ] {
        rabbit.ctl(&limits);
        let bridge = Bridge::start(&settings);
        bridge.complains(words).await;
        if of_whom == "vhost" {
            rabbit.ctl(&["clear_vhost_limits", "-p", vhost]);
        } else {
            rabbit.ctl(&["clear_user_limits", user, "all"]);
        }
        bridge.ready().await;
        bridge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_takes_no_topics_as_keys_says_at_the_start_what_to_configure() {
    let rabbit = Rabbit::with_plugins(&["rabbitmq_consistent_hash_exchange"]);
    let client = Client::connect(&rabbit).await;
    client.exchange("ring", ExchangeKind::Custom("x-consistent-hash".into())).await;
    let mut source = exchange_source("events", "ring");
    let bridge = Bridge::start(&settings(&rabbit, vec![source.clone()]));
    let sentence = "takes no topics as binding keys: set source.events.bindings to what it takes, as to [\"1\"]";
    bridge.complains(sentence).await;
    bridge.stop().await;
    for (key, words) in [("a", Some(sentence)), ("1", None)] {
        exchange_input(&mut source).bindings = Bindings::List(vec![Pattern::parse(key).unwrap()]);
        let bridge = Bridge::start(&settings(&rabbit, vec![source.clone()]));
        if let Some(words) = words {
            bridge.complains(words).await;
        } else {
            let _claim = bridge.claim("events", "a.b").await;
            client.publish("ring", "a.b", "x").await;
            assert_eq!(bridge.received("events", 1).await, ["x"]);
        }
        bridge.stop().await;
    }
}

/// A user on a vhost of their own who may read some topics of `amq.topic` only.
pub(super) struct Reader {
    pub(super) vhost: String,
    pub(super) user: String,
}

impl Reader {
    pub(super) fn new(topics: &str) -> Self {
        let (vhost, user) = (unique("vhost"), unique("user"));
        let rabbit = Rabbit::shared();
        rabbit.ctl(&["add_vhost", &vhost]);
        rabbit.ctl(&["add_user", &user, "secret"]);
        rabbit.ctl(&["set_permissions", "-p", &vhost, &user, ".*", ".*", ".*"]);
        let reader = Self { vhost, user };
        reader.may_read(topics);
        reader
    }

    fn may_read(&self, topics: &str) {
        let Self { vhost, user } = self;
        Rabbit::shared().ctl(&["set_topic_permissions", "-p", vhost, user, "amq.topic", ".*", topics]);
    }

    pub(super) fn url(&self) -> String {
        Rabbit::shared().url_as(&format!("{}:secret", self.user), &self.vhost)
    }

    pub(super) async fn publish(&self, topic: &str, payload: &str) {
        let connection = connect(&self.url()).await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let sent = channel.basic_publish("amq.topic".into(), topic.into(), options, payload.as_bytes(), properties);
        assert!(sent.await.unwrap().await.unwrap().is_ack());
    }
}

/// RabbitMQ quotes the topic in its refusal, and what a client has put there says nothing of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_may_not_be_read_concerns_only_who_wants_it_whatever_it_is_called() {
    let reader = Reader::new("^orders\\.");
    let mut settings = settings(Rabbit::shared(), vec![exchange_source("events", "amq.topic")]);
    settings.amqp.urls = vec![Secret::new(reader.url())];
    let bridge = Bridge::start(&settings);
    let _claim = bridge.claim("events", "orders.x").await;
    for topic in ["news.x", "exclusive.offers", "inaccessible"] {
        let claim = bridge.source("events").interest().claim(&Pattern::parse(topic).unwrap());
        let refused = tokio::time::timeout(PATIENCE, claim.settled()).await.unwrap().unwrap_err();
        assert!(refused.contains(&format!("does not let user '{}' bind '{topic}'", reader.user)), "{refused}");
    }
    reader.publish("orders.x", "1").await;
    assert_eq!(bridge.received("events", 1).await, ["1"]);
    assert_eq!(bridge.source("events").link().changes, 1, "the source stands");
    bridge.stop().await;
}

/// Now and then all is bound again, which the broker refuses then. It would refuse to take a binding away, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_ends_what_stood_by_it_and_nothing_else() {
    let reader = Reader::new(".*");
    let mut source = exchange_source("events", "amq.topic");
    exchange_input(&mut source).linger = Duration::from_millis(1);
    let mut settings = settings(Rabbit::shared(), vec![source]);
    settings.amqp.urls = vec![Secret::new(reader.url())];
    let bridge = Bridge::start(&settings);
    let _stays = bridge.claim("events", "orders.x").await;
    let (ends, goes) = (bridge.claim("events", "stock.x").await, bridge.claim("events", "stock.y").await);
    reader.may_read("^orders\\.");
    drop(goes);
    until("it is refused", || matches!(ends.standing(), Standing::Refused(_))).await;
    let lapses = || bridge.source("events").interest().lapses();
    assert_eq!(lapses(), 1, "who was told that it stands is told that it does no longer");
    reader.publish("orders.x", "1").await;
    assert_eq!(bridge.received("events", 1).await, ["1"]);
    assert_eq!(bridge.source("events").link().changes, 1, "the source stands");
    assert_eq!(bridge.holes("events"), []);
    reader.may_read(".*");
    let _again = bridge.claim("events", "stock.x").await;
    bridge.stop().await;
}

/// Each try has queues of its own, on a connection that stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_refused_again_and_again_leaves_no_queues_behind() {
    let rabbit = Rabbit::shared();
    let reader = Reader::new("^ok");
    let mut source = exchange_source("fixed", "amq.topic");
    exchange_input(&mut source).bindings =
        Bindings::List(["ok.#", "not.#"].map(|text| Pattern::parse(text).unwrap()).into());
    let mut settings = settings(rabbit, vec![source]);
    settings.amqp.urls = vec![Secret::new(reader.url())];
    settings.amqp.backoff_max = Duration::from_millis(50);
    let bridge = Bridge::start(&settings);
    bridge.complains("bind 'not.#' to exchange 'amq.topic'").await;
    let queues = || {
        let listed = rabbit.ctl(&["list_queues", "-p", &reader.vhost, "name", "--no-table-headers"]);
        listed.lines().filter(|name| name.contains(".fixed.")).count()
    };
    // Each look takes a second or so, and meanwhile there are many tries.
    for _ in 0..5 {
        assert!(queues() <= 3, "those of one try at most");
    }
    reader.may_read(".*");
    bridge.ready().await;
    until("those of one try are left", || queues() == 3).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_addresses_the_first_that_answers_is_taken() {
    let rabbit = Rabbit::shared();
    let mut settings = settings(rabbit, vec![exchange_source("events", "amq.topic")]);
    settings.amqp.urls.insert(0, Secret::new("amqp://127.0.0.1:1"));
    let bridge = Bridge::start(&settings);
    bridge.ready().await;
    bridge.stop().await;
    settings.amqp.urls.pop();
    settings.amqp.fail_fast = true;
    let hub = Bridge::start(&settings);
    let trouble = tokio::time::timeout(PATIENCE, hub.failed()).await.unwrap();
    assert!(trouble.0.contains("nothing listens"), "{trouble}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_is_missing_or_dangerous() {
    let rabbit = Rabbit::shared();
    let client = Client::connect(rabbit).await;
    let (queue, missing) = (unique("queue"), unique("missing"));
    client.queue(&queue).await;
    let options = lapin::options::BasicConsumeOptions::default();
    let consumed = client.channel.basic_consume(queue.as_str().into(), "t".into(), options, Default::default());
    let _consumer = consumed.await.unwrap();
    let sources = vec![
        exchange_source("a", "amq.topic"),
        exchange_source("c", &missing),
        queue_source("d", &queue),
        queue_source("e", &missing),
    ];
    let mut settings = settings(rabbit, sources);
    settings.publish.exchange = missing.clone();
    let consume = |name: &str, queue: &str, declare| config::Consume {
        name: name.into(),
        queue: QueueTemplate::parse(queue).unwrap(),
        declare,
        expires: None,
        prefetch_max: 1,
        hold_max: Duration::from_secs(60),
    };
    // One that is there, one that is not, one that is made on demand, and one for each user, whom nobody can ask for.
    let opened =
        [("a", queue.as_str(), false), ("b", &missing, false), ("c", &missing, true), ("d", "x.{user}", false)];
    settings.consume = opened.map(|(name, queue, declare)| consume(name, queue, declare)).into();
    let found = amqp::check(&settings).await;
    let found: Vec<(&str, &str)> = found.iter().map(|found| (found.key.as_str(), found.message.as_str())).collect();
    for (place, (key, words)) in [
        ("source.c", "create it or set source.c.declare = true"),
        ("source.d", "already has 1 consumer"),
        ("source.e", "create it or set source.e.declare = true"),
        ("consume.b", "create it or set consume.b.declare = true"),
        ("publish.exchange", "create it or correct publish.exchange"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(found[place].0, key);
        assert!(found[place].1.contains(words), "{found:?}");
    }
    assert_eq!(found.len(), 5);
}
