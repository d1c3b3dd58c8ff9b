//! Topics and patterns: dot-separated words with the wildcards of RabbitMQ's topic exchange.
//!
//! Both types are parsed, not validated: whoever holds one holds a legal one. A [`Pattern`] is canonical,
//! so two patterns that differ only in how a run of wildcards was written are equal, and no matcher ever
//! meets `#.#`. The naive [`Pattern::matches`] is the reference that the index is tested against.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// The most bytes a topic or pattern may have: an AMQP short string (AMQP 0-9-1, section 4.2.5.3).
pub const TOPIC_BYTES_MAX: usize = 255;

/// A concrete name such as `orders.eu.created`; at most [`TOPIC_BYTES_MAX`] bytes. Cloning shares the text.
///
/// The empty topic has no words; `a.` has two, the second of them empty, as RabbitMQ counts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// A topic that may hold wildcards: `*` is exactly one word, `#` is any number of words, none included.
///
/// Canonical: in every run of wildcards the `*` come first and at most one `#` follows.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

/// Why a text is not a topic or a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TopicError {
    /// Longer than an AMQP routing key may be.
    #[error("is {bytes} bytes long, the limit of an AMQP routing key is {TOPIC_BYTES_MAX}")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
    /// A NUL character, which no client can have meant.
    #[error("holds a NUL character")]
    Nul,
}

/// The words of a topic or pattern, in order; none for the empty text.
pub fn words(text: &str) -> impl DoubleEndedIterator<Item = &str> + Clone {
    (!text.is_empty()).then(|| text.split('.')).into_iter().flatten()
}

fn check(text: &str) -> Result<(), TopicError> {
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { bytes: text.len() });
    }
    if text.contains('\0') {
        return Err(TopicError::Nul);
    }
    Ok(())
}

impl Topic {
    /// Parses a topic. Wildcard characters have no meaning in a topic and are allowed, as in a routing key.
    ///
    /// # Errors
    /// When the text is longer than [`TOPIC_BYTES_MAX`] or holds a NUL.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The one without words.
    pub fn empty() -> Self {
        Self("".into())
    }

    /// The text as it was published.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The words, in order.
    pub fn words(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        words(&self.0)
    }
}

impl Pattern {
    /// Parses a pattern and brings it into its canonical form.
    ///
    /// # Errors
    /// When the text is longer than [`TOPIC_BYTES_MAX`] or holds a NUL.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check(text)?;
        Ok(Self(canonical(text).into()))
    }

    /// `#`: the pattern that matches every topic.
    pub fn all() -> Self {
        Self("#".into())
    }

    /// The pattern that matches this topic and nothing else, if there is one: a topic with a word `*` or `#` has none.
    pub fn literal(topic: &Topic) -> Option<Self> {
        let pattern = Self(topic.0.clone());
        pattern.is_literal().then_some(pattern)
    }

    /// The canonical text, which is also the AMQP binding key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The words, in order, wildcards included.
    pub fn words(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        words(&self.0)
    }

    /// Whether the pattern has no wildcard and so matches one topic only.
    pub fn is_literal(&self) -> bool {
        !self.words().any(is_wildcard)
    }

    /// Whether the topic matches, decided word by word. The reference for every faster matcher.
    pub fn matches(&self, topic: &Topic) -> bool {
        let pattern: Vec<&str> = self.words().collect();
        let topic: Vec<&str> = topic.words().collect();
        // `reachable[i]`: the pattern's words so far can consume exactly `i` words of the topic.
        let mut reachable = vec![false; topic.len() + 1];
        reachable[0] = true;
        for word in pattern {
            step(&mut reachable, word, |position| topic.get(position).is_some_and(|name| word == "*" || word == *name));
        }
        reachable.last().copied().unwrap_or(false)
    }

    /// Whether it wants messages without a routing key, which are called this, though as a binding key it does not bring them:
    /// then the empty key is to be bound too.
    pub fn needs_empty_key(&self, topic_of_empty_key: &Topic) -> bool {
        self.matches(topic_of_empty_key) && !self.matches(&Topic::empty())
    }

    /// Whether every topic that matches `other` matches this pattern too.
    ///
    /// Decided by walking both patterns at once (a subset construction). Patterns made to explode that walk are given up
    /// after [`INCLUSION_STEPS_MAX`] steps and answered with no, which costs at most a needless binding.
    pub fn includes(&self, other: &Self) -> bool {
        if self == other || &*self.0 == "#" {
            return true;
        }
        if self.is_literal() {
            return false;
        }
        let outer: Vec<&str> = self.words().collect();
        let inner: Vec<&str> = other.words().collect();
        let mut seen = HashSet::new();
        let mut open = vec![(0, epsilon(vec![0], &outer))];
        while let Some((position, states)) = open.pop() {
            if !seen.insert((position, states.clone())) {
                continue;
            }
            if seen.len() > INCLUSION_STEPS_MAX || states.is_empty() {
                return false;
            }
            let Some(word) = inner.get(position) else {
                if states.last() != Some(&outer.len()) {
                    return false;
                }
                continue;
            };
            // A wildcard of the inner pattern stands for a word that the outer one does not name: the hardest to match.
            let name = (!is_wildcard(word)).then_some(*word);
            let consumed = epsilon(consume(&states, &outer, name), &outer);
            if *word == "#" {
                open.push((position + 1, states));
                open.push((position, consumed));
            } else {
                open.push((position + 1, consumed));
            }
        }
        true
    }
}

/// How many pairs of states [`Pattern::includes`] looks at before it answers no.
pub const INCLUSION_STEPS_MAX: usize = 4096;

