//! What is written with each message of a subscription: the id that the client gave it, whether its messages are to be
//! acknowledged, and how their destination is written; with the version, by which all of it is escaped.

use super::destination::Destination;
use super::version::Version;
use crate::model::label::Label;

/// Between the parts; no header holds it.
const SEPARATOR: char = '\0';

/// The parts of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// In which the session's frames are written.
    pub(super) version: Version,
    /// Whether the client acknowledges what it gets.
    pub(super) acknowledges: bool,
    /// The exchange, where the client subscribed to it by name.
    pub(super) exchange: Option<&'a str>,
    /// The subscription's id; none where a client of 1.0 gave none.
    pub(super) id: Option<&'a str>,
}

impl<'a> Name<'a> {
    /// As a label. Whoever is sent the same bytes has an equal one.
    pub(super) fn label(&self) -> Label {
        let acknowledges = if self.acknowledges { "ack" } else { "auto" };
        let (version, exchange) = (self.version.name(), self.exchange.unwrap_or_default());
        let id = self.id.map(|id| format!("{SEPARATOR}{id}")).unwrap_or_default();
        Label::new(&format!("{version}{SEPARATOR}{acknowledges}{SEPARATOR}{exchange}{id}"))
    }

    /// From one.
    pub(super) fn of(label: &'a Label) -> Option<Self> {
        let mut parts = label.as_str().splitn(4, SEPARATOR);
        let version = parts.next()?;
        let version = Version::ALL.into_iter().find(|known| known.name() == version)?;
        let acknowledges = parts.next()? == "ack";
        let exchange = parts.next().filter(|exchange| !exchange.is_empty());
        Some(Self { version, acknowledges, exchange, id: parts.next() })
    }

    /// The destination of a message on a topic, as the client would write it.
    pub(super) fn destination(&self, topic: &str) -> String {
        match self.exchange {
            Some(name) => Destination::Exchange { name: name.to_owned(), key: topic.to_owned() }.to_string(),
            None => Destination::Topic(topic.to_owned()).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_gives_its_parts_back() {
        for version in Version::ALL {
            for (exchange, id) in [(None, None), (None, Some("")), (Some("a/b"), Some("sub-0")), (Some("x"), None)] {
                for acknowledges in [false, true] {
                    let name = Name { version, acknowledges, exchange, id };
                    assert_eq!(Name::of(&name.label()), Some(name));
                }
            }
        }
        assert_eq!(Name::of(&Label::new("sub-0")), None);
    }
}
