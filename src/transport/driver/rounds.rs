//! What comes with time: heartbeats, farewells that were not answered, the clocks of sessions; and what is asked of a
//! shard from outside: to drain, to describe its connections.

use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::hub::index::SubscriberId;
use crate::model::close::CloseReason;
use crate::protocol::{Gap, Tick};
use crate::transport::admin::view::{ConnectionRow, GapRow, Listing};
use crate::transport::driver::connection::{Connection, Ending, Keep};
use crate::transport::driver::rota::Ticket;
use crate::transport::driver::{Control, Driver, transport_of};
use crate::transport::liveness::Peer;
use crate::transport::socket::unacknowledged_max;

/// Heartbeats in a row without a sign of life that end a connection.
const SILENT_MAX: u8 = 2;

/// Between two looks at the outboxes for their gauges.
const GAUGE_PERIOD: Duration = Duration::from_secs(1);

/// How long what was read from logs for one client is kept for the next.
const PASSAGES_LINGER: Duration = Duration::from_secs(10);

/// What the gauges were last told.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Gauged {
    bytes: i64,
    slow: i64,
    subscriptions: i64,
}

impl Driver {
    /// Everything that is due.
    pub(super) fn rounds(&mut self, now: Instant) {
        if self.gauge_at <= now {
            self.gauge();
            self.gauge_at = now + GAUGE_PERIOD;
            self.forget_passages(now);
            self.has_leases = self.shard.end_leases(now);
        }
        while let Some(ticket) = self.heartbeats.due(now) {
            self.with_ticket(ticket, |driver, connection| driver.heartbeat(ticket, connection, now));
        }
        while let Some(ticket) = self.polls.due(now) {
            self.with_ticket(ticket, |driver, connection| driver.look_at_poll(ticket, connection, now));
        }
        while let Some(ticket) = self.ticks.due(now) {
            self.with_ticket(ticket, |driver, connection| {
                driver.tick(ticket, connection, now);
                driver.tell_when_quiet(ticket, connection, now);
            });
        }
        while let Some(ticket) = self.farewells.due(now) {
            self.with_ticket(ticket, |_, connection| {
                if !connection.is_open() {
                    connection.die(CloseReason::Timeout);
                }
            });
        }
        while let Some(ticket) = self.greetings.due(now) {
            self.with_ticket(ticket, |driver, connection| driver.hear(ticket.subscriber, connection));
        }
        while let Some(ticket) = self.strangers.due(now) {
            self.with_ticket(ticket, |driver, connection| {
                let mut actions = Vec::new();
                connection.session.expire(now, &mut actions);
                driver.perform(ticket.subscriber, connection, actions);
            });
        }
    }

    /// Has those read on in the logs that may be sent something again.
    pub(super) fn rouse(&mut self) {
        if self.paced.next().is_some() {
            let now = Instant::now();
            let due = std::iter::from_fn(|| self.paced.due(now)).collect();
            self.replay_soon(due);
        }
    }

    /// After an outage clients come back one after the other, and what one was sent from the logs serves the next.
    fn forget_passages(&mut self, now: Instant) {
        let is_over = |at: Instant| now.saturating_duration_since(at) > PASSAGES_LINGER;
        if self.replaying.is_empty() && self.awaiting.is_empty() && self.replayed_at.is_some_and(is_over) {
            self.shard.forget_passages();
            self.replayed_at = None;
        }
    }

    /// When something will be due.
    pub(super) fn next_round(&self) -> Option<Instant> {
        // An empty shard whose gauges say so has nothing to gauge and sleeps for good.
        let is_calm = self.gauged.bytes == 0 && self.gauged.slow == 0 && self.replayed_at.is_none() && !self.has_leases;
        let idle = self.open == 0 && is_calm;
        let gauge = (!idle).then_some(self.gauge_at);
        let rotas = [self.heartbeats.next(), self.farewells.next(), self.greetings.next(), self.strangers.next()];
        rotas.into_iter().chain([self.paced.next(), self.ticks.next(), self.polls.next(), gauge]).flatten().min()
    }

