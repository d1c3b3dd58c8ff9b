//! What a session listens to, and SUBSCRIBE and UNSUBSCRIBE packets that are not answered yet: each is answered once, when
//! everything is known of all its filters, in their order.

use std::collections::BTreeMap;

use super::label::Wish;
use super::packet::{PacketId, Qos, SubscriptionAcknowledgement};
use super::reason::ReasonCode;
use crate::model::cursor::JointCursor;
use crate::model::delivery::Share;
use crate::model::topic::Pattern;

/// What a session is subscribed to, one subscription each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    /// All that a pattern matches.
    Own(Pattern),
    /// A group's part of it (MQTT 5.0 §4.8.2).
    Shared(Share),
}

/// The subscriptions of one session.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    standing: BTreeMap<Filter, Wish>,
    /// Those that an earlier connection left, and where they go on as long as that is not known to be done.
    restored: Vec<(Filter, JointCursor)>,
    asked: BTreeMap<PacketId, Vec<Asked>>,
    ending: BTreeMap<PacketId, Vec<Ending>>,
}

/// What becomes of one filter of a SUBSCRIBE.
#[derive(Debug)]
pub(super) enum Asked {
    /// It does not stand yet.
    Waits(Filter, Wish),
    /// Likewise, but an UNSUBSCRIBE came since: it is to be answered, and stands for nothing.
    Withdrawn(Wish),
    /// It is answered so.
    Answered(ReasonCode),
}

/// What becomes of one filter of an UNSUBSCRIBE.
#[derive(Debug)]
pub(super) enum Ending {
    /// It has not ended yet.
    Waits(Filter),
    /// It is answered so.
    Answered(ReasonCode),
}

/// What some subscriptions need, so that the session writes each message itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    /// That messages are acknowledged.
    pub(super) acknowledgements: bool,
    /// That the session's own messages are told from those of others.
    pub(super) publishers: bool,
}

impl Subscriptions {
    /// Whether a packet of this id still waits for its answer.
    pub(super) fn is_in_use(&self, packet: PacketId) -> bool {
        self.asked.contains_key(&packet) || self.ending.contains_key(&packet)
    }

    /// Whether there is one, or one is asked for.
    pub(super) fn holds(&self, filter: &Filter) -> bool {
        let is_it = |asked: &Asked| matches!(asked, Asked::Waits(known, _) if known == filter);
        self.standing.contains_key(filter) || self.asked.values().flatten().any(is_it)
    }

    /// Those that stand, with their wishes.
    pub(super) fn standing(&self) -> &BTreeMap<Filter, Wish> {
        &self.standing
    }

    /// The group of this name, if the session is a member, and how it would have its messages.
    pub(super) fn group(&self, name: &str) -> Option<(&Share, Wish)> {
        // Groups are the last, and few.
        let mut groups = self.standing.iter().rev().map_while(|(filter, wish)| match filter {
            Filter::Shared(share) => Some((share, *wish)),
            Filter::Own(_) => None,
        });
        groups.find(|(share, _)| share.name == name)
    }

    /// The latter alone.
    pub(super) fn member(&self, name: &str) -> Option<Wish> {
        self.group(name).map(|(_, wish)| wish)
    }

    /// These stood on an earlier connection, each at its place.
    pub(super) fn restore(&mut self, standing: BTreeMap<Filter, Wish>, place: &dyn Fn(&Pattern) -> JointCursor) {
        let place = |filter: &Filter| match filter {
            Filter::Own(pattern) => place(pattern),
            Filter::Shared(_) => JointCursor::default(),
        };
        self.restored = standing.keys().map(|filter| (filter.clone(), place(filter))).collect();
        self.standing = standing;
    }

    /// Where one goes on that an earlier connection left and that has not begun: from there also whatever takes its place.
    pub(super) fn goes_on_after(&self, pattern: &Pattern) -> JointCursor {
        let is_it = |filter: &Filter| matches!(filter, Filter::Own(known) if known == pattern);
        let restored = self.restored.iter().find(|(filter, _)| is_it(filter));
        restored.map(|(_, after)| after.clone()).unwrap_or_default()
    }

    /// One of those has begun.
    pub(super) fn goes_on(&mut self, number: u16) {
        if let Some((_, after)) = self.restored.get_mut(usize::from(number)) {
            *after = JointCursor::default();
        }
    }

    /// One of those does not stand any more.
    pub(super) fn lose(&mut self, number: u16) {
        if let Some((filter, _)) = self.restored.get(usize::from(number)) {
            self.standing.remove(filter);
        }
    }

