//! What a client's messages ask for.
//!
//! `SUBSCRIBE` takes options of ours beside WAMP's: `after` (the detail `cursor` of the last event of each source, as one text
//! or a list of them), `last` (so many of the newest events of each topic first), `source`, `filter` and `on_slow`.

use std::sync::Arc;

use super::answers::Asked;
use super::client_message::{Call, ClientMessage, Publish, Subscribe as Asking};
use super::codec::{Listening, Standing, Wamp};
use super::content;
use super::history;
use super::id::Id;
use super::json;
use super::kind::Kind;
use super::label::Name;
use super::reasons::{INVALID_ARGUMENT, NO_SUCH_PROCEDURE, NO_SUCH_SUBSCRIPTION};
use super::refusal::Refusal;
use super::router_message::RouterMessage;
use super::uri;
use super::value::{DEPTH_MAX, Dict, Value};
use crate::model::cursor::JointCursor;
use crate::model::filter::Filter;
use crate::model::flow::Flow;
use crate::protocol::json::filter;
use crate::protocol::{Command, Echo, Fault, Only, Said, Subscribe, Which};

/// Cursors that `after` may list.
const CURSORS_MAX: usize = 64;

impl Wamp {
    /// What a message says.
    pub(super) fn take(&mut self, message: ClientMessage) -> Result<Said, Fault> {
        let kind = message.kind();
        match (message, self.standing.clone()) {
            (ClientMessage::Abort(_), _) => Err(self.fall_silent()),
            (ClientMessage::Hello(hello), Standing::New) => self.hello(hello),
            (ClientMessage::Authenticate { signature, .. }, Standing::Challenged(greeting)) => {
                self.authenticate(greeting, signature)
            }
            (ClientMessage::Hello(_) | ClientMessage::Authenticate { .. }, _) => {
                Err(self.violation(&format!("{} comes once, and when it is asked for", kind.name())))
            }
            (message, Standing::Joined(session)) => self.request(session, message),
            (_, Standing::Over) => Ok(Said::Nothing),
            _ => Err(self.violation(&format!("{} comes after WELCOME: send HELLO first", kind.name()))),
        }
    }

    /// A message that is refused for what it is.
    pub(super) fn refuse(&mut self, refusal: Refusal) -> Result<Said, Fault> {
        match refusal {
            Refusal::Abort { reason, message } => Err(self.abort(reason, &message)),
            // Before the session stands there is nothing to be asked for.
            Refusal::Answer { .. } | Refusal::Silence { .. } if !matches!(self.standing, Standing::Joined(_)) => {
                Err(self.violation("the first message is HELLO"))
            }
            refusal => Ok(self.answered(refusal.answer())),
        }
    }

    fn answered(&self, answer: Option<RouterMessage>) -> Said {
        answer.map_or(Said::Nothing, |message| Said::Answered(self.write(message)))
    }

    pub(super) fn refused(&self, (kind, request): (Kind, Id), reason: &str, message: &str) -> Said {
        self.answered(Some(RouterMessage::error(kind, request, reason, message)))
    }

    fn request(&mut self, session: Id, message: ClientMessage) -> Result<Said, Fault> {
        Ok(match message {
            ClientMessage::Subscribe(asking) => self.subscribe(asking),
            ClientMessage::Unsubscribe { request, subscription } => self.unsubscribe(request, subscription),
            ClientMessage::Publish(publish) => published(session, publish),
            ClientMessage::Call(call) => self.call(call),
            ClientMessage::Cancel { call, .. } => {
                // Whoever answers behind the broker cannot be told, so that all modes are "skip" (section "Call Canceling").
                Said::Command(Command::Abandon { id: Asked::by(Kind::Call, call).id() })
            }
            ClientMessage::Goodbye(_) => Said::Command(Command::Leave { id: Asked::once(Kind::Goodbye).id() }),
            ClientMessage::Register(register) => self.register(register),
            ClientMessage::Unregister { request, registration } => self.unregister(request, registration),
            ClientMessage::Yield(message) => return self.yielded(message),
            ClientMessage::Error(message) => return self.invocation_failed(message),
            // These never come here; see `take`.
            ClientMessage::Hello(_) | ClientMessage::Authenticate { .. } | ClientMessage::Abort(_) => Said::Nothing,
        })
    }

    /// Asks for events. Who asks again for the same has one subscription, whose events come once.
    fn subscribe(&mut self, asking: Asking) -> Said {
        let request = asking.request;
        let subscription = self.subscription(&asking);
        let past = match Past::read(&asking) {
            Ok(past) => past,
            Err(sentence) => return self.refused((Kind::Subscribe, request), INVALID_ARGUMENT, &sentence),
        };
        let held = self.subscriptions.contains_key(&subscription);
        if held && past.is_asked_for() {
            let message = "this session has that subscription already: UNSUBSCRIBE before you ask for its past";
            return self.refused((Kind::Subscribe, request), INVALID_ARGUMENT, message);
        }
        let Asking { uri, matching, options, .. } = asking;
        let label = Name { subscription, prefix: matching.prefix.as_deref() }.label();
        let Past { after, last, only, filter, flow } = past;
        let id = Asked::naming(Kind::Subscribe, request, subscription).id();
        let wanted = Subscribe {
            id,
            after,
            last,
            only,
            filter,
            flow,
            label: Some(label.clone()),
            ..Subscribe::to(matching.pattern)
        };
        self.subscriptions.entry(subscription).or_insert(Listening { uri, policy: options.policy, label });
        Said::Command(Command::Subscribe(wanted))
    }

