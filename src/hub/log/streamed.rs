//! The log of a stream source. Its positions are the stream's, so that they are the same on every node and after every
//! start, and what it lets go of the stream still has: nothing is lost by its bounds, and no binding says what it covers.

use std::sync::Arc;

use crate::config::LogBounds;
use crate::hub::archive::Verdict;
use crate::hub::log::retained::{Clears, Retained};
use crate::hub::log::ring::{Missed, Ring};
use crate::hub::log::{Bounds, Log, LogGap, Origin, Resume, gap, merge};
use crate::model::cursor::Cursor;
use crate::model::gap::GapReason;
use crate::model::publication::{Draft, Publication, SourceInfo, UnixMillis};
use crate::model::stream;
use crate::model::topic::Pattern;

impl Log {
    /// An empty log of a stream; its info's epoch is the same on every node.
    pub fn of_stream(info: Arc<SourceInfo>, bounds: LogBounds) -> Self {
        let bounds = Bounds::from(bounds);
        let retained = Retained::new(bounds.ring.last, Clears::Remembered);
        Self { origin: Origin::Stream { begins: None }, retained, ..Self::bounded(info, bounds) }
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.origin, Origin::Stream { .. })
    }

    /// Whether anything is known of where its stream stands.
    pub fn has_begun(&self) -> bool {
        self.origin != Origin::Stream { begins: None }
    }

    /// The stream ends with this position, 0 where it is empty: whatever comes follows it.
    pub fn begin(&mut self, position: u64) {
        self.end = position;
        self.origin = Origin::Stream { begins: Some(position) };
    }

    /// What follows the log's end is gone from the stream, up to a stream's offset: before that stands who was told.
    pub fn cut(&mut self, offset: u64) {
        self.hole_until(stream::before(offset), GapReason::Expired, None);
    }

    /// Keeps drafts at the positions that the stream gave them; what is not above the log's end is known already.
    pub fn append_placed(&mut self, drafts: Vec<(u64, Draft)>, now: UnixMillis) {
        for (offset, draft) in drafts {
            if offset <= self.end {
                continue;
            }
            // A stream that was taken for empty and is not begins here too.
            if self.end == 0 {
                let begins = stream::before(stream::following(offset).saturating_sub(1));
                self.origin = Origin::Stream { begins: Some(begins) };
            }
            self.end = offset;
            self.push(Publication { source: self.info.clone(), offset, draft });
        }
        self.ring.expire(now);
    }

    /// Everything after this position is in the log; what was before only the stream has.
    pub fn floor(&self) -> u64 {
        self.begins().max(self.ring.evicted())
    }

    /// Everything after this position passed through here.
    pub(super) fn begins(&self) -> u64 {
        match self.origin {
            Origin::Counted => 0,
            Origin::Stream { begins } => begins.unwrap_or(0),
        }
    }

    /// Whether a cursor is genuine, as far as the log knows without asking the stream.
    pub fn verdict(&self, after: Cursor) -> Option<Verdict> {
        let position = after.offset;
        if after.epoch != self.info.epoch || !stream::is_position(position) {
            return Some(Verdict::Foreign);
        }
        if !self.has_begun() || position > self.end {
            return None;
        }
        // The last message that came before the first here is not known here.
        let is_inside = stream::following(position) > stream::following(self.begins());
        let is_believed = position == self.end || (is_inside && self.is_unnamed(position));
        let knew = if is_believed { Some(true) } else { self.ring.knew(position) };
        match knew {
            // What follows is here, or else the stream has to say whether it still has it.
            Some(true) => (position >= self.ring.evicted()).then_some(Verdict::Genuine),
            Some(false) if is_inside => self.verdict_between(position),
            Some(false) | None => None,
        }
    }

    /// Likewise where the log has passed and holds nothing: what was cut off before it came here another node may have seen.
    fn verdict_between(&self, position: u64) -> Option<Verdict> {
        match self.holes.known_from(position.saturating_sub(1)).next() {
            Some(hole) if hole.until == position => Some(Verdict::Genuine),
            Some(hole) if hole.at < position => Some(Verdict::Expired),
            // Who was away during a cut may hold another stream's messages before it, so that only the stream can say.
            _ if position < self.cut_until() => None,
            _ => Some(Verdict::Foreign),
        }
    }

    /// Whether a position is a place before a message, which has no mark and is believed, and of the stream as it is.
    fn is_unnamed(&self, position: u64) -> bool {
        stream::named(position).is_none() && position >= self.cut_until()
    }

    /// Where the last cut ends: what follows is certainly of the stream as it is; 0 where there was none.
    fn cut_until(&self) -> u64 {
        self.holes.last(GapReason::Expired).unwrap_or(0)
    }

    /// As [`Self::resume`], with what the stream said to a cursor on which the log has no verdict; `cut` is where the stream
    /// begins, as far as is known, or what is here of it.
    pub fn resume_stream(&self, pattern: &Pattern, after: Cursor, verdict: Verdict, cut: u64) -> Resume {
        let judged_until = self.end;
        if verdict == Verdict::Foreign {
            let gaps = vec![LogGap { reason: GapReason::UnknownCursor, missed: None }];
            return Resume { read_after: self.end, gaps, judged_until };
        }
        let holes = self.holes_outside(&[], pattern, after.offset).into_iter().map(|(_, gap)| gap);
        if verdict == Verdict::Genuine {
            return Resume { read_after: after.offset, gaps: merge(holes), judged_until };
        }
        let is_believed = self.is_unnamed(after.offset) || self.ring.knew(after.offset) == Some(true);
        let cut = if is_believed { cut } else { cut.max(self.cut_until()) };
        let read_after = cut.max(after.offset);
        let expired = if is_believed {
            self.cut_off(pattern, after.offset, read_after)
        } else {
            // With the message that it names its mark is gone too, so it may as well be of another stream.
            Some(LogGap { reason: GapReason::Expired, missed: None })
        };
        Resume { read_after, gaps: merge(expired.into_iter().chain(holes)), judged_until }
    }

    /// What of a pattern the stream dropped between two positions; counted where the log still knows.
    pub fn cut_off(&self, pattern: &Pattern, after: u64, cut: u64) -> Option<LogGap> {
        if stream::following(after) >= stream::following(cut) {
            return None;
        }
        let missed = if after >= self.begins() { self.ring.missed(pattern, after, cut) } else { Missed::Unknown };
        gap(missed, GapReason::Expired)
    }

    /// The stream is another one by the same name: the log begins anew after this position.
    pub fn restart(&mut self, begins: u64) {
        self.retained = Retained::new(self.ring.bounds().last, Clears::Remembered);
        self.ring = Ring::new(self.ring.bounds());
        self.holes.clear();
        self.begin(begins);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::cursor::Epoch;
    use crate::model::publication::{Attributes, SourceId};
    use crate::model::topic::Topic;

    const EPOCH: Epoch = Epoch(9);

    fn at(offset: u64) -> u64 {
        stream::position(offset, offset + 5).unwrap()
    }

    fn cursor(position: u64) -> Cursor {
        Cursor { epoch: EPOCH, offset: position }
    }

    fn log() -> Log {
        let info = SourceInfo::new(SourceId(0), "events", EPOCH);
        let bounds = LogBounds { messages_max: 1, bytes_max: 1, ..LogBounds::default() };
        Log::of_stream(Arc::new(info), bounds)
    }

    fn append(log: &mut Log, offsets: std::ops::Range<u64>) {
        let draft = |offset: u64| {
            let topic = Topic::parse(["even", "odd"][offset as usize % 2]).unwrap();
            (at(offset), Draft { topic, payload: Bytes::new(), attributes: Attributes::default(), received_at: 0 })
        };
        log.append_placed(offsets.map(draft).collect(), 0);
    }

    #[test]
    fn the_log_vouches_for_what_passed_through_it_and_for_nothing_else() {
        let mut log = log();
        assert_eq!(log.verdict(cursor(at(5))), None, "nothing is known of the stream yet");
        append(&mut log, 10..20);
        assert_eq!((log.floor(), log.end()), (stream::before(10), at(19)));
        for (position, verdict) in [
            (at(10), Some(Verdict::Genuine)),
            (at(19), Some(Verdict::Genuine)),
            (at(15) + 1, Some(Verdict::Foreign)),
            (at(9), None),
            (at(3), None),
            (at(20), None),
            (1, Some(Verdict::Foreign)),
        ] {
            assert_eq!(log.verdict(cursor(position)), verdict, "{position}");
        }
        assert_eq!(log.verdict(Cursor { epoch: Epoch(8), offset: at(15) }), Some(Verdict::Foreign));
    }

    #[test]
    fn before_a_cut_only_the_stream_can_call_a_cursor_foreign() {
        let mut log = log();
        append(&mut log, 10..20);
        log.cut(30);
        append(&mut log, 30..40);
        for (position, verdict) in [
            (at(15), Some(Verdict::Genuine)),
            (at(15) + 1, None),
            (stream::before(15), None),
            (at(25), Some(Verdict::Expired)),
            (stream::before(30), Some(Verdict::Genuine)),
            (at(35), Some(Verdict::Genuine)),
            (at(35) + 1, Some(Verdict::Foreign)),
        ] {
            assert_eq!(log.verdict(cursor(position)), verdict, "{position}");
        }
        let read_after =
            |position| log.resume_stream(&Pattern::all(), cursor(position), Verdict::Expired, 0).read_after;
        assert_eq!(read_after(at(15) + 1), stream::before(30), "what is here from before may be of another stream");
        assert_eq!(read_after(at(15)), at(15), "that one is of this one");
    }

    #[test]
    fn what_came_before_a_lost_link_is_not_taken_twice() {
        let mut log = log();
        append(&mut log, 10..20);
        append(&mut log, 15..25);
        assert_eq!((log.end(), log.messages()), (at(24), 15));
    }

    #[test]
    fn a_stream_that_was_taken_for_empty_begins_with_its_first_message() {
        let mut log = log();
        log.begin(0);
        assert_eq!((log.floor(), log.verdict(cursor(0))), (0, Some(Verdict::Genuine)));
        append(&mut log, 7..9);
        assert_eq!((log.floor(), log.verdict(cursor(0))), (stream::before(7), None));
    }

    #[test]
    fn what_the_log_lets_go_is_no_gap() {
        let mut log = log();
        append(&mut log, 0..crate::hub::log::LIVE_MESSAGES_MIN as u64 + 50);
        assert_eq!(log.floor(), at(49));
        let resume = log.resume_stream(&Pattern::all(), cursor(at(3)), Verdict::Genuine, 0);
        assert_eq!((resume.read_after, resume.gaps), (at(3), vec![]));
        let resume = log.resume_stream(&Pattern::all(), cursor(at(3)), Verdict::Foreign, 0);
        assert_eq!((resume.read_after, resume.gaps[0].reason), (log.end(), GapReason::UnknownCursor));
    }

    #[test]
    fn what_the_stream_cut_off_is_counted_while_the_log_knows_it() {
        let mut log = log();
        append(&mut log, 10..crate::hub::log::LIVE_MESSAGES_MIN as u64 + 60);
        let (odd, cut) = (Pattern::parse("odd").unwrap(), stream::before(30));
        let gaps = |log: &Log, offset| log.resume_stream(&odd, cursor(at(offset)), Verdict::Expired, cut).gaps;
        assert_eq!(gaps(&log, 19), [LogGap { reason: GapReason::Expired, missed: Some(5) }]);
        assert_eq!(gaps(&log, 5), [LogGap { reason: GapReason::Expired, missed: None }], "it came too late for that");
        log.restart(stream::before(3));
        assert_eq!((log.end(), log.floor(), log.messages()), (stream::before(3), stream::before(3), 0));
    }
}
