//! What was read from logs for those who came back or fell behind, kept while others may read the same: however many
//! resume one pattern, a stretch of the log is searched once and its frames are made once.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::hub::archive::Page;
use crate::hub::log::{Chunk, Log, LogGap, ReadBounds, weight_bytes};
use crate::hub::turn::{Encode, Encoding};
use crate::model::publication::{Publication, SourceId};
use crate::model::selector::Selector;
use crate::model::topic::Pattern;

/// Bytes of messages, as the log counts them, and of frames that all passages of a shard may hold on to; the oldest go first.
const BYTES_MAX: usize = 16 << 20;

/// Passages of a shard, which may be empty of messages.
const PASSAGES_MAX: usize = 4096;

/// A stretch of one source's log as those see it who want the same of it.
#[derive(Debug)]
pub(super) struct Passage {
    /// It begins after this offset.
    after: u64,
    /// And ends with this one.
    until: u64,
    publications: Vec<Arc<Publication>>,
    /// The bytes of its messages.
    held: Held,
    /// Its frames side by side, for each encoding that anybody needed, live and replayed.
    joined: RefCell<Vec<Joined>>,
}

#[derive(Debug)]
struct Joined {
    encoding: Encoding,
    asked_for: bool,
    bytes: Bytes,
    /// Where each frame ends.
    ends: Vec<usize>,
    /// Their bytes.
    _held: Held,
}

/// Bytes that count among those of all passages of a shard for as long as this is there.
#[derive(Debug)]
struct Held {
    bytes: usize,
    /// Of all of them.
    sum: Rc<Cell<usize>>,
}

/// Some of a passage's messages.
#[derive(Debug)]
pub struct Excerpt {
    passage: Rc<Passage>,
    range: Range<usize>,
}

/// What a reader is given.
pub(super) struct Found {
    pub(super) excerpt: Excerpt,
    /// Where to read on.
    pub(super) next: u64,
    /// What left the log before it was read.
    pub(super) gap: Option<LogGap>,
}

/// Where is read what no passage holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Store<'a> {
    /// A source's log, so much at once.
    Log(&'a Log, ReadBounds),
    /// A page of the stream behind a source's log, as far as it goes.
    Page(&'a Page, SourceId),
}

impl Store<'_> {
    fn source(self) -> SourceId {
        match self {
            Self::Log(log, _) => log.info().id,
            Self::Page(_, source) => source,
        }
    }

    /// After which offset what was read after another is whole. Who comes to a log from further back misses more, and is to
    /// find that out from the log.
    fn whole_after(self, after: u64, next: u64) -> u64 {
        match self {
            Self::Log(log, _) => after.max(log.evicted().min(next)),
            Self::Page(..) => after,
        }
    }

    fn read(self, pattern: &Pattern, span: Range<u64>, looked_at: &mut u64) -> Chunk {
        let page = match self {
            Self::Log(log, bounds) => return log.read(pattern, span.start, span.end, bounds),
            Self::Page(page, _) => page,
        };
        let next = page.until.min(span.end);
        let place = |offset: u64| page.publications.partition_point(|publication| publication.offset <= offset);
        let all = page.publications.get(place(span.start)..place(next)).unwrap_or_default();
        *looked_at += all.len() as u64;
        let matching = all.iter().filter(|publication| pattern.matches(&publication.draft.topic));
        Chunk { publications: matching.cloned().collect(), next, gap: None }
    }
}

/// All passages of a shard.
#[derive(Debug, Default)]
pub(super) struct Passages {
    /// Of each source and what is wanted of it, in order of their beginnings; none begins within another.
    by_selector: HashMap<(SourceId, Selector), Vec<Rc<Passage>>>,
    /// Whose first passage goes next.
    ages: VecDeque<(SourceId, Selector)>,
    /// What they hold on to: their messages, and the frames that were made of them since.
    bytes: Rc<Cell<usize>>,
    /// Messages of pages that were looked at.
    looked_at: u64,
}

impl Excerpt {
    /// The messages, in order.
    pub fn publications(&self) -> &[Arc<Publication>] {
        self.passage.publications.get(self.range.clone()).unwrap_or_default()
    }

