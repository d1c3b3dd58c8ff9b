//! Where to go on after a lost connection: per pattern, the newest cursor of each source up to which everything was printed.
//!
//! Patterns are subscribed one after the other, so that a replay belongs to one of them. While a pattern replays, only its
//! own position moves; once it has caught up, it shares the position of what is live. Cursors are opaque here.

use std::collections::BTreeMap;

/// The newest cursor of each source, by the source's name.
pub(super) type Cursors = BTreeMap<String, String>;

/// The positions of all patterns.
#[derive(Debug)]
pub(super) struct Resume {
    readings: Vec<Reading>,
    /// Up to where everything live was received on this connection.
    live: Cursors,
}

#[derive(Debug)]
struct Reading {
    pattern: String,
    after: Cursors,
    caught_up: bool,
}

impl Resume {
    /// Starts all patterns after the same cursors; none for now.
    pub(super) fn new(patterns: &[String], after: &Cursors) -> Self {
        let reading = |pattern: &String| Reading { pattern: pattern.clone(), after: after.clone(), caught_up: false };
        Self { readings: patterns.iter().map(reading).collect(), live: Cursors::new() }
    }

    /// Prepares for a new connection.
    pub(super) fn reconnect(&mut self) {
        for reading in &mut self.readings {
            if std::mem::take(&mut reading.caught_up) {
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
        self.position(cursors);
        if let Some(reading) = self.readings.get_mut(number) {
            reading.caught_up = true;
            for (source, cursor) in &reading.after {
                self.live.entry(source.clone()).or_insert_with(|| cursor.clone());
            }
        }
    }

    /// A message was printed.
    pub(super) fn message(&mut self, source: &str, cursor: &str, replay: bool) {
        let replaying = self.readings.iter_mut().find(|reading| replay && !reading.caught_up);
        let cursors = replaying.map_or(&mut self.live, |reading| &mut reading.after);
        cursors.insert(source.to_owned(), cursor.to_owned());
    }

    /// The server said where what is live stands.
    pub(super) fn position(&mut self, cursors: Cursors) {
        self.live.extend(cursors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(pairs: &[(&str, &str)]) -> Cursors {
        pairs.iter().map(|(source, cursor)| ((*source).to_owned(), (*cursor).to_owned())).collect()
    }

    #[test]
    fn patterns_that_were_live_go_on_from_the_newest_message_and_position() {
        let mut resume = Resume::new(&["a".into(), "b".into()], &Cursors::new());
        assert!(resume.subscribed(0, cursors(&[("e", "1.1")])));
        assert!(resume.subscribed(1, cursors(&[("e", "1.1"), ("q", "1.0")])));
        assert!(resume.next().is_none());
        resume.message("e", "1.5", false);
        resume.position(cursors(&[("q", "1.9")]));
        resume.reconnect();
        assert_eq!(resume.next(), Some((0, "a", &cursors(&[("e", "1.5"), ("q", "1.9")]))));
    }

    #[test]
    fn a_replay_that_was_cut_short_goes_on_where_it_was() {
        let mut resume = Resume::new(&["a".into(), "b".into()], &cursors(&[("e", "1.1")]));
        assert!(!resume.subscribed(0, cursors(&[("e", "1.1")])));
        resume.message("e", "1.2", true);
        resume.caught_up(0, cursors(&[("e", "1.9")]));
        assert!(!resume.subscribed(1, cursors(&[("e", "1.1")])));
        resume.message("e", "1.3", true);
        resume.message("e", "1.10", false);
        resume.reconnect();
        assert_eq!(resume.next(), Some((0, "a", &cursors(&[("e", "1.10")]))));
        resume.subscribed(0, Cursors::new());
        resume.caught_up(0, Cursors::new());
        assert_eq!(resume.next(), Some((1, "b", &cursors(&[("e", "1.3")]))));
    }

    #[test]
    fn a_replay_that_was_followed_by_nothing_is_not_asked_for_again() {
        let mut resume = Resume::new(&["a".into()], &cursors(&[("e", "1.1")]));
        resume.subscribed(0, cursors(&[("e", "1.1")]));
        resume.message("e", "1.2", true);
        resume.caught_up(0, cursors(&[("e", "1.2")]));
        resume.reconnect();
        assert_eq!(resume.next(), Some((0, "a", &cursors(&[("e", "1.2")]))));
    }

    #[test]
    fn a_source_that_was_quiet_keeps_its_cursor() {
        let mut resume = Resume::new(&["a".into()], &cursors(&[("e", "1.1"), ("gone", "2.2")]));
        resume.subscribed(0, cursors(&[("e", "1.1")]));
        resume.caught_up(0, cursors(&[("e", "1.4")]));
        resume.reconnect();
        assert_eq!(resume.next(), Some((0, "a", &cursors(&[("e", "1.4"), ("gone", "2.2")]))));
    }
}
