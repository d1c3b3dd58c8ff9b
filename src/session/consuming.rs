//! The queues that a session consumes and what it holds of each: who may settle what, and who is told what when a link
//! goes. A tag is good for one settlement, by the session that holds it; any other never goes up.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::auth::Identity;
use crate::auth::shares::{NoShare, SharedQueue};
use crate::model::delivery::{
    ConsumeNews, ConsumeOrder, ConsumeRefusal, ConsumeRequest, DeliveryTag, QueueDeclaration, QueueOrigin, Settled,
    Settlement,
};
use crate::model::topic::Topic;
use crate::protocol::{Command, CommandId, Consumed, ErrorCode, Event, Failures};
use crate::session::{Action, ConsumeKey, Session};

/// Said of a tag that this session does not hold.
const STALE: &str = "this session holds no such delivery: it was settled or revoked, or is from before a lost link";

/// Deliveries that a client may hold when it does not say how many.
const PREFETCH: u16 = 1;

/// What a session consumes: as many as the limit allows, so a list is enough.
#[derive(Debug, Default)]
pub(super) struct Consuming {
    open: Vec<Consumption>,
    /// Wraps around after four thousand million, when none of the old ones is open any more.
    next: u32,
}

/// One queue.
#[derive(Debug)]
struct Consumption {
    key: ConsumeKey,
    /// At the broker.
    queue: Topic,
    /// As the client called it.
    asked: Arc<str>,
    /// Of its `consume`; whatever ends it carries this.
    id: CommandId,
    /// Of those that asked for it again and wait until it stands.
    waiting: Vec<CommandId>,
    standing: Standing,
    end: End,
    held: BTreeMap<DeliveryTag, Holding>,
}

/// Whether it is consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Never yet.
    Asked,
    /// Never yet, and the client was told that the broker is away.
    AskedInVain,
    /// It is.
    Stands,
    /// It was, until the link was lost.
    Away,
}

/// Whether the client wants no more of it.
#[derive(Debug)]
enum End {
    /// It does.
    Open,
    /// It said so, in a `cancel` that is not answered yet.
    Cancelled(CommandId),
    /// That was answered, and what is held can still be settled.
    Stopped,
}

/// How one delivery is held.
#[derive(Debug)]
enum Holding {
    /// The client has it.
    Unsettled,
    /// The client has settled it and waits for the answer.
    Settling(CommandId),
    /// It was settled without the client's word, and nobody waits for the answer.
    SettledAtOnce,
}

impl Consuming {
    fn entry(&mut self, key: ConsumeKey) -> Option<&mut Consumption> {
        self.open.iter_mut().find(|one| one.key == key)
    }

    /// The one on a queue that brings messages.
    fn on(&mut self, queue: &str) -> Option<&mut Consumption> {
        let named = |one: &&mut Consumption| &*one.asked == queue || one.queue.as_str() == queue;
        self.open.iter_mut().filter(|one| matches!(one.end, End::Open)).find(named)
    }

    /// How the delivery of a tag is held, and of which queue it is.
    fn holding(&mut self, tag: DeliveryTag) -> Option<(ConsumeKey, &mut Holding)> {
        self.open.iter_mut().find_map(|one| Some((one.key, one.held.get_mut(&tag)?)))
    }

    fn remove(&mut self, key: ConsumeKey) -> Option<Consumption> {
        let position = self.open.iter().position(|one| one.key == key)?;
        Some(self.open.remove(position))
    }

    /// Whether one more may be consumed. Those that were cancelled do not keep others out, yet each has a channel of its own
    /// until what is held of it is settled.
    fn has_room(&self, max: usize) -> Result<(), String> {
        let brings = self.open.iter().filter(|one| matches!(one.end, End::Open)).count();
        if brings >= max {
            Err(format!("a session may consume {max} queues (limits.queues_max): cancel one first"))
        } else if self.open.len() >= max.saturating_mul(2) {
            Err(format!(
                "this session holds messages of more queues that it cancelled than it may consume ({max}, \
                 limits.queues_max): settle them first"
            ))
        } else {
            Ok(())
        }
    }

