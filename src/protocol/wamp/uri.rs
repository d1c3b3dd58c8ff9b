//! URIs of topics and procedures, by the loose rules (WAMP, section "URIs"), and what a subscription to one is in AMQP's
//! words: a pattern, and for prefixes, which end anywhere within a word, a test besides (section "Pattern-based
//! Subscription").

use std::sync::Arc;

use thiserror::Error;

use crate::model::topic::{Pattern, Topic, TopicError, is_wildcard};

/// How a URI is compared with topics (`SUBSCRIBE.Options.match`, `REGISTER.Options.match`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// With the whole of it.
    #[default]
    Exact,
    /// With its beginning, byte by byte: `a.b` matches `a.bc.d`.
    Prefix,
    /// Word by word, where an empty one is any: `a..c` matches `a.b.c`.
    Wildcard,
}

/// Which topics a subscription wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Matching {
    /// A pattern that matches all of them, and without `prefix` no others.
    pub pattern: Pattern,
    /// How those begin which are wanted of what the pattern matches.
    pub prefix: Option<Arc<str>>,
}

/// Why a text is not a URI here. The sentence goes on after what was called one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UriError {
    /// It has no components.
    #[error("is empty")]
    Empty,
    /// A component has no characters.
    #[error("has an empty component: those are for subscriptions with \"match\": \"wildcard\"")]
    EmptyComponent,
    /// A prefix with an empty component before its end.
    #[error("has an empty component before its last: a prefix is compared letter by letter")]
    EmptyBeforeLast,
    /// A character that no component may hold.
    #[error("holds {character:?}, which a URI must not hold")]
    Character {
        /// The character.
        character: char,
    },
    /// A component that means something in AMQP.
    #[error("has the component \"*\", which is AMQP's: leave it empty and ask for \"match\": \"wildcard\"")]
    Star,
    /// WAMP's own.
    #[error("begins with \"wamp\", which is WAMP's own")]
    Reserved,
    /// Nothing that AMQP can carry.
    #[error(transparent)]
    Topic(#[from] TopicError),
}

impl Policy {
    /// The policy of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "exact" => Some(Self::Exact),
            "prefix" => Some(Self::Prefix),
            "wildcard" => Some(Self::Wildcard),
            _ => None,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Wildcard => "wildcard",
        }
    }
}

/// Whether a text is a URI without empty components.
///
/// # Errors
/// What is wrong with it.
pub fn check(uri: &str) -> Result<(), UriError> {
    if uri.is_empty() {
        return Err(UriError::Empty);
    }
    check_characters(uri)?;
    if uri.split('.').any(str::is_empty) { Err(UriError::EmptyComponent) } else { Ok(()) }
}

fn check_characters(uri: &str) -> Result<(), UriError> {
    let forbidden = uri.chars().find(|character| *character == '#' || character.is_whitespace());
    forbidden.map_or(Ok(()), |character| Err(UriError::Character { character }))
}

/// The topic of a `PUBLISH` or a `CALL`.
///
/// # Errors
/// When it is not a URI without empty components, or too long for AMQP.
pub fn topic(uri: &str) -> Result<Topic, UriError> {
    check(uri)?;
    Ok(Topic::parse(uri)?)
}

/// Whether a URI is WAMP's own, which applications must not publish to or register (section "URIs", "Reserved URIs").
///
/// # Errors
/// When it is.
pub fn check_unreserved(uri: &str) -> Result<(), UriError> {
    if uri.split('.').next() == Some("wamp") { Err(UriError::Reserved) } else { Ok(()) }
}

impl Matching {
    /// What a subscription to this URI wants.
    ///
    /// # Errors
    /// When the policy does not allow such a URI, or AMQP no such pattern.
    pub fn new(uri: &str, policy: Policy) -> Result<Self, UriError> {
        match policy {
            Policy::Exact => {
                let pattern = Pattern::literal(&topic(uri)?).ok_or(UriError::Star)?;
                Ok(Self { pattern, prefix: None })
            }
            Policy::Prefix => Self::with_prefix(uri),
            Policy::Wildcard => Self::with_wildcards(uri),
        }
    }

