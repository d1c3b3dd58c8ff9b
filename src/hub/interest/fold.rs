//! Fewer patterns in the place of many: which covers to bind when more is wanted than may be bound.
//!
//! Narrow before wide, in five steps, each only while too many are left, and in each the cover first that takes the place
//! of most:
//!
//! 1. one word may vary: `a.b.*`, `a.*.c`; of places that serve equally many the last;
//! 2. a subtree: `a.b.#`, the longest prefix first;
//! 3. one word stays: `*.orders.*`;
//! 4. no word stays, the number of words does: `*.*.*`;
//! 5. `#`.
//!
//! Knows patterns only: not who wants them, nor what is bound. Equal patterns give equal covers, in whatever order they
//! come. A step looks at each pattern once for each of its words, so the whole costs patterns times words, five times.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use foldhash::fast::RandomState;

use crate::model::topic::{Pattern, is_wildcard, words};

/// Words of a pattern that are looked at: whoever writes longer ones gets wider covers.
const PLACES_MAX: usize = 16;

/// How far to fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// Covers are made until no more than these are left, so that more can come before it has to be done again.
    pub(super) low: usize,
    /// With no more than these left, no cover is made that keeps no word at all.
    pub(super) enough: usize,
}

/// What is left open in a cover. The texts are parts of the patterns that it takes the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Cover<'a> {
    /// One word; what stands before and behind it, dots included.
    Word {
        before: &'a str,
        behind: &'a str,
    },
    /// Everything below.
    Subtree {
        above: &'a str,
    },
    /// All words but the one at this place.
    AllBut {
        words: usize,
        place: usize,
        word: &'a str,
    },
    /// All of so many words.
    AllWords(usize),
    Everything,
}

/// One way of making covers.
#[derive(Debug, Clone, Copy)]
enum Step {
    Word,
    /// By prefixes of so many words.
    Subtree(usize),
    AllBut,
    AllWords,
    Everything,
}

/// The covers to bind in the place of those patterns that they include. When some may not be bound, more may be left than
/// was asked for.
pub(super) fn fold(wanted: &BTreeSet<Pattern>, marks: Marks, may_bind: impl Fn(&Pattern) -> bool) -> Vec<Pattern> {
    let mut left = Step::Word.widen(wanted.clone(), marks.low, &may_bind);
    for depth in (1..=PLACES_MAX).rev() {
        left = Step::Subtree(depth).widen(left, marks.low, &may_bind);
    }
    left = Step::AllBut.widen(left, marks.low, &may_bind);
    for last_resort in [Step::AllWords, Step::Everything] {
        if left.len() > marks.enough {
            left = last_resort.widen(left, marks.low, &may_bind);
        }
    }
    left.difference(wanted).cloned().collect()
}

impl Step {
    /// Puts covers in the place of what they include, until few enough patterns are left.
    fn widen(
        self,
        patterns: BTreeSet<Pattern>,
        count_max: usize,
        may_bind: &impl Fn(&Pattern) -> bool,
    ) -> BTreeSet<Pattern> {
        if patterns.len() <= count_max {
            return patterns;
        }
        let patterns: Vec<Pattern> = patterns.into_iter().collect();
        let mut groups = self.groups(&patterns);
        let mut is_taken = vec![false; patterns.len()];
        let mut count = patterns.len();
        let mut covers = Vec::new();
        while let Some((size, _, Reverse(cover), members)) = groups.pop().filter(|_| count > count_max) {
            let members: Vec<usize> = members.into_iter().filter(|place| !is_taken[*place]).collect();
            if members.len() < size {
                groups.extend(group(cover, members));
            } else if let Some(pattern) = cover.pattern().filter(may_bind) {
                members.iter().for_each(|place| is_taken[*place] = true);
                count = count - size + 1;
                covers.push(pattern);
            }
        }
        let untaken =
            patterns.iter().zip(is_taken).filter(|(_, is_taken)| !is_taken).map(|(pattern, _)| pattern.clone());
        untaken.chain(covers).collect()
    }

