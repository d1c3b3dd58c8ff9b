//! What a client sends, typed: which elements, of which types, with which options (WAMP, sections "Message Definitions" and
//! "Additional Messages"). Whether a message may come now is for the session to say.

use crate::model::topic::Topic;
use crate::protocol::wamp::fields::Fields;
use crate::protocol::wamp::id::Id;
use crate::protocol::wamp::kind::Kind;
use crate::protocol::wamp::options::{
    CallOptions, CancelMode, Options, PublishOptions, RegisterOptions, SubscribeOptions,
};
use crate::protocol::wamp::reasons::INVALID_URI;
use crate::protocol::wamp::refusal::Refusal;
use crate::protocol::wamp::uri::{self, Matching, UriError};
use crate::protocol::wamp::value::{Dict, Payload, Value};

/// One message of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// Opens a session.
    Hello(Hello),
    /// Answers a challenge.
    Authenticate {
        /// A signature, or a token.
        signature: String,
        /// `Extra`.
        extra: Dict,
    },
    /// Ends the session; there is no answer.
    Abort(Farewell),
    /// Ends the session, or answers ours.
    Goodbye(Farewell),
    /// Asks for events.
    Subscribe(Subscribe),
    /// Asks for no more of them.
    Unsubscribe {
        /// Its id.
        request: Id,
        /// The subscription.
        subscription: Id,
    },
    /// Publishes.
    Publish(Publish),
    /// Calls a procedure.
    Call(Call),
    /// Takes a call back.
    Cancel {
        /// The call.
        call: Id,
        /// How.
        mode: CancelMode,
    },
    /// Offers a procedure.
    Register(Register),
    /// Offers it no more.
    Unregister {
        /// Its id.
        request: Id,
        /// The registration.
        registration: Id,
    },
    /// Answers an invocation.
    Yield(Yield),
    /// Answers an invocation with an error.
    Error(InvocationError),
}

/// `HELLO`.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// The realm.
    pub realm: String,
    /// Name and version of the client's program, if it says so (section "Agent Identification").
    pub agent: Option<String>,
    /// How it would say who it is (section "Authentication Methods").
    pub auth_methods: Vec<String>,
    /// Who it would be.
    pub auth_id: Option<String>,
    /// `Details` as they came.
    pub details: Dict,
}

/// `GOODBYE` or `ABORT`.
#[derive(Debug, Clone, PartialEq)]
pub struct Farewell {
    /// A URI.
    pub reason: String,
    /// In words, if it says so.
    pub message: Option<String>,
}

/// `SUBSCRIBE`.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// Its id.
    pub request: Id,
    /// The URI as it came.
    pub uri: String,
    /// Which topics it means.
    pub matching: Matching,
    /// Its options.
    pub options: SubscribeOptions,
    /// Its options as they came, for those that are ours and not WAMP's.
    pub dict: Dict,
}

/// `PUBLISH`.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// Its id.
    pub request: Id,
    /// The topic.
    pub topic: Topic,
    /// Its options.
    pub options: PublishOptions,
    /// Its options as they came.
    pub dict: Dict,
    /// What is published.
    pub payload: Payload,
}

/// `CALL`.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its id.
    pub request: Id,
    /// The procedure.
    pub procedure: Topic,
    /// Its options.
    pub options: CallOptions,
    /// Its options as they came.
    pub dict: Dict,
    /// Its arguments.
    pub payload: Payload,
}

/// `REGISTER`.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    /// Its id.
    pub request: Id,
    /// The URI as it came.
    pub uri: String,
    /// Which procedures it means.
    pub matching: Matching,
    /// Its options.
    pub options: RegisterOptions,
}

/// `YIELD`.
#[derive(Debug, Clone, PartialEq)]
pub struct Yield {
    /// The invocation.
    pub invocation: Id,
    /// Whether more of the result comes (section "Progressive Call Results").
    pub progress: bool,
    /// The result.
    pub payload: Payload,
}

