//! The table of message types: code, name, and how many elements (WAMP, sections "Message Codes and Direction" and
//! "Additional Messages").

/// A type of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the specification, and the table says the rest")]
pub enum Kind {
    Hello,
    Welcome,
    Abort,
    Challenge,
    Authenticate,
    Goodbye,
    Error,
    Publish,
    Published,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Event,
    Call,
    Cancel,
    Result,
    Register,
    Registered,
    Unregister,
    Unregistered,
    Invocation,
    Interrupt,
    Yield,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The first element of the message.
    pub code: u64,
    /// Its name in the specification.
    pub name: &'static str,
    /// The fewest and the most elements that it may have, the code included.
    pub elements: (usize, usize),
}

impl Kind {
    /// Every type, in the order of their codes.
    pub const ALL: &[Self] = &[
        Self::Hello,
        Self::Welcome,
        Self::Abort,
        Self::Challenge,
        Self::Authenticate,
        Self::Goodbye,
        Self::Error,
        Self::Publish,
        Self::Published,
        Self::Subscribe,
        Self::Subscribed,
        Self::Unsubscribe,
        Self::Unsubscribed,
        Self::Event,
        Self::Call,
        Self::Cancel,
        Self::Result,
        Self::Register,
        Self::Registered,
        Self::Unregister,
        Self::Unregistered,
        Self::Invocation,
        Self::Interrupt,
        Self::Yield,
    ];

    /// Its row.
    pub const fn row(self) -> Row {
        let (code, name, elements) = match self {
            Self::Hello => (1, "HELLO", (3, 3)),
            Self::Welcome => (2, "WELCOME", (3, 3)),
            Self::Abort => (3, "ABORT", (3, 5)),
            Self::Challenge => (4, "CHALLENGE", (3, 3)),
            Self::Authenticate => (5, "AUTHENTICATE", (3, 3)),
            Self::Goodbye => (6, "GOODBYE", (3, 3)),
            Self::Error => (8, "ERROR", (5, 7)),
            Self::Publish => (16, "PUBLISH", (4, 6)),
            Self::Published => (17, "PUBLISHED", (3, 3)),
            Self::Subscribe => (32, "SUBSCRIBE", (4, 4)),
            Self::Subscribed => (33, "SUBSCRIBED", (3, 3)),
            Self::Unsubscribe => (34, "UNSUBSCRIBE", (3, 3)),
            Self::Unsubscribed => (35, "UNSUBSCRIBED", (2, 3)),
            Self::Event => (36, "EVENT", (4, 6)),
            Self::Call => (48, "CALL", (4, 6)),
            Self::Cancel => (49, "CANCEL", (3, 3)),
            Self::Result => (50, "RESULT", (3, 5)),
            Self::Register => (64, "REGISTER", (4, 4)),
            Self::Registered => (65, "REGISTERED", (3, 3)),
            Self::Unregister => (66, "UNREGISTER", (3, 3)),
            Self::Unregistered => (67, "UNREGISTERED", (2, 3)),
            Self::Invocation => (68, "INVOCATION", (4, 6)),
            Self::Interrupt => (69, "INTERRUPT", (3, 3)),
            Self::Yield => (70, "YIELD", (3, 5)),
        };
        Row { code, name, elements }
    }

    /// The type of this code.
    pub fn of_code(code: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }

    /// Its code.
    pub const fn code(self) -> u64 {
        self.row().code
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.row().name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_find_their_types() {
        assert!(Kind::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        for kind in Kind::ALL {
            assert_eq!(Kind::of_code(kind.code()), Some(*kind));
            assert_eq!(format!("{kind:?}").to_uppercase(), kind.name());
        }
        assert_eq!(Kind::of_code(7), None);
    }
}
