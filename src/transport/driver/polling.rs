//! Polls: sessions without a socket. What they are sent is collected, and makes one HTTP answer as soon as there is anything, when
//! the poll's time is up, or when there is as much as one answer may hold. Nothing outlives the answer but, for a while, claims.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::config::{self, Settings};
use crate::hub::index::SubscriberId;
use crate::hub::log::ReadBounds;
use crate::model::close::CloseReason;
use crate::model::cursor::JointCursor;
use crate::protocol::poll::Collected;
use crate::protocol::{Event, Stage};
use crate::transport::driver::Driver;
use crate::transport::driver::apart::Sent;
use crate::transport::driver::connection::{Connection, Ending};
use crate::transport::driver::rota::Ticket;
use crate::transport::wire::encoding;

/// How long bindings may take to stand, and logs to be read, whatever the client's patience.
const OPENING: Duration = Duration::from_secs(10);

/// Between two looks whether the client still waits: for so long a poll may outlive it.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// A poll as it was asked for.
pub(crate) struct Poll {
    /// Where it goes on; nowhere for who asks where to begin, which is answered at once.
    pub(crate) after: JointCursor,
    /// How long it waits for something.
    pub(crate) timeout: Duration,
    /// Where its answer goes.
    pub(crate) answer: oneshot::Sender<Answered>,
}

/// What a poll came to.
#[derive(Debug)]
pub(crate) enum Answered {
    /// What there is.
    Body(Bytes),
    /// The session could not be, and why.
    Refused(CloseReason, String),
    /// The server stops: to be asked again after this time, or another one.
    Later(Duration),
}

/// What is still to be read for a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    /// Some of what `last` brings. The next poll could not bring the rest: the answer waits for it, however much it is.
    List,
    /// Some of a log, where the next poll can go on.
    Log,
    Nothing,
}

/// A poll under way.
pub(super) struct Polling {
    asked: Poll,
    collected: Collected,
    messages_max: usize,
    bytes_max: usize,
    /// Whether all its bindings stand.
    stands: bool,
    /// Whether a source lost its broker since then.
    is_cut: bool,
    /// When the client would have an answer, and when it is given one in any case.
    deadlines: (Instant, Instant),
    /// Which of them are past.
    is_late: (bool, bool),
    reconnect_in: Duration,
}

impl Polling {
    pub(super) fn new(asked: Poll, settings: &config::Poll, now: Instant) -> Self {
        let deadlines = (now + asked.timeout, now + asked.timeout.max(OPENING));
        Self {
            asked,
            collected: Collected::default(),
            messages_max: settings.messages_max,
            bytes_max: settings.bytes_max,
            stands: false,
            is_cut: false,
            deadlines,
            is_late: (false, false),
            reconnect_in: Duration::ZERO,
        }
    }

    /// Takes in what the client is to be told beside messages.
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Goodbye { reconnect_in, .. } => self.reconnect_in = *reconnect_in,
            Event::Outage { .. } => self.is_cut |= self.stands,
            _ => {}
        }
        self.collected.note(event);
    }

    /// How much more of a log it takes in one step.
    pub(super) fn bounds(&self, step: ReadBounds) -> ReadBounds {
        let messages_max = step.messages_max.min(self.messages_max.saturating_sub(self.collected.messages()));
        let bytes_max = step.bytes_max.min(self.bytes_max.saturating_sub(self.collected.bytes()));
        ReadBounds { messages_max, bytes_max }
    }

    fn is_full(&self) -> bool {
        self.collected.messages() >= self.messages_max || self.collected.bytes() >= self.bytes_max
    }

    /// Whether the answer is due.
    fn is_complete(&self, unread: Unread) -> bool {
        let (is_late, is_overdue) = self.is_late;
        if is_overdue || self.is_full() && unread != Unread::List {
            return true;
        }
        if !self.stands {
            // While the broker is away bindings do not come to stand soon.
            return self.asked.timeout.is_zero() && self.collected.tells_outage();
        }
        let at_once = self.asked.after.0.is_empty() || self.asked.timeout.is_zero();
        unread == Unread::Nothing && (is_late || at_once || self.is_cut || !self.collected.is_empty())
    }
}

