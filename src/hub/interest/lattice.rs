//! A set of patterns that can be asked which of them include a pattern, and which are included by one.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;

use slab::Slab;

use crate::hub::matcher::Matcher;
use crate::hub::trie::{Search, Trie};
use crate::model::topic::{Pattern, words};

/// Patterns by number.
#[derive(Debug, Default)]
pub(super) struct Lattice {
    patterns: Slab<Pattern>,
    in_order: BTreeMap<Pattern, usize>,
    /// By their words in reverse, for patterns that begin with a wildcard.
    from_end: BTreeMap<String, usize>,
    trie: Trie,
    search: Search,
}

impl Lattice {
    pub(super) fn key(&self, pattern: &Pattern) -> Option<usize> {
        self.in_order.get(pattern).copied()
    }

    pub(super) fn pattern(&self, key: usize) -> Option<&Pattern> {
        self.patterns.get(key)
    }

    /// Adds a pattern that is not in the set. Numbers are dense and are used again.
    pub(super) fn insert(&mut self, pattern: &Pattern) -> usize {
        let key = self.patterns.insert(pattern.clone());
        self.in_order.insert(pattern.clone(), key);
        self.from_end.insert(reversed(pattern.as_str()), key);
        self.trie.insert(pattern, key as u32);
        key
    }

    pub(super) fn remove(&mut self, key: usize) {
        if let Some(pattern) = self.patterns.try_remove(key) {
            self.in_order.remove(&pattern);
            self.from_end.remove(&reversed(pattern.as_str()));
            self.trie.remove(&pattern);
        }
    }

    /// The members that include a pattern, itself among them if it is a member.
    pub(super) fn including(&mut self, pattern: &Pattern) -> Vec<usize> {
        let mut found = Vec::new();
        self.trie.may_include(pattern, &mut self.search, &mut found);
        let candidates = found.into_iter().map(|key| key as usize);
        candidates.filter(|key| self.patterns.get(*key).is_some_and(|outer| outer.includes(pattern))).collect()
    }

    /// The members that a pattern includes, itself among them if it is a member.
    pub(super) fn included(&self, pattern: &Pattern) -> Vec<usize> {
        if pattern.is_literal() {
            return self.key(pattern).into_iter().collect();
        }
        let matcher = Matcher::new(pattern);
        let (prefix, suffix) = (matcher.prefix(), matcher.suffix());
        let includes = |key: &usize| {
            self.patterns.get(*key).is_some_and(|inner| matcher.may_include(inner) && pattern.includes(inner))
        };
        if prefix.len() >= suffix.len() {
            let alike = beginning(&self.in_order, prefix);
            return alike
                .filter(|(inner, _)| inner.as_str().ends_with(suffix))
                .map(|(_, key)| key)
                .filter(includes)
                .collect();
        }
        let suffix = reversed(suffix);
        beginning(&self.from_end, &suffix).map(|(_, key)| key).filter(includes).collect()
    }

    /// Every pattern in order of its text.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&Pattern, usize)> {
        self.in_order.iter().map(|(pattern, key)| (pattern, *key))
    }
}

/// The entries whose text begins so.
fn beginning<'a, Text: Borrow<str> + Ord>(
    texts: &'a BTreeMap<Text, usize>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a Text, usize)> {
    let from_prefix = texts.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
    from_prefix.take_while(move |(text, _)| (*text).borrow().starts_with(prefix)).map(|(text, key)| (text, *key))
}

fn reversed(text: &str) -> String {
    words(text).rev().collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_pattern() -> impl Strategy<Value = Pattern> {
        proptest::collection::vec(proptest::sample::select(&["a", "b", "", "*", "#"][..]), 0..5)
            .prop_map(|words| Pattern::parse(&words.join(".")).unwrap())
    }

    proptest! {
        #[test]
        fn both_directions_agree_with_asking_everybody(
            members in proptest::collection::btree_set(any_pattern(), 0..40),
            gone in proptest::collection::vec(any::<bool>(), 40),
            asked in any_pattern(),
        ) {
            let mut lattice = Lattice::default();
            let keys: Vec<usize> = members.iter().map(|member| lattice.insert(member)).collect();
            let mut members: Vec<(Pattern, usize)> = members.into_iter().zip(keys).collect();
            for place in (0..members.len()).rev().filter(|place| gone[*place]) {
                lattice.remove(members.remove(place).1);
            }
            let keys_of = |mut keys: Vec<usize>| { keys.sort_unstable(); keys };
            let including = members.iter().filter(|(member, _)| member.includes(&asked)).map(|(_, key)| *key);
            prop_assert_eq!(keys_of(lattice.including(&asked)), keys_of(including.collect()));
            let included = members.iter().filter(|(member, _)| asked.includes(member)).map(|(_, key)| *key);
            prop_assert_eq!(keys_of(lattice.included(&asked)), keys_of(included.collect()));
        }
    }
}
