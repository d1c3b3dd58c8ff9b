//! What a session consumes, under news and commands in any order.

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

fn consume_command(queue: &str) -> Command {
    Command::Consume { id: None, queue: Consumed::Queue(queue.into()), prefetch: Some(u16::MAX), exclusive: false }
}

fn consume(session: &mut Session, queue: &str) -> Vec<Action> {
    let mut actions = Vec::new();
    session.command(consume_command(queue), &mut actions);
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
fn queues_are_limited_and_those_that_were_cancelled_only_while_much_of_them_is_held() {
    let (mut session, mut actions) = (session(), Vec::new());
    let key = |session: &mut Session, queue: &str| match consume(session, queue)[..] {
        [Action::Consume { consumption, ref request }] => {
            assert_eq!(request.prefetch, 10, "the client's wish is bounded");
            Some(consumption)
        }
        _ => None,
    };
    let mut tell = |session: &mut Session, consumption: ConsumeKey, news: ConsumeNews| {
        session.complete(Completion::Consumed { consumption, news }, &mut actions);
    };
    for number in 0..2 {
        let first = key(&mut session, "a").unwrap();
        let second = key(&mut session, "b");
        assert_eq!(second.is_some(), number == 0, "the second time it is consumed already");
        assert_eq!(key(&mut session, "c"), None, "two at a time");
        tell(&mut session, first, ConsumeNews::Stands);
        tell(&mut session, first, delivery(number));
        session.command(Command::Cancel { id: None, queue: "a".into() }, &mut Vec::new());
        tell(&mut session, first, ConsumeNews::Stopped);
    }
    // One is consumed, and of two something is held.
    assert!(key(&mut session, "c").is_some());
    session.command(Command::Cancel { id: None, queue: "c".into() }, &mut Vec::new());
    assert_eq!(key(&mut session, "a"), None, "too much is held");
    let settle = Command::Settle { id: None, tag: Some(tag(0)), settlement: Settlement::Acknowledge };
    session.command(settle, &mut Vec::new());
    tell(&mut session, ConsumeKey(0), ConsumeNews::Settled(tag(0), Settled::Told));
    assert!(key(&mut session, "a").is_some());
}
