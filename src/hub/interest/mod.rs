//! Who wants which pattern of a source, over all shards, and which bindings stand for that.
//!
//! Shards hold a [`Claim`] for each pattern that a session subscribed to; equal patterns share one entry, so 100,000
//! claims on one topic are one binding. The source asks for a [`Plan`], carries it out at the broker, and tells what came
//! of it. Decisions are [`plan`]'s; this file adds the lock, the counting and the waiting. It names no broker and no client.

mod fixed;
mod fold;
mod lattice;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::hub::interest::fixed::Fixed;
pub use crate::hub::interest::plan::{Folding, Plan};
use crate::hub::interest::plan::{Limits, Planner};
use crate::model::topic::Pattern;

/// How a source decides what to bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingMode {
    /// What the sessions want, and nothing else.
    OnDemand {
        /// What the exchange can be bound by.
        kind: BindingKind,
        /// How long a binding stays after its last claim.
        linger: Duration,
        /// Bindings at most, lingering ones included. Patterns beyond that are folded into covering ones.
        bindings_max: usize,
    },
    /// These, whoever wants what: claims stand once all of them do.
    Fixed(Vec<Pattern>),
}

/// What an exchange can be bound by on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingKind {
    /// Patterns.
    Topic,
    /// Literal topics only.
    Direct,
}

/// How far a claim has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is bound for it yet, or no longer.
    Wanted,
    /// Some binding that stands includes it: what is published from now on will come.
    Stands,
    /// It will not be bound, and why, in a sentence for the client.
    Refused(String),
}

/// A pattern that somebody wants, for the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The pattern.
    pub pattern: Pattern,
    /// How many want it.
    pub claims: usize,
    /// How far that has come.
    pub standing: Standing,
}

/// The interest in one source.
#[derive(Debug)]
pub struct Interest {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: Box<str>,
    kind: BindingKind,
    state: Mutex<State>,
    /// Rung when there may be something to plan.
    changed: Notify,
    /// How often the standing of any claim was told anew.
    told: AtomicU64,
    /// How often a claim was refused that had stood.
    lapses: AtomicU64,
    /// Rung when a standing is told anew; one a shard.
    doorbells: Mutex<Vec<Arc<Notify>>>,
    is_fixed: bool,
}

#[derive(Debug)]
struct State {
    bindings: Bindings,
    /// What is claimed. Bounded by the sessions and the subscriptions that each of them may have.
    claimed: HashMap<Pattern, Claimed, foldhash::fast::RandomState>,
}

#[derive(Debug)]
enum Bindings {
    OnDemand(Box<Planner>),
    Fixed(Fixed),
}

#[derive(Debug)]
struct Claimed {
    claims: usize,
    standing: watch::Sender<Standing>,
}

/// One session's wish for one pattern. Dropping it takes the wish back.
#[derive(Debug)]
pub struct Claim {
    shared: Arc<Shared>,
    pattern: Pattern,
    standing: watch::Receiver<Standing>,
}

