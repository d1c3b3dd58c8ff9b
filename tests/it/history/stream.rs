//! A stream as one or two nodes read it, each as far as it has come: does what `source/amqp/stream` does with a consumer, one
//! small step at a time, and answers wants of the archive as that does.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use passerelle::config::LogBounds;
use passerelle::hub::archive::{Archive, Fetch, Fetched, Stretch};
use passerelle::hub::feed::{Feed, Meanwhile, SourceState};
use passerelle::model::cursor::{Cursor, Epoch};
use passerelle::model::publication::Publication;
use passerelle::model::stream;
use passerelle::model::topic::{Pattern, Topic};
use passerelle::model::value::Headers;

use crate::history::record::{Binding, Fate, Moment, Published, SourceTruth, Span};
use crate::history::source::{BEGIN, Held, World, draft, info};
use crate::history::stored::{Entry, Stored};

/// Messages that a chunk of the stream may hold.
const CHUNK_MAX: u64 = 5;

/// Messages of a page, few enough for replays to need several.
const PAGE_MAX: usize = 12;

/// Farther than a run's stream can come.
const FAR: u64 = 1_000_000;

/// See the module.
pub(crate) struct Stream {
    place: usize,
    bounds: LogBounds,
    stored: Stored,
    /// One a node.
    ends: Vec<End>,
}

/// Which places a worker looks at.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Those that the log has passed.
    Passed,
    /// Those that it has not.
    Ahead,
}

/// One node's end of it.
struct End {
    state: Arc<SourceState>,
    feed: Feed,
    held: Held,
    /// The offset that its consumer is sent next; nothing while it has no link.
    next: Option<u64>,
    /// Whether the last messages of each topic were read since the start.
    rebuilt: bool,
}

impl Stream {
    pub(crate) fn new(place: usize, nodes: usize, bounds: LogBounds, world: &mut World) -> Self {
        // Whatever is published comes.
        let binding = Binding { pattern: Pattern::all(), from: 0, to: None };
        world.truth.sources.push(SourceTruth {
            name: info(place, Epoch(0)).name.to_string(),
            is_stream: true,
            bindings: vec![binding],
            restarts: vec![BEGIN],
            ..SourceTruth::default()
        });
        let ends = (0..nodes).map(|_| End::new(place, bounds)).collect();
        Self { place, bounds, stored: Stored::new(BEGIN), ends }
    }

    pub(crate) fn state(&self, node: usize) -> &Arc<SourceState> {
        &self.ends[node].state
    }

    pub(crate) fn publish(&mut self, topic: Topic, headers: Headers, world: &mut World) {
        if world.rng.u8(..20) == 0 {
            let at = world.clock.tick();
            self.stored.push(None, at);
            world.truth.sources[self.place].blanks.push((at, None));
        }
        let at = world.clock.tick();
        self.stored.push(Some(world.truth.messages.len()), at);
        let message = Published::new(self.place, topic, Span::at(at), Fate::Logged);
        world.truth.messages.push(Published { headers, ..message });
    }

    pub(crate) fn deliver(&mut self, node: usize, count: usize, world: &mut World) -> bool {
        let end = &mut self.ends[node];
        let Some(next) = end.next else { return false };
        let until = self.stored.end().min(next.saturating_add(count as u64));
        end.next = Some(until);
        let entries: Vec<Entry> =
            (next..until).filter_map(|offset| self.stored.from(offset)).map(|found| found.1).collect();
        end.append(&entries, world);
        next < until
    }

    /// Retention takes the oldest messages, though none on its way to a node, and never all.
    pub(crate) fn cut(&mut self, world: &mut World) {
        let end = self.stored.end().saturating_sub(1);
        let limit = self.ends.iter().filter_map(|one| one.next).fold(end, u64::min);
        let first = self.stored.first();
        if limit > first {
            let at = world.clock.tick();
            let gone = self.stored.cut(world.rng.u64(first + 1..=limit));
            self.note_gone(gone, at, world);
        }
    }

    fn note_gone(&self, gone: Vec<Entry>, at: Moment, world: &mut World) {
        let blanks = &mut world.truth.sources[self.place].blanks;
        for entry in gone {
            match entry.number {
                Some(number) => world.truth.messages[number].cut = Some(at),
                None => blanks.iter_mut().filter(|blank| blank.0 == entry.at).for_each(|blank| blank.1 = Some(at)),
            }
        }
    }

