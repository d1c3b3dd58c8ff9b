//! What a frame is: a verb, headers in their order, a body. It knows nothing of how these are written.

use bytes::Bytes;

/// What a frame says; the specification calls it a command, which here is what a client asks for in no protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// A client begins.
    Connect,
    /// The same, from 1.1 on.
    Stomp,
    /// A client publishes.
    Send,
    /// A client wants what is sent to a destination.
    Subscribe,
    /// It wants it no more.
    Unsubscribe,
    /// A client has taken a message.
    Ack,
    /// It has not.
    Nack,
    /// A transaction begins.
    Begin,
    /// It takes effect.
    Commit,
    /// It never was.
    Abort,
    /// A client ends.
    Disconnect,
    /// The server's answer to the first frame.
    Connected,
    /// A message for a subscription.
    Message,
    /// The server has done what a frame asked for.
    Receipt,
    /// The server could not, and ends the session.
    Error,
}

impl Verb {
    /// Every verb, those of clients first.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Stomp,
        Self::Send,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Ack,
        Self::Nack,
        Self::Begin,
        Self::Commit,
        Self::Abort,
        Self::Disconnect,
        Self::Connected,
        Self::Message,
        Self::Receipt,
        Self::Error,
    ];

    /// As it stands in the first line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Stomp => "STOMP",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Disconnect => "DISCONNECT",
            Self::Connected => "CONNECTED",
            Self::Message => "MESSAGE",
            Self::Receipt => "RECEIPT",
            Self::Error => "ERROR",
        }
    }

    /// The verb of that name.
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name().as_bytes() == name)
    }
}

/// One header, as it is meant: what was escaped is so no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name; cases differ.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub verb: Verb,
    /// Its headers in their order, repeated ones included.
    pub headers: Vec<Header>,
    /// Its body; empty where there is none.
    pub body: Bytes,
}

impl Frame {
    /// The value of a header; of one that is repeated the first, as 1.2 has it ("Repeated Header Entries").
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// The value of the first header of that name.
pub(super) fn header<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    headers.iter().find(|header| header.name == name).map(|header| header.value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_found_by_its_name_only() {
        for verb in Verb::ALL {
            assert_eq!(Verb::named(verb.name().as_bytes()), Some(verb));
            assert_eq!(Verb::named(verb.name().to_lowercase().as_bytes()), None);
        }
        assert_eq!(Verb::named(b""), None);
    }

    #[test]
    fn of_repeated_headers_the_first_counts() {
        let header = |value: &str| Header { name: "foo".into(), value: value.into() };
        let frame = Frame { verb: Verb::Send, headers: vec![header("new"), header("old")], body: Bytes::new() };
        assert_eq!(frame.header("foo"), Some("new"));
        assert_eq!(frame.header("Foo"), None);
    }
}
