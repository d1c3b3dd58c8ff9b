//! What RabbitMQ lets its user publish. It refuses by closing the channel, and with it goes the broker's word on whatever
//! else is in flight there. So once it has refused something at an exchange, each topic there is tried before its first
//! use, in a transaction that is taken back. As a connection can lose so many channels only, this has one of its own, which is
//! given up in time. Until something was refused there is none, and nothing is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::options::BasicPublishOptions;
use lapin::protocol::basic::AMQPProperties;

use crate::metrics::BrokerLink;
use crate::source::Trouble;

use super::Context;
use super::connection::{self, Live};
use super::exchange::short;
use super::words::{self, Refusal};

/// How long a refusal is believed.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Topics of an exchange that are remembered; with one more all are tried again.
const TOPICS_MAX: usize = 10_000;

/// How often one is tried when the broker is too quick to tell why it refuses.
const TRIES: usize = 3;

/// Channels that the broker may close on one connection before another one is opened.
const CLOSED_MAX: usize = 1_000;

/// See the module.
pub(super) struct Rights {
    context: Arc<Context>,
    /// The exchanges at which something was refused, all of them configured, with what is known of their topics.
    tried: HashMap<String, HashMap<String, Verdict>>,
    trial: Option<Trial>,
}

/// Where topics are tried.
struct Trial {
    live: Live,
    /// In a transaction.
    channel: Channel,
    /// How many the broker closed before it.
    closed: usize,
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
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, tried: HashMap::new(), trial: None }
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
            None => {
                self.note(exchange, topic, Verdict::Allowed);
                Ok(None)
            }
            Some(sentence) => {
                self.refused(exchange, topic, &sentence);
                Ok(Some(sentence))
            }
        }
    }

    async fn try_out(&mut self, exchange: &str, topic: &str) -> Result<Option<String>, Trouble> {
        for _ in 0..TRIES {
            let Trial { live, channel, .. } = self.trial().await?;
            let (exchange, topic, options) = (short(exchange)?, short(topic)?, BasicPublishOptions::default());
            let tried = async {
                channel.basic_publish(exchange, topic, options, &[], AMQPProperties::default()).await?;
                channel.tx_rollback().await
            };
            match tried.await {
                Ok(()) => return Ok(None),
                Err(error) if words::refusal(&error).is_some() => {
                    return Ok(Some(sentence(&words::quoted(&error))));
                }
                // The channel was closed before the question was asked that would have brought the reason.
                Err(_) if live.is_alive() => {}
                Err(error) => return Err(Trouble(words::quoted(&error))),
            }
        }
        Ok(Some(sentence("it closed the channel, and its log says why")))
    }

    /// A channel that is open, and a connection for it that has not lost too many.
    async fn trial(&mut self) -> Result<&mut Trial, Trouble> {
        let before = self.trial.take().filter(|trial| trial.live.is_alive());
        let trial = match before {
            Some(trial) if trial.channel.status().connected() => trial,
            Some(trial) if trial.closed < CLOSED_MAX => Trial::on(trial.live, trial.closed + 1).await?,
            spent => {
                if let Some(trial) = spent {
                    trial.live.close().await;
                }
                Trial::on(connection::connect(&self.context.settings.amqp, BrokerLink::Publish).await?, 0).await?
            }
        };
        Ok(self.trial.insert(trial))
    }

    fn note(&mut self, exchange: &str, topic: &str, verdict: Verdict) {
        let topics = self.tried.entry(exchange.to_owned()).or_default();
        if topics.len() >= TOPICS_MAX {
            topics.clear();
        }
        topics.insert(at(exchange, topic).to_owned(), verdict);
    }
}

impl Trial {
    async fn on(live: Live, closed: usize) -> Result<Self, Trouble> {
        let channel = live.channel().await?;
        channel.tx_select().await.map_err(|error| Trouble(words::quoted(&error)))?;
        Ok(Self { live, channel, closed })
    }
}

/// What stands for a topic. At the default exchange rights are on no topic, and one may be the address of somebody who waits
/// for an answer, whom even a message that is taken back would reach: there the empty one, which reaches no queue.
fn at<'a>(exchange: &str, topic: &'a str) -> &'a str {
    if exchange.is_empty() { "" } else { topic }
}