impl Connection {
    /// Moves what waits for a socket, of which a poll has none, into its answer.
    fn collect(&mut self) {
        if let Some(polling) = &mut self.polling {
            self.outbox.take_all().for_each(|lines| polling.collected.push(lines));
        }
    }
}

impl Driver {
    /// Answers a poll if that is due.
    pub(super) fn settle_poll(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        // What a turn brought is counted in where the shard stands before it is handed to everybody.
        if !self.is_mid_turn && connection.is_open() && self.is_answerable(subscriber, connection) {
            self.answer_poll(subscriber, connection);
        }
    }

    fn is_answerable(&self, subscriber: SubscriberId, connection: &mut Connection) -> bool {
        connection.collect();
        let Some(polling) = &mut connection.polling else { return false };
        polling.stands = polling.stands || !self.shard.cursors(subscriber).0.is_empty();
        polling.is_complete(match self.shard.has_replay(subscriber) {
            _ if self.shard.has_list(subscriber) => Unread::List,
            true => Unread::Log,
            false => Unread::Nothing,
        })
    }

    /// How many messages `last` may bring: to a poll as many as an answer holds.
    pub(super) fn last_max(&self, connection: &Connection) -> usize {
        let Settings { limits, poll, .. } = &self.shared.settings;
        let in_answer = if connection.polling.is_some() { poll.messages_max } else { usize::MAX };
        limits.last_max.min(in_answer)
    }

    fn answer_poll(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        connection.collect();
        let Some(polling) = connection.polling.take() else { return };
        let Polling { asked: Poll { answer, after, .. }, collected, .. } = *polling;
        let cursors = self.shard.cursors(subscriber);
        // Only who has run out of time leaves some of a list unread, and asks for it again.
        let begins_anew = cursors.0.is_empty() || self.shard.has_list(subscriber);
        let cursor = if begins_anew { &after } else { &cursors };
        // The client may be gone.
        let _ = answer.send(Answered::Body(collected.into_body(cursor)));
        self.end_poll(subscriber, connection, CloseReason::Normal);
    }

    /// Ends a poll whose session has ended: with what there is if only the server stops.
    pub(super) fn refuse_poll(&mut self, subscriber: SubscriberId, connection: &mut Connection, ending: Ending<'_>) {
        if ending.reason == CloseReason::GoingAway && connection.polling.as_ref().is_some_and(|polling| polling.stands)
        {
            return self.answer_poll(subscriber, connection);
        }
        let Some(polling) = connection.polling.take() else { return };
        let answered = match ending.reason {
            CloseReason::GoingAway => Answered::Later(polling.reconnect_in),
            reason => Answered::Refused(reason, ending.detail.to_owned()),
        };
        // As above.
        let _ = polling.asked.answer.send(answered);
        self.end_poll(subscriber, connection, ending.reason);
    }

    /// The next poll of the same client finds the bindings as this one leaves them.
    fn end_poll(&mut self, subscriber: SubscriberId, connection: &mut Connection, reason: CloseReason) {
        self.shard.lease_claims(subscriber, Instant::now() + self.shared.settings.poll.lease);
        self.has_leases = true;
        connection.die(reason);
    }

    /// Looks whether a poll's time is up, and whether its client still waits.
    pub(super) fn look_at_poll(&mut self, ticket: Ticket, connection: &mut Connection, now: Instant) {
        let Some(polling) = &mut connection.polling else { return };
        let (late, overdue) = polling.deadlines;
        polling.is_late = (late <= now, overdue <= now);
        if polling.asked.answer.is_closed() {
            connection.polling = None;
            return self.end_poll(ticket.subscriber, connection, CloseReason::Lost);
        }
        let next = if late > now { late } else { overdue };
        self.polls.set(next.min(now + LOOK_PERIOD), ticket);
    }

