//! One node as a simulation has it: the real feeds, logs, shards and sessions, with a driver that does what
//! `transport/driver` does, for sockets that take as many frames as they are let.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use passerelle::auth::queues::Queues;
use passerelle::auth::shares::Shares;
use passerelle::auth::{Grants, Identity};
use passerelle::config::Presences;
use passerelle::hub::feed::{Hub, SourceState};
use passerelle::hub::index::SubscriberId;
use passerelle::hub::log::ReadBounds;
use passerelle::hub::shard::{
    Activated, CaughtUp, CursorForm, Last, Missed, Notice, Opening, Refusal, Replayed, Shard, SubscribeRequest,
    SubscriptionId,
};
use passerelle::hub::turn::{Delivery, Encode, Encoding};
use passerelle::model::cursor::{Cursor, JointCursor};
use passerelle::model::filter::Filter;
use passerelle::model::flow::Flow;
use passerelle::model::gap::GapReason;
use passerelle::model::publication::{Publication, SourceInfo};
use passerelle::model::selector::Selector;
use passerelle::model::topic::Topic;
use passerelle::model::value::Headers;
use passerelle::protocol::{Command, CommandId, Event, Gap, REGISTRY};
use passerelle::session::exchanges::Exchanges;
use passerelle::session::limits::Terms;
use passerelle::session::{Action, Completion, Session, Start, SubscribeAction, SubscribeRefusal, SubscriptionKey};

/// What a client reads.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    Message(Message),
    Subscribed { id: Option<u64>, pattern: String, cursors: JointCursor, resumed: bool },
    CaughtUp { id: Option<u64>, pattern: String, cursors: JointCursor },
    Unsubscribed(Option<u64>),
    Position { cursors: JointCursor },
    Gap { pattern: String, source: Arc<str>, reason: GapReason, missed: Option<u64> },
}

/// A message as a client reads it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) number: usize,
    pub(crate) source: usize,
    pub(crate) topic: Topic,
    pub(crate) headers: Headers,
    pub(crate) cursor: Cursor,
    /// The joint cursor after it, for an event stream.
    pub(crate) position: JointCursor,
    pub(crate) replay: bool,
    pub(crate) redelivered: bool,
}

impl Message {
    /// Whether it is for somebody who wants this.
    pub(crate) fn is_wanted(&self, wanted: &Selector) -> bool {
        let lets_in = |filter: &Arc<Filter>| filter.matches(&self.headers);
        wanted.pattern.matches(&self.topic) && wanted.filter.as_ref().is_none_or(lets_in)
    }
}

/// A connection's name, never used again.
pub(crate) type LineId = u64;

/// One connection.
struct Line {
    subscriber: SubscriberId,
    session: Session,
    /// Frames that the socket did not take.
    outbox: VecDeque<Frame>,
    /// Frames that the socket took and the client has not read.
    wire: VecDeque<Frame>,
    replays_when_drained: bool,
    sent: bool,
}

/// Frames that a socket takes before its client reads, and that may wait beyond that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sockets {
    pub(crate) takes_max: usize,
    pub(crate) waiting_max: usize,
}

/// A shard and its connections.
pub(crate) struct Front {
    shard: Shard,
    sockets: Sockets,
    lines: BTreeMap<LineId, Line>,
    by_subscriber: BTreeMap<u32, LineId>,
    openings: Vec<(LineId, SubscriptionId, Opening)>,
    states: Vec<Arc<SourceState>>,
    /// How often claims and cursors had been answered when the openings were last looked at; nothing where there are new ones.
    tellings: Option<u64>,
    replaying: VecDeque<LineId>,
}

