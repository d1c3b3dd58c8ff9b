//! What a router sends, as the elements of which its messages are made (WAMP, sections "Message Definitions" and "Additional
//! Messages"), and events, of which all but the subscription is the same for everybody.

use crate::protocol::Outbound;
use crate::protocol::wamp::id::Id;
use crate::protocol::wamp::kind::Kind;
use crate::protocol::wamp::serializer::{Elements, Serializer};
use crate::protocol::wamp::value::{Dict, Payload, Value};

/// One message of a router.
#[derive(Debug, Clone, PartialEq)]
pub enum RouterMessage {
    /// The session stands.
    Welcome {
        /// Its id.
        session: Id,
        /// `roles` and who the client is.
        details: Dict,
    },
    /// Asks who the client is.
    Challenge {
        /// The method.
        method: &'static str,
        /// What is to be signed.
        extra: Dict,
    },
    /// Ends the session, without an answer.
    Abort {
        /// Why, in words.
        details: Dict,
        /// Why, as a URI.
        reason: String,
    },
    /// Ends the session, or answers the client's.
    Goodbye {
        /// Why, in words.
        details: Dict,
        /// Why, as a URI.
        reason: String,
    },
    /// A request failed.
    Error {
        /// What was asked for.
        asked: Kind,
        /// The request.
        request: Id,
        /// `Details`.
        details: Dict,
        /// Why, as a URI.
        error: String,
        /// Why, in words or however a callee says it.
        payload: Payload,
    },
    /// It was published.
    Published {
        /// The request.
        request: Id,
        /// The publication.
        publication: Id,
    },
    /// Events come from now on.
    Subscribed {
        /// The request.
        request: Id,
        /// The subscription.
        subscription: Id,
    },
    /// None come any more.
    Unsubscribed {
        /// The request.
        request: Id,
    },
    /// No calls come any more, and nobody asked for that (section "Registration Revocation").
    Revoked {
        /// The registration.
        registration: Id,
        /// Why, in words.
        reason: String,
    },
    /// The answer to a call, or a part of it.
    Result {
        /// The call.
        request: Id,
        /// `Details`.
        details: Dict,
        /// The answer.
        payload: Payload,
    },
    /// Calls come from now on.
    Registered {
        /// The request.
        request: Id,
        /// The registration.
        registration: Id,
    },
    /// None come any more.
    Unregistered {
        /// The request.
        request: Id,
    },
    /// A call.
    Invocation {
        /// Its id.
        request: Id,
        /// The registration.
        registration: Id,
        /// `Details`.
        details: Dict,
        /// Its arguments.
        payload: Payload,
    },
    /// A call is taken back.
    Interrupt {
        /// The invocation.
        invocation: Id,
        /// `mode` and why.
        options: Dict,
    },
}

impl RouterMessage {
    /// An end with a reason in words, for the client's log.
    pub fn abort(reason: &str, message: &str) -> Self {
        Self::Abort { details: Dict::default().with("message", Value::text(message)), reason: reason.to_owned() }
    }

    /// A farewell likewise.
    pub fn goodbye(reason: &str, message: Option<&str>) -> Self {
        let details = message.map(|message| Dict::default().with("message", Value::text(message)));
        Self::Goodbye { details: details.unwrap_or_default(), reason: reason.to_owned() }
    }

    /// An error with a sentence, which stands where clients look for it: in the first argument.
    pub fn error(asked: Kind, request: Id, error: &str, message: &str) -> Self {
        let payload = Payload::one(Value::text(message));
        Self::Error { asked, request, details: Dict::default(), error: error.to_owned(), payload }
    }

    /// The message as a session sends it.
    pub fn encode(self, serializer: Serializer) -> Outbound {
        serializer.encode(&self.elements())
    }