    /// Forgets one that brings nothing more and of which nothing is held.
    fn tidy(&mut self, key: ConsumeKey) {
        if self.entry(key).is_some_and(|one| matches!(one.end, End::Stopped) && one.held.is_empty()) {
            self.remove(key);
        }
    }
}

impl Consumption {
    /// Takes those who wait until it stands, in the order in which they asked.
    fn unanswered(&mut self) -> Vec<CommandId> {
        let first = matches!(self.standing, Standing::Asked | Standing::AskedInVain).then(|| self.id.clone());
        first.into_iter().chain(std::mem::take(&mut self.waiting)).collect()
    }
}

impl Session {
    fn consumption(&mut self, key: ConsumeKey) -> Option<&mut Consumption> {
        self.consumed.as_mut()?.entry(key)
    }

    /// Consumes, cancels or settles.
    pub(super) fn consuming(&mut self, identity: &Identity, command: Command, actions: &mut Vec<Action>) {
        match command {
            Command::Consume { id, queue, prefetch, exclusive } => {
                match self.consumable(identity, &queue, (prefetch.unwrap_or(PREFETCH), exclusive)) {
                    Ok(request) => self.consume(id, request, actions),
                    Err((code, sentence)) => self.fail(id, code, sentence, actions),
                }
            }
            Command::Cancel { id, queue } => self.cancel(id, &queue, actions),
            Command::Settle { id, tag, settlement } => {
                self.settle(id, tag, |tag| ConsumeOrder::Settle(tag, settlement), actions);
            }
            Command::Answer { id, tag, reply } => {
                self.settle(id, Some(tag), |tag| ConsumeOrder::Answer(tag, reply), actions);
            }
            // The others never come here; see `Session::command`.
            _ => {}
        }
    }

    /// The queue that is asked for, if it is open to this session.
    fn consumable(
        &self,
        identity: &Identity,
        asked: &Consumed,
        (prefetch, exclusive): (u16, bool),
    ) -> Result<ConsumeRequest, (ErrorCode, String)> {
        match asked {
            Consumed::Queue(name) => {
                let open =
                    self.terms.queues.open(identity, name).map_err(|sentence| (ErrorCode::Forbidden, sentence))?;
                let rules = open.rules;
                Ok(ConsumeRequest {
                    queue: open.queue,
                    asked: name.as_str().into(),
                    prefetch: prefetch.min(rules.prefetch_max),
                    exclusive,
                    origin: QueueOrigin::Opened {
                        section: open.section,
                        declaration: rules.declare.then_some(QueueDeclaration { expires: rules.expires }),
                    },
                    hold_max: rules.hold_max,
                })
            }
            Consumed::Share(share) => {
                let shared = self.terms.shares.open(identity, share).map_err(|why| (code(why), why.to_string()))?;
                let SharedQueue { queue, bindings, declaration, hold_max } = shared;
                let (asked, origin) = (share.name.as_str().into(), QueueOrigin::Group { declaration, bindings });
                Ok(ConsumeRequest { queue, asked, prefetch, exclusive, origin, hold_max })
            }
        }
    }

    fn consume(&mut self, id: CommandId, request: ConsumeRequest, actions: &mut Vec<Action>) {
        let max = self.terms.queues_max;
        let consumed = self.consumed.get_or_insert_default();
        if let Some(one) = consumed.on(request.queue.as_str()) {
            let key = one.key;
            return self.consume_again(id, (key, &request), actions);
        }
        if let Err(message) = consumed.has_room(max) {
            return self.fail(id, ErrorCode::Limit, message, actions);
        }
        let key = ConsumeKey(consumed.next);
        consumed.next = consumed.next.wrapping_add(1);
        let (queue, asked) = (request.queue.clone(), request.asked.clone());
        let (standing, end, held, waiting) = (Standing::Asked, End::Open, BTreeMap::new(), Vec::new());
        consumed.open.push(Consumption { key, queue, asked, id, waiting, standing, end, held });
        actions.push(Action::Consume { consumption: key, request });
    }

