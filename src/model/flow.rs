//! What becomes of live messages that a client does not read fast enough. Plain data.

/// What a subscription does when its client is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Flow {
    /// It goes on from the log when its client reads again: everything comes, late.
    #[default]
    CatchUp,
    /// Of each topic only the newest message is still sent: what was superseded is no loss.
    Latest,
    /// Only the newest messages are still sent, and how many were dropped before them is told as a gap.
    DropOldest,
}

impl Flow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CatchUp, Self::Latest, Self::DropOldest];

    /// As clients and configuration write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CatchUp => "catch-up",
            Self::Latest => "latest",
            Self::DropOldest => "drop-oldest",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flow| flow.name() == name)
    }
}
