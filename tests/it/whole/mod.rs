//! The whole of it: the program between a broker and its clients. What is not about one broker's ways runs on the embedded
//! one and on RabbitMQ.

pub(crate) mod client;
mod cloudevents;
mod consume;
mod crowd;
mod cut;
mod endings;
mod filters;
mod flow;
mod frozen;
mod handshakes;
mod http;
mod last;
mod lag;
mod nodes;
mod origins;
mod outages;
mod overtaken;
mod polls;
mod presence;
mod rates;
mod relays;
mod slow;
mod stalled;
mod stops;
mod streams;
mod upward;

use crate::program::{Program, until};
use crate::rabbit::Rabbit;

/// The brokers that a test runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Broker {
    Embedded,
    Rabbit,
}

impl Broker {
    pub(crate) const BOTH: [Self; 2] = [Self::Embedded, Self::Rabbit];

    /// A program on this broker, ready.
    pub(crate) async fn serve(self, environment: &[(&str, &str)]) -> Program {
        let program = self.start(environment);
        program.ready().await;
        // Readiness is about sources; who publishes at once needs the other connection too.
        let publishing = "passerelle_amqp_link_up{link=\"publish\"}";
        until("clients can publish", async || program.metric(publishing).await == Some(1.0)).await;
        program
    }

    /// A program on this broker, which may wait there for what its sources need.
    pub(crate) fn start(self, environment: &[(&str, &str)]) -> Program {
        // Anonymous publishing is off with a broker of one's own.
        let mut all = vec![("PASSERELLE_AUTH__ANONYMOUS_PUBLISH", "true")];
        all.extend(environment);
        match self {
            Self::Embedded => Program::start(None, &all),
            Self::Rabbit => Program::start(Some(&Rabbit::shared().url()), &all),
        }
    }
}

/// A word that no other test uses, for topics on a shared broker.
pub(crate) fn word() -> String {
    format!("t{:x}", fastrand::u64(..))
}

/// A virtual host that nobody else uses on the shared RabbitMQ, and the address there.
pub(crate) fn own_host() -> (String, String) {
    let (rabbit, host) = (Rabbit::shared(), word());
    rabbit.ctl(&["add_vhost", &host]);
    rabbit.ctl(&["set_permissions", "-p", &host, "guest", ".*", ".*", ".*"]);
    let url = rabbit.url_as("guest:guest", &host);
    (host, url)
}
