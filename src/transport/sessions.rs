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

use crate::model::cursor::JointCursor;
use crate::model::outgoing::Outgoing;
use crate::model::topic::Pattern;
use crate::protocol::mqtt::Memory;
use crate::session::ClientName;
use crate::transport::driver::{Control, Ticket};

/// The sessions of a node.
#[derive(Debug)]
pub(crate) struct Sessions {
    kept_max: usize,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    entries: HashMap<ClientName, Entry>,
    /// How many of them are kept.
    kept: usize,
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
    /// Where each of its subscriptions stood.
    pub(crate) places: BTreeMap<Pattern, JointCursor>,
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

impl Sessions {
    /// Of a node that keeps so many.
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { kept_max, book: Mutex::default() }
    }

    /// How many are kept.
    pub(crate) fn kept(&self) -> usize {
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
            (Some(Entry::Held(known)), Some(kept)) if known.is(holder) && book.kept < kept_max => {
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
        self.with(|book| {
            let kept = match book.entries.get_mut(name) {
                Some(Entry::Kept(kept)) => kept,
                // Its client is there.
                Some(Entry::Passing { left: Some(_), waiting, .. }) => {
                    return Due { will: None, next: Next::Over(wait(waiting)) };
                }
                Some(Entry::Passing { left: None, .. } | Entry::Held(_)) | None => {
                    return Due { will: None, next: Next::Never };
                }
            };
            let is_over = kept.expires_at <= now;
            let will = kept.will.take_if(|(at, _)| is_over || *at <= now).map(|(_, message)| message);
            if !is_over {
                return Due { will, next: Next::At(kept.due_at()) };
            }
            book.entries.remove(name);
            book.kept -= 1;
            Due { will, next: Next::Never }
        })
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
        self.kept += usize::from(matches!(entry, Entry::Kept(_)));
        match self.entries.insert(name.clone(), entry)? {
            Entry::Held(_) => None,
            // Those who wait see that their sender is gone.
            Entry::Passing { left, .. } => left,
            Entry::Kept(kept) => {
                self.kept -= 1;
                Some(kept)
            }
        }
    }
}

#[cfg(test)]
mod tests;