    /// The id of a subscription: the same for all who ask for the same.
    fn subscription(&self, asking: &Asking) -> Id {
        let policy = asking.options.policy;
        let is_other = |known: &Listening| known.policy != policy || known.uri != asking.uri;
        Id::free(&["subscription", policy.name(), &asking.uri], |id| self.subscriptions.get(&id).is_some_and(is_other))
    }

    fn unsubscribe(&mut self, request: Id, subscription: Id) -> Said {
        let Some(Listening { label, .. }) = self.forget(subscription) else {
            let message = "this session has no such subscription";
            return self.refused((Kind::Unsubscribe, request), NO_SUCH_SUBSCRIPTION, message);
        };
        let id = Asked::by(Kind::Unsubscribe, request).id();
        Said::Command(Command::Unsubscribe { id, which: Which::Label(label) })
    }

    fn call(&self, call: Call) -> Said {
        let Call { request, procedure, options, payload, .. } = call;
        if uri::check_unreserved(procedure.as_str()).is_err() {
            let message = if procedure.as_str() == history::PROCEDURE {
                "events of the past come with the options after and last of SUBSCRIBE"
            } else {
                "procedures of WAMP itself are not offered here"
            };
            return self.refused((Kind::Call, request), NO_SUCH_PROCEDURE, message);
        }
        let id = Asked::by(Kind::Call, request).id();
        Said::Command(Command::Call { id, message: content::outgoing(procedure, payload), timeout: options.timeout })
    }
}

fn published(session: Id, publish: Publish) -> Said {
    let Publish { request, topic, options, payload, .. } = publish;
    let mut message = content::outgoing(topic, payload);
    let mut id = None;
    if options.acknowledge {
        let publication = Id::of(&["publication", &session.to_string(), &request.to_string()]);
        content::name(&mut message, publication);
        id = Asked::naming(Kind::Publish, request, publication).id();
    }
    let echo = if options.exclude_me { Echo::Nothing } else { Echo::All };
    Said::Command(Command::Publish { id, message, mandatory: false, echo })
}

/// What a subscription begins with and how it goes on, in options that are ours.
struct Past {
    after: JointCursor,
    last: usize,
    only: Option<Only>,
    filter: Option<Arc<Filter>>,
    flow: Option<Flow>,
}

impl Past {
    fn read(asking: &Asking) -> Result<Self, String> {
        let dict = &asking.dict;
        let retained = usize::from(asking.options.get_retained);
        Ok(Self {
            after: after(dict)?,
            last: last(dict)?.max(retained),
            only: text(dict, "source")?.map(|name| Only::Source(name.to_owned())),
            filter: filter_of(dict)?,
            flow: flow(dict)?,
        })
    }

    fn is_asked_for(&self) -> bool {
        self.last > 0 || !self.after.0.is_empty()
    }
}

/// Where to go on: of two cursors of one source the later in the list.
fn after(dict: &Dict) -> Result<JointCursor, String> {
    let wrong = || "\"after\" takes the detail \"cursor\" of an event, or a list of these".to_owned();
    let texts = match dict.value("after") {
        None => return Ok(JointCursor::default()),
        Some(Value::Text(text)) => vec![text.as_str()],
        Some(Value::List(items)) if items.len() <= CURSORS_MAX => {
            items.iter().map(Value::as_text).collect::<Option<_>>().ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    let mut joint = JointCursor::default();
    for (source, cursor) in texts.into_iter().flat_map(|text| JointCursor::of_client(text).0) {
        joint.set(&source, cursor);
    }
    Ok(joint)
}

fn last(dict: &Dict) -> Result<usize, String> {
    match dict.value("last") {
        None => Ok(0),
        Some(value) => {
            let number = value.as_integer().and_then(|number| usize::try_from(number).ok());
            number.ok_or_else(|| "\"last\" takes a whole number of events of each topic".to_owned())
        }
    }
}

fn text<'a>(dict: &'a Dict, name: &str) -> Result<Option<&'a str>, String> {
    match dict.value(name) {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{name:?} takes a string, not {}", other.shown())),
    }
}

fn flow(dict: &Dict) -> Result<Option<Flow>, String> {
    let read =
        |text: &str| Flow::named(text).ok_or_else(|| "\"on_slow\" takes catch-up, latest or drop-oldest".to_owned());
    text(dict, "on_slow")?.map(read).transpose()
}

fn filter_of(dict: &Dict) -> Result<Option<Arc<Filter>>, String> {
    let Some(value) = dict.value("filter") else { return Ok(None) };
    let mut bytes = Vec::new();
    json::push(&mut bytes, value, DEPTH_MAX);
    let filter = filter::read(&String::from_utf8_lossy(&bytes)).map_err(|error| format!("\"filter\" {error}"))?;
    Ok(filter.map(Arc::new))
}