/// Everything that the sessions of a simulation share.
pub(crate) fn terms() -> Arc<Terms> {
    Arc::new(Terms {
        subscriptions_max: 64,
        publishes_in_flight_max: 1,
        calls_in_flight_max: 1,
        last_max: 20,
        on_slow: Flow::CatchUp,
        message_bytes_max: 1 << 20,
        heartbeat: Duration::from_secs(25),
        unauthenticated_timeout: Duration::from_secs(10),
        call_timeout: Duration::from_secs(10),
        call_timeout_max: Duration::from_secs(60),
        queues_max: 0,
        queues: Queues::default(),
        shares: Shares::default(),
        presences: Presences::default(),
        exchanges: Exchanges::default(),
    })
}

impl Front {
    pub(crate) fn new(states: &[Arc<SourceState>], drop_oldest_keep: usize, sockets: Sockets) -> Self {
        let shard = Shard::new(&Hub::new(states.to_vec()), drop_oldest_keep);
        Self {
            shard,
            sockets,
            lines: BTreeMap::new(),
            by_subscriber: BTreeMap::new(),
            openings: Vec::new(),
            states: states.to_vec(),
            tellings: None,
            replaying: VecDeque::new(),
        }
    }

    pub(crate) fn connect(&mut self, line: LineId, form: CursorForm, terms: &Arc<Terms>, now: Instant) {
        let subscriber = self.shard.join(form);
        let name = if form == CursorForm::Joint { "sse" } else { "passerelle.v1.json" };
        let protocol = REGISTRY.iter().find(|row| row.name == name).expect("it is registered");
        let grants = Grants { subscribe: true, publish: false, consume: false };
        let identity = Arc::new(Identity { user: None, expires_at: None, grants });
        let start = Start { connection: "c".into(), protocol, admission: Ok(identity), at: now };
        let mut session = Session::new(terms.clone(), start);
        session.begin(&mut Vec::new());
        let line = (
            line,
            Line {
                subscriber,
                session,
                outbox: VecDeque::new(),
                wire: VecDeque::new(),
                replays_when_drained: false,
                sent: true,
            },
        );
        self.by_subscriber.insert(subscriber.0, line.0);
        self.lines.insert(line.0, line.1);
    }

    pub(crate) fn disconnect(&mut self, line: LineId) {
        if let Some(gone) = self.lines.remove(&line) {
            self.by_subscriber.remove(&gone.subscriber.0);
            self.shard.leave(gone.subscriber);
        }
    }

    /// What a client says.
    pub(crate) fn command(&mut self, line: LineId, command: Command) {
        let Some(known) = self.lines.get_mut(&line) else { return };
        let mut actions = Vec::new();
        known.session.command(command, &mut actions);
        self.perform(line, actions);
    }

    /// One turn; whether there was anything.
    pub(crate) fn turn(&mut self, bounds: ReadBounds) -> bool {
        let taken = self.shard.take(bounds);
        for (subscriber, notice) in taken.notices {
            if let Some(line) = self.by_subscriber.get(&subscriber.0).copied() {
                self.notify(line, notice);
            }
        }
        for subscriber in self.shard.turn().0.close() {
            self.deliver(subscriber);
        }
        self.shard.turn().0.end();
        let fallen = taken.fallen.iter().filter_map(|subscriber| self.by_subscriber.get(&subscriber.0));
        self.replaying.extend(fallen);
        taken.more
    }

    fn deliver(&mut self, subscriber: SubscriberId) {
        let Some(line) = self.by_subscriber.get(&subscriber.0).copied() else {
            self.shard.turn().0.forget(subscriber);
            return;
        };
        let publications: Vec<Arc<Publication>> = self.shard.turn().0.publications().cloned().collect();
        let (turn, positions) = self.shard.turn();
        let positions = joint(positions);
        let (delivery, _) = turn.delivery(subscriber, Encoding(0), &mut Offsets);
        let bytes = match delivery {
            Delivery::Joined(bytes) => bytes.to_vec(),
            Delivery::Frames(frames) => frames.concat(),
        };
        let frames = frames(&bytes, &publications, &positions, false);
        let Some(known) = self.lines.get_mut(&line) else { return };
        if !known.outbox.is_empty() && known.outbox.len() + frames.len() > self.sockets.waiting_max {
            let Some((source, read)) = self.shard.turn().0.origin() else { return };
            self.shard.fall_behind(subscriber, source, read);
            known.replays_when_drained = true;
            return;
        }
        known.sent = true;
        known.outbox.extend(frames);
        self.flush(line);
    }