    /// Their frames side by side, made once for all who read the passage in this encoding; `asked_for` tells frames of a
    /// replay from those of live messages that come late.
    pub fn frames(&self, encoding: Encoding, asked_for: bool, encode: &mut impl Encode) -> Bytes {
        let mut joined = self.passage.joined.borrow_mut();
        let known = joined.iter().position(|one| one.encoding == encoding && one.asked_for == asked_for);
        let known = known.unwrap_or_else(|| {
            joined.push(self.passage.join(encoding, asked_for, encode));
            joined.len() - 1
        });
        let Joined { bytes, ends, .. } = &joined[known];
        let end = |count: usize| count.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or(0);
        bytes.slice(end(self.range.start)..end(self.range.end))
    }
}

impl Held {
    fn new(bytes: usize, sum: Rc<Cell<usize>>) -> Self {
        sum.set(sum.get() + bytes);
        Self { bytes, sum }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sum.set(self.sum.get() - self.bytes);
    }
}

impl Passage {
    fn join(&self, encoding: Encoding, asked_for: bool, encode: &mut impl Encode) -> Joined {
        let frames: Vec<Bytes> = self.publications.iter().map(|one| encode.encode(encoding, one)).collect();
        // Just as large as they are: this stays, and counts.
        let mut bytes = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
        let mut ends = Vec::with_capacity(frames.len());
        for frame in frames {
            bytes.extend_from_slice(&frame);
            ends.push(bytes.len());
        }
        let held = Held::new(bytes.len(), self.held.sum.clone());
        Joined { encoding, asked_for, bytes: bytes.freeze(), ends, _held: held }
    }
}

impl Passages {
    /// What is wanted after one offset and up to another: from a passage that holds it, else from where it is stored.
    pub(super) fn read(&mut self, store: Store<'_>, wanted: &Selector, span: Range<u64>) -> Found {
        // Also where nothing is added: frames may have been made since.
        self.shed();
        let (after, until) = (span.start, span.end);
        let key = (store.source(), wanted.clone());
        let passages = self.by_selector.get(&key).map(Vec::as_slice).unwrap_or_default();
        // The last that begins at or before here, and with it the first that begins after.
        let following = passages.partition_point(|passage| passage.after <= after);
        let held = following.checked_sub(1).and_then(|place| passages.get(place)).filter(|held| after < held.until);
        if let Some(passage) = held {
            let passage = passage.clone();
            return Found { next: passage.until.min(until), excerpt: Excerpt::of(passage, after, until), gap: None };
        }
        let until = passages.get(following).map_or(until, |next| next.after.min(until));
        let chunk = self.search(store, wanted, after..until);
        let begin = store.whole_after(after, chunk.next);
        let bytes = chunk.publications.iter().map(|publication| weight_bytes(&publication.draft)).sum();
        let passage = Rc::new(Passage {
            after: begin,
            until: chunk.next,
            publications: chunk.publications,
            held: Held::new(bytes, self.bytes.clone()),
            joined: RefCell::default(),
        });
        if begin < chunk.next {
            let passages = self.by_selector.entry(key.clone()).or_default();
            passages.insert(passages.partition_point(|known| known.after <= begin), passage.clone());
            self.ages.push_back(key);
            self.shed();
        }
        Found { next: chunk.next, excerpt: Excerpt::of(passage, after, until), gap: chunk.gap }
    }

    /// What no passage holds. The store is searched for a pattern; what a filter lets in of that is looked for in what all who
    /// read the pattern share, so that however many filters there are, the store is searched once.
    fn search(&mut self, store: Store<'_>, wanted: &Selector, span: Range<u64>) -> Chunk {
        if wanted.filter.is_none() {
            return store.read(&wanted.pattern, span, &mut self.looked_at);
        }
        let Found { excerpt, next, gap } = self.read(store, &wanted.pattern.clone().into(), span);
        let lets_in = |publication: &&Arc<Publication>| wanted.lets_in(&publication.draft);
        Chunk { publications: excerpt.publications().iter().filter(lets_in).cloned().collect(), next, gap }
    }

    /// How many messages of pages were looked at since this was asked before.
    pub(super) fn take_looked_at(&mut self) -> u64 {
        std::mem::take(&mut self.looked_at)
    }

