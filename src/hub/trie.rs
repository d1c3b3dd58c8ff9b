//! A trie over the words of patterns: which of a million patterns match a topic, or may include another pattern.
//!
//! Words are interned, nodes live in one arena and literal edges in one table, so that a node costs some tens of bytes.
//! A search advances word by word with the set of nodes reached so far, as an automaton does: each node enters that set
//! at most once a word, and a `#` stays open once it was reached, so `#.a.#.b.#` against a long topic costs what the
//! trie is large, never what the combinations are many. Knows numbers for patterns, not what they stand for.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use crate::hub::matcher::example;
use crate::model::topic::Pattern;

/// Where there is no node, or no value.
const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;

/// Maps patterns to numbers below `u32::MAX`.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// Places in `nodes` that may be used again.
    free: Vec<u32>,
    /// Children by a literal word: (parent, word) to child.
    edges: HashMap<(u32, u32), u32, RandomState>,
    words: Words,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    /// What the pattern that ends here stands for.
    value: u32,
    star: u32,
    hash: u32,
    /// How many children it has in `edges`.
    literals: u32,
    /// Whether there is a `#` on the way here: only then can one search reach it after different numbers of words.
    below_hash: bool,
}

/// Scratch space of a search, to be used again.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Nodes whose path consumed exactly the words so far.
    here: Vec<u32>,
    next: Vec<u32>,
    /// `#` nodes reached so far: they consume whatever comes.
    open: Vec<u32>,
    /// Those of them that could be reached again.
    opened: HashSet<u32, RandomState>,
}

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::new(false)], free: Vec::new(), edges: HashMap::default(), words: Words::default() }
    }
}

impl Node {
    fn new(below_hash: bool) -> Self {
        Self { value: NONE, star: NONE, hash: NONE, literals: 0, below_hash }
    }

    fn is_bare(&self) -> bool {
        self.value == NONE && self.star == NONE && self.hash == NONE && self.literals == 0
    }
}

impl Trie {
    /// Maps a pattern to a number; what it was mapped to before is replaced.
    pub(super) fn insert(&mut self, pattern: &Pattern, value: u32) {
        let mut node = ROOT;
        for word in pattern.words() {
            node = match self.child(node, word) {
                Some(child) => child,
                None => self.add_child(node, word),
            };
        }
        self.nodes[node as usize].value = value;
    }

    /// What a pattern is mapped to.
    pub(super) fn find(&self, pattern: &Pattern) -> Option<u32> {
        let end = pattern.words().try_fold(ROOT, |node, word| self.child(node, word))?;
        some(self.nodes[end as usize].value)
    }

    /// Forgets a pattern, and every node that only it needed.
    pub(super) fn remove(&mut self, pattern: &Pattern) -> Option<u32> {
        let mut path = Vec::new();
        let mut node = ROOT;
        for word in pattern.words() {
            path.push((node, word));
            node = self.child(node, word)?;
        }
        let value = some(std::mem::replace(&mut self.nodes[node as usize].value, NONE))?;
        for (parent, word) in path.into_iter().rev() {
            if !self.nodes[node as usize].is_bare() {
                break;
            }
            self.remove_child(parent, word, node);
            node = parent;
        }
        Some(value)
    }

