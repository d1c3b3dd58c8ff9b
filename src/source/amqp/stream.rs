//! A stream source: a RabbitMQ stream, which everybody may read without taking anything away. Its offsets, with a mark of
//! the message there, are the log's positions, so a cursor is good on every node and after every start.
//!
//! The source begins with the stream's last chunk, so that an idle stream has a position too. After a lost link it begins
//! with the last message that it has, and looks whether that is still the same: if not, the stream was deleted and made
//! anew. What is older than the log is fetched from the stream when somebody wants it, in [`older`].

mod attach;
mod older;
mod rebuild;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};

use crate::config::{self, Bindings, StreamInput};
use crate::hub::feed::{Feed, Meanwhile};
use crate::model::cursor::Epoch;
use crate::model::gap::GapReason;
use crate::model::publication::Draft;
use crate::model::stream;
use crate::source::{Board, Source, Subject, Trouble};

use super::Context;
use super::connection::Live;
use super::exchange::short;
use super::mapping::Mapper;
use super::receive::{CANCEL_TIMEOUT, Complaints, delivered, now};
use super::words::{self, Refusal};
pub(crate) use attach::OFFSET;
use attach::{Attached, Begin, FIRST_TIMEOUT, START_TIMEOUT, Terms};

/// Deliveries that are taken, appended and acknowledged together at most.
const BATCH_MAX: usize = 250;

/// A pause after which everything that a stream holds has come.
const QUIET: Duration = Duration::from_millis(300);

/// How long the source waits for that before it stands all the same.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Segments that a stream's bytes are divided into: the stream drops whole ones only, so a finer division keeps closer to
/// the bound.
const SEGMENTS: u64 = 8;

/// Bytes of a segment at least and at most.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=500 << 20;

/// See the module.
pub(crate) struct StreamSource {
    context: Arc<Context>,
    feed: Feed,
    source: config::Source,
    section: String,
    input: StreamInput,
    mapper: Mapper,
    complaints: Complaints,
    /// Whether the last messages of each topic were read since the start.
    rebuilt: Arc<AtomicBool>,
}

/// Reads a stream for a moment, which anything else that has its name refuses.
///
/// # Errors
/// The broker's refusal.
pub(super) async fn look(live: &Live, stream: &str) -> lapin::Result<()> {
    Attached::open(live, stream, Begin::LastChunk, Terms::older(1, Duration::ZERO)).await?.close().await;
    Ok(())
}

/// The number that says in every cursor which source's stream it is from; the same on every node.
pub(super) fn epoch(stream: &str) -> Epoch {
    Epoch(attach::hash_of_name(stream))
}

/// What one link's end of a stream consists of.
struct Reader<'a> {
    source: &'a mut StreamSource,
    attached: Attached,
}

impl StreamSource {
    /// The source that is configured so.
    pub(crate) fn new(context: Arc<Context>, feed: Feed, source: &config::Source, input: &StreamInput) -> Self {
        Self {
            context,
            feed,
            source: source.clone(),
            section: format!("source.{}", source.name),
            input: input.clone(),
            mapper: Mapper::new(source),
            complaints: Complaints::new(&source.name),
            rebuilt: Arc::default(),
        }
    }

