//! Matching without a trie: one pattern made ready for many topics, with no allocation for each, or one topic once.

use crate::model::topic::{Pattern, Topic, is_wildcard};

/// Whether a topic matches, for who asks once: most topics differ before the first wildcard, and are told by that alone.
pub(super) fn matches_once(pattern: &Pattern, topic: &Topic) -> bool {
    let mut names = topic.words();
    for word in pattern.words() {
        if is_wildcard(word) {
            return pattern.matches(topic);
        }
        if names.next() != Some(word) {
            return false;
        }
    }
    names.next().is_none()
}

/// The words of a topic that a pattern matches, and that hardly any pattern matches which does not include it: its
/// wildcards became words that no pattern names.
pub(super) fn example(pattern: &Pattern) -> impl Iterator<Item = &str> {
    pattern.words().flat_map(|word| match word {
        "#" => std::iter::repeat_n(UNNAMED, 2),
        "*" => std::iter::repeat_n(UNNAMED, 1),
        name => std::iter::repeat_n(name, 1),
    })
}

/// A word that no pattern holds, because patterns hold no NUL.
const UNNAMED: &str = "\0";

/// The most words of a pattern that are matched with one bit each; longer ones, which nobody writes, go the naive way.
const BITS: usize = 63;

/// A prepared pattern. Agrees with [`Pattern::matches`].
#[derive(Debug)]
pub(super) struct Matcher<'a> {
    pattern: &'a Pattern,
    /// `None` when the pattern is too long for the masks.
    words: Option<Vec<&'a str>>,
    /// Bit `i`: word `i` is `*`.
    stars: u64,
    /// Bit `i`: word `i` is `#`.
    hashes: u64,
}

impl<'a> Matcher<'a> {
    pub(super) fn new(pattern: &'a Pattern) -> Self {
        let words: Vec<&str> = pattern.words().collect();
        let mask = |wildcard: &str| {
            let places = words.iter().take(BITS).enumerate().filter(|(_, word)| **word == wildcard);
            places.fold(0u64, |mask, (place, _)| mask | 1 << place)
        };
        let (stars, hashes) = (mask("*"), mask("#"));
        Self { pattern, words: (words.len() <= BITS).then_some(words), stars, hashes }
    }

    /// What every matching topic begins with, and every pattern that this one includes.
    pub(super) fn prefix(&self) -> &'a str {
        let text = self.pattern.as_str();
        let mut length = 0;
        for word in self.pattern.words() {
            if is_wildcard(word) {
                // `a.#` matches `a` too, so the dot before a `#` is not part of what all have.
                let dotless = word == "#" && length > 0;
                return text.get(..length - usize::from(dotless)).unwrap_or_default();
            }
            length += word.len() + 1;
        }
        text
    }

    /// What every matching topic ends with, and every pattern that this one includes; a dot before it is left out.
    pub(super) fn suffix(&self) -> &'a str {
        let text = self.pattern.as_str();
        let literals = self.pattern.words().rev().take_while(|word| !is_wildcard(word));
        let length: usize = literals.map(|word| word.len() + 1).sum();
        text.get(text.len() - length.saturating_sub(1).min(text.len())..).unwrap_or_default()
    }

    /// Whether the topic matches.
    pub(super) fn matches(&self, topic: &Topic) -> bool {
        match &self.words {
            Some(words) => self.consumes(words, topic.words()),
            None => self.pattern.matches(topic),
        }
    }

    /// Whether it could include another pattern: if it does, it matches that one's [`example`]. A quick look before
    /// [`Pattern::includes`], which decides.
    pub(super) fn may_include(&self, inner: &Pattern) -> bool {
        self.words.as_ref().is_none_or(|words| self.consumes(words, example(inner)))
    }

    fn consumes<'b>(&self, words: &[&str], names: impl Iterator<Item = &'b str>) -> bool {
        // Bit `i`: the first `i` words of the pattern can consume the topic's words so far.
        let mut reached = self.skip_hashes(1);
        for name in names {
            let mut consumed = reached & self.stars;
            let mut literals = reached & !self.stars & !self.hashes;
            while literals != 0 {
                let place = literals.trailing_zeros();
                literals &= literals - 1;
                if words.get(place as usize).is_some_and(|word| *word == name) {
                    consumed |= 1 << place;
                }
            }
            reached = self.skip_hashes((reached & self.hashes) | consumed << 1);
            if reached == 0 {
                return false;
            }
        }
        reached & 1 << words.len() != 0
    }

    /// A `#` may stand for no word. A canonical pattern has no two of them side by side, so once is enough.
    fn skip_hashes(&self, reached: u64) -> u64 {
        reached | (reached & self.hashes) << 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(words: &'static [&'static str], count_max: usize) -> impl Strategy<Value = String> {
        proptest::collection::vec(proptest::sample::select(words), 0..count_max).prop_map(|words| words.join("."))
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_matcher(
            pattern in text(&["a", "b", "", "*", "#"], 7), topic in text(&["a", "b", "", "*"], 7)
        ) {
            let (pattern, topic) = (Pattern::parse(&pattern).unwrap(), Topic::parse(&topic).unwrap());
            let matcher = Matcher::new(&pattern);
            prop_assert_eq!(matcher.matches(&topic), pattern.matches(&topic));
            prop_assert_eq!(matches_once(&pattern, &topic), pattern.matches(&topic));
            prop_assert!(!pattern.matches(&topic) || topic.as_str().starts_with(matcher.prefix()));
            prop_assert!(!pattern.matches(&topic) || topic.as_str().ends_with(matcher.suffix()));
        }

        #[test]
        fn whatever_is_included_may_be_included(
            outer in text(&["a", "b", "*", "#"], 6), inner in text(&["a", "b", "*", "#"], 6)
        ) {
            let (outer, inner) = (Pattern::parse(&outer).unwrap(), Pattern::parse(&inner).unwrap());
            prop_assert!(!outer.includes(&inner) || Matcher::new(&outer).may_include(&inner));
        }

        #[test]
        fn agrees_on_patterns_around_the_limit(count in 58..70usize, topic in text(&["a", "a", "b"], 70)) {
            let pattern = Pattern::parse(&["a", "*", "#", "b"].repeat(20)[..count].join(".")).unwrap();
            let topic = Topic::parse(&topic).unwrap();
            prop_assert_eq!(Matcher::new(&pattern).matches(&topic), pattern.matches(&topic));
        }
    }

    #[test]
    fn suffixes_hold_what_all_matching_topics_share() {
        for (pattern, suffix) in [("a.b", "a.b"), ("#.a", "a"), ("*.a.b", "a.b"), ("#", ""), ("a.*", ""), ("a.*.", "")]
        {
            assert_eq!(Matcher::new(&Pattern::parse(pattern).unwrap()).suffix(), suffix);
        }
    }

    #[test]
    fn prefixes_hold_what_all_matching_topics_share() {
        for (pattern, prefix) in
            [("a.b", "a.b"), ("a.#", "a"), ("a.*", "a."), ("#", ""), ("*.a", ""), ("a.b.*.c", "a.b.")]
        {
            assert_eq!(Matcher::new(&Pattern::parse(pattern).unwrap()).prefix(), prefix);
        }
    }
}
