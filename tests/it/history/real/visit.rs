//! A history, cut into visits: from where a subscription was asked for on one connection to where that ended.

use std::ops::Range;

use crate::history::real::account::{Journey, Life};
use crate::history::record::{Cursors, History, Moment, What};

/// One visit. Places are places in the history.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) life: Option<Life>,
    pub(crate) after: Cursors,
    pub(crate) asked_at: Moment,
    /// When the visit before ended.
    pub(crate) left_at: Option<Moment>,
    pub(crate) answer: Option<Answer>,
    pub(crate) places: Range<usize>,
}

/// What `subscribed` said.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) at: Moment,
    pub(crate) resumed: bool,
    /// The gaps that were told with it.
    pub(crate) gaps: Range<usize>,
}

/// Visits that hang together in one source: each after the first goes on after a cursor.
#[derive(Debug, Clone)]
pub(crate) struct Chain<'a> {
    pub(crate) visits: &'a [Visit],
    /// Nothing follows: all there was in the end is owed.
    pub(crate) is_last: bool,
}

/// The visits of a history, in order.
pub(crate) fn visits(history: &History, journey: &Journey) -> Vec<Visit> {
    let mut visits: Vec<Visit> = Vec::new();
    let mut left_at = None;
    for (place, told) in history.told.iter().enumerate() {
        match &told.what {
            What::Asked { after, .. } => visits.push(Visit {
                life: journey.life_at(told.at),
                after: after.clone(),
                asked_at: told.at,
                left_at,
                answer: None,
                places: place..place,
            }),
            What::Subscribed { resumed, .. } => {
                let gaps = history.told[place + 1..].iter().take_while(|told| matches!(told.what, What::Gap { .. }));
                let gaps = place + 1..place + 1 + gaps.count();
                if let Some(visit) = visits.last_mut() {
                    visit.answer = Some(Answer { at: told.at, resumed: *resumed, gaps });
                }
            }
            What::Ended { .. } => left_at = Some(told.at),
            What::Message(_) | What::Gap { .. } | What::CaughtUp { .. } => {}
        }
        if let Some(visit) = visits.last_mut() {
            visit.places.end = place + 1;
        }
    }
    visits
}

/// The chains of visits in one source.
pub(crate) fn chains(visits: &[Visit], source: usize) -> Vec<Chain<'_>> {
    let mut chains: Vec<Chain<'_>> = Vec::new();
    let mut from = 0;
    for next in 1..=visits.len() {
        if visits.get(next).is_none_or(|visit| visit.after[source].is_none()) {
            chains.push(Chain { visits: &visits[from..next], is_last: next == visits.len() });
            from = next;
        }
    }
    chains
}

impl Chain<'_> {
    pub(crate) fn places(&self) -> Range<usize> {
        let (first, last) = (self.visits.first(), self.visits.last());
        first.map_or(0, |visit| visit.places.start)..last.map_or(0, |visit| visit.places.end)
    }
}
