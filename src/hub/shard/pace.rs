//! What a paced subscription has that others have not: a bucket, and what it governs.
//!
//! A session is sent a message once. Where paced subscriptions want it, the strictest of those that stood when it was published
//! governs it: that one sends it, in its own time, and no other of the session does. Who that is does not change any more,
//! whatever is subscribed later.

use std::time::Instant;

use crate::hub::shard::bucket::Bucket;
use crate::hub::shard::subscription::Subscription;
use crate::model::publication::{Publication, SourceId};
use crate::model::rate::Rate;
use crate::model::selector::Selector;

/// Messages of a common sequence that are looked at in a step however few may be sent.
const SHARED_MESSAGES_MIN: usize = 16;

/// What a paced subscription has beyond others.
#[derive(Debug)]
pub(super) struct Pace {
    /// Nothing where one that was not paced has ended and left this to a paced one in its place.
    pub(super) bucket: Option<Bucket>,
    /// What of each source it governs, as far as it wants it.
    reigns: Vec<Reign>,
    /// Its subscription has ended, as so many before it, and goes on only to send others what they were not sent for its
    /// sake. Of those without a rate the one that ended first governs what several of them want.
    ended: Option<u32>,
}

/// What of a source is governed: after one offset, and up to another.
#[derive(Debug, Clone, Copy)]
struct Reign {
    source: SourceId,
    after: u64,
    until: u64,
}

impl Pace {
    /// At a rate, or as fast as can be.
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { bucket: rate.map(Bucket::new), reigns: Vec::new(), ended: None }
    }

    /// From now on it governs what comes after an offset.
    pub(super) fn reign(&mut self, source: SourceId, after: u64) {
        self.reigns.push(Reign { source, after, until: u64::MAX });
    }

    /// Its subscription has ended, as the one of this number among those of its session.
    pub(super) fn end(&mut self, number: u32) {
        self.ended = Some(number);
    }

    /// The number of its end.
    pub(super) fn ended(&self) -> Option<u32> {
        self.ended
    }

    /// What comes after an offset it does not govern any more.
    pub(super) fn abdicate(&mut self, source: SourceId, until: u64) {
        if let Some(reign) = self.reigns.iter_mut().find(|reign| reign.source == source) {
            reign.until = until;
        }
    }

    /// The source's stream begins anew, and with it what is governed; nobody is owed anything of the one before.
    pub(super) fn begin_anew(&mut self, source: SourceId) {
        for reign in self.reigns.iter_mut().filter(|reign| reign.source == source) {
            reign.after = 0;
            reign.until = if self.ended.is_some() { 0 } else { u64::MAX };
        }
    }

    /// After which offset of a source it governs; of one that it does not read, none.
    pub(super) fn reigns_after(&self, source: SourceId) -> Option<u64> {
        self.reigns.iter().find(|reign| reign.source == source).map(|reign| reign.after)
    }

    /// The last offset of a source that it governs.
    pub(super) fn reigns_until(&self, source: SourceId) -> u64 {
        self.reigns.iter().find(|reign| reign.source == source).map_or(0, |reign| reign.until)
    }

    fn covers(&self, publication: &Publication) -> bool {
        let offset = publication.offset;
        let covers = |reign: &Reign| reign.after < offset && offset <= reign.until;
        self.reigns.iter().any(|reign| reign.source == publication.source.id && covers(reign))
    }
}

impl Subscription {
    /// Whether it is paced, or was before it ended.
    pub(super) fn is_paced(&self) -> bool {
        self.pace.is_some()
    }

    /// Whether it has ended, and goes on for others only.
    pub(super) fn is_parting(&self) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.ended.is_some())
    }

    /// When it may be sent something again.
    pub(super) fn refilled_at(&self, now: Instant) -> Instant {
        self.bucket().map_or(now, |bucket| bucket.refilled_at(now))
    }

    /// So many messages were sent.
    pub(super) fn take_tokens(&mut self, messages: usize, now: Instant) {
        if let Some(bucket) = self.pace.as_mut().and_then(|pace| pace.bucket.as_mut()) {
            bucket.take(messages, now);
        }
    }

    /// Whether a publication is its own to send, unless a stricter one wants it.
    pub(super) fn governs(&self, publication: &Publication) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.covers(publication)) && self.wanted.matches(&publication.draft)
    }

    fn bucket(&self) -> Option<&Bucket> {
        self.pace.as_ref().and_then(|pace| pace.bucket.as_ref())
    }

    pub(super) fn is_stricter_than(&self, other: &Self) -> bool {
        self.strictness() < other.strictness()
    }

    /// The lowest first: how strict it is.
    fn strictness(&self) -> (u32, u32) {
        let ended = || self.pace.as_ref().and_then(|pace| pace.ended).unwrap_or(0);
        self.bucket().map_or_else(|| (u32::MAX, ended()), |bucket| (bucket.rate().messages(), self.id.0))
    }
}

