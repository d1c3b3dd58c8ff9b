//! A lane: one source as one shard sees it. Where the shard is in the source's log, who subscribed to what of it, and
//! the claims by which the shard keeps the bindings of all its subscribers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::hub::archive::{Check, Verdict};
use crate::hub::feed::{Link, SourceState};
use crate::hub::index::SubscriberId;
use crate::hub::index::audience::Audience;
use crate::hub::interest::{Claim, Standing};
use crate::hub::log::{Hole, Log, LogGap, ReadBounds, Resume};
use crate::hub::shard::SubscriptionId;
use crate::model::cursor::Cursor;
use crate::model::gap::GapReason;
use crate::model::publication::{Publication, SourceInfo};
use crate::model::selector::Selector;
use crate::model::stream;
use crate::model::topic::Pattern;

/// Topics whose matches a lane remembers.
const CACHED_TOPICS_MAX: usize = 16_384;

/// Claims that a lane keeps for a time. Whoever finds no room stands by the lingering of bindings alone.
const LEASES_MAX: usize = 4_096;

/// One claim for all of a shard's subscriptions on a pattern.
#[derive(Debug)]
pub struct SharedClaim(Claim);

impl SharedClaim {
    /// Whether the binding stands.
    pub fn standing(&self) -> Standing {
        self.0.standing()
    }
}

/// One source as one shard sees it.
#[derive(Debug)]
pub(super) struct Lane {
    state: Arc<SourceState>,
    position: u64,
    /// Transitions of the link that this shard has told of.
    link_changes: u64,
    /// How often the source's stream had turned out to be another one when this shard last looked.
    remade: u64,
    /// Who is pushed what is live.
    pub(super) live: Audience,
    /// Whose subscriptions are paced, and read what they want from the log in their own time.
    pub(super) paced: Audience<Member>,
    claims: HashMap<Pattern, (Arc<SharedClaim>, usize)>,
    /// Claims that are kept for polls that may come, each until a time.
    leases: HashMap<Pattern, Instant>,
    /// How often claims had been refused that had stood, when this shard last looked.
    lapses: u64,
    /// Where the log ended when it saw that there were more, until it has come so far.
    lapsed_at: Option<u64>,
}

/// Why nothing will come of a claim.
#[derive(Debug)]
pub(super) struct Refused {
    /// In the broker's words, or ours.
    pub(super) sentence: String,
    /// Whether something else that is bound lets in what it wanted, for now.
    pub(super) is_covered: bool,
}

/// With which lane those begin who read one after the other, a step at a time: after the one that they read before, so that
/// no source waits for another to fall silent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rotation(u16);

impl Rotation {
    /// All lanes, in the order in which this step looks at them.
    pub(super) fn of(self, lanes: &[Lane]) -> impl Iterator<Item = &Lane> {
        let (passed, next) = lanes.split_at(usize::from(self.0).min(lanes.len()));
        next.iter().chain(passed)
    }

    /// This step was one lane's.
    pub(super) fn pass(&mut self, lane: &Lane) {
        self.0 = lane.info().id.0 + 1;
    }
}

/// A subscription among all of its shard.
pub(super) type Member = (SubscriberId, SubscriptionId);

/// What a lane read on.
#[derive(Debug, Default)]
pub(super) struct ReadOn {
    /// Whether there was anything at all.
    pub(super) something: bool,
    /// To be told before the publications.
    pub(super) links: Vec<LinkChange>,
    /// Whether there had been no link before: that concerns only those who were told so.
    pub(super) is_first_link: bool,
    /// Likewise.
    pub(super) missed: Vec<Loss>,
    /// In order.
    pub(super) publications: Vec<Arc<Publication>>,
    /// The shard was so slow that the log moved past it, and everybody reads on from this position in the stream itself.
    pub(super) fallen: Option<u64>,
    /// The stream is another one: whatever anybody has read of it is void.
    pub(super) remade: bool,
}

/// Something that those who read the source may have missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// The source lost it.
    Hole(Hole),
    /// The shard was so slow that the log moved past it.
    Overrun {
        /// Where the shard was.
        after: u64,
    },
    /// The stream was deleted and made anew.
    Remade {
        /// How often that had happened.
        times: u64,
    },
}

/// A transition of the link to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkChange {
    /// It went away.
    Down,
    /// It came back.
    Up,
}

