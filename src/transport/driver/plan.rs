//! In which encodings a connection's live messages come: one, as long as all of them are labelled alike; else by what of its
//! subscriptions wants each.

use crate::hub::index::SubscriberId;
use crate::hub::shard::Shard;
use crate::hub::turn::Encoding;
use crate::model::label::Label;
use crate::model::publication::{Publication, SourceId};
use crate::model::selector::Selector;
use crate::protocol::{Labels, ProtocolId, REGISTRY};
use crate::session::{Session, SubscriptionKey};
use crate::transport::wire::{Framing, Wire, encoding};

/// Sets of labels whose encoding a connection keeps; a message with yet another set is encoded for it alone.
const SETS_MAX: usize = 64;

/// What becomes of a connection's labels, and how its messages are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) protocol: ProtocolId,
    pub(super) framing: Framing,
    pub(super) labels: Labels,
}

/// In which encodings live messages come.
#[derive(Debug)]
pub(super) enum Plan {
    /// All in this one.
    One(Encoding),
    /// By the subscriptions that want each.
    Several(Box<Several>),
}

/// Several live subscriptions with different labels.
#[derive(Debug)]
pub(super) struct Several {
    form: Form,
    wishes: Vec<Wish>,
    /// Encodings held, each for the labels that are written together.
    sets: Vec<(Vec<Label>, Encoding)>,
}

/// One live subscription.
#[derive(Debug)]
struct Wish {
    wanted: Selector,
    /// Where it is live.
    sources: Vec<SourceId>,
    label: Label,
}

impl Form {
    /// Of a connection.
    pub(super) fn of(protocol: ProtocolId, framing: Framing) -> Self {
        let labels = REGISTRY.get(usize::from(protocol.0)).map_or(Labels::Absent, |row| row.labels);
        Self { protocol, framing, labels }
    }

    /// The plan of who has no live subscription, or none with a label.
    pub(super) fn plain(self) -> Plan {
        Plan::One(encoding(self.protocol, self.framing))
    }

    /// The plan for a subscriber's live subscriptions.
    pub(super) fn plan(self, subscriber: SubscriberId, shard: &Shard, session: &Session, wire: &mut Wire) -> Plan {
        let wish = |(id, wanted, sources): (_, &Selector, _)| {
            let crate::hub::shard::SubscriptionId(key) = id;
            let label = session.label(SubscriptionKey(key))?.clone();
            Some(Wish { wanted: wanted.clone(), sources, label })
        };
        let wishes: Vec<Wish> = shard.live(subscriber).filter_map(wish).collect();
        let alike = match (self.labels, wishes.as_slice()) {
            (_, []) => return self.plain(),
            (Labels::Together, [first, others @ ..]) => others.iter().all(|other| other.label == first.label),
            (_, wishes) => wishes.len() == 1,
        };
        match wishes.first() {
            Some(only) if alike => {
                Plan::One(wire.acquire(self.protocol, self.framing, std::slice::from_ref(&only.label)))
            }
            _ => Plan::Several(Box::new(Several { form: self, wishes, sets: Vec::new() })),
        }
    }
}

impl Plan {
    /// The labels with which a message comes, one set for each copy of it.
    pub(super) fn copies(&self, publication: &Publication, wire: &Wire) -> Vec<Vec<Label>> {
        match self {
            Self::One(encoding) => vec![wire.labels(*encoding)],
            Self::Several(several) => several.copies(publication),
        }
    }

    /// Gives back what it holds.
    pub(super) fn release(self, wire: &mut Wire) {
        match self {
            Self::One(encoding) => wire.release(encoding),
            Self::Several(several) => several.sets.iter().for_each(|(_, encoding)| wire.release(*encoding)),
        }
    }
}

impl Several {
    /// The labels with which a message comes, one set for each copy of it.
    pub(super) fn copies(&self, publication: &Publication) -> Vec<Vec<Label>> {
        let wants =
            |wish: &&Wish| wish.sources.contains(&publication.source.id) && wish.wanted.matches(&publication.draft);
        let labels = self.wishes.iter().filter(wants).map(|wish| wish.label.clone());
        match self.form.labels {
            Labels::Each | Labels::Absent => labels.map(|label| vec![label]).collect(),
            Labels::Together => {
                let mut together: Vec<Label> = labels.collect();
                together.sort();
                together.dedup();
                vec![together]
            }
        }
    }

    /// The encoding for labels that are written together; nothing when too many sets of them are held already.
    pub(super) fn encoding(&mut self, labels: &[Label], wire: &mut Wire) -> Option<Encoding> {
        if let Some((_, encoding)) = self.sets.iter().find(|(known, _)| known == labels) {
            return Some(*encoding);
        }
        if self.sets.len() == SETS_MAX {
            return None;
        }
        let encoding = wire.acquire(self.form.protocol, self.form.framing, labels);
        self.sets.push((labels.to_vec(), encoding));
        Some(encoding)
    }
}
