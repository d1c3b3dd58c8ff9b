//! Where to go on after a lost connection: per pattern, the newest cursor of each source up to which everything was printed.
//!
//! Patterns are subscribed one after the other, so that a replay belongs to one of them. While a pattern replays, only its
//! own position moves; once it has caught up, it shares the position of what is live. With a rate each goes on alone: then a
//! message moves the first pattern that it matches, because that is the one by which it comes. Cursors are opaque here.
//!
//! What matches several patterns comes in the replay of each, so what was printed is known until all are level.

use std::collections::{BTreeMap, HashSet};

use crate::model::topic::{Pattern, Topic};

/// Messages that are known to be printed, at least; of more than twice as many the oldest are forgotten.
const PRINTED_MAX: usize = 1 << 15;

/// The newest cursor of each source, by the source's name.
pub(super) type Cursors = BTreeMap<String, String>;

/// The positions of all patterns.
#[derive(Debug)]
pub(super) struct Resume {
    readings: Vec<Reading>,
    /// Up to where everything live was received on this connection.
    live: Cursors,
    /// Whether they have a rate.
    paced: bool,
    printed: Printed,
}

/// What was printed while a replay may bring it again, by source and cursor.
#[derive(Debug, Default)]
struct Printed {
    newer: HashSet<(String, String)>,
    older: HashSet<(String, String)>,
}

impl Printed {
    fn add(&mut self, (source, cursor): (&str, &str)) {
        if self.newer.len() == PRINTED_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert((source.to_owned(), cursor.to_owned()));
    }

    fn has(&self, (source, cursor): (&str, &str)) -> bool {
        let one = (source.to_owned(), cursor.to_owned());
        self.newer.contains(&one) || self.older.contains(&one)
    }
}

#[derive(Debug)]
struct Reading {
    pattern: Pattern,
    after: Cursors,
    caught_up: bool,
}

impl Resume {
    /// Starts all patterns after the same cursors; none for now.
    pub(super) fn new(patterns: &[Pattern], after: &Cursors) -> Self {
        let reading = |pattern: &Pattern| Reading { pattern: pattern.clone(), after: after.clone(), caught_up: false };
        let readings = patterns.iter().map(reading).collect();
        Self { readings, live: Cursors::new(), paced: false, printed: Printed::default() }
    }

    /// Lets each pattern go on alone, because all have a rate.
    pub(super) fn paced(self) -> Self {
        Self { paced: true, ..self }
    }

    /// Prepares for a new connection.
    pub(super) fn reconnect(&mut self) {
        for reading in &mut self.readings {
            if std::mem::take(&mut reading.caught_up) && !self.paced {
                reading.after = self.live.clone();
            }
        }
        self.live.clear();
    }

    /// The pattern to subscribe next: the first that has not caught up, with its number and where it goes on.
    pub(super) fn next(&self) -> Option<(usize, &str, &Cursors)> {
        let position = self.readings.iter().position(|reading| !reading.caught_up)?;
        self.readings.get(position).map(|reading| (position, reading.pattern.as_str(), &reading.after))
    }

    /// The server confirmed a subscription. Returns whether it is live already, at these positions.
    pub(super) fn subscribed(&mut self, number: usize, cursors: Cursors) -> bool {
        let fresh = self.readings.get(number).is_some_and(|reading| reading.after.is_empty());
        if fresh {
            self.caught_up(number, cursors);
        }
        fresh
    }

    /// A pattern has been sent everything up to what is live, which is at these positions.
    pub(super) fn caught_up(&mut self, number: usize, cursors: Cursors) {
        if !self.paced {
            self.live.extend(cursors.clone());
        }
        if let Some(reading) = self.readings.get_mut(number) {
            reading.caught_up = true;
            if self.paced {
                return reading.after.extend(cursors);
            }
            for (source, cursor) in &reading.after {
                self.live.entry(source.clone()).or_insert_with(|| cursor.clone());
            }
        }
        if !self.may_repeat() {
            self.printed = Printed::default();
        }
    }

