//! Sessions by their clients' names: which connection has one, and what is kept of those whose clients are away. One map for
//! all shards of a node; it is asked when an MQTT client comes or goes, and never for a message.
//!
//! A session passes from one connection to another in two steps, because only the shard of the first can end it: the second
//! claims it and has the first let go; what that leaves is then the second's. Whoever else claims it meanwhile waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::hub::shard::Place;
use crate::model::outgoing::Outgoing;
use crate::model::topic::Pattern;
use crate::protocol::mqtt::Memory;
use crate::session::ClientName;
use crate::transport::driver::{Control, Ticket};

/// The sessions of a node.
#[derive(Debug)]
pub(crate) struct Sessions {
    kept_max: Count,
    book: Mutex<Book>,
}

/// Sessions whose clients are away, and the subscriptions of all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) sessions: usize,
    pub(crate) subscriptions: usize,
}

#[derive(Debug, Default)]
struct Book {
    entries: HashMap<ClientName, Entry>,
    /// How many of them are kept.
    kept: Count,
}

/// A connection, and how its shard is told something.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) shard: usize,
    pub(crate) ticket: Ticket,
    pub(crate) controls: mpsc::Sender<Control>,
}

/// What is left of a session whose connection has ended.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) memory: Memory,
    /// Where each of its subscriptions stood. With them go their claims.
    pub(crate) places: BTreeMap<Pattern, Place>,
    pub(crate) expires_at: Instant,
    /// What is to be published, and when, if nobody has come back until then.
    pub(crate) will: Option<(Instant, Outgoing)>,
    /// What does that.
    pub(crate) timer: AbortHandle,
}

#[derive(Debug)]
enum Entry {
    /// A connection has it.
    Held(Holder),
    /// It goes over to a connection.
    Passing {
        to: Holder,
        /// What the one before has left of it.
        left: Option<Box<Kept>>,
        /// Who else would have it, and who does what is due of it.
        waiting: Vec<oneshot::Sender<()>>,
    },
    /// Its client is away.
    Kept(Box<Kept>),
}

/// What comes of a claim.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// The claimant has it, with what was kept of it.
    Now(Option<Box<Kept>>),
    /// It will, once this one has let go: then [`Sessions::settle`].
    After(Holder),
    /// Another claim is under way: to be claimed again when that is over.
    Busy(oneshot::Receiver<()>),
}

/// What is due of a session that is kept.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) will: Option<Outgoing>,
    pub(crate) next: Next,
}

/// When a session is to be looked at again.
#[derive(Debug)]
pub(crate) enum Next {
    /// Then.
    At(Instant),
    /// When its claimant has it, or is gone before it had it.
    Over(oneshot::Receiver<()>),
    /// It is kept no more.
    Never,
}

impl Holder {
    fn is(&self, other: &Self) -> bool {
        (self.shard, self.ticket) == (other.shard, other.ticket)
    }
}

impl Kept {
    /// When something is due of it first.
    pub(crate) fn due_at(&self) -> Instant {
        self.will.as_ref().map_or(self.expires_at, |(at, _)| (*at).min(self.expires_at))
    }
}

impl Count {
    /// Whether one more may be kept beside those that are, where this is the most.
    fn has_room(self, kept: Self, more: &Kept) -> bool {
        kept.sessions < self.sessions && kept.subscriptions + more.places.len() <= self.subscriptions
    }
}

impl Sessions {
    /// Of a node that keeps so many.
    pub(crate) fn new(kept_max: Count) -> Self {
        Self { kept_max, book: Mutex::default() }
    }

    /// How many are kept.
    pub(crate) fn kept(&self) -> Count {
        self.with(|book| book.kept)
    }

    /// Wants a session for a connection.
    pub(crate) fn claim(&self, name: &ClientName, claimant: &Holder) -> Claimed {
        self.with(|book| match book.entries.get_mut(name) {
            Some(Entry::Passing { waiting, .. }) => Claimed::Busy(wait(waiting)),
            Some(entry @ Entry::Held(_)) => {
                let passing = Entry::Passing { to: claimant.clone(), left: None, waiting: Vec::new() };
                match std::mem::replace(entry, passing) {
                    Entry::Held(holder) => Claimed::After(holder),
                    // It was matched above.
                    Entry::Passing { .. } | Entry::Kept(_) => Claimed::Now(None),
                }
            }
            Some(Entry::Kept(_)) | None => {
                let kept = book.insert(name, Entry::Held(claimant.clone()));
                Claimed::Now(kept)
            }
        })
    }

