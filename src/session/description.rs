//! One session in one line, for the log and the API: what answers "why does Anna get nothing". It changes nothing.

use std::fmt;

use crate::protocol::Gap;
use crate::session::Session;
use crate::session::conversation::Standing;
use crate::session::limits::DESCRIBED_PATTERNS_MAX;

/// What there is to say of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The connection's name.
    pub connection: String,
    /// Who it is: a name, `anonymous`, or `unauthenticated`.
    pub user: String,
    /// What it speaks.
    pub protocol: &'static str,
    /// Name and version of the client's program, as it says.
    pub client: Option<String>,
    /// Patterns that stand, the first [`DESCRIBED_PATTERNS_MAX`] of them.
    pub patterns: Vec<String>,
    /// Subscriptions in all.
    pub subscriptions: usize,
    /// Subscriptions whose bindings do not stand yet: what a client waits for that gets nothing.
    pub pending: usize,
    /// Messages that matched since the session began.
    pub matched: u64,
    /// What it missed last.
    pub last_gap: Option<Gap>,
}

impl Session {
    /// Describes the session; how many messages matched is known to whoever matches.
    pub fn describe(&self, matched: u64) -> Description {
        let user = match &self.standing {
            Standing::Known(identity) => identity.user.as_deref().unwrap_or("anonymous"),
            Standing::Unknown(_) => "unauthenticated",
        };
        let standing = self.subscriptions.iter().filter(|entry| entry.stage.stands());
        let patterns = standing.take(DESCRIBED_PATTERNS_MAX).map(|entry| entry.pattern.to_string());
        Description {
            connection: self.connection.to_string(),
            user: user.to_owned(),
            protocol: self.protocol.name,
            client: self.client.as_deref().map(str::to_owned),
            patterns: patterns.collect(),
            subscriptions: self.subscriptions.len(),
            pending: self.subscriptions.iter().filter(|entry| !entry.stage.stands()).count(),
            matched,
            last_gap: self.last_gap.as_deref().cloned(),
        }
    }
}

impl fmt::Display for Description {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, user, protocol, subscriptions, pending, matched, .. } = self;
        write!(formatter, "{connection}: user {user:?}, {protocol}, {matched} matched")?;
        write!(formatter, ", {subscriptions} subscriptions, {pending} of them waiting, patterns {:?}", self.patterns)?;
        match &self.last_gap {
            Some(gap) => write!(formatter, ", last gap {} on {:?}", gap.reason.name(), gap.pattern),
            None => formatter.write_str(", no gap"),
        }
    }
}