    /// Every cover that would take the place of several, that of most on top.
    fn groups(self, patterns: &[Pattern]) -> BinaryHeap<Group<'_>> {
        let mut members: HashMap<Cover, Vec<usize>, RandomState> = HashMap::default();
        for (place, pattern) in patterns.iter().enumerate() {
            for cover in self.covers(pattern.as_str()) {
                members.entry(cover).or_default().push(place);
            }
        }
        members.into_iter().filter_map(|(cover, members)| group(cover, members)).collect()
    }

    /// The covers of this kind that include a pattern.
    fn covers(self, text: &str) -> Vec<Cover<'_>> {
        let has_hash = words(text).any(|word| word == "#");
        match self {
            Self::Word => one_word(text),
            Self::Subtree(depth) => subtree(text, depth).into_iter().collect(),
            Self::AllBut | Self::AllWords if has_hash => Vec::new(),
            Self::AllBut => all_but_one(text),
            Self::AllWords => vec![Cover::AllWords(words(text).count())],
            Self::Everything => vec![Cover::Everything],
        }
    }
}

/// How many patterns a cover takes the place of, and how far back it begins to vary, by which it is chosen; the cover,
/// which decides between equals; and the places of the patterns.
type Group<'a> = (usize, usize, Reverse<Cover<'a>>, Vec<usize>);

fn group(cover: Cover, members: Vec<usize>) -> Option<Group> {
    (members.len() > 1).then(|| (members.len(), cover.kept_before(), Reverse(cover), members))
}

/// Each word that is no wildcard may be the one that varies, while another stays.
fn one_word(text: &str) -> Vec<Cover<'_>> {
    if words(text).filter(|word| !is_wildcard(word)).count() < 2 {
        return Vec::new();
    }
    let literal = places(text).filter(|(_, word)| !is_wildcard(word));
    let cover =
        |(at, word): (usize, &str)| Some(Cover::Word { before: text.get(..at)?, behind: text.get(at + word.len()..)? });
    literal.filter_map(cover).collect()
}

/// The prefix of so many words, if one of them is no wildcard and none of them is `#`.
fn subtree(text: &str, depth: usize) -> Option<Cover<'_>> {
    let (at, last) = places(text).nth(depth - 1)?;
    let above = text.get(..at + last.len())?;
    let has_literal = words(above).any(|word| !is_wildcard(word));
    (has_literal && words(above).all(|word| word != "#")).then_some(Cover::Subtree { above })
}

fn all_but_one(text: &str) -> Vec<Cover<'_>> {
    let count = words(text).count();
    let literal = words(text).take(PLACES_MAX).enumerate().filter(|(_, word)| !is_wildcard(word));
    literal.map(|(place, word)| Cover::AllBut { words: count, place, word }).collect()
}

/// The first words, and where each begins.
fn places(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let place = |next: &mut usize, word| {
        let at = *next;
        *next += str::len(word) + 1;
        Some((at, word))
    };
    words(text).scan(0, place).take(PLACES_MAX)
}

impl Cover<'_> {
    /// The pattern, unless it would be too long for one.
    fn pattern(&self) -> Option<Pattern> {
        let stars = |count| vec!["*"; count];
        let text = match *self {
            Self::Word { before, behind } => format!("{before}*{behind}"),
            Self::Subtree { above } => format!("{above}.#"),
            Self::AllBut { words, place, word } => {
                let mut all = stars(words);
                *all.get_mut(place)? = word;
                all.join(".")
            }
            Self::AllWords(words) => stars(words).join("."),
            Self::Everything => return Some(Pattern::all()),
        };
        Pattern::parse(&text).ok()
    }

    /// Of one word that varies: how many stand before it.
    fn kept_before(&self) -> usize {
        match self {
            Self::Word { before, .. } => before.matches('.').count(),
            _ => 0,
        }
    }
}