    /// Asks a codec what is due.
    pub(super) fn tick(&mut self, ticket: Ticket, connection: &mut Connection, now: Instant) {
        if !connection.is_open() {
            return;
        }
        if !self.takes_words(connection) {
            connection.codec.excuse();
        }
        let Tick { send, end, next } = connection.codec.tick(now);
        if let Some(outbound) = send {
            self.send_outbound(ticket.subscriber, connection, &outbound);
        }
        if let Some((reason, detail)) = end {
            self.end(ticket.subscriber, connection, Ending { reason, detail, keep: Keep::Waiting });
        }
        if let Some(next) = next {
            self.ticks.set(next, ticket);
        }
        connection.flush();
    }

    /// One heartbeat of one connection: is it there, and does it know that we are?
    fn heartbeat(&mut self, ticket: Ticket, connection: &mut Connection, now: Instant) {
        let subscriber = ticket.subscriber;
        if !connection.is_open() {
            return;
        }
        // Who answers, and was sent nothing, has nothing to take: the kernel need not be asked.
        let may_be_full = connection.sent || !connection.heard || !connection.outbox.is_empty();
        if may_be_full && self.is_full(connection) {
            return self.wait_for(ticket, connection, now);
        }
        if std::mem::take(&mut connection.stalled) > 0 {
            connection.socket.limit_unacknowledged(unacknowledged_max(self.shared.settings.server.heartbeat));
        }
        // What waits goes out: the peer is there, though it may come to our ping only after all that.
        let drains = std::mem::take(&mut connection.drained) && !connection.outbox.is_empty();
        // Nor is it silent while it is not listened to.
        let is_excused = drains || !self.takes_words(connection);
        connection.silent = if std::mem::take(&mut connection.heard) || is_excused { 0 } else { connection.silent + 1 };
        // Who listens by HTTP never speaks; there the kernel tells when nothing is acknowledged any more.
        if connection.silent >= SILENT_MAX && connection.reader.is_some() {
            return self.end_silent(subscriber, connection);
        }
        if !drains {
            self.give_sign(ticket, connection, now);
        }
        self.heartbeats.set(now, ticket);
    }

    /// Tells a client that we are there, and where it stands if it was told nothing else.
    fn give_sign(&mut self, ticket: Ticket, connection: &mut Connection, now: Instant) {
        if std::mem::take(&mut connection.sent) {
            self.tell_when_quiet(ticket, connection, now);
        } else {
            self.tell_position(ticket.subscriber, connection, now);
        }
        let sign = connection.framing.heartbeat();
        if connection.is_open() && connection.push(sign, self.outbox_bounds).is_err() {
            self.end_slow(ticket.subscriber, connection);
        }
        connection.flush();
    }

    /// Tells a client where it stands once it was told nothing for a heartbeat: it is looked at again when that may be so.
    /// Messages set no clock, only heartbeats do.
    fn tell_when_quiet(&mut self, ticket: Ticket, connection: &mut Connection, now: Instant) {
        let quiet_at = connection.sent_at + self.shared.settings.server.heartbeat;
        if quiet_at > now {
            self.ticks.set(quiet_at, ticket);
        } else if connection.is_open() && connection.outbox.is_empty() {
            self.tell_position(ticket.subscriber, connection, now);
        }
    }

    pub(super) fn tell_position(&mut self, subscriber: SubscriberId, connection: &mut Connection, now: Instant) {
        let cursors = self.shard.cursors(subscriber);
        if !cursors.0.is_empty() {
            let action = connection.session.quiet(cursors);
            self.perform(subscriber, connection, vec![action]);
        }
        (connection.sent, connection.sent_at) = (false, now);
    }

    /// Whether the peer is there and takes nothing. It cannot have read our pings, so its silence says nothing.
    fn is_full(&self, connection: &Connection) -> bool {
        let addresses = connection.socket.addresses();
        addresses.is_some_and(|(local, remote)| self.liveness.of(local, remote) == Peer::Full)
    }

    /// Keeps the kernel from giving up a peer that is only slow, as soon as it is known to be.
    pub(super) fn be_patient(&mut self, connection: &mut Connection) {
        if connection.stalled == 0 && self.is_full(connection) {
            connection.socket.limit_unacknowledged(self.shared.settings.limits.stall_timeout);
            connection.stalled = 1;
        }
    }

