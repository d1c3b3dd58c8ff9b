//! One subscriber of a shard: its subscriptions, and where they stand together.

use std::sync::Arc;

use crate::hub::index::SubscriberId;
use crate::hub::shard::CursorForm;
use crate::hub::shard::lane::{Lane, Rotation};
use crate::hub::shard::subscription::{Progress, SentBefore, Subscription};
use crate::model::publication::SourceId;
use crate::model::selector::Selector;

#[derive(Debug, Default)]
pub(super) struct Subscriber {
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) form: Option<CursorForm>,
    /// Whose turn it is where several subscriptions read together.
    pub(super) rotation: Rotation,
    /// Whether other subscriptions are live than when this was last asked.
    pub(super) changed: bool,
    /// Whether it was told, when it subscribed, that sources have no broker: then it is told of their first link.
    pub(super) was_told_of_outages: bool,
    /// Under which it publishes what it does not want back.
    pub(super) origin: Option<Arc<str>>,
}

impl Subscriber {
    /// How far everything of a source was sent, or nothing when it does not read that source.
    pub(super) fn floor(&self, source: SourceId, position: u64) -> Option<u64> {
        self.subscriptions.iter().filter_map(|subscription| subscription.floor(source, position)).min()
    }

    /// The same, of those that stand, if they agree.
    pub(super) fn common_floor(&self, source: SourceId, position: u64) -> Option<u64> {
        let standing = self.subscriptions.iter().filter(|subscription| !subscription.is_waiting());
        let mut floors = standing.filter_map(|subscription| subscription.floor(source, position));
        let first = floors.next()?;
        floors.all(|floor| floor == first).then_some(first)
    }

    /// How far its subscriptions have sent everything of a source that came live; `position` is where the shard is.
    pub(super) fn sent(&self, source: SourceId, position: u64) -> SentBefore {
        let others = self.subscriptions.iter().filter(|one| !one.is_paced());
        let unpaced = others.filter_map(|one| one.part(source)?.behind_at()).min().unwrap_or(position);
        // Most are as far as the others: what is not listed is.
        let paced = self.subscriptions.iter().filter(|one| one.is_paced() && !one.is_waiting());
        let read = |one: &Subscription| Some((one.id, one.floor(source, position)?));
        let apart = paced.filter_map(read).filter(|(_, read)| *read != unpaced);
        SentBefore { unpaced, paced: apart.collect() }
    }

    /// Puts what others of its subscriptions want just so back into the index, where they are live: one that left has taken
    /// them with it, because the index knows a subscriber once for each pattern and filter.
    pub(super) fn enter_again(&mut self, lanes: &mut [Lane], id: SubscriberId, left: &Selector) {
        if self.form != Some(CursorForm::Each) {
            return;
        }
        for subscription in self.subscriptions.iter_mut().filter(|known| known.wanted == *left) {
            for source in subscription.live_sources().collect::<Vec<_>>() {
                if let Some(lane) = lanes.get_mut(source.index()) {
                    lane.live.enter(&mut subscription.wanted, id);
                }
            }
        }
    }

    /// The sources in which it is behind, and not only by the pace of some; with a joint cursor all of them or none.
    pub(super) fn behind(&self) -> Vec<SourceId> {
        let joint = self.form == Some(CursorForm::Joint);
        let counts = |one: &&Subscription| one.is_behind() && (joint || !one.is_paced());
        let parts = self.subscriptions.iter().filter(counts).flat_map(|subscription| &subscription.parts);
        parts.filter(|part| joint || part.is_behind()).map(|part| part.source).collect()
    }
}

/// From its start on a paced subscription keeps from being pushed what it sends itself.
pub(super) fn enter_paced(lanes: &mut [Lane], id: SubscriberId, subscription: &mut Subscription) {
    if subscription.pace.is_some() {
        for part in &subscription.parts {
            let Some(lane) = lanes.get_mut(part.source.index()) else { continue };
            lane.paced.enter(&mut subscription.wanted, (id, subscription.id));
        }
    }
}

/// Takes a subscription out of the index and gives its claims back.
pub(super) fn close(lanes: &mut [Lane], id: SubscriberId, subscription: &Subscription) {
    for part in &subscription.parts {
        let Some(lane) = lanes.get_mut(part.source.index()) else { continue };
        if subscription.pace.is_some() {
            lane.paced.leave(&subscription.wanted, (id, subscription.id));
        } else if matches!(part.progress, Progress::Live { .. }) {
            lane.live.leave(&subscription.wanted, id);
        }
        lane.release(&subscription.wanted.pattern);
    }
}
