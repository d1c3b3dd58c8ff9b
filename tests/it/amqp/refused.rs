//! What the broker refuses because of what a client asked for. It closes a channel each time, whose number the library does not
//! use again: nobody else may find out.

use passerelle::config::Secret;
use passerelle::model::outgoing::PublishOutcome;

use super::bridge::*;
use crate::rabbit::Rabbit;

/// A node that may have two connections has them, and can only do without trials.
#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_two_connections_a_forbidden_topic_does_not_stop_the_others() {
    let (rabbit, user) = (Rabbit::shared(), unique("user"));
    rabbit.ctl(&["add_user", &user, "secret"]);
    rabbit.ctl(&["set_permissions", &user, ".*", ".*", ".*"]);
    rabbit.ctl(&["set_topic_permissions", &user, "amq.topic", "^yes\\.|^first$", ".*"]);
    rabbit.ctl(&["set_user_limits", &user, r#"{"max-connections": 2}"#, "--quiet"]);
    let mut settings = settings(rabbit, vec![exchange_source("events", "amq.topic")]);
    settings.amqp.urls = vec![Secret::new(rabbit.url_as(&format!("{user}:secret"), "%2f"))];
    let bridge = Bridge::start(&settings);
    assert!(!bridge.publishes("first").await);
    bridge.ready().await;
    for number in 0..5 {
        let outcome = bridge.upstream.publish(outgoing(&format!("no.{number}"), "x")).await;
        assert!(matches!(outcome, PublishOutcome::Refused(_)), "{outcome:?}");
        let outcome = bridge.upstream.publish(outgoing(&format!("yes.{number}"), "x")).await;
        assert_eq!(outcome, PublishOutcome::Confirmed { routed: false });
    }
    bridge.stop().await;
}