    /// Gives a peer that is only slow the time that is configured for it.
    fn wait_for(&mut self, ticket: Ticket, connection: &mut Connection, now: Instant) {
        self.be_patient(connection);
        let limits = &self.shared.settings.limits;
        connection.silent = 0;
        connection.stalled = if std::mem::take(&mut connection.drained) { 1 } else { connection.stalled + 1 };
        if self.shared.settings.server.heartbeat * connection.stalled > limits.stall_timeout {
            return self.end_slow(ticket.subscriber, connection);
        }
        self.heartbeats.set(now, ticket);
    }

    /// Nobody is there to answer a closing frame, so what the connection held is freed at once.
    fn end_silent(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        self.end(
            subscriber,
            connection,
            Ending { reason: CloseReason::Timeout, detail: "two heartbeats were not answered", keep: Keep::Nothing },
        );
        connection.die(CloseReason::Timeout);
    }

    /// Does what was asked from outside.
    pub(super) fn control(&mut self, control: Control) {
        match control {
            Control::Drain(period) => self.dismissal = Some(period),
            Control::Yield(ticket, let_go) => self.yield_to_another(ticket, let_go),
            Control::Connections(most, answer) => {
                let rows =
                    self.slots.iter().filter_map(|slot| slot.connection.as_deref()).take(most).map(row).collect();
                // Whoever asked may have given up.
                let _ = answer.send(Listing { rows, total: self.open });
            }
        }
    }

    /// Says goodbye to everybody, if that is asked for.
    pub(super) fn dismiss(&mut self) {
        let Some(period) = self.dismissal.take() else { return };
        self.draining = true;
        for number in 0..self.slots.len() {
            let subscriber = SubscriberId(number as u32);
            self.with(subscriber, |driver, connection| driver.say_goodbye(subscriber, connection, period));
        }
    }

    /// Sends a client away, to come back at a random moment of the period, so that not all come at once.
    pub(super) fn say_goodbye(&mut self, subscriber: SubscriberId, connection: &mut Connection, period: Duration) {
        let mut actions = Vec::new();
        connection.session.drain(period.mul_f64(fastrand::f64()), &mut actions);
        self.perform(subscriber, connection, actions);
    }

    /// Tells how many subscriptions there are, where that changed.
    pub(super) fn gauge_subscriptions(&mut self) {
        let subscriptions = self.shard.subscriptions() as i64;
        if subscriptions != self.gauged.subscriptions {
            self.shared.metrics.subscriptions_changed(subscriptions - self.gauged.subscriptions);
            self.gauged.subscriptions = subscriptions;
        }
    }

    /// Brings the gauges of outboxes up to date.
    fn gauge(&mut self) {
        let open = self.slots.iter().filter_map(|slot| slot.connection.as_deref());
        let (bytes, slow) = open.fold((0, 0), |(bytes, slow), connection| {
            let waiting = connection.outbox.bytes() as i64;
            (bytes + waiting, slow + i64::from(waiting > 0))
        });
        self.shared.metrics.outbox_bytes_changed(bytes - self.gauged.bytes);
        self.shared.metrics.slow_sessions_changed(slow - self.gauged.slow);
        self.gauged = Gauged { bytes, slow, ..self.gauged };
    }
}

/// The line that answers why somebody got nothing.
pub(super) fn tell_end(connection: &Connection, reason: CloseReason) {
    let session = connection.session.describe(connection.delivered);
    tracing::debug!(
        reason = reason.name(),
        address = connection.peer.map(tracing::field::display),
        "session ended: {session}"
    );
}

/// A row of `GET /api/v1/connections`.
fn row(connection: &Connection) -> ConnectionRow {
    let session = connection.session.describe(connection.delivered);
    let gap_row = |gap: Gap| GapRow {
        pattern: gap.pattern.to_string(),
        source: gap.source.to_string(),
        reason: gap.reason.name(),
        missed: gap.missed,
    };
    ConnectionRow {
        connection: session.connection,
        user: session.user,
        protocol: session.protocol,
        transport: transport_of(connection).name(),
        address: connection.peer.map(|peer| peer.to_string()),
        client: session.client,
        since_ms: connection.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        patterns: session.patterns,
        subscriptions: session.subscriptions,
        pending: session.pending,
        matched: session.matched,
        outbox_bytes: connection.outbox.bytes(),
        last_gap: session.last_gap.map(gap_row),
    }
}
