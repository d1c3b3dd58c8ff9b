//! What a run against a real broker leaves behind: the record that every run leaves, and what else is known of one whose
//! broker and nodes nobody sees into. Moments are microseconds on the test's clock.

use std::collections::BTreeSet;

use passerelle::model::flow::Flow;
use passerelle::model::topic::{Pattern, Topic};

use crate::history::real::schedule::Source;
use crate::history::record::{History, Moment, Number, Record};

/// A node's process, by the order of their starts in a run: each has logs of its own.
pub(crate) type Life = usize;

/// Everything that the checker needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    pub(crate) record: Record,
    /// What is known of each of the record's sources.
    pub(crate) sources: Vec<Source>,
    /// Who published each message; the numbers of one publisher rise in the order in which it published.
    pub(crate) publishers: Vec<usize>,
    /// The node of each life.
    pub(crate) lives: Vec<usize>,
    /// When links may have been lost.
    pub(crate) harms: Vec<Harmed>,
    /// One for each history.
    pub(crate) journeys: Vec<Journey>,
    /// What the nodes said when they had something to warn of, for the reader of a violation.
    pub(crate) warnings: Vec<String>,
}

/// A node's links to the broker were harmed, until all its sources stood again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Harmed {
    pub(crate) node: usize,
    pub(crate) from: Moment,
    pub(crate) to: Moment,
}

/// What a history does not say of the client whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Journey {
    pub(crate) flow: Flow,
    /// Of which publisher it asked for messages, if of one only.
    pub(crate) publisher: Option<usize>,
    /// It is told messages and nothing else.
    pub(crate) is_raw: bool,
    /// What else it asked for on the same lines: a message that matches that too may have come for it alone.
    pub(crate) beside: Vec<Pattern>,
    /// From when on it was at which life; in order.
    pub(crate) visits: Vec<(Moment, Life)>,
    /// Whether it came to the end of everything.
    pub(crate) finished: bool,
}

impl Journey {
    /// Where it was at a moment.
    pub(crate) fn life_at(&self, moment: Moment) -> Option<Life> {
        let before = self.visits.partition_point(|(from, _)| *from <= moment);
        before.checked_sub(1).map(|place| self.visits[place].1)
    }

    /// For which of what else it asked for a message on a topic may come, by their places.
    pub(crate) fn beside(&self, topic: &Topic) -> BTreeSet<usize> {
        let beside = self.beside.iter().enumerate();
        beside.filter(|(_, pattern)| pattern.matches(topic)).map(|(place, _)| place).collect()
    }
}

impl Account {
    /// Whether a subscription is to be given a message.
    pub(crate) fn wants(&self, history: usize, number: Number) -> bool {
        let (History { wanted, sources, .. }, journey) = (&self.record.histories[history], &self.journeys[history]);
        let message = &self.record.truth.messages[number];
        let is_of_publisher = journey.publisher.is_none_or(|publisher| publisher == self.publishers[number]);
        is_of_publisher && sources.contains(&message.source) && message.is_wanted(wanted)
    }

    /// Whether the links of a life's node were harmed at some time between two moments.
    pub(crate) fn was_harmed(&self, life: Option<Life>, from: Moment, to: Moment) -> bool {
        self.harms_of(life, from, to) > 0
    }

    /// How many times.
    pub(crate) fn harms_of(&self, life: Option<Life>, from: Moment, to: Moment) -> usize {
        let node = life.map(|life| self.lives[life]);
        let harms = self.harms.iter().filter(|harm| Some(harm.node) == node);
        harms.filter(|harm| harm.from <= to && harm.to >= from).count()
    }
}