    fn notify(&mut self, line: LineId, notice: Notice) {
        let Some(known) = self.lines.get_mut(&line) else { return };
        let mut actions = Vec::new();
        match notice {
            Notice::Gap(missed) => known.session.gap(gap(missed), &mut actions),
            Notice::Outage(source) => known.session.outage(source, &mut actions),
            Notice::Restored(source) => known.session.restored(source, &mut actions),
        }
        self.perform(line, actions);
    }

    /// Subscriptions whose bindings have come to stand.
    pub(crate) fn check_openings(&mut self) {
        let tellings = Some(self.states.iter().map(|state| state.tellings()).sum());
        if self.tellings == tellings {
            return;
        }
        self.tellings = tellings;
        let openings = std::mem::take(&mut self.openings);
        let incomplete: Vec<LineId> = openings
            .iter()
            .filter(|(line, _, opening)| self.is_joint(*line) && Shard::stands(opening) == Ok(false))
            .map(|(line, _, _)| *line)
            .collect();
        for (line, id, opening) in openings {
            match Shard::stands(&opening) {
                Ok(stands) if !stands || incomplete.contains(&line) => self.openings.push((line, id, opening)),
                outcome => self.opened(line, id, outcome.map(|_| ())),
            }
        }
    }

    fn is_joint(&self, line: LineId) -> bool {
        self.lines.get(&line).is_some_and(|known| self.shard.is_joint(known.subscriber))
    }

    fn opened(&mut self, line: LineId, id: SubscriptionId, outcome: Result<(), Refusal>) {
        let Some(subscriber) = self.lines.get(&line).map(|known| known.subscriber) else { return };
        match outcome {
            Ok(()) => {
                let mut caught_up = Vec::new();
                for mut activated in self.shard.activate(subscriber, id) {
                    if self.shard.is_joint(subscriber) && !activated.replay {
                        activated.replay = true;
                        caught_up.push((SubscriptionKey(activated.id.0), activated.cursors.clone()));
                    }
                    let Activated { id, cursors, resumed, gaps, replay } = activated;
                    let gaps = gaps.into_iter().map(gap).collect();
                    let subscription = SubscriptionKey(id.0);
                    self.complete(line, Completion::Subscribed { subscription, cursors, resumed, gaps, replay });
                }
                for (subscription, cursors) in caught_up {
                    self.complete(line, Completion::CaughtUp { subscription, cursors });
                }
                if self.shard.has_replay(subscriber) {
                    self.replaying.push_back(line);
                }
            }
            Err(refusal) => {
                self.shard.unsubscribe(subscriber, id);
                let refusal = SubscribeRefusal::Refused(format!("{refusal:?}"));
                self.complete(line, Completion::SubscribeFailed { subscription: SubscriptionKey(id.0), refusal });
            }
        }
    }

    /// A share of the replays; whether any step was made.
    pub(crate) fn replay_some(&mut self, steps_max: usize, bounds: ReadBounds) -> bool {
        let mut steps = 0;
        for _ in 0..self.replaying.len() {
            if steps == steps_max {
                break;
            }
            let Some(line) = self.replaying.pop_front() else { break };
            if let Some(sent) = self.replay(line, bounds) {
                steps += usize::from(sent);
                self.replaying.push_back(line);
            }
        }
        if self.replaying.is_empty() {
            self.shard.forget_passages();
        }
        steps > 0
    }

