//! The state machine of one client: who it is, what it listens to, and what it still has to be told. What goes up to the
//! broker lies in [`super::upward`], what it consumes in [`super::consuming`].
//!
//! It never does anything itself: every method appends what has to be done to a list of actions, in order. After
//! [`Action::Close`] there is nothing more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::Identity;
use crate::model::close::CloseReason;
use crate::model::cursor::JointCursor;
use crate::model::label::Label;
use crate::model::selector::Selector;
use crate::protocol::{
    Claim, Command, CommandId, ErrorCode, Event, Failures, Fault, Gap, Labels, Subprotocol, Subscribe, Which,
};
use crate::session::consuming::Consuming;
use crate::session::limits::{Terms, close_detail};
use crate::session::subscriptions::{Stage, Subscription, Subscriptions};
use crate::session::upward::Jobs;
use crate::session::{Action, Completion, SubscribeAction, SubscribeRefusal, SubscriptionKey};

/// What `welcome` says of this program.
const SERVER: &str = concat!("passerelle/", env!("CARGO_PKG_VERSION"));

/// What is known of a client when its session starts.
#[derive(Debug)]
pub struct Start {
    /// The connection's name in logs and in the API.
    pub connection: Arc<str>,
    /// What it speaks.
    pub protocol: &'static Subprotocol,
    /// Who it is, by its handshake's token or anonymously; or the sentence that it gets until it says so.
    pub admission: Result<Arc<Identity>, Arc<str>>,
    /// Now.
    pub at: Instant,
}

/// One client's conversation.
///
/// Small while idle: rare parts are boxed or empty.
#[derive(Debug)]
pub struct Session {
    pub(super) terms: Arc<Terms>,
    pub(super) connection: Arc<str>,
    pub(super) protocol: &'static Subprotocol,
    pub(super) standing: Standing,
    /// Name and version of the client's program, as it says.
    pub(super) client: Option<Box<str>>,
    pub(super) subscriptions: Subscriptions,
    pub(super) jobs: Jobs,
    pub(super) consumed: Option<Box<Consuming>>,
    pub(super) last_gap: Option<Box<Gap>>,
    next_subscription: u32,
    ended: bool,
}

/// Whether it is known who the client is.
#[derive(Debug)]
pub(super) enum Standing {
    /// It is.
    Known(Arc<Identity>),
    /// Not yet.
    Unknown(Box<Stranger>),
}

/// Somebody who may only say who they are.
#[derive(Debug)]
pub(super) struct Stranger {
    /// The answer to everything else, and the reason of the close.
    sentence: Arc<str>,
    /// When the session ends.
    deadline: Option<Instant>,
}

impl Session {
    /// A session that has said nothing yet; see [`Session::begin`].
    pub fn new(terms: Arc<Terms>, start: Start) -> Self {
        let deadline = start.at.checked_add(terms.unauthenticated_timeout);
        let standing = match start.admission {
            Ok(identity) => Standing::Known(identity),
            Err(sentence) => Standing::Unknown(Box::new(Stranger { sentence, deadline })),
        };
        Self {
            terms,
            connection: start.connection,
            protocol: start.protocol,
            standing,
            client: None,
            subscriptions: Subscriptions::default(),
            jobs: Jobs::default(),
            consumed: None,
            last_gap: None,
            next_subscription: 0,
            ended: false,
        }
    }

    /// The first thing to call. Ends the session of a stranger whose protocol gives no chance to say who they are; anybody
    /// else is told nothing until they ask.
    pub fn begin(&mut self, actions: &mut Vec<Action>) {
        if let (Standing::Unknown(stranger), Failures::End) = (&self.standing, self.protocol.failures) {
            self.close(CloseReason::Unauthenticated, stranger.sentence.to_string(), actions);
        }
    }

