//! A stream source: a RabbitMQ stream, which everybody may read without taking anything away. Its offsets, with a mark of
//! the message there, are the log's positions, so a cursor is good on every node and after every start.
//!
//! The source begins with the stream's last chunk, so that an idle stream has a position too. After a lost link it begins
//! with the last message that it has, and looks whether that is still the same: if not, the stream was deleted and made
//! anew. What is older than the log is fetched from the stream when somebody wants it, in [`older`].

mod attach;
pub(super) mod declare;
mod older;
mod rebuild;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::message::Delivery;

use crate::config::{self, StreamInput};
use crate::hub::feed::{Feed, Meanwhile};
use crate::model::cursor::Epoch;
use crate::model::publication::Draft;
use crate::model::stream;
use crate::source::{Board, Source, Subject, Trouble};

use super::Context;
use super::connection::Live;
use super::mapping::Mapper;
use super::receive::{self, Complaints, cancel, delivered, now, take_ready};
use super::words;
pub(crate) use attach::OFFSET;
use attach::{Attached, Begin, FIRST_TIMEOUT, START_TIMEOUT, Terms};

/// A pause after which everything that a stream holds has come.
const QUIET: Duration = Duration::from_millis(300);

/// How long the source waits for that before it stands all the same.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(30);

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
    live: &'a Live,
    attached: Attached,
    /// The position of what came last; nothing before the first.
    at: Option<u64>,
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
                declare::make_sure_it_is_empty(live, &self.input, &self.section).await?;
            }
            return Ok(whole);
        }
        let following = stream::following(standing.end);
        let named = stream::named(standing.end);
        let offset = named.unwrap_or(following);
        let attached = open(Begin::At(offset)).await.map_err(failed)?;
        match attached.first() {
            Some(first) if first.position == standing.end => return Ok(attached),
            // What the stream begins with follows what is here, or what came between is cut off.
            Some(first) if stream::following(first.position) > offset + 1 => {
                if stream::between(standing.end, first.position).is_some() {
                    self.feed.cut(stream::following(first.position) - 1);
                }
                return Ok(attached);
            }
            _ if named.is_none() => return Ok(attached),
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
        self.feed.remade(anew.first().map_or(0, |first| stream::before(stream::following(first.position) - 1)));
        self.rebuilt.store(false, Ordering::Release);
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
        let is_new = declare::prepare(&self.context, live, (&self.input, &self.section)).await?;
        let attached = self.attach(live, is_new).await?;
        let (context, feed) = (self.context.clone(), self.feed.clone());
        let older = older::Older::new(&context, &self.source, &self.input);
        let rebuild = rebuild::Rebuild::new(&self.source, &self.input, &self.rebuilt);
        let mut reader = Reader { source: self, live, attached, at: None };
        let first = reader.attached.first().map_or(0, |first| stream::before(stream::following(first.position)));
        reader.take_first().await?;
        // What cannot be mapped is a place to begin with all the same.
        if !feed.standing().has_begun {
            feed.begin(first);
        }
        reader.take_what_is_there().await?;
        feed.link_up_bound(Instant::now());
        let (name, stream) = (&reader.source.source.name, &reader.source.input.stream);
        board.up(Subject::Source(name.clone()), format!("source '{name}' reads stream '{stream}'"));
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
                () = stop.cancelled() => {
                    cancel(&self.attached.channel, &self.attached.deliveries).await;
                    return Ok(());
                }
                next = self.attached.deliveries.next() => next,
            };
            self.take(next).await?;
        }
    }

    /// Takes a delivery, and what else is ready. A failure is told only after what came before it.
    async fn take(&mut self, next: Option<lapin::Result<Delivery>>) -> Result<(), Trouble> {
        let mut batch = vec![delivered(next, &self.attached.deliveries)?];
        let rest = take_ready(&mut self.attached.deliveries, &mut batch, |delivery| delivery);
        self.settle(batch).await?;
        rest.map(drop)
    }

    /// Appends what the log does not have yet, and acknowledges, which asks for more.
    async fn settle(&mut self, batch: Vec<Delivery>) -> Result<(), Trouble> {
        let StreamSource { feed, mapper, complaints, context, input, .. } = &mut *self.source;
        let source = feed.info().id;
        let (now, standing) = (now(), feed.standing());
        let mut at = self.at.or(standing.has_begun.then_some(standing.end));
        // Asked for once at most: what is there when the batch has come was not dropped before.
        let mut begins = None;
        let mut drafts: Vec<(u64, Draft)> = Vec::with_capacity(batch.len());
        let (mut last, mut messages, mut bytes) = (None, 0, 0);
        for mut delivery in batch {
            let position = attach::position(&delivery).ok_or_else(|| words::not_a_stream(&input.stream))?;
            last = Some(delivery.acker.clone());
            if position <= standing.end {
                continue;
            }
            if let Some(missing) = at.and_then(|at| stream::between(at, position))
                && is_dropped(self.live, &input.stream, missing, &mut begins).await?
            {
                feed.append_placed(std::mem::take(&mut drafts), now);
                feed.cut(stream::following(position) - 1);
            }
            at = Some(position);
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
        self.at = at;
        feed.append_placed(drafts, now);
        receive::settle(last, Vec::new()).await
    }
}

/// Whether an offset was left out because its message is gone; `begins` is where the stream begins, once that was asked for.
async fn is_dropped(live: &Live, stream: &str, offset: u64, begins: &mut Option<u64>) -> Result<bool, Trouble> {
    let begins = match begins {
        Some(begins) => *begins,
        None => *begins.insert(attach::begins(live, stream).await?),
    };
    Ok(offset < begins)
}
