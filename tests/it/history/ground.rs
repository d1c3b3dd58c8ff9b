//! Questions to the truth of a run, with the answers that many subscriptions need remembered: which messages match a
//! pattern, and when nothing certainly covered it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use passerelle::model::selector::Selector;
use passerelle::model::topic::{Pattern, Topic};

use crate::history::record::{Moment, Number, Published, Span, Truth};

/// From one moment up to another, in which no binding certainly covered a pattern.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) from: Moment,
    pub(crate) to: Moment,
    /// Whether the link was away at some time of it.
    pub(crate) outage: bool,
    /// Whether there is a time of it at which the link stood.
    pub(crate) unbound: bool,
}

/// What was found of a source for what is wanted of it.
type Known<K, T> = HashMap<(usize, K), Rc<Vec<T>>>;

/// The truth, with an index.
pub(crate) struct Ground<'a> {
    pub(crate) truth: &'a Truth,
    owed: RefCell<Known<Selector, Number>>,
    stretches: RefCell<Known<Pattern, Stretch>>,
    /// By the text of the topic, in order of their moments.
    of_topic: HashMap<(usize, Topic), Vec<Number>>,
}

impl<'a> Ground<'a> {
    pub(crate) fn new(truth: &'a Truth) -> Self {
        let mut of_topic: HashMap<(usize, Topic), Vec<Number>> = HashMap::new();
        for (number, message) in truth.messages.iter().enumerate() {
            of_topic.entry((message.source, message.topic.clone())).or_default().push(number);
        }
        of_topic.values_mut().for_each(|numbers| numbers.sort_by_key(|number| truth.messages[*number].at.from));
        Self { truth, owed: RefCell::default(), stretches: RefCell::default(), of_topic }
    }

    pub(crate) fn message(&self, number: Number) -> &'a Published {
        &self.truth.messages[number]
    }

    /// Every message of a source that is wanted, in order.
    pub(crate) fn matching(&self, source: usize, wanted: &Selector) -> Rc<Vec<Number>> {
        let find = || {
            let matches = |topic: &Topic| wanted.pattern.matches(topic);
            let of_topic = self.of_topic.iter().filter(|((of, topic), _)| *of == source && matches(topic));
            let numbers = of_topic.flat_map(|(_, numbers)| numbers.iter().copied());
            let mut numbers: Vec<Number> = numbers.filter(|number| self.message(*number).is_let_in(wanted)).collect();
            numbers.sort_by_key(|number| self.message(*number).at.from);
            Rc::new(numbers)
        };
        self.owed.borrow_mut().entry((source, wanted.clone())).or_insert_with(find).clone()
    }

    /// Whether a later message on the same topic that is wanted was there up to a moment.
    pub(crate) fn is_superseded(&self, number: Number, wanted: &Selector, until: Moment) -> bool {
        let message = self.message(number);
        let Some(numbers) = self.of_topic.get(&(message.source, message.topic.clone())) else { return false };
        let first = numbers.partition_point(|later| self.message(*later).at.from <= message.at.to);
        let after = numbers[first..].iter().map(|later| self.message(*later));
        if after.take_while(|later| later.at.from <= until).any(|later| later.is_let_in(wanted)) {
            return true;
        }
        // What a queue brought again counts as newer once more.
        let again = |later: &Published| later.again.iter().any(|at| *at > message.at.to && *at <= until);
        let is_queue = self.truth.sources[message.source].is_queue;
        is_queue
            && numbers.iter().map(|later| self.message(*later)).any(|later| again(later) && later.is_let_in(wanted))
    }

    /// Whether a stream had cut off what it held at a moment: then nobody can tell any more whether a cursor names that.
    pub(crate) fn is_cut(&self, source: usize, at: Span, by: Moment) -> bool {
        let there = self.truth.messages.iter().filter(|message| message.source == source && message.at == at);
        there.filter_map(|message| message.cut).any(|cut| cut <= by)
    }

    /// Whether a queue brought something again after one moment and up to another.
    pub(crate) fn brought_again(&self, source: usize, after: Moment, until: Moment) -> bool {
        let messages = self.truth.messages.iter().filter(|message| message.source == source);
        messages.flat_map(|message| &message.again).any(|at| *at > after && *at <= until)
    }

    /// When nothing certainly covered a pattern, in order.
    pub(crate) fn uncovered(&self, source: usize, pattern: &Pattern) -> Rc<Vec<Stretch>> {
        let find = || Rc::new(self.find_uncovered(source, pattern));
        self.stretches.borrow_mut().entry((source, pattern.clone())).or_insert_with(find).clone()
    }

    fn find_uncovered(&self, source: usize, pattern: &Pattern) -> Vec<Stretch> {
        let bindings = self.truth.sources[source].bindings.iter().filter(|binding| binding.pattern.includes(pattern));
        let mut covered: Vec<(Moment, Moment)> =
            bindings.map(|binding| (binding.from, binding.to.unwrap_or(Moment::MAX))).collect();
        covered.sort_unstable();
        let mut stretches = Vec::new();
        let mut from = 0;
        for (start, end) in covered {
            if start > from {
                stretches.push(self.stretch(source, from, start));
            }
            from = from.max(end);
        }
        if from < Moment::MAX {
            stretches.push(self.stretch(source, from, Moment::MAX));
        }
        stretches
    }

    fn stretch(&self, source: usize, from: Moment, to: Moment) -> Stretch {
        let mut stood = from;
        // A node that has just begun cannot tell the one from the other.
        let mut unbound = self.truth.sources[source].restarts.iter().any(|at| *at >= from && *at < to);
        let mut outage = false;
        for (lost, back) in &self.truth.sources[source].outages {
            if *lost < to && *back >= from {
                outage = true;
                unbound |= *lost > stood;
                stood = stood.max(back.saturating_add(1));
            }
        }
        Stretch { from, to, outage, unbound: unbound || stood < to }
    }

    /// How many new logs began after one moment and up to another.
    pub(crate) fn restarted(&self, source: usize, after: Moment, until: Moment) -> usize {
        self.truth.sources[source].restarts.iter().filter(|at| **at > after && **at <= until).count()
    }

    /// Whether the broker may have dropped something after one moment and up to another.
    pub(crate) fn dropped(&self, source: usize, after: Moment, until: Moment) -> bool {
        self.truth.sources[source].drops.iter().any(|at| *at > after && *at <= until)
    }

    /// Whether the source brought so many messages that its log may not remember how many it let go of.
    pub(crate) fn may_forget(&self, source: usize, after: Moment, until: Moment) -> bool {
        let came = self.truth.messages.iter().filter(|message| message.source == source);
        came.filter(|message| message.at.to > after && message.at.from <= until).count() > self.truth.remembered
    }
}
