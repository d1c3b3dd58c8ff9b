//! What a client consumes: deliveries of a queue that it settles itself, and what is said about them on the way.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::outgoing::Reply;
use crate::model::publication::Draft;
use crate::model::topic::{Pattern, Topic};

/// Names one delivery to the one client that holds it. The broker's own tag is never in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryTag {
    /// Drawn for each channel, so that a tag from before a lost link, or of another session, names nothing.
    pub link: u64,
    /// Counted on that channel.
    pub number: u64,
}

/// A message that a client holds until it settles it.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its name.
    pub tag: DeliveryTag,
    /// The queue as the client called it.
    pub queue: Arc<str>,
    /// The message.
    pub draft: Draft,
}

/// What a client says of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Done with.
    Acknowledge,
    /// Back to its queue.
    Requeue,
    /// Gone, or to the dead letters where the queue has some.
    Discard,
}

/// A group of clients that share what a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// The whole as the client calls it.
    pub name: String,
    /// The group's name.
    pub group: Box<str>,
    /// The topics that it wants.
    pub pattern: Pattern,
}

/// A queue to be consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumeRequest {
    /// Its name at the broker.
    pub queue: Topic,
    /// Its name as the client said it.
    pub asked: Arc<str>,
    /// Deliveries that the client may hold.
    pub prefetch: u16,
    /// Whether nobody else may consume it meanwhile, on whatever node.
    pub exclusive: bool,
    /// Whose it is.
    pub origin: QueueOrigin,
    /// How long one delivery may be held.
    pub hold_max: Duration,
}

impl ConsumeRequest {
    /// The queue, where it is a group's own.
    pub fn group_queue(&self) -> Option<&Topic> {
        matches!(self.origin, QueueOrigin::Group { .. }).then_some(&self.queue)
    }

    /// What a message of this exchange is called that has no routing key: a group's as the source calls it.
    pub fn topic_of_empty_key(&self, exchange: &str) -> &Topic {
        let QueueOrigin::Group { bindings, .. } = &self.origin else { return &self.queue };
        let of_exchange = bindings.iter().find(|binding| binding.exchange == exchange);
        // One exchange may be bound to another, of which the message does not tell.
        of_exchange.or(bindings.first()).map_or(&self.queue, |binding| &binding.topic_of_empty_key)
    }
}

/// Whose a queue is that clients consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueOrigin {
    /// The configuration opens it.
    Opened {
        /// In this section.
        section: Arc<str>,
        /// Whether it is declared, and how.
        declaration: Option<QueueDeclaration>,
    },
    /// It is a group's own.
    Group {
        /// How it is declared.
        declaration: QueueDeclaration,
        /// What it is bound to.
        bindings: Vec<QueueBinding>,
    },
}

/// How a queue is declared: durable, and gone when nobody consumed it for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDeclaration {
    /// That time; `None` keeps it for good.
    pub expires: Option<Duration>,
}

/// What brings messages into a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueBinding {
    /// The exchange.
    pub exchange: String,
    /// The binding key.
    pub key: String,
    /// The section of the configuration that names the exchange.
    pub section: Arc<str>,
    /// What the source that reads the exchange calls a message without a routing key: itself.
    pub topic_of_empty_key: Topic,
}

/// What a session wants of a queue that it consumes.
#[derive(Debug, Clone, PartialEq)]
pub enum ConsumeOrder {
    /// Settle one delivery; answered with [`ConsumeNews::Settled`].
    Settle(DeliveryTag, Settlement),
    /// Send this to whoever asked by one delivery, if it says where to, and acknowledge it; answered likewise.
    Answer(DeliveryTag, Reply),
    /// Bring no more; answered with [`ConsumeNews::Stopped`]. What is held can still be settled.
    Stop,
}

/// What a session is told of a queue that it consumes.
#[derive(Debug, Clone, PartialEq)]
pub enum ConsumeNews {
    /// It is consumed, for the first time or again.
    Stands,
    /// The broker is away, or took the consumer away. Nothing is held any more; it goes on by itself.
    Away,
    /// A delivery, held from now on.
    Delivered(Box<Delivery>),
    /// What became of a settlement: whether the broker was told.
    Settled(DeliveryTag, Settled),
    /// Held for too long, so it went back to the queue.
    Expired(DeliveryTag),
    /// No more will come.
    Stopped,
    /// It is over. Nothing is held any more.
    Ended(ConsumeRefusal),
}

/// Whether the broker was told of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It was.
    Told,
    /// The delivery was no longer ours to settle.
    Stale,
    /// The answer cannot be sent, for the reason in words. The delivery is held as before.
    Refused(String),
}

/// Why a queue cannot be consumed, in a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumeRefusal {
    /// There is no such queue.
    NotFound(String),
    /// The broker does not allow it.
    Refused(String),
    /// Somebody else consumes it, and one of the two would be alone.
    InUse(String),
    /// A limit of this server, or of its connection.
    Limit(String),
    /// The broker side is stopping or overrun.
    Unavailable(String),
}

impl fmt::Display for DeliveryTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:x}.{:x}", self.link, self.number)
    }
}

/// Not a tag that was ever given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoTag;

impl FromStr for DeliveryTag {
    type Err = NoTag;

    fn from_str(text: &str) -> Result<Self, NoTag> {
        let (link, number) = text.split_once('.').ok_or(NoTag)?;
        let read = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| NoTag);
        let tag = Self { link: read(link)?, number: read(number)? };
        // One tag has one spelling.
        if tag.to_string() == text { Ok(tag) } else { Err(NoTag) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tags_read_back(link: u64, number: u64) {
            let tag = DeliveryTag { link, number };
            prop_assert_eq!(tag.to_string().parse(), Ok(tag));
        }

        #[test]
        fn any_other_text_is_none(text in "[0-9a-fA-F+. ]{0,20}") {
            if let Ok(tag) = text.parse::<DeliveryTag>() {
                prop_assert_eq!(tag.to_string(), text);
            }
        }
    }
}
