//! The three versions of STOMP, and which of them a client and this server have in common.

use std::fmt;

/// A version of STOMP; a later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// 1.0: nothing in a header can be escaped.
    V10,
    /// 1.1: heart-beats, `NACK`, three escapes.
    V11,
    /// 1.2: lines may end in CR LF, a fourth escape, `ack` names what is acknowledged.
    V12,
}

impl Version {
    /// Every version, the oldest first.
    pub const ALL: [Self; 3] = [Self::V10, Self::V11, Self::V12];

    /// As it is written in headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    /// The greatest version that a client's `accept-version` lists; `None` when it lists none that there is. A client
    /// that does not send the header speaks 1.0.
    pub fn negotiate(accept_version: Option<&str>) -> Option<Self> {
        let Some(list) = accept_version else { return Some(Self::V10) };
        let is_listed = |version: &Self| list.split(',').any(|name| name.trim() == version.name());
        Self::ALL.into_iter().rev().find(is_listed)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_common_version_is_spoken() {
        for (accept_version, expected) in [
            (None, Some(Version::V10)),
            (Some("1.0"), Some(Version::V10)),
            (Some("1.0,1.1"), Some(Version::V11)),
            (Some("1.2,1.0,1.1"), Some(Version::V12)),
            (Some(" 1.1 , 2.0"), Some(Version::V11)),
            (Some("1.3,2.0"), None),
            (Some("1.20"), None),
            (Some(""), None),
        ] {
            assert_eq!(Version::negotiate(accept_version), expected, "{accept_version:?}");
        }
    }
}
