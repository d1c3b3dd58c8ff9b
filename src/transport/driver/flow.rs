//! The way down: turns of live messages, replays, and subscriptions that become live.

use std::collections::HashSet;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::hub::index::SubscriberId;
use crate::hub::log::ReadBounds;
use crate::hub::outbox::Overflow;
use crate::hub::shard::{
    Activated, CaughtUp, Lapsed, Missed, Notice, Refusal, Replay, Replayed, Shard, SubscriptionId, Wait,
};
use crate::hub::turn::Encode;
use crate::metrics::DropReason;
use crate::model::close::CloseReason;
use crate::model::gap::GapReason;
use crate::protocol::{Gap, Labels, Receiving, Stage};
use crate::session::{Completion, Session, SubscribeRefusal, SubscriptionKey};
use crate::transport::driver::Driver;
use crate::transport::driver::apart::Sent;
use crate::transport::driver::connection::{Connection, Ending, Keep};
use crate::transport::driver::plan::{Form, Plan};
use crate::transport::driver::rota::Ticket;
use crate::transport::wire::encoding;

/// One turn: enough to share writes under load, little enough for the next event not to wait.
const TURN: ReadBounds = ReadBounds { messages_max: 256, bytes_max: 256 << 10 };

/// One step of a replay.
const REPLAY_STEP: ReadBounds = ReadBounds { messages_max: 256, bytes_max: 256 << 10 };

/// Steps of replays between two turns, so that live messages of others are not late.
const REPLAY_STEPS_MAX: usize = 16;

/// What the closing frame says to a reader that is too slow.
const TOO_SLOW: &str = "too slow: answers wait for you that you do not read; connect again and resume";

impl Driver {
    /// Takes one turn from the logs and flushes it. True when there may be more to take.
    pub(super) fn turn(&mut self) -> bool {
        let taken = self.shard.take(TURN);
        let mut polls = Vec::new();
        self.is_mid_turn = true;
        for (subscriber, notice) in taken.notices {
            self.with(subscriber, |driver, connection| {
                polls.extend(connection.polling.is_some().then_some(subscriber));
                driver.notify(subscriber, connection, notice);
            });
        }
        self.is_mid_turn = false;
        self.deliver();
        polls.into_iter().for_each(|subscriber| _ = self.with(subscriber, |_, _| ()));
        let fallen = taken.fallen.iter().map(|subscriber| self.ticket(*subscriber)).collect::<Vec<_>>();
        self.replay_soon(fallen);
        taken.more
    }

    /// Writes to every subscriber what the turn pushed to it.
    fn deliver(&mut self) {
        let dirty = self.shard.turn().0.close();
        let mut counts = Counts::default();
        for subscriber in &dirty {
            self.deliver_to(*subscriber, &mut counts);
        }
        let now = unix_millis();
        let turn = self.shard.turn().0;
        if !dirty.is_empty() {
            turn.publications().for_each(|publication| self.latencies.written(publication, now));
            self.latencies.flush();
        }
        turn.end();
        counts.tell(&self.shared.metrics);
        self.shared.metrics.drops(DropReason::NotEncodable, self.wire.take_not_encodable());
        for (protocol, encodes) in self.wire.take_encodes() {
            self.shared.metrics.encodes(protocol, encodes);
        }
    }

    fn deliver_to(&mut self, subscriber: SubscriberId, counts: &mut Counts) {
        let Some(mut connection) = self.slots.get_mut(subscriber.index()).and_then(|slot| slot.connection.take())
        else {
            self.shard.turn().0.forget(subscriber);
            return;
        };
        if connection.is_open() {
            self.plan_again(subscriber, &mut connection);
            match self.deliver_turn(subscriber, &mut connection) {
                Ok(Sent { messages, bytes }) => {
                    connection.delivered += messages;
                    counts.add(connection.protocol.0, messages, bytes);
                }
                Err(Overflow) => self.fall_behind(subscriber, &mut connection),
            }
        } else {
            self.shard.turn().0.forget(subscriber);
        }
        // Puts it back, or buries it.
        if let Some(slot) = self.slots.get_mut(subscriber.index()) {
            slot.connection = Some(connection);
        }
        self.with(subscriber, |_, _| ());
    }

