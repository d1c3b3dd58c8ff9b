//! MQTT's topic names and filters as topics and patterns, and back.
//!
//! The rule is that of RabbitMQ's MQTT plugin, made whole. The plugin replaces `/` by `.` and `+` by `*` on the way in, `.` by
//! `/` and `*` by `+` on the way out, wherever they stand, and nothing else (`rabbit_mqtt_util`: tried with 3.10, read in the
//! sources of 2026). So does this: `a/b/c` is `a.b.c`, `a/+/#` is `a.*.#`. But there a level `v1.2` becomes two words and comes
//! back as the levels `v1` and `2`, a `*` comes back as `+`, which no topic name may hold, and a `/` in a routing key as the end
//! of a level. Here the characters **change places**: `.` and `/`, `*` and `+`. What holds none of these but as separators and
//! wildcards, which is nearly everything, is as it is on RabbitMQ; the rest is whole: `v1.2/x` is `v1/2.x`, one word for one
//! level, matched by `+/x` as MQTT demands, and comes back as it went. The plugin's special case for Sparkplug (`spBv1.0/…` as
//! `spBv1___0.…`, off by default) is not needed and not done.
//!
//! | MQTT | AMQP | |
//! |---|---|---|
//! | `a//b`, `/a`, `a/`, `/` | `a..b`, `.a`, `a.`, `.` | an empty level is an empty word, and `+` and `*` match it |
//! | `#`, `a/#` | `#`, `a.#` | zero or more levels: `a/#` matches `a` (MQTT 5.0 §4.7.1.2), and `a.#` does |
//! | | a topic with `*` or `#` in it, the empty topic | has no topic name: such a message cannot be sent to MQTT |
//! | | a pattern with `#` before its end | has no topic filter |
//! | `$SYS/…`, `$…` | as it is | no filter that begins with a wildcard matches it [MQTT-4.7.2-1]; clients may not publish to it |
//! | `$share/group/filter` | the filter's pattern | MQTT 5.0 §4.8.2 |
//!
//! Both sides have the same length in bytes, and what is beyond 255 (AMQP 0-9-1 §4.2.5.3) is refused.

use thiserror::Error;

use crate::model::topic::{Pattern, Topic, TopicError, is_wildcard};
use crate::protocol::mqtt::reason::ReasonCode;
use crate::protocol::mqtt::wire::Text;

/// How a filter of a shared subscription begins (MQTT 5.0 §4.8.2).
pub const SHARE_PREFIX: &str = "$share/";

/// How topics begin that are for the server alone (MQTT 5.0 §4.7.2).
const RESERVED_PREFIX: char = '$';

/// Why a topic name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// [MQTT-4.7.3-1]
    #[error("a topic name has at least one character")]
    Empty,
    /// [MQTT-3.3.2-2]
    #[error("a topic name may not hold the wildcards + and #")]
    Wildcard,
    /// MQTT 5.0 §4.7.2: a server should keep clients from using these among each other.
    #[error("topics that begin with $ are not for clients to publish to")]
    Reserved,
    /// Not a routing key.
    #[error("a topic name {0}")]
    Topic(#[from] TopicError),
}

/// Why a topic filter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FilterError {
    /// [MQTT-4.7.3-1]
    #[error("a topic filter has at least one character")]
    Empty,
    /// [MQTT-4.7.1-1, MQTT-4.7.1-2]
    #[error("the wildcards + and # stand for whole levels, and # for the last")]
    Wildcard,
    /// [MQTT-4.8.2-1, MQTT-4.8.2-2]
    #[error("a shared subscription is $share/name/filter, its name without / + #")]
    Share,
    /// Not a binding key.
    #[error("a topic filter {0}")]
    Pattern(#[from] TopicError),
}

impl NameError {
    /// What MQTT 5.0 answers it with.
    pub const REASON: ReasonCode = ReasonCode::TopicNameInvalid;
}

impl FilterError {
    /// What MQTT 5.0 answers it with.
    pub const REASON: ReasonCode = ReasonCode::TopicFilterInvalid;
}

/// Whether a text can be a topic name at all (MQTT 5.0 §4.7.3).
pub fn is_topic_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['+', '#'])
}

/// The topic that a client publishes to.
///
/// # Errors
/// When it is no topic name, or not one for clients, or no topic.
pub fn topic_of(name: &str) -> Result<Topic, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if !is_topic_name(name) {
        return Err(NameError::Wildcard);
    }
    if name.starts_with(RESERVED_PREFIX) {
        return Err(NameError::Reserved);
    }
    told_by(name)
}

/// The topic of a message that a server sends under a name.
///
/// # Errors
/// When it is no topic.
pub fn told_by(name: &str) -> Result<Topic, NameError> {
    Ok(Topic::parse(&swapped(name))?)
}