    /// The elements, the type first.
    fn elements(self) -> Vec<Value> {
        match self {
            Self::Welcome { session, details } => message(Kind::Welcome, [session.into(), Value::Dict(details)]),
            Self::Challenge { method, extra } => message(Kind::Challenge, [Value::text(method), Value::Dict(extra)]),
            Self::Abort { details, reason } => message(Kind::Abort, [Value::Dict(details), Value::Text(reason)]),
            Self::Goodbye { details, reason } => message(Kind::Goodbye, [Value::Dict(details), Value::Text(reason)]),
            Self::Error { asked, request, details, error, payload } => {
                let (asked, details) = (Value::from(asked.code()), Value::Dict(details));
                with_payload(message(Kind::Error, [asked, request.into(), details, Value::Text(error)]), payload)
            }
            Self::Published { request, publication } => message(Kind::Published, [request.into(), publication.into()]),
            Self::Subscribed { request, subscription } => {
                message(Kind::Subscribed, [request.into(), subscription.into()])
            }
            Self::Unsubscribed { request } => message(Kind::Unsubscribed, [request.into()]),
            Self::Revoked { registration, reason } => {
                let details = Dict::default().with("registration", registration.into());
                let details = details.with("reason", Value::Text(reason));
                // No request is answered: its place holds a zero, which is no id.
                message(Kind::Unregistered, [Value::Int(0), Value::Dict(details)])
            }
            Self::Result { request, details, payload } => {
                with_payload(message(Kind::Result, [request.into(), Value::Dict(details)]), payload)
            }
            Self::Registered { request, registration } => {
                message(Kind::Registered, [request.into(), registration.into()])
            }
            Self::Unregistered { request } => message(Kind::Unregistered, [request.into()]),
            Self::Invocation { request, registration, details, payload } => {
                let head = [request.into(), registration.into(), Value::Dict(details)];
                with_payload(message(Kind::Invocation, head), payload)
            }
            Self::Interrupt { invocation, options } => {
                message(Kind::Interrupt, [invocation.into(), Value::Dict(options)])
            }
        }
    }
}

fn message<const LENGTH: usize>(kind: Kind, rest: [Value; LENGTH]) -> Vec<Value> {
    let mut elements = vec![Value::from(kind.code())];
    elements.extend(rest);
    elements
}

fn with_payload(mut elements: Vec<Value>, payload: Payload) -> Vec<Value> {
    payload.append_to(&mut elements);
    elements
}

/// `roles` of a `WELCOME`: the features that broker and dealer announce (section "Role and Feature Announcement").
pub fn roles(broker: &[&str], dealer: &[&str]) -> Value {
    let role = |features: &[&str]| {
        let announced = features.iter().fold(Dict::default(), |dict, feature| dict.with(feature, Value::Bool(true)));
        Value::Dict(Dict::default().with("features", Value::Dict(announced)))
    };
    Value::Dict(Dict::default().with("broker", role(broker)).with("dealer", role(dealer)))
}

/// An `EVENT` without its subscription, written once for everybody who gets it. Its topic always stands in it: those who
/// subscribed to a pattern must be told ("Concrete topic published to"), and for the others it does no harm.
#[derive(Debug, Clone)]
pub struct Event {
    serializer: Serializer,
    rest: Elements,
}

impl Event {
    /// Writes all but the subscription; `details` are what is to be said beside the topic.
    pub fn new(serializer: Serializer, publication: Id, topic: &str, details: Dict, payload: Payload) -> Self {
        let details = details.with("topic", Value::text(topic));
        let elements = with_payload(vec![publication.into(), Value::Dict(details)], payload);
        Self { serializer, rest: serializer.elements(&elements) }
    }