    pub(crate) fn remake(&mut self, world: &mut World) {
        let at = world.clock.tick();
        let gone = self.stored.remake(at);
        self.note_gone(gone, at, world);
        world.truth.sources[self.place].restarts.push(at);
        if self.ends.iter().any(End::is_unmarked) {
            world.truth.sources[self.place].unmarked.push(at);
        }
        (0..self.ends.len()).for_each(|node| self.link_down(node));
    }

    pub(crate) fn link_down(&mut self, node: usize) {
        let end = &mut self.ends[node];
        if end.next.take().is_some() {
            end.feed.link_down(Meanwhile::Kept);
        }
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.ends[node].next.is_some()
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.ends[node] = End::new(self.place, self.bounds);
    }

    pub(crate) fn expire(&mut self, world: &mut World) {
        for end in &mut self.ends {
            end.feed.expire(world.clock.now_ms);
            end.held.note(&end.state, world);
        }
    }

    pub(crate) fn moment(&self, cursor: Cursor) -> Option<Span> {
        (cursor.epoch == epoch(self.place)).then(|| self.stored.moment(cursor.offset)).flatten()
    }

    pub(crate) fn forged(&self, world: &mut World) -> Cursor {
        let end = self.stored.end();
        let other = |offset: u64| stream::position(offset, FAR).expect("an offset");
        let position = match world.rng.u8(..5) {
            0 => return Cursor::FOREIGN,
            1 => return Cursor { epoch: Epoch(FAR), offset: other(end) },
            2 => world.rng.u64(1..1 << 20),
            3 => other(end + FAR),
            _ => other(world.rng.u64(..=end)),
        };
        Cursor { epoch: epoch(self.place), offset: position }
    }

    pub(crate) fn step(&mut self, node: usize, world: &mut World) -> bool {
        let end = &mut self.ends[node];
        if end.next.is_none() {
            end.attach(&self.stored, world);
            return true;
        }
        if !end.rebuilt && world.rng.bool() {
            end.rebuild(&self.stored, world);
            return true;
        }
        self.fetch(node, world)
    }

    /// Several workers take a want each, and what they come back with may be old by then; whether there was any.
    fn fetch(&mut self, node: usize, world: &mut World) -> bool {
        let feed = self.ends[node].feed.clone();
        let Some(archive) = feed.archive() else { return false };
        let works = std::iter::repeat_n(Work::Passed, world.rng.usize(1..4)).chain([Work::Ahead]);
        let mut fetches: Vec<(Fetch<'_>, Option<Fetched>)> = Vec::new();
        for fetch in works.filter_map(|work| next(archive, &feed, work)) {
            let fetched = self.read(&feed, fetch.after(), world);
            fetches.push((fetch, fetched));
        }
        if fetches.is_empty() {
            return false;
        }
        match world.rng.u8(..24) {
            0 => {
                self.link_down(node);
                return true;
            }
            1 | 2 => self.cut(world),
            3 | 4 => drop(self.deliver(node, 8, world)),
            _ => {}
        }
        world.rng.shuffle(&mut fetches);
        for (fetch, fetched) in fetches {
            if let Some(fetched) = fetched {
                fetch.answer(fetched);
            }
        }
        feed.answered();
        true
    }

    /// What a worker brings of what is wanted after a position; nothing where it has to ask again.
    fn read(&self, feed: &Feed, after: u64, world: &mut World) -> Option<Fetched> {
        let standing = feed.standing();
        let named = stream::named(after);
        let begin = named.unwrap_or_else(|| stream::following(after));
        let Some((offset, first)) = self.stored.from(begin) else {
            let is_empty = after == 0 && standing.end == 0;
            let nothing = if is_empty { Fetched::Genuine(Stretch::default()) } else { Fetched::Foreign };
            return (is_empty || after > standing.end).then_some(nothing);
        };
        let count = world.rng.usize(1..=PAGE_MAX);
        if offset == begin && named.is_some() {
            let is_same = first.position == after;
            let page = || self.page(feed, (offset, Stretch::default(), after), (count, world));
            return if is_same { page().map(Fetched::Genuine) } else { Some(Fetched::Foreign) };
        }
        let publications = publication(feed, first, world).into_iter().collect();
        let stretch = Stretch { publications, until: first.until() };
        let stretch = self.page(feed, (offset, stretch, first.until()), (count, world))?;
        Some(if offset == begin { Fetched::Genuine(stretch) } else { Fetched::Cut(offset, stretch) })
    }

    /// Reads on after an offset until the page is full or the log has what follows.
    fn page(
        &self,
        feed: &Feed,
        (mut offset, mut page, mut at): (u64, Stretch, u64),
        (mut count, world): (usize, &World),
    ) -> Option<Stretch> {
        while count > 0 && at < feed.standing().floor {
            let (next, entry) = self.stored.from(offset + 1)?;
            (offset, at, count) = (next, entry.until(), count - 1);
            page.until = at;
            page.publications.extend(publication(feed, entry, world));
        }
        Some(page)
    }
}

impl End {
    fn new(place: usize, bounds: LogBounds) -> Self {
        let state = SourceState::of_stream(info(place, epoch(place)), bounds);
        Self { feed: Feed::new(state.clone()), state, held: Held::default(), next: None, rebuilt: false }
    }