impl Interest {
    /// Nobody wants anything yet. The source's name is for messages to clients.
    pub fn new(source: &str, mode: BindingMode) -> Self {
        let is_fixed = matches!(mode, BindingMode::Fixed(_));
        let (kind, bindings) = match mode {
            BindingMode::OnDemand { kind, linger, bindings_max } => {
                let too_many = format!(
                    "source '{source}' has all the {bindings_max} bindings that clients may make: \
                     subscribe to fewer or wider patterns, or raise source.{source}.bindings_max"
                );
                let takes_patterns = kind == BindingKind::Topic;
                let planner = Planner::new(Limits { linger, bindings_max, takes_patterns, too_many });
                (kind, Bindings::OnDemand(Box::new(planner)))
            }
            BindingMode::Fixed(patterns) => (BindingKind::Topic, Bindings::Fixed(Fixed::new(patterns))),
        };
        let state = Mutex::new(State { bindings, claimed: HashMap::default() });
        let shared = Shared {
            source: source.into(),
            kind,
            state,
            changed: Notify::new(),
            told: AtomicU64::new(0),
            lapses: AtomicU64::new(0),
            doorbells: Mutex::default(),
            is_fixed,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether the bindings are the same whatever is claimed.
    pub fn is_fixed(&self) -> bool {
        self.shared.is_fixed
    }

    /// Why a pattern can never be bound here, if it cannot, in a sentence for the client.
    pub fn unbindable(&self, pattern: &Pattern) -> Option<String> {
        self.shared.unbindable(pattern)
    }

    /// Wants a pattern. The claim may stand at once.
    pub fn claim(&self, pattern: &Pattern) -> Claim {
        let standing = self.shared.claim(pattern);
        Claim { shared: self.shared.clone(), pattern: pattern.clone(), standing }
    }

    /// How often the standing of any claim changed: who remembers the number need not look at each claim.
    pub fn tellings(&self) -> u64 {
        self.shared.told.load(Ordering::Acquire)
    }

    /// How often a claim that had stood was refused: by what stands on it nothing will come any more. Not where bindings are
    /// fixed: there a refusal takes the link with it, and they are tried again.
    pub fn lapses(&self) -> u64 {
        self.shared.lapses.load(Ordering::Acquire)
    }

    /// Adds a shard's doorbell: rung when the standing of a claim changes.
    pub(super) fn add_doorbell(&self, doorbell: Arc<Notify>) {
        self.shared.doorbells.lock().unwrap_or_else(PoisonError::into_inner).push(doorbell);
    }

    /// Waits until there may be something to plan. For one task: the source's binder.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// What to ask of the broker now. What it names counts as asked: it is not named again before it was answered by
    /// [`Self::stands`], [`Self::refused`], [`Self::gone`] or [`Self::lost`].
    pub fn plan(&self, now: Instant) -> Plan {
        self.shared.change(|bindings| match bindings {
            Bindings::OnDemand(planner) => planner.plan(now),
            Bindings::Fixed(fixed) => fixed.plan(),
        })
    }

    /// The broker confirmed a binding.
    pub fn stands(&self, pattern: &Pattern) {
        self.shared.answer(|bindings| match bindings {
            Bindings::OnDemand(planner) => planner.stands(pattern),
            Bindings::Fixed(fixed) => fixed.stands(pattern),
        });
    }

    /// The broker will not make a binding; the sentence reaches the clients that wanted it.
    pub fn refused(&self, pattern: &Pattern, reason: String) {
        self.shared.answer(|bindings| match bindings {
            Bindings::OnDemand(planner) => planner.refused(pattern, reason),
            Bindings::Fixed(fixed) => fixed.refused(reason),
        });
    }

    /// A binding stands no longer.
    pub fn gone(&self, pattern: &Pattern) {
        self.shared.answer(|bindings| match bindings {
            Bindings::OnDemand(planner) => planner.gone(pattern),
            Bindings::Fixed(fixed) => fixed.gone(pattern),
        });
    }

    /// No binding stands any more and none is under way: everything claimed is wanted again, refusals included.
    pub fn lost(&self) {
        self.shared.answer(|bindings| match bindings {
            Bindings::OnDemand(planner) => planner.lost(),
            Bindings::Fixed(fixed) => fixed.lost(),
        });
    }

    /// How many bindings stand.
    pub fn bindings(&self) -> usize {
        match &self.shared.lock().bindings {
            Bindings::OnDemand(planner) => planner.bound().count(),
            Bindings::Fixed(fixed) => fixed.bound().count(),
        }
    }

    /// How many bindings there are or may be at the broker.
    pub(super) fn held(&self) -> usize {
        match &self.shared.lock().bindings {
            Bindings::OnDemand(planner) => planner.held(),
            // The whole list counts as one.
            Bindings::Fixed(_) => 1,
        }
    }

    /// The bindings that stand, in order of their texts, at most so many.
    pub fn bound(&self, count_max: usize) -> Vec<Pattern> {
        match &self.shared.lock().bindings {
            Bindings::OnDemand(planner) => planner.bound().take(count_max).cloned().collect(),
            Bindings::Fixed(fixed) => fixed.bound().take(count_max).cloned().collect(),
        }
    }

    /// What is claimed, in no order, at most so many.
    pub fn patterns(&self, count_max: usize) -> Vec<Wanted> {
        let state = self.shared.lock();
        let wanted = state.claimed.iter().take(count_max).map(|(pattern, claimed)| Wanted {
            pattern: pattern.clone(),
            claims: claimed.claims,
            standing: claimed.standing.borrow().clone(),
        });
        wanted.collect()
    }

    /// For fixed bindings: whether all of them stand once this one does. `None` when bindings follow demand.
    pub(super) fn fixed_once(&self, pattern: &Pattern) -> Option<bool> {
        match &self.shared.lock().bindings {
            Bindings::OnDemand(_) => None,
            Bindings::Fixed(fixed) => Some(fixed.is_complete_with(pattern)),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one claim and returns where its standing is told.
    fn claim(&self, pattern: &Pattern) -> watch::Receiver<Standing> {
        let mut state = self.lock();
        let State { bindings, claimed } = &mut *state;
        if let Some(known) = claimed.get_mut(pattern) {
            known.claims += 1;
            let refused = matches!(*known.standing.borrow(), Standing::Refused(_));
            if !refused || self.unbindable(pattern).is_some() {
                return known.standing.subscribe();
            }
        }
        // A new pattern, or one that was refused: whoever asks anew gets a new attempt.
        let standing = match (self.unbindable(pattern), bindings) {
            (Some(reason), _) => Standing::Refused(reason),
            (None, Bindings::OnDemand(planner)) => planner.want(pattern),
            (None, Bindings::Fixed(fixed)) => fixed.standing(),
        };
        let entry = claimed
            .entry(pattern.clone())
            .or_insert_with(|| Claimed { claims: 1, standing: watch::Sender::new(Standing::Wanted) });
        entry.standing.send_replace(standing);
        let receiver = entry.standing.subscribe();
        self.changed.notify_one();
        receiver
    }

    /// Why a pattern can never be bound, if it cannot.
    fn unbindable(&self, pattern: &Pattern) -> Option<String> {
        (self.kind == BindingKind::Direct && !pattern.is_literal()).then(|| {
            let source = &self.source;
            format!(
                "source '{source}' is a direct exchange, which cannot be bound by patterns: \
                 subscribe to literal topics or list source.{source}.bindings"
            )
        })
    }

    fn release(&self, pattern: &Pattern) {
        let mut state = self.lock();
        let State { bindings, claimed } = &mut *state;
        let Some(known) = claimed.get_mut(pattern) else { return };
        known.claims -= 1;
        if known.claims > 0 {
            return;
        }
        claimed.remove(pattern);
        if let Bindings::OnDemand(planner) = bindings {
            planner.unwant(pattern);
            self.changed.notify_one();
        }
    }

    /// Changes the bindings and tells the claims what that means for them.
    fn change<T>(&self, change: impl FnOnce(&mut Bindings) -> T) -> T {
        let mut state = self.lock();
        let State { bindings, claimed } = &mut *state;
        let result = change(bindings);
        let mut is_news = false;
        match bindings {
            Bindings::OnDemand(planner) => {
                for (pattern, standing) in planner.news() {
                    is_news = true;
                    tell(claimed.get(&pattern), standing);
                }
                self.lapses.store(planner.lapses(), Ordering::Release);
            }
            Bindings::Fixed(fixed) => {
                if let Some(standing) = fixed.news() {
                    is_news = true;
                    claimed.values().for_each(|known| tell(Some(known), standing.clone()));
                }
            }
        }
        drop(state);
        if is_news {
            self.told.fetch_add(1, Ordering::AcqRel);
            self.doorbells
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .for_each(|doorbell| doorbell.notify_one());
        }
        result
    }

    /// An answer of the broker, after which there may be more to plan.
    fn answer(&self, change: impl FnOnce(&mut Bindings)) {
        self.change(change);
        self.changed.notify_one();
    }
}

fn tell(known: Option<&Claimed>, standing: Standing) {
    if let Some(known) = known {
        known.standing.send_if_modified(|told| {
            let is_news = *told != standing;
            *told = standing;
            is_news
        });
    }
}

impl Claim {
    /// What is claimed.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// How far it has come.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Waits until it stands.
    ///
    /// # Errors
    /// A sentence for the client when it is refused.
    pub async fn settled(&self) -> Result<(), String> {
        let mut standing = self.standing.clone();
        let settled = standing.wait_for(|standing| *standing != Standing::Wanted).await;
        match settled.as_deref() {
            Ok(Standing::Refused(reason)) => Err(reason.clone()),
            // A sender cannot go before its last claim.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.release(&self.pattern);
    }
}