    /// Makes sure that there is the stream, declares it if that is wanted, and binds it to the exchange if it names one.
    /// Whether it is new, and so certainly empty.
    async fn prepare(&self, live: &Live) -> Result<bool, Trouble> {
        let input = &self.input;
        let mut channel = live.channel().await?;
        let mut is_new = false;
        match self.declare(&channel, FieldTable::default(), true).await {
            Err(error) if input.declare && words::refusal(&error) == Some(Refusal::NotFound) => {
                channel = live.channel().await?;
                is_new = true;
            }
            asked => _ = asked.map_err(|error| self.trouble(live, &error))?,
        }
        if input.declare {
            let declared = self.declare(&channel, retention(input)?, false).await;
            declared.map_err(|error| self.trouble(live, &error))?;
        }
        if let Some(exchange) = &input.exchange {
            for key in binding_keys(&input.bindings) {
                let (queue, name, key) = (short(&input.stream)?, short(exchange)?, short(&key)?);
                let bound = channel.queue_bind(queue, name, key, QueueBindOptions::default(), FieldTable::default());
                bound.await.map_err(|error| words::of_exchange(&error, exchange, (&live.peer, &self.section)))?;
            }
        }
        // The channel did what it was for.
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, channel.close(200, "prepared".into())).await;
        Ok(is_new)
    }

    /// A broker with much to do may send nothing for long. Whoever took its stream for empty would take what it holds for new.
    async fn make_sure_it_is_empty(&self, live: &Live) -> Result<(), Trouble> {
        let channel = live.channel().await?;
        let counted = self.declare(&channel, FieldTable::default(), true).await;
        let messages = counted.map_err(|error| self.trouble(live, &error))?;
        // The channel did what it was for.
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, channel.close(200, "counted".into())).await;
        if messages > 0 {
            let stream = &self.input.stream;
            return Err(Trouble(format!("stream '{stream}' holds messages and RabbitMQ sends none yet: trying again")));
        }
        Ok(())
    }

    /// Declares the stream, or only asks for it; how many messages the broker has counted in it, as of some seconds ago.
    async fn declare(&self, channel: &Channel, arguments: FieldTable, passive: bool) -> lapin::Result<u32> {
        let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
        let name = short(&self.input.stream).map_err(|trouble| std::io::Error::other(trouble.0))?;
        channel.queue_declare(name, options, arguments).await.map(|queue| queue.message_count())
    }

    /// Begins where the log ends, and sees to it that it is the same stream.
    async fn attach(&self, live: &Live, is_new: bool) -> Result<Attached, Trouble> {
        let standing = self.feed.standing();
        let terms = |patience| Terms { tag: "messages", prefetch: self.context.settings.amqp.prefetch, patience };
        let patience = if is_new { FIRST_TIMEOUT } else { START_TIMEOUT };
        let open = |begin| Attached::open(live, &self.input.stream, begin, terms(patience));
        let failed = |error: lapin::Error| self.trouble(live, &error);
        if !standing.has_begun {
            let last = Attached::open(live, &self.input.stream, Begin::LastChunk, terms(FIRST_TIMEOUT)).await;
            let last = last.map_err(failed)?;
            if is_new || last.first().is_some() {
                return Ok(last);
            }
            // Right after the stream began a new segment it has no last chunk, though it holds messages.
            last.close().await;
            let whole = open(Begin::First).await.map_err(failed)?;
            if whole.first().is_none() {
                self.make_sure_it_is_empty(live).await?;
            }
            return Ok(whole);
        }
        let Some(offset) = stream::named(standing.end) else {
            return open(Begin::At(stream::following(standing.end))).await.map_err(failed);
        };
        let attached = open(Begin::At(offset)).await.map_err(failed)?;
        match attached.first() {
            Some(first) if first.position == standing.end => return Ok(attached),
            Some(first) if stream::following(first.position) > offset + 1 => {
                self.feed.hole(GapReason::Expired, None);
                return Ok(attached);
            }
            _ => {}
        }
        // There is another message in its place, or the stream does not reach as far: so it says when asked for its end.
        let is_silent = attached.first().is_none();
        attached.close().await;
        if is_silent && attach::reaches(live, &self.input.stream, offset, patience).await.map_err(failed)? {
            return Err(Trouble(format!("stream '{}' did not answer in time: trying again", self.input.stream)));
        }
        let anew = open(Begin::LastChunk).await.map_err(failed)?;
        tracing::warn!(
            source = self.source.name,
            "stream '{}' is another one than before: it was deleted and made anew; clients are told of a gap",
            self.input.stream
        );
        self.feed.remade();
        self.rebuilt.store(false, Ordering::Release);
        if anew.first().is_none() {
            self.feed.begin_empty();
        }
        Ok(anew)
    }

    fn trouble(&self, live: &Live, error: &lapin::Error) -> Trouble {
        words::of_stream(error, &self.input.stream, (&live.peer, &self.section))
    }
}

impl Source for StreamSource {
    type Link = Arc<Live>;

    fn name(&self) -> &str {
        &self.source.name
    }

    async fn run(&mut self, live: &Arc<Live>, board: &Board) -> Result<(), Trouble> {
        let is_new = self.prepare(live).await?;
        let attached = self.attach(live, is_new).await?;
        let (context, feed) = (self.context.clone(), self.feed.clone());
        let older = older::Older::new(&context, &self.source, &self.input);
        let rebuild = rebuild::Rebuild::new(&self.source, &self.input, &self.rebuilt);
        let mut reader = Reader { source: self, attached };
        reader.take_first().await?;
        if !feed.standing().has_begun {
            feed.begin_empty();
        }
        reader.take_what_is_there().await?;
        feed.link_up_bound(Instant::now());
        let (name, stream) = (&reader.source.source.name, &reader.source.input.stream);
        board.up(Subject::Source(name.clone()), format_args!("source '{name}' reads stream '{stream}'"));
        tokio::select! {
            ended = reader.run() => ended,
            never = older.run(live, &feed) => match never {},
            never = rebuild.run(live, &feed) => match never {},
        }
    }

    fn lost(&mut self) {
        self.feed.link_down(Meanwhile::Kept);
        self.context.metrics.source_unsettled(self.feed.info().id, 0);
    }
}

