//! WAMP v2 in JSON: a subscriber and nothing else.
//!
//! Its patterns are other ones: a prefix is compared byte by byte, a wildcard is one component. So `a.#` is two subscriptions,
//! to the topic `a` and to everything that begins with `a.`, and what has `#` elsewhere cannot be said.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Client, Heard, Received, Subscriptions, Terms, gap, not_understood, refused};
use crate::cli::client::Ended;
use crate::model::topic::Pattern;

// Section "Message Codes".
const HELLO: u64 = 1;
const WELCOME: u64 = 2;
const ABORT: u64 = 3;
const ERROR: u64 = 8;
const SUBSCRIBE: u64 = 32;
const SUBSCRIBED: u64 = 33;
const EVENT: u64 = 36;

/// Any will do: all realms are one topic space.
const REALM: &str = "passerelle";

/// How a string begins that is bytes (section "Binary support in JSON").
const BINARY: char = '\0';

/// The client.
#[derive(Debug)]
pub(in crate::cli) struct Wamp {
    terms: Terms,
    /// What each subscription asks for.
    wanted: Vec<Wanted>,
    subscriptions: Subscriptions,
    /// By the ids that the router gave them on this connection.
    ids: HashMap<u64, usize>,
}

/// A URI, how it is compared, and what that is as a pattern.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    uri: String,
    policy: &'static str,
    pattern: Pattern,
}

impl Wamp {
    /// # Errors
    /// A sentence, where the protocol has no word for what is wanted.
    pub(in crate::cli) fn new(terms: Terms) -> Result<Self, String> {
        let mut wanted = Vec::new();
        for pattern in &terms.patterns {
            let wrong = || {
                format!(
                    "WAMP has no word for {:?}, which has # and another wildcard: use --protocol json",
                    pattern.as_str()
                )
            };
            wanted.extend(wanted_of(pattern).ok_or_else(wrong)?);
        }
        let patterns = wanted.iter().map(|one: &Wanted| one.pattern.clone()).collect();
        let subscriptions = Subscriptions::new(&Terms { patterns, ..terms.clone() });
        Ok(Self { terms, wanted, subscriptions, ids: HashMap::new() })
    }

    fn subscribe(&self) -> impl Iterator<Item = Heard> + '_ {
        let all = self.wanted.iter().zip(&self.subscriptions.0);
        all.enumerate().map(|(number, (Wanted { uri, policy, .. }, one))| {
            let mut options = json!({ "match": policy });
            if !one.after.0.is_empty() {
                options["after"] = one.after.to_string().into();
            }
            if let Some(filter) = &self.terms.filter {
                options["filter"] = Value::Object(filter.clone());
            }
            if let Some(flow) = &self.terms.on_slow {
                options["on_slow"] = flow.as_str().into();
            }
            Heard::Say(Message::text(json!([SUBSCRIBE, number + 1, options, uri]).to_string()))
        })
    }

    fn event(&mut self, parts: &[Value]) -> Result<Vec<Heard>, Ended> {
        let [_, subscription, _, details, rest @ ..] = parts else {
            return Err(not_understood("WAMP", "a short EVENT"));
        };
        let number = subscription.as_u64().and_then(|id| self.ids.get(&id)).copied();
        let number = number.ok_or_else(|| not_understood("WAMP", "an EVENT of no subscription of ours"))?;
        let wanted = self.wanted.get(number).map_or("", |wanted| wanted.uri.as_str());
        let topic = details["topic"].as_str().unwrap_or(wanted);
        let mut heard = Vec::new();
        for missed in details["gap"].as_array().into_iter().flatten() {
            let text = |field: &str| missed[field].as_str().unwrap_or_default();
            let pattern = self.subscriptions.0.get(number).map_or("#", |one| one.pattern.as_str());
            heard.push(gap(pattern, (text("source"), text("reason"), missed["missed"].as_u64())));
        }
        let at = details["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or_default();
        if self.subscriptions.received(number, topic, &at) {
            let (payload, content_type) = payload(rest);
            let replay = details["retained"] == true;
            let received = Received { topic, at, replay, content_type, payload: &payload, ..Received::default() };
            heard.push(Heard::Message(received.line()));
        }
        Ok(heard)
    }
}