    /// One step of one connection: whether anything was sent, or nothing when it has no more of them.
    fn replay(&mut self, line: LineId, bounds: ReadBounds) -> Option<bool> {
        let known = self.lines.get_mut(&line)?;
        let subscriber = known.subscriber;
        if !self.shard.has_replay(subscriber) {
            return None;
        }
        if !known.outbox.is_empty() {
            known.replays_when_drained = true;
            return None;
        }
        let replay = self.shard.replay(subscriber, bounds, Instant::now());
        let sent = replay.progressed || !replay.caught_up.is_empty();
        for missed in replay.gaps {
            self.notify(line, Notice::Gap(missed));
        }
        let known = self.lines.get_mut(&line)?;
        if let Some((_, excerpt)) = &replay.excerpt {
            let positions = joint(self.shard.positions());
            let offsets = excerpt.frames(Encoding(0), replay.asked_for, &mut Offsets);
            known.outbox.extend(frames(&offsets, excerpt.publications(), &positions, replay.asked_for));
        }
        for Replayed { publication, position, .. } in &replay.messages {
            let position = with_own(&joint(&self.shard.positions_at(position)), publication);
            known.outbox.push_back(message(publication, position, replay.asked_for));
        }
        known.sent |= replay.excerpt.is_some() || !replay.messages.is_empty();
        for CaughtUp { id, cursors } in replay.caught_up {
            self.complete(line, Completion::CaughtUp { subscription: SubscriptionKey(id.0), cursors });
        }
        self.flush(line);
        self.shard.has_replay(subscriber).then_some(sent)
    }

    /// What a connection is told when it was told nothing else.
    pub(crate) fn heartbeat(&mut self, line: LineId) {
        let Some(known) = self.lines.get_mut(&line) else { return };
        if !std::mem::take(&mut known.sent) {
            let cursors = self.shard.cursors(known.subscriber);
            if !cursors.0.is_empty() {
                let action = known.session.quiet(cursors);
                self.perform(line, vec![action]);
            }
        }
    }

    /// The client reads so many frames, and the socket takes as many more.
    pub(crate) fn read(&mut self, line: LineId, frames_max: usize) -> Vec<Frame> {
        let Some(known) = self.lines.get_mut(&line) else { return Vec::new() };
        let count = frames_max.min(known.wire.len());
        let frames = known.wire.drain(..count).collect();
        self.flush(line);
        let Some(known) = self.lines.get_mut(&line) else { return frames };
        if known.outbox.is_empty() && std::mem::take(&mut known.replays_when_drained) {
            self.replaying.push_back(line);
        }
        frames
    }

    fn flush(&mut self, line: LineId) {
        let Some(known) = self.lines.get_mut(&line) else { return };
        while known.wire.len() < self.sockets.takes_max {
            let Some(frame) = known.outbox.pop_front() else { return };
            known.wire.push_back(frame);
        }
    }

    fn complete(&mut self, line: LineId, completion: Completion) {
        let Some(known) = self.lines.get_mut(&line) else { return };
        let mut actions = Vec::new();
        known.session.complete(completion, &mut actions);
        self.perform(line, actions);
    }

    fn perform(&mut self, line: LineId, actions: Vec<Action>) {
        for action in actions {
            let Some(known) = self.lines.get_mut(&line) else { return };
            match action {
                Action::Send(event) => {
                    known.outbox.extend(frame(event));
                    known.sent = true;
                }
                Action::Subscribe(action) => self.subscribe(line, action),
                Action::Unsubscribe { subscription } => {
                    self.shard.unsubscribe(known.subscriber, SubscriptionId(subscription.0));
                }
                other => panic!("no client here asks for {other:?}"),
            }
        }
        self.flush(line);
    }

