//! What was missed, kept until the next message, for protocols that have no word for it between messages.

use crate::model::gap::GapReason;
use crate::protocol::Gap;

/// What a subscription missed since its last message: told with the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    reasons: Vec<(GapReason, String)>,
    /// How many, if known of all.
    missed: Option<u64>,
}

impl Missing {
    pub(super) fn of(gap: &Gap) -> Self {
        Self { reasons: vec![(gap.reason, gap.source.to_string())], missed: gap.missed }
    }

    /// One more before the next message.
    pub(super) fn add(&mut self, gap: &Gap) {
        let reason = (gap.reason, gap.source.to_string());
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
        self.missed = self.missed.zip(gap.missed).map(|(before, now)| before.saturating_add(now));
    }

    /// As names and values, for a protocol that writes them with the message.
    pub(super) fn fields(&self) -> [(String, String); 3] {
        let listed =
            |text: fn(&(GapReason, String)) -> &str| self.reasons.iter().map(text).collect::<Vec<_>>().join(",");
        let missed = self.missed.map_or("unknown".to_owned(), |missed| missed.to_string());
        [
            ("gap".into(), listed(|(reason, _)| reason.name())),
            ("gap-source".into(), listed(|(_, source)| source)),
            ("gap-missed".into(), missed),
        ]
    }
}