    /// Whether it has read no message yet by which it would know the stream again.
    fn is_unmarked(&self) -> bool {
        let standing = self.feed.standing();
        standing.has_begun && stream::named(standing.end).is_none()
    }

    /// Begins where the log ends, and sees to it that it is the same stream.
    fn attach(&mut self, stored: &Stored, world: &mut World) {
        let standing = self.feed.standing();
        let is_whole = !standing.has_begun && world.rng.u8(..6) == 0;
        let chunk = if is_whole { stored.end() } else { world.rng.u64(1..=CHUNK_MAX) };
        let chunk = stored.end().saturating_sub(chunk).max(stored.first());
        let goes_on = if standing.has_begun { self.go_on(standing.end, stored) } else { None };
        if standing.has_begun && goes_on.is_none() {
            self.feed.remade(stream::before(chunk));
            self.held = Held::default();
            self.rebuilt = false;
        }
        let next = goes_on.unwrap_or(chunk);
        // What was looked at to see where the stream stands.
        let seen = if is_whole { stored.end() } else { next + 1 };
        let entries: Vec<Entry> =
            (next..seen.min(stored.end())).filter_map(|offset| stored.from(offset)).map(|found| found.1).collect();
        let next = next + entries.len() as u64;
        self.append(&entries, world);
        // What cannot be mapped is a place to begin with all the same.
        if !self.feed.standing().has_begun {
            self.feed.begin(entries.first().map_or(0, |first| first.until()));
        }
        self.feed.link_up_bound(Instant::now());
        self.next = Some(next);
    }

    /// Where to go on in the same stream; nothing where it is another one.
    fn go_on(&self, end: u64, stored: &Stored) -> Option<u64> {
        let (named, following) = (stream::named(end), stream::following(end));
        let offset = named.unwrap_or(following);
        match stored.from(offset) {
            Some((_, first)) if first.position == end => Some(offset),
            Some((first, _)) if first > offset => {
                if first > following {
                    self.feed.cut(first);
                }
                Some(first)
            }
            _ => named.is_none().then_some(following),
        }
    }

    fn append(&mut self, entries: &[Entry], world: &mut World) {
        let end = self.feed.standing().end;
        let mut drafts = Vec::new();
        for entry in entries.iter().filter(|entry| entry.position > end) {
            if let Some(number) = entry.number {
                drafts.push((entry.position, draft(number, false, world)));
                self.held.push(entry.position, number);
            }
        }
        self.feed.append_placed(drafts, world.clock.now_ms);
        self.held.note(&self.state, world);
    }

    /// Reads the last messages of each topic, from somewhere on.
    fn rebuild(&mut self, stored: &Stored, world: &mut World) {
        let from = world.rng.u64(stored.first()..=stored.end());
        let entries = (from..stored.end()).filter_map(|offset| stored.from(offset)).map(|found| found.1);
        let older = entries.take_while(|entry| entry.position <= self.feed.standing().floor);
        let publications = older.filter_map(|entry| publication(&self.feed, entry, world)).collect();
        self.feed.remember(publications);
        self.rebuilt = true;
    }
}

/// The next fetch, if any is wanted.
fn next<'a>(archive: &'a Archive, feed: &Feed, work: Work) -> Option<Fetch<'a>> {
    let places = || match (work, feed.standing().end) {
        (Work::Passed, end) => 0..=end,
        (Work::Ahead, end) => end.saturating_add(1)..=u64::MAX,
    };
    archive.next(places).now_or_never()
}

fn publication(feed: &Feed, entry: Entry, world: &World) -> Option<Arc<Publication>> {
    let draft = draft(entry.number?, false, world);
    Some(Arc::new(Publication { source: feed.info().clone(), offset: entry.position, draft }))
}

/// The same on every node.
fn epoch(place: usize) -> Epoch {
    Epoch(70 + place as u64)
}