    /// Sends a connection what the turn brought it, in the way that it takes messages.
    fn deliver_turn(&mut self, subscriber: SubscriberId, connection: &mut Connection) -> Result<Sent, Overflow> {
        if connection.polling.is_some() {
            return Ok(self.collect_turn(subscriber, connection));
        }
        let encoding = match (&connection.plan, connection.codec.receiving()) {
            (_, Receiving::Own(_)) => return Ok(self.deliver_own(subscriber, connection)),
            (Plan::Several(_), Receiving::Shared) => return self.deliver_apart(subscriber, connection),
            (Plan::One(encoding), Receiving::Shared) => *encoding,
        };
        let (turn, positions) = self.shard.turn();
        let (delivery, messages) = turn.delivery(subscriber, encoding, &mut self.wire.at(positions, Stage::Live));
        let bytes = connection.deliver(delivery, self.behind_bytes, &mut self.copy_buffer)?;
        Ok(Sent { messages, bytes: bytes as u64 })
    }

    /// Goes on from the log when the socket takes more: what the turn brought does not wait in memory.
    fn fall_behind(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        self.fall_behind_after(subscriber, connection, None);
    }

    /// Likewise, from after the last message of the turn that it was sent.
    pub(super) fn fall_behind_after(
        &mut self,
        subscriber: SubscriberId,
        connection: &mut Connection,
        sent: Option<u64>,
    ) {
        self.leave_turn(subscriber, sent);
        if connection.room() == 0 {
            // Its socket may be as ready as ever: what it waits for is the client's word.
            connection.replays_when_told = true;
            return;
        }
        connection.replays_when_drained = true;
        self.be_patient(connection);
        self.shared.metrics.fell_behind();
    }

    /// Has a subscriber read on from the log after the last message of the turn that it was sent, or from before the turn.
    pub(super) fn leave_turn(&mut self, subscriber: SubscriberId, sent: Option<u64>) {
        let Some((source, before)) = self.shard.turn().0.origin() else { return };
        match sent {
            Some(position) => self.shard.read_on_from(subscriber, source, position),
            None => self.shard.fall_behind(subscriber, source, before),
        }
    }

    /// Ends a session whose peer takes not even what cannot be read again.
    pub(super) fn end_slow(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        self.end(
            subscriber,
            connection,
            Ending { reason: CloseReason::SlowConsumer, detail: TOO_SLOW, keep: Keep::Nothing },
        );
    }

    /// Ends a session from our side. Its subscriptions go at once; the socket follows when the peer answered.
    pub(super) fn end(&mut self, subscriber: SubscriberId, connection: &mut Connection, ending: Ending<'_>) {
        if connection.polling.is_some() {
            return self.refuse_poll(subscriber, connection, ending);
        }
        if connection.is_open() {
            connection.close(ending);
            self.silence(subscriber, connection);
            self.farewells.set(std::time::Instant::now(), self.ticket(subscriber));
        }
    }

    /// Its session is over; only the farewell is not.
    pub(super) fn silence(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        let ticket = self.ticket(subscriber);
        self.relinquish(subscriber, connection);
        self.shard.silence(subscriber);
        self.forget_openings(ticket);
        self.depart_from_all(ticket, connection);
    }

    /// Tells a subscriber what happened to a source.
    fn notify(&mut self, subscriber: SubscriberId, connection: &mut Connection, notice: Notice) {
        let mut actions = Vec::new();
        match notice {
            Notice::Gap(missed) => {
                self.shared.metrics.gaps(missed.reason, 1);
                if missed.reason == GapReason::Slow {
                    self.shared.metrics.drops(DropReason::SlowConsumer, missed.missed.unwrap_or(0));
                }
                let gap = gap(missed, &connection.session);
                connection.session.gap(gap, &mut actions);
            }
            Notice::Outage(source) => connection.session.outage(source, &mut actions),
            Notice::Restored(source) => connection.session.restored(source, &mut actions),
        }
        self.perform(subscriber, connection, actions);
    }

