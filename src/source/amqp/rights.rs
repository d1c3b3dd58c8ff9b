//! What RabbitMQ lets its user publish. It refuses by closing the channel, and with it goes the broker's word on whatever
//! else is in flight there. So once it has refused something at an exchange, each topic there is tried before its first
//! use, in a transaction that is taken back, on a connection that may lose channels. Until something was refused nothing is
//! asked; and where the broker allows no such connection, it is published untried, at the risk of one channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::options::BasicPublishOptions;
use lapin::protocol::basic::AMQPProperties;

use crate::config::Amqp;
use crate::source::Trouble;

use super::connection::Live;
use super::exchange::short;
use super::spare::Spare;
use super::words::{self, Refusal};

/// How long a refusal is believed.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Topics of an exchange that are remembered; with one more all are tried again.
const TOPICS_MAX: usize = 10_000;

/// How often one is tried when the broker is too quick to tell why it refuses.
const TRIES: usize = 3;

/// See the module.
pub(super) struct Rights {
    /// Where it may close channels. It publishes, which nothing else may have to wait for: see [`super`].
    spare: Arc<Spare>,
    /// The exchanges at which something was refused, all of them configured, with what is known of their topics.
    tried: HashMap<String, HashMap<String, Verdict>>,
    trial: Option<Trial>,
}

/// Where topics are tried.
#[derive(Clone)]
struct Trial {
    live: Arc<Live>,
    /// In a transaction.
    channel: Channel,
}

/// What the broker says about a topic.
enum Verdict {
    Allowed,
    /// When it was refused, and the sentence for that.
    Refused(Instant, String),
}

/// Whether the broker refused a publish because its user may not publish that.
pub(super) fn is_forbidden(error: &lapin::Error) -> bool {
    words::refusal(error) == Some(Refusal::AccessRefused)
}

/// The broker's refusal of a message, for its client.
pub(super) fn sentence(text: &str) -> String {
    format!("the broker refused the message: {text}")
}

impl Rights {
    /// Nothing was refused yet.
    pub(super) fn new(amqp: &Amqp) -> Self {
        Self { spare: Spare::new(amqp, "trials of topics"), tried: HashMap::new(), trial: None }
    }

    /// Something was refused at this exchange.
    pub(super) fn doubt(&mut self, exchange: &str) {
        self.tried.entry(exchange.to_owned()).or_default();
    }

    /// This was.
    pub(super) fn refused(&mut self, exchange: &str, topic: &str, sentence: &str) {
        self.note(exchange, topic, Verdict::Refused(Instant::now(), sentence.to_owned()));
    }

    /// Why this cannot be published, if it is known that it cannot.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub(super) async fn refusal(&mut self, exchange: &str, topic: &str) -> Result<Option<String>, Trouble> {
        let Some(topics) = self.tried.get(exchange) else { return Ok(None) };
        match topics.get(at(exchange, topic)) {
            Some(Verdict::Allowed) => return Ok(None),
            Some(Verdict::Refused(since, sentence)) if since.elapsed() < REFUSED_FOR => {
                return Ok(Some(sentence.clone()));
            }
            Some(Verdict::Refused(..)) | None => {}
        }
        match self.try_out(exchange, at(exchange, topic)).await? {
            None => Ok(None),
            Some(Verdict::Allowed) => {
                self.note(exchange, topic, Verdict::Allowed);
                Ok(None)
            }
            Some(Verdict::Refused(_, sentence)) => {
                self.refused(exchange, topic, &sentence);
                Ok(Some(sentence))
            }
        }
    }

    /// Nothing where there is no connection for that.
    async fn try_out(&mut self, exchange: &str, topic: &str) -> Result<Option<Verdict>, Trouble> {
        for _ in 0..TRIES {
            let Some(Trial { live, channel }) = self.trial().await? else { return Ok(None) };
            let (exchange, topic, options) = (short(exchange)?, short(topic)?, BasicPublishOptions::default());
            let tried = async {
                channel.basic_publish(exchange, topic, options, &[], AMQPProperties::default()).await?;
                channel.tx_rollback().await
            };
            match tried.await {
                Ok(()) => return Ok(Some(Verdict::Allowed)),
                Err(error) if words::refusal(&error).is_some() => return Ok(Some(refused(&words::quoted(&error)))),
                // The channel was closed before the question was asked that would have brought the reason.
                Err(_) if live.is_alive() => {}
                Err(error) => return Err(Trouble(words::quoted(&error))),
            }
        }
        Ok(Some(refused("it closed the channel, and its log says why")))
    }

    /// A channel that is open.
    async fn trial(&mut self) -> Result<Option<Trial>, Trouble> {
        // What is worn is let go of before there is another one.
        self.trial.take_if(|trial| !trial.live.is_alive() || !trial.channel.status().connected());
        if self.trial.is_some() {
            return Ok(self.trial.clone());
        }
        let Some(live) = self.spare.live().await else { return Ok(None) };
        let channel = live.channel().await?;
        channel.tx_select().await.map_err(|error| Trouble(words::quoted(&error)))?;
        self.trial = Some(Trial { live, channel });
        Ok(self.trial.clone())
    }

    fn note(&mut self, exchange: &str, topic: &str, verdict: Verdict) {
        let topics = self.tried.entry(exchange.to_owned()).or_default();
        if topics.len() >= TOPICS_MAX {
            topics.clear();
        }
        topics.insert(at(exchange, topic).to_owned(), verdict);
    }
}

fn refused(text: &str) -> Verdict {
    Verdict::Refused(Instant::now(), sentence(text))
}

/// What stands for a topic. At the default exchange rights are on no topic, and one may be the address of somebody who waits
/// for an answer, whom even a message that is taken back would reach: there the empty one, which reaches no queue.
fn at<'a>(exchange: &str, topic: &'a str) -> &'a str {
    if exchange.is_empty() { "" } else { topic }
}