/// Whether any subscription of a session is paced.
pub(super) fn any_paced(all: &[Subscription]) -> bool {
    all.iter().any(Subscription::is_paced)
}

/// Which of a session's subscriptions alone sends it a publication; none where no paced one stood when it was published.
pub(super) fn governor(all: &[Subscription], publication: &Publication) -> Option<usize> {
    let governing = all.iter().enumerate().filter(|(_, one)| one.governs(publication));
    governing.min_by_key(|(_, one)| one.strictness()).map(|(number, _)| number)
}

/// Whether the subscription of this number sends what it reads, or another one of the session will, or has since this one was
/// asked for.
pub(super) fn is_sent_by(all: &[Subscription], number: usize, publication: &Publication) -> bool {
    let Some(one) = all.get(number) else { return false };
    if let Some(governor) = governor(all, publication) {
        let had_sent = || all.get(governor).is_some_and(|governor| one.was_asked_after(governor, publication));
        return if governor == number { is_awaited(all, number, publication) } else { !one.is_parting() && had_sent() };
    }
    let others = all.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, other)| other);
    let mut sends = others.filter(|other| other.sends_live(publication) && !one.was_asked_after(other, publication));
    // Of one that has ended nobody asks anything.
    !one.is_parting() && sends.next().is_none()
}

/// Whether anybody is to be sent what the subscription of this number governs: of one that has ended, others only are.
fn is_awaited(all: &[Subscription], number: usize, publication: &Publication) -> bool {
    let is_parting = all.get(number).is_some_and(Subscription::is_parting);
    !is_parting || all.iter().any(|other| !other.is_parting() && other.counts_on(publication))
}

/// What may be sent in one step.
#[derive(Debug)]
pub(super) enum Room {
    /// Whatever there is.
    Any,
    /// So many messages.
    Messages(usize),
    /// So many of what each of these wants, the strictest first; whatever else there is.
    Shares(Vec<(Selector, usize)>),
}

impl Room {
    /// That of the subscription of this number, which is read alone.
    pub(super) fn of(all: &[Subscription], number: usize, now: Instant) -> Self {
        let Some(one) = all.get(number) else { return Self::Any };
        // What one leaves to others that are not paced does not wait any more.
        let is_bound = !one.is_parting() || all.iter().any(|other| other.is_paced() && !other.is_parting());
        let bucket = one.bucket().filter(|_| is_bound);
        bucket.map_or(Self::Any, |bucket| Self::Messages(bucket.tokens(now)))
    }

    /// That of subscriptions which are sent one sequence.
    pub(super) fn of_all(all: &[Subscription], now: Instant) -> Self {
        let mut paced: Vec<&Subscription> = all.iter().filter(|one| one.is_paced()).collect();
        paced.sort_by_key(|one| one.strictness());
        let share = |one: &Subscription| Some((one.wanted.clone(), one.bucket()?.tokens(now)));
        Self::Shares(paced.into_iter().filter_map(share).collect())
    }

    /// Whether one more message may be sent; if so, it is.
    pub(super) fn takes(&mut self, publication: &Publication) -> bool {
        let left = match self {
            Self::Any => return true,
            Self::Messages(left) => Some(left),
            Self::Shares(shares) => {
                let share = shares.iter_mut().find(|(wanted, _)| wanted.matches(&publication.draft));
                share.map(|(_, left)| left)
            }
        };
        let Some(left) = left else { return true };
        let takes = *left > 0;
        *left -= usize::from(takes);
        takes
    }

    /// How many messages are worth looking for.
    pub(super) fn messages(&self) -> usize {
        match self {
            Self::Any => usize::MAX,
            Self::Messages(left) => *left,
            // Besides these there may be some that nobody paces.
            Self::Shares(shares) => shares.iter().map(|(_, left)| *left).sum::<usize>().max(SHARED_MESSAGES_MIN),
        }
    }

    /// Whether there is any bound: what is sent without one is no debt.
    pub(super) fn is_bound(&self) -> bool {
        !matches!(self, Self::Any)
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Messages(0))
    }
}

/// Charges a message of a common sequence to the strictest that wants it.
pub(super) fn charge(all: &mut [Subscription], publication: &Publication, now: Instant) {
    let wanting = all.iter_mut().filter(|one| one.is_paced() && one.wanted.matches(&publication.draft));
    if let Some(strictest) = wanting.min_by_key(|one| one.strictness()) {
        strictest.take_tokens(1, now);
    }
}
