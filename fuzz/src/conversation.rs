//! A client of one protocol against its codec and a session, with chance in place of the hub and the broker: what it asks for
//! is done or fails, and what it listens to comes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use passerelle::auth::{Grants, Identity};
use passerelle::config::{Consume, Presence, Presences, Settings};
use passerelle::model::close::CloseReason;
use passerelle::model::cursor::{Epoch, JointCursor};
use passerelle::model::delivery::{ConsumeNews, ConsumeOrder, ConsumeRefusal, Delivery, DeliveryTag, Settled};
use passerelle::model::gap::GapReason;
use passerelle::model::outgoing::{CallOutcome, Outgoing, PublishOutcome, Reply};
use passerelle::model::presence::Roster;
use passerelle::model::publication::{Attributes, Draft, Publication, SourceId, SourceInfo};
use passerelle::model::queue::QueueTemplate;
use passerelle::model::topic::{Pattern, Topic};
use passerelle::protocol::{
    Codec, Gap, Incoming, Message, Opening, Outbound, REGISTRY, Receiving, Said, Stage, Subprotocol,
};
use passerelle::session::limits::Terms;
use passerelle::session::{Action, Completion, ConsumeKey, JobKey, Session, Start, SubscribeRefusal, SubscriptionKey};

/// Between two messages, where what is said does not flow over their ends: ASCII's record separator.
const SEPARATOR: u8 = 0x1e;

/// How what a client says comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// Each message is whole.
    Messages,
    /// In a stream, of which messages are pieces of any size.
    Stream,
}

/// Plays the client whose bytes these are. The first byte says which of the protocols it speaks, the second in pieces of how
/// many bytes, the third what chance does.
///
/// # Panics
/// When anything that must hold does not.
pub fn converse(names: &[&str], talk: Talk, data: &[u8]) {
    let [name, piece, chance, bytes @ ..] = data else { return };
    let Some(name) = names.get(usize::from(*name) % names.len()) else { return };
    let row = REGISTRY.iter().find(|row| row.name == *name).expect("a protocol's name");
    match talk {
        Talk::Messages => drop(play(row, *chance, bytes.split(|byte| *byte == SEPARATOR), bytes.len())),
        Talk::Stream => {
            let whole = play(row, *chance, std::iter::once(bytes), bytes.len());
            let pieces = play(row, *chance, bytes.chunks(usize::from(*piece).max(1)), bytes.len());
            assert_eq!(whole, pieces, "{name} in pieces of {piece}");
        }
    }
}

/// Everything that the client gets, until it or the session ends.
fn play<'a>(
    row: &'static Subprotocol,
    chance: u8,
    messages: impl Iterator<Item = &'a [u8]>,
    bytes: usize,
) -> Vec<Outbound> {
    let mut conversation = Conversation::new(row, chance);
    // Nothing is said in less than a byte, but for an end.
    let mut left = 2 * bytes + 64;
    for message in messages {
        let mut said = conversation.hear(message);
        while !conversation.session.has_ended() {
            match said {
                Ok(Said::Nothing) => break,
                Ok(Said::Command(command)) => {
                    conversation.perform(|session, actions| session.command(command, actions))
                }
                Ok(Said::Answered(outbound) | Said::Delivered(outbound)) => conversation.get(Some(outbound)),
                Err(fault) => conversation.perform(|session, actions| session.fault(fault, actions)),
            }
            left = left.checked_sub(1).expect("no more is said than there are bytes for");
            // Nothing is in flight here, so the session reads on until it ends.
            said = conversation.codec.more();
        }
        if conversation.session.has_ended() {
            break;
        }
    }
    conversation.got
}

struct Conversation {
    row: &'static Subprotocol,
    codec: Box<dyn Codec + Send>,
    session: Session,
    source: Arc<SourceInfo>,
    chance: u32,
    offset: u64,
    listening: BTreeMap<SubscriptionKey, Pattern>,
    got: Vec<Outbound>,
}

