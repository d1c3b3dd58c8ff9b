//! Moves a queue's messages into a stream, from which all nodes read them. One node does it at a time; a message is
//! acknowledged once the stream has it, so none is lost, and what the queue gives again is marked as that.
//!
//! It consumes and publishes on one channel: whatever ends it ends both, so that a node which has lost its turn cannot
//! publish behind the one that has it now. That channel is of the connection that publishes: a broker in need stops
//! everything on it, and then there is nothing to be moved either.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Acker, Channel, Confirmation, Consumer, PublisherConfirm};

use crate::config::{self, QueueInput, Rejected, StreamInput};
use crate::metrics::Rejection;
use crate::model::publication::SourceId;
use crate::model::topic::Topic;
use crate::source::{Board, Source, Subject, Trouble};

use super::Context;
use super::connection::{ANSWER_TIMEOUT, Live};
use super::exchange::short;
use super::inspect::{ID_HEADER, REDELIVERED_HEADER};
use super::intake::Intake;
use super::mapping::{self, Mapper};
use super::marks::Place;
use super::publisher::too_large;
use super::receive::{self, Complaints, delivered, take_ready};
use super::stream::{OFFSET, declare};
use super::turn::Turn;
use super::words;

/// Between two looks at whether the queue is free.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a stream adds to a message's headers, without which no node can read it: a name and its length, a type, the offset.
const OFFSET_BYTES: usize = 1 + OFFSET.len() + 1 + size_of::<u64>();

/// See the module.
pub(crate) struct Relay {
    context: Arc<Context>,
    id: SourceId,
    name: String,
    section: String,
    stream: StreamInput,
    intake: Intake,
    rejected: Rejected,
    mapper: Mapper,
    complaints: Complaints,
}

/// What was taken from the queue and not yet settled.
struct Moving {
    /// Nothing where there is nothing to be had from the broker.
    confirm: Option<PublisherConfirm>,
    acker: Acker,
}

impl Relay {
    /// From the queue into the stream of the source that is configured so.
    pub(crate) fn new(
        context: Arc<Context>,
        id: SourceId,
        source: &config::Source,
        (queue, stream): (&QueueInput, &StreamInput),
    ) -> Self {
        let section = format!("source.{}", source.name);
        Self {
            intake: Intake::new(queue, &section, context.settings.amqp.prefetch),
            context,
            id,
            name: source.name.clone(),
            section,
            stream: stream.clone(),
            rejected: source.rejected,
            mapper: Mapper::of_queue(source, &queue.queue),
            complaints: Complaints::new(&source.name),
        }
    }

    /// Waits until no other node does it. Nothing at the stop.
    async fn turn(&self, live: &Live, board: &Board) -> Result<Option<Turn>, Trouble> {
        let prefix = &self.context.settings.amqp.queue_prefix;
        let (queue, stream) = (self.intake.queue(), &self.stream.stream);
        let channel = live.channel().await?;
        loop {
            // Before anything is taken: whether the queue is there.
            self.intake.consumers(live, &channel).await?;
            if let Some(turn) = Turn::take(live, prefix, queue).await? {
                receive::close(&channel, "looked").await;
                return Ok(Some(turn));
            }
            let name = &self.name;
            let words = format!("source '{name}': another node moves queue '{queue}' into stream '{stream}'");
            board.up(self.subject(), words);
            tokio::select! {
                freed = self.freed(live, &channel) => freed?,
                () = self.context.sources_stop.cancelled() => return Ok(None),
            }
        }
    }

    /// Waits until nobody consumes the queue, at least for a moment.
    async fn freed(&self, live: &Live, channel: &Channel) -> Result<(), Trouble> {
        loop {
            tokio::time::sleep(LOOK_EVERY.mul_f64(0.5 + fastrand::f64())).await;
            if self.intake.consumers(live, channel).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Moves until the stop (`Ok`) or until something fails.
    async fn serve(&mut self, live: &Arc<Live>, board: &Board) -> Result<(), Trouble> {
        let channel = live.channel().await?;
        self.nobody_else(live, &channel).await?;
        let (channel, deliveries) = self.intake.open(live, channel).await?;
        let (name, queue, stream) = (&self.name, self.intake.queue(), &self.stream.stream);
        board.up(self.subject(), format!("source '{name}' moves queue '{queue}' into stream '{stream}'"));
        let ended = self.move_all(live, &channel, deliveries).await;
        // Back to the queue goes what is unsettled, before it is another node's turn.
        receive::close(&channel, "moved").await;
        ended
    }

    /// It is our turn, so whoever consumes is a stranger, unless it is the last node's consumer, which the broker is about
    /// to end.
    async fn nobody_else(&self, live: &Live, channel: &Channel) -> Result<(), Trouble> {
        let mut others = self.intake.consumers(live, channel).await?;
        if !self.intake.bears(others) {
            tokio::time::sleep(LOOK_EVERY).await;
            others = self.intake.consumers(live, channel).await?;
        }
        Ok(self.intake.refuse(channel, others).await?)
    }

    async fn move_all(&mut self, live: &Arc<Live>, channel: &Channel, mut from: Consumer) -> Result<(), Trouble> {
        let confirming = channel.confirm_select(ConfirmSelectOptions::default()).await;
        confirming.map_err(|error| Trouble(words::quoted(&error)))?;
        // What came back on an older channel of this number is none of ours.
        live.returned.take_any(channel.id());
        let stop = self.context.sources_stop.clone();
        self.context.metrics.relay_began(self.id);
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                next = from.next() => next,
            };
            let mut batch = vec![delivered(next, &from)?];
            let rest = take_ready(&mut from, &mut batch, |delivery| delivery);
            tokio::select! {
                moved = self.move_batch(live, channel, batch) => moved?,
                trouble = silence(live) => return Err(trouble),
            }
            rest?;
        }
    }

