//! What a session sends up, publishes and calls, its authentications, and answers that wait for a subscription: each is a
//! job until it is answered, and there are only so many at a time.

use std::sync::Arc;

use crate::auth::Identity;
use crate::model::close::CloseReason;
use crate::model::outgoing::{CallOutcome, Outgoing, PublishOutcome, Target};
use crate::protocol::{Claim, Command, CommandId, Echo, ErrorCode, Event};
use crate::session::conversation::Standing;
use crate::session::limits::{Terms, check_outgoing};
use crate::session::{Action, ClientName, JobKey, Session, SubscriptionKey};

/// Jobs in flight: as many as their limits allow, so a list is enough.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    open: Vec<Job>,
    /// Wraps around after four thousand million, when none of the old ones is open any more.
    next: u32,
    /// The client goes when all are answered; the id of what it said.
    leaving: Option<Box<CommandId>>,
}

#[derive(Debug)]
struct Job {
    key: JobKey,
    id: CommandId,
    kind: Kind,
    /// What an authentication is to claim.
    claim: Option<Box<Claim>>,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Authentication,
    Publish {
        mandatory: bool,
    },
    Call,
    Claim,
    /// Waits for a subscription that was asked for before.
    Join(SubscriptionKey),
}

impl Jobs {
    /// Whether one more may start that is no call. During an authentication or a claim nothing may, because the answer to what
    /// follows depends on it.
    pub(super) fn has_room(&self, terms: &Terms) -> bool {
        self.leaving.is_none()
            && self.count(|kind| matches!(kind, Kind::Publish { .. })) < terms.publishes_in_flight_max
            && self.count(|kind| matches!(kind, Kind::Authentication | Kind::Claim)) == 0
    }

    fn count(&self, wanted: fn(Kind) -> bool) -> usize {
        self.open.iter().filter(|job| wanted(job.kind)).count()
    }

    fn start(&mut self, id: CommandId, kind: Kind) -> JobKey {
        let key = JobKey(self.next);
        self.next = self.next.wrapping_add(1);
        self.open.push(Job { key, id, kind, claim: None });
        key
    }

    /// Has an answer wait for a subscription, if no more than so many do.
    ///
    /// # Errors
    /// The id again, when too many do.
    pub(super) fn join(&mut self, id: CommandId, subscription: SubscriptionKey, max: usize) -> Result<(), CommandId> {
        if self.open.iter().filter(|job| matches!(job.kind, Kind::Join(_))).count() >= max {
            return Err(id);
        }
        self.start(id, Kind::Join(subscription));
        Ok(())
    }

    /// Those that waited for it, in the order in which they came.
    pub(super) fn joined(&mut self, subscription: SubscriptionKey) -> Vec<CommandId> {
        let keys = self.open.iter().filter(|job| job.kind == Kind::Join(subscription)).map(|job| job.key);
        let mut keys: Vec<JobKey> = keys.collect();
        keys.sort();
        keys.into_iter().filter_map(|key| self.finish(key)).map(|job| job.id).collect()
    }

    /// The call that was asked for under this id.
    fn call(&self, id: &CommandId) -> Option<JobKey> {
        let wanted = id.as_ref()?.get();
        let is_wanted =
            |job: &&Job| job.kind == Kind::Call && job.id.as_ref().is_some_and(|known| known.get() == wanted);
        self.open.iter().find(is_wanted).map(|job| job.key)
    }

    fn finish(&mut self, key: JobKey) -> Option<Job> {
        let position = self.open.iter().position(|job| job.key == key)?;
        let job = self.open.swap_remove(position);
        if self.open.is_empty() {
            // An idle session holds no memory for jobs.
            self.open = Vec::new();
        }
        Some(job)
    }
}

impl Session {
    /// Starts finding out who a token belongs to.
    pub(super) fn authenticate(
        &mut self,
        id: CommandId,
        token: String,
        claim: Option<Claim>,
        actions: &mut Vec<Action>,
    ) {
        if !self.jobs.has_room(&self.terms) {
            return self.refuse_one_more(id, actions);
        }
        let job = self.jobs.start(id, Kind::Authentication);
        if let Some(open) = self.jobs.open.last_mut() {
            open.claim = claim.map(Box::new);
        }
        actions.push(Action::Authenticate { job, token });
    }