    /// Asks again for a queue that is consumed already. Of a group one is a member once: that is done as soon as one is.
    fn consume_again(
        &mut self,
        id: CommandId,
        (key, request): (ConsumeKey, &ConsumeRequest),
        actions: &mut Vec<Action>,
    ) {
        let max = self.terms.subscriptions_max;
        let Some(consumed) = &mut self.consumed else { return };
        let waiting: usize = consumed.open.iter().map(|one| one.waiting.len()).sum();
        let Some(one) = consumed.entry(key) else { return };
        let message = match request.origin {
            QueueOrigin::Opened { .. } => {
                format!("this session consumes queue {:?} already: cancel it first", request.asked)
            }
            QueueOrigin::Group { .. } if one.standing == Standing::Stands => {
                return self.send(Event::Done { id, routed: None }, actions);
            }
            QueueOrigin::Group { .. } if waiting < max => return one.waiting.push(id),
            QueueOrigin::Group { .. } => {
                format!("{max} wait for groups already (limits.subscriptions_max): wait for their answers")
            }
        };
        self.fail(id, ErrorCode::Limit, message, actions);
    }

    fn cancel(&mut self, id: CommandId, queue: &str, actions: &mut Vec<Action>) {
        let Some(one) = self.consumed.as_mut().and_then(|consumed| consumed.on(queue)) else {
            let message = "this session does not consume that queue".to_owned();
            return self.fail(id, ErrorCode::NotFound, message, actions);
        };
        one.end = End::Cancelled(id);
        actions.push(Action::Order { consumption: one.key, order: ConsumeOrder::Stop });
    }

    fn settle(
        &mut self,
        id: CommandId,
        tag: Option<DeliveryTag>,
        order: impl FnOnce(DeliveryTag) -> ConsumeOrder,
        actions: &mut Vec<Action>,
    ) {
        let held = tag.and_then(|tag| self.consumed.as_mut()?.holding(tag));
        match (tag, held) {
            (Some(tag), Some((consumption, holding @ Holding::Unsettled))) => {
                *holding = Holding::Settling(id);
                actions.push(Action::Order { consumption, order: order(tag) });
            }
            _ => self.stale(id, actions),
        }
    }

    /// Settles a delivery without its client's word: nobody hears of it.
    pub fn settle_at_once(&mut self, tag: DeliveryTag, settlement: Settlement, actions: &mut Vec<Action>) {
        let held = self.consumed.as_mut().and_then(|consumed| consumed.holding(tag));
        if let Some((consumption, holding @ Holding::Unsettled)) = held {
            *holding = Holding::SettledAtOnce;
            actions.push(Action::Order { consumption, order: ConsumeOrder::Settle(tag, settlement) });
        }
    }

    fn stale(&mut self, id: CommandId, actions: &mut Vec<Action>) {
        self.fail(id, ErrorCode::StaleTag, STALE.into(), actions);
    }

    /// Something happened to a queue that is consumed, or that was.
    pub(super) fn consume_news(&mut self, key: ConsumeKey, news: ConsumeNews, actions: &mut Vec<Action>) {
        let Some(one) = self.consumption(key) else { return };
        match news {
            ConsumeNews::Stands => self.consume_stands(key, actions),
            ConsumeNews::Away => self.consume_away(key, actions),
            ConsumeNews::Delivered(delivery) => {
                one.held.insert(delivery.tag, Holding::Unsettled);
                self.send(Event::Delivered(delivery), actions);
            }
            ConsumeNews::Settled(tag, settled) => {
                if let Some(Holding::Settling(id)) = one.held.remove(&tag) {
                    if let Settled::Refused(_) = settled {
                        one.held.insert(tag, Holding::Unsettled);
                    }
                    match settled {
                        Settled::Told => self.send(Event::Done { id, routed: None }, actions),
                        Settled::Stale => self.stale(id, actions),
                        Settled::Refused(sentence) => self.fail(id, ErrorCode::Refused, sentence, actions),
                    }
                }
            }
            ConsumeNews::Expired(tag) => {
                let expired = one.held.remove_entry(&tag);
                self.revoke(expired, actions);
            }
            ConsumeNews::Stopped => self.consume_stopped(key, actions),
            ConsumeNews::Ended(refusal) => self.consume_ended(key, refusal, actions),
        }
        if let Some(consumed) = &mut self.consumed {
            consumed.tidy(key);
        }
    }

