//! The index of a topic exchange: patterns as a tree of words. Knows targets only as values to compare.
//!
//! A topic is matched by walking all branches at once, word by word, so that its cost is bounded by words times
//! active branches, however many `#` the patterns hold. [`Pattern::matches`] is the reference in the tests.

use std::collections::HashMap;

use slab::Slab;

use crate::model::topic::{Pattern, words};

/// Patterns and who is bound with them; a target may be bound with one pattern several times (under different arguments).
#[derive(Debug)]
pub(crate) struct Trie<T> {
    nodes: Slab<Node<T>>,
    root: usize,
}

#[derive(Debug)]
struct Node<T> {
    words: HashMap<Box<str>, usize>,
    star: Option<usize>,
    hash: Option<usize>,
    /// Whether this node stands for `#`, which stays while words go by.
    is_hash: bool,
    targets: Vec<(T, usize)>,
}

impl<T> Node<T> {
    fn new(is_hash: bool) -> Self {
        Self { words: HashMap::new(), star: None, hash: None, is_hash, targets: Vec::new() }
    }

    fn child(&self, word: &str) -> Option<usize> {
        match word {
            "*" => self.star,
            "#" => self.hash,
            name => self.words.get(name).copied(),
        }
    }

    fn is_bare(&self) -> bool {
        self.targets.is_empty() && self.words.is_empty() && self.star.is_none() && self.hash.is_none()
    }
}

impl<T: PartialEq> Default for Trie<T> {
    fn default() -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::new(false));
        Self { nodes, root }
    }
}

impl<T: PartialEq> Trie<T> {
    /// Binds a target with a pattern.
    pub(crate) fn insert(&mut self, pattern: &Pattern, target: T) {
        let mut at = self.root;
        for word in pattern.words() {
            at = match self.nodes.get(at).and_then(|node| node.child(word)) {
                Some(next) => next,
                None => self.grow(at, word),
            };
        }
        let Some(node) = self.nodes.get_mut(at) else { return };
        match node.targets.iter_mut().find(|(bound, _)| *bound == target) {
            Some((_, times)) => *times += 1,
            None => node.targets.push((target, 1)),
        }
    }

    fn grow(&mut self, at: usize, word: &str) -> usize {
        let next = self.nodes.insert(Node::new(word == "#"));
        if let Some(node) = self.nodes.get_mut(at) {
            match word {
                "*" => node.star = Some(next),
                "#" => node.hash = Some(next),
                name => drop(node.words.insert(name.into(), next)),
            }
        }
        next
    }

    /// Takes one binding away; what then leads nowhere goes too.
    pub(crate) fn remove(&mut self, pattern: &Pattern, target: &T) {
        let mut path = Vec::new();
        let mut at = self.root;
        for word in pattern.words() {
            let Some(next) = self.nodes.get(at).and_then(|node| node.child(word)) else { return };
            path.push((at, word));
            at = next;
        }
        if let Some(node) = self.nodes.get_mut(at) {
            if let Some((_, times)) = node.targets.iter_mut().find(|(bound, _)| bound == target) {
                *times -= 1;
            }
            node.targets.retain(|(_, times)| *times > 0);
        }
        for (parent, word) in path.into_iter().rev() {
            if !self.nodes.get(at).is_some_and(Node::is_bare) {
                return;
            }
            self.nodes.try_remove(at);
            if let Some(node) = self.nodes.get_mut(parent) {
                match word {
                    "*" => node.star = None,
                    "#" => node.hash = None,
                    name => drop(node.words.remove(name)),
                }
            }
            at = parent;
        }
    }

    /// Calls `found` with every target whose pattern matches the topic; with one bound by several patterns, several times.
    pub(crate) fn matches<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a T)) {
        let mut active = Vec::new();
        let mut next = Vec::new();
        self.enter(self.root, &mut active);
        for word in words(topic) {
            for node in active.drain(..).filter_map(|at: usize| Some((at, self.nodes.get(at)?))) {
                let (at, node) = node;
                if node.is_hash {
                    next.push(at);
                }
                for child in [node.words.get(word).copied(), node.star].into_iter().flatten() {
                    self.enter(child, &mut next);
                }
            }
            // A `#` is reached from itself and from its parent: each node counts once, or the walk could grow without end.
            next.sort_unstable();
            next.dedup();
            std::mem::swap(&mut active, &mut next);
        }
        for node in active.into_iter().filter_map(|at| self.nodes.get(at)) {
            node.targets.iter().for_each(|(target, _)| found(target));
        }
    }

    /// A node is active, and with it a `#` below it, which may stand for no word.
    fn enter(&self, at: usize, active: &mut Vec<usize>) {
        active.push(at);
        active.extend(self.nodes.get(at).and_then(|node| node.hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::topic::Topic;
    use proptest::prelude::*;

    fn texts(alphabet: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(alphabet), 0..6).prop_map(|words| words.join("."))
    }

    fn found(trie: &Trie<usize>, topic: &str) -> Vec<usize> {
        let mut all = Vec::new();
        trie.matches(topic, |target| all.push(*target));
        all.sort_unstable();
        all.dedup();
        all
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_matcher_while_bindings_come_and_go(
            steps in prop::collection::vec((texts(&["a", "b", "", "*", "#"]), 0..4_usize, prop::bool::weighted(0.7)), 1..40),
            topics in prop::collection::vec(texts(&["a", "b", "c", "", "*", "#"]), 1..20),
        ) {
            let mut trie = Trie::default();
            let mut model: Vec<(Pattern, usize)> = Vec::new();
            for (text, target, insert) in steps {
                let pattern = Pattern::parse(&text).unwrap();
                if insert {
                    trie.insert(&pattern, target);
                    model.push((pattern, target));
                } else if let Some(at) = model.iter().position(|(bound, _)| *bound == pattern) {
                    let (bound, target) = model.swap_remove(at);
                    trie.remove(&bound, &target);
                }
            }
            for text in topics {
                let topic = Topic::parse(&text).unwrap();
                let mut expected: Vec<usize> =
                    model.iter().filter(|(pattern, _)| pattern.matches(&topic)).map(|(_, target)| *target).collect();
                expected.sort_unstable();
                expected.dedup();
                prop_assert_eq!(found(&trie, &text), expected, "{}", text);
            }
            for (pattern, target) in model.drain(..) {
                trie.remove(&pattern, &target);
            }
            prop_assert_eq!(trie.nodes.len(), 1, "only the root is left");
        }
    }

    #[test]
    fn a_run_of_hashes_does_not_explode() {
        let mut trie = Trie::default();
        trie.insert(&Pattern::parse(&["#.a"; 60].join(".")).unwrap(), 1_usize);
        assert_eq!(found(&trie, &["a"; 120].join(".")), [1]);
        assert!(found(&trie, &["a"; 59].join(".")).is_empty());
    }
}
