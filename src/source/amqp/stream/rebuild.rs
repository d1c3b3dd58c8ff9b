//! The last messages of each topic, which a node that has just started does not know: read once from the stream, as far back
//! as the configuration says, beside everything else.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::message::Delivery;

use crate::config::{self, StreamInput};
use crate::hub::feed::Feed;
use crate::model::publication::Publication;
use crate::model::stream;
use crate::source::amqp::connection::Live;
use crate::source::amqp::mapping::Mapper;
use crate::source::amqp::receive::{acknowledge, delivered, now};
use crate::source::amqp::words;
use crate::source::{Backoff, Trouble};

use super::attach::{self, Attached, Begin, START_TIMEOUT, Terms};

/// Messages that the broker sends ahead.
const PREFETCH: u16 = 1_000;

/// Messages that are acknowledged, and told to the log, together.
const BATCH: usize = 250;

/// Between two tries, at most.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Rebuild {
    source: config::Source,
    input: StreamInput,
    /// Whether it was done since the source began.
    done: Arc<AtomicBool>,
}

impl Rebuild {
    pub(super) fn new(source: &config::Source, input: &StreamInput, done: &Arc<AtomicBool>) -> Self {
        Self { source: source.clone(), input: input.clone(), done: done.clone() }
    }

    /// Reads what there is, then waits for ever. What fails is tried again, from the beginning.
    pub(super) async fn run(&self, live: &Live, feed: &Feed) -> Infallible {
        let is_wanted = self.source.log.last.each > 0 && !self.input.last_rebuild.is_zero();
        let mut backoff = Backoff::new(PAUSE_MAX);
        while is_wanted && !self.done.load(Ordering::Acquire) {
            let (name, began) = (&self.source.name, Instant::now());
            match self.read(live, feed).await {
                Ok(messages) => {
                    self.done.store(true, Ordering::Release);
                    let took = began.elapsed();
                    tracing::info!("source '{name}' knows the last messages again: {messages} read in {took:.1?}");
                }
                Err(trouble) => {
                    tracing::warn!("source '{name}' could not read its last messages, trying again: {trouble}");
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
        std::future::pending().await
    }

    async fn read(&self, live: &Live, feed: &Feed) -> Result<usize, Trouble> {
        let failed = |error: lapin::Error| Trouble(words::quoted(&error));
        let (name, begin) = (&self.input.stream, Begin::Ago(self.input.last_rebuild));
        let attached = Attached::open(live, name, begin, Terms::older(PREFETCH, START_TIMEOUT)).await;
        let mut attached = attached.map_err(failed)?;
        let Some(first) = attached.take_first() else {
            attached.close().await;
            // All that it holds may be older than what is asked for, but then its end is there.
            let end = stream::following(feed.standing().end);
            if end > 0 && !attach::reaches(live, name, end - 1, START_TIMEOUT).await.map_err(failed)? {
                return Err(Trouble("the broker sends nothing".into()));
            }
            return Ok(0);
        };
        let read = self.read_on(first.delivery, &mut attached, feed).await;
        // Whatever came of it: a channel that is only dropped would stay.
        attached.close().await;
        read
    }

    /// Reads from a delivery up to where the log begins; how many there were.
    async fn read_on(&self, first: Delivery, attached: &mut Attached, feed: &Feed) -> Result<usize, Trouble> {
        let (mut mapper, mut batch, mut messages) = (Mapper::new(&self.source), Vec::with_capacity(BATCH), 0);
        let mut next = Some(first);
        while let Some(mut delivery) = next {
            let position = attach::position(&delivery).ok_or_else(|| words::not_a_stream(&self.input.stream))?;
            let floor = feed.standing().floor;
            // From here on everything comes, or came, through the log.
            if position > floor {
                break;
            }
            messages += 1;
            if let Ok(draft) = mapper.draft(&mut delivery, now()) {
                batch.push(Arc::new(Publication { source: feed.info().clone(), offset: position, draft }));
            }
            if messages % BATCH == 0 {
                feed.remember(std::mem::take(&mut batch));
                acknowledge(&delivery.acker).await?;
            }
            // Once the log has let go of all that it held nothing may follow for long.
            if position == floor {
                break;
            }
            next = Some(delivered(attached.deliveries.next().await, &attached.deliveries)?);
        }
        feed.remember(batch);
        Ok(messages)
    }
}