    /// What they need, those that are only asked for too. A group's messages come by themselves.
    pub(super) fn needs(&self) -> Needs {
        let waits = |asked: &Asked| match asked {
            Asked::Waits(Filter::Own(_), wish) => Some(*wish),
            Asked::Waits(Filter::Shared(_), _) | Asked::Withdrawn(_) | Asked::Answered(_) => None,
        };
        let asked = self.asked.values().flatten().filter_map(waits);
        let own = |(filter, wish): (&Filter, &Wish)| matches!(filter, Filter::Own(_)).then_some(*wish);
        let none = Needs { acknowledgements: false, publishers: false };
        self.standing.iter().filter_map(own).chain(asked).fold(none, |needs, wish| Needs {
            acknowledgements: needs.acknowledgements || wish.qos > Qos::AtMostOnce,
            publishers: needs.publishers || wish.no_local,
        })
    }

    /// A SUBSCRIBE came. Its answer, where nothing waits.
    pub(super) fn ask(&mut self, packet: PacketId, filters: Vec<Asked>) -> Option<SubscriptionAcknowledgement> {
        self.asked.insert(packet, filters);
        self.answer_asked(packet)
    }

    /// One of its filters stands.
    pub(super) fn stands(&mut self, packet: PacketId, place: u16) -> Option<SubscriptionAcknowledgement> {
        let asked = self.asked.get_mut(&packet)?.get_mut(usize::from(place))?;
        let wish = match asked {
            Asked::Waits(filter, wish) => {
                self.standing.insert(filter.clone(), *wish);
                *wish
            }
            Asked::Withdrawn(wish) => *wish,
            Asked::Answered(_) => return None,
        };
        let is_at_most_once = wish.qos == Qos::AtMostOnce;
        *asked = Asked::Answered(if is_at_most_once { ReasonCode::Success } else { ReasonCode::GrantedQos1 });
        self.answer_asked(packet)
    }

    /// One of its filters failed.
    pub(super) fn failed(
        &mut self,
        (packet, place): (PacketId, u16),
        reason: ReasonCode,
    ) -> Option<SubscriptionAcknowledgement> {
        *self.asked.get_mut(&packet)?.get_mut(usize::from(place))? = Asked::Answered(reason);
        self.answer_asked(packet)
    }

    /// An UNSUBSCRIBE came. Its answer, where nothing waits. From now on nothing of these stands but what is asked for later,
    /// whichever is done first.
    pub(super) fn end(&mut self, packet: PacketId, filters: Vec<Ending>) -> Option<SubscriptionAcknowledgement> {
        for ending in &filters {
            if let Ending::Waits(filter) = ending {
                self.withdraw(filter);
            }
        }
        self.ending.insert(packet, filters);
        self.answer_ending(packet)
    }

    fn withdraw(&mut self, filter: &Filter) {
        self.standing.remove(filter);
        for asked in self.asked.values_mut().flatten() {
            if let Asked::Waits(known, wish) = asked
                && known == filter
            {
                *asked = Asked::Withdrawn(*wish);
            }
        }
    }

    /// One of its filters was dealt with.
    pub(super) fn ended(
        &mut self,
        packet: PacketId,
        place: u16,
        reason: ReasonCode,
    ) -> Option<SubscriptionAcknowledgement> {
        *self.ending.get_mut(&packet)?.get_mut(usize::from(place))? = Ending::Answered(reason);
        self.answer_ending(packet)
    }

    fn answer_asked(&mut self, packet_id: PacketId) -> Option<SubscriptionAcknowledgement> {
        let reason = |asked: &Asked| match asked {
            Asked::Answered(reason) => Some(*reason),
            Asked::Waits(..) | Asked::Withdrawn(_) => None,
        };
        let reasons: Vec<ReasonCode> = self.asked.get(&packet_id)?.iter().map(reason).collect::<Option<_>>()?;
        self.asked.remove(&packet_id);
        Some(SubscriptionAcknowledgement { packet_id, reasons, properties: Default::default() })
    }

    fn answer_ending(&mut self, packet_id: PacketId) -> Option<SubscriptionAcknowledgement> {
        let reason = |ending: &Ending| match ending {
            Ending::Answered(reason) => Some(*reason),
            Ending::Waits(_) => None,
        };
        let reasons: Vec<ReasonCode> = self.ending.get(&packet_id)?.iter().map(reason).collect::<Option<_>>()?;
        self.ending.remove(&packet_id);
        Some(SubscriptionAcknowledgement { packet_id, reasons, properties: Default::default() })
    }
}
