//! The codec of one session: messages in, commands out; events in, messages out. What it remembers is what the session does
//! not: how far the greeting is, which subscriptions the client was given which ids for, and what each of them missed.

use std::collections::BTreeMap;

use super::answers::Asked;
use super::callee::{Callee, Lost};
use super::client_message::ClientMessage;
use super::content;
use super::event;
use super::greeting::Greeting;
use super::id::Id;
use super::kind::Kind;
use super::label::Name;
use super::reasons;
use super::router_message::RouterMessage;
use super::serializer::Serializer;
use super::uri::Policy;
use super::value::Dict;
use crate::model::close::CloseReason;
use crate::model::delivery::Delivery;
use crate::model::label::Label;
use crate::model::outgoing::Reply;
use crate::model::publication::Draft;
use crate::protocol::missing::Untold;
use crate::protocol::{Codec, CommandId, ErrorCode, Event, Fault, Gap, Incoming, Message, Outbound, Receiving, Said};

/// The codec.
#[derive(Debug)]
pub(super) struct Wamp {
    pub(super) serializer: Serializer,
    pub(super) standing: Standing,
    pub(super) subscriptions: BTreeMap<Id, Listening>,
    pub(super) callee: Callee,
    untold: Untold<Label>,
    /// What is said before the connection closes, where it is known already.
    last_word: Option<RouterMessage>,
}

/// How far the conversation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was said.
    New,
    /// The client was asked for its token.
    Challenged(Greeting),
    /// It has said who it is, and waits to be welcome.
    Greeting(Greeting),
    /// It is welcome, as this session.
    Joined(Id),
    /// The last word was said, by one side or the other.
    Over,
}

/// What a subscription of the client listens to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) uri: String,
    pub(super) policy: Policy,
    pub(super) label: Label,
}

impl Wamp {
    pub(super) fn new(serializer: Serializer) -> Self {
        let (subscriptions, callee, untold) = (BTreeMap::new(), Callee::default(), Untold::default());
        Self { serializer, standing: Standing::New, subscriptions, callee, untold, last_word: None }
    }

    pub(super) fn write(&self, message: RouterMessage) -> Outbound {
        message.encode(self.serializer)
    }

    /// Ends the session with `ABORT`, which goes out before the connection closes.
    pub(super) fn abort(&mut self, reason: &str, message: &str) -> Fault {
        self.last_word = Some(RouterMessage::abort(reason, message));
        Fault::Close {
            reason: CloseReason::Policy,
            detail: "a message could not be taken: the ABORT before this says why",
        }
    }

    /// Ends it because of a message that must not be, or not now (section "Protocol Errors").
    pub(super) fn violation(&mut self, message: &str) -> Fault {
        self.abort(reasons::PROTOCOL_VIOLATION, message)
    }

    /// Ends it without another word.
    pub(super) fn fall_silent(&mut self) -> Fault {
        self.standing = Standing::Over;
        Fault::Close { reason: CloseReason::Normal, detail: "" }
    }

    /// Forgets a subscription, which has nothing to be told any more.
    pub(super) fn forget(&mut self, subscription: Id) -> Option<Listening> {
        let listening = self.subscriptions.remove(&subscription)?;
        self.untold.forget(&listening.label);
        Some(listening)
    }

    fn missed(&mut self, gap: &Gap) {
        if let Some(label) = &gap.label {
            self.untold.note(label, gap);
        }
    }

    fn done(&mut self, id: &CommandId) -> Option<RouterMessage> {
        let Asked { kind, request, names } = Asked::of(id)?;
        match (kind, names) {
            (Kind::Subscribe, Some(subscription)) => Some(RouterMessage::Subscribed { request, subscription }),
            (Kind::Register, Some(registration)) => {
                self.callee.registered(registration);
                Some(RouterMessage::Registered { request, registration })
            }
            (Kind::Unregister, _) => Some(RouterMessage::Unregistered { request }),
            (Kind::Unsubscribe, _) => Some(RouterMessage::Unsubscribed { request }),
            (Kind::Publish, Some(publication)) => Some(RouterMessage::Published { request, publication }),
            // The client has taken it back.
            (Kind::Call, _) => {
                let message = "the call was taken back: whoever got it was not told";
                Some(RouterMessage::error(kind, request, reasons::CANCELED, message))
            }
            (Kind::Goodbye, _) => {
                self.standing = Standing::Over;
                Some(RouterMessage::goodbye(reasons::GOODBYE_AND_OUT, None))
            }
            _ => None,
        }
    }

    fn failed(&mut self, id: &CommandId, code: ErrorCode, sentence: &str) -> Option<RouterMessage> {
        let Asked { kind, request, names } = Asked::of(id)?;
        if kind == Kind::Hello {
            let reason = match self.standing {
                Standing::Greeting(ref greeting) if greeting.has_token() => reasons::AUTHENTICATION_DENIED,
                _ => reasons::reason(code, kind),
            };
            self.standing = Standing::Over;
            return Some(RouterMessage::abort(reason, sentence));
        }
        match (kind, names) {
            (Kind::Subscribe, Some(subscription)) => {
                self.forget(subscription);
            }
            (Kind::Register, Some(registration)) => match self.callee.lost(registration, sentence) {
                Lost::Told(message) => return Some(message),
                Lost::Silently => return None,
                Lost::BeforeItStood => {}
            },
            // Of these WAMP has no answer.
            (Kind::Yield | Kind::Error, _) => return None,
            _ => {}
        }
        Some(RouterMessage::error(kind, request, reasons::reason(code, kind), sentence))
    }

