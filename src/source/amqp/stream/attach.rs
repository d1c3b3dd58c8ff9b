//! A consumer of a stream from a place on, with the first message that comes: it tells whether the place is what somebody
//! thinks it is.

use std::hash::Hasher;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, Consumer};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::model::stream;
use crate::source::Trouble;
use crate::source::amqp::connection::Live;
use crate::source::amqp::{receive, words};

/// The header, and the consumer's argument, with a stream's offset.
pub(crate) const OFFSET: &str = "x-stream-offset";

/// How long the first message may take where there may be none. The broker sends it with its consent, if there is one.
pub(super) const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// How long it may take at the start, where nothing else tells whether the stream is empty.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the broker may take to consent to a consumer. It looks into the stream's files meanwhile, which it may be cutting.
const CONSENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages of a last chunk that the broker sends ahead.
const CHUNK_PREFETCH: u16 = 512;

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin {
    /// With the chunk that holds the last message.
    LastChunk,
    /// With the first message that there is.
    First,
    /// At an offset, or with the first after it that there is.
    At(u64),
    /// With the first that is no older than this, as far as chunks tell.
    Ago(Duration),
}

/// How to attach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// The consumer's tag: what operators see.
    pub(super) tag: &'static str,
    /// Messages that the broker sends ahead.
    pub(super) prefetch: u16,
    /// How long the first message may take.
    pub(super) patience: Duration,
}

impl Terms {
    /// For a consumer that looks up what is older than the log.
    pub(super) fn older(prefetch: u16, patience: Duration) -> Self {
        Self { tag: "older", prefetch, patience }
    }
}

/// A consumer of a stream on a channel of its own.
pub(super) struct Attached {
    pub(super) channel: Channel,
    pub(super) deliveries: Consumer,
    first: Option<First>,
    begin: Begin,
}

/// The first message that came.
pub(super) struct First {
    pub(super) position: u64,
    pub(super) delivery: Delivery,
}

impl Attached {
    /// Attaches, and waits for the first message; there is none where the stream does not reach as far.
    pub(super) async fn open(live: &Live, stream: &str, begin: Begin, terms: Terms) -> lapin::Result<Self> {
        let other = |trouble: Trouble| lapin::Error::from(std::io::Error::other(trouble.0));
        let channel = live.channel().await.map_err(other)?;
        let consented = tokio::time::timeout(CONSENT_TIMEOUT, consume(&channel, stream, begin, terms)).await;
        let mut deliveries = match consented {
            Ok(consented) => consented?,
            Err(_) => {
                receive::close(&channel, "no answer").await;
                return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
            }
        };
        let first = match tokio::time::timeout(terms.patience, deliveries.next()).await {
            Ok(Some(Ok(delivery))) => position(&delivery).map(|position| First { position, delivery }),
            Ok(Some(Err(error))) => return Err(error),
            Ok(None) | Err(_) => None,
        };
        Ok(Self { channel, deliveries, first, begin })
    }

    /// Ends it, and with it whatever the broker has sent ahead. A dropped channel would stay.
    pub(super) async fn close(self) {
        receive::close(&self.channel, "read").await;
    }

    /// Reads until an offset has come, and throws away what comes; false where it ends before.
    async fn read_to(&mut self, offset: u64) -> lapin::Result<bool> {
        let Some(First { mut position, mut delivery }) = self.first.take() else { return Ok(false) };
        while stream::following(position) <= offset {
            delivery.acker.ack(BasicAckOptions::default()).await?;
            let Some(next) = self.deliveries.next().await else { return Ok(false) };
            delivery = next?;
            position = self::position(&delivery).unwrap_or(position);
        }
        Ok(true)
    }

    /// Whether it reads the stream from its first message on.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.begin, Begin::First)
    }

    /// The first message, if it was not taken.
    pub(super) fn first(&self) -> Option<&First> {
        self.first.as_ref()
    }

    /// Takes it.
    pub(super) fn take_first(&mut self) -> Option<First> {
        self.first.take()
    }
}

/// Asks for a consumer, and waits for the broker's consent.
async fn consume(channel: &Channel, stream: &str, begin: Begin, terms: Terms) -> lapin::Result<Consumer> {
    channel.basic_qos(terms.prefetch, BasicQosOptions::default()).await?;
    let argument = match begin {
        Begin::LastChunk => AMQPValue::LongString(LongString::from("last")),
        Begin::First => AMQPValue::LongString(LongString::from("first")),
        Begin::Ago(age) => AMQPValue::LongString(LongString::from(format!("{}s", age.as_secs().max(1)))),
        Begin::At(offset) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
    };
    let mut arguments = FieldTable::default();
    arguments.insert(OFFSET.into(), argument);
    channel.basic_consume(stream.into(), terms.tag.into(), BasicConsumeOptions::default(), arguments).await
}

/// Whether a stream goes as far as an offset, to judge by its last chunk. Nothing that came from there may only have come
/// late, from a broker with much to do; when the broker has begun to send a chunk, the rest of it follows at once.
pub(super) async fn reaches(live: &Live, stream: &str, offset: u64, patience: Duration) -> lapin::Result<bool> {
    let mut last = Attached::open(live, stream, Begin::LastChunk, Terms::older(CHUNK_PREFETCH, patience)).await?;
    let reaches = tokio::time::timeout(FIRST_TIMEOUT, last.read_to(offset)).await.unwrap_or(Ok(false));
    last.close().await;
    reaches
}

/// The offset that a stream begins with now; nothing below the highest where the broker sends nothing, for then it is
/// dropping at this moment.
///
/// This tells a consumer what it has missed where offsets are left out: RabbitMQ goes on with what is left when retention
/// overtakes a consumer, and says nothing; but it also leaves out those at which it keeps how far others have read.
///
/// # Errors
/// The broker's refusal, in words.
pub(super) async fn begins(live: &Live, stream: &str) -> Result<u64, Trouble> {
    let begin = Attached::open(live, stream, Begin::First, Terms::older(1, START_TIMEOUT)).await;
    let begin = begin.map_err(|error| Trouble(words::quoted(&error)))?;
    let offset = begin.first().map_or(u64::MAX, |first| stream::following(first.position) - 1);
    begin.close().await;
    Ok(offset)
}

/// The position of a message that came from a stream; nothing for one that came from no stream.
pub(super) fn position(delivery: &Delivery) -> Option<u64> {
    let headers = delivery.properties.headers().as_ref()?;
    let offset = match headers.inner().get(OFFSET)? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok()?,
        _ => return None,
    };
    stream::position(offset, hash(delivery))
}

/// A number for a stream's name, short enough for a cursor.
pub(super) fn hash_of_name(stream: &str) -> u64 {
    xxh3_64(stream.as_bytes()) >> 32
}

/// The same on every node and after every update: only what the publisher sent is looked at.
fn hash(delivery: &Delivery) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.write(delivery.routing_key.as_str().as_bytes());
    // No name holds a zero byte, so what stands on either side of it is told apart.
    hasher.write(&[0]);
    let message_id = delivery.properties.message_id().as_ref().map(|id| id.as_str().as_bytes());
    hasher.write(message_id.unwrap_or_default());
    hasher.write(&[0]);
    hasher.write(&delivery.properties.timestamp().unwrap_or_default().to_le_bytes());
    hasher.write(&delivery.data);
    hasher.finish()
}