    /// Whether a message that was printed may come again: several patterns have each a replay, now or, with a rate, later.
    fn may_repeat(&self) -> bool {
        self.readings.len() > 1 && (self.paced || self.next().is_some())
    }

    /// Whether the message of this source and cursor was printed already.
    pub(super) fn has_printed(&self, at: (&str, &str)) -> bool {
        self.may_repeat() && self.printed.has(at)
    }

    /// A message on a topic was printed, now or before; `at` are its source and cursor.
    pub(super) fn message(&mut self, topic: &str, at: (&str, &str), replay: bool) {
        if self.may_repeat() {
            self.printed.add(at);
        }
        let topic = Topic::parse(topic).ok();
        let is_first = |reading: &&mut Reading| match &topic {
            _ if replay => !reading.caught_up,
            Some(topic) => self.paced && reading.caught_up && reading.pattern.matches(topic),
            None => false,
        };
        let reading = self.readings.iter_mut().find(is_first);
        let cursors = reading.map_or(&mut self.live, |reading| &mut reading.after);
        cursors.insert(at.0.to_owned(), at.1.to_owned());
    }

    /// The server said where what is live stands, which holds for all that are.
    pub(super) fn position(&mut self, cursors: Cursors) {
        if !self.paced {
            return self.live.extend(cursors);
        }
        let live = self.readings.iter_mut().filter(|reading| reading.caught_up);
        live.for_each(|reading| reading.after.extend(cursors.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All patterns after the same cursors.
    fn resume(patterns: &[&str], after: &Cursors) -> Resume {
        let patterns: Vec<Pattern> = patterns.iter().map(|pattern| Pattern::parse(pattern).unwrap()).collect();
        Resume::new(&patterns, after)
    }

    fn cursors(pairs: &[(&str, &str)]) -> Cursors {
        pairs.iter().map(|(source, cursor)| ((*source).to_owned(), (*cursor).to_owned())).collect()
    }

    #[test]
    fn patterns_that_were_live_go_on_from_the_newest_message_and_position() {
        let mut resume = resume(&["a", "b"], &Cursors::new());
        assert!(resume.subscribed(0, cursors(&[("e", "1.1")])));
        assert!(resume.subscribed(1, cursors(&[("e", "1.1"), ("q", "1.0")])));
        assert!(resume.next().is_none());
        resume.message("a", ("e", "1.5"), false);
        resume.position(cursors(&[("q", "1.9")]));
        resume.reconnect();
        assert_eq!(resume.next(), Some((0, "a", &cursors(&[("e", "1.5"), ("q", "1.9")]))));
    }

    #[test]
    fn a_replay_that_was_cut_short_goes_on_where_it_was() {
        let mut resume = resume(&["a", "b"], &cursors(&[("e", "1.1")]));
        assert!(!resume.subscribed(0, cursors(&[("e", "1.1")])));
        resume.message("a", ("e", "1.2"), true);
        resume.caught_up(0, cursors(&[("e", "1.9")]));
        assert!(!resume.subscribed(1, cursors(&[("e", "1.1")])));
        resume.message("b", ("e", "1.3"), true);
        resume.message("a", ("e", "1.10"), false);
        resume.reconnect();
        assert_eq!(resume.next(), Some((0, "a", &cursors(&[("e", "1.10")]))));
        resume.subscribed(0, Cursors::new());
        resume.caught_up(0, Cursors::new());
        assert_eq!(resume.next(), Some((1, "b", &cursors(&[("e", "1.3")]))));
    }

    #[test]
    fn a_replay_that_was_followed_by_nothing_is_not_asked_for_again() {
        let mut resume = resume(&["a"], &cursors(&[("e", "1.1")]));
        resume.subscribed(0, cursors(&[("e", "1.1")]));
        resume.message("a", ("e", "1.2"), true);
        resume.caught_up(0, cursors(&[("e", "1.2")]));
        resume.reconnect();
        assert_eq!(resume.next(), Some((0, "a", &cursors(&[("e", "1.2")]))));
    }

    #[test]
    fn a_source_that_was_quiet_keeps_its_cursor() {
        let mut resume = resume(&["a"], &cursors(&[("e", "1.1"), ("gone", "2.2")]));
        resume.subscribed(0, cursors(&[("e", "1.1")]));
        resume.caught_up(0, cursors(&[("e", "1.4")]));
        resume.reconnect();
        assert_eq!(resume.next(), Some((0, "a", &cursors(&[("e", "1.4"), ("gone", "2.2")]))));
    }

    #[test]
    fn what_was_printed_is_known_until_all_patterns_are_level() {
        let mut resume = resume(&["a.#", "a.b", "a.c"], &cursors(&[("e", "1.1")]));
        resume.message("a.b", ("e", "1.2"), true);
        resume.caught_up(0, cursors(&[("e", "1.2")]));
        resume.message("a.b", ("e", "1.3"), false);
        assert!(resume.has_printed(("e", "1.2")) && resume.has_printed(("e", "1.3")));
        assert!(!resume.has_printed(("f", "1.2")) && !resume.has_printed(("e", "1.4")));
        resume.message("a.b", ("e", "1.2"), true);
        resume.reconnect();
        resume.caught_up(0, cursors(&[("e", "1.3")]));
        assert!(resume.has_printed(("e", "1.3")), "the second pattern goes on from before that");
        resume.caught_up(1, cursors(&[("e", "1.3")]));
        resume.caught_up(2, cursors(&[("e", "1.3")]));
        assert!(!resume.has_printed(("e", "1.3")), "nothing that was printed comes again");
    }

    #[test]
    fn with_a_rate_a_pattern_may_be_behind_what_another_has_printed_for_ever() {
        let mut resume = resume(&["a.#", "a.b"], &Cursors::new()).paced();
        assert!(resume.subscribed(0, cursors(&[("e", "1.1")])) && resume.subscribed(1, cursors(&[("e", "1.1")])));
        resume.message("a.b", ("e", "1.2"), false);
        resume.reconnect();
        resume.caught_up(0, cursors(&[("e", "1.2")]));
        assert_eq!(resume.next(), Some((1, "a.b", &cursors(&[("e", "1.1")]))));
        assert!(resume.has_printed(("e", "1.2")));
    }

    #[test]
    fn what_is_known_of_what_was_printed_is_bounded() {
        let mut printed = Printed::default();
        for number in 0..4 * PRINTED_MAX {
            printed.add(("e", &number.to_string()));
            assert!(printed.newer.len() + printed.older.len() <= 2 * PRINTED_MAX);
        }
        assert!(printed.has(("e", &(3 * PRINTED_MAX).to_string())) && !printed.has(("e", "0")));
    }

    #[test]
    fn with_a_rate_each_pattern_goes_on_where_it_was_itself() {
        let mut resume = resume(&["a", "#"], &Cursors::new()).paced();
        assert!(resume.subscribed(0, cursors(&[("e", "1.1")])));
        assert!(resume.subscribed(1, cursors(&[("e", "1.1")])));
        resume.message("b", ("e", "1.9"), false);
        resume.message("a", ("e", "1.5"), false);
        resume.reconnect();
        assert_eq!(resume.next(), Some((0, "a", &cursors(&[("e", "1.5")]))));
        resume.message("a", ("e", "1.6"), true);
        resume.caught_up(0, cursors(&[("e", "1.7")]));
        assert_eq!(resume.next(), Some((1, "#", &cursors(&[("e", "1.9")]))));
        resume.caught_up(1, cursors(&[("e", "1.9")]));
        resume.position(cursors(&[("e", "1.12")]));
        resume.reconnect();
        assert_eq!(resume.next(), Some((0, "a", &cursors(&[("e", "1.12")]))));
    }
}
