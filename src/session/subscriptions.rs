//! The subscriptions of one session: what stands, what is on its way, and by which pattern. Pure bookkeeping; it speaks to
//! nobody.
//!
//! One subscription a pattern: a later one on the same pattern takes the place of the earlier as soon as it stands, and
//! leaves it alone when it fails. Few are the rule, so few cost one small allocation; many get an index.

use std::collections::HashMap;

use crate::model::label::Label;
use crate::model::topic::Pattern;
use crate::protocol::CommandId;
use crate::session::SubscriptionKey;

/// From how many on there is an index by pattern.
const INDEXED_FROM: usize = 16;

/// One subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Its name.
    pub(super) key: SubscriptionKey,
    /// What it wants, canonical.
    pub(super) pattern: Pattern,
    /// What its codec writes with each of its messages; boxed because most have none.
    pub(super) label: Option<Box<Label>>,
    /// The id of its `subscribe`, until nothing more is answered to that. Where the client is told of failures, that is its
    /// end.
    pub(super) id: CommandId,
    /// How far it is.
    pub(super) stage: Stage,
}

/// How far a subscription is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its bindings do not stand yet.
    Pending {
        /// It asked for `after` or `last`, so it is told when it has caught up.
        wants_replay: bool,
    },
    /// It stands, and what it asked for is being sent.
    Replaying,
    /// It stands.
    Live,
}

impl Stage {
    /// Whether `subscribed` was sent.
    pub(super) fn stands(self) -> bool {
        !matches!(self, Self::Pending { .. })
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// In the order of their keys, which only rise.
    entries: Vec<Subscription>,
    /// Once there are many.
    index: Option<Box<Index>>,
}

/// Where entries are found by what tells them apart.
#[derive(Debug, Default)]
struct Index {
    /// Those of each pattern.
    patterns: HashMap<Pattern, Held>,
    /// The one of each label; where labels do not tell apart, one of those.
    labels: HashMap<Label, SubscriptionKey>,
}

/// The entries of one pattern.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// One of them; the only one while `count` is 1.
    key: SubscriptionKey,
    /// How many there are.
    count: usize,
}

impl Subscriptions {
    /// How many there are; one that is being replaced counts twice.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// In the order in which they were asked for.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.entries.iter()
    }

    /// Whether there is any on this pattern, standing or not.
    pub(super) fn holds(&self, pattern: &Pattern) -> bool {
        match &self.index {
            Some(index) => index.patterns.contains_key(pattern),
            None => self.entries.iter().any(|entry| entry.pattern == *pattern),
        }
    }

    /// Whether one on this pattern stands.
    pub(super) fn stands(&self, pattern: &Pattern) -> bool {
        match self.only(pattern) {
            Some(key) => self.position(key).and_then(|at| self.entries.get(at)).is_some_and(|one| one.stage.stands()),
            None => self.entries.iter().any(|entry| entry.pattern == *pattern && entry.stage.stands()),
        }
    }

    /// Adds one; its key is greater than all before.
    pub(super) fn insert(&mut self, subscription: Subscription) {
        // Most sessions have one subscription: the first allocation holds one, not the usual four.
        if self.entries.is_empty() {
            self.entries.reserve_exact(1);
        }
        if let Some(index) = &mut self.index {
            index.add(&subscription);
        }
        self.entries.push(subscription);
        if self.index.is_none() && self.entries.len() >= INDEXED_FROM {
            let mut index = Box::<Index>::default();
            self.entries.iter().for_each(|entry| index.add(entry));
            self.index = Some(index);
        }
    }

    /// The one of this key.
    pub(super) fn entry(&mut self, key: SubscriptionKey) -> Option<&mut Subscription> {
        let position = self.position(key)?;
        self.entries.get_mut(position)
    }

    /// Forgets the one of this key.
    pub(super) fn remove(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        let position = self.position(key)?;
        let removed = self.entries.remove(position);
        self.forget(std::slice::from_ref(&removed));
        Some(removed)
    }

    /// What the one of this key is called.
    pub(super) fn label(&self, key: SubscriptionKey) -> Option<&Label> {
        self.entries.get(self.position(key)?)?.label.as_deref()
    }

    /// Whether the one of this label stands.
    pub(super) fn stands_labelled(&self, label: &Label) -> bool {
        self.labelled(label).is_some_and(|entry| entry.stage.stands())
    }

    /// The one of this label, standing or not.
    pub(super) fn labelled(&self, label: &Label) -> Option<&Subscription> {
        match &self.index {
            Some(index) => self.entries.get(self.position(*index.labels.get(label)?)?),
            None => self.entries.iter().find(|entry| entry.label.as_deref() == Some(label)),
        }
    }

    /// Forgets the one of this label.
    pub(super) fn remove_labelled(&mut self, label: &Label) -> Option<Subscription> {
        self.remove(self.labelled(label)?.key)
    }

    /// Forgets those on this pattern that were asked for before `key`.
    pub(super) fn remove_before(&mut self, key: SubscriptionKey, pattern: &Pattern) -> Vec<Subscription> {
        if self.only(pattern) == Some(key) {
            return Vec::new();
        }
        self.extract(pattern, |entry| entry.key < key)
    }

    /// Forgets all on this pattern.
    pub(super) fn remove_all(&mut self, pattern: &Pattern) -> Vec<Subscription> {
        match self.only(pattern) {
            Some(key) => self.remove(key).into_iter().collect(),
            None if self.holds(pattern) => self.extract(pattern, |_| true),
            None => Vec::new(),
        }
    }

    /// The key of the only entry on this pattern, where the index knows it.
    fn only(&self, pattern: &Pattern) -> Option<SubscriptionKey> {
        let held = self.index.as_ref()?.patterns.get(pattern)?;
        (held.count == 1).then_some(held.key)
    }

    /// Forgets some entries of one pattern.
    fn extract(&mut self, pattern: &Pattern, goes: impl Fn(&Subscription) -> bool) -> Vec<Subscription> {
        let removed: Vec<Subscription> =
            self.entries.extract_if(.., |entry| entry.pattern == *pattern && goes(entry)).collect();
        self.forget(&removed);
        removed
    }

    fn position(&self, key: SubscriptionKey) -> Option<usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key).ok()
    }

    /// Keeps the index true after entries of one pattern went, and gives memory back with the last of all.
    fn forget(&mut self, removed: &[Subscription]) {
        if self.entries.is_empty() {
            *self = Self::default();
            return;
        }
        let (Some(index), Some(Subscription { pattern, .. })) = (&mut self.index, removed.first()) else { return };
        removed.iter().for_each(|gone| index.forget_label(gone));
        let Some(held) = index.patterns.get_mut(pattern) else { return };
        held.count = held.count.saturating_sub(removed.len());
        if held.count > 0 {
            let left = self.entries.iter().find(|entry| entry.pattern == *pattern);
            held.key = left.map_or(held.key, |entry| entry.key);
        } else {
            index.patterns.remove(pattern);
        }
    }
}

