//! Why a subscriber may have missed messages: the one list that logs, sources, sessions, codecs and metrics share.

/// Why something was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapReason {
    /// The reader was too slow.
    Slow,
    /// The log no longer reaches back so far.
    Expired,
    /// The link to the broker was away.
    Outage,
    /// Nobody had asked the broker for these topics at the time.
    Unbound,
    /// The cursor is not of this log.
    UnknownCursor,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Slow, Self::Expired, Self::Outage, Self::Unbound, Self::UnknownCursor];

    /// As it is written in every protocol and on the metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Expired => "expired",
            Self::Outage => "outage",
            Self::Unbound => "unbound",
            Self::UnknownCursor => "unknown_cursor",
        }
    }
}
