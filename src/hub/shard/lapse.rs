//! Subscriptions that stood and that nothing will come of any more, because the broker refused their bindings when a link
//! was made anew, or as they took the place of others. Once a subscription stands nobody else looks at its claims.

use std::collections::HashMap;

use crate::hub::index::SubscriberId;
use crate::hub::log::LogGap;
use crate::hub::shard::lane::{Lane, Refused};
use crate::hub::shard::subscription::Subscription;
use crate::hub::shard::{Lapsed, Shard};
use crate::model::gap::GapReason;
use crate::model::publication::SourceId;
use crate::model::topic::Pattern;

/// What is refused of some sources.
type Refusals = Vec<(SourceId, HashMap<Pattern, Refused>)>;

impl Shard {
    /// Subscriptions of which nothing will come any more, each once: they are to be told so, and ended.
    pub fn lapsed(&mut self) -> Vec<Lapsed> {
        let refused = |lane: &mut Lane| Some((lane.info().id, lane.take_refused()?));
        let refusals: Refusals = self.lanes.iter_mut().filter_map(refused).collect();
        if refusals.is_empty() {
            return Vec::new();
        }
        let all = self.subscribers.iter().enumerate();
        let all = all.flat_map(|(number, subscriber)| subscriber.subscriptions.iter().map(move |one| (number, one)));
        all.filter_map(|(number, one)| self.lapse(SubscriberId(number as u32), one, &refusals)).collect()
    }

    /// What becomes of one subscription; nothing where it is not concerned. One that still waits is refused as it opens.
    fn lapse(&self, subscriber: SubscriberId, one: &Subscription, refusals: &Refusals) -> Option<Lapsed> {
        if one.is_waiting() || one.is_parting() {
            return None;
        }
        let concerned = refusals.iter().filter(|(source, _)| one.part(*source).is_some());
        let concerned = concerned.filter_map(|(source, refused)| Some((*source, refused.get(&one.wanted.pattern)?)));
        let concerned: Vec<(SourceId, &Refused)> = concerned.collect();
        let sentence = concerned.first()?.1.sentence.clone();
        let unbound = concerned.iter().filter(|(_, refused)| !refused.is_covered);
        let lanes = unbound.filter_map(|(source, _)| self.lanes.get(source.index()));
        let gaps = lanes.map(|lane| one.missed(lane, LogGap { reason: GapReason::Unbound, missed: None }));
        Some(Lapsed { subscriber, subscription: one.id, gaps: gaps.collect(), sentence })
    }
}
