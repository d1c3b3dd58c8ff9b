//! The way up: what sockets bring becomes commands, and what sessions ask for is done.

use std::io;
use std::time::Instant;

use bytes::Bytes;

use crate::hub::index::SubscriberId;
use crate::hub::shard::{Last, Shard, SubscribeRequest, SubscriptionId};
use crate::metrics::{CallResult, PublishResult};
use crate::model::close::CloseReason;
use crate::model::outgoing::Request;
use crate::protocol::{Command, Echo, Event, Failures, Fault, Incoming, Outbound, REGISTRY, Said};
use crate::session::{Action, Completion, JobKey, SubscribeAction};
use crate::transport::driver::claiming::Claim;
use crate::transport::driver::connection::{Connection, Ending, Keep, Stage};
use crate::transport::driver::rota::Ticket;
use crate::transport::driver::{Answer, Driver, News, READ_BYTES};
use crate::transport::websocket::reader::Received;
use crate::transport::websocket::writer;

/// Reads of one connection in a row, before others have their turn.
const READS_MAX: usize = 4;

/// Connections that are read on between two turns after they had their share.
const READ_ON_MAX: usize = 64;

/// Things that one message says which are done in a row, before others have their turn.
const SAID_MAX: usize = 256;

/// What a token is answered while there is no way to check one.
const NO_TOKENS: &str = "this server checks no tokens yet: connect without one";

/// What a connection begins with.
pub(super) struct FirstWords {
    pub(super) refusal: Option<(CloseReason, String)>,
    pub(super) commands: Vec<Command>,
    pub(super) leftover: Vec<u8>,
}

impl Driver {
    /// The first words of a new connection: the answer to its request, what the request asked for, and what came after it.
    pub(super) fn greet(&mut self, subscriber: SubscriberId, connection: &mut Connection, words: FirstWords) {
        let FirstWords { refusal, commands, mut leftover } = words;
        let mut actions = Vec::new();
        connection.session.begin(&mut actions);
        self.perform(subscriber, connection, actions);
        if let Some((reason, sentence)) = refusal {
            self.end(subscriber, connection, Ending { reason, detail: &sentence, keep: Keep::Waiting });
        }
        for command in commands {
            self.command(subscriber, connection, command);
        }
        self.hear_later(subscriber, connection);
        connection.flush();
        self.take_bytes(subscriber, connection, &mut leftover);
        // The socket may have become readable before it was watched; an edge that is past would never be told.
        self.read(subscriber, connection);
    }

    /// Where no word says that a subscription stands, the first thing that a client says would be published before it does,
    /// and not come back to it: it is heard a little later. While the broker is away it would wait in vain.
    fn hear_later(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        let failures = REGISTRY.get(usize::from(connection.protocol.0)).map(|row| row.failures);
        let is_mute = matches!(failures, Some(Failures::End)) && connection.reader.is_some();
        if is_mute && connection.session.is_opening() && !self.shard.has_lost_any(subscriber) {
            connection.is_opening = true;
            self.greetings.set(Instant::now(), self.ticket(subscriber));
        }
    }

    /// From now on what it says is taken.
    pub(super) fn hear(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        if std::mem::take(&mut connection.is_opening) && connection.unread {
            self.read_soon(self.ticket(subscriber), connection);
        }
    }

    /// Whether what a client says is taken at the moment: not while more results of its calls wait for its socket than answers
    /// may.
    pub(super) fn takes_words(&self, connection: &Connection) -> bool {
        let results_fit = connection.outbox.result_bytes() <= self.outbox_bounds.bytes_max;
        connection.session.reading() && !connection.is_opening && results_fit
    }