    /// Looks at the subscriptions that wait for their bindings, when any binding has changed.
    pub(super) fn check_openings(&mut self) {
        if self.openings.is_empty() {
            return;
        }
        let standings: Vec<u64> = self.shared.hub.sources().iter().map(|source| source.tellings()).collect();
        if standings == self.standings {
            return;
        }
        self.standings = standings;
        let incomplete = self.incomplete();
        let mut settled = Vec::new();
        self.openings.retain(|(ticket, id), opening| match Shard::stands(opening) {
            Ok(stands) if !stands || incomplete.contains(ticket) => true,
            outcome => {
                settled.push((*ticket, *id, outcome.map(|_| ())));
                false
            }
        });
        for (ticket, id, outcome) in settled {
            self.with_ticket(ticket, |driver, connection| driver.opened(ticket.subscriber, connection, id, outcome));
        }
    }

    /// With a joint cursor all are opened together, once the bindings of all stand: who of them has to wait.
    fn incomplete(&self) -> HashSet<Ticket> {
        let waiting = self.openings.iter().filter(|(_, opening)| Shard::stands(opening) == Ok(false));
        let tickets = waiting.map(|((ticket, _), _)| *ticket);
        tickets.filter(|ticket| self.shard.is_joint(ticket.subscriber)).collect()
    }

    /// Nobody is left to be told when these bindings stand. What an opening holds stays wanted at the broker.
    pub(super) fn forget_openings(&mut self, gone: Ticket) {
        let all = (gone, SubscriptionId(0))..=(gone, SubscriptionId(u32::MAX));
        while let Some((&opening, _)) = self.openings.range(all.clone()).next() {
            self.openings.remove(&opening);
        }
    }

    /// Ends subscriptions that stood and will not be served any more, and tells why.
    pub(super) fn end_lapsed(&mut self) {
        for Lapsed { subscriber, subscription, gaps, sentence } in self.shard.lapsed() {
            self.with(subscriber, |driver, connection| {
                for missed in gaps {
                    driver.notify(subscriber, connection, Notice::Gap(missed));
                }
                driver.opened(subscriber, connection, subscription, Err(Refusal::Refused(sentence)));
            });
        }
    }

    /// A subscription's bindings stand, or never will, or no longer.
    pub(super) fn opened(
        &mut self,
        subscriber: SubscriberId,
        connection: &mut Connection,
        id: SubscriptionId,
        outcome: Result<(), Refusal>,
    ) {
        match outcome {
            Ok(()) => {
                let mut activated = self.shard.activate(subscriber, id);
                let caught_up =
                    if self.shard.is_joint(subscriber) { caught_up_last(&mut activated) } else { Vec::new() };
                for activated in activated {
                    self.activated(subscriber, connection, activated);
                }
                for CaughtUp { id, cursors } in caught_up {
                    let caught_up = Completion::CaughtUp { subscription: SubscriptionKey(id.0), cursors };
                    self.complete(subscriber, connection, caught_up);
                }
                if self.shard.has_replay(subscriber) {
                    self.queue_replay(self.ticket(subscriber), connection);
                } else if self.shard.is_joint(subscriber) {
                    // Whose line is lost before the first message would not know where to go on.
                    self.tell_position(subscriber, connection, Instant::now());
                }
            }
            Err(refusal) => {
                self.unsubscribe(subscriber, connection, id);
                let refusal = refusal_of(refusal);
                let completion = Completion::SubscribeFailed { subscription: SubscriptionKey(id.0), refusal };
                self.complete(subscriber, connection, completion);
            }
        }
    }

    /// Ends a subscription, or its wait for its bindings.
    pub(super) fn unsubscribe(&mut self, subscriber: SubscriberId, connection: &mut Connection, id: SubscriptionId) {
        let ticket = self.ticket(subscriber);
        self.openings.remove(&(ticket, id));
        for missed in self.shard.unsubscribe(subscriber, id) {
            self.notify(subscriber, connection, Notice::Gap(missed));
        }
        // What is left may go on at once where it waited for this one.
        self.queue_replay(ticket, connection);
    }

