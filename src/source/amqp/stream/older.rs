//! What a stream has and the log does not: fetched in pages by a few consumers, each on a channel of its own, for as long as
//! somebody wants to read there. The lowest want comes first, so that one pass over the stream serves all who read it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use lapin::message::Delivery;

use crate::config::{self, StreamInput};
use crate::hub::archive::{Archive, Fetch, Fetched, PAGE_BYTES, PAGE_MESSAGES, Stretch, page_bytes};
use crate::hub::feed::Feed;
use crate::model::publication::Publication;
use crate::model::stream;
use crate::source::Trouble;
use crate::source::amqp::Context;
use crate::source::amqp::connection::Live;
use crate::source::amqp::mapping::Mapper;
use crate::source::amqp::receive::{acknowledge, delivered, now};
use crate::source::amqp::words;

use super::attach::{self, Attached, Begin, FIRST_TIMEOUT, Terms};

/// Messages that the broker sends ahead.
const PREFETCH: u16 = 512;

/// Messages after which the broker is told that they have come.
const ACKNOWLEDGE_EVERY: usize = PREFETCH as usize / 4;

/// How long a consumer waits for the next page to be wanted.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// How long one message may take once the consumer stands.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the first message may take where the log has passed: it is there, or what follows it.
const PASSED_TIMEOUT: Duration = Duration::from_secs(3);

/// Between a fetch that failed and the next try.
const PAUSE: Duration = Duration::from_millis(500);

/// How often the time for a first message is doubled, after the broker was found to be late. A consumer that is given up
/// and asked for again begins from the start, so a broker with too much to do would never be waited for long enough.
const DOUBLINGS_MAX: u32 = 5;

/// See the module.
pub(super) struct Older<'a> {
    context: &'a Arc<Context>,
    source: config::Source,
    input: StreamInput,
}

/// One of the consumers.
struct Worker<'a> {
    live: &'a Live,
    feed: &'a Feed,
    stream: &'a str,
    mapper: Mapper,
    work: Work,
    /// What it still has open, and the position up to which it has read.
    open: Option<(Attached, u64)>,
    /// How often in a row the broker was late with a first message.
    late: u32,
}

/// Which places a worker looks at. Cursors from the future take their time, which must not be the time of those who read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Those that the log has passed.
    Passed,
    /// Those that it has not: cursors from a node that is ahead, or forged ones.
    Ahead,
}

impl<'a> Older<'a> {
    pub(super) fn new(context: &'a Arc<Context>, source: &config::Source, input: &StreamInput) -> Self {
        Self { context, source: source.clone(), input: input.clone() }
    }

    /// Fetches what is wanted, until it is dropped.
    pub(super) async fn run(&self, live: &Live, feed: &Feed) -> Infallible {
        let works = std::iter::repeat_n(Work::Passed, self.input.replays_max.max(1)).chain([Work::Ahead]);
        let worker = |work| Worker {
            live,
            feed,
            stream: &self.input.stream,
            mapper: Mapper::new(&self.source),
            work,
            open: None,
            late: 0,
        };
        join_all(works.map(worker).map(|mut worker| async move { worker.work(self.context).await })).await;
        std::future::pending().await
    }
}

