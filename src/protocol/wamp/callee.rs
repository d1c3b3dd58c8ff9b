//! The procedures that a client offers. A registration is a consumer of the queue of the procedure's name, so that calls come
//! from wherever that queue is published to, from other clients and services alike; an invocation is a delivery, and what is
//! yielded is its answer.

use std::collections::BTreeMap;

use super::answers::Asked;
use super::client_message::{Hello, InvocationError, Register, Yield};
use super::codec::Wamp;
use super::content;
use super::id::Id;
use super::kind::Kind;
use super::options::Invoke;
use super::reasons::{FEATURE_NOT_SUPPORTED, NO_SUCH_REGISTRATION, PROCEDURE_ALREADY_EXISTS};
use super::router_message::RouterMessage;
use super::uri::Policy;
use super::value::{Dict, Payload, Value};
use crate::model::delivery::{Delivery, DeliveryTag};
use crate::model::outgoing::Reply;
use crate::protocol::{Command, Consumed, Fault, Said};

/// Bytes of the URI of an error: as of any other URI here.
const ERROR_BYTES_MAX: usize = 255;

/// What a client offers, and what it was asked and has not answered.
#[derive(Debug, Default)]
pub(super) struct Callee {
    registrations: BTreeMap<Id, Registration>,
    invocations: BTreeMap<Id, DeliveryTag>,
    /// How many invocations there have been: their ids count up (section "IDs").
    invoked: u64,
    /// Whether the client takes an `UNREGISTERED` that it did not ask for (section "Registration Revocation").
    hears_of_revocations: bool,
}

#[derive(Debug)]
struct Registration {
    procedure: String,
    stands: bool,
}

impl Callee {
    /// What a client said of itself as a callee.
    pub(super) fn greeted(&mut self, hello: &Hello) {
        self.hears_of_revocations = hello.announces("callee", "registration_revocation");
    }

    fn of_procedure(&self, procedure: &str) -> Option<Id> {
        self.registrations.iter().find(|(_, known)| known.procedure == procedure).map(|(id, _)| *id)
    }

    /// A call that has come in.
    pub(super) fn invoke(&mut self, delivery: &Delivery, payload: Payload) -> Option<RouterMessage> {
        let registration = self.of_procedure(&delivery.queue)?;
        self.invoked += 1;
        let request = Id::new(self.invoked)?;
        self.invocations.insert(request, delivery.tag);
        let again = delivery.draft.attributes.redelivered;
        let details = Dict::default();
        let details = if again { details.with("redelivered", Value::Bool(true)) } else { details };
        Some(RouterMessage::Invocation { request, registration, details, payload })
    }

    /// Calls that went back to their queue: what is yielded to them is nobody's.
    pub(super) fn revoke(&mut self, tags: &[DeliveryTag]) {
        self.invocations.retain(|_, tag| !tags.contains(tag));
    }

    /// A registration that stands from now on.
    pub(super) fn registered(&mut self, registration: Id) {
        if let Some(known) = self.registrations.get_mut(&registration) {
            known.stands = true;
        }
    }

    /// A registration that is no more, or that never was.
    pub(super) fn lost(&mut self, registration: Id, sentence: &str) -> Lost {
        match self.registrations.remove(&registration) {
            Some(Registration { stands: true, .. }) if self.hears_of_revocations => {
                Lost::Told(RouterMessage::Revoked { registration, reason: sentence.to_owned() })
            }
            Some(Registration { stands: true, .. }) => Lost::Silently,
            _ => Lost::BeforeItStood,
        }
    }
}

/// How a client hears that a registration is gone.
pub(super) enum Lost {
    /// By this message.
    Told(RouterMessage),
    /// Not at all: it does not know of such messages.
    Silently,
    /// By the answer to its request.
    BeforeItStood,
}

impl Wamp {
    /// Offers a procedure.
    pub(super) fn register(&mut self, asking: Register) -> Said {
        let Register { request, uri, options, .. } = asking;
        let asked = (Kind::Register, request);
        if options.policy != Policy::Exact {
            let message = "procedures are registered by their whole URI: leave the option \"match\" out";
            return self.refused(asked, FEATURE_NOT_SUPPORTED, message);
        }
        if matches!(options.invoke, Invoke::First | Invoke::Last) {
            let message =
                "who of several is called is the broker's choice: take \"single\", \"roundrobin\" or \"random\"";
            return self.refused(asked, FEATURE_NOT_SUPPORTED, message);
        }
        if self.callee.of_procedure(&uri).is_some() {
            let message = "this session offers that procedure already";
            return self.refused(asked, PROCEDURE_ALREADY_EXISTS, message);
        }
        // The same for all who offer the same.
        let registration = Id::free(&["registration", &uri], |id| self.callee.registrations.contains_key(&id));
        self.callee.registrations.insert(registration, Registration { procedure: uri.clone(), stands: false });
        Said::Command(Command::Consume {
            id: Asked::naming(Kind::Register, request, registration).id(),
            queue: Consumed::Queue(uri),
            prefetch: Some(options.concurrency.unwrap_or(u16::MAX)),
            exclusive: options.invoke == Invoke::Single,
        })
    }

    /// Offers it no more. What was asked before can still be answered.
    pub(super) fn unregister(&mut self, request: Id, registration: Id) -> Said {
        let Some(Registration { procedure, .. }) = self.callee.registrations.remove(&registration) else {
            let message = "this session has no such registration";
            return self.refused((Kind::Unregister, request), NO_SUCH_REGISTRATION, message);
        };
        Said::Command(Command::Cancel { id: Asked::by(Kind::Unregister, request).id(), queue: procedure })
    }

    /// The result of an invocation.
    pub(super) fn yielded(&mut self, message: Yield) -> Result<Said, Fault> {
        let Yield { invocation, progress, payload } = message;
        if progress {
            return Err(self.violation("results in pieces were not asked for: YIELD comes once, without \"progress\""));
        }
        self.answer((Kind::Yield, invocation), content::reply(payload))
    }

    /// An invocation that failed.
    pub(super) fn invocation_failed(&mut self, message: InvocationError) -> Result<Said, Fault> {
        let InvocationError { invocation, error, payload, .. } = message;
        if error.len() > ERROR_BYTES_MAX {
            return Err(self.violation("the error's URI is longer than 255 bytes"));
        }
        self.answer((Kind::Error, invocation), content::failure(&error, payload))
    }

    /// Answers an invocation. One that is under way no more was answered, or went back to its queue.
    fn answer(&mut self, (kind, invocation): (Kind, Id), reply: Reply) -> Result<Said, Fault> {
        match self.callee.invocations.remove(&invocation) {
            Some(tag) => Ok(Said::Command(Command::Answer { id: Asked::by(kind, invocation).id(), tag, reply })),
            None if invocation.number() <= self.callee.invoked => Ok(Said::Nothing),
            None => Err(self.violation("there is no such invocation")),
        }
    }
}
