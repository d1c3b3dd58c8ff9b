//! The archive by its rules, and against a stream that is cut under its readers.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::model::cursor::Epoch;
use crate::model::publication::{Attributes, Draft, SourceId, SourceInfo};
use crate::model::topic::Topic;

/// Where a log begins that no page reaches.
const FLOOR: u64 = u64::MAX;

/// The position of what a test's stream holds at an offset.
fn at(offset: u64) -> u64 {
    stream::position(offset, offset * 31 + 7).unwrap()
}

fn publication(offset: u64) -> Arc<Publication> {
    let info = SourceInfo::new(SourceId(0), "events", Epoch(1));
    let payload = Bytes::from(vec![b'x'; 100]);
    let draft = Draft { topic: Topic::parse("a").unwrap(), payload, attributes: Attributes::default(), received_at: 0 };
    Arc::new(Publication { source: Arc::new(info), offset: at(offset), draft })
}

fn stretch(offsets: std::ops::Range<u64>) -> Stretch {
    Stretch { until: at(offsets.end - 1), publications: offsets.map(publication).collect() }
}

/// The next fetch, which must be wanted.
fn fetch(archive: &Archive) -> Fetch<'_> {
    let (after, generation) = archive.state().take_want(0..=u64::MAX).expect("something is wanted");
    Fetch { archive, after, generation, answered: false }
}

fn is_wanted(archive: &Archive) -> bool {
    let mut state = archive.state();
    let wants = state.wants.clone();
    let Some((after, _)) = state.take_want(0..=u64::MAX) else { return false };
    state.fetching.retain(|known| *known != after);
    state.wants = wants;
    true
}

#[test]
fn what_one_reader_wanted_serves_all_whose_place_is_in_it() {
    let archive = Archive::default();
    for offset in [30, 10, 20] {
        assert!(matches!(archive.read(at(offset), FLOOR), Found::Wanted));
    }
    let first = fetch(&archive);
    assert_eq!(first.after(), at(10), "the lowest");
    assert!(!is_wanted(&archive), "the others will come with it");
    first.answer(Fetched::Genuine(stretch(11..25)));
    let Found::Page { from, page } = archive.read(at(20), FLOOR) else { panic!("not here") };
    assert_eq!((from, page.after, page.until, page.publications.len()), (at(20), at(10), at(24), 14));
    assert_eq!(fetch(&archive).after(), at(30));
}

/// Nobody should stand at a place that is none; who does all the same is not to ask for it for ever.
#[test]
fn a_reader_at_a_place_that_is_none_goes_on_from_what_stands_there() {
    for (mark, begins) in [(0, 20), (1 << 20, 21)] {
        let archive = Archive::default();
        let reader = stream::position(20, mark).unwrap();
        let mut fetches = Vec::new();
        let page = loop {
            match archive.read(reader, FLOOR) {
                Found::Page { page, .. } => break page,
                Found::Wanted => {}
            }
            let fetch = fetch(&archive);
            fetches.push(fetch.after());
            // A page is as short as can be.
            let next = stream::following(fetch.after());
            let is_foreign = fetch.after() == reader;
            fetch.answer(if is_foreign { Fetched::Foreign } else { Fetched::Genuine(stretch(next..next + 1)) });
            assert!(fetches.len() < 5, "{fetches:?}");
        };
        let next = page.publications.iter().find(|one| one.offset > reader).unwrap();
        assert_eq!(next.offset, at(begins));
    }
    // A cursor is told so, and nobody reads there.
    let archive = Archive::default();
    let check = archive.check(stream::position(20, 0).unwrap(), FLOOR);
    fetch(&archive).answer(Fetched::Foreign);
    assert_eq!((check.verdict(), is_wanted(&archive)), (Some(Verdict::Foreign), false));
}

