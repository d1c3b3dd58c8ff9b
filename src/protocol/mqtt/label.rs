//! What is written with each message of a subscription: the granted quality, the subscription's identifier, and how it wants
//! retain flags; and what keeps a message from it that its pattern matches.

use super::packet::{Qos, SubscriptionId, Version};
use crate::model::label::Label;
use crate::model::publication::Draft;

/// How topics begin that no filter matches which begins with a wildcard [MQTT-4.7.2-1].
const HIDDEN_PREFIX: char = '$';

/// How a subscription wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) version: Version,
    /// As it was granted: 0 or 1.
    pub(super) qos: Qos,
    pub(super) retain_as_published: bool,
    pub(super) no_local: bool,
    /// Whether its filter begins with a wildcard.
    pub(super) is_wild: bool,
    pub(super) id: Option<SubscriptionId>,
}

/// Who published a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publisher {
    /// The receiver itself.
    Own,
    /// Anybody else.
    Other,
}

/// How a message is to be sent, after the wishes of all the subscriptions that want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) version: Version,
    pub(super) qos: Qos,
    pub(super) retain_as_published: bool,
    pub(super) ids: Vec<SubscriptionId>,
}

impl Wish {
    /// As a label. Whoever is sent the same bytes has an equal one.
    pub(super) fn label(&self) -> Label {
        let Self { version, qos, retain_as_published, no_local, is_wild, id } = *self;
        let flag = |is_set: bool, letter| if is_set { letter } else { "-" };
        let flags = [flag(retain_as_published, "r"), flag(no_local, "n"), flag(is_wild, "w")].concat();
        let id = id.map_or(0, SubscriptionId::number);
        Label::new(&format!("{} {} {flags} {id}", version.level(), qos as u8))
    }

    /// From one.
    pub(super) fn of(label: &Label) -> Option<Self> {
        let mut parts = label.as_str().split(' ');
        let level: u8 = parts.next()?.parse().ok()?;
        let version = Version::ALL.into_iter().find(|version| version.level() == level)?;
        let qos = Qos::from_number(parts.next()?.parse().ok()?)?;
        let flags = parts.next()?;
        let id = SubscriptionId::new(parts.next()?.parse().ok()?);
        let has = |letter| flags.contains(letter);
        Some(Self { version, qos, retain_as_published: has('r'), no_local: has('n'), is_wild: has('w'), id })
    }

    /// Whether a message that the pattern matches is for it.
    fn wants(&self, draft: &Draft, publisher: Publisher) -> bool {
        let is_hidden = self.is_wild && draft.topic.as_str().starts_with(HIDDEN_PREFIX);
        let is_unwanted = self.no_local && publisher == Publisher::Own;
        !is_hidden && !is_unwanted
    }
}

impl Wanted {
    /// After all of these; nothing when none of them wants the message. It comes once, at the highest quality, with all their
    /// identifiers (MQTT 5.0 §3.3.4).
    pub(super) fn of(labels: &[Label], draft: &Draft, publisher: Publisher) -> Option<Self> {
        Self::of_wishes(labels.iter().filter_map(Wish::of), draft, publisher)
    }

    /// Likewise, where they are known as they are.
    pub(super) fn of_wishes(
        wishes: impl IntoIterator<Item = Wish>,
        draft: &Draft,
        publisher: Publisher,
    ) -> Option<Self> {
        let wishes = wishes.into_iter().filter(|wish| wish.wants(draft, publisher));
        let mut all: Option<Self> = None;
        for Wish { version, qos, retain_as_published, id, .. } in wishes {
            let none = Self { version, qos, retain_as_published: false, ids: Vec::new() };
            let wanted = all.get_or_insert(none);
            wanted.qos = wanted.qos.max(qos);
            wanted.retain_as_published |= retain_as_published;
            wanted.ids.extend(id);
        }
        if let Some(wanted) = &mut all {
            wanted.ids.sort();
            wanted.ids.dedup();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::publication::Attributes;
    use crate::model::topic::Topic;

    const PLAIN: Wish = Wish {
        version: Version::V5,
        qos: Qos::AtMostOnce,
        retain_as_published: false,
        no_local: false,
        is_wild: false,
        id: None,
    };

    fn draft(topic: &str) -> Draft {
        let topic = Topic::parse(topic).unwrap();
        Draft { topic, payload: Bytes::new(), attributes: Attributes::default(), received_at: 0 }
    }

    #[test]
    fn a_label_gives_its_wish_back() {
        for version in Version::ALL {
            for flags in 0..8u8 {
                for id in [None, SubscriptionId::new(1), SubscriptionId::new(268_435_455)] {
                    let has = |bit: u8| flags & bit != 0;
                    let (retain_as_published, no_local, is_wild) = (has(1), has(2), has(4));
                    let wish = Wish { version, qos: Qos::AtLeastOnce, retain_as_published, no_local, is_wild, id };
                    assert_eq!(Wish::of(&wish.label()), Some(wish));
                }
            }
        }
        assert_eq!(Wish::of(&Label::new("sub-0")), None);
    }

    #[test]
    fn a_message_comes_once_at_the_highest_quality_with_all_identifiers() {
        let id = |number| SubscriptionId::new(number);
        let one = Wish { id: id(7), ..PLAIN };
        let other = Wish { qos: Qos::AtLeastOnce, id: id(3), retain_as_published: true, ..PLAIN };
        let labels = [one.label(), other.label(), PLAIN.label()];
        let wanted = Wanted::of(&labels, &draft("a"), Publisher::Other).unwrap();
        assert_eq!((wanted.qos, wanted.retain_as_published), (Qos::AtLeastOnce, true));
        assert_eq!(wanted.ids, [id(3).unwrap(), id(7).unwrap()]);
        assert_eq!(Wanted::of(&[], &draft("a"), Publisher::Other), None);
    }

    #[test]
    fn what_begins_with_a_dollar_is_kept_from_wildcards_and_ones_own_from_who_does_not_want_it() {
        let wants = |wishes: &[Wish], topic, publisher| {
            let labels: Vec<Label> = wishes.iter().map(Wish::label).collect();
            Wanted::of(&labels, &draft(topic), publisher).is_some()
        };
        let wild = Wish { is_wild: true, ..PLAIN };
        assert!(!wants(&[wild], "$SYS.x", Publisher::Other));
        assert!(wants(&[wild], "a.$SYS", Publisher::Other));
        assert!(wants(&[wild, PLAIN], "$SYS.x", Publisher::Other));
        let foreign = Wish { no_local: true, ..PLAIN };
        assert!(!wants(&[foreign], "a", Publisher::Own));
        assert!(wants(&[foreign], "a", Publisher::Other));
        assert!(wants(&[foreign, PLAIN], "a", Publisher::Own));
    }
}