/// The positions in `outer` after one more word, sorted; `None` is a word that `outer` does not name.
fn consume(states: &[usize], outer: &[&str], name: Option<&str>) -> Vec<usize> {
    let mut next: Vec<usize> = states
        .iter()
        .filter_map(|state| match outer.get(*state) {
            Some(&"#") => Some(*state),
            Some(word) if *word == "*" || Some(*word) == name => Some(state + 1),
            _ => None,
        })
        .collect();
    next.dedup();
    next
}

/// Adds the positions that are reached by letting a `#` stand for no word.
fn epsilon(states: Vec<usize>, outer: &[&str]) -> Vec<usize> {
    let mut closed = Vec::with_capacity(states.len() + 1);
    for state in states {
        let mut state = state;
        while closed.last().is_none_or(|last| *last < state) {
            closed.push(state);
            if outer.get(state) != Some(&"#") {
                break;
            }
            state += 1;
        }
    }
    closed
}

/// Advances the set of reachable positions over one word of a pattern.
fn step(reachable: &mut [bool], word: &str, consumes: impl Fn(usize) -> bool) {
    if word == "#" {
        let first = reachable.iter().position(|here| *here).unwrap_or(reachable.len());
        reachable.iter_mut().skip(first).for_each(|here| *here = true);
        return;
    }
    let mut carried = false;
    for (position, here) in reachable.iter_mut().enumerate() {
        let next = *here && consumes(position);
        *here = std::mem::replace(&mut carried, next);
    }
}

/// Whether a word of a pattern is a wildcard.
pub fn is_wildcard(word: &str) -> bool {
    word == "*" || word == "#"
}

/// Moves `*` before `#` in every run of wildcards and leaves at most one `#` a run.
fn canonical(text: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut hash_pending = false;
    for word in words(text) {
        match word {
            "#" => hash_pending = true,
            "*" => out.push(word),
            name => {
                if std::mem::take(&mut hash_pending) {
                    out.push("#");
                }
                out.push(name);
            }
        }
    }
    if hash_pending {
        out.push("#");
    }
    out.join(".")
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Pattern {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.as_str())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn topic(text: &str) -> Topic {
        Topic::parse(text).unwrap()
    }

    /// The definition, written as a recursion over words: what `matches` must agree with.
    fn by_definition(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            ([], rest) => rest.is_empty(),
            (["#", after @ ..], _) => (0..=topic.len()).any(|skipped| by_definition(after, &topic[skipped..])),
            ([word, after @ ..], [name, rest @ ..]) => (*word == "*" || word == name) && by_definition(after, rest),
            (_, []) => false,
        }
    }

    /// Every text of at most four words over a small alphabet, empty words included.
    fn texts(alphabet: &[&str]) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut longest: Vec<Vec<&str>> = vec![Vec::new()];
        for _ in 0..4 {
            longest = longest
                .iter()
                .flat_map(|prefix| alphabet.iter().map(|word| [prefix.as_slice(), &[*word]].concat()))
                .collect();
            all.extend(longest.iter().map(|words| words.join(".")));
        }
        all
    }

    #[test]
    fn words_are_counted_as_rabbitmq_counts_them() {
        assert_eq!(topic("").words().count(), 0);
        assert_eq!(topic("a.").words().collect::<Vec<_>>(), ["a", ""]);
        assert_eq!(topic(".").words().collect::<Vec<_>>(), ["", ""]);
        assert!(pattern("#").matches(&topic("")));
        assert!(!pattern("*").matches(&topic("")));
        assert!(pattern("a.*").matches(&topic("a.")));
    }

    #[test]
    fn canonical_form_has_one_hash_a_run_and_stars_first() {
        assert_eq!(pattern("#.#").as_str(), "#");
        assert_eq!(pattern("a.#.*.#.b").as_str(), "a.*.#.b");
        assert_eq!(pattern("#.*"), pattern("*.#"));
        assert_eq!(pattern("a.#.b.#").as_str(), "a.#.b.#");
    }

    #[test]
    fn matching_and_canonical_form_agree_with_the_definition() {
        let topics = texts(&["a", "b", ""]);
        for text in texts(&["a", "*", "#"]) {
            let words_of_pattern: Vec<&str> = words(&text).collect();
            let canonical = pattern(&text);
            for name in &topics {
                let expected = by_definition(&words_of_pattern, &words(name).collect::<Vec<_>>());
                assert_eq!(canonical.matches(&topic(name)), expected, "{text} against {name}");
            }
        }
    }

    /// The table that the JavaScript client's matcher is tested with too, so that both decide alike.
    #[test]
    fn the_shared_table_of_cases_holds() {
        #[derive(serde::Deserialize)]
        struct Case {
            pattern: String,
            topic: String,
            matches: bool,
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/matching.json");
        let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert!(cases.len() > 100);
        for Case { pattern: text, topic: name, matches } in cases {
            assert_eq!(pattern(&text).matches(&topic(&name)), matches, "{text:?} against {name:?}");
        }
    }

    #[test]
    fn inclusion_agrees_with_enumeration() {
        let topics: Vec<Topic> = texts(&["a", "b", "c"]).iter().map(|text| topic(text)).collect();
        let patterns: Vec<Pattern> =
            texts(&["a", "*", "#"]).iter().filter(|text| words(text).count() <= 3).map(|text| pattern(text)).collect();
        for outer in &patterns {
            for inner in &patterns {
                let enumerated = topics.iter().filter(|topic| inner.matches(topic)).all(|topic| outer.matches(topic));
                assert_eq!(outer.includes(inner), enumerated, "{outer} includes {inner}");
            }
        }
    }

    #[test]
    fn too_long_and_nul_are_refused() {
        assert_eq!(Topic::parse(&"a".repeat(256)).unwrap_err(), TopicError::TooLong { bytes: 256 });
        assert_eq!(Pattern::parse("a\0b").unwrap_err(), TopicError::Nul);
    }
}
