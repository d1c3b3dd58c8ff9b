//! The index against a naive model with random subscribing, leaving and matching.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Insert(String, u32),
    Remove(String, u32),
    Match(String),
}

/// Texts of up to five words over a small alphabet, empty words included.
fn text(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(words), 0..6).prop_map(|words| words.join("."))
}

fn step() -> impl Strategy<Value = Step> {
    let pattern = || text(&["a", "b", "", "*", "*", "#", "#"]);
    prop_oneof![
        3 => (pattern(), 0..4u32).prop_map(|(pattern, subscriber)| Step::Insert(pattern, subscriber)),
        2 => (pattern(), 0..4u32).prop_map(|(pattern, subscriber)| Step::Remove(pattern, subscriber)),
        3 => text(&["a", "b", "c", "", "*"]).prop_map(Step::Match),
    ]
}

type Model = BTreeMap<Pattern, BTreeSet<SubscriberId>>;

fn expected(model: &Model, topic: &Topic) -> BTreeMap<Pattern, Vec<SubscriberId>> {
    let matching = model.iter().filter(|(pattern, _)| pattern.matches(topic));
    matching.map(|(pattern, subscribers)| (pattern.clone(), subscribers.iter().copied().collect())).collect()
}

/// What the index says, with a check that nothing is named twice.
fn answered(index: &mut Index, topic: &Topic) -> BTreeMap<Pattern, Vec<SubscriberId>> {
    let ids = index.matches(topic).to_vec();
    let fanned_out: Vec<_> = index.fan_out(topic).map(|(id, subscribers)| (id, subscribers.to_vec())).collect();
    assert_eq!(fanned_out.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    let mut answer = BTreeMap::new();
    for (id, mut subscribers) in fanned_out {
        subscribers.sort_unstable();
        let twice = answer.insert(index.pattern(id).unwrap().clone(), subscribers);
        assert_eq!(twice, None);
    }
    answer
}

fn run(steps: &[Step], cache_topics_max: usize) {
    let mut index = Index::new(cache_topics_max);
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Insert(text, subscriber) => {
                let (pattern, subscriber) = (Pattern::parse(text).unwrap(), SubscriberId(*subscriber));
                assert_eq!(index.insert(&pattern, subscriber), !model.contains_key(&pattern));
                model.entry(pattern).or_default().insert(subscriber);
            }
            Step::Remove(text, subscriber) => {
                let (pattern, subscriber) = (Pattern::parse(text).unwrap(), SubscriberId(*subscriber));
                let removed = model.get_mut(&pattern).is_some_and(|known| known.remove(&subscriber));
                let last = removed && model[&pattern].is_empty();
                assert_eq!(index.remove(&pattern, subscriber), last);
                if last {
                    model.remove(&pattern);
                }
            }
            Step::Match(text) => {
                let topic = Topic::parse(text).unwrap();
                assert_eq!(answered(&mut index, &topic), expected(&model, &topic), "{topic}");
            }
        }
        assert_eq!(index.patterns(), model.len());
    }
    for (pattern, subscribers) in model {
        assert!(index.id(&pattern).is_some());
        subscribers.into_iter().for_each(|subscriber| _ = index.remove(&pattern, subscriber));
    }
    assert_eq!((index.patterns(), index.trie.size()), (0, 1));
}

proptest! {
    #[test]
    fn matches_are_those_of_the_naive_model(steps in proptest::collection::vec(step(), 0..120), cached in 0..20usize) {
        run(&steps, cached);
    }

    /// A few patterns that come and go, so that ids are used again while topics stay in the cache.
    #[test]
    fn remembered_topics_follow_every_change(
        steps in proptest::collection::vec((0..6usize, any::<bool>(), 0..4usize), 0..100)
    ) {
        let patterns = ["a.*", "#", "a.#", "*.b", "a.b", "b"];
        let topics = ["a.b", "a", "b", "c"];
        let steps: Vec<Step> = steps.iter().flat_map(|(pattern, insert, topic)| {
            let pattern = patterns[*pattern].to_owned();
            let change = if *insert { Step::Insert(pattern, 1) } else { Step::Remove(pattern, 1) };
            [change, Step::Match(topics[*topic].to_owned())]
        }).collect();
        run(&steps, 3);
    }

    #[test]
    fn subscribers_are_a_set_from_which_anybody_may_leave(
        steps in proptest::collection::vec((0..90u32, 0..3u8), 0..300)
    ) {
        let mut index = Index::new(0);
        let mut model = BTreeSet::new();
        let pattern = Pattern::parse("a").unwrap();
        for (subscriber, action) in steps {
            let subscriber = SubscriberId(subscriber);
            if action > 0 {
                index.insert(&pattern, subscriber);
                model.insert(subscriber);
            } else {
                index.remove(&pattern, subscriber);
                model.remove(&subscriber);
            }
            let mut answer = index.id(&pattern).map_or(Vec::new(), |id| index.subscribers(id).to_vec());
            answer.sort_unstable();
            assert!(answer.iter().eq(&model));
        }
    }
}