#[test]
fn a_check_is_answered_by_what_was_read_anyway() {
    let archive = Archive::default();
    let other = stream::position(20, 1).unwrap();
    let checks = [at(10), at(20), other, at(40)].map(|position| archive.check(position, FLOOR));
    assert!(checks.iter().all(|check| check.verdict().is_none()));
    assert!(Arc::ptr_eq(&checks[1], &archive.check(at(20), FLOOR)), "one question, however many ask it");
    let before = archive.tellings();
    fetch(&archive).answer(Fetched::Genuine(stretch(11..30)));
    assert_eq!(
        checks.each_ref().map(|check| check.verdict()),
        [Some(Verdict::Genuine), Some(Verdict::Genuine), Some(Verdict::Foreign), None]
    );
    assert!(archive.tellings() > before);
    fetch(&archive).answer(Fetched::Foreign);
    assert_eq!(archive.check(at(25), at(29)).verdict(), Some(Verdict::Genuine), "known at once");
    assert_eq!(archive.check(at(29), at(29)).verdict(), Some(Verdict::Genuine), "the last of a page too");
    assert!(!is_wanted(&archive));
}

/// Cursors are made up easily, and their clients gone before anybody has looked.
#[test]
fn a_cursor_is_judged_however_much_is_wanted_and_only_while_somebody_waits() {
    let archive = Archive::default();
    archive.state().wants = (0..WANTS_MAX as u64).map(|number| at(100 + number)).collect();
    let check = archive.check(at(10), FLOOR);
    fetch(&archive).answer(Fetched::Genuine(stretch(11..12)));
    assert_eq!(check.verdict(), Some(Verdict::Genuine));
    archive.state().wants.clear();
    drop(archive.check(at(20), FLOOR));
    assert!(!is_wanted(&archive), "nobody waits");
    let check = archive.check(at(20), FLOOR);
    fetch(&archive).answer(Fetched::Foreign);
    assert_eq!(check.verdict(), Some(Verdict::Foreign));
}

#[test]
fn where_the_stream_was_cut_everybody_goes_on_behind_the_cut() {
    let archive = Archive::default();
    let (old, older) = (archive.check(at(10), FLOOR), archive.check(at(5), FLOOR));
    fetch(&archive).answer(Fetched::Cut(100, stretch(100..120)));
    assert_eq!([old.verdict(), older.verdict()], [Some(Verdict::Expired); 2]);
    assert_eq!(archive.cut(FLOOR), stream::before(100));
    for position in [0, at(7), at(99)] {
        let Found::Page { from, page } = archive.read(position, FLOOR) else { panic!("not here") };
        assert_eq!((from, page.publications[0].offset), (stream::before(100), at(100)));
    }
    assert_eq!(archive.check(stream::before(100), at(110)).verdict(), Some(Verdict::Genuine), "told to go on there");
}

/// A page is kept for long. That the stream follows it is certain only to whoever asks now.
#[test]
fn a_page_vouches_for_a_cursor_and_not_for_what_follows_the_page() {
    for (fetched, verdict) in
        [(Fetched::Genuine(stretch(20..25)), Verdict::Genuine), (Fetched::Cut(90, stretch(90..95)), Verdict::Expired)]
    {
        let archive = Archive::default();
        archive.read(at(9), FLOOR);
        fetch(&archive).answer(Fetched::Genuine(stretch(10..20)));
        let checks = [at(12), at(17)].map(|position| archive.check(position, FLOOR));
        assert!(checks.iter().all(|check| check.verdict().is_none()));
        let end = fetch(&archive);
        assert_eq!((end.after(), is_wanted(&archive)), (at(19), false), "one question for all");
        end.answer(fetched);
        assert!(checks.iter().all(|check| check.verdict() == Some(verdict)));
        let Found::Page { from, .. } = archive.read(at(12), FLOOR) else { panic!("not here") };
        assert_eq!(from == at(12), verdict == Verdict::Genuine);
        let is_whole = archive.check(at(12), at(19)).verdict() == Some(Verdict::Genuine);
        assert!(is_whole && archive.cut(at(19)) <= at(9), "what is here up to the log is not lost");
    }
}

#[test]
fn a_fetch_that_fails_is_wanted_again_and_one_from_before_says_nothing() {
    let archive = Archive::default();
    let check = archive.check(at(10), FLOOR);
    drop(fetch(&archive));
    let late = fetch(&archive);
    archive.forget();
    assert_eq!(check.verdict(), Some(Verdict::Foreign), "the stream is another one");
    late.answer(Fetched::Genuine(stretch(11..30)));
    assert!(matches!(archive.read(at(20), FLOOR), Found::Wanted), "of the stream before");
    assert_eq!(fetch(&archive).after(), at(20));
}