impl Index {
    fn add(&mut self, entry: &Subscription) {
        let held = self.patterns.entry(entry.pattern.clone()).or_insert(Held { key: entry.key, count: 0 });
        held.count += 1;
        if let Some(label) = &entry.label {
            self.labels.insert((**label).clone(), entry.key);
        }
    }

    fn forget_label(&mut self, gone: &Subscription) {
        if let Some(label) = &gone.label
            && self.labels.get(&**label) == Some(&gone.key)
        {
            self.labels.remove(&**label);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn pattern(number: u8) -> Pattern {
        Pattern::parse(&format!("p.{number}")).unwrap()
    }

    fn label(key: u32) -> Label {
        Label::new(&format!("sub-{key}"))
    }

    fn keys(removed: &[Subscription]) -> Vec<u32> {
        removed.iter().map(|entry| entry.key.0).collect()
    }

    proptest! {
        /// Against a plain list of (key, pattern), with enough of them that the index comes into play.
        #[test]
        fn it_agrees_with_a_plain_list(steps in vec((0..5_u8, 0..30_u8, any::<prop::sample::Index>()), 0..120)) {
            let mut real = Subscriptions::default();
            let mut naive: Vec<(u32, u8)> = Vec::new();
            let mut next = 0;
            for (kind, number, choice) in steps {
                let some_key = if naive.is_empty() { 7_777 } else { naive[choice.index(naive.len())].0 };
                match kind {
                    0..3 => {
                        let stage = Stage::Pending { wants_replay: false };
                        let label = Some(Box::new(label(next)));
                        real.insert(Subscription { key: SubscriptionKey(next), pattern: pattern(number), label, id: None, stage });
                        naive.push((next, number));
                        next += 1;
                    }
                    3 => {
                        let removed = real.remove(SubscriptionKey(some_key)).map(|entry| entry.key.0);
                        prop_assert_eq!(removed, naive.iter().any(|(key, _)| *key == some_key).then_some(some_key));
                        naive.retain(|(key, _)| *key != some_key);
                    }
                    _ => {
                        let goes = |key: u32, of: u8| of == number && (key < some_key || number % 2 == 0);
                        let removed = if number % 2 == 0 {
                            real.remove_all(&pattern(number))
                        } else if real.entry(SubscriptionKey(some_key)).is_some_and(|entry| entry.pattern == pattern(number)) {
                            real.remove_before(SubscriptionKey(some_key), &pattern(number))
                        } else {
                            continue;
                        };
                        let expected: Vec<u32> =
                            naive.iter().filter(|(key, of)| goes(*key, *of)).map(|(key, _)| *key).collect();
                        prop_assert_eq!(keys(&removed), expected);
                        naive.retain(|(key, of)| !goes(*key, *of));
                    }
                }
                prop_assert_eq!(real.iter().map(|entry| entry.key.0).collect::<Vec<_>>(),
                    naive.iter().map(|(key, _)| *key).collect::<Vec<_>>());
                for key in 0..next {
                    let found = real.labelled(&label(key)).map(|entry| entry.key.0);
                    prop_assert_eq!(found, naive.iter().any(|(known, _)| *known == key).then_some(key));
                }
                prop_assert!(!real.stands(&pattern(number)));
                prop_assert_eq!(real.holds(&pattern(number)), naive.iter().any(|(_, of)| *of == number));
            }
        }
    }

    #[test]
    fn one_subscription_is_small() {
        let mut subscriptions = Subscriptions::default();
        let stage = Stage::Pending { wants_replay: false };
        subscriptions.insert(Subscription {
            key: SubscriptionKey(1),
            pattern: pattern(1),
            label: None,
            id: None,
            stage,
        });
        assert_eq!(subscriptions.entries.capacity(), 1);
        assert!(size_of::<Subscription>() <= 48, "{}", size_of::<Subscription>());
    }
}
