//! The options of requests: which are read, what they have to be, and which are refused because to ignore them would do
//! something else than was asked. All others are ignored, as WAMP demands (section "Extensibility").

use std::time::Duration;

use crate::protocol::json::fields::shortened;
use crate::protocol::wamp::id::Id;
use crate::protocol::wamp::kind::Kind;
use crate::protocol::wamp::reasons::{FEATURE_NOT_SUPPORTED, INVALID_ARGUMENT, OPTION_NOT_ALLOWED};
use crate::protocol::wamp::refusal::Refusal;
use crate::protocol::wamp::uri::Policy;
use crate::protocol::wamp::value::{Dict, Value};

/// Whom a publication is for or not for (section "Subscriber Black- and Whitelisting"). To ignore these would show it to
/// others than its publisher meant.
const RECEIVERS: [&str; 6] =
    ["exclude", "exclude_authid", "exclude_authrole", "eligible", "eligible_authid", "eligible_authrole"];

/// Announces a payload that only the two ends understand (section "Payload Passthru Mode").
const PASSTHRU: &str = "ppt_scheme";

/// Of a `PUBLISH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishOptions {
    /// Whether to answer with `PUBLISHED` or `ERROR` (section "PUBLISH").
    pub acknowledge: bool,
    /// Whether the publisher itself is left out (section "Publisher Exclusion"); unless it says otherwise, it is.
    pub exclude_me: bool,
    /// Whether to keep it for those who subscribe later (section "Event Retention").
    pub retain: bool,
}

/// Of a `SUBSCRIBE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// How the URI is compared (section "Pattern-based Subscription").
    pub policy: Policy,
    /// Whether to begin with the event that was kept (section "Event Retention").
    pub get_retained: bool,
}

/// Of a `CALL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOptions {
    /// How long the caller would wait (section "Call Timeouts").
    pub timeout: Option<Duration>,
    /// Whether it would take results in pieces (section "Progressive Call Results").
    pub receive_progress: bool,
}

/// Of a `REGISTER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterOptions {
    /// How the URI is compared (section "Pattern-based Registrations").
    pub policy: Policy,
    /// Who of several is called (section "Shared Registration").
    pub invoke: Invoke,
    /// How many calls the callee would answer at a time; as many as it may, when it does not say.
    pub concurrency: Option<u16>,
}

/// Who of several that are registered for a procedure is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Invoke {
    /// There is one only.
    #[default]
    Single,
    /// Each in its turn.
    RoundRobin,
    /// Any.
    Random,
    /// Who registered first.
    First,
    /// Who registered last.
    Last,
}

/// Of a `CANCEL` (section "Call Canceling").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CancelMode {
    /// The callee is not told.
    Skip,
    /// The callee is told, and what it answers is awaited.
    Kill,
    /// The callee is told, and nobody waits. What is meant when nothing is said.
    #[default]
    KillNoWait,
}

/// The options of one request while they are read.
pub(super) struct Options<'a> {
    asked: Kind,
    request: Id,
    dict: &'a Dict,
    /// Whether the client would be told of an error.
    answers: Answers,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Told,
    Silent,
}

impl<'a> Options<'a> {
    pub(super) fn new(asked: Kind, request: Id, dict: &'a Dict) -> Self {
        Self { asked, request, dict, answers: Answers::Told }
    }

    /// Of a publish, whose client is told of errors only when it asks for it.
    pub(super) fn publish(request: Id, dict: &'a Dict) -> Result<(Self, PublishOptions), Refusal> {
        let mut options = Self::new(Kind::Publish, request, dict);
        options.refuse_passthru()?;
        let acknowledge = match dict.value("acknowledge") {
            None => false,
            Some(Value::Bool(acknowledge)) => *acknowledge,
            Some(other) => {
                let instead = other.shown();
                let message = format!("PUBLISH takes true or false in the option \"acknowledge\", not {instead}");
                return Err(Refusal::violation(message));
            }
        };
        if !acknowledge {
            options.answers = Answers::Silent;
        }
        if let Some(name) = RECEIVERS.iter().find(|name| dict.value(name).is_some()) {
            let message = format!("the option {name:?} is not offered: publish to a topic that only they may read");
            return Err(options.refusal(OPTION_NOT_ALLOWED, message));
        }
        let exclude_me = options.truth("exclude_me")?.unwrap_or(true);
        let retain = options.flag("retain")?;
        Ok((options, PublishOptions { acknowledge, exclude_me, retain }))
    }

