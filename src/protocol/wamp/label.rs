//! What is written with each message of a subscription, its id, and what is asked of each before: whether its topic begins
//! as the subscription says, where AMQP's patterns cannot say that.

use crate::model::label::Label;
use crate::protocol::wamp::id::Id;

/// Between the parts; the first is a number.
const SEPARATOR: char = ' ';

/// The parts of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// The subscription.
    pub(super) subscription: Id,
    /// How the topics of its messages begin.
    pub(super) prefix: Option<&'a str>,
}

impl<'a> Name<'a> {
    /// As a label. Whoever is sent the same bytes has an equal one.
    pub(super) fn label(&self) -> Label {
        let prefix = self.prefix.map(|prefix| format!("{SEPARATOR}{prefix}")).unwrap_or_default();
        Label::new(&format!("{}{prefix}", self.subscription))
    }

    /// From one.
    pub(super) fn of(label: &'a Label) -> Option<Self> {
        let text = label.as_str();
        let (number, prefix) = match text.split_once(SEPARATOR) {
            Some((number, prefix)) => (number, Some(prefix)),
            None => (text, None),
        };
        Some(Self { subscription: Id::new(number.parse().ok()?)?, prefix })
    }

    /// Whether a message on a topic is wanted, of those that the subscription's pattern matches.
    pub(super) fn admits(&self, topic: &str) -> bool {
        self.prefix.is_none_or(|prefix| topic.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_gives_its_parts_back() {
        for prefix in [None, Some("a"), Some("a.bé")] {
            let name = Name { subscription: Id::of(&["x"]), prefix };
            assert_eq!(Name::of(&name.label()), Some(name));
        }
        assert_eq!(Name::of(&Label::new("sub-0")), None);
    }
}