    fn activated(&mut self, subscriber: SubscriberId, connection: &mut Connection, activated: Activated) {
        for missed in &activated.gaps {
            self.shared.metrics.gaps(missed.reason, 1);
        }
        let completion = Completion::Subscribed {
            subscription: SubscriptionKey(activated.id.0),
            cursors: activated.cursors,
            resumed: activated.resumed,
            gaps: activated.gaps.into_iter().map(|missed| gap(missed, &connection.session)).collect(),
            replay: activated.replay,
        };
        self.complete(subscriber, connection, completion);
    }

    /// Writes on where a socket has room again; with that a replay may go on.
    pub(super) fn drain(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        connection.flush();
        if connection.outbox.is_empty() && std::mem::take(&mut connection.replays_when_drained) {
            self.queue_replay(self.ticket(subscriber), connection);
        }
        self.settle_taken(subscriber, connection);
        // Results of its calls may have held it up.
        self.read_on(subscriber, connection);
        self.tell_owed(subscriber, connection);
    }

    /// Has these replay in their turn.
    pub(super) fn replay_soon(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            self.with_ticket(ticket, |driver, connection| driver.queue_replay(ticket, connection));
        }
    }

    /// Has one replay in its turn. However often it is asked for it stands in the queue once.
    pub(super) fn queue_replay(&mut self, ticket: Ticket, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.replays_in_turn, true) {
            self.replaying.push_back(ticket);
        }
    }

    /// A fair share of the replays. True when there is more to do at once.
    pub(super) fn replay_some(&mut self) -> bool {
        if self.replaying.is_empty() && self.awaiting.is_empty() {
            return false;
        }
        let brought = self.awaiting.look(self.shard.reached());
        self.replay_soon(brought);
        let mut steps = 0;
        for _ in 0..self.replaying.len() {
            if steps == REPLAY_STEPS_MAX {
                break;
            }
            let Some(ticket) = self.replaying.pop_front() else { break };
            self.awaiting.forget(ticket);
            let step = self.with_ticket(ticket, |driver, connection| {
                let step = driver.replay(ticket, connection);
                connection.replays_in_turn = matches!(step, Step::Sent);
                step
            });
            match step {
                Some(Step::Sent) => {
                    steps += 1;
                    self.replayed_at = Some(Instant::now());
                    self.replaying.push_back(ticket);
                }
                Some(Step::Waits) => steps += 1,
                Some(Step::Rests | Step::Drains | Step::Done) | None => {}
            }
        }
        !self.replaying.is_empty()
    }

    /// Has a replay go on when it may.
    fn wait_with(&mut self, ticket: Ticket, wait: Wait) -> Step {
        if let Some(at) = wait.until {
            self.paced.set(at, ticket);
        }
        if wait.shard {
            self.awaiting.set(ticket, self.shard.awaited(ticket.subscriber));
            return Step::Waits;
        }
        Step::Rests
    }

    /// What a step of a replay found passes the outbox's bounds: a step is bounded itself, and the next waits for an empty
    /// outbox. A live message that comes late looks as it would have in time.
    fn send_replay(&mut self, subscriber: SubscriberId, connection: &mut Connection, replay: &Replay) -> Sent {
        let form = Form::of(connection.protocol, connection.framing);
        if form.labels != Labels::Absent || connection.codec.receiving() != Receiving::Shared {
            return self.send_replay_apart(subscriber, connection, replay);
        }
        let encoding = encoding(connection.protocol, connection.framing);
        let stage = if replay.asked_for { Stage::Replay } else { Stage::Live };
        let before = connection.outbox.bytes();
        let mut messages = replay.messages.len();
        if let Some((_, excerpt)) = &replay.excerpt {
            let mut wire = self.wire.at(self.shard.positions(), stage);
            connection.outbox.push(excerpt.frames(encoding, replay.asked_for, &mut wire));
            messages += excerpt.publications().len();
        }
        for Replayed { publication, position, .. } in &replay.messages {
            let positions = self.shard.positions_at(position);
            connection.outbox.push(self.wire.at(&positions, stage).encode(encoding, publication));
        }
        connection.note_sent();
        Sent { messages: messages as u64, bytes: connection.outbox.bytes().saturating_sub(before) as u64 }
    }

    /// One step of one connection's replay, if its socket has taken all that came before.
    fn replay(&mut self, ticket: Ticket, connection: &mut Connection) -> Step {
        let subscriber = ticket.subscriber;
        if !connection.is_open() || !self.shard.has_replay(subscriber) {
            return Step::Done;
        }
        if !connection.outbox.is_empty() {
            connection.replays_when_drained = true;
            return Step::Drains;
        }
        let room = connection.room();
        if room == 0 {
            connection.replays_when_told = true;
            return Step::Drains;
        }
        let bounds = ReadBounds { messages_max: REPLAY_STEP.messages_max.min(room), ..REPLAY_STEP };
        let bounds = match &connection.polling {
            Some(polling) if !self.shard.has_list(subscriber) => polling.bounds(bounds),
            _ => bounds,
        };
        let mut replay = self.shard.replay(subscriber, bounds, Instant::now());
        self.shared.metrics.looked_at(replay.looked_at);
        let sent = replay.progressed || !replay.caught_up.is_empty();
        let wait = replay.wait;
        for missed in std::mem::take(&mut replay.gaps) {
            self.notify(subscriber, connection, Notice::Gap(missed));
        }
        let Sent { messages, bytes } = if replay.messages.is_empty() && replay.excerpt.is_none() {
            Sent::default()
        } else {
            self.send_replay(subscriber, connection, &replay)
        };
        connection.delivered += messages;
        self.shared.metrics.deliveries(connection.protocol, messages, bytes);
        for CaughtUp { id, cursors } in replay.caught_up {
            let caught_up = Completion::CaughtUp { subscription: SubscriptionKey(id.0), cursors };
            self.complete(subscriber, connection, caught_up);
        }
        connection.flush();
        match self.shard.has_replay(subscriber) {
            false => Step::Done,
            true if sent => Step::Sent,
            true => self.wait_with(ticket, wait),
        }
    }
}