    /// The one before has let go: the session is the claimant's, with what was left of it.
    pub(crate) fn settle(&self, name: &ClientName, claimant: &Holder) -> Option<Box<Kept>> {
        self.with(|book| match book.entries.get(name) {
            Some(Entry::Passing { to, .. }) if to.is(claimant) => book.insert(name, Entry::Held(claimant.clone())),
            _ => None,
        })
    }

    /// A connection that had it has ended, and leaves this. Given back where that is not kept: there is no room, or nobody
    /// knows the connection any more.
    pub(crate) fn release(&self, name: &ClientName, holder: &Holder, kept: Option<Box<Kept>>) -> Option<Box<Kept>> {
        let kept_max = self.kept_max;
        self.with(|book| match (book.entries.get_mut(name), kept) {
            // However many are kept: it is taken up in a moment.
            (Some(Entry::Passing { left, .. }), kept) => std::mem::replace(left, kept),
            (Some(Entry::Held(known)), Some(kept)) if known.is(holder) && kept_max.has_room(book.kept, &kept) => {
                book.insert(name, Entry::Kept(kept));
                None
            }
            (Some(Entry::Held(known)), kept) if known.is(holder) => {
                book.entries.remove(name);
                kept
            }
            (_, kept) => kept,
        })
    }

    /// The claimant is gone before it had it.
    pub(crate) fn abandon(&self, name: &ClientName, claimant: &Holder) {
        self.with(|book| {
            let left = match book.entries.get_mut(name) {
                Some(Entry::Passing { to, left, .. }) if to.is(claimant) => left.take(),
                _ => return,
            };
            match left {
                Some(kept) => _ = book.insert(name, Entry::Kept(kept)),
                None => _ = book.entries.remove(name),
            }
        });
    }

    /// What is due of a session that is kept. One whose time is up is forgotten.
    pub(crate) fn due(&self, name: &ClientName, now: Instant) -> Due {
        let (due, ended) = self.with(|book| book.due(name, now));
        // Giving its claims back is not for everybody to wait for.
        drop(ended);
        due
    }

    fn with<R>(&self, work: impl FnOnce(&mut Book) -> R) -> R {
        // Nothing is left half done where something could panic.
        work(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One more waits until a session has passed.
fn wait(waiting: &mut Vec<oneshot::Sender<()>>) -> oneshot::Receiver<()> {
    let (over, is_over) = oneshot::channel();
    waiting.push(over);
    is_over
}

impl Book {
    /// Writes an entry over another; returns what was kept there. Who waited for it may claim it now.
    fn insert(&mut self, name: &ClientName, entry: Entry) -> Option<Box<Kept>> {
        if let Entry::Kept(kept) = &entry {
            self.kept.sessions += 1;
            self.kept.subscriptions += kept.places.len();
        }
        let before = self.entries.insert(name.clone(), entry);
        self.left_of(before?)
    }

    /// What an entry that is no more had of a session.
    fn left_of(&mut self, entry: Entry) -> Option<Box<Kept>> {
        match entry {
            Entry::Held(_) => None,
            // Those who wait see that their sender is gone.
            Entry::Passing { left, .. } => left,
            Entry::Kept(kept) => {
                self.kept.sessions -= 1;
                self.kept.subscriptions -= kept.places.len();
                Some(kept)
            }
        }
    }

    /// What is due of a session, and what is left of it where that was the end.
    fn due(&mut self, name: &ClientName, now: Instant) -> (Due, Option<Box<Kept>>) {
        let kept = match self.entries.get_mut(name) {
            Some(Entry::Kept(kept)) => kept,
            // Its client is there.
            Some(Entry::Passing { left: Some(_), waiting, .. }) => {
                return (Due { will: None, next: Next::Over(wait(waiting)) }, None);
            }
            Some(Entry::Passing { left: None, .. } | Entry::Held(_)) | None => {
                return (Due { will: None, next: Next::Never }, None);
            }
        };
        let is_over = kept.expires_at <= now;
        let will = kept.will.take_if(|(at, _)| is_over || *at <= now).map(|(_, message)| message);
        if !is_over {
            return (Due { will, next: Next::At(kept.due_at()) }, None);
        }
        let ended = self.entries.remove(name).and_then(|entry| self.left_of(entry));
        (Due { will, next: Next::Never }, ended)
    }
}

#[cfg(test)]
mod tests;
