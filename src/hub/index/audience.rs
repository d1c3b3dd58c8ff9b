//! Everybody who wants something of one source: all that a pattern matches, or what a filter lets in of it.

use std::hash::Hash;

use crate::hub::index::groups::Groups;
use crate::hub::index::{Index, SubscriberId};
use crate::model::publication::Draft;
use crate::model::selector::Selector;

/// Everybody who wants something of one source.
#[derive(Debug)]
pub struct Audience<M = SubscriberId> {
    /// Who wants all that a pattern matches.
    index: Index<M>,
    /// Who wants what a filter lets in of it.
    groups: Groups<M>,
}

impl<M: Copy + Eq + Hash> Audience<M> {
    /// Nobody; the matches of at most so many topics will be remembered.
    pub fn new(cache_topics_max: usize) -> Self {
        Self { index: Index::new(cache_topics_max), groups: Groups::new(cache_topics_max) }
    }

    /// From now on a member is named for what it wants. Those who want the same hold the same filter.
    pub fn enter(&mut self, wanted: &mut Selector, member: M) {
        match &mut wanted.filter {
            Some(filter) => *filter = self.groups.insert(&wanted.pattern, filter, member),
            None => _ = self.index.insert(&wanted.pattern, member),
        }
    }

    /// And from now on not any more.
    pub fn leave(&mut self, wanted: &Selector, member: M) {
        match &wanted.filter {
            Some(filter) => self.groups.remove(&wanted.pattern, filter, member),
            None => _ = self.index.remove(&wanted.pattern, member),
        }
    }

    /// Hands over everybody who wants a message; who wants it for several reasons is named several times. Where nobody wants
    /// anything, that costs nothing.
    pub fn fan_out(&mut self, draft: &Draft, mut to: impl FnMut(&[M])) {
        if self.index.patterns() > 0 {
            self.index.fan_out(&draft.topic).for_each(|(_, members)| to(members));
        }
        if !self.groups.is_empty() {
            self.groups.fan_out(draft, to);
        }
    }

    /// How often a filter was asked about a message.
    pub fn filters_asked(&self) -> u64 {
        self.groups.asked()
    }
}