    /// Publishes all, waits until the stream has them, and only then acknowledges.
    async fn move_batch(&mut self, live: &Arc<Live>, channel: &Channel, batch: Vec<Delivery>) -> Result<(), Trouble> {
        let (mut moving, mut refused, mut sent) = (Vec::with_capacity(batch.len()), Vec::new(), Ok(()));
        for mut delivery in batch {
            let acker = delivery.acker.clone();
            let confirm = match self.fit(live, &mut delivery) {
                Ok(message) => match self.publish(channel, message, &delivery.data).await {
                    Ok(confirm) => Some(confirm),
                    Err(trouble) => {
                        sent = Err(trouble);
                        break;
                    }
                },
                Err(reason) => {
                    self.context.metrics.source_rejected(self.id, reason);
                    self.complaints.rejected(reason, &delivery);
                    if self.rejected == Rejected::DeadLetter {
                        refused.push(acker);
                        continue;
                    }
                    None
                }
            };
            moving.push(Moving { confirm, acker });
        }
        let (last, moved, confirmed) = self.all_confirmed(live, moving).await;
        if live.returned.take_any(channel.id()) {
            let stream = &self.stream.stream;
            return Err(Trouble(format!("stream '{stream}' or its exchange was deleted: making them anew")));
        }
        let settled = receive::settle(last, refused).await;
        if settled.is_ok() {
            self.context.metrics.relayed(self.id, moved);
        }
        // Of a channel that was closed a confirm tells why, and others only that it is.
        confirmed.and(sent).and(settled)
    }

    /// Waits for all confirms, up to the first that is none: what came before that is to be acknowledged, and how many were
    /// moved.
    async fn all_confirmed(
        &mut self,
        live: &Arc<Live>,
        moving: Vec<Moving>,
    ) -> (Option<Acker>, usize, Result<(), Trouble>) {
        let (mut last, mut moved) = (None, 0);
        for Moving { confirm, acker } in moving {
            if let Some(confirm) = confirm {
                let confirmed = confirm.await;
                confirmed.as_ref().err().inspect(|error| live.note(error));
                if let Err(trouble) = self.confirmed(confirmed) {
                    return (last, moved, Err(trouble));
                }
                moved += 1;
            }
            last = Some(acker);
        }
        (last, moved, Ok(()))
    }

    /// The topic and the properties with which a message goes into the stream. What is added to them may be more than a frame
    /// holds: over that the broker would end the connection, and the queue would give the message again, for ever.
    /// The same goes for a payload over what the broker takes, which it ends the channel over.
    fn fit(&mut self, live: &Arc<Live>, delivery: &mut Delivery) -> Result<(Topic, AMQPProperties), Rejection> {
        let topic = self.mapper.topic(delivery)?;
        if delivery.data.len() > live.payload_bytes_max() {
            return Err(Rejection::TooLarge);
        }
        let given = std::mem::take(&mut delivery.properties);
        let given = mapping::place(delivery).hand_on(self.place(&topic), given);
        let properties = properties(given, delivery.redelivered, &live.peer.user);
        match too_large(&properties, live.frame_bytes_max().saturating_sub(OFFSET_BYTES)) {
            Some(_) => Err(Rejection::Properties),
            None => Ok((topic, properties)),
        }
    }

    /// Where a message goes into the stream.
    fn place<'a>(&'a self, topic: &'a Topic) -> Place<'a> {
        Place { exchange: &self.stream.stream, key: topic.as_str() }
    }