    /// Forgets everything: nobody reads any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn shed(&mut self) {
        while self.bytes.get() > BYTES_MAX || self.ages.len() > PASSAGES_MAX {
            let Some(key) = self.ages.pop_front() else { return };
            let Some(passages) = self.by_selector.get_mut(&key) else { continue };
            if !passages.is_empty() {
                passages.remove(0);
            }
            if passages.is_empty() {
                self.by_selector.remove(&key);
            }
        }
    }
}

impl Excerpt {
    /// Leaves out all but the first so many. The offset of the last of these, if anything was left out.
    pub(super) fn cut(&mut self, messages_max: usize) -> Option<u64> {
        let end = self.range.start + messages_max;
        if self.range.end <= end {
            return None;
        }
        self.range.end = end;
        self.publications().last().map(|last| last.offset)
    }

    fn of(passage: Rc<Passage>, after: u64, until: u64) -> Self {
        let place = |offset: u64| passage.publications.partition_point(|publication| publication.offset <= offset);
        let range = place(after)..place(until);
        Self { passage, range }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogBounds;
    use crate::model::cursor::Epoch;
    use crate::model::publication::{Attributes, Draft, SourceInfo};
    use crate::model::topic::Topic;
    use crate::model::value::{Headers, Value};

    const STEP: ReadBounds = ReadBounds { messages_max: 256, bytes_max: 256 << 10 };

    const HEADER_BYTES: usize = 8 << 10;

    /// Writes each message with its headers.
    struct Whole;

    impl Encode for Whole {
        fn encode(&mut self, _: Encoding, publication: &Publication) -> Bytes {
            vec![b'x'; weight_bytes(&publication.draft)].into()
        }
    }

    /// A log whose messages are all header.
    fn log(messages: usize) -> Log {
        let header = |_| ("note".to_owned(), Value::Bytes(vec![0; HEADER_BYTES]));
        let draft = |_| Draft {
            topic: Topic::parse("x.y").unwrap(),
            payload: Bytes::from_static(b"1"),
            attributes: Attributes { headers: Headers((0..1).map(header).collect()), ..Attributes::default() },
            received_at: 0,
        };
        let mut log = Log::new(Arc::new(SourceInfo::new(SourceId(0), "a", Epoch(1))), LogBounds::default());
        log.append((0..messages).map(draft).collect(), 0);
        log
    }

    /// Reads all that a pattern matches, with its frames.
    fn replay(passages: &mut Passages, log: &Log, pattern: &str, encoding: Encoding) {
        let wanted = Selector::from(Pattern::parse(pattern).unwrap());
        let (mut read, end) = (0, log.end());
        while read < end {
            let found = passages.read(Store::Log(log, STEP), &wanted, read..end);
            found.excerpt.frames(encoding, true, &mut Whole);
            read = found.next;
            drop(found);
            assert_eq!(passages.bytes.get(), counted(passages));
            assert!(counted(passages) <= BYTES_MAX + STEP.bytes_max, "{} bytes", counted(passages));
        }
    }

    /// What is there, one by one.
    fn counted(passages: &Passages) -> usize {
        let of_passage = |passage: &Rc<Passage>| {
            let messages: usize = passage.publications.iter().map(|one| weight_bytes(&one.draft)).sum();
            messages + passage.joined.borrow().iter().map(|joined| joined.bytes.len()).sum::<usize>()
        };
        passages.by_selector.values().flatten().map(of_passage).sum()
    }

    #[test]
    fn however_large_headers_and_frames_are_what_is_kept_is_bounded() {
        let (mut passages, log) = (Passages::default(), log(2_000));
        for pattern in ["#", "x.#", "*.y"] {
            replay(&mut passages, &log, pattern, Encoding(0));
        }
        assert!(counted(&passages) > BYTES_MAX / 2, "as much as may be is kept");
        passages.clear();
        assert_eq!((passages.bytes.get(), counted(&passages)), (0, 0));
    }

    #[test]
    fn who_finds_everything_kept_and_writes_it_otherwise_makes_room_too() {
        let (mut passages, log) = (Passages::default(), log(200));
        (0..30).for_each(|number| replay(&mut passages, &log, "#", Encoding(number)));
    }
}
