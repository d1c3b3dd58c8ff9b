//! Who is subscribed to a pattern, who comes and goes, on one node and on several.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::{
    BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, ExchangeKind};
use serde_json::{Value, json};

use super::client::{Client, EventStream, Service};
use super::{Broker, word};
use crate::program::{Program, until};
use crate::rabbit::Rabbit;

/// Presence for one room, on an exchange that no other test uses.
struct Scene {
    room: String,
    exchange: String,
}

impl Scene {
    fn new() -> Self {
        Self { room: word(), exchange: word() }
    }

    fn environment<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut all = vec![
            ("PASSERELLE_PRESENCE__ROOM__PATTERN", self.room.as_str()),
            ("PASSERELLE_PRESENCE__ROOM__JOIN_LEAVE", "true"),
            ("PASSERELLE_AMQP__PRESENCE_EXCHANGE", self.exchange.as_str()),
            ("PASSERELLE_SERVER__SHARDS", "2"),
        ];
        all.extend(more);
        all
    }

    async fn serve(&self, broker: Broker, more: &[(&str, &str)]) -> Program {
        broker.serve(&self.environment(more)).await
    }

    /// A node on RabbitMQ, of a name of its own, that expires others after six seconds: soon, but no busy machine is silent
    /// for so long.
    async fn node(&self, name: &str, url: &str) -> Program {
        let more = [
            ("PASSERELLE_AMQP__NODE", name),
            ("PASSERELLE_AMQP__PRESENCE_HEARTBEAT", "2s"),
            // So that it is ready again when its source is.
            ("PASSERELLE_SERVER__READY_ON_OUTAGE", "false"),
        ];
        let program = Program::start(Some(url), &self.environment(&more));
        program.ready().await;
        program
    }

    /// A subscriber, and its name.
    async fn guest(&self, program: &Program) -> (Client, String) {
        let mut client = Client::json(program).await;
        let welcome = client.ask(json!({ "op": "connect" })).await;
        client.subscribe(&self.room).await;
        (client, welcome["connection"].as_str().expect("a name").to_owned())
    }

    async fn ask(&self, client: &mut Client) -> Value {
        client.ask(json!({ "op": "presence", "pattern": self.room })).await
    }

    /// Asks until so many are there, by a client that is told nothing else; who they are.
    async fn until_there(&self, program: &Program, count: u64) -> BTreeSet<String> {
        let mut reply = Value::Null;
        until(&format!("{count} are there"), async || {
            // Somebody who only asks.
            let mut asker = Client::json(program).await;
            reply = self.ask(&mut asker).await;
            reply["count"] == count && reply["members"].is_array()
        })
        .await;
        names(&reply)
    }

    fn moved(&self, op: &str, name: &str) -> Value {
        json!({ "op": op, "topic": self.room, "user": null, "connection": name })
    }
}

fn names(reply: &Value) -> BTreeSet<String> {
    let members = reply["members"].as_array().unwrap_or_else(|| panic!("no members in {reply}"));
    assert_eq!(reply["count"], members.len());
    members.iter().map(|member| member["connection"].as_str().expect("a name").to_owned()).collect()
}