impl Reader<'_> {
    /// What was looked at to see where the stream stands.
    async fn take_first(&mut self) -> Result<(), Trouble> {
        match self.attached.take_first() {
            Some(first) => self.settle(vec![first.delivery]).await,
            None => Ok(()),
        }
    }

    /// Where the whole stream is read, before anybody is told that the source stands: so nothing old comes as if it were
    /// live, unless there is no end of it.
    async fn take_what_is_there(&mut self) -> Result<(), Trouble> {
        let end = Instant::now() + WHOLE_TIMEOUT;
        while self.attached.is_whole() && Instant::now() < end {
            let Ok(next) = tokio::time::timeout(QUIET, self.attached.deliveries.next()).await else { return Ok(()) };
            self.take(next).await?;
        }
        Ok(())
    }

    async fn run(&mut self) -> Result<(), Trouble> {
        let stop = self.source.context.sources_stop.clone();
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return self.cancel().await,
                next = self.attached.deliveries.next() => next,
            };
            self.take(next).await?;
        }
    }

    /// Takes a delivery, and what else is ready. A failure is told only after what came before it.
    async fn take(&mut self, next: Option<lapin::Result<Delivery>>) -> Result<(), Trouble> {
        let mut batch = vec![delivered(next, &self.attached.deliveries)?];
        let mut failure = None;
        while batch.len() < BATCH_MAX && failure.is_none() {
            let Some(next) = self.attached.deliveries.next().now_or_never() else { break };
            match delivered(next, &self.attached.deliveries) {
                Ok(delivery) => batch.push(delivery),
                Err(trouble) => failure = Some(trouble),
            }
        }
        self.settle(batch).await?;
        failure.map_or(Ok(()), Err)
    }

    /// Appends what the log does not have yet, and acknowledges, which asks for more.
    async fn settle(&mut self, batch: Vec<Delivery>) -> Result<(), Trouble> {
        let StreamSource { feed, mapper, complaints, context, input, .. } = &mut *self.source;
        let source = feed.info().id;
        let (now, end) = (now(), feed.standing().end);
        let mut drafts: Vec<(u64, Draft)> = Vec::with_capacity(batch.len());
        let (mut last, mut messages, mut bytes) = (None, 0, 0);
        for mut delivery in batch {
            let position = attach::position(&delivery).ok_or_else(|| words::not_a_stream(&input.stream))?;
            last = Some(delivery.acker.clone());
            if position <= end {
                continue;
            }
            messages += 1;
            bytes += delivery.data.len() as u64;
            match mapper.draft(&mut delivery, now) {
                Ok(draft) => drafts.push((position, draft)),
                Err(reason) => {
                    context.metrics.source_rejected(source, reason);
                    complaints.rejected(reason, &delivery);
                }
            }
        }
        context.metrics.source_received(source, messages, bytes);
        feed.append_placed(drafts, now);
        if let Some(acker) = last {
            let acknowledged = acker.ack(BasicAckOptions { multiple: true }).await;
            acknowledged.map_err(|error| Trouble(words::quoted(&error)))?;
        }
        Ok(())
    }

    async fn cancel(&self) -> Result<(), Trouble> {
        let tag = self.attached.deliveries.tag();
        let cancelled = self.attached.channel.basic_cancel(tag, BasicCancelOptions::default());
        // A broker that is gone has ended it by itself.
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await;
        Ok(())
    }
}

/// The arguments of a stream that we declare.
fn retention(input: &StreamInput) -> Result<FieldTable, Trouble> {
    let whole = |number: u64| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    let segment = (input.retention_bytes / SEGMENTS).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
    let mut arguments = FieldTable::default();
    for (name, value) in [
        ("x-queue-type", text("stream")),
        ("x-max-age", text(&format!("{}s", input.retention_age.as_secs().max(1)))),
        ("x-max-length-bytes", whole(input.retention_bytes)),
        ("x-stream-max-segment-size-bytes", whole(segment)),
    ] {
        arguments.insert(short(name)?, value);
    }
    Ok(arguments)
}

/// The keys with which the stream is bound; fanout and headers exchanges do not look at them.
fn binding_keys(bindings: &Bindings) -> Vec<String> {
    match bindings {
        Bindings::List(patterns) => patterns.iter().map(ToString::to_string).collect(),
        Bindings::All | Bindings::OnDemand => vec!["#".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn segments_follow_the_retention_within_what_the_broker_takes() {
        let argument = |bytes| {
            let input = StreamInput { retention_bytes: bytes, ..StreamInput::new("s") };
            let arguments = retention(&input).unwrap();
            arguments.inner().get("x-stream-max-segment-size-bytes").cloned()
        };
        assert_eq!(argument(8 << 20), Some(AMQPValue::LongLongInt(1 << 20)));
        assert_eq!(argument(1), Some(AMQPValue::LongLongInt(64 << 10)));
        assert_eq!(argument(u64::MAX), Some(AMQPValue::LongLongInt(500 << 20)));
    }

    #[test]
    fn retention_by_age_is_told_in_seconds() {
        let input = StreamInput { retention_age: Duration::from_millis(1), ..StreamInput::new("s") };
        let arguments = retention(&input).unwrap();
        assert_eq!(arguments.inner().get("x-max-age"), Some(&AMQPValue::LongString(LongString::from("1s"))));
    }
}