#[test]
fn pages_are_bounded_and_the_oldest_go() {
    let archive = Archive::default();
    let pages = PAGES_BYTES_MAX / (PAGE_MESSAGES * page_bytes(&publication(0))) + 10;
    for number in 0..pages as u64 {
        let begin = number * PAGE_MESSAGES as u64;
        archive.read(at(begin), FLOOR);
        fetch(&archive).answer(Fetched::Genuine(stretch(begin + 1..begin + 1 + PAGE_MESSAGES as u64)));
    }
    assert!(archive.state().bytes <= PAGES_BYTES_MAX);
    assert!(matches!(archive.read(at(0), FLOOR), Found::Wanted));
    let last = (pages - 1) * PAGE_MESSAGES;
    assert!(matches!(archive.read(at(last as u64), FLOOR), Found::Page { .. }));
}

/// A stream and the source that reads it, as far as tests need one.
struct Model {
    first: u64,
    end: u64,
}

impl Model {
    fn answer(&self, fetch: Fetch<'_>, count: u64) {
        let named = stream::named(fetch.after());
        let begin = named.map_or(stream::following(fetch.after()), |offset| offset + 1);
        let first = self.first.max(named.unwrap_or(begin));
        if named.is_some_and(|offset| offset >= self.end || (offset >= self.first && at(offset) != fetch.after())) {
            return fetch.answer(Fetched::Foreign);
        }
        let is_cut = first > named.unwrap_or(begin);
        let from = if is_cut { first } else { begin };
        let read = stretch(from..(from + count).min(self.end));
        fetch.answer(if is_cut { Fetched::Cut(from, read) } else { Fetched::Genuine(read) });
    }
}

proptest! {
    /// Readers at any places, with pages of any sizes, while the stream is cut under them: each is given everything after
    /// its place once, in order, but for what was cut off before it came there, of which it is told.
    #[test]
    fn every_reader_is_given_everything_or_told(
        places in prop::collection::vec(0u64..90, 1..6),
        steps in prop::collection::vec((0usize..6, 1u64..20, 0u64..30), 1..200),
    ) {
        let archive = Archive::default();
        let mut model = Model { first: 0, end: 100 };
        // The last position read, what was given, and whether a cut was told.
        let mut readers: Vec<(u64, BTreeSet<u64>, bool)> =
            places.iter().map(|offset| (if *offset == 0 { 0 } else { at(*offset) }, BTreeSet::new(), false)).collect();
        let read = |reader: &mut (u64, BTreeSet<u64>, bool)| -> Result<(), TestCaseError> {
            if reader.0 >= at(99) {
                return Ok(());
            }
            if let Found::Page { from, page } = archive.read(reader.0, FLOOR) {
                reader.2 |= from > reader.0;
                for publication in page.publications.iter().filter(|publication| publication.offset > from) {
                    prop_assert!(reader.1.insert(publication.offset), "twice");
                }
                prop_assert!(page.until > from);
                reader.0 = page.until;
            }
            Ok(())
        };
        for (who, count, cut) in steps {
            if let Some(reader) = readers.get_mut(who) {
                read(reader)?;
            } else if cut < 3 {
                model.first = (model.first + cut * 10).min(95);
            }
            if is_wanted(&archive) {
                model.answer(fetch(&archive), count);
            }
        }
        for reader in &mut readers {
            while reader.0 < at(99) {
                read(reader)?;
                if is_wanted(&archive) {
                    model.answer(fetch(&archive), 10);
                }
            }
        }
        for (place, (_, given, told)) in places.iter().zip(&readers) {
            let begin = if *place == 0 { 0 } else { place + 1 };
            let owed: BTreeSet<u64> = (begin..100).map(at).collect();
            prop_assert!(given.is_subset(&owed));
            prop_assert!(*told || *given == owed, "missed in silence");
            prop_assert!(model.first > 0 || !*told, "nothing was cut");
        }
    }
}