/// How a step of a replay went.
enum Step {
    /// There is more when some time has gone by.
    Rests,
    /// There is more.
    Sent,
    /// For the shard to come as far, or for a source to fetch it, which will bring it back.
    Waits,
    /// For the socket to drain, which will bring it back.
    Drains,
    /// It is over.
    Done,
}

/// Deliveries of one turn by protocol, told to the metrics in one go.
#[derive(Default)]
struct Counts(Vec<(u64, u64)>);

impl Counts {
    fn add(&mut self, protocol: u8, messages: u64, bytes: u64) {
        let row = usize::from(protocol);
        if self.0.len() <= row {
            self.0.resize(row + 1, (0, 0));
        }
        if let Some(count) = self.0.get_mut(row) {
            count.0 += messages;
            count.1 += bytes;
        }
    }

    fn tell(self, metrics: &crate::metrics::Metrics) {
        for (row, (messages, bytes)) in self.0.into_iter().enumerate().filter(|(_, count)| count.0 > 0) {
            metrics.deliveries(crate::protocol::ProtocolId(row as u8), messages, bytes);
        }
    }
}

/// What has nothing to replay has caught up at once. With a joint cursor that is told after the gaps of all: who keeps the
/// cursor that comes with it has been told everything before it.
fn caught_up_last(activated: &mut [Activated]) -> Vec<CaughtUp> {
    let at_once = activated.iter_mut().filter(|activated| !activated.replay);
    let later = |activated: &mut Activated| {
        activated.replay = true;
        CaughtUp { id: activated.id, cursors: activated.cursors.clone() }
    };
    at_once.map(later).collect()
}

fn gap(missed: Missed, session: &Session) -> Gap {
    let Missed { subscription, pattern, source, reason, missed } = missed;
    let label = session.label(SubscriptionKey(subscription.0)).cloned();
    Gap { pattern, label, source, missed, reason }
}

fn refusal_of(refusal: Refusal) -> SubscribeRefusal {
    match refusal {
        Refusal::UnknownSource(name) => SubscribeRefusal::UnknownSource(name),
        Refusal::Refused(sentence) => SubscribeRefusal::Refused(sentence),
    }
}

/// The wall clock in milliseconds since 1970.
pub(crate) fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