    /// The answer to that. A bad token leaves a session as it was: there is time for another until the deadline.
    pub(super) fn authenticated(
        &mut self,
        job: JobKey,
        result: Result<Arc<Identity>, String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(Job { id, claim, .. }) = self.jobs.finish(job) else { return };
        match result {
            Ok(identity) => self.identify(id, identity, claim.map(|claim| *claim), actions),
            Err(sentence) => self.fail(id, ErrorCode::Unauthenticated, sentence, actions),
        }
    }

    /// Welcomes a client that is known, once it has what it claims.
    pub(super) fn receive(
        &mut self,
        id: CommandId,
        identity: &Identity,
        claim: Option<Claim>,
        actions: &mut Vec<Action>,
    ) {
        let Some(claim) = claim else { return self.welcome(id, identity, actions) };
        let client = claim.client.map_or_else(|| self.connection.clone(), Arc::from);
        let job = self.jobs.start(id, Kind::Claim);
        let name = ClientName { user: identity.user.clone(), client };
        actions.push(Action::Claim { job, name, anew: claim.anew });
    }

    /// The client has what it claimed.
    pub(super) fn claimed(&mut self, job: JobKey, actions: &mut Vec<Action>) {
        let Standing::Known(identity) = &self.standing else { return };
        let identity = identity.clone();
        if let Some(Job { id, .. }) = self.jobs.finish(job) {
            self.welcome(id, &identity, actions);
        }
    }

    /// Ends the session once everything that is under way is answered.
    pub(super) fn leave(&mut self, id: CommandId, actions: &mut Vec<Action>) {
        self.jobs.leaving = Some(Box::new(id));
        self.leave_when_done(actions);
    }

    /// Ends it if it is to end and nothing is under way any more.
    pub(super) fn leave_when_done(&mut self, actions: &mut Vec<Action>) {
        // A subscription that may never stand keeps nobody here.
        if self.jobs.open.iter().all(|job| matches!(job.kind, Kind::Join(_)))
            && let Some(id) = self.jobs.leaving.take()
        {
            self.send(Event::Done { id: *id, routed: None }, actions);
            self.close(CloseReason::Normal, String::new(), actions);
        }
    }

    /// Publishes or calls.
    pub(super) fn send_up(&mut self, identity: &Identity, command: Command, actions: &mut Vec<Action>) {
        match command {
            Command::Publish { id, mut message, mandatory, echo } => {
                if message.target == Target::Queue {
                    match self.terms.queues.open(identity, message.topic.as_str()) {
                        Ok(open) => message.topic = open.queue,
                        Err(sentence) => {
                            actions.push(Action::ForbiddenPublish);
                            return self.fail(id, ErrorCode::Forbidden, sentence, actions);
                        }
                    }
                }
                if let Some(id) = self.checked(id, identity, &message, (Action::ForbiddenPublish, actions)) {
                    message.user.clone_from(&identity.user);
                    message.origin = (echo != Echo::All).then(|| self.connection.clone());
                    let job = self.jobs.start(id, Kind::Publish { mandatory });
                    actions.push(Action::Publish { job, message, echo });
                }
            }
            Command::Call { id, message, timeout } => {
                let timeout = timeout.unwrap_or(self.terms.call_timeout);
                let longest = self.terms.call_timeout_max;
                if timeout > longest {
                    let message = format!("the timeout may be at most {} ms (call.timeout_max)", longest.as_millis());
                    return self.fail(id, ErrorCode::Limit, message, actions);
                }
                if let Some(id) = self.checked(id, identity, &message, (Action::ForbiddenCall, actions)) {
                    // Services answer when they like: for as long its client's other words are not held up.
                    let max = self.terms.calls_in_flight_max;
                    if self.jobs.count(|kind| kind == Kind::Call) >= max {
                        let message =
                            format!("{max} calls wait for their answers (limits.calls_in_flight_max): wait for one");
                        return self.fail(id, ErrorCode::Limit, message, actions);
                    }
                    let job = self.jobs.start(id, Kind::Call);
                    actions.push(Action::Call { job, message, timeout });
                }
            }
            // The others never come here; see `Session::command`.
            _ => {}
        }
    }

