//! What a log offers to a reader that fell behind what is live: where the next hole is, what waits, and the newest message
//! of each topic alone.

use std::sync::Arc;

use crate::hub::log::ring::Missed;
use crate::hub::log::{Chunk, Hole, Log, LogGap, ReadBounds, gap};
use crate::model::gap::GapReason;
use crate::model::publication::Publication;
use crate::model::selector::Selector;
use crate::model::topic::Pattern;

/// Messages that were superseded and that one call may pass over for each that it may return.
const SUPERSEDED_STEPS: usize = 16;

impl Log {
    /// The first hole at or after one offset and before another, as far as holes are known one by one.
    pub fn next_hole(&self, from: u64, until: u64) -> Option<&Hole> {
        self.holes.known_from(from).next().filter(|hole| hole.at < until)
    }

    /// Of the holes that are no longer known one by one, the last of each reason at or after an offset.
    pub fn forgotten_holes(&self, from: u64) -> Vec<(GapReason, u64)> {
        self.holes.forgotten_from(from).collect()
    }

    /// What of a pattern left the log between two offsets, for a reader who had not come so far.
    pub fn left(&self, pattern: &Pattern, after: u64, until: u64) -> Option<LogGap> {
        gap(self.ring.missed(pattern, after, until), GapReason::Slow)
    }

    /// What is wanted after one offset and up to another, of each topic only the newest, in chunks.
    ///
    /// A topic whose newest message has left the log is a loss; what was superseded is none.
    pub fn read_latest(&self, wanted: &Selector, after: u64, until: u64, bounds: ReadBounds) -> Chunk {
        let steps_max = bounds.messages_max.saturating_mul(SUPERSEDED_STEPS);
        let mut publications: Vec<Arc<Publication>> = Vec::new();
        let (mut bytes, mut next, mut passed) = (0, until, after);
        for (step, (publication, publication_bytes)) in self.ring.matching(&wanted.pattern, after, until).enumerate() {
            let full = publications.len() >= bounds.messages_max || bytes + publication_bytes > bounds.bytes_max;
            if step >= steps_max || (full && !publications.is_empty()) {
                next = passed;
                break;
            }
            passed = publication.offset;
            if wanted.lets_in(&publication.draft) && self.ring.is_newest(publication, wanted, until) {
                bytes += publication_bytes;
                publications.push(publication.clone());
            }
        }
        let gap = self.lost_topics(wanted, &Pattern::all(), after, until);
        Chunk { publications, next, gap }
    }

    /// Topics that are wanted and match a pattern too, of which nothing is left of what came between two offsets.
    pub fn lost_topics(&self, wanted: &Selector, also: &Pattern, after: u64, until: u64) -> Option<LogGap> {
        if self.ring.missed(&wanted.pattern, after, until) == Missed::Nothing {
            return None;
        }
        let missed = self.ring.lost_topics(wanted, also, after, until);
        (missed != Some(0)).then_some(LogGap { reason: GapReason::Slow, missed })
    }

    /// What matches both of two patterns and left the log between two offsets.
    pub fn left_by_both(&self, both: [&Pattern; 2], after: u64, until: u64) -> Option<LogGap> {
        // What never passed through here nobody counted.
        let is_known = after >= self.begins();
        let missed = if is_known { self.ring.missed_by_both(both, after, until) } else { Missed::Unknown };
        gap(missed, GapReason::Slow)
    }

    /// What the log holds of what is wanted after one offset and up to another.
    pub fn waiting(&self, wanted: &Selector, after: u64, until: u64) -> impl Iterator<Item = &Arc<Publication>> {
        let matching = self.ring.matching(&wanted.pattern, after, until).map(|(publication, _)| publication);
        matching.filter(|publication| wanted.lets_in(&publication.draft))
    }

    /// Whether nothing on the same topic that is wanted follows a publication up to an offset.
    pub fn is_newest(&self, publication: &Publication, wanted: &Selector, until: u64) -> bool {
        self.ring.is_newest(publication, wanted, until)
    }
}