    /// Whether a topic that the pattern matches is wanted.
    pub fn admits(&self, topic: &str) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| topic.starts_with(&**prefix))
    }

    /// The last component may go on: AMQP can only say that there is a word in its place, and perhaps more.
    fn with_prefix(uri: &str) -> Result<Self, UriError> {
        check_characters(uri)?;
        if uri.split('.').any(is_wildcard) {
            return Err(UriError::Star);
        }
        let (whole, begun) = uri.rsplit_once('.').map_or((None, uri), |(whole, begun)| (Some(whole), begun));
        if whole.is_some_and(|whole| whole.split('.').any(str::is_empty)) {
            return Err(UriError::EmptyBeforeLast);
        }
        let pattern = match whole {
            Some(whole) => Pattern::parse(&format!("{whole}.*.#"))?,
            None if begun.is_empty() => Pattern::all(),
            None => Pattern::parse("*.#")?,
        };
        // Too long a prefix matches nothing; it is refused in place of being waited for.
        Topic::parse(uri)?;
        let prefix = (!begun.is_empty()).then(|| uri.into());
        Ok(Self { pattern, prefix })
    }

    fn with_wildcards(uri: &str) -> Result<Self, UriError> {
        check_characters(uri)?;
        if uri.split('.').any(is_wildcard) {
            return Err(UriError::Star);
        }
        let words: Vec<&str> = uri.split('.').map(|word| if word.is_empty() { "*" } else { word }).collect();
        Ok(Self { pattern: Pattern::parse(&words.join("."))?, prefix: None })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wants(uri: &str, policy: Policy, topic: &str) -> bool {
        let matching = Matching::new(uri, policy).unwrap();
        matching.pattern.matches(&Topic::parse(topic).unwrap()) && matching.admits(topic)
    }

    #[test]
    fn the_specifications_examples_hold() {
        let emergency = "com.myapp.topic.emergency";
        for (topic, wanted) in [
            ("com.myapp.topic.emergency.11", true),
            ("com.myapp.topic.emergency-low", true),
            ("com.myapp.topic.emergency.category.severe", true),
            ("com.myapp.topic.emergency", true),
            ("com.myapp.topic.emerge", false),
        ] {
            assert_eq!(wants(emergency, Policy::Prefix, topic), wanted, "{topic}");
            assert_eq!(wants(emergency, Policy::Exact, topic), topic == emergency, "{topic}");
        }
        for (topic, wanted) in [
            ("com.myapp.foo.userevent", true),
            ("com.myapp.a12.userevent", true),
            ("com.myapp.foo.userevent.bar", false),
            ("com.myapp.foo.user", false),
            ("com.myapp2.foo.userevent", false),
        ] {
            assert_eq!(wants("com.myapp..userevent", Policy::Wildcard, topic), wanted, "{topic}");
        }
    }

    #[test]
    fn patterns_cover_no_more_than_amqp_makes_them() {
        for (uri, policy, pattern, prefix) in [
            ("a.b", Policy::Exact, "a.b", None),
            ("a.b", Policy::Prefix, "a.*.#", Some("a.b")),
            ("a.b.", Policy::Prefix, "a.b.*.#", None),
            ("a", Policy::Prefix, "*.#", Some("a")),
            ("", Policy::Prefix, "#", None),
            ("a..c", Policy::Wildcard, "a.*.c", None),
            ("..", Policy::Wildcard, "*.*.*", None),
            ("", Policy::Wildcard, "*", None),
            ("a.b", Policy::Wildcard, "a.b", None),
        ] {
            let matching = Matching::new(uri, policy).unwrap();
            assert_eq!((matching.pattern.as_str(), matching.prefix.as_deref()), (pattern, prefix), "{uri} {policy:?}");
        }
    }

    #[test]
    fn what_is_no_uri_is_refused_in_words() {
        let long = "a".repeat(256);
        let empty = "has an empty component: those are for subscriptions with \"match\": \"wildcard\"";
        let before = "has an empty component before its last: a prefix is compared letter by letter";
        let star = "has the component \"*\", which is AMQP's: leave it empty and ask for \"match\": \"wildcard\"";
        let too_long = "is 256 bytes long, the limit of an AMQP routing key is 255";
        for (uri, policy, sentence) in [
            ("", Policy::Exact, "is empty"),
            ("a..b", Policy::Exact, empty),
            ("a.", Policy::Exact, empty),
            ("a.#", Policy::Exact, "holds '#', which a URI must not hold"),
            ("a b", Policy::Exact, "holds ' ', which a URI must not hold"),
            ("a.*", Policy::Exact, star),
            (&long, Policy::Exact, too_long),
            ("a..b", Policy::Prefix, before),
            ("*.b", Policy::Prefix, star),
            ("a\u{a0}", Policy::Prefix, "holds '\\u{a0}', which a URI must not hold"),
            (&long, Policy::Prefix, too_long),
            ("a.*.c", Policy::Wildcard, star),
            ("#", Policy::Wildcard, "holds '#', which a URI must not hold"),
            (&long, Policy::Wildcard, too_long),
            ("a\0", Policy::Wildcard, "holds a NUL character"),
        ] {
            assert_eq!(Matching::new(uri, policy).unwrap_err().to_string(), sentence, "{uri:?} {policy:?}");
        }
        assert_eq!(check_unreserved("wamp.x"), Err(UriError::Reserved));
        assert_eq!(check_unreserved("wampum.x"), Ok(()));
        assert_eq!(topic("a.*").unwrap().as_str(), "a.*");
    }

    proptest! {
        #[test]
        fn each_policy_agrees_with_its_definition(uri in "[ab.]{0,6}", topic in "[ab.]{0,8}") {
            if Matching::new(&uri, Policy::Exact).is_ok() {
                prop_assert_eq!(wants(&uri, Policy::Exact, &topic), uri == topic);
            }
            if Matching::new(&uri, Policy::Prefix).is_ok() {
                prop_assert_eq!(wants(&uri, Policy::Prefix, &topic), topic.starts_with(&uri));
            }
            let (components, words): (Vec<&str>, Vec<&str>) = (uri.split('.').collect(), topic.split('.').collect());
            let fits = |(component, word): (&&str, &&str)| component.is_empty() || component == word;
            // The empty topic has no words in AMQP.
            let expected = !topic.is_empty() && components.len() == words.len() && components.iter().zip(&words).all(fits);
            prop_assert_eq!(wants(&uri, Policy::Wildcard, &topic), expected);
        }
    }
}