    /// The message of those who get it by this subscription.
    pub fn of(&self, subscription: Id) -> Outbound {
        let first = [Value::from(Kind::Event.code()), subscription.into()];
        self.serializer.join(&self.serializer.elements(&first), &self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wamp::reasons;
    use crate::protocol::wamp::tests::incoming;

    fn id(number: u64) -> Id {
        Id::new(number).unwrap()
    }

    fn json(message: RouterMessage) -> String {
        text(message.encode(Serializer::Json))
    }

    fn text(outbound: Outbound) -> String {
        match outbound {
            Outbound::Text(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Outbound::Binary(_) => panic!("JSON goes as text"),
        }
    }

    fn every_message() -> Vec<(RouterMessage, &'static str)> {
        let payload =
            Payload { arguments: vec![Value::Int(30)], keywords: Dict::default().with("karma", Value::Int(10)) };
        let keywords_only = Payload { arguments: vec![], ..payload.clone() };
        let details = Dict::default();
        let mode = Dict::default().with("mode", Value::text("killnowait"));
        let welcome = Dict::default().with("roles", roles(&["event_retention"], &[]));
        vec![
            (
                RouterMessage::Welcome { session: id(9_129_137_332), details: welcome },
                r#"[2,9129137332,{"roles":{"broker":{"features":{"event_retention":true}},"dealer":{"features":{}}}}]"#,
            ),
            (RouterMessage::Challenge { method: "ticket", extra: details.clone() }, r#"[4,"ticket",{}]"#),
            (
                RouterMessage::abort(reasons::NO_SUCH_REALM, "The realm does not exist."),
                r#"[3,{"message":"The realm does not exist."},"wamp.error.no_such_realm"]"#,
            ),
            (RouterMessage::goodbye(reasons::GOODBYE_AND_OUT, None), r#"[6,{},"wamp.close.goodbye_and_out"]"#),
            (
                RouterMessage::goodbye(reasons::SYSTEM_SHUTDOWN, Some("soon back")),
                r#"[6,{"message":"soon back"},"wamp.close.system_shutdown"]"#,
            ),
            (
                RouterMessage::error(Kind::Call, id(7), reasons::NO_SUCH_PROCEDURE, "none"),
                r#"[8,48,7,{},"wamp.error.no_such_procedure",["none"]]"#,
            ),
            (RouterMessage::Published { request: id(1), publication: id(2) }, "[17,1,2]"),
            (RouterMessage::Subscribed { request: id(1), subscription: id(2) }, "[33,1,2]"),
            (RouterMessage::Unsubscribed { request: id(1) }, "[35,1]"),
            (
                RouterMessage::Revoked { registration: id(1_293_722), reason: "no longer authorized".into() },
                r#"[67,0,{"registration":1293722,"reason":"no longer authorized"}]"#,
            ),
            (
                RouterMessage::Result { request: id(7), details: details.clone(), payload: payload.clone() },
                r#"[50,7,{},[30],{"karma":10}]"#,
            ),
            (
                RouterMessage::Result { request: id(7), details: details.clone(), payload: Payload::default() },
                "[50,7,{}]",
            ),
            (RouterMessage::Registered { request: id(1), registration: id(2) }, "[65,1,2]"),
            (RouterMessage::Unregistered { request: id(1) }, "[67,1]"),
            (
                RouterMessage::Invocation { request: id(1), registration: id(2), details, payload: keywords_only },
                r#"[68,1,2,{},[],{"karma":10}]"#,
            ),
            (RouterMessage::Interrupt { invocation: id(1), options: mode }, r#"[69,1,{"mode":"killnowait"}]"#),
        ]
    }

    #[test]
    fn messages_have_the_form_of_the_specification() {
        for (message, expected) in every_message() {
            assert_eq!(json(message), expected);
        }
    }

    #[test]
    fn messages_are_the_same_in_every_serialization_and_have_as_many_elements_as_they_may() {
        for (message, expected) in every_message() {
            let in_json = Serializer::Json.decode(incoming(&Outbound::Text(expected.into()))).unwrap();
            for serializer in Serializer::ALL {
                let outbound = message.clone().encode(*serializer);
                assert_eq!(serializer.decode(incoming(&outbound)).unwrap(), in_json, "{serializer:?} {expected}");
            }
            let Value::List(elements) = in_json else { panic!("{expected} is a list") };
            let row = Kind::of_code(elements[0].as_integer().unwrap()).unwrap().row();
            assert!((row.elements.0..=row.elements.1).contains(&elements.len()), "{expected}");
        }
    }

    #[test]
    fn an_event_differs_by_its_subscription_only() {
        for serializer in Serializer::ALL {
            let payload = Payload::one(serializer.embed("{\"price\": 1.50}").unwrap());
            let retained = Dict::default().with("retained", Value::Bool(true));
            let event = Event::new(*serializer, id(4_429_313_566), "a.b", retained, payload);
            for subscription in [1, 5_512_315_355] {
                let outbound = event.of(id(subscription));
                let price = Value::Dict(Dict::default().with("price", Value::Float(1.5)));
                let details = Dict::default().with("retained", Value::Bool(true)).with("topic", Value::text("a.b"));
                let expected = vec![
                    Value::Int(36),
                    Value::from(subscription),
                    Value::Int(4_429_313_566),
                    Value::Dict(details),
                    Value::List(vec![price]),
                ];
                assert_eq!(serializer.decode(incoming(&outbound)), Ok(Value::List(expected)));
            }
        }
        let payload = Payload::one(Serializer::Json.embed("{\"price\": 1.50}").unwrap());
        let event = Event::new(Serializer::Json, id(2), "a.b", Dict::default(), payload);
        assert_eq!(text(event.of(id(1))), r#"[36,1,2,{"topic":"a.b"},[{"price": 1.50}]]"#);
        let silent = Event::new(Serializer::Json, id(2), "a.b", Dict::default(), Payload::default());
        assert_eq!(text(silent.of(id(1))), r#"[36,1,2,{"topic":"a.b"}]"#);
    }
}
