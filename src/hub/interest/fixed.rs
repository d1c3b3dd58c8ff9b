//! Bindings that do not follow demand: a list from the configuration, all of which must stand before any claim does.

use crate::hub::interest::Standing;
use crate::hub::interest::plan::Plan;
use crate::model::topic::Pattern;

/// A fixed list of bindings and how far they have come.
#[derive(Debug)]
pub(super) struct Fixed {
    bindings: Vec<(Pattern, Progress)>,
    refused: Option<String>,
    told: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Missing,
    Asked,
    Stands,
}

impl Fixed {
    pub(super) fn new(mut patterns: Vec<Pattern>) -> Self {
        patterns.sort();
        patterns.dedup();
        let bindings = patterns.into_iter().map(|pattern| (pattern, Progress::Missing)).collect();
        Self { bindings, refused: None, told: Standing::Wanted }
    }

    /// What every claim is told.
    pub(super) fn standing(&self) -> Standing {
        if let Some(reason) = &self.refused {
            return Standing::Refused(reason.clone());
        }
        let stands = self.bindings.iter().all(|(_, progress)| *progress == Progress::Stands);
        if stands { Standing::Stands } else { Standing::Wanted }
    }

    /// The standing when it differs from what was told last.
    pub(super) fn news(&mut self) -> Option<Standing> {
        let standing = self.standing();
        let is_news = standing != self.told;
        self.told.clone_from(&standing);
        is_news.then_some(standing)
    }

    pub(super) fn plan(&mut self) -> Plan {
        let mut plan = Plan::default();
        for (pattern, progress) in &mut self.bindings {
            if *progress == Progress::Missing && self.refused.is_none() {
                *progress = Progress::Asked;
                plan.bind.push(pattern.clone());
            }
        }
        plan
    }

    pub(super) fn stands(&mut self, pattern: &Pattern) {
        self.set(pattern, Progress::Stands);
    }

    pub(super) fn gone(&mut self, pattern: &Pattern) {
        self.set(pattern, Progress::Missing);
    }

    /// Refused is refused for all, until the link is made anew.
    pub(super) fn refused(&mut self, reason: String) {
        self.refused = Some(reason);
    }

    pub(super) fn lost(&mut self) {
        self.refused = None;
        self.bindings.iter_mut().for_each(|(_, progress)| *progress = Progress::Missing);
    }

    pub(super) fn bound(&self) -> impl Iterator<Item = &Pattern> {
        self.bindings.iter().filter(|(_, progress)| *progress == Progress::Stands).map(|(pattern, _)| pattern)
    }

    /// Whether all stand once this one does.
    pub(super) fn is_complete_with(&self, last: &Pattern) -> bool {
        self.bindings.iter().all(|(pattern, progress)| *progress == Progress::Stands || pattern == last)
    }

    fn set(&mut self, pattern: &Pattern, to: Progress) {
        if let Some((_, progress)) = self.bindings.iter_mut().find(|(known, _)| known == pattern) {
            *progress = to;
        }
    }
}