    /// What the client left word to publish, if it may.
    pub fn testament(&self, mut message: Outgoing) -> Option<Outgoing> {
        let Standing::Known(identity) = &self.standing else { return None };
        if !identity.grants.publish || check_outgoing(&message).is_err() {
            return None;
        }
        message.user.clone_from(&identity.user);
        Some(message)
    }

    /// Gives the id back when the message may go up; else the client has been told why not. Where it may not, that is counted
    /// as `forbidden`.
    fn checked(
        &mut self,
        id: CommandId,
        identity: &Identity,
        message: &Outgoing,
        (forbidden, actions): (Action, &mut Vec<Action>),
    ) -> Option<CommandId> {
        if !identity.grants.publish {
            actions.push(forbidden);
            self.fail(id, ErrorCode::Forbidden, may_not_publish(identity).into(), actions);
        } else if let Err(sentence) = check_outgoing(message) {
            self.fail(id, ErrorCode::BadField, sentence, actions);
        } else if !self.jobs.has_room(&self.terms) {
            self.refuse_one_more(id, actions);
        } else {
            return Some(id);
        }
        None
    }

    /// Only a driver that reads on against [`Session::reading`] comes here; even then the number of jobs stays bounded.
    fn refuse_one_more(&mut self, id: CommandId, actions: &mut Vec<Action>) {
        let message = "too much of this session is in flight: wait for the answers".into();
        self.fail(id, ErrorCode::Limit, message, actions);
    }

    /// The broker's word on a publish.
    pub(super) fn published(&mut self, job: JobKey, outcome: PublishOutcome, actions: &mut Vec<Action>) {
        let Some(Job { id, kind, .. }) = self.jobs.finish(job) else { return };
        match outcome {
            PublishOutcome::Confirmed { routed: false } if kind == (Kind::Publish { mandatory: true }) => {
                let message = "no queue is bound for this topic: bind one, or leave \"mandatory\" out".into();
                self.fail(id, ErrorCode::Unroutable, message, actions);
            }
            PublishOutcome::Confirmed { routed } => self.send(Event::Done { id, routed: Some(routed) }, actions),
            PublishOutcome::Refused(sentence) => self.fail(id, ErrorCode::Refused, sentence, actions),
            PublishOutcome::Unavailable(sentence) => self.fail(id, ErrorCode::Unavailable, sentence, actions),
        }
    }

    /// Lets go of a call.
    pub(super) fn abandon(&mut self, id: CommandId, actions: &mut Vec<Action>) {
        let Some(key) = self.jobs.call(&id) else { return };
        self.jobs.finish(key);
        actions.push(Action::Abandon { job: key });
        self.send(Event::Done { id, routed: None }, actions);
    }

    /// The answer to a call.
    pub(super) fn called(&mut self, job: JobKey, outcome: CallOutcome, actions: &mut Vec<Action>) {
        let Some(Job { id, .. }) = self.jobs.finish(job) else { return };
        let (code, sentence) = match outcome {
            CallOutcome::Replied(reply) => return self.send(Event::Result { id, reply }, actions),
            CallOutcome::Unroutable => {
                (ErrorCode::Unroutable, "no queue takes calls on this topic: is its service running?".into())
            }
            CallOutcome::TimedOut => {
                (ErrorCode::Timeout, "nobody answered in time: ask again, or with a longer timeout".into())
            }
            CallOutcome::Refused(sentence) => (ErrorCode::Refused, sentence),
            CallOutcome::Unavailable(sentence) => (ErrorCode::Unavailable, sentence),
        };
        self.fail(id, code, sentence, actions);
    }
}

fn may_not_publish(identity: &Identity) -> &'static str {
    match identity.user {
        Some(_) => "your token does not allow publishing here",
        None => "you may not publish here: set auth.anonymous_publish = true or send a token",
    }
}