impl Conversation {
    fn new(row: &'static Subprotocol, chance: u8) -> Self {
        let opening = Opening {
            publish: Topic::parse("up").ok(),
            connection: "c".into(),
            session_expiry_max: Duration::from_secs(60),
            ..Opening::default()
        };
        let grants = Grants { subscribe: true, publish: true, consume: true };
        let identity = Identity { user: None, expires_at: None, grants };
        let start =
            Start { connection: "c".into(), protocol: row, admission: Ok(Arc::new(identity)), at: Instant::now() };
        let info = SourceInfo::new(SourceId(0), "events", Epoch(1));
        let mut conversation = Self {
            row,
            codec: (row.codec)(opening),
            session: Session::new(Arc::new(terms()), start),
            source: Arc::new(info),
            chance: u32::from(chance),
            offset: 1,
            listening: BTreeMap::new(),
            got: Vec::new(),
        };
        conversation.perform(Session::begin);
        conversation
    }

    /// What comes next of chance: one of so many.
    fn draw(&mut self, count: u32) -> u32 {
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.chance >> 16) % count
    }

    fn hear(&mut self, message: &[u8]) -> Result<Said, passerelle::protocol::Fault> {
        let is_binary =
            self.row.name.starts_with("mqtt") || self.row.name.ends_with("pack") || self.row.name.ends_with("cbor");
        match std::str::from_utf8(message) {
            Ok(text) if !is_binary => self.codec.decode(Incoming::Text(text)),
            _ => self.codec.decode(Incoming::Binary(message)),
        }
    }

    fn get(&mut self, outbound: Option<Outbound>) {
        if let Some(Outbound::Text(bytes)) = &outbound {
            assert!(std::str::from_utf8(bytes).is_ok(), "{bytes:?} is no text");
        }
        self.got.extend(outbound);
    }

    fn perform(&mut self, work: impl FnOnce(&mut Session, &mut Vec<Action>)) {
        let mut actions = Vec::new();
        work(&mut self.session, &mut actions);
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            for completion in self.act(action) {
                let mut further = Vec::new();
                self.session.complete(completion, &mut further);
                actions.extend(further);
            }
        }
    }

    fn act(&mut self, action: Action) -> Vec<Completion> {
        match action {
            Action::Send(event) => {
                let outbound = self.codec.encode(&event);
                self.get(outbound);
            }
            Action::Authenticate { job, .. } => {
                return vec![Completion::Authenticated { job, result: Err("nobody is known here".to_owned()) }];
            }
            Action::Claim { job, .. } => return vec![Completion::Claimed { job }],
            Action::Subscribe(action) => return self.subscribed(action.subscription, action.wanted.pattern),
            Action::Unsubscribe { subscription } => drop(self.listening.remove(&subscription)),
            Action::Roster { id, pattern } => {
                return vec![Completion::Roster { id, pattern, roster: Roster { count: 2, members: None } }];
            }
            Action::Publish { job, message, .. } => return self.published(job, message),
            Action::Call { job, .. } => return vec![Completion::Called { job, outcome: self.outcome() }],
            Action::Consume { consumption, request } => return self.consumed(consumption, &request.asked),
            Action::Order { consumption, order } => {
                let news = match order {
                    ConsumeOrder::Settle(tag, _) | ConsumeOrder::Answer(tag, _) => {
                        ConsumeNews::Settled(tag, Settled::Told)
                    }
                    ConsumeOrder::Stop => ConsumeNews::Stopped,
                };
                return vec![Completion::Consumed { consumption, news }];
            }
            Action::Close { reason, detail } => {
                assert!(detail.len() <= 123, "{detail}");
                assert_ne!(reason, CloseReason::Lost, "1006 is never sent");
                let last = self.codec.farewell(reason, &detail);
                self.get(last);
            }
            Action::Attend { .. }
            | Action::Depart { .. }
            | Action::Abandon { .. }
            | Action::ForbiddenPublish
            | Action::ForbiddenCall => {}
        }
        Vec::new()
    }

    fn subscribed(&mut self, subscription: SubscriptionKey, pattern: Pattern) -> Vec<Completion> {
        if self.draw(8) == 0 {
            let refusal = SubscribeRefusal::Refused("not here".to_owned());
            return vec![Completion::SubscribeFailed { subscription, refusal }];
        }
        self.listening.insert(subscription, pattern.clone());
        let gap = Gap {
            pattern,
            label: self.session.label(subscription).cloned(),
            source: self.source.name.clone(),
            missed: Some(7),
            reason: GapReason::Expired,
        };
        let gaps = if self.draw(4) == 0 { vec![gap] } else { Vec::new() };
        let cursors = JointCursor(vec![self.source.named_cursor(self.offset)]);
        let resumed = self.draw(2) == 0;
        vec![Completion::Subscribed { subscription, cursors, resumed, gaps, replay: false }]
    }

    /// The broker's word, and the message to whoever of this session listens to it.
    fn published(&mut self, job: JobKey, message: Outgoing) -> Vec<Completion> {
        self.offset += 1;
        let Outgoing { topic, payload, content_type, message_id, correlation_id, headers, retained, origin, .. } =
            message;
        let attributes =
            Attributes { content_type, message_id, correlation_id, headers, retained, origin, ..Attributes::default() };
        let draft = Draft { topic, payload, attributes, received_at: 7 };
        let publication = Publication { source: self.source.clone(), offset: self.offset, draft };
        let wanting = self.listening.iter().filter(|(_, pattern)| pattern.matches(&publication.draft.topic));
        for subscription in wanting.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.bring(&publication, subscription);
        }
        let outcome = match self.draw(8) {
            0 => PublishOutcome::Refused("no".to_owned()),
            1 => PublishOutcome::Unavailable("away".to_owned()),
            drawn => PublishOutcome::Confirmed { routed: drawn > 2 },
        };
        vec![Completion::Published { job, outcome }]
    }

    fn bring(&mut self, publication: &Publication, subscription: SubscriptionKey) {
        let labels: Vec<_> = self.session.label(subscription).cloned().into_iter().collect();
        let positions = [(self.source.clone(), publication.offset)];
        let stage = if self.draw(2) == 0 { Stage::Live } else { Stage::Replay };
        let message = Message { publication, positions: &positions, stage, labels: &labels };
        let outbound = match self.codec.receiving() {
            Receiving::Shared => (self.row.encode_message)(message).ok(),
            Receiving::Own(0) => None,
            Receiving::Own(_) => self.codec.message(message),
        };
        self.get(outbound);
    }

    fn outcome(&mut self) -> CallOutcome {
        let reply = Reply { payload: Bytes::from_static(b"[1]"), content_type: None, headers: Default::default() };
        match self.draw(4) {
            0 => CallOutcome::TimedOut,
            1 => CallOutcome::Unroutable,
            _ => CallOutcome::Replied(reply),
        }
    }

    fn consumed(&mut self, consumption: ConsumeKey, queue: &Arc<str>) -> Vec<Completion> {
        let news = |news| Completion::Consumed { consumption, news };
        if self.draw(8) == 0 {
            return vec![news(ConsumeNews::Ended(ConsumeRefusal::NotFound("no such queue".to_owned())))];
        }
        self.offset += 1;
        let tag = DeliveryTag { link: 1, number: self.offset };
        let topic = Topic::parse("a.b").expect("a topic");
        let draft =
            Draft { topic, payload: Bytes::from_static(b"{}"), attributes: Attributes::default(), received_at: 7 };
        let delivery = Delivery { tag, queue: queue.clone(), draft };
        let mut all = vec![news(ConsumeNews::Stands), news(ConsumeNews::Delivered(Box::new(delivery)))];
        if self.draw(4) == 0 {
            all.push(news(ConsumeNews::Away));
        }
        all
    }
}

/// Tight, so that limits are reached.
fn terms() -> Terms {
    let queue = |name: &str| Consume {
        name: name.to_owned(),
        queue: QueueTemplate::parse(name).expect("a queue's name"),
        declare: false,
        expires: None,
        prefetch_max: 10,
        hold_max: Duration::from_secs(60),
    };
    let everywhere = Presence { name: "all".to_owned(), pattern: Pattern::all(), join_leave: true, members_max: 9 };
    let settings = Settings {
        consume: vec![queue("q"), queue("work")],
        presences: Presences(vec![everywhere]),
        ..Settings::default()
    };
    Terms { subscriptions_max: 8, queues_max: 2, last_max: 9, ..Terms::new(&settings) }
}
