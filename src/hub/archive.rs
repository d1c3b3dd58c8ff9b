//! What a stream still holds and its log no longer does: pages that the source fetches from the stream itself when
//! somebody wants to read there, kept for a while and shared by all who read the same.
//!
//! Readers ask and go on asking; the source takes the wants, the lowest first, so that a page serves everybody whose place
//! lies in it. A cursor that nobody here can vouch for is checked the same way: the message at its place is fetched, and
//! tells by its mark whether it is the one that the cursor names. Pure but for the bell that wakes the source.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::hub::log::weight_bytes;
use crate::model::publication::Publication;
use crate::model::stream;

/// Messages of a page.
pub const PAGE_MESSAGES: usize = 1_024;
/// Bytes that end a page.
pub const PAGE_BYTES: usize = 1 << 20;
/// How many of them a message takes.
pub fn page_bytes(publication: &Publication) -> usize {
    weight_bytes(&publication.draft)
}

/// Bytes of messages that all pages of a source may hold on to; the oldest go first.
const PAGES_BYTES_MAX: usize = 32 << 20;
/// Pages of a source, which may be small.
const PAGES_MAX: usize = 4_096;
/// Places after which readers may want to read at once; who wants more asks again later.
const WANTS_MAX: usize = 65_536;

/// A stretch of the stream.
#[derive(Debug)]
pub struct Page {
    /// Everything after this position is here,
    pub after: u64,
    /// up to this one.
    pub until: u64,
    /// In order.
    pub publications: Vec<Arc<Publication>>,
}

/// Whether a cursor is one that this stream gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The message there is the one that it names.
    Genuine,
    /// Another message is there, or none yet.
    Foreign,
    /// The stream no longer reaches back so far.
    Expired,
}

/// The question whether a cursor is genuine.
#[derive(Debug)]
pub struct Check {
    answer: Mutex<Option<Verdict>>,
    /// Which stream it is about, of those that had the name.
    generation: u64,
}

impl Check {
    fn new(generation: u64, answer: Option<Verdict>) -> Arc<Self> {
        Arc::new(Self { answer: Mutex::new(answer), generation })
    }

    /// The answer, once there is one; [`Archive::verdict`] tells whether it still counts.
    pub fn verdict(&self) -> Option<Verdict> {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, verdict: Verdict) {
        // The first answer holds: it was true when it was given.
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(verdict);
    }
}

/// What a reader finds after a position.
#[derive(Debug)]
pub enum Found {
    /// A page that holds what follows `from`. That is above the position asked for where the stream was cut.
    Page {
        /// Read the page after this.
        from: u64,
        /// The page.
        page: Arc<Page>,
    },
    /// It is fetched; the doorbell rings when it is here.
    Wanted,
}

/// A fetch that the source has taken on. Dropped without an answer it is wanted again.
#[derive(Debug)]
pub struct Fetch<'a> {
    archive: &'a Archive,
    after: u64,
    /// Which stream it is about, of those that had the name.
    generation: u64,
    answered: bool,
}

/// What became of a fetch.
#[derive(Debug)]
pub enum Fetched {
    /// The message at the place is the one that is named there, and this follows.
    Genuine(Stretch),
    /// It is not.
    Foreign,
    /// The stream begins only here, at this offset, and with this.
    Cut(u64, Stretch),
}

/// What was read of a stream.
#[derive(Debug, Default)]
pub struct Stretch {
    /// In order.
    pub publications: Vec<Arc<Publication>>,
    /// Up to this position everything was read, also what cannot become a publication; 0 where nothing was.
    pub until: u64,
}

/// A cursor that is to be checked.
#[derive(Debug)]
struct Asked {
    check: Weak<Check>,
    /// The place that tells: its own, or where the pages end that hold it and what follows.
    at: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Archive {
    state: Mutex<State>,
    wanted: Notify,
    /// Rises with every answer.
    tellings: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// By where they begin.
    pages: BTreeMap<u64, Arc<Page>>,
    /// In the order of their coming.
    ages: VecDeque<u64>,
    bytes: usize,
    /// Positions after which somebody wants to read.
    wants: BTreeSet<u64>,
    /// Those that are being fetched.
    fetching: Vec<u64>,
    /// Cursors to be checked: the places that tell are wanted too, for as long as anybody waits for the answer.
    checks: HashMap<u64, Asked>,
    /// The stream holds nothing up to here any more.
    cut: u64,
    /// Rises when the stream turns out to be another one.
    generation: u64,
}

impl Archive {
    /// What follows a position, up to the log, which begins after `floor`; `from` then says where to read on. Asks for it where
    /// it is not here.
    pub fn read(&self, after: u64, floor: u64) -> Found {
        let mut state = self.state();
        let from = after.max(state.cut_before(floor));
        if let Some(page) = state.page_after(from) {
            return Found::Page { from, page };
        }
        self.want(&mut state, from);
        Found::Wanted
    }