    /// A call to what the client offers.
    fn invoked(&mut self, delivery: &Delivery) -> Option<RouterMessage> {
        let Draft { payload, attributes, .. } = &delivery.draft;
        let content_type = attributes.content_type.as_deref();
        let payload = content::payload(self.serializer, payload, content_type, &attributes.headers);
        self.callee.invoke(delivery, payload)
    }

    /// The answer to a call, which may be that it failed.
    fn replied(&self, id: &CommandId, reply: &Reply) -> Option<RouterMessage> {
        let Asked { kind: Kind::Call, request, .. } = Asked::of(id)? else { return None };
        let content_type = reply.content_type.as_deref();
        let payload = content::payload(self.serializer, &reply.payload, content_type, &reply.headers);
        let details = Dict::default();
        Some(match content::error(&reply.headers) {
            Some(error) => {
                let error = error.to_owned();
                RouterMessage::Error { asked: Kind::Call, request, details, error, payload }
            }
            None => RouterMessage::Result { request, details, payload },
        })
    }
}

impl Codec for Wamp {
    fn decode(&mut self, message: Incoming<'_>) -> Result<Said, Fault> {
        if self.standing == Standing::Over {
            return Ok(Said::Nothing);
        }
        let value = match self.serializer.decode(message) {
            Ok(value) => value,
            Err(malformed) => return Err(self.violation(&malformed.to_string())),
        };
        match ClientMessage::read(value) {
            Ok(message) => self.take(message),
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn encode(&mut self, event: &Event) -> Option<Outbound> {
        let message = match event {
            Event::Welcome { .. } => self.welcome(event),
            Event::Subscribed { id, .. } | Event::Done { id, .. } => self.done(id),
            Event::Result { id, reply } => self.replied(id, reply),
            Event::Error { id, code, message } => self.failed(id, *code, message),
            Event::Gap(gap) => {
                self.missed(gap);
                None
            }
            Event::Delivered(delivery) => self.invoked(delivery),
            Event::Revoked { tags } => {
                self.callee.revoke(tags);
                None
            }
            // For these the protocol has no word: what was missed is told by the next event.
            Event::CaughtUp { .. }
            | Event::Position { .. }
            | Event::Outage { .. }
            | Event::Restored { .. }
            | Event::Presence { .. }
            | Event::Joined { .. }
            | Event::Left { .. }
            | Event::Goodbye { .. }
            | Event::Pong { .. } => None,
        };
        message.map(|message| self.write(message))
    }

    fn farewell(&mut self, reason: CloseReason, detail: &str) -> Option<Outbound> {
        let before = std::mem::replace(&mut self.standing, Standing::Over);
        let word = match (before, self.last_word.take()) {
            (Standing::Over, _) => return None,
            (_, Some(word)) => word,
            (Standing::Joined(_), None) => farewell(reason, detail)?,
            (_, None) => RouterMessage::abort(ending(reason)?, detail),
        };
        Some(self.write(word))
    }

    fn receiving(&self) -> Receiving {
        if self.untold.is_empty() { Receiving::Shared } else { Receiving::Own(usize::MAX) }
    }

    fn message(&mut self, message: Message<'_>) -> Option<Outbound> {
        let [label] = message.labels else { return None };
        let missing = self.untold.of(label);
        let published = (message.publication, message.stage);
        let outbound = event::of_publication(self.serializer, &Name::of(label)?, published, missing)?;
        // It was told: the next event comes without it.
        self.untold.forget(label);
        Some(outbound)
    }
}

/// How a session that stood ends from our side.
fn farewell(reason: CloseReason, detail: &str) -> Option<RouterMessage> {
    match reason {
        CloseReason::GoingAway | CloseReason::Restart => {
            Some(RouterMessage::goodbye(reasons::SYSTEM_SHUTDOWN, Some(detail)))
        }
        CloseReason::Normal => Some(RouterMessage::goodbye(reasons::CLOSE_REALM, None)),
        other => Some(RouterMessage::abort(ending(other)?, detail)),
    }
}

/// The URI of an ending that nobody asked for.
fn ending(reason: CloseReason) -> Option<&'static str> {
    match reason {
        CloseReason::Lost | CloseReason::Normal => None,
        CloseReason::GoingAway | CloseReason::Restart => Some(reasons::SYSTEM_SHUTDOWN),
        CloseReason::ProtocolError | CloseReason::UnsupportedData | CloseReason::InvalidData | CloseReason::Policy => {
            Some(reasons::PROTOCOL_VIOLATION)
        }
        CloseReason::TooBig => Some(reasons::PAYLOAD_SIZE_EXCEEDED),
        CloseReason::Unauthenticated => Some(reasons::AUTHENTICATION_REQUIRED),
        CloseReason::Forbidden => Some(reasons::NOT_AUTHORIZED),
        CloseReason::TryLater | CloseReason::Internal => Some(reasons::NETWORK_FAILURE),
        CloseReason::SlowConsumer | CloseReason::Timeout | CloseReason::TakenOver | CloseReason::RateLimited => {
            Some(reasons::KILLED)
        }
    }
}