impl Lane {
    pub(super) fn new(state: Arc<SourceState>) -> Self {
        let position = state.log().end();
        let (link_changes, remade) = (state.link().changes, state.remade());
        let (live, paced) = (Audience::new(CACHED_TOPICS_MAX), Audience::new(CACHED_TOPICS_MAX));
        let (claims, leases) = (HashMap::new(), HashMap::new());
        let lapses = state.interest().lapses();
        Self { state, position, link_changes, remade, live, paced, claims, leases, lapses, lapsed_at: None }
    }

    pub(super) fn info(&self) -> &Arc<SourceInfo> {
        self.state.info()
    }

    pub(super) fn state(&self) -> &SourceState {
        &self.state
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The place that is meant by the number before a message's. Of a stream that number is no message's.
    pub(super) fn place_before(&self, read: u64) -> u64 {
        stream::named(read).filter(|_| self.state.archive().is_some()).map_or(read, stream::before)
    }

    /// How often its stream had turned out to be another one when the shard last looked. To be compared under the log's lock,
    /// where it has to be known whether that is the stream of which positions here are.
    pub(super) fn remade(&self) -> u64 {
        self.remade
    }

    /// How often a filter was asked about a message.
    pub(super) fn filters_asked(&self) -> u64 {
        self.live.filters_asked() + self.paced.filters_asked()
    }

    /// What a loss means for who wants this; nothing when it concerns others only.
    pub(super) fn gap(&self, loss: &Loss, wanted: &Selector) -> Option<LogGap> {
        let gap = match loss {
            Loss::Hole(hole) => Some(hole.gap(&wanted.pattern)),
            Loss::Overrun { after } => self.state.log().overrun(&wanted.pattern, *after),
            Loss::Remade { .. } => Some(LogGap { reason: GapReason::UnknownCursor, missed: None }),
        };
        gap.map(|gap| gap.filtered(wanted))
    }

    /// The question whether a cursor of a stream is genuine. Where the log can tell, it is answered already; that is held,
    /// because the log goes on while claims are made to stand.
    pub(super) fn check(&self, after: Cursor) -> Option<Arc<Check>> {
        let archive = self.state.archive()?;
        // Locked until the question is there, so that both are about the same stream.
        let log = self.state.log();
        Some(
            log.verdict(after)
                .map_or_else(|| archive.check(after.offset, log.floor()), |verdict| archive.answered(verdict)),
        )
    }

    /// Where somebody who has seen everything up to a cursor goes on in the log, which is locked; `check` is what
    /// [`Self::check`] gave.
    pub(super) fn resume(&self, log: &Log, pattern: &Pattern, (after, check): (Cursor, Option<&Check>)) -> Resume {
        let Some(archive) = self.state.archive() else { return log.resume(pattern, after) };
        let verdict = log.verdict(after).or_else(|| check.and_then(|check| archive.verdict(check)));
        let verdict = verdict.unwrap_or(Verdict::Foreign);
        log.resume_stream(pattern, after, verdict, archive.cut(log.floor()))
    }

    /// Whether the source has no broker: it has lost it, or has not reached it yet.
    pub(super) fn is_out(&self) -> bool {
        !self.state.link().up
    }

    /// Whether it has lost it.
    pub(super) fn is_lost(&self) -> bool {
        self.is_out() && self.state.ever_up()
    }

    /// The shard's claim on a pattern, and the pattern with the text that all of them share.
    pub(super) fn claim(&mut self, pattern: &Pattern) -> (Pattern, Arc<SharedClaim>) {
        if let Some((shared, (claim, count))) =
            self.claims.get_key_value(pattern).map(|(key, _)| key.clone()).zip(self.claims.get_mut(pattern))
        {
            *count += 1;
            return (shared, claim.clone());
        }
        let claim = Arc::new(SharedClaim(self.state.interest().claim(pattern)));
        self.claims.insert(pattern.clone(), (claim.clone(), 1));
        (pattern.clone(), claim)
    }

    /// The claim on a pattern, if there is one: whoever has it keeps it, though the lane gives it back.
    pub(super) fn claimed(&self, pattern: &Pattern) -> Option<Arc<SharedClaim>> {
        self.claims.get(pattern).map(|(claim, _)| claim.clone())
    }

    /// Keeps a claim that stands or is wanted until a time, whoever gives it back before.
    pub(super) fn lease(&mut self, pattern: &Pattern, until: Instant) {
        if let Some(known) = self.leases.get_mut(pattern) {
            *known = until.max(*known);
        } else if self.leases.len() < LEASES_MAX {
            let (pattern, _) = self.claim(pattern);
            self.leases.insert(pattern, until);
        }
    }

    /// Gives the claims back that were to be kept until now.
    pub(super) fn end_leases(&mut self, now: Instant) {
        let ended: Vec<Pattern> =
            self.leases.extract_if(|_, until| *until <= now).map(|(pattern, _)| pattern).collect();
        ended.iter().for_each(|pattern| self.release(pattern));
    }

    /// How many claims are kept.
    pub(super) fn leases(&self) -> usize {
        self.leases.len()
    }

    /// Gives one claim back.
    pub(super) fn release(&mut self, pattern: &Pattern) {
        if let Some((_, count)) = self.claims.get_mut(pattern) {
            *count -= 1;
            if *count == 0 {
                self.claims.remove(pattern);
            }
        }
    }

    /// The claims that are refused, once, after any of them had stood: when the shard has told everything that was before,
    /// the return of the link among it. That is rare, so all claims are looked at then, and none otherwise.
    pub(super) fn take_refused(&mut self) -> Option<HashMap<Pattern, Refused>> {
        let lapses = self.state.interest().lapses();
        if std::mem::replace(&mut self.lapses, lapses) != lapses {
            self.lapsed_at = Some(self.state.log().end());
        }
        let told = Link { up: true, changes: self.link_changes };
        self.lapsed_at.take_if(|end| *end <= self.position && self.state.link() == told)?;
        let sentence = |(pattern, (claim, _)): (&Pattern, &(Arc<SharedClaim>, usize))| match claim.standing() {
            Standing::Refused(sentence) => Some((pattern.clone(), sentence)),
            Standing::Wanted | Standing::Stands => None,
        };
        let sentences: Vec<(Pattern, String)> = self.claims.iter().filter_map(sentence).collect();
        for (pattern, _) in &sentences {
            // Who comes back is to ask anew.
            if self.leases.remove(pattern).is_some() {
                self.release(pattern);
            }
        }
        let log = self.state.log();
        let refused = sentences.into_iter().map(|(pattern, sentence)| {
            let is_covered = log.covers(&pattern);
            (pattern, Refused { sentence, is_covered })
        });
        Some(refused.collect())
    }

    /// Reads on from where the shard is: first what has to be told, then publications up to the next hole.
    pub(super) fn read_on(&mut self, bounds: ReadBounds) -> ReadOn {
        let link = self.state.link();
        let is_first_link = self.link_changes == 0;
        let mut read = ReadOn { links: self.links(link), is_first_link, ..ReadOn::default() };
        // Locked before that is asked: positions are of one stream, and the log of the next may be longer.
        let log = self.state.log();
        let remade = self.state.remade();
        if self.remade != remade {
            (self.remade, self.position) = (remade, log.floor());
            return ReadOn { remade: true, missed: vec![Loss::Remade { times: remade }], something: true, ..read };
        }
        let tail = log.tail(self.position, bounds.messages_max, bounds.bytes_max);
        drop(log);
        if let Some(overrun) = tail.overrun {
            // What the log of a stream has let go of the stream has: its readers go on from there.
            match self.state.archive() {
                Some(_) => read.fallen = Some(self.position),
                None => read.missed.push(Loss::Overrun { after: self.position }),
            }
            self.position = overrun;
        }
        // A hole has a position of its own. It is told when the shard stands right before it, so that it comes after
        // what was before it and before what follows.
        let mut until = tail.next;
        for hole in &tail.holes {
            // A source notes what an outage cost just before it says that the link is back; clients hear of the link first.
            // One that the shard fell past is told at once: there is no place before it any more.
            let is_passed = hole.at < self.position;
            if !is_passed && (hole.at > self.position || !link.up) {
                until = hole.at;
                break;
            }
            self.position = self.position.max(hole.until);
            read.missed.push(Loss::Hole(hole.clone()));
        }
        read.publications = tail.publications;
        read.publications.retain(|publication| publication.offset <= until);
        self.position = self.position.max(until);
        read.something = !read.publications.is_empty() || !read.missed.is_empty() || !read.links.is_empty();
        read.something |= read.fallen.is_some();
        read
    }

    /// The transitions since the last look: the link alternates, so their number and the present state tell them all.
    fn links(&mut self, link: Link) -> Vec<LinkChange> {
        let news = link.changes.saturating_sub(self.link_changes);
        self.link_changes = link.changes;
        let last = if link.up { LinkChange::Up } else { LinkChange::Down };
        let before = if link.up { LinkChange::Down } else { LinkChange::Up };
        match news {
            0 => Vec::new(),
            1 => vec![last],
            // Whatever happened in between, two words bring everybody to the present state.
            _ => vec![before, last],
        }
    }
}