/// `ERROR` about an invocation: a client sends no other.
#[derive(Debug, Clone, PartialEq)]
pub struct InvocationError {
    /// The invocation.
    pub invocation: Id,
    /// `Details` as they came.
    pub details: Dict,
    /// The URI of the error.
    pub error: String,
    /// What the callee says of it.
    pub payload: Payload,
}

/// A role that a client has, and a router must know of (section "Role and Feature Announcement").
const CLIENT_ROLES: [&str; 4] = ["publisher", "subscriber", "caller", "callee"];

impl Hello {
    /// Whether the client announces this feature in this role.
    pub fn announces(&self, role: &str, feature: &str) -> bool {
        let role = self.details.dict("roles").and_then(|roles| roles.dict(role));
        let features = role.and_then(|role| role.dict("features"));
        features.and_then(|features| features.value(feature)) == Some(&Value::Bool(true))
    }
}

impl ClientMessage {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Authenticate { .. } => Kind::Authenticate,
            Self::Abort(_) => Kind::Abort,
            Self::Goodbye(_) => Kind::Goodbye,
            Self::Subscribe(_) => Kind::Subscribe,
            Self::Unsubscribe { .. } => Kind::Unsubscribe,
            Self::Publish(_) => Kind::Publish,
            Self::Call(_) => Kind::Call,
            Self::Cancel { .. } => Kind::Cancel,
            Self::Register(_) => Kind::Register,
            Self::Unregister { .. } => Kind::Unregister,
            Self::Yield(_) => Kind::Yield,
            Self::Error(_) => Kind::Error,
        }
    }

    /// Types one message.
    ///
    /// # Errors
    /// How it is refused.
    pub fn read(message: Value) -> Result<Self, Refusal> {
        let fields = Fields::open(message)?;
        match fields.kind() {
            Kind::Hello => hello(fields).map(Self::Hello),
            Kind::Authenticate => authenticate(fields),
            Kind::Abort => farewell(fields).map(Self::Abort),
            Kind::Goodbye => farewell(fields).map(Self::Goodbye),
            Kind::Subscribe => subscribe(fields).map(Self::Subscribe),
            Kind::Unsubscribe => unsubscribe(fields),
            Kind::Publish => publish(fields).map(Self::Publish),
            Kind::Call => call(fields).map(Self::Call),
            Kind::Cancel => cancel(fields),
            Kind::Register => register(fields).map(Self::Register),
            Kind::Unregister => unregister(fields),
            Kind::Yield => yielded(fields).map(Self::Yield),
            Kind::Error => invocation_error(fields).map(Self::Error),
            others => Err(Refusal::violation(format!("{} is for routers to send", others.name()))),
        }
    }
}

