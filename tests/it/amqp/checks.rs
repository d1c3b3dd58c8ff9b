//! `check --connect`: what it finds at the broker, and that it leaves everything there as it is.

use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use passerelle::config::{Bindings, Secret, Settings};
use passerelle::model::topic::Pattern;
use passerelle::source::amqp;

use super::bridge::*;
use crate::rabbit::Rabbit;

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
    let user = as_user(rabbit, &mut settings);
    rabbit.ctl(&["set_topic_permissions", &user, "amq.topic", "^orders\\.", "^orders\\."]);
    finds(&settings, &[("source.list", "access to topic 'news.#'")]).await;
}
