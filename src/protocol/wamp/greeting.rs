//! Who a client is: `HELLO`, the methods by which it would say so, and what it is told when it is welcome.

use super::answers::Asked;
use super::client_message::Hello;
use super::codec::{Standing, Wamp};
use super::id::Id;
use super::kind::Kind;
use super::reasons::{AUTHENTICATION_DENIED, NO_MATCHING_AUTH_METHOD};
use super::router_message::{RouterMessage, roles};
use super::value::{Dict, Value};
use crate::protocol::json::TOKEN_BYTES_MAX;
use crate::protocol::json::fields::shortened;
use crate::protocol::{Command, Event, Fault, Said};

/// What this router does as a broker, by the names of the specification (section "Role and Feature Announcement").
const BROKER_FEATURES: &[&str] = &["publisher_exclusion", "pattern_based_subscription"];

/// And as a dealer.
const DEALER_FEATURES: &[&str] = &["call_timeout", "call_canceling", "shared_registration", "registration_revocation"];

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// By its handshake, or not at all.
    Anonymous,
    /// By a token (section "Ticket-based Authentication").
    Ticket,
}

/// What a client said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Greeting {
    realm: String,
    agent: Option<String>,
    method: Method,
}

impl Method {
    /// The first of a client's methods that is spoken here; without any it says nothing of itself.
    fn choose(offered: &[String]) -> Option<Self> {
        if offered.is_empty() {
            return Some(Self::Anonymous);
        }
        offered.iter().find_map(|name| match name.as_str() {
            "anonymous" => Some(Self::Anonymous),
            "ticket" => Some(Self::Ticket),
            _ => None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Ticket => "ticket",
        }
    }
}

impl Greeting {
    /// Whether the client has handed a token over.
    pub(super) fn has_token(&self) -> bool {
        self.method == Method::Ticket
    }
}

impl Wamp {
    /// The first message: it is welcomed at once, or asked for its token.
    pub(super) fn hello(&mut self, hello: Hello) -> Result<Said, Fault> {
        let Some(method) = Method::choose(&hello.auth_methods) else {
            let message = "this router speaks the methods anonymous and ticket: offer one of them in authmethods";
            return Err(self.abort(NO_MATCHING_AUTH_METHOD, message));
        };
        self.callee.greeted(&hello);
        let agent = hello.agent.map(|agent| shortened(&agent).to_owned());
        let greeting = Greeting { realm: hello.realm, agent, method };
        match method {
            Method::Anonymous => Ok(self.connect(greeting, None)),
            Method::Ticket => {
                self.standing = Standing::Challenged(greeting);
                let challenge = RouterMessage::Challenge { method: method.name(), extra: Dict::default() };
                Ok(Said::Answered(self.write(challenge)))
            }
        }
    }

    /// The answer to a challenge.
    pub(super) fn authenticate(&mut self, greeting: Greeting, signature: String) -> Result<Said, Fault> {
        if signature.len() > TOKEN_BYTES_MAX {
            let message = format!("the ticket is longer than the {TOKEN_BYTES_MAX} bytes that a token may have");
            return Err(self.abort(AUTHENTICATION_DENIED, &message));
        }
        Ok(self.connect(greeting, Some(signature)))
    }

    fn connect(&mut self, greeting: Greeting, token: Option<String>) -> Said {
        let client = greeting.agent.clone();
        self.standing = Standing::Greeting(greeting);
        Said::Command(Command::Connect { id: Asked::once(Kind::Hello).id(), token, client, claim: None })
    }

    /// From now on the session stands.
    pub(super) fn welcome(&mut self, event: &Event) -> Option<RouterMessage> {
        let Event::Welcome { connection, server, user, .. } = event else { return None };
        let Standing::Greeting(greeting) = &self.standing else { return None };
        let session = Id::of(&["session", connection]);
        let (auth_id, role) = match user {
            Some(user) => (user, "user"),
            None => (connection, "anonymous"),
        };
        let details = Dict::default()
            .with("realm", Value::text(&greeting.realm))
            .with("authid", Value::text(&**auth_id))
            .with("authrole", Value::text(role))
            .with("authmethod", Value::text(greeting.method.name()))
            .with("authprovider", Value::text("passerelle"))
            .with("agent", Value::text(*server))
            .with("roles", roles(BROKER_FEATURES, DEALER_FEATURES));
        self.standing = Standing::Joined(session);
        Some(RouterMessage::Welcome { session, details })
    }
}