fn hello(mut fields: Fields) -> Result<Hello, Refusal> {
    let realm = fields.text("Realm")?;
    let details = fields.dict("Details")?;
    if let Err(error) = uri::check(&realm) {
        return Err(Refusal::Abort { reason: INVALID_URI, message: format!("the realm {error}") });
    }
    let roles = details.dict("roles");
    if !roles.is_some_and(|roles| CLIENT_ROLES.iter().any(|role| roles.dict(role).is_some())) {
        let roles = CLIENT_ROLES.join(", ");
        return Err(Refusal::violation(format!("HELLO needs a dict \"roles\" in its Details, with one of {roles}")));
    }
    // What only informs is ignored where it is something else.
    let agent = details.text("agent").map(str::to_owned);
    let auth_id = details.text("authid").map(str::to_owned);
    let auth_methods = match details.value("authmethods") {
        Some(Value::List(names)) => names.iter().filter_map(Value::as_text).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Ok(Hello { realm, agent, auth_methods, auth_id, details })
}

fn authenticate(mut fields: Fields) -> Result<ClientMessage, Refusal> {
    let signature = fields.text("Signature")?;
    Ok(ClientMessage::Authenticate { signature, extra: fields.dict("Extra")? })
}

fn farewell(mut fields: Fields) -> Result<Farewell, Refusal> {
    let details = fields.dict("Details")?;
    let reason = fields.text("Reason")?;
    fields.payload()?;
    Ok(Farewell { reason, message: details.text("message").map(str::to_owned) })
}

fn subscribe(mut fields: Fields) -> Result<Subscribe, Refusal> {
    let request = fields.id("Request")?;
    let dict = fields.dict("Options")?;
    let uri = fields.text("Topic")?;
    let asked = Options::new(Kind::Subscribe, request, &dict);
    let options = asked.subscribe()?;
    let matching = Matching::new(&uri, options.policy).map_err(|error| invalid(&asked, "the topic", &error))?;
    Ok(Subscribe { request, uri, matching, options, dict })
}

fn unsubscribe(mut fields: Fields) -> Result<ClientMessage, Refusal> {
    let request = fields.id("Request")?;
    Ok(ClientMessage::Unsubscribe { request, subscription: fields.id("Subscription")? })
}

fn publish(mut fields: Fields) -> Result<Publish, Refusal> {
    let request = fields.id("Request")?;
    let dict = fields.dict("Options")?;
    let uri = fields.text("Topic")?;
    // Broken rules end the session, whatever the options say.
    let payload = fields.payload()?;
    let (asked, options) = Options::publish(request, &dict)?;
    let topic = uri::topic(&uri).and_then(|topic| uri::check_unreserved(&uri).map(|()| topic));
    let topic = topic.map_err(|error| invalid(&asked, "the topic", &error))?;
    Ok(Publish { request, topic, options, dict, payload })
}

fn call(mut fields: Fields) -> Result<Call, Refusal> {
    let request = fields.id("Request")?;
    let dict = fields.dict("Options")?;
    let uri = fields.text("Procedure")?;
    let payload = fields.payload()?;
    let asked = Options::new(Kind::Call, request, &dict);
    let options = asked.call()?;
    let procedure = uri::topic(&uri).map_err(|error| invalid(&asked, "the procedure", &error))?;
    Ok(Call { request, procedure, options, dict, payload })
}

fn cancel(mut fields: Fields) -> Result<ClientMessage, Refusal> {
    let call = fields.id("Request")?;
    let dict = fields.dict("Options")?;
    let mode = Options::new(Kind::Cancel, call, &dict).cancel().map_err(Refusal::into_violation)?;
    Ok(ClientMessage::Cancel { call, mode })
}

fn register(mut fields: Fields) -> Result<Register, Refusal> {
    let request = fields.id("Request")?;
    let dict = fields.dict("Options")?;
    let uri = fields.text("Procedure")?;
    let asked = Options::new(Kind::Register, request, &dict);
    let options = asked.register()?;
    let matching = uri::check_unreserved(&uri).and_then(|()| Matching::new(&uri, options.policy));
    let matching = matching.map_err(|error| invalid(&asked, "the procedure", &error))?;
    Ok(Register { request, uri, matching, options })
}

fn unregister(mut fields: Fields) -> Result<ClientMessage, Refusal> {
    let request = fields.id("Request")?;
    Ok(ClientMessage::Unregister { request, registration: fields.id("Registration")? })
}

fn yielded(mut fields: Fields) -> Result<Yield, Refusal> {
    let invocation = fields.id("Request")?;
    let dict = fields.dict("Options")?;
    let payload = fields.payload()?;
    let progress = dict.value("progress") == Some(&Value::Bool(true));
    Ok(Yield { invocation, progress, payload })
}

fn invocation_error(mut fields: Fields) -> Result<InvocationError, Refusal> {
    let code = fields.code("Type")?;
    if code != Kind::Invocation.code() {
        let expected = Kind::Invocation.code();
        let message = format!("ERROR of a client is about an INVOCATION, {expected} as element 2 (Type), not {code}");
        return Err(Refusal::violation(message));
    }
    let invocation = fields.id("Request")?;
    let details = fields.dict("Details")?;
    let error = fields.text("Error")?;
    if let Err(wrong) = uri::check(&error) {
        return Err(Refusal::violation(format!("the error {wrong}")));
    }
    Ok(InvocationError { invocation, details, error, payload: fields.payload()? })
}

fn invalid(asked: &Options<'_>, what: &str, error: &UriError) -> Refusal {
    asked.refusal(INVALID_URI, format!("{what} {error}"))
}

#[cfg(test)]
mod tests;