    /// Does what a client asks.
    pub fn command(&mut self, command: Command, actions: &mut Vec<Action>) {
        if self.ended {
            return;
        }
        match (command, &self.standing) {
            (Command::Connect { id, token, client, claim }, _) => {
                self.client = client.map(String::into_boxed_str).or_else(|| self.client.take());
                self.connect(id, token, claim, actions);
            }
            (Command::Ping { id }, _) => self.send(Event::Pong { id }, actions),
            (Command::Leave { id }, _) => self.leave(id, actions),
            (command, Standing::Known(identity)) => {
                let identity = identity.clone();
                match command {
                    Command::Subscribe(subscribe) => self.subscribe(&identity, subscribe, actions),
                    Command::Unsubscribe { id, which } => self.unsubscribe(id, &which, actions),
                    other @ (Command::Consume { .. }
                    | Command::Cancel { .. }
                    | Command::Settle { .. }
                    | Command::Answer { .. }) => self.consuming(&identity, other, actions),
                    Command::Abandon { id } => self.abandon(id, actions),
                    Command::Presence { id, pattern } => self.ask_presence(&identity, id, pattern, actions),
                    other => self.send_up(&identity, other, actions),
                }
            }
            (command, Standing::Unknown(stranger)) => {
                let sentence = stranger.sentence.to_string();
                self.fail(command.into_id(), ErrorCode::Unauthenticated, sentence, actions);
            }
        }
    }

    /// Answers what the codec could not read.
    pub fn fault(&mut self, fault: Fault, actions: &mut Vec<Action>) {
        match fault {
            Fault::Reply { id, code, message } => self.fail(id, code, message, actions),
            Fault::Close { reason, detail } => self.close(reason, detail.to_owned(), actions),
        }
    }

    /// Goes on after an action was done. What completes something that the session has let go of is ignored.
    pub fn complete(&mut self, completion: Completion, actions: &mut Vec<Action>) {
        if self.ended {
            return;
        }
        match completion {
            Completion::Subscribed { .. } => self.subscribed(completion, actions),
            Completion::SubscribeFailed { subscription, refusal } => {
                self.subscribe_failed(subscription, refusal, actions)
            }
            Completion::CaughtUp { subscription, cursors } => self.caught_up(subscription, cursors, actions),
            Completion::Roster { id, pattern, roster } => {
                self.send(Event::Presence { id, pattern, roster }, actions);
            }
            Completion::Authenticated { job, result } => self.authenticated(job, result, actions),
            Completion::Claimed { job } => self.claimed(job, actions),
            Completion::Published { job, outcome } => self.published(job, outcome, actions),
            Completion::Called { job, outcome } => self.called(job, outcome, actions),
            Completion::Consumed { consumption, news } => self.consume_news(consumption, news, actions),
        }
        self.leave_when_done(actions);
    }

    /// Passes a gap on to whoever listens to its pattern.
    pub fn gap(&mut self, gap: Gap, actions: &mut Vec<Action>) {
        let stands = match (&gap.label, self.protocol.labels) {
            (Some(label), Labels::Each) => self.subscriptions.stands_labelled(label),
            _ => self.subscriptions.stands(&gap.pattern),
        };
        if !self.ended && stands {
            self.tell_gap(gap, actions);
        }
    }

    /// A source lost its broker; told to those who listen to anything, or wait to.
    pub fn outage(&mut self, source: Arc<str>, actions: &mut Vec<Action>) {
        if self.subscriptions.len() > 0 {
            self.send(Event::Outage { source }, actions);
        }
    }

    /// A source has its broker again.
    pub fn restored(&mut self, source: Arc<str>, actions: &mut Vec<Action>) {
        if self.subscriptions.len() > 0 {
            self.send(Event::Restored { source }, actions);
        }
    }

    /// What to send when nothing else was sent for as long as between two heartbeats.
    pub fn quiet(&self, cursors: JointCursor) -> Action {
        Action::Send(Event::Position { cursors })
    }

    /// Sends the client away because this server stops.
    pub fn drain(&mut self, reconnect_in: Duration, actions: &mut Vec<Action>) {
        self.send(Event::Goodbye { reason: "drain", reconnect_in }, actions);
        self.close(CloseReason::GoingAway, "the server is stopping: connect again".into(), actions);
    }

    /// Whether the driver may read on. It asks before each message, because one read may bring several.
    pub fn reading(&self) -> bool {
        !self.ended && self.jobs.has_room(&self.terms)
    }

    /// Whether anything that it listens to does not stand yet.
    pub fn is_opening(&self) -> bool {
        self.subscriptions.iter().any(|subscription| !subscription.stage.stands())
    }

    /// When to call [`Session::expire`].
    pub fn deadline(&self) -> Option<Instant> {
        match &self.standing {
            Standing::Unknown(stranger) if !self.ended => stranger.deadline,
            _ => None,
        }
    }

