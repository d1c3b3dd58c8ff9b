//! The subscribers of one pattern, or other members of one set: a contiguous list that the fan-out reads, from which anybody
//! leaves in constant time.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// Up to so many a search through the list is as quick as a table, and costs no memory.
const SEARCHED_MAX: usize = 32;

/// A set of subscribers, in no particular order.
#[derive(Debug)]
pub(super) struct Subscribers<S> {
    list: Vec<S>,
    /// Where in the list each stands, while there are more than [`SEARCHED_MAX`].
    #[expect(
        clippy::box_collection,
        reason = "nearly every pattern has few subscribers, and a million of them are held"
    )]
    places: Option<Box<HashMap<S, u32, RandomState>>>,
}

impl<S> Default for Subscribers<S> {
    fn default() -> Self {
        Self { list: Vec::new(), places: None }
    }
}

impl<S: Copy + Eq + Hash> Subscribers<S> {
    pub(super) fn as_slice(&self) -> &[S] {
        &self.list
    }

    /// Adds one, unless it is there.
    pub(super) fn insert(&mut self, subscriber: S) {
        if self.place(subscriber).is_some() {
            return;
        }
        if let Some(places) = &mut self.places {
            places.insert(subscriber, self.list.len() as u32);
        }
        self.list.push(subscriber);
        if self.places.is_none() && self.list.len() > SEARCHED_MAX {
            let places = self.list.iter().enumerate().map(|(place, subscriber)| (*subscriber, place as u32));
            self.places = Some(Box::new(places.collect()));
        }
    }

    /// Removes one; whether it was there. The last of the list takes its place.
    pub(super) fn remove(&mut self, subscriber: S) -> bool {
        let Some(place) = self.place(subscriber) else { return false };
        self.list.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(&subscriber);
            if let Some(moved) = self.list.get(place) {
                places.insert(*moved, place as u32);
            }
        }
        // Well below the other bound, so that coming and going around it builds no table each time.
        if self.list.len() <= SEARCHED_MAX / 2 {
            self.places = None;
        }
        if self.list.len() < self.list.capacity() / 4 {
            self.list.shrink_to(self.list.len() * 2);
        }
        true
    }

    fn place(&self, subscriber: S) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&subscriber).map(|place| *place as usize),
            None => self.list.iter().position(|known| *known == subscriber),
        }
    }
}
