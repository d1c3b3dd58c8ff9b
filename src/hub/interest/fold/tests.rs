//! Covers against enumeration.

use proptest::prelude::*;

use super::*;
use crate::model::topic::Topic;

fn set(texts: &[&str]) -> BTreeSet<Pattern> {
    texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

/// The covers for so many bindings.
fn covers(wanted: &[&str], count: usize) -> Vec<String> {
    let covers = fold(&set(wanted), Marks { low: count, enough: count }, |_| true);
    covers.iter().map(|cover| cover.as_str().to_owned()).collect()
}

#[test]
fn what_fits_is_left_alone() {
    assert_eq!(covers(&["a.b", "a.c", "#.d"], 3), [""; 0]);
}

#[test]
fn the_word_varies_by_which_most_differ() {
    assert_eq!(covers(&["a.1", "a.2", "a.3", "b.1"], 2), ["a.*"]);
    assert_eq!(covers(&["a.1.c", "a.2.c", "a.3.c", "a.3.d"], 2), ["a.*.c"]);
    assert_eq!(covers(&["t1.x", "t2.x", "t3.x", "u"], 2), ["*.x"]);
    assert_eq!(covers(&["a.1", "a.2", "b.1", "b.2"], 2), ["a.*", "b.*"], "of equals the last word");
    assert_eq!(covers(&["a.1", "a.2", "a.3", "b.1", "b.2"], 3), ["a.*"], "no more than has to be");
}

#[test]
fn narrow_comes_before_wide() {
    assert_eq!(covers(&["a.b.1", "a.b.2.x", "a.c", "d"], 3), ["a.b.#"]);
    assert_eq!(covers(&["a.b.1", "a.b.2.x", "a.c", "d"], 2), ["a.#"]);
    assert_eq!(covers(&["t1.orders.7", "t2.orders.8", "u"], 2), ["*.orders.*"]);
    assert_eq!(covers(&["a", "b", "c.d"], 2), ["*"]);
    assert_eq!(covers(&["a.b", "c.d", "e"], 2), ["*.*"]);
    assert_eq!(covers(&["a.b", "c", "#.d.e"], 1), ["#"]);
}

#[test]
fn words_are_kept_while_few_enough_are_left_for_now() {
    let wanted = set(&["a.1", "a.2", "a.3", "b", "c"]);
    let folded = fold(&wanted, Marks { low: 2, enough: 3 }, |_| true);
    assert_eq!(folded, [Pattern::parse("a.*").unwrap()]);
    let folded = fold(&wanted, Marks { low: 2, enough: 2 }, |_| true);
    assert_eq!(folded, ["*", "a.*"].map(|text| Pattern::parse(text).unwrap()));
}

#[test]
fn a_cover_that_may_not_be_bound_is_passed_over() {
    let folded = fold(&set(&["a.1", "a.2", "b.1"]), Marks { low: 2, enough: 2 }, |cover| cover.as_str() != "a.*");
    assert_eq!(folded, [Pattern::parse("*.1").unwrap()]);
    assert_eq!(fold(&set(&["a.1", "a.2", "b.1"]), Marks { low: 1, enough: 1 }, |_| false), []);
}

#[test]
fn covers_that_would_be_too_long_are_passed_over() {
    let long = "x".repeat(254);
    let (one, other) = (format!("{}.y", &long[..253]), format!("{}.y.", &long[..252]));
    assert_eq!(covers(&[&one, &other, &long], 1), ["#"]);
}

fn any_pattern() -> impl Strategy<Value = Pattern> {
    let word = proptest::sample::select(&["a", "b", "c", "d", "", "*", "#"][..]);
    proptest::collection::vec(word, 0..5).prop_map(|words| Pattern::parse(&words.join(".")).unwrap())
}

/// Those that no other one includes.
fn outermost(patterns: &BTreeSet<Pattern>) -> BTreeSet<Pattern> {
    let is_outermost = |pattern: &&Pattern| !patterns.iter().any(|other| other != *pattern && other.includes(pattern));
    patterns.iter().filter(is_outermost).cloned().collect()
}

/// Every topic of at most four of these words.
fn topics() -> Vec<Topic> {
    let words = ["a", "b", "c", "d", "", "e"];
    let mut all = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..4 {
        let to = all.len();
        for shorter in from..to {
            all.extend(words.map(|word| [&all[shorter][..], &[word]].concat()));
        }
        from = to;
    }
    all.iter().map(|words| Topic::parse(&words.join(".")).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_wanted_is_covered_by_few_enough(
        patterns in proptest::collection::btree_set(any_pattern(), 0..30),
        low in 1..12usize, more in 0..4usize, forbidden in proptest::collection::vec(any_pattern(), 0..3),
    ) {
        let wanted = outermost(&patterns);
        let marks = Marks { low, enough: low + more };
        let covers = fold(&wanted, marks, |_| true);
        let all: BTreeSet<Pattern> = wanted.iter().chain(&covers).cloned().collect();
        let bound = outermost(&all);
        prop_assert!(bound.len() <= wanted.len().min(marks.enough));
        prop_assert!(wanted.iter().all(|pattern| bound.iter().any(|cover| cover.includes(pattern))));
        for topic in topics() {
            let is_wanted = wanted.iter().any(|pattern| pattern.matches(&topic));
            prop_assert!(!is_wanted || bound.iter().any(|cover| cover.matches(&topic)), "{topic} is lost");
        }
        for cover in &covers {
            let members = wanted.iter().filter(|pattern| cover.includes(pattern)).count();
            prop_assert!(members > 1, "{cover} takes the place of {members}");
            prop_assert!(bound.len() > marks.enough || wanted.len() > low);
        }
        let shuffled: BTreeSet<Pattern> = wanted.iter().rev().cloned().collect();
        prop_assert_eq!(fold(&shuffled, marks, |_| true), covers);
        let may_bind = |cover: &Pattern| !forbidden.iter().any(|forbidden| cover.includes(forbidden));
        prop_assert!(fold(&wanted, marks, may_bind).iter().all(may_bind));
    }
}
