//! Consuming a queue that is not ours: makes sure that nobody else does, unless it was told to share.

use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};

use crate::config::QueueInput;
use crate::source::Trouble;

use super::connection::Live;
use super::exchange::short;
use super::receive;
use super::words::{self, Refusal};

/// The argument of a consumer by which a queue is told from a stream.
pub(crate) const PRIORITY: &str = "x-priority";

/// What a consumer of a queue asks for: the priority that it has anyway, which a stream refuses. So what is a stream is
/// refused before it sends anything; to reject a message of one would end the connection, and with it every source.
pub(crate) fn of_a_queue() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(PRIORITY.into(), AMQPValue::LongInt(0));
    arguments
}

/// Why a queue is not consumed.
pub(crate) enum Denial {
    /// It is not there, or others have it: what it holds in the meantime may never come here.
    Elsewhere(Trouble),
    /// Anything else.
    Other(Trouble),
}

impl From<Trouble> for Denial {
    fn from(trouble: Trouble) -> Self {
        Self::Other(trouble)
    }
}

impl From<Denial> for Trouble {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Elsewhere(trouble) | Denial::Other(trouble) => trouble,
        }
    }
}

/// See the module.
pub(crate) struct Intake {
    input: QueueInput,
    section: String,
    prefetch: u16,
}

impl Intake {
    /// Of the queue that a section of the configuration names; with so many deliveries sent ahead.
    pub(crate) fn new(input: &QueueInput, section: &str, prefetch: u16) -> Self {
        Self { input: input.clone(), section: section.to_owned(), prefetch }
    }

    /// The queue's name.
    pub(crate) fn queue(&self) -> &str {
        &self.input.queue
    }

    /// Whether it has to be made by declaring it, so that whatever it held is gone.
    ///
    /// # Errors
    /// When the broker does not say; in words.
    pub(crate) async fn is_to_be_made(&self, live: &Live) -> Result<bool, Denial> {
        if !self.input.declare {
            return Ok(false);
        }
        let channel = live.channel().await?;
        match self.ask(live, &channel, false).await {
            Err(Denial::Elsewhere(_)) => Ok(true),
            Err(denial) => Err(denial),
            Ok(_) => {
                receive::close(&channel, "looked").await;
                Ok(false)
            }
        }
    }

    /// Declares or checks the queue; answers how many consume it.
    ///
    /// # Errors
    /// When it is not there, or the broker does not let us; in words.
    pub(crate) async fn consumers(&self, live: &Live, channel: &Channel) -> Result<u32, Denial> {
        self.ask(live, channel, self.input.declare).await
    }

    /// Whether it may consume beside so many others.
    pub(crate) fn bears(&self, others: u32) -> bool {
        others == 0 || self.input.shared
    }

    /// Gives up a channel, and with it whatever consumer it has, when there are others whom it does not bear.
    ///
    /// # Errors
    /// The contract's sentence.
    pub(crate) async fn refuse(&self, channel: &Channel, others: u32) -> Result<(), Denial> {
        if self.bears(others) {
            return Ok(());
        }
        receive::close(channel, "not alone").await;
        Err(Denial::Elsewhere(words::has_consumers(&self.input.queue, others)))
    }

    /// Starts consuming: exclusively where that can be had. A queue with a single active consumer refuses that, and a quorum
    /// queue accepts a second exclusive consumer without a word, so the count is looked at once more afterwards.
    ///
    /// # Errors
    /// When somebody else consumes it too, or the broker does not let us; in words.
    pub(crate) async fn open(&self, live: &Live, mut channel: Channel) -> Result<(Channel, Consumer), Denial> {
        let exclusively = !self.input.shared && !self.input.declare;
        let mut consumed = self.consume(&channel, exclusively).await;
        let is_refused = |error| matches!(words::refusal(error), Some(Refusal::InUse | Refusal::AccessRefused));
        if exclusively && consumed.as_ref().is_err_and(is_refused) {
            channel = live.channel().await?;
            let others = self.ask(live, &channel, false).await?;
            self.refuse(&channel, others).await?;
            consumed = self.consume(&channel, false).await;
        }
        let consumer = consumed.map_err(|error| self.denial(live, &error))?;
        let all = self.ask(live, &channel, false).await?;
        self.refuse(&channel, all.saturating_sub(1)).await?;
        Ok((channel, consumer))
    }

    async fn ask(&self, live: &Live, channel: &Channel, declare: bool) -> Result<u32, Denial> {
        let options = QueueDeclareOptions { passive: !declare, durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        if declare && !self.input.shared {
            // Of several nodes one consumes at a time, and the next takes over when it goes.
            arguments.insert(short("x-single-active-consumer")?, AMQPValue::Boolean(true));
        }
        let declared = channel.queue_declare(short(&self.input.queue)?, options, arguments).await;
        declared.map(|queue| queue.consumer_count()).map_err(|error| self.denial(live, &error))
    }

    async fn consume(&self, channel: &Channel, exclusive: bool) -> lapin::Result<Consumer> {
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
        let (queue, tag) = (self.input.queue.as_str().into(), "messages".into());
        channel.basic_consume(queue, tag, options, of_a_queue()).await
    }

    fn denial(&self, live: &Live, error: &lapin::Error) -> Denial {
        let trouble = words::of_queue(error, &self.input.queue, (&live.peer, &self.section));
        match words::refusal(error) {
            Some(Refusal::NotFound | Refusal::InUse | Refusal::Locked) => Denial::Elsewhere(trouble),
            _ => Denial::Other(trouble),
        }
    }
}