impl Worker<'_> {
    async fn work(&mut self, context: &Context) {
        let Some(archive) = self.feed.archive() else { return };
        loop {
            // Asked again each time: what nobody here could take may lie where the log has passed by now.
            let fetch = loop {
                match tokio::time::timeout(IDLE_MAX, self.next(archive)).await {
                    Ok(fetch) => break fetch,
                    Err(_) => self.close().await,
                }
            };
            match self.fetch(&fetch).await {
                Ok(fetched) => {
                    self.late = 0;
                    context.metrics.stream_fetch(self.feed.info().id);
                    fetch.answer(fetched);
                    self.feed.answered();
                }
                Err(trouble) => {
                    self.close().await;
                    tracing::warn!(source = &*self.feed.info().name, "reading stream '{}': {trouble}", self.stream);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn next<'b>(&self, archive: &'b Archive) -> Fetch<'b> {
        let places = || match (self.work, self.feed.standing().end) {
            (Work::Passed, end) => 0..=end,
            (Work::Ahead, end) => end.saturating_add(1)..=u64::MAX,
        };
        archive.next(places).await
    }

    /// A page, or what became of the place after which it was wanted.
    async fn fetch(&mut self, fetch: &Fetch<'_>) -> Result<Fetched, Trouble> {
        let after = fetch.after();
        if self.open.as_ref().is_some_and(|(_, at)| *at == after) {
            return self.page(Stretch::default()).await.map(Fetched::Genuine);
        }
        self.close().await;
        let named = stream::named(after);
        let begin = named.unwrap_or_else(|| stream::following(after));
        // What the log has passed is there; of what it has not nobody knows.
        let patience = if after <= self.feed.standing().end { PASSED_TIMEOUT } else { FIRST_TIMEOUT };
        let patience = patience * 2_u32.pow(self.late.min(DOUBLINGS_MAX));
        let opened = Attached::open(self.live, self.stream, Begin::At(begin), Terms::older(PREFETCH, patience)).await;
        let mut attached = opened.map_err(|error| Trouble(words::quoted(&error)))?;
        let Some(mut first) = attached.take_first() else {
            attached.close().await;
            return self.nothing(after, begin).await;
        };
        let offset = stream::following(first.position) - 1;
        if offset == begin && named.is_some() {
            if first.position != after {
                attached.close().await;
                return Ok(Fetched::Foreign);
            }
            self.open = Some((attached, after));
            return self.page(Stretch::default()).await.map(Fetched::Genuine);
        }
        let publication = publication(&mut self.mapper, self.feed, first.position, &mut first.delivery);
        let until = end_of(first.position, publication.as_deref());
        self.open = Some((attached, until));
        let stretch = self.page(Stretch { publications: publication.into_iter().collect(), until }).await?;
        let is_cut = named.is_some() || stream::between(after, first.position).is_some();
        Ok(if is_cut { Fetched::Cut(offset, stretch) } else { Fetched::Genuine(stretch) })
    }

    /// What it means that nothing came from where somebody wants to read.
    async fn nothing(&mut self, after: u64, begin: u64) -> Result<Fetched, Trouble> {
        self.late += 1;
        let end = self.feed.standing().end;
        if after == 0 && end == 0 {
            return Ok(Fetched::Genuine(Stretch::default()));
        }
        if after <= end {
            // A segment that is dropped at this moment sends nothing, and another consumer begins behind it.
            return Err(Trouble("the broker sends nothing where there must be something: asking again".into()));
        }
        let reaches = attach::reaches(self.live, self.stream, begin, MESSAGE_TIMEOUT).await;
        if reaches.map_err(|error| Trouble(words::quoted(&error)))? {
            return Err(Trouble("the broker did not answer in time: asking again".into()));
        }
        // Nothing stands there yet, so nobody can have been given its position.
        Ok(Fetched::Foreign)
    }

    /// Reads on until the page is full, the log has what follows, or what follows was dropped from the stream: who asks for
    /// that with another consumer is told so.
    async fn page(&mut self, mut page: Stretch) -> Result<Stretch, Trouble> {
        let Some((attached, at)) = &mut self.open else { return Ok(page) };
        let (mut count, mut bytes) = (0, 0);
        while count < PAGE_MESSAGES && bytes < PAGE_BYTES && *at < self.feed.standing().floor {
            let Ok(next) = tokio::time::timeout(MESSAGE_TIMEOUT, attached.deliveries.next()).await else {
                return Err(Trouble("the broker does not send on".into()));
            };
            let mut delivery = delivered(next, &attached.deliveries)?;
            let position = attach::position(&delivery).ok_or_else(|| words::not_a_stream(self.stream))?;
            if let Some(missing) = stream::between(*at, position)
                && missing < attach::begins(self.live, self.stream).await?
            {
                self.close().await;
                // An empty page would vouch for what follows it.
                let is_empty = page.until == 0;
                return if is_empty { Err(Trouble("retention was faster: asking again".into())) } else { Ok(page) };
            }
            let data_bytes = delivery.data.len();
            let publication = publication(&mut self.mapper, self.feed, position, &mut delivery);
            (count, bytes) = (count + 1, bytes + publication.as_deref().map_or(data_bytes, page_bytes));
            // The broker sends on what was acknowledged.
            if count % ACKNOWLEDGE_EVERY == 0 || bytes >= PAGE_BYTES {
                acknowledge(&delivery.acker).await?;
            }
            *at = end_of(position, publication.as_deref());
            page.until = *at;
            page.publications.extend(publication);
        }
        Ok(page)
    }

    /// Ends the consumer that is still open.
    async fn close(&mut self) {
        if let Some((attached, _)) = self.open.take() {
            attached.close().await;
        }
    }
}

/// Where somebody stands who was given what is at a position. What cannot be mapped nobody knows by its mark.
fn end_of(position: u64, publication: Option<&Publication>) -> u64 {
    publication.map_or(stream::before(stream::following(position)), |publication| publication.offset)
}

/// What cannot be mapped was counted when it came live, and is passed over here.
fn publication(mapper: &mut Mapper, feed: &Feed, position: u64, delivery: &mut Delivery) -> Option<Arc<Publication>> {
    let draft = mapper.draft(delivery, now()).ok()?;
    Some(Arc::new(Publication { source: feed.info().clone(), offset: position, draft }))
}