/// The topic name of a topic; `None` when MQTT cannot say it.
pub fn name_of(topic: &Topic) -> Option<Text> {
    let topic = topic.as_str();
    if topic.is_empty() || topic.contains(['*', '#']) { None } else { Text::new(swapped(topic)) }
}

/// What a client subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFilter {
    /// The topics that it names.
    pub pattern: Pattern,
    /// The name of the group that shares it.
    pub share: Option<Box<str>>,
}

impl TopicFilter {
    /// Reads a filter.
    ///
    /// # Errors
    /// When it is none, or no pattern.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let Some(shared) = text.strip_prefix(SHARE_PREFIX) else {
            return Ok(Self { pattern: pattern_of(text)?, share: None });
        };
        let (name, filter) = shared.split_once('/').ok_or(FilterError::Share)?;
        if name.is_empty() || name.contains(['+', '#']) || filter.is_empty() {
            return Err(FilterError::Share);
        }
        Ok(Self { pattern: pattern_of(filter)?, share: Some(name.into()) })
    }

    /// Whether a topic that the pattern matches is kept from it nevertheless: one that begins with `$`, from a filter that
    /// begins with a wildcard [MQTT-4.7.2-1].
    pub fn hides(&self, topic: &Topic) -> bool {
        topic.as_str().starts_with(RESERVED_PREFIX) && self.pattern.words().next().is_some_and(is_wildcard)
    }
}

fn pattern_of(filter: &str) -> Result<Pattern, FilterError> {
    if filter.is_empty() {
        return Err(FilterError::Empty);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_last = levels.peek().is_none();
        let is_whole = level == "+" || (level == "#" && is_last);
        if level.contains(['+', '#']) && !is_whole {
            return Err(FilterError::Wildcard);
        }
    }
    // A `+` for a whole level becomes the wildcard `*`, and a `*` in a level a `+`, which is none.
    Ok(Pattern::parse(&swapped(filter))?)
}

/// The topic filter of a pattern; `None` when MQTT cannot say it.
pub fn filter_of(pattern: &Pattern) -> Option<Text> {
    let mut words = pattern.words().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        let is_last = words.peek().is_none();
        let is_whole = word == "*" || (word == "#" && is_last);
        if word.contains(['*', '#']) && !is_whole {
            return None;
        }
    }
    Text::new(swapped(pattern.as_str()))
}