    fn consume_stands(&mut self, key: ConsumeKey, actions: &mut Vec<Action>) {
        let failures = self.protocol.failures;
        let Some(one) = self.consumption(key) else { return };
        let before = std::mem::replace(&mut one.standing, Standing::Stands);
        let (source, id, waiting) = (one.asked.clone(), one.id.clone(), std::mem::take(&mut one.waiting));
        if let Failures::Judged(_) = failures {
            // That packet has its answer: what happens from now on is judged by itself.
            one.id = None;
        }
        if matches!(before, Standing::AskedInVain | Standing::Away) {
            self.send(Event::Restored { source }, actions);
        }
        let first = matches!(before, Standing::Asked | Standing::AskedInVain).then_some(id);
        for id in first.into_iter().chain(waiting) {
            self.send(Event::Done { id, routed: None }, actions);
        }
    }

    /// Nothing is held any more: the broker has taken it back.
    fn consume_away(&mut self, key: ConsumeKey, actions: &mut Vec<Action>) {
        let Some(one) = self.consumption(key) else { return };
        let source = one.asked.clone();
        let told_before = matches!(one.standing, Standing::AskedInVain | Standing::Away);
        one.standing = match one.standing {
            Standing::Asked | Standing::AskedInVain => Standing::AskedInVain,
            Standing::Stands | Standing::Away => Standing::Away,
        };
        let (held, brings) = (std::mem::take(&mut one.held), !matches!(one.end, End::Stopped));
        if brings && !told_before {
            self.send(Event::Outage { source }, actions);
        }
        self.revoke(held, actions);
    }

    fn consume_stopped(&mut self, key: ConsumeKey, actions: &mut Vec<Action>) {
        let Some(one) = self.consumption(key) else { return };
        let End::Cancelled(cancel) = std::mem::replace(&mut one.end, End::Stopped) else { return };
        for id in one.unanswered() {
            self.given_up(id, ErrorCode::NotFound, "it was cancelled before it stood", actions);
        }
        self.send(Event::Done { id: cancel, routed: None }, actions);
    }

    /// Tells why, under the id of the `consume`, whether or not that was answered before; where that was cancelled, who waits.
    fn consume_ended(&mut self, key: ConsumeKey, refusal: ConsumeRefusal, actions: &mut Vec<Action>) {
        let Some(mut one) = self.consumed.as_mut().and_then(|consumed| consumed.remove(key)) else { return };
        self.revoke(std::mem::take(&mut one.held), actions);
        let (code, sentence) = match refusal {
            ConsumeRefusal::NotFound(sentence) => (ErrorCode::NotFound, sentence),
            ConsumeRefusal::Refused(sentence) => (ErrorCode::Refused, sentence),
            ConsumeRefusal::InUse(sentence) => (ErrorCode::InUse, sentence),
            ConsumeRefusal::Limit(sentence) => (ErrorCode::Limit, sentence),
            ConsumeRefusal::Unavailable(sentence) => (ErrorCode::Unavailable, sentence),
        };
        if let End::Cancelled(cancel) = &mut one.end {
            let cancel = cancel.take();
            for id in one.unanswered() {
                self.given_up(id, code, &sentence, actions);
            }
            return self.send(Event::Done { id: cancel, routed: None }, actions);
        }
        // They come first: the other's failure may end the session.
        for id in std::mem::take(&mut one.waiting).into_iter().chain([one.id]) {
            self.fail(id, code, sentence.clone(), actions);
        }
    }

    /// Takes back what the client held; what it had settled already is answered instead.
    fn revoke(&mut self, held: impl IntoIterator<Item = (DeliveryTag, Holding)>, actions: &mut Vec<Action>) {
        let mut tags = Vec::new();
        for (tag, holding) in held {
            match holding {
                Holding::Unsettled => tags.push(tag),
                Holding::Settling(id) => self.stale(id, actions),
                Holding::SettledAtOnce => {}
            }
        }
        if !tags.is_empty() {
            self.send(Event::Revoked { tags }, actions);
        }
    }
}

fn code(why: NoShare) -> ErrorCode {
    match why {
        NoShare::Forbidden => ErrorCode::Forbidden,
        NoShare::Unbound => ErrorCode::Unsupported,
        NoShare::TooLong => ErrorCode::Limit,
    }
}

#[cfg(test)]
mod tests;
