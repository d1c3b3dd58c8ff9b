//! What was missed, kept until the next message, for protocols that have no word for it between messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::gap::GapReason;
use crate::protocol::Gap;

/// What [`Missing::fields`] are called; no header of a publisher's is, so that nobody can tell of a gap that was none.
pub(super) const FIELDS: [&str; 3] = ["gap", "gap-source", "gap-missed"];

/// What a subscription missed since its last message: told with the next. There is one entry a source and reason.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Missing(Vec<Missed>);

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missed {
    pub(super) source: Arc<str>,
    pub(super) reason: GapReason,
    /// How many, if that is known.
    pub(super) count: Option<u64>,
}

/// What the subscriptions of a session have still to be told, by what tells them apart there. Empty while nothing is missed.
#[derive(Debug)]
pub(super) struct Untold<K>(BTreeMap<K, Missing>);

impl Missing {
    /// One gap more before the next message.
    pub(super) fn add(&mut self, gap: &Gap) {
        match self.0.iter_mut().find(|one| one.source == gap.source && one.reason == gap.reason) {
            Some(known) => known.count = sum(known.count, gap.missed),
            None => self.0.push(Missed { source: gap.source.clone(), reason: gap.reason, count: gap.missed }),
        }
    }

    /// Each by itself.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Missed> {
        self.0.iter()
    }

    /// As names and values, for a protocol that writes them with the message.
    pub(super) fn fields(&self) -> [(String, String); 3] {
        let listed = |text: fn(&Missed) -> &str| self.0.iter().map(text).collect::<Vec<_>>().join(",");
        let count = self.0.iter().map(|one| one.count).fold(Some(0), sum);
        let count = count.map_or("unknown".to_owned(), |count| count.to_string());
        let [reason, source, missed] = FIELDS.map(str::to_owned);
        [(reason, listed(|one| one.reason.name())), (source, listed(|one| &one.source)), (missed, count)]
    }
}

/// Two counts together, if both are known.
fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.zip(other).map(|(one, other)| one.saturating_add(other))
}

impl<K> Default for Untold<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Untold<K> {
    /// Whether nobody has anything to be told.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes what a subscription missed.
    pub(super) fn note(&mut self, key: &K, gap: &Gap)
    where
        K: Clone,
    {
        self.0.entry(key.clone()).or_default().add(gap);
    }

    /// What is to be told with a message of a subscription.
    pub(super) fn of(&self, key: &K) -> Option<&Missing> {
        self.0.get(key)
    }

    /// The same, which is told now.
    pub(super) fn take(&mut self, key: &K) -> Option<Missing> {
        self.0.remove(key)
    }

    /// The same, of the first subscription that is meant.
    pub(super) fn take_first(&mut self, is_meant: impl Fn(&K) -> bool) -> Option<Missing>
    where
        K: Clone,
    {
        let key = self.0.keys().find(|key| is_meant(key)).cloned()?;
        self.take(&key)
    }

    /// Forgets a subscription that has ended: there is nobody to tell.
    pub(super) fn forget(&mut self, key: &K) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::topic::Pattern;

    fn gap(source: &str, reason: GapReason, missed: Option<u64>) -> Gap {
        Gap { pattern: Pattern::all(), label: None, source: source.into(), missed, reason }
    }

    #[test]
    fn gaps_of_one_source_and_reason_are_one_and_an_unknown_count_makes_the_sum_unknown() {
        let mut missing = Missing::default();
        missing.add(&gap("events", GapReason::Slow, Some(2)));
        missing.add(&gap("events", GapReason::Slow, Some(3)));
        missing.add(&gap("orders", GapReason::Outage, Some(1)));
        let texts = |missing: &Missing| missing.fields().map(|(name, value)| format!("{name}:{value}"));
        assert_eq!(texts(&missing), ["gap:slow,outage", "gap-source:events,orders", "gap-missed:6"]);
        missing.add(&gap("orders", GapReason::Outage, None));
        assert_eq!(texts(&missing), ["gap:slow,outage", "gap-source:events,orders", "gap-missed:unknown"]);
    }

    #[test]
    fn what_is_told_is_told_once_and_to_whom_it_concerns() {
        let mut untold = Untold::default();
        for key in [1, 2, 1] {
            untold.note(&key, &gap("events", GapReason::Slow, Some(1)));
        }
        let told = untold.of(&1).cloned();
        assert_eq!(told.as_ref().map(|one| one.entries().map(|entry| entry.count).collect()), Some(vec![Some(2)]));
        assert_eq!(untold.take(&1), told);
        assert_eq!(untold.take_first(|key| *key == 1), None);
        untold.forget(&2);
        assert!(untold.is_empty());
    }
}