    /// Asks whether a position is one of this stream's, and what follows it there up to the log, which begins after `floor`.
    pub fn check(&self, position: u64, floor: u64) -> Arc<Check> {
        let mut state = self.state();
        if let Some(check) = state.checks.get(&position).and_then(|asked| asked.check.upgrade()) {
            return check;
        }
        let check = Check::new(state.generation, None);
        match state.known(position, floor) {
            Ok(verdict) => check.answer(verdict),
            Err(at) => {
                state.checks.retain(|_, asked| asked.check.strong_count() > 0);
                state.checks.insert(position, Asked { check: Arc::downgrade(&check), at });
                self.wanted.notify_waiters();
            }
        }
        check
    }

    /// A question that the log answered when it was asked: it may have let go of what it knew that by before the answer is
    /// used.
    pub fn answered(&self, verdict: Verdict) -> Arc<Check> {
        Check::new(self.state().generation, Some(verdict))
    }

    /// What became of a question. A stream that was made anew since then knows no cursor from before.
    pub fn verdict(&self, check: &Check) -> Option<Verdict> {
        let is_of_another = check.generation != self.state().generation;
        if is_of_another { Some(Verdict::Foreign) } else { check.verdict() }
    }

    /// How many answers there were: whoever waits for one looks again when it has risen.
    pub fn tellings(&self) -> u64 {
        self.tellings.load(Ordering::Acquire)
    }

    /// Up to here nothing is left, as far as is known: neither in the stream, nor here and in the log, which begins after
    /// `floor`.
    pub fn cut(&self, floor: u64) -> u64 {
        self.state().cut_before(floor)
    }

    /// The next to fetch within `places`, which are asked for anew at each look: the lowest that no fetch under way will
    /// cover.
    pub async fn next(&self, places: impl Fn() -> RangeInclusive<u64>) -> Fetch<'_> {
        loop {
            let mut notified = pin!(self.wanted.notified());
            // From here on no bell is missed, whoever else hears it too.
            notified.as_mut().enable();
            // Asked for before the lock is taken: whoever answers may hold one of its own.
            let places = places();
            if let Some((after, generation)) = self.state().take_want(places) {
                return Fetch { archive: self, after, generation, answered: false };
            }
            notified.await;
        }
    }

    /// The stream is another one: whatever was known of it is void.
    pub fn forget(&self) {
        let mut state = self.state();
        for check in state.checks.values().filter_map(|asked| asked.check.upgrade()) {
            check.answer(Verdict::Foreign);
        }
        *state = State { generation: state.generation + 1, ..State::default() };
        drop(state);
        self.tellings.fetch_add(1, Ordering::AcqRel);
    }