    /// Ends the session of who did not say in time who they are.
    pub fn expire(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Standing::Unknown(stranger) = &self.standing
            && stranger.deadline.is_some_and(|deadline| deadline <= now)
        {
            self.close(CloseReason::Unauthenticated, stranger.sentence.to_string(), actions);
        }
    }

    /// What a subscription is called.
    pub fn label(&self, subscription: SubscriptionKey) -> Option<&Label> {
        self.subscriptions.label(subscription)
    }

    /// The connection's name.
    pub fn connection(&self) -> &Arc<str> {
        &self.connection
    }

    /// Whether [`Action::Close`] was given out.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn send(&self, event: Event, actions: &mut Vec<Action>) {
        if !self.ended {
            actions.push(Action::Send(event));
        }
    }

    /// Tells of a failure where the protocol can, and ends the session where it cannot.
    pub(super) fn fail(&mut self, id: CommandId, code: ErrorCode, message: String, actions: &mut Vec<Action>) {
        let is_last = match self.protocol.failures {
            Failures::Told => false,
            Failures::ToldToKnown => code == ErrorCode::Unauthenticated,
            // Nobody answered a request: that ends nothing.
            Failures::Last => code != ErrorCode::Timeout,
            Failures::Judged(is_last) => is_last(&id, code),
            Failures::End => true,
        };
        if is_last {
            self.send(Event::Error { id, code, message: message.clone() }, actions);
            self.close(ending(code), message, actions);
        } else {
            self.send(Event::Error { id, code, message }, actions);
        }
    }

    pub(super) fn close(&mut self, reason: CloseReason, sentence: String, actions: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.ended, true) {
            actions.push(Action::Close { reason, detail: close_detail(sentence) });
        }
    }

    fn connect(&mut self, id: CommandId, token: Option<String>, claim: Option<Claim>, actions: &mut Vec<Action>) {
        match (token, &self.standing) {
            (Some(token), _) => self.authenticate(id, token, claim, actions),
            (None, Standing::Known(identity)) => {
                let identity = identity.clone();
                self.receive(id, &identity, claim, actions);
            }
            (None, Standing::Unknown(stranger)) => {
                let sentence = stranger.sentence.to_string();
                self.fail(id, ErrorCode::Unauthenticated, sentence, actions);
            }
        }
    }

    /// Takes an identity. Whoever is somebody already cannot become somebody else, because what they listen to was
    /// allowed to the first.
    pub(super) fn identify(
        &mut self,
        id: CommandId,
        identity: Arc<Identity>,
        claim: Option<Claim>,
        actions: &mut Vec<Action>,
    ) {
        if let Standing::Known(before) = &self.standing
            && before.user.is_some()
            && before.user != identity.user
        {
            let message = "this session belongs to another user: open a new connection".into();
            return self.fail(id, ErrorCode::Forbidden, message, actions);
        }
        self.receive(id, &identity, claim, actions);
        self.standing = Standing::Known(identity);
    }

    pub(super) fn welcome(&self, id: CommandId, identity: &Identity, actions: &mut Vec<Action>) {
        let event = Event::Welcome {
            id,
            connection: self.connection.clone(),
            server: SERVER,
            heartbeat: self.terms.heartbeat,
            message_bytes_max: self.terms.message_bytes_max,
            user: identity.user.clone(),
            expires_at: identity.expires_at,
        };
        self.send(event, actions);
    }

    fn subscribe(&mut self, identity: &Identity, subscribe: Subscribe, actions: &mut Vec<Action>) {
        let Subscribe { id, pattern, filter, after, last, retained, only, flow, max_rate, label } = subscribe;
        if !identity.grants.subscribe {
            return self.fail(id, ErrorCode::Forbidden, "you may not subscribe here".into(), actions);
        }
        if let (Labels::Each, Some(label)) = (self.protocol.labels, &label)
            && let Some(held) = self.subscriptions.labelled(label)
        {
            let (key, stands) = (held.key, held.stage.stands());
            return self.join(id, (key, stands), actions);
        }
        let (pattern, source) = match self.terms.exchanges.resolve(pattern, only) {
            Ok(resolved) => resolved,
            Err(sentence) => return self.fail(id, ErrorCode::NotFound, sentence, actions),
        };
        // At the limit one may still be replaced: for a moment it counts twice.
        let max = self.terms.subscriptions_max;
        let is_held = self.protocol.labels != Labels::Each && self.subscriptions.holds(&pattern);
        let replaces = self.subscriptions.len() == max && is_held;
        if self.subscriptions.len() >= max && !replaces {
            let message =
                format!("a session may have {max} subscriptions (limits.subscriptions_max): unsubscribe first");
            return self.fail(id, ErrorCode::Limit, message, actions);
        }
        let key = SubscriptionKey(self.next_subscription);
        let Some(next) = self.next_subscription.checked_add(1) else {
            let message = "this session has had all the subscriptions it can: open a new connection".into();
            return self.fail(id, ErrorCode::Limit, message, actions);
        };
        self.next_subscription = next;
        let stage = Stage::Pending { wants_replay: last > 0 || retained || !after.0.is_empty() };
        let label = label.map(Box::new);
        self.subscriptions.insert(Subscription { key, pattern: pattern.clone(), label, id, stage });
        let (last, flow) = (last.min(self.terms.last_max), flow.unwrap_or(self.terms.on_slow));
        let wanted = Selector { pattern, filter };
        actions.push(Action::Subscribe(SubscribeAction {
            subscription: key,
            wanted,
            after,
            last,
            retained,
            source,
            flow,
            max_rate,
        }));
    }

    /// Asks again for a subscription that there is already.
    fn join(&mut self, id: CommandId, (key, stands): (SubscriptionKey, bool), actions: &mut Vec<Action>) {
        let max = self.terms.subscriptions_max;
        if stands {
            self.send(Event::Done { id, routed: None }, actions);
        } else if let Err(id) = self.jobs.join(id, key, max) {
            let message =
                format!("{max} wait for subscriptions already (limits.subscriptions_max): wait for their answers");
            self.fail(id, ErrorCode::Limit, message, actions);
        }
    }

    fn unsubscribe(&mut self, id: CommandId, which: &Which, actions: &mut Vec<Action>) {
        let (removed, name) = match which {
            Which::Pattern(pattern) => (self.subscriptions.remove_all(pattern), pattern.as_str()),
            Which::Label(label) => (self.subscriptions.remove_labelled(label).into_iter().collect(), label.as_str()),
        };
        if removed.is_empty() {
            let message = format!("there is no subscription on {name:?}");
            return self.fail(id, ErrorCode::NotFound, message, actions);
        }
        self.let_go(removed, "it was unsubscribed before it stood", actions);
        self.send(Event::Done { id, routed: None }, actions);
    }

    /// Has subscriptions dropped, and answers those that still waited.
    fn let_go(&mut self, removed: Vec<Subscription>, why: &str, actions: &mut Vec<Action>) {
        for Subscription { key, pattern, id, stage, .. } in removed {
            actions.push(Action::Unsubscribe { subscription: key });
            if stage.stands() {
                self.depart(pattern, actions);
            } else {
                for id in [id].into_iter().chain(self.jobs.joined(key)) {
                    self.given_up(id, ErrorCode::NotFound, why, actions);
                }
            }
        }
    }

    /// Answers what its client wants no more.
    pub(super) fn given_up(&mut self, id: CommandId, code: ErrorCode, why: &str, actions: &mut Vec<Action>) {
        match self.protocol.failures {
            Failures::Told | Failures::ToldToKnown => self.fail(id, code, why.to_owned(), actions),
            // No reason to end the session, as an error would.
            Failures::Last | Failures::Judged(_) | Failures::End => {
                self.send(Event::Done { id, routed: None }, actions)
            }
        }
    }

    fn subscribed(&mut self, completion: Completion, actions: &mut Vec<Action>) {
        let Completion::Subscribed { subscription, cursors, resumed, gaps, replay } = completion else { return };
        let Some(entry) = self.subscriptions.entry(subscription) else { return };
        let Stage::Pending { wants_replay } = entry.stage else { return };
        let pattern = entry.pattern.clone();
        let id = entry.id.clone();
        let replay = replay && wants_replay;
        let stood = self.subscriptions.stands(&pattern);
        let Some(entry) = self.subscriptions.entry(subscription) else { return };
        entry.stage = if replay { Stage::Replaying } else { Stage::Live };
        if !replay && !self.protocol.keeps_ids() {
            entry.id = None;
        }
        // Whatever stood before on this pattern the driver has replaced; what still waited has been overtaken.
        let before = match self.protocol.labels {
            Labels::Each => Vec::new(),
            Labels::Absent | Labels::Together => self.subscriptions.remove_before(subscription, &pattern),
        };
        if !stood {
            self.attend(&pattern, actions);
        }
        let overtaken = before.into_iter().filter(|entry| !entry.stage.stands()).collect();
        self.let_go(overtaken, "a later subscribe on the same pattern took its place", actions);
        let subscribed =
            Event::Subscribed { id: id.clone(), pattern: pattern.clone(), cursors: cursors.clone(), resumed };
        self.send(subscribed, actions);
        for id in self.jobs.joined(subscription) {
            self.send(Event::Done { id, routed: None }, actions);
        }
        gaps.into_iter().for_each(|gap| self.tell_gap(gap, actions));
        if wants_replay && !replay {
            self.send(Event::CaughtUp { id, pattern, cursors }, actions);
        }
    }

    fn subscribe_failed(&mut self, key: SubscriptionKey, refusal: SubscribeRefusal, actions: &mut Vec<Action>) {
        let Some(Subscription { id, pattern, stage, .. }) = self.subscriptions.remove(key) else { return };
        let (code, message) = match refusal {
            SubscribeRefusal::UnknownSource(name) => {
                (ErrorCode::NotFound, format!("there is no source {name:?}: leave \"source\" out to read all"))
            }
            SubscribeRefusal::Refused(sentence) => (ErrorCode::Refused, sentence),
        };
        if stage.stands() {
            let message = format!("the subscription to {:?} has ended: {message}", pattern.as_str());
            self.depart(pattern, actions);
            return self.lapse(id, code, message, actions);
        }
        for id in [id].into_iter().chain(self.jobs.joined(key)) {
            self.fail(id, code, message.clone(), actions);
        }
    }

    /// A subscription has ended that stood, so its `subscribe` was answered long ago. Where nothing can be told of it any more
    /// the session ends with it: nothing else would have its client ask again.
    fn lapse(&mut self, id: CommandId, code: ErrorCode, message: String, actions: &mut Vec<Action>) {
        if self.protocol.keeps_ids() {
            return self.fail(id, code, message, actions);
        }
        self.send(Event::Error { id: None, code, message: message.clone() }, actions);
        self.close(ending(code), message, actions);
    }

    fn caught_up(&mut self, key: SubscriptionKey, cursors: JointCursor, actions: &mut Vec<Action>) {
        let Some(entry) = self.subscriptions.entry(key) else { return };
        if entry.stage != Stage::Replaying {
            return;
        }
        entry.stage = Stage::Live;
        let id = if self.protocol.keeps_ids() { entry.id.clone() } else { entry.id.take() };
        let event = Event::CaughtUp { id, pattern: entry.pattern.clone(), cursors };
        self.send(event, actions);
    }

    fn tell_gap(&mut self, gap: Gap, actions: &mut Vec<Action>) {
        self.send(Event::Gap(gap.clone()), actions);
        self.last_gap = Some(Box::new(gap));
    }
}

