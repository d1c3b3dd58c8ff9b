//! What comes from the broker and what goes there. A source turns deliveries into drafts and appends them to its feed;
//! the supervisor's tools stand here: how long to wait before the next try, and the board on which everybody who needs the
//! broker writes how it stands, so that readiness and the log say the same.
//!
//! It sees the feed and the interest of the hub only, and no client.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;

pub mod amqp;

/// Something that brings messages in over a link to a broker. Implemented once a kind of input; the supervisor runs it
/// again on every new link.
pub(crate) trait Source: Send {
    /// What it needs to run.
    type Link: Send + Sync;

    /// Its name in the configuration.
    fn name(&self) -> &str;

    /// Under what it stands on the board.
    fn subject(&self) -> Subject {
        Subject::Source(self.name().to_owned())
    }

    /// Serves on this link until that fails or the program stops; says so on the board when everything stands.
    fn run(&mut self, link: &Self::Link, board: &Board) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// What it had on a link stands no longer. Called after every end of [`Source::run`], or where that was dropped.
    fn lost(&mut self);
}

/// Why something did not work, in a sentence that says what to do. No password is ever in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Trouble(pub String);

/// Who writes on the board.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The connection that consumes.
    ConsumeLink,
    /// The connection that publishes.
    PublishLink,
    /// The queue for answers to calls.
    Replies,
    /// The exchange through which nodes share presence.
    Presence,
    /// A source, by name.
    Source(String),
    /// What moves a source's queue into its stream, by the source's name.
    Relay(String),
}

/// How a subject stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// And what and where, in words.
    Up(String),
    Down(Trouble),
}

/// A source that does not stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The source's name.
    pub source: String,
    /// What is wrong, and what to do.
    pub message: String,
    /// Whether it has stood before: then this is an outage, and sessions stay.
    pub outage: bool,
}

/// How everybody stands. A change of state makes one line in the log, the same trouble again makes none.
#[derive(Debug)]
pub(crate) struct Board {
    rows: Mutex<BTreeMap<Subject, Row>>,
    first_failure: watch::Sender<Option<Trouble>>,
}

#[derive(Debug)]
struct Row {
    standing: Option<Standing>,
    ever_up: bool,
}

impl Board {
    /// With a row for each of these, none of which stands.
    pub(crate) fn new(subjects: impl Iterator<Item = Subject>) -> Self {
        let row = |subject| (subject, Row { standing: None, ever_up: false });
        Self { rows: Mutex::new(subjects.map(row).collect()), first_failure: watch::Sender::new(None) }
    }

    /// It stands; `words` say what and where. Logged unless that was so before.
    pub(crate) fn up(&self, subject: Subject, words: String) {
        let mut rows = self.rows();
        let row = rows.entry(subject).or_insert(Row { standing: None, ever_up: false });
        row.ever_up = true;
        let standing = Some(Standing::Up(words.clone()));
        if row.standing != standing {
            tracing::info!("{words}");
            row.standing = standing;
        }
    }

    /// It does not stand. Logged unless the same was said before, by itself or by anybody else.
    pub(crate) fn down(&self, subject: Subject, trouble: &Trouble) {
        let mut rows = self.rows();
        let standing = Standing::Down(trouble.clone());
        if !rows.values().any(|row| row.standing.as_ref() == Some(&standing)) {
            tracing::warn!("{trouble}");
        }
        rows.entry(subject).or_insert(Row { standing: None, ever_up: false }).standing = Some(standing);
        self.first_failure.send_if_modified(|first| {
            let fresh = first.is_none();
            first.get_or_insert_with(|| trouble.clone());
            fresh
        });
    }

