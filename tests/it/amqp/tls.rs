//! `amqps://` with an authority and a client certificate of one's own.

use passerelle::config::Secret;
use passerelle::source::amqp;

use super::bridge::*;
use crate::rabbit::Rabbit;

#[tokio::test(flavor = "multi_thread")]
async fn our_certificate_lets_us_in_and_its_absence_is_told() {
    let rabbit = Rabbit::shared();
    let mut settings = settings(rabbit, vec![exchange_source("events", "amq.topic")]);
    settings.amqp.urls = vec![Secret::new(rabbit.tls_url())];
    settings.amqp.tls_ca = Some(rabbit.certificate("ca.pem"));
    let without = amqp::check(&settings).await;
    assert_eq!(without.len(), 1, "{without:?}");
    settings.amqp.tls_certificate = Some(rabbit.certificate("client.pem"));
    settings.amqp.tls_key = Some(rabbit.certificate("client.key"));
    let bridge = Bridge::start(&settings);
    let topic = unique("tls");
    let _claim = bridge.claim("events", &topic).await;
    Client::connect(rabbit).await.publish("amq.topic", &topic, "x").await;
    assert_eq!(bridge.received("events", 1).await, ["x"]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_authority_is_not_believed() {
    let rabbit = Rabbit::shared();
    let mut settings = settings(rabbit, vec![exchange_source("events", "amq.topic")]);
    settings.amqp.urls = vec![Secret::new(rabbit.tls_url())];
    settings.amqp.tls_ca = Some(rabbit.certificate("server.pem"));
    let bridge = Bridge::start(&settings);
    bridge.complains("look at amqp.tls_ca").await;
    bridge.stop().await;
}