impl Command {
    /// The client's name for it.
    fn into_id(self) -> CommandId {
        match self {
            Self::Subscribe(Subscribe { id, .. })
            | Self::Connect { id, .. }
            | Self::Unsubscribe { id, .. }
            | Self::Publish { id, .. }
            | Self::Call { id, .. }
            | Self::Abandon { id }
            | Self::Consume { id, .. }
            | Self::Cancel { id, .. }
            | Self::Settle { id, .. }
            | Self::Answer { id, .. }
            | Self::Presence { id, .. }
            | Self::Leave { id }
            | Self::Ping { id } => id,
        }
    }
}

/// How a failure ends a session whose protocol cannot tell of it.
fn ending(code: ErrorCode) -> CloseReason {
    match code {
        ErrorCode::Unauthenticated => CloseReason::Unauthenticated,
        ErrorCode::Forbidden => CloseReason::Forbidden,
        ErrorCode::Unavailable | ErrorCode::Timeout => CloseReason::TryLater,
        ErrorCode::Unsupported => CloseReason::UnsupportedData,
        ErrorCode::BadMessage
        | ErrorCode::UnknownOp
        | ErrorCode::BadField
        | ErrorCode::Limit
        | ErrorCode::NotFound
        | ErrorCode::Unroutable
        | ErrorCode::Refused
        | ErrorCode::InUse
        | ErrorCode::StaleTag => CloseReason::Policy,
    }
}
