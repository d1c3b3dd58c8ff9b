//! Sessions that outlive their connections: a client that comes claims the one of its name, wherever on this node that is, and
//! one that goes leaves it. What is kept is no subscriber of the shard; it holds the claims of its patterns itself, and when the
//! client is back its subscriptions go on in the logs where they stood.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::hub::index::SubscriberId;
use crate::hub::upstream::Upstream;
use crate::model::close::CloseReason;
use crate::model::outgoing::Outgoing;
use crate::model::topic::Pattern;
use crate::protocol::Keep as Keeping;
use crate::session::{ClientName, Completion, JobKey};
use crate::transport::driver::connection::{Connection, Ending, Keep};
use crate::transport::driver::rota::Ticket;
use crate::transport::driver::{Control, Driver, News};
use crate::transport::sessions::{Claimed, Holder, Kept, Next, Sessions};

/// What the earlier connection of a client is told.
const TAKEN_OVER: &str = "another connection came with this client id: give each client an id of its own";

/// A claim that waits.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) job: JobKey,
    pub(super) name: ClientName,
    pub(super) anew: bool,
}

/// What a claim waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// The connection before has let go.
    LetGo,
    /// Another claim is over.
    Over,
}

impl Driver {
    /// Claims a session for a connection.
    pub(super) fn claim(&mut self, subscriber: SubscriberId, connection: &mut Connection, claim: Claim) {
        match self.shared.sessions.claim(&claim.name, &self.holder(self.ticket(subscriber))) {
            Claimed::Now(kept) => self.take_up(subscriber, connection, (claim, kept)),
            Claimed::After(holder) => self.spawn(subscriber, async move {
                let (let_go, has_let_go) = oneshot::channel();
                // A shard that is gone holds nothing, and one that has let go says so by dropping its end.
                let _ = holder.controls.send(Control::Yield(holder.ticket, let_go)).await;
                let _ = has_let_go.await;
                News::Claim(claim, Waited::LetGo)
            }),
            Claimed::Busy(is_over) => self.spawn(subscriber, async move {
                // It says so by dropping its end too.
                let _ = is_over.await;
                News::Claim(claim, Waited::Over)
            }),
        }
    }

    /// A claim has waited long enough.
    pub(super) fn claim_on(&mut self, ticket: Ticket, claim: Claim, waited: Waited) {
        let name = claim.name.clone();
        let goes_on = self.with_ticket(ticket, |driver, connection| {
            if !connection.is_open() {
                return false;
            }
            match waited {
                Waited::Over => driver.claim(ticket.subscriber, connection, claim),
                Waited::LetGo => {
                    let left = driver.shared.sessions.settle(&claim.name, &driver.holder(ticket));
                    driver.take_up(ticket.subscriber, connection, (claim, left));
                }
            }
            // What came behind its first word.
            driver.read(ticket.subscriber, connection);
            true
        });
        if goes_on != Some(true) && waited == Waited::LetGo {
            self.shared.sessions.abandon(&name, &self.holder(ticket));
        }
    }

    /// The session is the connection's. What was left of it comes back, or ends with this.
    fn take_up(
        &mut self,
        subscriber: SubscriberId,
        connection: &mut Connection,
        (claim, left): (Claim, Option<Box<Kept>>),
    ) {
        let Claim { job, name, anew } = claim;
        connection.claimed = Some(name);
        if let Some(kept) = left {
            let Kept { memory, places, will, timer, .. } = *kept;
            timer.abort();
            let place = |pattern: &Pattern| places.get(pattern).map(|place| place.after.clone()).unwrap_or_default();
            let is_resumed = !anew && connection.codec.restore(memory, &place);
            if is_resumed {
                connection.left = places;
            }
            // A session that ends has its will published, however long it was to wait (MQTT 5.0 §3.1.3.2.2).
            if let (Some((_, will)), false) = (will, is_resumed) {
                self.shared.upstream.publish_unheard(will);
            }
        }
        // What comes back is said behind the welcome.
        connection.has_more = true;
        self.complete(subscriber, connection, Completion::Claimed { job });
    }

    /// Another connection takes the session of this one.
    pub(super) fn yield_to_another(&mut self, ticket: Ticket, let_go: oneshot::Sender<()>) {
        self.with_ticket(ticket, |driver, connection| {
            let ending = Ending { reason: CloseReason::TakenOver, detail: TAKEN_OVER, keep: Keep::Nothing };
            driver.end(ticket.subscriber, connection, ending);
        });
        // It was told the same if the connection had ended before.
        drop(let_go);
    }

    /// The session of a connection has ended: what its client wants kept is left for its next one.
    pub(super) fn relinquish(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        let Some(name) = connection.claimed.take() else { return };
        let kept = if self.draining { None } else { self.keep(subscriber, connection, &name) };
        // Before its next connection can publish anything: what that says stands [MQTT-3.1.4-3].
        self.execute(connection);
        let holder = self.holder(self.ticket(subscriber));
        let Some(kept) = self.shared.sessions.release(&name, &holder, kept.map(Box::new)) else { return };
        tracing::debug!(
            "a session of MQTT ends with its connection: no more is kept (mqtt.sessions_max, mqtt.kept_subscriptions_max)"
        );
        kept.timer.abort();
        if let Some((_, will)) = kept.will {
            self.shared.upstream.publish_unheard(will);
        }
    }

    fn keep(&mut self, subscriber: SubscriberId, connection: &mut Connection, name: &ClientName) -> Option<Kept> {
        let Keeping { memory, lifetime, will_delay } = connection.codec.keep()?;
        let now = Instant::now();
        let expires_at = now + lifetime;
        let will_at = (!will_delay.is_zero()).then(|| now + will_delay.min(lifetime));
        let will = will_at.and_then(|at| Some((at, self.will_of(connection)?)));
        let mut places = std::mem::take(&mut connection.left);
        for (pattern, place) in self.shard.places(subscriber) {
            // Of two on a pattern more is to come of the older one.
            places.entry(pattern).or_insert(place);
        }
        places.retain(|pattern, _| memory.listens_to(pattern));
        let first = will.as_ref().map_or(expires_at, |(at, _)| *at);
        let (sessions, upstream) = (self.shared.sessions.clone(), self.shared.upstream.clone());
        let timer = tokio::task::spawn_local(attend(sessions, upstream, name.clone(), first)).abort_handle();
        Some(Kept { memory, places, expires_at, will, timer })
    }

    /// What a client left word to publish when it is gone, if it may.
    pub(super) fn will_of(&self, connection: &mut Connection) -> Option<Outgoing> {
        let message = connection.codec.testament()?;
        connection.session.testament(message)
    }

    fn holder(&self, ticket: Ticket) -> Holder {
        Holder { shard: self.number, ticket, controls: self.controls.clone() }
    }
}

/// Does what is due of a session that is kept, until it is kept no more.
pub(super) async fn attend(sessions: Arc<Sessions>, upstream: Upstream, name: ClientName, first: Instant) {
    let mut next = Next::At(first);
    loop {
        match next {
            Next::At(at) => tokio::time::sleep_until(at.into()).await,
            // It says so by dropping its end.
            Next::Over(is_over) => _ = is_over.await,
            Next::Never => return,
        }
        let due = sessions.due(&name, Instant::now());
        if let Some(will) = due.will {
            upstream.publish_unheard(will);
        }
        next = due.next;
    }
}