    fn want(&self, state: &mut State, after: u64) {
        if state.wants.len() < WANTS_MAX && !state.fetching.contains(&after) && state.wants.insert(after) {
            self.wanted.notify_waiters();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch<'_> {
    /// After which position to fetch; the message that it names, if it names one, is to be looked at first.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// Answers everybody who waits for this.
    pub fn answer(mut self, fetched: Fetched) {
        self.answered = true;
        let mut state = self.archive.state();
        if state.generation != self.generation {
            return;
        }
        state.fetching.retain(|after| *after != self.after);
        state.answer(self.after, fetched);
        drop(state);
        self.archive.tellings.fetch_add(1, Ordering::AcqRel);
        // Another worker may have passed over a want that this did not cover after all.
        self.archive.wanted.notify_waiters();
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        let mut state = self.archive.state();
        if !self.answered && state.generation == self.generation {
            state.fetching.retain(|after| *after != self.after);
            state.wants.insert(self.after);
            self.archive.wanted.notify_waiters();
        }
    }
}

impl State {
    fn page_after(&self, from: u64) -> Option<Arc<Page>> {
        page_at(&self.pages, from).filter(|page| from < page.until).cloned()
    }

    /// Up to where what follows a place is here.
    fn end_of_pages(&self, mut end: u64) -> u64 {
        while let Some(page) = self.page_after(end) {
            end = page.until;
        }
        end
    }

    /// Takes the lowest want, unless a fetch just below it will probably bring it.
    fn take_want(&mut self, places: RangeInclusive<u64>) -> Option<(u64, u64)> {
        let comes = |after: u64, fetch: &u64| {
            let ahead = stream::following(after).checked_sub(stream::following(*fetch));
            ahead.is_some_and(|ahead| ahead < PAGE_MESSAGES as u64)
        };
        let is_free = |after: &u64| !self.fetching.iter().any(|fetch| comes(*after, fetch));
        let of_readers = self.wants.range(places.clone()).copied().find(is_free);
        let awaited = self.checks.values().filter(|asked| asked.check.strong_count() > 0).map(|asked| asked.at);
        let of_checks = awaited.filter(|at| places.contains(at) && is_free(at)).min();
        let next = of_readers.into_iter().chain(of_checks).min()?;
        self.wants.remove(&next);
        self.fetching.push(next);
        Some((next, self.generation))
    }

    fn answer(&mut self, after: u64, fetched: Fetched) {
        let (from, stretch) = match fetched {
            Fetched::Foreign => return self.refute(after),
            Fetched::Genuine(stretch) => (after, stretch),
            Fetched::Cut(offset, stretch) => {
                self.cut = self.cut.max(stream::before(offset));
                (self.cut, stretch)
            }
        };
        let until = stretch.until.max(from);
        self.keep(from, stretch);
        let pages = std::mem::take(&mut self.pages);
        let cut = self.cut;
        // What was read just now is there, and what is before a cut is gone.
        self.conclude(|position, asked| {
            let is_told = asked.at < cut || (from..=until).contains(&asked.at);
            match is_genuine(&pages, position) {
                Some(false) => Some(Verdict::Foreign),
                _ if !is_told => None,
                _ if position < cut => Some(Verdict::Expired),
                _ => Some(Verdict::Genuine),
            }
        });
        self.pages = pages;
        // Who wants what has come finds it.
        let pages = &self.pages;
        let is_here = |after: &u64| page_at(pages, *after).is_some_and(|page| *after < page.until);
        self.wants.retain(|after| !is_here(after));
    }

    /// Another message stands at a place, or none. Who asked whether it is so is told. Who reads there all the same would ask
    /// for the same for ever, and goes on from what does stand there.
    fn refute(&mut self, after: u64) {
        let was_asked = self.checks.values().any(|asked| asked.at == after);
        self.conclude(|_, asked| (asked.at == after).then_some(Verdict::Foreign));
        if let Some(offset) = stream::named(after).filter(|_| !was_asked) {
            self.wants.insert(self.end_of_pages(stream::before(offset)));
        }
    }

    /// Answers those of whom the verdict is known now.
    fn conclude(&mut self, verdict: impl Fn(u64, &Asked) -> Option<Verdict>) {
        self.checks.retain(|position, asked| {
            let Some(verdict) = verdict(*position, asked) else { return true };
            if let Some(check) = asked.check.upgrade() {
                check.answer(verdict);
            }
            false
        });
    }

    /// Whether a position is genuine and what follows it there, as far as what is here tells; or else the place to ask at.
    fn known(&self, position: u64, floor: u64) -> Result<Verdict, u64> {
        let cut = self.cut_before(floor);
        match is_genuine(&self.pages, position) {
            Some(false) => return Ok(Verdict::Foreign),
            None if position >= cut => return Err(position),
            _ => {}
        }
        let end = self.end_of_pages(position.max(cut));
        // Up to there it is here. What comes then may have been cut off since somebody looked.
        match end {
            end if end < floor => Err(end),
            _ if position < cut => Ok(Verdict::Expired),
            _ => Ok(Verdict::Genuine),
        }
    }

    /// Up to where nothing is left. What the pages hold without a hole up to the log is not lost, though the stream has cut it
    /// off.
    fn cut_before(&self, floor: u64) -> u64 {
        let mut begin = floor;
        while begin > 0
            && self.cut > 0
            && let Some((after, page)) = self.pages.range(..begin).next_back()
            && page.until >= begin
        {
            begin = *after;
        }
        self.cut.min(begin)
    }

    fn keep(&mut self, after: u64, stretch: Stretch) {
        let Stretch { publications, until } = stretch;
        if until <= after {
            return;
        }
        let bytes_of = |page: &Page| page.publications.iter().map(|one| page_bytes(one)).sum::<usize>();
        let page = Arc::new(Page { after, until, publications });
        self.bytes += bytes_of(&page);
        if let Some(older) = self.pages.insert(after, page) {
            self.bytes -= bytes_of(&older);
            self.ages.retain(|age| *age != after);
        }
        self.ages.push_back(after);
        while self.bytes > PAGES_BYTES_MAX || self.pages.len() > PAGES_MAX {
            let Some(oldest) = self.ages.pop_front() else { return };
            self.bytes -= self.pages.remove(&oldest).map_or(0, |page| bytes_of(&page));
        }
    }
}

/// The last page that begins at a position or before it.
fn page_at(pages: &BTreeMap<u64, Arc<Page>>, position: u64) -> Option<&Arc<Page>> {
    pages.range(..=position).next_back().map(|(_, page)| page)
}

/// Whether a position is genuine, where a page tells.
fn is_genuine(pages: &BTreeMap<u64, Arc<Page>>, position: u64) -> Option<bool> {
    let page = page_at(pages, position).filter(|page| position <= page.until)?;
    // A place before a message, which is given to who begins where the stream was cut, has no mark to be told by.
    let is_place = stream::named(position).is_none();
    let is_here = |publication: &Arc<Publication>| publication.offset == position;
    Some(is_place || page.after == position || page.until == position || page.publications.iter().any(is_here))
}

#[cfg(test)]
mod tests;