impl Client for Wamp {
    fn subprotocol(&self) -> &'static str {
        "wamp.2.json"
    }

    fn open(&mut self) -> Message {
        self.ids.clear();
        let agent = concat!("passerelle-cli/", env!("CARGO_PKG_VERSION"));
        let details = json!({ "agent": agent, "roles": { "subscriber": {} } });
        Message::text(json!([HELLO, REALM, details]).to_string())
    }

    fn hear(&mut self, message: Message) -> Result<Vec<Heard>, Ended> {
        let parts: Vec<Value> =
            serde_json::from_slice(&message.into_data()).map_err(|error| not_understood("WAMP", &error.to_string()))?;
        let part = |place: usize| parts.get(place).unwrap_or(&Value::Null);
        match part(0).as_u64() {
            Some(WELCOME) => Ok(self.subscribe().collect()),
            Some(SUBSCRIBED) => {
                let number = part(1).as_u64().and_then(|request| usize::try_from(request).ok()?.checked_sub(1));
                let wrong = || not_understood("WAMP", "a SUBSCRIBED that nobody asked for");
                let (number, id) = number.zip(part(2).as_u64()).ok_or_else(wrong)?;
                self.ids.insert(id, number);
                Ok(vec![Heard::Stands])
            }
            Some(EVENT) => self.event(&parts),
            Some(ERROR) => Err(error(part(4), part(5).get(0).unwrap_or(part(3)))),
            Some(ABORT) => Err(error(part(2), &part(1)["message"])),
            // The closing frame that follows a GOODBYE says whether to come back.
            Some(_) => Ok(Vec::new()),
            None => Err(not_understood("WAMP", "a message without a code")),
        }
    }
}

/// What a pattern is in URIs; nothing where they cannot say it.
fn wanted_of(pattern: &Pattern) -> Option<Vec<Wanted>> {
    let text = pattern.as_str();
    let wanted = |uri: &str, policy, pattern: Pattern| Wanted { uri: uri.to_owned(), policy, pattern };
    if text == "#" {
        return Some(vec![wanted("", "prefix", pattern.clone())]);
    }
    if let Some(begin) = text.strip_suffix(".#") {
        if begin.contains(['*', '#']) {
            return None;
        }
        let (exact, longer) = (Pattern::parse(begin).ok()?, Pattern::parse(&format!("{begin}.*.#")).ok()?);
        return Some(vec![wanted(begin, "exact", exact), wanted(&format!("{begin}."), "prefix", longer)]);
    }
    if pattern.words().any(|word| word == "#") {
        return None;
    }
    let words: Vec<&str> = pattern.words().map(|word| if word == "*" { "" } else { word }).collect();
    let policy = if words.iter().any(|word| word.is_empty()) { "wildcard" } else { "exact" };
    Some(vec![wanted(&words.join("."), policy, pattern.clone())])
}

/// Arguments and keywords as the message that they came from or would make, with its content type where it is not JSON.
fn payload(rest: &[Value]) -> (Vec<u8>, Option<&'static str>) {
    let (arguments, keywords) = (rest.first().unwrap_or(&Value::Null), rest.get(1).unwrap_or(&Value::Null));
    let arguments = arguments.as_array().map(Vec::as_slice).unwrap_or_default();
    let has_keywords = keywords.as_object().is_some_and(|keywords| !keywords.is_empty());
    let value = match (arguments, has_keywords) {
        ([Value::String(text)], false) if text.starts_with(BINARY) => {
            let bytes = STANDARD.decode(text.trim_start_matches(BINARY)).unwrap_or_default();
            return (bytes, Some("application/octet-stream"));
        }
        ([], false) => return (Vec::new(), Some("text/plain")),
        ([one], false) if !one.is_array() => one.clone(),
        (several, false) => several.into(),
        ([], true) => keywords.clone(),
        (several, true) => json!({ "args": several, "kwargs": keywords }),
    };
    (value.to_string().into_bytes(), None)
}

fn error(uri: &Value, words: &Value) -> Ended {
    let uri = uri.as_str().unwrap_or("wamp.error");
    let sentence = words.as_str().unwrap_or("the server gave no reason");
    refused(format!("{sentence} ({uri})"), uri == "wamp.error.network_failure")
}
