//! The whole of it: the program between a broker and its clients. What is not about one broker's ways runs on the embedded
//! one and on RabbitMQ.

mod client;
mod consume;
mod endings;
mod flow;
mod outages;
mod slow;
mod upward;

use crate::program::Program;
use crate::rabbit::Rabbit;

/// The brokers that a test runs on.
#[derive(Debug, Clone, Copy)]
enum Broker {
    Embedded,
    Rabbit,
}

impl Broker {
    const BOTH: [Self; 2] = [Self::Embedded, Self::Rabbit];

    /// A program on this broker, ready.
    async fn serve(self, environment: &[(&str, &str)]) -> Program {
        // Anonymous publishing is off with a broker of one's own.
        let mut all = vec![("PASSERELLE_AUTH__ANONYMOUS_PUBLISH", "true")];
        all.extend(environment);
        let program = match self {
            Self::Embedded => Program::start(None, &all),
            Self::Rabbit => Program::start(Some(&Rabbit::shared().url()), &all),
        };
        program.ready().await;
        program
    }
}

/// A word that no other test uses, for topics on a shared broker.
fn word() -> String {
    format!("t{:x}", fastrand::u64(..))
}