    pub(super) fn subscribe(&self) -> Result<SubscribeOptions, Refusal> {
        Ok(SubscribeOptions { policy: self.policy()?, get_retained: self.flag("get_retained")? })
    }

    pub(super) fn call(&self) -> Result<CallOptions, Refusal> {
        self.refuse_passthru()?;
        if self.flag("progress")? {
            let message = "calls in pieces are not offered: send one CALL without the option \"progress\"";
            return Err(self.refusal(FEATURE_NOT_SUPPORTED, message.into()));
        }
        let timeout = match self.dict.value("timeout") {
            None => None,
            Some(value) => {
                let wrong = || self.wrong("a number of milliseconds", "timeout", value);
                let millis = value.as_integer().ok_or_else(wrong)?;
                (millis > 0).then(|| Duration::from_millis(millis))
            }
        };
        Ok(CallOptions { timeout, receive_progress: self.flag("receive_progress")? })
    }

    pub(super) fn register(&self) -> Result<RegisterOptions, Refusal> {
        let expected = "\"single\", \"roundrobin\", \"random\", \"first\" or \"last\"";
        let invoke = self.named("invoke", expected, |name| match name {
            "single" => Some(Invoke::Single),
            "roundrobin" => Some(Invoke::RoundRobin),
            "random" => Some(Invoke::Random),
            "first" => Some(Invoke::First),
            "last" => Some(Invoke::Last),
            _ => None,
        })?;
        let concurrency = match self.dict.value("concurrency") {
            None => None,
            Some(value) => {
                let number = value.as_integer().filter(|number| *number > 0);
                let number = number.ok_or_else(|| self.wrong("a number of calls from 1", "concurrency", value))?;
                Some(u16::try_from(number).unwrap_or(u16::MAX))
            }
        };
        Ok(RegisterOptions { policy: self.policy()?, invoke, concurrency })
    }

    pub(super) fn cancel(&self) -> Result<CancelMode, Refusal> {
        self.named("mode", "\"skip\", \"kill\" or \"killnowait\"", |name| match name {
            "skip" => Some(CancelMode::Skip),
            "kill" => Some(CancelMode::Kill),
            "killnowait" => Some(CancelMode::KillNoWait),
            _ => None,
        })
    }

    /// Says of the request as a whole why it cannot be.
    pub(super) fn refusal(&self, reason: &'static str, message: String) -> Refusal {
        match self.answers {
            Answers::Told => Refusal::Answer { asked: self.asked, request: self.request, reason, message },
            Answers::Silent => Refusal::Silence { message },
        }
    }

    fn policy(&self) -> Result<Policy, Refusal> {
        self.named("match", "\"exact\", \"prefix\" or \"wildcard\"", Policy::named)
    }

    /// One of several names, or what is meant without any.
    fn named<T: Default>(&self, name: &str, expected: &str, find: fn(&str) -> Option<T>) -> Result<T, Refusal> {
        match self.dict.value(name) {
            None => Ok(T::default()),
            Some(Value::Text(text)) => find(text).ok_or_else(|| {
                let (asked, text) = (self.asked.name(), shortened(text));
                let message = format!("{asked} takes {expected} in the option {name:?}, not {text:?}");
                self.refusal(INVALID_ARGUMENT, message)
            }),
            Some(other) => Err(self.wrong(expected, name, other)),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        Ok(self.truth(name)?.unwrap_or(false))
    }

    fn truth(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.dict.value(name) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(*truth)),
            Some(other) => Err(self.wrong("true or false", name, other)),
        }
    }

    fn wrong(&self, expected: &str, name: &str, value: &Value) -> Refusal {
        let (asked, instead) = (self.asked.name(), value.shown());
        self.refusal(INVALID_ARGUMENT, format!("{asked} takes {expected} in the option {name:?}, not {instead}"))
    }

    /// WAMP makes this a violation unless the router has announced it.
    fn refuse_passthru(&self) -> Result<(), Refusal> {
        if self.dict.value(PASSTHRU).is_none() {
            return Ok(());
        }
        let asked = self.asked.name();
        Err(Refusal::violation(format!("{asked} has the option {PASSTHRU:?}, which this router does not announce")))
    }
}