    fn subscribe(&mut self, line: LineId, action: SubscribeAction) {
        let Some(subscriber) = self.lines.get(&line).map(|known| known.subscriber) else { return };
        let id = SubscriptionId(action.subscription.0);
        let request = SubscribeRequest {
            id,
            wanted: action.wanted,
            after: action.after,
            last: Last { each: action.last, retained: action.retained, total_max: 20 },
            source: action.source,
            flow: action.flow,
            max_rate: action.max_rate,
        };
        let opening = match self.shard.subscribe(subscriber, request) {
            Ok(opening) => opening,
            Err(refusal) => return self.opened(line, id, Err(refusal)),
        };
        let joint = self.is_joint(line);
        match Shard::stands(&opening) {
            Ok(stands) if joint || !stands => {
                self.openings.push((line, id, opening));
                self.tellings = None;
            }
            outcome => self.opened(line, id, outcome.map(|_| ())),
        }
    }
}

/// Encodes a publication as its offset.
struct Offsets;

impl Encode for Offsets {
    fn encode(&mut self, _: Encoding, publication: &Publication) -> Bytes {
        Bytes::copy_from_slice(&publication.offset.to_be_bytes())
    }
}

/// The frames of encoded publications.
fn frames(offsets: &[u8], known: &[Arc<Publication>], positions: &JointCursor, replay: bool) -> Vec<Frame> {
    let frame = |offset: &[u8]| {
        let offset = u64::from_be_bytes(offset.try_into().expect("an offset has eight bytes"));
        let publication = known.iter().find(|one| one.offset == offset).expect("only what is known is encoded");
        message(publication, with_own(positions, publication), replay)
    };
    offsets.chunks(8).map(frame).collect()
}

fn joint(positions: &[(Arc<SourceInfo>, u64)]) -> JointCursor {
    let cursor = |(info, offset): &(Arc<SourceInfo>, u64)| {
        (info.name.to_string(), Cursor { epoch: info.epoch, offset: *offset })
    };
    JointCursor(positions.iter().map(cursor).collect())
}

/// As an event stream writes it: itself in its own source, the shard's position in the others.
fn with_own(positions: &JointCursor, publication: &Publication) -> JointCursor {
    let mut own = positions.clone();
    own.0.iter_mut().filter(|(name, _)| **name == *publication.source.name).for_each(|(_, cursor)| {
        *cursor = publication.cursor();
    });
    own
}

fn message(publication: &Publication, position: JointCursor, replay: bool) -> Frame {
    let attributes = &publication.draft.attributes;
    let number = attributes.message_id.as_deref().and_then(|id| id.parse().ok());
    Frame::Message(Message {
        number: number.expect("every message of a simulation has a number"),
        source: publication.source.id.index(),
        topic: publication.draft.topic.clone(),
        headers: attributes.headers.clone(),
        cursor: publication.cursor(),
        position,
        replay,
        redelivered: attributes.redelivered,
    })
}

fn frame(event: Event) -> Option<Frame> {
    let number = |id: CommandId| id.and_then(|id| id.get().parse().ok());
    match event {
        Event::Subscribed { id, pattern, cursors, resumed } => {
            Some(Frame::Subscribed { id: number(id), pattern: pattern.to_string(), cursors, resumed })
        }
        Event::CaughtUp { id, pattern, cursors } => {
            Some(Frame::CaughtUp { id: number(id), pattern: pattern.to_string(), cursors })
        }
        Event::Done { id, .. } => Some(Frame::Unsubscribed(number(id))),
        Event::Position { cursors } => Some(Frame::Position { cursors }),
        Event::Gap(Gap { pattern, source, missed, reason, .. }) => {
            Some(Frame::Gap { pattern: pattern.to_string(), source, reason, missed })
        }
        Event::Error { message, .. } => {
            // A subscribe that was taken back or overtaken is answered so; nothing else fails here.
            assert!(message.contains("subscri"), "{message}");
            None
        }
        _ => None,
    }
}

fn gap(missed: Missed) -> Gap {
    Gap { pattern: missed.pattern, label: None, source: missed.source, missed: missed.missed, reason: missed.reason }
}