    /// Appends the numbers of all patterns that match these words, each once.
    pub(super) fn matching<'a>(&self, words: impl Iterator<Item = &'a str>, search: &mut Search, found: &mut Vec<u32>) {
        search.start();
        self.reach(search);
        for word in words {
            let word = self.words.id(word);
            let Search { here, next, open, .. } = search;
            for node in here.iter().chain(open.iter()) {
                self.consume(*node, word, next);
            }
            here.clear();
            std::mem::swap(here, next);
            self.reach(search);
        }
        let ends = search.here.iter().chain(&search.open);
        found.extend(ends.filter_map(|node| some(self.nodes[*node as usize].value)));
    }

    /// Appends the numbers of all patterns that could include this one: every one that does, and few others.
    ///
    /// What includes a pattern matches each topic that the pattern matches; this asks with an [`example`] of them. Exact
    /// when the pattern is literal.
    pub(super) fn may_include(&self, pattern: &Pattern, search: &mut Search, found: &mut Vec<u32>) {
        self.matching(example(pattern), search, found);
    }

    /// Adds the children of a node that consume this word.
    fn consume(&self, node: u32, word: Option<u32>, next: &mut Vec<u32>) {
        let node_here = &self.nodes[node as usize];
        if let Some(star) = some(node_here.star) {
            next.push(star);
        }
        if let Some(word) = word
            && node_here.literals > 0
            && let Some(child) = self.edges.get(&(node, word))
        {
            next.push(*child);
        }
    }

    /// Opens the `#` below each node just reached: it may stand for no word.
    fn reach(&self, search: &mut Search) {
        for node in &search.here {
            let Some(hash) = some(self.nodes[*node as usize].hash) else { continue };
            if !self.nodes[*node as usize].below_hash || search.opened.insert(hash) {
                search.open.push(hash);
            }
        }
    }

    fn child(&self, parent: u32, word: &str) -> Option<u32> {
        match word {
            "*" => some(self.nodes[parent as usize].star),
            "#" => some(self.nodes[parent as usize].hash),
            name => self.edges.get(&(parent, self.words.id(name)?)).copied(),
        }
    }

    fn add_child(&mut self, parent: u32, word: &str) -> u32 {
        let node = Node::new(word == "#" || self.nodes[parent as usize].below_hash);
        let child = match self.free.pop() {
            Some(place) => {
                self.nodes[place as usize] = node;
                place
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        let parent_node = &mut self.nodes[parent as usize];
        match word {
            "*" => parent_node.star = child,
            "#" => parent_node.hash = child,
            name => {
                parent_node.literals += 1;
                self.edges.insert((parent, self.words.take(name)), child);
            }
        }
        child
    }

    fn remove_child(&mut self, parent: u32, word: &str, child: u32) {
        let parent_node = &mut self.nodes[parent as usize];
        match word {
            "*" => parent_node.star = NONE,
            "#" => parent_node.hash = NONE,
            name => {
                parent_node.literals -= 1;
                if let Some(word) = self.words.give_back(name) {
                    self.edges.remove(&(parent, word));
                }
            }
        }
        self.free.push(child);
    }

    /// Nodes in use, the root included.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}

fn some(number: u32) -> Option<u32> {
    (number != NONE).then_some(number)
}

impl Search {
    fn start(&mut self) {
        self.next.clear();
        self.open.clear();
        self.opened.clear();
        self.here.clear();
        self.here.push(ROOT);
    }
}

/// Literal words by number, counted, so that a word which no edge uses any more is forgotten.
#[derive(Debug, Default)]
struct Words {
    ids: HashMap<Box<str>, Word, RandomState>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Word {
    id: u32,
    edges: u32,
}

impl Words {
    fn id(&self, word: &str) -> Option<u32> {
        self.ids.get(word).map(|word| word.id)
    }

    /// The number of a word, which one more edge uses.
    fn take(&mut self, word: &str) -> u32 {
        if let Some(known) = self.ids.get_mut(word) {
            known.edges += 1;
            return known.id;
        }
        let id = self.free.pop().unwrap_or(self.ids.len() as u32);
        self.ids.insert(word.into(), Word { id, edges: 1 });
        id
    }

    /// The number of a word, which one edge less uses.
    fn give_back(&mut self, word: &str) -> Option<u32> {
        let known = self.ids.get_mut(word)?;
        let id = known.id;
        known.edges -= 1;
        if known.edges == 0 {
            self.ids.remove(word);
            self.free.push(id);
        }
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::topic::Topic;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn matching(trie: &Trie, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        trie.matching(Topic::parse(topic).unwrap().words(), &mut Search::default(), &mut found);
        found.sort_unstable();
        found
    }

    #[test]
    fn wildcards_and_empty_words_match_as_rabbitmq_matches() {
        let mut trie = Trie::default();
        for (value, text) in ["#", "*", "a.*", "a.#", "a.#.b", "", "a..b", "*.b.#"].iter().enumerate() {
            trie.insert(&pattern(text), value as u32);
        }
        assert_eq!(matching(&trie, ""), [0, 5]);
        assert_eq!(matching(&trie, "a"), [0, 1, 3]);
        assert_eq!(matching(&trie, "a."), [0, 2, 3]);
        assert_eq!(matching(&trie, "a..b"), [0, 3, 4, 6]);
        assert_eq!(matching(&trie, "a.b"), [0, 2, 3, 4, 7]);
    }

    #[test]
    fn what_was_removed_leaves_nothing_behind() {
        let mut trie = Trie::default();
        let texts = ["a.b.c", "a.b", "a.#.c", "*.*.*", "#.a.#.b.#", "", "a.*.x"];
        for (value, text) in texts.iter().enumerate() {
            trie.insert(&pattern(text), value as u32);
        }
        for (value, text) in texts.iter().enumerate() {
            assert_eq!(trie.find(&pattern(text)), Some(value as u32));
            assert_eq!(trie.remove(&pattern(text)), Some(value as u32));
            assert_eq!(trie.remove(&pattern(text)), None);
        }
        assert_eq!((trie.size(), trie.edges.len(), trie.words.ids.len()), (1, 0, 0));
    }

    /// A walk that tried every way to spread the words over the `#` would not end within anybody's patience.
    #[test]
    fn many_hashes_against_a_long_topic_stay_polynomial() {
        let mut trie = Trie::default();
        trie.insert(&pattern(&format!("{}b", "#.a.".repeat(60))), 0);
        trie.insert(&pattern(&format!("{}#", "#.a.".repeat(60))), 1);
        assert_eq!(matching(&trie, &["a"; 128].join(".")), [1]);
    }

    #[test]
    fn every_pattern_that_includes_another_is_among_the_candidates() {
        let texts = ["#", "*", "*.#", "a", "a.*", "a.#", "#.a", "*.a", "a.#.b", "a.*.b", "#.b", "a.b", "*.*.#", ""];
        let mut trie = Trie::default();
        for (value, text) in texts.iter().enumerate() {
            trie.insert(&pattern(text), value as u32);
        }
        for inner in texts.map(pattern) {
            let mut found = Vec::new();
            trie.may_include(&inner, &mut Search::default(), &mut found);
            for (value, outer) in texts.iter().enumerate() {
                let included = pattern(outer).includes(&inner);
                assert!(!included || found.contains(&(value as u32)), "{outer} includes {inner}");
                assert!(included || !inner.is_literal() || !found.contains(&(value as u32)), "{outer}, {inner}");
            }
        }
    }
}
