//! One client's conversation as a pure state machine: commands and completions in, actions out.
//!
//! A session knows no socket, no protocol's bytes, no hub and no clock. The driver feeds it and does what it asks.
//! The words stand here; the state machine is [`Session`].

mod consuming;
mod conversation;
mod description;
pub mod exchanges;
pub mod limits;
mod presence;
mod subscriptions;
mod upward;

pub use conversation::{Session, Start};
pub use description::Description;

use std::sync::Arc;
use std::time::Duration;

use crate::auth::Identity;
use crate::model::close::CloseReason;
use crate::model::cursor::JointCursor;
use crate::model::delivery::{ConsumeNews, ConsumeOrder, ConsumeRequest};
use crate::model::flow::Flow;
use crate::model::outgoing::{CallOutcome, Outgoing, PublishOutcome};
use crate::model::presence::{Member, Roster};
use crate::model::rate::Rate;
use crate::model::selector::Selector;
use crate::model::topic::Pattern;
use crate::protocol::{CommandId, Echo, Event, Gap};

/// Names a subscription within its session; never reused there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey(pub u32);

/// Names a publish, call or authentication in flight within its session; never reused there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey(pub u32);

/// Names a queue that is consumed within its session; never reused there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumeKey(pub u32);

/// A session as its client knows it, whichever connection it comes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientName {
    /// Whose it is; `None` for anonymous.
    pub user: Option<Arc<str>>,
    /// What the client calls itself.
    pub client: Arc<str>,
}

/// What the session needs done by someone with I/O.
#[derive(Debug)]
pub enum Action {
    /// Tell the client.
    Send(Event),
    /// Find out who this is; answered with [`Completion::Authenticated`].
    Authenticate {
        /// The job.
        job: JobKey,
        /// The token.
        token: String,
    },
    /// Have this connection be the only one of its client; answered with [`Completion::Claimed`], before which its codec has
    /// been given what an earlier connection left.
    Claim {
        /// The job.
        job: JobKey,
        /// The client.
        name: ClientName,
        /// Whether what an earlier connection left is to be forgotten.
        anew: bool,
    },
    /// Register interest and, once every binding stands, go live; answered with [`Completion::Subscribed`] or
    /// [`Completion::SubscribeFailed`]. Replaces the subscription on the same pattern, if any, without losing a message.
    Subscribe(SubscribeAction),
    /// Drop it.
    Unsubscribe {
        /// Which.
        subscription: SubscriptionKey,
    },
    /// Count the session among those who are subscribed to a pattern, until [`Action::Depart`] or its end.
    Attend {
        /// The pattern.
        pattern: Pattern,
        /// As whom.
        member: Member,
    },
    /// Count it no more.
    Depart {
        /// The pattern.
        pattern: Pattern,
    },
    /// Tell who is subscribed to a pattern; answered with [`Completion::Roster`].
    Roster {
        /// Of the command.
        id: CommandId,
        /// The pattern.
        pattern: Pattern,
    },
    /// Publish; answered with [`Completion::Published`].
    Publish {
        /// The job.
        job: JobKey,
        /// The message.
        message: Outgoing,
        /// Whether the session is to be kept from it.
        echo: Echo,
    },
    /// Count a publish that the client may not do.
    ForbiddenPublish,
    /// Count such a call.
    ForbiddenCall,
    /// Call; answered with [`Completion::Called`].
    Call {
        /// The job.
        job: JobKey,
        /// The request's message.
        message: Outgoing,
        /// For how long.
        timeout: Duration,
    },
    /// Wait for its answer no more; nobody has to be told.
    Abandon {
        /// The call's job.
        job: JobKey,
    },
    /// Consume a queue until the session lets it go or ends; answered with [`Completion::Consumed`], again and again.
    Consume {
        /// Its name from now on.
        consumption: ConsumeKey,
        /// Which, and how.
        request: ConsumeRequest,
    },
    /// Settle a delivery, or stop; answered likewise.
    Order {
        /// Of which queue.
        consumption: ConsumeKey,
        /// What.
        order: ConsumeOrder,
    },
    /// End the session; nothing follows.
    Close {
        /// The ending.
        reason: CloseReason,
        /// A sentence of at most 123 bytes.
        detail: String,
    },
}

/// A subscription to be made.
#[derive(Debug)]
pub struct SubscribeAction {
    /// Its name from now on.
    pub subscription: SubscriptionKey,
    /// What it wants.
    pub wanted: Selector,
    /// Where to go on, by source name; a source that is not named starts now.
    pub after: JointCursor,
    /// The newest messages of each matching topic first; 0 for none.
    pub last: usize,
    /// What was retained first.
    pub retained: bool,
    /// The only source, by name.
    pub source: Option<String>,
    /// What becomes of its messages when the client is too slow.
    pub flow: Flow,
    /// How many messages a second it is sent at most.
    pub max_rate: Option<Rate>,
}

/// What became of an action.
#[derive(Debug)]
pub enum Completion {
    /// Of [`Action::Authenticate`].
    Authenticated {
        /// The job.
        job: JobKey,
        /// Who it is, or a sentence that says why not.
        result: Result<Arc<Identity>, String>,
    },
    /// Of [`Action::Claim`].
    Claimed {
        /// The job.
        job: JobKey,
    },
    /// Of [`Action::Subscribe`]: its bindings stand.
    Subscribed {
        /// Which.
        subscription: SubscriptionKey,
        /// The position now, or, before a replay, where that begins.
        cursors: JointCursor,
        /// Whether nothing was missed.
        resumed: bool,
        /// What was, to be told before the next message.
        gaps: Vec<Gap>,
        /// Whether a replay follows, ended by [`Completion::CaughtUp`].
        replay: bool,
    },
    /// Of [`Action::Subscribe`]: it does not stand, or does no longer, and is forgotten.
    SubscribeFailed {
        /// Which.
        subscription: SubscriptionKey,
        /// Why.
        refusal: SubscribeRefusal,
    },
    /// The replay ended; live messages follow.
    CaughtUp {
        /// Which.
        subscription: SubscriptionKey,
        /// Where it stands now.
        cursors: JointCursor,
    },
    /// Of [`Action::Roster`].
    Roster {
        /// Of the command.
        id: CommandId,
        /// The pattern.
        pattern: Pattern,
        /// Who is subscribed to it.
        roster: Roster,
    },
    /// Of [`Action::Publish`].
    Published {
        /// The job.
        job: JobKey,
        /// How it ended.
        outcome: PublishOutcome,
    },
    /// Of [`Action::Consume`] and [`Action::Order`].
    Consumed {
        /// Which queue.
        consumption: ConsumeKey,
        /// What happened.
        news: ConsumeNews,
    },
    /// Of [`Action::Call`].
    Called {
        /// The job.
        job: JobKey,
        /// How it ended.
        outcome: CallOutcome,
    },
}

/// Why a subscription cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscribeRefusal {
    /// There is no such source.
    UnknownSource(String),
    /// The source cannot be bound so; the sentence says what to do.
    Refused(String),
}

#[cfg(test)]
mod tests;
