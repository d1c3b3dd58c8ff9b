//! What clients ask for, in no protocol.

use std::sync::Arc;
use std::time::Duration;

use crate::model::cursor::JointCursor;
use crate::model::delivery::{DeliveryTag, Settlement, Share};
use crate::model::filter::Filter;
use crate::model::flow::Flow;
use crate::model::label::Label;
use crate::model::outgoing::{Outgoing, Reply};
use crate::model::rate::Rate;
use crate::model::topic::Pattern;
use crate::protocol::CommandId;

/// What a client asked for, in no protocol.
#[derive(Debug)]
pub enum Command {
    /// Who it is.
    Connect {
        /// Its id.
        id: CommandId,
        /// The token, if it brings one.
        token: Option<String>,
        /// Name and version of the client's program, for the log.
        client: Option<String>,
        /// The session that it claims, where that is not simply its connection's.
        claim: Option<Claim>,
    },
    /// Start a subscription, or replace the one on the same pattern.
    Subscribe(Subscribe),
    /// End one.
    Unsubscribe {
        /// Its id.
        id: CommandId,
        /// Which.
        which: Which,
    },
    /// Publish and answer with the broker's word.
    Publish {
        /// Its id; without one no reply is wanted where the protocol has none.
        id: CommandId,
        /// The message.
        message: Outgoing,
        /// Whether it is an error that no queue got it.
        mandatory: bool,
        /// What of it this session receives too, where it listens to the topic.
        echo: Echo,
    },
    /// Ask, and answer with the reply.
    Call {
        /// Its id.
        id: CommandId,
        /// The request's message.
        message: Outgoing,
        /// How long the client would wait.
        timeout: Option<Duration>,
    },
    /// Wait no more for the answer to a call: that is done at once, and nobody who got the request is told.
    Abandon {
        /// The id of the call, which is answered with [`Done`](super::Event::Done). One that is under way no more was
        /// answered.
        id: CommandId,
    },
    /// Bring a queue's messages, each to be settled. Asked for again, that of a group is done as soon as it is consumed.
    Consume {
        /// Its id.
        id: CommandId,
        /// The queue.
        queue: Consumed,
        /// How many it would hold at a time.
        prefetch: Option<u16>,
        /// Whether nobody else may consume it meanwhile.
        exclusive: bool,
    },
    /// Bring no more of them.
    Cancel {
        /// Its id.
        id: CommandId,
        /// What it was called when it was consumed.
        queue: String,
    },
    /// Settle one of them.
    Settle {
        /// Its id.
        id: CommandId,
        /// Which; `None` is one that this server never gave out.
        tag: Option<DeliveryTag>,
        /// How.
        settlement: Settlement,
    },
    /// Settle one of them by an answer to whoever asked by it.
    Answer {
        /// Its id.
        id: CommandId,
        /// Which.
        tag: DeliveryTag,
        /// The answer.
        reply: Reply,
    },
    /// Tell who is subscribed to a pattern.
    Presence {
        /// Its id.
        id: CommandId,
        /// The pattern.
        pattern: Pattern,
    },
    /// Answer at once.
    Ping {
        /// Its id.
        id: CommandId,
    },
    /// End the session, once everything that was asked before is answered.
    Leave {
        /// Its id.
        id: CommandId,
    },
}

/// A session that its client knows by a name, whichever connection it comes on: one connection has it at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The client's name; its connection's where it leaves that to the server.
    pub client: Option<String>,
    /// Whether what an earlier connection left of it is to be forgotten.
    pub anew: bool,
}

/// The only source that a subscription wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Only {
    /// By its name in the configuration.
    Source(String),
    /// The one that reads an exchange of this name.
    Exchange(String),
}

/// What becomes of a session's own publish where it listens to the topic itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// It receives it as anybody does.
    All,
    /// It does not receive it.
    Nothing,
    /// It does, marked as its own: its codec leaves it out for those of its subscriptions that do not want it.
    Marked,
}

/// Names a subscription of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one on a pattern, where there is only one.
    Pattern(Pattern),
    /// The one of a label, where each has its own.
    Label(Label),
}

/// A queue that a client would consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consumed {
    /// One that the configuration opens to it, by its name.
    Queue(String),
    /// That of a group of clients, each message of which goes to one of them.
    Share(Share),
}

/// A subscription as it was asked for.
#[derive(Debug)]
pub struct Subscribe {
    /// Its id.
    pub id: CommandId,
    /// The topics that it wants.
    pub pattern: Pattern,
    /// Of those only messages whose headers it lets in.
    pub filter: Option<Arc<Filter>>,
    /// Where it wants to go on: cursors by source name.
    pub after: JointCursor,
    /// The newest messages of each matching topic that it wants first; 0 for none.
    pub last: usize,
    /// Whether it wants first those that their publishers had retained, the newest of each matching topic.
    pub retained: bool,
    /// The only source it wants.
    pub only: Option<Only>,
    /// What becomes of its messages when the client is too slow; the server's default when it does not say.
    pub flow: Option<Flow>,
    /// How many messages a second it wants at most; what comes faster is left to its flow.
    pub max_rate: Option<Rate>,
    /// What its codec writes with each of its messages. With [`Each`](super::Labels::Each) a label that the session holds
    /// already changes nothing: it is done when that subscription stands.
    pub label: Option<Label>,
}

impl Subscribe {
    /// To everything that a pattern matches, from now on, of every source.
    pub fn to(pattern: Pattern) -> Self {
        let (after, only, flow) = (JointCursor::default(), None, None);
        let (last, retained, max_rate) = (0, false, None);
        Self { id: None, pattern, filter: None, after, last, retained, only, flow, max_rate, label: None }
    }
}
