//! Subscribers that want only some of what a pattern matches. Those of one pattern and one filter are a group, and an index
//! names groups as it otherwise names subscribers; so a filter is asked once a message for all who share it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::hub::index::subscribers::Subscribers;
use crate::hub::index::{Index, SubscriberId};
use crate::model::filter::Filter;
use crate::model::publication::Draft;
use crate::model::topic::Pattern;

/// One group, while it has members. The number is used again when the last one left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct GroupId(u32);

impl GroupId {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// All groups of one source and shard.
#[derive(Debug)]
pub struct Groups<M = SubscriberId> {
    index: Index<GroupId>,
    groups: Vec<Group<M>>,
    /// Places in `groups` that may be used again.
    free: Vec<GroupId>,
    /// Of each pattern its filters.
    ids: HashMap<Pattern, HashMap<Arc<Filter>, GroupId>>,
    /// How often a filter was asked.
    asked: u64,
}

#[derive(Debug)]
struct Group<M> {
    /// Nothing while the place is free.
    filter: Option<Arc<Filter>>,
    members: Subscribers<M>,
}

impl<M: Copy + Eq + Hash> Groups<M> {
    /// No groups; the matches of at most so many topics will be remembered.
    pub fn new(cache_topics_max: usize) -> Self {
        let index = Index::new(cache_topics_max);
        Self { index, groups: Vec::new(), free: Vec::new(), ids: HashMap::new(), asked: 0 }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How often a filter was asked about a message.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// Adds a member to the group of a pattern and a filter. Returns the filter as the whole group holds it.
    pub fn insert(&mut self, pattern: &Pattern, filter: &Arc<Filter>, member: M) -> Arc<Filter> {
        let known = self.ids.get(pattern).and_then(|filters| filters.get(filter)).copied();
        let id = known.unwrap_or_else(|| self.add(pattern, filter));
        let Some(group) = self.groups.get_mut(id.index()) else { return filter.clone() };
        group.members.insert(member);
        group.filter.as_ref().unwrap_or(filter).clone()
    }

    /// Takes a member out of its group.
    pub fn remove(&mut self, pattern: &Pattern, filter: &Arc<Filter>, member: M) {
        let Some(filters) = self.ids.get_mut(pattern) else { return };
        let Some(id) = filters.get(filter).copied() else { return };
        let Some(group) = self.groups.get_mut(id.index()) else { return };
        if !group.members.remove(member) || !group.members.as_slice().is_empty() {
            return;
        }
        group.filter = None;
        filters.remove(filter);
        if filters.is_empty() {
            self.ids.remove(pattern);
        }
        self.index.remove(pattern, id);
        self.free.push(id);
    }

    /// Hands over the members of every group that wants a message. Who is in several is named several times.
    pub fn fan_out(&mut self, draft: &Draft, mut to: impl FnMut(&[M])) {
        let (groups, asked) = (&self.groups, &mut self.asked);
        for (_, ids) in self.index.fan_out(&draft.topic) {
            for group in ids.iter().filter_map(|id| groups.get(id.index())) {
                *asked += 1;
                if group.filter.as_ref().is_some_and(|filter| filter.matches(&draft.attributes.headers)) {
                    to(group.members.as_slice());
                }
            }
        }
    }

    fn add(&mut self, pattern: &Pattern, filter: &Arc<Filter>) -> GroupId {
        let group = Group { filter: Some(filter.clone()), members: Subscribers::default() };
        let id = self.free.pop().unwrap_or(GroupId(self.groups.len() as u32));
        match self.groups.get_mut(id.index()) {
            Some(place) => *place = group,
            None => self.groups.push(group),
        }
        self.ids.entry(pattern.clone()).or_default().insert(filter.clone(), id);
        self.index.insert(pattern, id);
        id
    }
}