/// Groups against a plain list of who wants what.
mod groups {
    use std::sync::Arc;

    use super::*;
    use crate::hub::index::groups::Groups;
    use crate::model::filter::{Combination, Filter, Scalar};
    use crate::model::publication::{Attributes, Draft};
    use crate::model::value::{Headers, Value};

    const PATTERNS: [&str; 4] = ["a", "*", "#", "a.b"];
    const TOPICS: [&str; 3] = ["a", "b", "a.b"];
    const NAMES: [&str; 3] = ["one", "two", "three"];

    fn filter(name: usize) -> Arc<Filter> {
        let fields = [(NAMES[name].to_owned(), Scalar::Bool(true))].into();
        Arc::new(Filter::new(Combination::All, fields).unwrap().unwrap())
    }

    fn draft(topic: &str, names: &[bool]) -> Draft {
        let header = |(name, truth): (&&str, &bool)| ((*name).to_owned(), Value::Bool(*truth));
        let headers = Headers(NAMES.iter().zip(names).map(header).collect());
        let attributes = Attributes { headers, ..Attributes::default() };
        Draft { topic: Topic::parse(topic).unwrap(), payload: bytes::Bytes::new(), attributes, received_at: 0 }
    }

    proptest! {
        #[test]
        fn they_agree_with_a_plain_list(
            steps in proptest::collection::vec((0..4u8, 0..4usize, 0..3usize, 0..4u32, any::<[bool; 3]>()), 0..100),
        ) {
            let mut groups = Groups::new(2);
            let mut model: BTreeSet<(usize, usize, u32)> = BTreeSet::new();
            for (kind, pattern, name, subscriber, truths) in steps {
                let wanted = Pattern::parse(PATTERNS[pattern]).unwrap();
                match kind {
                    0 | 1 => {
                        let held = groups.insert(&wanted, &filter(name), SubscriberId(subscriber));
                        prop_assert_eq!(&held, &filter(name));
                        model.insert((pattern, name, subscriber));
                    }
                    2 => {
                        groups.remove(&wanted, &filter(name), SubscriberId(subscriber));
                        model.remove(&(pattern, name, subscriber));
                    }
                    _ => {
                        let topic = TOPICS[name];
                        let (mut named, before) = (Vec::new(), groups.asked());
                        let draft = draft(topic, &truths);
                        groups.fan_out(&draft, |members| named.extend(members.iter().map(|member| member.0)));
                        let matching: Vec<_> = model.iter().filter(|(pattern, ..)| {
                            Pattern::parse(PATTERNS[*pattern]).unwrap().matches(&draft.topic)
                        }).collect();
                        let mut expected: Vec<u32> =
                            matching.iter().filter(|(_, name, _)| truths[*name]).map(|(.., who)| *who).collect();
                        named.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(named, expected);
                        let asked: BTreeSet<_> = matching.iter().map(|(pattern, name, _)| (pattern, name)).collect();
                        prop_assert_eq!(groups.asked() - before, asked.len() as u64, "each filter once");
                    }
                }
                prop_assert_eq!(groups.is_empty(), model.is_empty());
            }
        }
    }
}

#[test]
fn more_additions_than_are_remembered_are_found_by_a_new_search() {
    let mut index = Index::new(10);
    let topic = Topic::parse("a.b").unwrap();
    index.insert(&Pattern::parse("a.*").unwrap(), SubscriberId(0));
    assert_eq!(index.matches(&topic).len(), 1);
    for number in 0..ADDITIONS_MAX * 2 {
        index.insert(&Pattern::parse(&format!("other.{number}")).unwrap(), SubscriberId(0));
    }
    index.insert(&Pattern::parse("#.b").unwrap(), SubscriberId(0));
    assert_eq!(index.matches(&topic).len(), 2);
    for number in 0..ADDITIONS_MAX / 2 {
        index.insert(&Pattern::parse(&format!("more.{number}")).unwrap(), SubscriberId(0));
    }
    index.insert(&Pattern::parse("*.b").unwrap(), SubscriberId(0));
    index.remove(&Pattern::parse("a.*").unwrap(), SubscriberId(0));
    assert_eq!(index.matches(&topic).len(), 2);
}

/// One after the other leaves in constant time: a search through the list for each would be ten thousand million steps.
#[test]
fn a_crowd_may_leave_one_topic() {
    let mut index = Index::new(10);
    let pattern = Pattern::parse("news").unwrap();
    for subscriber in 0..100_000 {
        index.insert(&pattern, SubscriberId(subscriber));
    }
    for subscriber in 0..99_999 {
        assert!(!index.remove(&pattern, SubscriberId(subscriber)));
    }
    assert!(index.remove(&pattern, SubscriberId(99_999)));
    assert_eq!(index.patterns(), 0);
}