fn set<const N: usize>(names: [&String; N]) -> BTreeSet<String> {
    names.into_iter().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_knows_who_is_there_and_who_comes_and_goes() {
    for broker in Broker::BOTH {
        let scene = Scene::new();
        let program = scene.serve(broker, &[]).await;
        let (mut anna, anna_is) = scene.guest(&program).await;
        let (mut boris, boris_is) = scene.guest(&program).await;
        assert_eq!(names(&scene.ask(&mut boris).await), set([&anna_is, &boris_is]), "{broker:?}");
        assert_eq!(anna.news().await, scene.moved("join", &boris_is));
        // Replacing a subscription is no coming and no going, and nobody is told of himself: what comes next is the answer.
        boris.subscribe(&scene.room).await;
        assert_eq!(names(&scene.ask(&mut boris).await), set([&anna_is, &boris_is]));
        assert_eq!(names(&scene.ask(&mut anna).await), set([&anna_is, &boris_is]));
        drop(boris);
        assert_eq!(anna.news().await, scene.moved("leave", &boris_is));
        let (mut clara, clara_is) = scene.guest(&program).await;
        assert_eq!(anna.news().await, scene.moved("join", &clara_is));
        assert_eq!(clara.ask(json!({ "op": "unsubscribe", "pattern": scene.room })).await["op"], "ok");
        assert_eq!(anna.news().await, scene.moved("leave", &clara_is));
        assert_eq!(names(&scene.ask(&mut clara).await), set([&anna_is]));
        let refused = clara.ask(json!({ "op": "presence", "pattern": "elsewhere" })).await;
        assert_eq!(refused["code"], "unsupported");
        assert!(refused["message"].as_str().unwrap().contains("set presence.NAME.pattern"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_clients_and_event_streams_count_and_streams_are_told() {
    let scene = Scene::new();
    let program = scene.serve(Broker::Embedded, &[]).await;
    let (mut anna, anna_is) = scene.guest(&program).await;
    let query = format!("pattern={}", scene.room);
    let raw = Client::raw(&program, &query).await;
    let raw_joins = anna.news().await;
    assert_eq!(raw_joins["op"], "join");
    let mut stream = EventStream::open(&program, &query, None).await;
    assert_eq!(anna.news().await["op"], "join");
    for name in ["subscribed", "position"] {
        assert_eq!(stream.event().await.event.as_deref(), Some(name));
    }
    assert_eq!(names(&scene.ask(&mut anna).await).len(), 3);
    drop(raw);
    let left = anna.news().await;
    assert_eq!((&left["op"], &left["connection"]), (&json!("leave"), &raw_joins["connection"]));
    let told = stream.event().await;
    assert_eq!(told.event.as_deref(), Some("leave"));
    assert_eq!(serde_json::from_str::<Value>(&told.data).unwrap(), left);
    drop(anna);
    assert!(stream.event().await.data.contains(&anna_is));
    drop(stream);
    until("nobody is there", async || program.metric("passerelle_presence_members").await == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_room_is_counted_only_until_it_is_smaller_again() {
    let scene = Scene::new();
    let program = scene.serve(Broker::Embedded, &[("PASSERELLE_PRESENCE__ROOM__MEMBERS_MAX", "4")]).await;
    let (mut anna, _) = scene.guest(&program).await;
    let mut others = Vec::new();
    for number in 2..=4 {
        others.push(scene.guest(&program).await);
        assert_eq!(anna.news().await, scene.moved("join", &others[number - 2].1));
    }
    let counted = |count: u64| json!({ "op": "presence", "pattern": scene.room, "count": count });
    others.push(scene.guest(&program).await);
    assert_eq!(anna.news().await, counted(5));
    others.push(scene.guest(&program).await);
    let reply = scene.ask(&mut anna).await;
    assert_eq!((&reply["count"], &reply["members"]), (&json!(6), &Value::Null));
    for left in [5, 4] {
        others.pop();
        until("it is counted", async || scene.ask(&mut anna).await["count"] == left).await;
        assert_eq!(scene.ask(&mut anna).await["members"], Value::Null, "four are too many still");
    }
    others.pop();
    let back = anna.news().await;
    assert_eq!((&back["op"], &back["id"], names(&back).len()), (&json!("presence"), &Value::Null, 3));
    let (_dora, dora_is) = scene.guest(&program).await;
    assert_eq!(anna.news().await, scene.moved("join", &dora_is));
}

/// A node that is killed leaves its members behind until it counts as silent; one that stops takes them along.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_know_each_other_s_guests() {
    let (scene, url) = (Scene::new(), Rabbit::shared().url());
    let one = scene.node("one", &url).await;
    let (mut anna, anna_is) = scene.guest(&one).await;
    let two = scene.node("two", &url).await;
    // Who comes later learns who was there before.
    assert_eq!(scene.until_there(&two, 1).await, set([&anna_is]));
    let (mut boris, boris_is) = scene.guest(&two).await;
    assert_eq!(anna.news().await, scene.moved("join", &boris_is));
    assert_eq!(names(&scene.ask(&mut anna).await), set([&anna_is, &boris_is]));
    assert_eq!(names(&scene.ask(&mut boris).await), set([&anna_is, &boris_is]));
    let nodes = async |count: f64| one.metric("passerelle_presence_nodes").await == Some(count);
    until("both nodes are seen", async || nodes(2.0).await).await;
    drop(two);
    assert_eq!(anna.news().await, scene.moved("leave", &boris_is));
    until("one node is left", async || nodes(1.0).await).await;

    let mut three = scene.node("three", &url).await;
    let (clara, clara_is) = scene.guest(&three).await;
    assert_eq!(anna.news().await, scene.moved("join", &clara_is));
    drop(clara);
    assert_eq!(anna.news().await, scene.moved("leave", &clara_is));
    three.terminate();
    assert!(three.ended().await.success());
    until("one node is left", async || nodes(1.0).await).await;
}

/// Own guests stay known while the broker is away, those of other nodes do not; on its return all is told again.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_again_after_an_outage() {
    let (scene, rabbit) = (Scene::new(), Rabbit::start());
    let (one, two) = (scene.node("one", &rabbit.url()).await, scene.node("two", &rabbit.url()).await);
    let (_anna, anna_is) = scene.guest(&one).await;
    let (boris, boris_is) = scene.guest(&two).await;
    assert_eq!(scene.until_there(&one, 2).await, set([&anna_is, &boris_is]));
    rabbit.kill();
    assert_eq!(scene.until_there(&one, 1).await, set([&anna_is]));
    assert_eq!(scene.until_there(&two, 1).await, set([&boris_is]));
    drop(boris);
    rabbit.run();
    assert_eq!(scene.until_there(&two, 1).await, set([&anna_is]));
    two.ready().await;
    let (_clara, clara_is) = scene.guest(&two).await;
    assert_eq!(scene.until_there(&one, 2).await, set([&anna_is, &clara_is]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_say_on_the_exchange_is_counted_and_ignored() {
    for broker in Broker::BOTH {
        let scene = Scene::new();
        let program = scene.serve(broker, &[]).await;
        let (mut anna, anna_is) = scene.guest(&program).await;
        let service = Service::connect(&program.amqp).await;
        until("the exchange is there", async || {
            program.lines().iter().any(|line| line.contains("presence is shared through exchange"))
        })
        .await;
        for body in ["hello", "{\"version\":1}", "\u{0}"] {
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            let published = service.channel.basic_publish(
                scene.exchange.as_str().into(),
                "".into(),
                options,
                body.as_bytes(),
                properties,
            );
            published.await.expect("a publish");
        }
        let rejected = "passerelle_presence_rejected_total";
        until("they are counted", async || program.metric(rejected).await == Some(3.0)).await;
        assert_eq!(names(&scene.ask(&mut anna).await), set([&anna_is]));
        assert_eq!(program.metric("passerelle_presence_nodes").await, Some(1.0));
    }
}

/// The broker tells nobody that it deleted an exchange with its bindings; a node notices that it does not hear itself.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_again_after_their_exchange_was_made_anew() {
    for broker in Broker::BOTH {
        let scene = Scene::new();
        let host = broker.serve(&[]).await;
        let one = scene.node("one", &host.amqp).await;
        let (_anna, anna_is) = scene.guest(&one).await;
        let says = |words: &str| one.lines().iter().any(|line| line.contains(words));
        until("the exchange is there", async || says("presence is shared through exchange")).await;
        let service = Service::connect(&host.amqp).await;
        let exchange = || scene.exchange.as_str().into();
        service.channel.exchange_delete(exchange(), ExchangeDeleteOptions::default()).await.expect("an end of it");
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let made = service.channel.exchange_declare(exchange(), ExchangeKind::Fanout, options, FieldTable::default());
        made.await.expect("another");
        until("it is missed", async || says("presence knows this node only")).await;
        let two = scene.node("two", &host.amqp).await;
        let (_boris, boris_is) = scene.guest(&two).await;
        for node in [&one, &two] {
            assert_eq!(scene.until_there(node, 2).await, set([&anna_is, &boris_is]), "{broker:?}");
        }
    }
}

/// A broker that lacks memory stops whoever publishes, for as long as it likes: that is no dead connection.
#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_waited_out() {
    let scene = Scene::new();
    let limits = [("PASSERELLE_EMBEDDED__MEMORY_BYTES_MAX", "1 MiB"), ("PASSERELLE_AMQP__PRESENCE_HEARTBEAT", "2s")];
    let program = scene.serve(Broker::Embedded, &limits).await;
    let (_anna, anna_is) = scene.guest(&program).await;
    let (filling, emptying) = (Service::connect(&program.amqp).await, Service::connect(&program.amqp).await);
    let (options, none) = (QueueDeclareOptions::default(), FieldTable::default());
    filling.channel.queue_declare("full".into(), options, none).await.expect("a queue");
    let (body, options) = (vec![0; 2 << 20], BasicPublishOptions::default());
    let filled = filling.channel.basic_publish("".into(), "full".into(), options, &body, BasicProperties::default());
    filled.await.expect("a publish");
    let says = |words: &str| program.lines().iter().any(|line| line.contains(words));
    until("the node is stopped", async || says("accepts no messages")).await;
    // For longer than the broker may owe any other answer.
    tokio::time::sleep(Duration::from_secs(35)).await;
    emptying.channel.queue_delete("full".into(), QueueDeleteOptions::default()).await.expect("an end of it");
    until("the node goes on", async || says("accepts messages again")).await;
    let two = scene.node("two", &program.amqp).await;
    assert_eq!(scene.until_there(&two, 1).await, set([&anna_is]));
    assert!(!says("presence knows this node only"), "{:#?}", program.lines());
    assert!(!says("lost the connection"), "{:#?}", program.lines());
}

/// Where no exchange is configured a node is on its own, and needs nothing at the broker for that.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_exchange_each_node_knows_its_own() {
    let scene = Scene { exchange: "off".to_owned(), ..Scene::new() };
    let program = scene.serve(Broker::Rabbit, &[("PASSERELLE_AMQP__NODE", &scene.room)]).await;
    let (mut anna, anna_is) = scene.guest(&program).await;
    assert_eq!(names(&scene.ask(&mut anna).await), set([&anna_is]));
    let queues = Rabbit::shared().ctl(&["list_queues", "name"]);
    assert!(!queues.lines().any(|queue| queue.contains(&format!("{}.presence", scene.room))), "{queues}");
    // Many come and go at once, and in the end the room is as it was.
    let crowd: Vec<_> = futures_util::future::join_all((0..20).map(|_| scene.guest(&program))).await;
    until("they are there", async || scene_size(&program).await == Some(21.0)).await;
    drop(crowd);
    until("they are gone", async || scene_size(&program).await == Some(1.0)).await;
    let mut there = BTreeSet::new();
    let quiet = async {
        loop {
            let news = anna.news().await;
            let name = news["connection"].as_str().expect("a name").to_owned();
            assert!(if news["op"] == "join" { there.insert(name) } else { there.remove(&name) }, "{news}");
            if there.is_empty() && news["op"] == "leave" {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), quiet).await.expect("all have left");
}

async fn scene_size(program: &Program) -> Option<f64> {
    program.metric("passerelle_presence_members").await
}

/// Who takes nothing is not told each step, but how things are when it reads again.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_too_slowly_is_told_how_things_are() {
    let scene = Scene::new();
    let program = scene.serve(Broker::Embedded, &[("PASSERELLE_LIMITS__BEHIND_BYTES", "1")]).await;
    let (mut slow, slow_is) = scene.guest(&program).await;
    slow.subscribe("big").await;
    let (mut anna, anna_is) = scene.guest(&program).await;
    assert_eq!(slow.news().await, scene.moved("join", &anna_is));
    let service = Service::connect(&program.amqp).await;
    let filling = format!("\"{}\"", "x".repeat(60_000));
    until("it is behind", async || {
        service.publish("big", &filling).await;
        program.metric("passerelle_fell_behind_total").await.is_some_and(|falls| falls > 0.0)
    })
    .await;
    for _ in 0..3 {
        let (guest, guest_is) = scene.guest(&program).await;
        assert_eq!(anna.news().await, scene.moved("join", &guest_is));
        drop(guest);
        assert_eq!(anna.news().await, scene.moved("leave", &guest_is));
    }
    let (_boris, boris_is) = scene.guest(&program).await;
    assert_eq!(anna.news().await, scene.moved("join", &boris_is));
    let told = loop {
        let news = slow.news().await;
        if news["op"] != "message" {
            break news;
        }
    };
    assert_eq!((&told["op"], &told["id"]), (&json!("presence"), &Value::Null), "{told}");
    assert_eq!(names(&told), set([&slow_is, &anna_is, &boris_is]));
}