/// The other side's characters. It is its own inverse.
fn swapped(text: &str) -> String {
    let swap = |character| match character {
        '/' => '.',
        '.' => '/',
        '+' => '*',
        '*' => '+',
        other => other,
    };
    text.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::parse(text).unwrap()
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).unwrap()
    }

    /// MQTT 5.0 §4.7, said in levels: what mapped filters and names must agree with.
    fn by_definition(filter: &str, name: &str) -> bool {
        fn levels(filter: &[&str], name: &[&str]) -> bool {
            match (filter, name) {
                (["#"], _) => true,
                ([], rest) => rest.is_empty(),
                ([level, after @ ..], [first, rest @ ..]) => (*level == "+" || level == first) && levels(after, rest),
                (_, []) => false,
            }
        }
        let is_hidden = name.starts_with('$') && filter.starts_with(['+', '#']);
        let filter: Vec<&str> = filter.split('/').collect();
        let name: Vec<&str> = name.split('/').collect();
        !is_hidden && levels(&filter, &name)
    }

    fn matches(filter: &TopicFilter, topic: &Topic) -> bool {
        filter.pattern.matches(topic) && !filter.hides(topic)
    }

    #[test]
    fn names_become_topics_and_come_back() {
        let table = [
            ("a", "a"),
            ("a/b/c", "a.b.c"),
            ("/a", ".a"),
            ("a/", "a."),
            ("a//b", "a..b"),
            ("/", "."),
            ("a b/é", "a b.é"),
            // Unlike RabbitMQ's plugin, which makes `v1.2.x`, `spBv1.0.g`, `a.*` and `host.10.0.0.1.cpu` of them.
            ("v1.2/x", "v1/2.x"),
            ("spBv1.0/g", "spBv1/0.g"),
            ("a/*", "a.+"),
            ("host/10.0.0.1/cpu", "host.10/0/0/1.cpu"),
        ];
        for (name, expected) in table {
            let topic = topic_of(name).unwrap();
            assert_eq!(topic.as_str(), expected);
            assert_eq!(name_of(&topic).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let table = [
            ("", NameError::Empty),
            ("a/+", NameError::Wildcard),
            ("a/b#", NameError::Wildcard),
            ("$SYS/broker", NameError::Reserved),
            ("$share/g/a", NameError::Reserved),
            ("$", NameError::Reserved),
            ("a\0", NameError::Topic(TopicError::Nul)),
        ];
        for (name, error) in table {
            assert_eq!(topic_of(name), Err(error), "{name:?}");
        }
        assert!(topic_of(&"a".repeat(255)).is_ok());
        assert_eq!(topic_of(&"/".repeat(256)), Err(NameError::Topic(TopicError::TooLong { bytes: 256 })));
        assert!(topic_of("a/$b").is_ok(), "only a leading $ is reserved");
    }

    #[test]
    fn topics_that_mqtt_cannot_say_have_no_name() {
        for unsayable in ["", "a.*", "a*", "#", "a.b#"] {
            assert_eq!(name_of(&topic(unsayable)), None, "{unsayable:?}");
        }
        for (sayable, name) in [("a/b.c", "a.b/c"), ("c++", "c**"), ("$SYS.x", "$SYS/x")] {
            assert_eq!(name_of(&topic(sayable)).unwrap().as_str(), name);
        }
    }

    #[test]
    fn filters_become_patterns_and_come_back() {
        let table = [
            ("a/b", "a.b"),
            ("#", "#"),
            ("+", "*"),
            ("a/#", "a.#"),
            ("/#", ".#"),
            ("a/+/b/#", "a.*.b.#"),
            ("+/+", "*.*"),
            ("/+", ".*"),
            ("+/", "*."),
            ("//", ".."),
            ("$SYS/#", "$SYS.#"),
            ("v1.2/+", "v1/2.*"),
            ("*/a*b", "+.a+b"),
        ];
        for (text, expected) in table {
            let filter = filter(text);
            assert_eq!((filter.pattern.as_str(), filter.share.as_deref()), (expected, None), "{text}");
            assert_eq!(filter_of(&filter.pattern).unwrap().as_str(), text);
        }
    }

    #[test]
    fn filters_that_are_none_are_refused() {
        for text in ["a+", "+a", "a/b+/c", "a#", "#/a", "a/#/b", "##", "++", "a/#/", "$share/g/#/a"] {
            assert_eq!(TopicFilter::parse(text), Err(FilterError::Wildcard), "{text:?}");
        }
        for text in ["$share/", "$share/g", "$share/g/", "$share//a", "$share/g+/a", "$share/#/a"] {
            assert_eq!(TopicFilter::parse(text), Err(FilterError::Share), "{text:?}");
        }
        assert_eq!(TopicFilter::parse(""), Err(FilterError::Empty));
        assert_eq!(
            TopicFilter::parse(&"a/".repeat(128)),
            Err(FilterError::Pattern(TopicError::TooLong { bytes: 256 }))
        );
        for text in ["#.a", "a.#.b", "a*", "a.b#", ""] {
            assert_eq!(filter_of(&Pattern::parse(text).unwrap()), None, "{text:?}");
        }
    }

    #[test]
    fn shared_filters_name_their_group() {
        for (text, share, pattern) in [
            ("$share/g/a/+", "g", "a.*"),
            ("$share/g.h/#", "g.h", "#"),
            ("$share/g//a", "g", ".a"),
            ("$share/g//", "g", "."),
        ] {
            let filter = filter(text);
            assert_eq!((filter.share.as_deref(), filter.pattern.as_str()), (Some(share), pattern), "{text}");
        }
        assert_eq!(filter("$SHARE/g/a").share, None, "names are of one case");
        assert!(
            filter("$share/g/#").hides(&topic("$SYS.x")),
            "§4.8.2: the rules for filters hold for what follows the name"
        );
        let long = format!("$share/group/{}", "a".repeat(255));
        assert_eq!(filter(&long).pattern.as_str().len(), 255, "the name of a group does not count");
    }

    #[test]
    fn what_the_standard_gives_as_examples_holds() {
        // MQTT 5.0 §4.7.1.2, §4.7.1.3 and §4.7.2.
        let table = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor/Clients", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor/Clients", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ];
        for (text, name, expected) in table {
            assert_eq!(by_definition(text, name), expected, "the definition: {text} and {name}");
            assert_eq!(matches(&filter(text), &topic(&swapped(name))), expected, "{text} and {name}");
        }
    }

    proptest! {
        #[test]
        fn mapped_filters_match_what_mqtt_says(
            text in "[ab./+*#$]{1,9}|(\\+|#|[ab.*$]{0,2})(/(\\+|[ab.*$]{0,2})){0,3}(/#)?",
            name in "[ab./*$]{1,7}",
        ) {
            if let Ok(filter) = TopicFilter::parse(&text) {
                prop_assert_eq!(matches(&filter, &topic(&swapped(&name))), by_definition(&text, &name));
            }
        }

        #[test]
        fn nothing_is_lost(name in "[ab./*é$ ]{1,20}", filter in "(\\+|[ab.*é$]{0,3})(/(\\+|[ab.*]{0,3})){0,4}(/#)?") {
            if let Ok(topic) = topic_of(&name) {
                prop_assert_eq!(name_of(&topic), Text::new(name.as_str()));
                prop_assert_eq!(topic.words().count(), name.split('/').count());
            }
            if let Ok(parsed) = TopicFilter::parse(&filter) {
                prop_assert_eq!(filter_of(&parsed.pattern), Text::new(filter));
            }
        }
    }
}