    /// The sources that do not stand, in the order of their names; then those whose queues are not moved.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        let rows = self.rows();
        let down = |subject: &Subject| match rows.get(subject).and_then(|row| row.standing.clone()) {
            Some(Standing::Down(trouble)) => Some(trouble.0),
            _ => None,
        };
        let reason = |(subject, row): (&Subject, &Row)| {
            let (name, link) = match subject {
                Subject::Source(name) => (name, Subject::ConsumeLink),
                Subject::Relay(name) => (name, Subject::PublishLink),
                _ => return None,
            };
            let why = down(&link).or_else(|| down(subject));
            let message = why.unwrap_or_else(|| "is not connected to the broker yet".to_owned());
            let reason = Reason { source: name.clone(), message, outage: row.ever_up };
            (!matches!(row.standing, Some(Standing::Up(_)))).then_some(reason)
        };
        rows.iter().filter_map(reason).collect()
    }

    /// Completes once anything has failed.
    pub(crate) async fn failed(&self) -> Trouble {
        let mut failures = self.first_failure.subscribe();
        let failure = failures.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone());
        match failure {
            Some(trouble) => trouble,
            // The board holds the sender, so this cannot be.
            None => std::future::pending().await,
        }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Subject, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pauses between tries: doubling from [`Backoff::FIRST`] up to a bound, each shortened at random by up to a half, so
/// that many nodes do not come back at the same moment. There is no limit of tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// The first pause, unless the bound is lower.
    pub(crate) const FIRST: Duration = Duration::from_millis(200);

    /// Up to `max`.
    pub(crate) fn new(max: Duration) -> Self {
        Self { next: Self::FIRST.min(max), max }
    }

    /// The pause before the next try.
    pub(crate) fn pause(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(self.max);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// What was tried stood for this long. Only if that was longer than the longest pause do pauses begin anew: what
    /// breaks as soon as it stands is not tried more and more often.
    pub(crate) fn stood_for(&mut self, time: Duration) {
        if time > self.max {
            self.next = Self::FIRST.min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(text: &str) -> Trouble {
        Trouble(text.into())
    }

    #[test]
    fn pauses_double_up_to_the_bound_and_begin_anew_after_a_long_stand() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for longest in [200, 400, 800, 1000, 1000] {
            let pause = backoff.pause().as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{pause} of {longest}");
        }
        backoff.stood_for(Duration::from_millis(900));
        assert!(backoff.pause().as_millis() >= 500);
        backoff.stood_for(Duration::from_millis(1100));
        assert!(backoff.pause().as_millis() <= 200);
    }

    #[test]
    fn readiness_names_the_link_before_the_source_and_ends_with_the_first_link() {
        let board = Board::new(["a", "b"].map(|name| Subject::Source(name.into())).into_iter());
        assert_eq!(board.reasons().len(), 2);
        board.down(Subject::Source("a".into()), &trouble("exchange 'x' does not exist"));
        assert_eq!(board.reasons()[0].message, "exchange 'x' does not exist");
        board.down(Subject::ConsumeLink, &trouble("nothing listens"));
        assert!(board.reasons().iter().all(|reason| reason.message == "nothing listens" && !reason.outage));
        board.up(Subject::ConsumeLink, "connected".into());
        board.up(Subject::Source("a".into()), "reads".into());
        board.up(Subject::Source("b".into()), "reads".into());
        assert_eq!(board.reasons(), []);
        board.down(Subject::Source("b".into()), &trouble("gone"));
        assert_eq!(board.reasons(), [Reason { source: "b".into(), message: "gone".into(), outage: true }]);
    }

    #[test]
    fn a_queue_that_is_not_moved_is_a_reason_of_its_source() {
        let relay = || Subject::Relay("a".into());
        let board = Board::new([Subject::Source("a".into()), relay()].into_iter());
        board.up(Subject::Source("a".into()), "reads".into());
        let reason = |message: &str, outage| Reason { source: "a".into(), message: message.into(), outage };
        assert_eq!(board.reasons(), [reason("is not connected to the broker yet", false)]);
        board.down(relay(), &trouble("queue 'q' does not exist"));
        assert_eq!(board.reasons(), [reason("queue 'q' does not exist", false)]);
        board.up(relay(), "moves".into());
        assert_eq!(board.reasons(), []);
        board.down(Subject::PublishLink, &trouble("gone"));
        board.down(relay(), &trouble("gone"));
        assert_eq!(board.reasons(), [reason("gone", true)]);
    }

    #[tokio::test]
    async fn the_first_failure_is_kept() {
        let board = Board::new(std::iter::once(Subject::Source("a".into())));
        board.down(Subject::ConsumeLink, &trouble("first"));
        board.down(Subject::ConsumeLink, &trouble("second"));
        assert_eq!(board.failed().await, trouble("first"));
    }
}
