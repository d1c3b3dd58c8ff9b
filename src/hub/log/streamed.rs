//! The log of a stream source. Its positions are the stream's, so that they are the same on every node and after every
//! start, and what it lets go of the stream still has: nothing is lost by its bounds, and no binding says what it covers.

use std::sync::Arc;

use crate::config::LogBounds;
use crate::hub::archive::Verdict;
use crate::hub::log::ring::{Missed, Ring};
use crate::hub::log::{Log, LogGap, Origin, Resume, gap};
use crate::model::cursor::Cursor;
use crate::model::gap::GapReason;
use crate::model::publication::{Draft, Publication, SourceInfo, UnixMillis};
use crate::model::stream;
use crate::model::topic::Pattern;

impl Log {
    /// An empty log of a stream; its info's epoch is the same on every node.
    pub fn of_stream(info: Arc<SourceInfo>, bounds: LogBounds) -> Self {
        Self { origin: Origin::Stream { begins: None }, ..Self::bounded(info, bounds.into()) }
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.origin, Origin::Stream { .. })
    }

    /// Whether anything is known of where its stream stands.
    pub fn has_begun(&self) -> bool {
        self.origin != Origin::Stream { begins: None }
    }

    /// The stream is empty: whatever comes follows position 0.
    pub fn begin_empty(&mut self) {
        self.origin = Origin::Stream { begins: Some(0) };
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
            self.ring.push(Arc::new(Publication { source: self.info.clone(), offset, draft }));
        }
        self.ring.expire(now);
    }

    /// Everything after this position is in the log; what was before only the stream has.
    pub fn floor(&self) -> u64 {
        self.begins().max(self.ring.evicted())
    }

    /// Everything after this position passed through here.
    fn begins(&self) -> u64 {
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
        if !self.has_begun() || position > self.end || position < self.ring.evicted() {
            return None;
        }
        // The last message that came before the first here is not known here.
        let is_inside = stream::following(position) > stream::following(self.begins());
        let is_known = self.ring.holds(position) || position == self.ring.evicted() || position == self.end;
        match (is_inside, is_known) {
            (_, true) => Some(Verdict::Genuine),
            (true, false) => Some(Verdict::Foreign),
            (false, false) => None,
        }
    }

    /// As [`Self::resume`], with what the stream said to a cursor on which the log has no verdict; `cut` is where the stream
    /// begins.
    pub fn resume_stream(&self, pattern: &Pattern, after: Cursor, verdict: Verdict, cut: u64) -> Resume {
        let judged_until = self.end;
        let from = |read_after, gaps| Resume { read_after, gaps, judged_until };
        match verdict {
            Verdict::Genuine => from(after.offset, Vec::new()),
            Verdict::Expired => {
                from(cut.max(after.offset), self.cut_off(pattern, after.offset, cut).into_iter().collect())
            }
            Verdict::Foreign => from(self.end, vec![LogGap { reason: GapReason::UnknownCursor, missed: None }]),
        }
    }

    /// What of a pattern the stream dropped between two positions; counted where the log still knows.
    pub fn cut_off(&self, pattern: &Pattern, after: u64, cut: u64) -> Option<LogGap> {
        let missed = if after >= self.begins() { self.ring.missed(pattern, after, cut) } else { Missed::Unknown };
        gap(missed, GapReason::Expired)
    }

    /// The stream is another one by the same name: it begins anew.
    pub fn restart(&mut self) {
        self.end = 0;
        self.ring = Ring::new(self.ring.bounds());
        self.holes.clear();
        self.origin = Origin::Stream { begins: None };
    }
}