    /// Collects what a turn brought, as far as it fits into the answer; from there on the next poll reads the log.
    pub(super) fn collect_turn(&mut self, subscriber: SubscriberId, connection: &mut Connection) -> Sent {
        let mut sent = Sent::default();
        let encoding = encoding(connection.protocol, connection.framing);
        let Some(polling) = &mut connection.polling else { return sent };
        let mut last = None;
        for envelope in self.shard.turn().0.sequence(subscriber) {
            if polling.is_full() {
                self.leave_turn(subscriber, last);
                break;
            }
            let (turn, positions) = self.shard.turn();
            let lines = turn.frame(envelope, encoding, &mut self.wire.at(positions, Stage::Live));
            last = Some(turn.publication(envelope).offset);
            sent.messages += 1;
            sent.bytes += lines.len() as u64;
            polling.collected.push(lines);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Bytes = Bytes::from_static(b"{}\n");

    /// A poll that waits so long, with a cursor or without, for two messages at most.
    fn polling(timeout: u64, after: &str) -> Polling {
        let (answer, _) = oneshot::channel();
        let asked = Poll { after: after.parse().unwrap_or_default(), timeout: Duration::from_secs(timeout), answer };
        let settings = config::Poll { messages_max: 2, ..config::Poll::default() };
        Polling { stands: true, ..Polling::new(asked, &settings, Instant::now()) }
    }

    fn outage() -> Event {
        Event::Outage { source: "events".into() }
    }

    #[test]
    fn who_waits_is_answered_with_the_first_message_once_nothing_more_is_to_be_read() {
        let mut polling = polling(25, "events~1.1");
        assert!(!polling.is_complete(Unread::Nothing));
        polling.collected.push(LINE);
        assert_eq!((polling.is_complete(Unread::Log), polling.is_complete(Unread::Nothing)), (false, true));
        polling.collected.push(LINE);
        assert!(polling.is_complete(Unread::Log), "it is full");
        assert!(!polling.is_complete(Unread::List), "the next poll would not bring the rest");
        assert_eq!(polling.bounds(ReadBounds { messages_max: 256, bytes_max: 256 }).messages_max, 0);
    }

    #[test]
    fn who_has_no_cursor_or_no_time_is_answered_as_soon_as_the_bindings_stand() {
        for mut polling in [polling(25, ""), polling(0, "events~1.1")] {
            assert_eq!((polling.is_complete(Unread::Log), polling.is_complete(Unread::Nothing)), (false, true));
            polling.stands = false;
            assert!(!polling.is_complete(Unread::Nothing));
        }
    }

    #[test]
    fn time_that_is_up_ends_the_wait_for_messages_and_only_much_later_that_for_bindings() {
        let mut polling = polling(1, "events~1.1");
        polling.is_late = (true, false);
        assert_eq!((polling.is_complete(Unread::Log), polling.is_complete(Unread::Nothing)), (false, true));
        polling.stands = false;
        assert!(!polling.is_complete(Unread::Nothing));
        polling.is_late = (true, true);
        assert!(polling.is_complete(Unread::Log) && polling.is_complete(Unread::List));
    }

    #[test]
    fn a_broker_that_is_lost_ends_the_wait_and_one_that_is_away_does_not() {
        let mut lost = polling(25, "events~1.1");
        lost.note(&outage());
        assert!(lost.is_complete(Unread::Nothing));
        let mut away = Polling { stands: false, ..polling(25, "events~1.1") };
        away.note(&outage());
        assert!(!away.is_complete(Unread::Nothing));
        away.stands = true;
        assert!(!away.is_complete(Unread::Nothing), "it is there again, and nothing has come");
        let mut hurried = Polling { stands: false, ..polling(0, "events~1.1") };
        hurried.note(&outage());
        assert!(hurried.is_complete(Unread::Nothing));
    }
}
