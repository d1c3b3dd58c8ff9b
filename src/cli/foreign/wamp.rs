//! WAMP v2 in JSON: a subscriber and nothing else.
//!
//! Its patterns are other ones: a prefix is compared byte by byte, a wildcard is one component. So `a.#` is two subscriptions,
//! to the topic `a` and to everything that begins with `a.`, and what has `#` elsewhere cannot be said.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Client, Heard, Received, Subscriptions, Terms, gap, not_understood, refused};
use crate::cli::client::{AGENT, Ended};
use crate::model::topic::Pattern;

// Section "Message Codes".
const HELLO: u64 = 1;
const WELCOME: u64 = 2;
const ERROR: u64 = 8;
const SUBSCRIBE: u64 = 32;
const SUBSCRIBED: u64 = 33;
const EVENT: u64 = 36;

/// What no URI says.
const UNSAID: &str = "it has an empty word, or # and another wildcard";

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
        terms.refuse("WAMP", &[])?;
        let mut wanted: Vec<Wanted> = Vec::new();
        for pattern in &terms.patterns {
            let wrong = || format!("WAMP has no word for {:?}: {UNSAID}: use --protocol json", pattern.as_str());
            for one in wanted_of(pattern).ok_or_else(wrong)? {
                // Two that are equal are one subscription.
                if !wanted.contains(&one) {
                    wanted.push(one);
                }
            }
        }
        let patterns = wanted.iter().map(|one| one.pattern.clone()).collect();
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

    fn event(&mut self, parts: &[&RawValue]) -> Result<Vec<Heard>, Ended> {
        let [_, subscription, _, details, rest @ ..] = parts else {
            return Err(not_understood("WAMP", "a short EVENT"));
        };
        let details = value(Some(details));
        let number = value(Some(subscription)).as_u64().and_then(|id| self.ids.get(&id)).copied();
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
        let replay = details["retained"] == true;
        if self.subscriptions.received(number, topic, (&at, replay)) {
            let (payload, content_type) = payload(rest);
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

    fn open(&mut self) -> Result<Message, Ended> {
        self.ids.clear();
        self.subscriptions.reconnect();
        let details = json!({ "agent": AGENT, "roles": { "subscriber": {} } });
        Ok(Message::text(json!([HELLO, REALM, details]).to_string()))
    }

    fn has_no_place(&self) -> bool {
        self.subscriptions.has_no_place()
    }

    fn hear(&mut self, message: Message) -> Result<Vec<Heard>, Ended> {
        let wrong = |error: &dyn std::fmt::Display| not_understood("WAMP", &error.to_string());
        let text = message.into_text().map_err(|error| wrong(&error))?;
        // What others published stays as it was written.
        let parts: Vec<&RawValue> = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        let part = |place: usize| value(parts.get(place));
        match part(0).as_u64() {
            Some(WELCOME) => Ok(self.subscribe().collect()),
            Some(SUBSCRIBED) => {
                let number = part(1).as_u64().and_then(|request| usize::try_from(request).ok()?.checked_sub(1));
                let wrong = || not_understood("WAMP", "a SUBSCRIBED that nobody asked for");
                let (number, id) = number.zip(part(2).as_u64()).ok_or_else(wrong)?;
                self.ids.insert(id, number);
                self.subscriptions.stands(number);
                Ok(vec![Heard::Stands])
            }
            Some(EVENT) => self.event(&parts),
            Some(ERROR) => Err(error(&part(4), part(5).get(0).unwrap_or(&part(3)))),
            // The closing frame that follows an ABORT or a GOODBYE says whether to come back.
            Some(_) => Ok(Vec::new()),
            None => Err(not_understood("WAMP", "a message without a code")),
        }
    }
}

/// A part of a message that is the router's own; null where there is none.
fn value(part: Option<&&RawValue>) -> Value {
    part.and_then(|part| serde_json::from_str(part.get()).ok()).unwrap_or_default()
}

/// What a pattern is in URIs; nothing where they cannot say it.
fn wanted_of(pattern: &Pattern) -> Option<Vec<Wanted>> {
    let text = pattern.as_str();
    // In a URI an empty word is any word.
    if text.is_empty() || pattern.words().any(str::is_empty) {
        return None;
    }
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
fn payload(rest: &[&RawValue]) -> (Vec<u8>, Option<&'static str>) {
    let all = rest.first().map_or("[]", |arguments| arguments.get());
    let arguments: Vec<&RawValue> = serde_json::from_str(all).unwrap_or_default();
    let keywords = rest.get(1).map(|keywords| keywords.get()).filter(|keywords| *keywords != "{}");
    let json = match (arguments.as_slice(), keywords) {
        ([], None) => return (Vec::new(), Some("text/plain")),
        ([one], None) if !one.get().starts_with('[') => {
            if let Some(bytes) = bytes(one) {
                return (bytes, Some("application/octet-stream"));
            }
            one.get().to_owned()
        }
        (_, None) => all.to_owned(),
        ([], Some(keywords)) => keywords.to_owned(),
        (_, Some(keywords)) => format!("{{\"args\":{all},\"kwargs\":{keywords}}}"),
    };
    (json.into_bytes(), None)
}

/// The bytes that a string stands for, if it does.
fn bytes(argument: &RawValue) -> Option<Vec<u8>> {
    let text: String = serde_json::from_str(argument.get()).ok()?;
    STANDARD.decode(text.strip_prefix(BINARY)?).ok()
}

fn error(uri: &Value, words: &Value) -> Ended {
    let uri = uri.as_str().unwrap_or("wamp.error");
    let sentence = words.as_str().unwrap_or("the server gave no reason");
    refused(format!("{sentence} ({uri})"), uri == "wamp.error.network_failure")
}