    async fn publish(
        &self,
        channel: &Channel,
        (topic, properties): (Topic, AMQPProperties),
        payload: &[u8],
    ) -> Result<PublisherConfirm, Trouble> {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let Place { exchange, key } = self.place(&topic);
        let (exchange, key) = (short(exchange)?, short(key)?);
        let published = channel.basic_publish(exchange, key, options, payload, properties).await;
        published.map_err(|error| Trouble(words::quoted(&error)))
    }

    fn confirmed(&self, confirmed: lapin::Result<Confirmation>) -> Result<(), Trouble> {
        match confirmed {
            Ok(Confirmation::Ack(_)) => Ok(()),
            Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => {
                Err(Trouble(format!("stream '{}' did not take a message: trying again", self.stream.stream)))
            }
            Err(error) => Err(Trouble(words::quoted(&error))),
        }
    }
}

impl Source for Relay {
    type Link = Arc<Live>;

    fn name(&self) -> &str {
        &self.name
    }

    fn subject(&self) -> Subject {
        Subject::Relay(self.name.clone())
    }

    async fn run(&mut self, live: &Arc<Live>, board: &Board) -> Result<(), Trouble> {
        declare::prepare(&self.context, live, (&self.stream, &self.section)).await?;
        let Some(turn) = self.turn(live, board).await? else { return Ok(()) };
        let ended = self.serve(live, board).await;
        self.context.metrics.relay_ended(self.id);
        turn.over(live).await;
        ended
    }

    fn lost(&mut self) {
        self.context.metrics.relay_ended(self.id);
    }
}

/// Waits until the broker has confirmed nothing for so long, without having said that it takes nothing, that it must be dead.
async fn silence(live: &Live) -> Trouble {
    let mut blocked = live.blocked.subscribe();
    loop {
        // The sender lives as long as the connection.
        let _ = blocked.wait_for(Option::is_none).await;
        tokio::select! {
            () = tokio::time::sleep(ANSWER_TIMEOUT) => {
                live.life.kill.cancel();
                return Trouble(format!("RabbitMQ at {} does not answer", live.peer.address));
            }
            _ = blocked.wait_for(Option::is_some) => {}
        }
    }
}

/// A message's properties as the broker takes them from us. It lets nobody name another user than himself, and closes the
/// channel over further keys that are no list, as other protocols than AMQP 0-9-1 can have brought them.
fn properties(properties: AMQPProperties, redelivered: bool, user: &str) -> AMQPProperties {
    let has_user = properties.user_id().is_some();
    let mut fields = properties.headers().as_ref().map(|headers| headers.inner().clone()).unwrap_or_default();
    let before = fields.len();
    fields.retain(|name, value| match name.as_str() {
        ID_HEADER | REDELIVERED_HEADER => false,
        "CC" | "BCC" => matches!(value, AMQPValue::FieldArray(_)),
        _ => true,
    });
    let properties = if has_user { properties.with_user_id(user.into()) } else { properties };
    if redelivered {
        fields.insert(ShortString::from(REDELIVERED_HEADER), AMQPValue::Boolean(true));
    } else if fields.len() == before {
        return properties;
    }
    properties.with_headers(FieldTable::from(fields))
}

#[cfg(test)]
mod tests {
    use lapin::types::{FieldArray, LongString};

    use super::*;

    fn with(fields: &[(&str, AMQPValue)]) -> AMQPProperties {
        let mut headers = FieldTable::default();
        for (name, value) in fields {
            headers.insert((*name).into(), value.clone());
        }
        AMQPProperties::default().with_headers(headers)
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(LongString::from(text))
    }

    #[test]
    fn what_the_broker_would_refuse_is_set_right_and_the_rest_stays() {
        let keys = AMQPValue::FieldArray(FieldArray::from(vec![text("a.b")]));
        let given =
            with(&[("CC", text("a")), ("BCC", keys.clone()), (ID_HEADER, AMQPValue::LongLongInt(1)), ("n", text("v"))]);
        let made = properties(given.with_user_id("anna".into()).with_expiration("9".into()), false, "us");
        assert_eq!(
            made,
            with(&[("BCC", keys), ("n", text("v"))]).with_user_id("us".into()).with_expiration("9".into())
        );
    }

    #[test]
    fn what_is_given_again_is_marked_and_an_older_mark_goes() {
        let marked = with(&[(REDELIVERED_HEADER, AMQPValue::Boolean(true))]);
        assert_eq!(properties(AMQPProperties::default(), true, "us"), marked);
        assert_eq!(properties(marked.clone(), true, "us"), marked);
        assert_eq!(properties(marked, false, "us"), with(&[]));
        assert_eq!(properties(AMQPProperties::default(), false, "us"), AMQPProperties::default());
    }
}