    /// Has one read on in its turn. However often it is asked for it stands in the queue once.
    fn read_soon(&mut self, ticket: Ticket, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.reads_in_turn, true) {
            self.unread.push_back(ticket);
        }
    }

    /// Reads what a socket has, up to a fair share.
    pub(super) fn read(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        for round in 0..=READS_MAX {
            if matches!(connection.stage, Stage::Dead(_)) {
                break;
            }
            if round == READS_MAX || (connection.is_open() && !self.takes_words(connection)) {
                connection.unread = true;
                if round == READS_MAX {
                    self.read_soon(self.ticket(subscriber), connection);
                }
                break;
            }
            connection.unread = false;
            if std::mem::take(&mut connection.has_more) {
                let said = connection.codec.more();
                self.take_said(subscriber, connection, said);
                continue;
            }
            if !connection.held.is_empty() {
                let mut held = std::mem::take(&mut connection.held);
                self.take_bytes(subscriber, connection, &mut held);
                continue;
            }
            match connection.socket.read(&mut buffer) {
                Ok(0) => connection.die(CloseReason::Lost),
                Ok(count) => {
                    connection.heard = true;
                    self.take_bytes(subscriber, connection, buffer.get_mut(..count).unwrap_or_default());
                    // Less than was asked for: there is nothing more, and the poll will tell when there is.
                    if count < READ_BYTES && !connection.has_more {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => connection.die(CloseReason::Lost),
            }
        }
        connection.flush();
        self.read_buffer = buffer;
    }

    /// Goes on with what was left until it is taken. Of who has ended only its closing frame counts any more.
    pub(super) fn read_on(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        if connection.unread && (self.takes_words(connection) || !connection.is_open()) {
            self.read(subscriber, connection);
        }
    }

    /// Reads on for connections that had more than their share. True when there is more of it.
    pub(super) fn read_some(&mut self) -> bool {
        for _ in 0..READ_ON_MAX.min(self.unread.len()) {
            let Some(ticket) = self.unread.pop_front() else { break };
            self.with_ticket(ticket, |driver, connection| {
                connection.reads_in_turn = false;
                driver.read(ticket.subscriber, connection);
            });
        }
        !self.unread.is_empty()
    }

    /// Bytes of a client. An event stream's client has nothing to say.
    ///
    /// Messages are taken while the session takes them; from then on the rest is held, and the socket is not read.
    fn take_bytes(&mut self, subscriber: SubscriberId, connection: &mut Connection, bytes: &mut [u8]) {
        let Some(mut reader) = connection.reader.take() else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut input = bytes;
        loop {
            if connection.is_open() && (connection.has_more || !self.takes_words(connection)) {
                connection.held.extend_from_slice(input);
                break;
            }
            match reader.next(&mut input, &mut scratch) {
                Ok(Some(received)) => self.take_message(subscriber, connection, received),
                Ok(None) => break,
                Err(fault) => {
                    self.end(
                        subscriber,
                        connection,
                        Ending { reason: fault.reason, detail: fault.detail, keep: Keep::Waiting },
                    );
                    connection.shut();
                    break;
                }
            }
            if matches!(connection.stage, Stage::Dead(_)) {
                break;
            }
        }
        self.scratch = scratch;
        connection.reader = Some(reader);
        connection.flush();
    }

    fn take_message(&mut self, subscriber: SubscriberId, connection: &mut Connection, received: Received<'_>) {
        let message = match received {
            Received::Text(text) => Incoming::Text(text),
            Received::Binary(bytes) => Incoming::Binary(bytes),
            Received::Ping(payload) => return self.pong(subscriber, connection, payload),
            Received::Pong(_) => return,
            Received::Close { code, .. } => {
                self.silence(subscriber, connection);
                connection.answer_close(code);
                // What waits before our answer may be more than it will ever read.
                if !matches!(connection.stage, Stage::Dead(_)) {
                    self.farewells.set(Instant::now(), self.ticket(subscriber));
                }
                return;
            }
        };
        if !connection.is_open() {
            return;
        }
        let said = connection.codec.decode(message);
        self.take_said(subscriber, connection, said);
    }

    /// Does what a client says, thing by thing, as fast as its session takes it, and no more at once than is fair.
    fn take_said(&mut self, subscriber: SubscriberId, connection: &mut Connection, mut said: Result<Said, Fault>) {
        for left in (0..SAID_MAX).rev() {
            match said {
                Ok(Said::Nothing) => break,
                Ok(Said::Command(command)) => self.command(subscriber, connection, command),
                Ok(Said::Answered(outbound)) => self.send_outbound(subscriber, connection, &outbound),
                Ok(Said::Delivered(outbound)) => self.write_delivery(connection, &outbound),
                Err(fault) => {
                    let mut actions = Vec::new();
                    connection.session.fault(fault, &mut actions);
                    self.perform(subscriber, connection, actions);
                }
            }
            if !connection.is_open() {
                return;
            }
            // Whoever reads goes on with it.
            if left == 0 || !self.takes_words(connection) {
                connection.has_more = true;
                break;
            }
            said = connection.codec.more();
        }
        if connection.replays_when_told && connection.room() > 0 {
            connection.replays_when_told = false;
            self.queue_replay(self.ticket(subscriber), connection);
        }
    }

    fn pong(&mut self, subscriber: SubscriberId, connection: &mut Connection, payload: &[u8]) {
        if connection.is_open() && connection.push(writer::pong(payload), self.outbox_bounds).is_err() {
            self.end_slow(subscriber, connection);
        }
    }

    pub(super) fn command(&mut self, subscriber: SubscriberId, connection: &mut Connection, command: Command) {
        let mut actions = Vec::new();
        connection.session.command(command, &mut actions);
        self.perform(subscriber, connection, actions);
    }

    /// Tells a session what became of an action, and does what follows from it.
    pub(super) fn complete(&mut self, subscriber: SubscriberId, connection: &mut Connection, completion: Completion) {
        if let Completion::Called { job, .. } = &completion {
            connection.call_ends(*job);
        }
        let mut actions = Vec::new();
        connection.session.complete(completion, &mut actions);
        self.perform(subscriber, connection, actions);
        if connection.is_opening && !connection.session.is_opening() {
            self.hear(subscriber, connection);
        }
    }

    /// An answer from outside the thread's loop.
    pub(super) fn answer(&mut self, answer: Answer) {
        let Answer { ticket, news } = answer;
        let completion = match news {
            News::Completion(completion) => completion,
            News::Claim(claim, waited) => return self.claim_on(ticket, claim, waited),
        };
        self.with_ticket(ticket, |driver, connection| {
            driver.complete(ticket.subscriber, connection, completion);
            driver.read_on(ticket.subscriber, connection);
        });
    }

    /// Does what a session asks for, and writes what came of it.
    pub(super) fn perform(&mut self, subscriber: SubscriberId, connection: &mut Connection, actions: Vec<Action>) {
        for action in actions {
            if !connection.is_open() {
                break;
            }
            self.act(subscriber, connection, action);
        }
        connection.flush();
        self.settle_taken(subscriber, connection);
    }

    fn act(&mut self, subscriber: SubscriberId, connection: &mut Connection, action: Action) {
        match action {
            Action::Send(Event::Delivered(delivery)) => self.hand_out(subscriber, connection, delivery),
            Action::Send(event) => {
                self.send(subscriber, connection, &event);
                if matches!(event, Event::Welcome { .. }) {
                    self.tick(self.ticket(subscriber), connection, Instant::now());
                }
            }
            Action::Authenticate { job, .. } => {
                let completion = Completion::Authenticated { job, result: Err(NO_TOKENS.to_owned()) };
                self.complete(subscriber, connection, completion);
            }
            Action::Claim { job, name, anew } => self.claim(subscriber, connection, Claim { job, name, anew }),
            Action::Subscribe(action) => self.subscribe(subscriber, connection, action),
            Action::Unsubscribe { subscription } => {
                self.unsubscribe(subscriber, connection, SubscriptionId(subscription.0))
            }
            // Between two polls a client would be gone and come again.
            Action::Attend { .. } if connection.polling.is_some() => {}
            Action::Attend { pattern, member } => self.attend(subscriber, connection, (pattern, member)),
            Action::Depart { pattern } => self.depart(self.ticket(subscriber), connection, &pattern),
            Action::Roster { id, pattern } => {
                let roster = self.roster(subscriber, connection, &pattern);
                self.complete(subscriber, connection, Completion::Roster { id, pattern, roster });
            }
            Action::Publish { job, message, echo } => {
                if let (Some(origin), Echo::Nothing) = (&message.origin, echo) {
                    self.shard.keep_own_from(subscriber, origin);
                }
                let upstream = self.shared.upstream.clone();
                self.spawn(subscriber, async move {
                    News::Completion(Completion::Published { job, outcome: upstream.publish(message).await })
                });
            }
            Action::Call { job, message, timeout } => {
                self.call(subscriber, connection, job, Request { message, timeout })
            }
            Action::ForbiddenPublish => self.shared.metrics.publish(PublishResult::Forbidden),
            Action::ForbiddenCall => self.shared.metrics.call(CallResult::Forbidden),
            Action::Abandon { job } => connection.call_ends(job),
            Action::Consume { consumption, request } => self.consume(subscriber, connection, (consumption, request)),
            Action::Order { consumption, order } => self.order(subscriber, connection, (consumption, order)),
            Action::Close { reason, detail } => {
                self.end(subscriber, connection, Ending { reason, detail: &detail, keep: Keep::Waiting })
            }
        }
    }

    /// Queues an event for a client, to be written with the next flush.
    pub(super) fn send(&mut self, subscriber: SubscriberId, connection: &mut Connection, event: &Event) {
        if let Some(polling) = &mut connection.polling {
            return polling.note(event);
        }
        let Some(outbound) = connection.codec.encode(event) else { return };
        match event {
            Event::Result { .. } => self.send_result(connection, &outbound),
            _ => self.send_outbound(subscriber, connection, &outbound),
        }
    }

    /// Results are as many as calls may be in flight, and may all come at once: who reads is not slow for that.
    fn send_result(&mut self, connection: &mut Connection, outbound: &Outbound) {
        let frame = self.wire.frame(connection.framing, outbound);
        connection.note_sent();
        connection.outbox.push_result(frame);
    }

    pub(super) fn send_outbound(&mut self, subscriber: SubscriberId, connection: &mut Connection, outbound: &Outbound) {
        let frame: Bytes = self.wire.frame(connection.framing, outbound);
        connection.note_sent();
        if connection.push(frame, self.outbox_bounds).is_err() {
            self.end_slow(subscriber, connection);
        }
    }

    fn subscribe(&mut self, subscriber: SubscriberId, connection: &mut Connection, action: SubscribeAction) {
        let id = SubscriptionId(action.subscription.0);
        let pattern = action.wanted.pattern.clone();
        let request = SubscribeRequest {
            id,
            wanted: action.wanted,
            after: action.after,
            last: Last { each: action.last, retained: action.retained, total_max: self.last_max(connection) },
            source: action.source,
            flow: action.flow,
            max_rate: action.max_rate,
        };
        let opening = self.shard.subscribe(subscriber, request);
        // Not before it is claimed anew.
        connection.left.remove(&pattern);
        let opening = match opening {
            Ok(opening) => opening,
            Err(refusal) => return self.opened(subscriber, connection, id, Err(refusal)),
        };
        // With a joint cursor all are opened together, once all have been asked for.
        let joint = self.shard.is_joint(subscriber);
        match Shard::stands(&opening) {
            Ok(true) if !joint => self.opened(subscriber, connection, id, Ok(())),
            Ok(stands) => {
                let outages = if stands { Vec::new() } else { self.shard.tell_outages(subscriber) };
                for source in outages {
                    self.send(subscriber, connection, &Event::Outage { source });
                }
                self.openings.insert((self.ticket(subscriber), id), opening);
                // Its bindings may have come to stand while it was put on the list.
                self.standings.clear();
            }
            Err(refusal) => self.opened(subscriber, connection, id, Err(refusal)),
        }
    }

    /// A call ends with its connection, or when its client lets go of it: nobody is left to be answered.
    fn call(&mut self, subscriber: SubscriberId, connection: &mut Connection, job: JobKey, request: Request) {
        let upstream = self.shared.upstream.clone();
        let gone = connection.call_begins(job);
        self.spawn(subscriber, async move {
            let outcome = tokio::select! {
                outcome = upstream.call(request) => outcome,
                () = gone.cancelled() => crate::model::outgoing::CallOutcome::TimedOut,
            };
            News::Completion(Completion::Called { job, outcome })
        });
    }

    /// Publishes what a client left word to publish when it is gone. While the server stops that is not to be: its clients
    /// did not go by themselves.
    pub(super) fn execute(&mut self, connection: &mut Connection) {
        if let Some(message) = self.will_of(connection).filter(|_| !self.draining) {
            self.shared.upstream.publish_unheard(message);
        }
    }

    /// Runs something that waits, beside the loop. How many a session may have is bounded by its limits.
    pub(super) fn spawn(&self, subscriber: SubscriberId, work: impl Future<Output = News> + 'static) {
        let (ticket, answers) = (self.ticket(subscriber), self.answers.clone());
        tokio::task::spawn_local(async move {
            let news = work.await;
            // The loop is gone only when the server stops.
            let _ = answers.send(Answer { ticket, news }).await;
        });
    }
}
