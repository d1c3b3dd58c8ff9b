//! The queues that a session consumes and what it holds of each: who may settle what, and who is told what when a link
//! goes. A tag is good for one settlement, by the session that holds it; any other never goes up.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::auth::Identity;
use crate::model::delivery::{
    ConsumeNews, ConsumeOrder, ConsumeRefusal, ConsumeRequest, DeliveryTag, QueueDeclaration, Settled, Settlement,
};
use crate::model::topic::Topic;
use crate::protocol::{Command, CommandId, ErrorCode, Event};
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

    fn remove(&mut self, key: ConsumeKey) -> Option<Consumption> {
        let position = self.open.iter().position(|one| one.key == key)?;
        Some(self.open.remove(position))
    }

    /// Forgets one that brings nothing more and of which nothing is held.
    fn tidy(&mut self, key: ConsumeKey) {
        if self.entry(key).is_some_and(|one| matches!(one.end, End::Stopped) && one.held.is_empty()) {
            self.remove(key);
        }
    }
}

impl Session {
    fn consumption(&mut self, key: ConsumeKey) -> Option<&mut Consumption> {
        self.consumed.as_mut()?.entry(key)
    }

    /// Consumes, cancels or settles.
    pub(super) fn consuming(&mut self, identity: &Identity, command: Command, actions: &mut Vec<Action>) {
        match command {
            Command::Consume { id, queue, prefetch } => self.consume(identity, id, (&queue, prefetch), actions),
            Command::Cancel { id, queue } => self.cancel(id, &queue, actions),
            Command::Settle { id, tag, settlement } => self.settle(id, tag, settlement, actions),
            // The others never come here; see `Session::command`.
            _ => {}
        }
    }

    fn consume(
        &mut self,
        identity: &Identity,
        id: CommandId,
        (asked, prefetch): (&str, Option<u16>),
        actions: &mut Vec<Action>,
    ) {
        let terms = self.terms.clone();
        let open = match terms.queues.open(identity, asked) {
            Ok(open) => open,
            Err(sentence) => return self.fail(id, ErrorCode::Forbidden, sentence, actions),
        };
        let consumed = self.consumed.get_or_insert_default();
        if consumed.on(open.queue.as_str()).is_some() {
            let message = format!("this session consumes queue {asked:?} already: cancel it first");
            return self.fail(id, ErrorCode::Limit, message, actions);
        }
        let max = terms.queues_max;
        if consumed.open.len() >= max {
            let message = format!("a session may consume {max} queues (limits.queues_max): cancel one first");
            return self.fail(id, ErrorCode::Limit, message, actions);
        }
        let key = ConsumeKey(consumed.next);
        consumed.next = consumed.next.wrapping_add(1);
        let rules = open.rules;
        let request = ConsumeRequest {
            queue: open.queue,
            asked: asked.into(),
            prefetch: prefetch.unwrap_or(PREFETCH).min(rules.prefetch_max),
            section: open.section,
            declaration: rules.declare.then_some(QueueDeclaration { expires: rules.expires }),
            hold_max: rules.hold_max,
        };
        let (queue, asked) = (request.queue.clone(), request.asked.clone());
        let (standing, end, held) = (Standing::Asked, End::Open, BTreeMap::new());
        consumed.open.push(Consumption { key, queue, asked, id, standing, end, held });
        actions.push(Action::Consume { consumption: key, request });
    }

    fn cancel(&mut self, id: CommandId, queue: &str, actions: &mut Vec<Action>) {
        let Some(one) = self.consumed.as_mut().and_then(|consumed| consumed.on(queue)) else {
            let message = "this session does not consume that queue".to_owned();
            return self.fail(id, ErrorCode::NotFound, message, actions);
        };
        one.end = End::Cancelled(id);
        actions.push(Action::Order { consumption: one.key, order: ConsumeOrder::Stop });
    }

