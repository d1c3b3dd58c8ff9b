//! What those wait for who have something to read and read nothing: in each of its sources a page of the stream, or that the
//! shard itself comes further. Nothing else helps them, so that nobody has to ask them meanwhile.

use crate::hub::index::SubscriberId;
use crate::hub::shard::Shard;
use crate::hub::shard::subscription::{Part, Progress};
use crate::model::publication::SourceId;

/// What brings somebody on in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Awaited {
    /// What it waits for comes before the place where the shard is: the source fetches it, and answers.
    Answer,
    /// It has read as far as the shard is.
    Position,
}

/// How far a source had come at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// How often it had answered.
    pub tellings: u64,
    /// Where the shard was.
    pub position: u64,
    /// How often its stream had turned out to be another one, as far as the shard had told of it.
    pub remade: u64,
}

impl Reached {
    /// Whether what has happened since an earlier moment may bring on who waits.
    pub fn brings(self, awaited: Awaited, since: Self) -> bool {
        let has_moved = match awaited {
            Awaited::Answer => self.tellings != since.tellings,
            Awaited::Position => self.position != since.position,
        };
        has_moved || self.remade != since.remade
    }
}

impl Shard {
    /// How far each source has come, in the order of their ids.
    pub fn reached(&self) -> Vec<Reached> {
        let of_lane = self.lanes.iter().map(|lane| Reached {
            tellings: lane.state().tellings(),
            position: lane.position(),
            remade: lane.remade(),
        });
        of_lane.collect()
    }

    /// For what a subscriber waits in each source of which it reads the log: any of it may bring it on.
    pub fn awaited(&self, id: SubscriberId) -> Vec<(SourceId, Awaited)> {
        let subscriptions = self.subscribers.get(id.index()).map_or(&[][..], |subscriber| &subscriber.subscriptions);
        let parts = subscriptions.iter().flat_map(|subscription| &subscription.parts);
        let of_part = |part: &Part| {
            let (Progress::Reading { read } | Progress::Behind { read, .. }) = part.progress else { return None };
            let position = self.lanes.get(part.source.index())?.position();
            Some((part.source, if read < position { Awaited::Answer } else { Awaited::Position }))
        };
        parts.filter_map(of_part).collect()
    }
}