    fn settle(&mut self, id: CommandId, tag: Option<DeliveryTag>, settlement: Settlement, actions: &mut Vec<Action>) {
        let mut open = self.consumed.iter_mut().flat_map(|consumed| consumed.open.iter_mut());
        let held = open.find_map(|one| Some((one.key, one.held.get_mut(&tag?)?)));
        match (tag, held) {
            (Some(tag), Some((consumption, holding @ Holding::Unsettled))) => {
                *holding = Holding::Settling(id);
                actions.push(Action::Order { consumption, order: ConsumeOrder::Settle(tag, settlement) });
            }
            _ => self.stale(id, actions),
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
                    match settled {
                        Settled::Told => self.send(Event::Done { id, routed: None }, actions),
                        Settled::Stale => self.stale(id, actions),
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
        let Some(one) = self.consumption(key) else { return };
        let before = std::mem::replace(&mut one.standing, Standing::Stands);
        let (source, id) = (one.asked.clone(), one.id.clone());
        if matches!(before, Standing::AskedInVain | Standing::Away) {
            self.send(Event::Restored { source }, actions);
        }
        if matches!(before, Standing::Asked | Standing::AskedInVain) {
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
        if matches!(one.standing, Standing::Asked | Standing::AskedInVain) {
            let id = one.id.clone();
            self.fail(id, ErrorCode::NotFound, "it was cancelled before it stood".into(), actions);
        }
        self.send(Event::Done { id: cancel, routed: None }, actions);
    }

    /// Tells why, under the id of the `consume`, whether or not that was answered before.
    fn consume_ended(&mut self, key: ConsumeKey, refusal: ConsumeRefusal, actions: &mut Vec<Action>) {
        let Some(one) = self.consumed.as_mut().and_then(|consumed| consumed.remove(key)) else { return };
        self.revoke(one.held, actions);
        let (code, sentence) = match refusal {
            ConsumeRefusal::NotFound(sentence) => (ErrorCode::NotFound, sentence),
            ConsumeRefusal::Refused(sentence) => (ErrorCode::Refused, sentence),
            ConsumeRefusal::Limit(sentence) => (ErrorCode::Limit, sentence),
            ConsumeRefusal::Unavailable(sentence) => (ErrorCode::Unavailable, sentence),
        };
        self.fail(one.id, code, sentence, actions);
        if let End::Cancelled(id) = one.end {
            self.send(Event::Done { id, routed: None }, actions);
        }
    }

    /// Takes back what the client held; what it had settled already is answered instead.
    fn revoke(&mut self, held: impl IntoIterator<Item = (DeliveryTag, Holding)>, actions: &mut Vec<Action>) {
        let mut tags = Vec::new();
        for (tag, holding) in held {
            match holding {
                Holding::Unsettled => tags.push(tag),
                Holding::Settling(id) => self.stale(id, actions),
            }
        }
        if !tags.is_empty() {
            self.send(Event::Revoked { tags }, actions);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::{Duration, Instant};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::auth::Grants;
    use crate::config::{Consume, Settings};
    use crate::model::delivery::Delivery;
    use crate::model::publication::{Attributes, Draft};
    use crate::model::queue::QueueTemplate;
    use crate::protocol::json;
    use crate::session::limits::Terms;
    use crate::session::{Completion, Start};

    fn session() -> Session {
        let consume = |name: &str| Consume {
            name: name.into(),
            queue: QueueTemplate::parse(name).unwrap(),
            declare: false,
            expires: None,
            prefetch_max: 10,
            hold_max: Duration::from_secs(60),
        };
        let settings = Settings { consume: ["a", "b", "c"].map(consume).into(), ..Settings::default() };
        let terms = Terms { queues_max: 2, ..Terms::new(&settings) };
        let grants = Grants { subscribe: true, publish: true, consume: true };
        let identity = Arc::new(Identity { user: None, expires_at: None, grants });
        let protocol = &json::SUBPROTOCOL;
        let start = Start { connection: "c1".into(), protocol, admission: Ok(identity), at: Instant::now() };
        Session::new(Arc::new(terms), start)
    }

    fn tag(number: u64) -> DeliveryTag {
        DeliveryTag { link: 1, number }
    }

    fn delivery(number: u64) -> ConsumeNews {
        let draft = Draft {
            topic: Topic::parse("t").unwrap(),
            payload: bytes::Bytes::new(),
            attributes: Attributes::default(),
            received_at: 0,
        };
        ConsumeNews::Delivered(Box::new(Delivery { tag: tag(number), queue: "a".into(), draft }))
    }

    fn id(number: usize) -> CommandId {
        Some(serde_json::value::RawValue::from_string(number.to_string()).unwrap())
    }

    fn consume(session: &mut Session, queue: &str) -> Vec<Action> {
        let mut actions = Vec::new();
        session.command(Command::Consume { id: None, queue: queue.into(), prefetch: Some(u16::MAX) }, &mut actions);
        actions
    }

    /// What was said and asked, over a whole life.
    #[derive(Debug, Default)]
    struct Told {
        answers: BTreeMap<String, usize>,
        ordered: Vec<DeliveryTag>,
        revoked: Vec<DeliveryTag>,
    }

    impl Told {
        fn take(&mut self, actions: Vec<Action>) {
            for action in actions {
                match action {
                    Action::Send(Event::Done { id: Some(id), .. } | Event::Error { id: Some(id), .. }) => {
                        *self.answers.entry(id.get().to_owned()).or_default() += 1;
                    }
                    Action::Send(Event::Revoked { tags }) => self.revoked.extend(tags),
                    Action::Order { order: ConsumeOrder::Settle(tag, _), .. } => {
                        assert!(!self.revoked.contains(&tag), "settled after it was revoked");
                        self.ordered.push(tag);
                    }
                    _ => {}
                }
            }
        }
    }

    fn news(kind: u8, number: u64) -> ConsumeNews {
        match kind {
            0 => ConsumeNews::Stands,
            1 => ConsumeNews::Away,
            2 => ConsumeNews::Settled(tag(number), Settled::Told),
            3 => ConsumeNews::Settled(tag(number), Settled::Stale),
            4 => ConsumeNews::Expired(tag(number)),
            5 => ConsumeNews::Stopped,
            _ => ConsumeNews::Ended(ConsumeRefusal::NotFound("gone".into())),
        }
    }

    proptest! {
        /// Whatever happens in whatever order: each settlement is answered once, each delivery goes up or is revoked once
        /// at most, and nothing goes up that is not held.
        #[test]
        fn every_settlement_has_one_answer_and_every_delivery_one_end(steps in vec((0..12_u8, 0..20_u64, 0..3_u32), 0..120)) {
            let (mut session, mut told) = (session(), Told::default());
            let (mut delivered, mut asked) = (0, 0);
            for (kind, number, key) in steps {
                let mut actions = Vec::new();
                let key = ConsumeKey(key);
                match kind {
                    0..7 => session.complete(Completion::Consumed { consumption: key, news: news(kind, number) }, &mut actions),
                    7 => actions = consume(&mut session, ["a", "b", "c"][number as usize % 3]),
                    8 => session.command(Command::Cancel { id: None, queue: "a".into() }, &mut actions),
                    9 => {
                        session.complete(Completion::Consumed { consumption: key, news: delivery(delivered) }, &mut actions);
                        delivered += 1;
                    }
                    _ => {
                        let settle = Command::Settle { id: id(asked), tag: Some(tag(number)), settlement: Settlement::Requeue };
                        session.command(settle, &mut actions);
                        asked += 1;
                    }
                }
                told.take(actions);
            }
            // Whatever still waits is answered when the broker goes.
            for key in 0..200 {
                let mut actions = Vec::new();
                session.complete(Completion::Consumed { consumption: ConsumeKey(key), news: ConsumeNews::Away }, &mut actions);
                told.take(actions);
            }
            prop_assert_eq!(told.answers.len(), asked);
            prop_assert!(told.answers.values().all(|count| *count == 1));
            let ends: Vec<DeliveryTag> = told.ordered.iter().chain(&told.revoked).copied().collect();
            prop_assert_eq!(ends.iter().collect::<BTreeSet<_>>().len(), ends.len());
        }
    }

    #[test]
    fn queues_are_limited_and_one_that_is_settled_after_its_cancel_gives_its_place_back() {
        let mut session = session();
        let key = |actions: &[Action]| match actions {
            [Action::Consume { consumption, request }] => {
                assert_eq!(request.prefetch, 10, "the client's wish is bounded");
                Some(*consumption)
            }
            _ => None,
        };
        let first = key(&consume(&mut session, "a")).unwrap();
        assert!(key(&consume(&mut session, "b")).is_some());
        assert!(key(&consume(&mut session, "c")).is_none());
        let mut actions = Vec::new();
        let mut tell = |session: &mut Session, news| {
            session.complete(Completion::Consumed { consumption: first, news }, &mut actions);
        };
        tell(&mut session, ConsumeNews::Stands);
        tell(&mut session, delivery(1));
        session.command(Command::Cancel { id: None, queue: "a".into() }, &mut Vec::new());
        tell(&mut session, ConsumeNews::Stopped);
        assert!(key(&consume(&mut session, "c")).is_none(), "something of it is still held");
        let settle = Command::Settle { id: None, tag: Some(tag(1)), settlement: Settlement::Acknowledge };
        session.command(settle, &mut Vec::new());
        session.complete(
            Completion::Consumed { consumption: first, news: ConsumeNews::Settled(tag(1), Settled::Told) },
            &mut Vec::new(),
        );
        assert!(key(&consume(&mut session, "c")).is_some());
    }
}
