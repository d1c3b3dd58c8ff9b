//! Planted bugs: what one subscription of a run was told is changed in one place, as a broken program would have told it.

use fastrand::Rng;
use passerelle::model::gap::GapReason;

use crate::history::real::account::Account;
use crate::history::record::{Fate, Told, What};

/// A bug to plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tampering {
    /// A message is skipped.
    Skip,
    /// A message comes twice.
    Repeat,
    /// Two messages of one source, of which the first was confirmed before the other was sent, change places.
    Swap,
    /// A gap is not told that stands for something.
    LostGap,
    /// A gap is told on a stream, which has all there is.
    NeedlessGap,
    /// An outage is told to who has seen none.
    NeedlessOutage,
    /// A loss is passed over by `resumed`.
    FalseResume,
}

impl Tampering {
    pub(crate) const ALL: [Self; 7] = [
        Self::Skip,
        Self::Repeat,
        Self::Swap,
        Self::LostGap,
        Self::NeedlessGap,
        Self::NeedlessOutage,
        Self::FalseResume,
    ];

    /// Plants it at random, and tells into which history; nothing where there is no place for it.
    pub(crate) fn plant(self, account: &mut Account, rng: &mut Rng) -> Option<usize> {
        let histories = account.record.histories.iter().enumerate();
        let places = histories.flat_map(|(history, one)| (0..one.told.len()).map(move |place| (history, place)));
        let places: Vec<(usize, usize)> =
            places.filter(|(history, place)| self.fits(account, *history, *place)).collect();
        let (history, place) = rng.choice(places)?;
        let told = &mut account.record.histories[history].told;
        match self {
            Self::Skip | Self::LostGap => drop(told.remove(place)),
            Self::Repeat => told.insert(place, told[place].clone()),
            Self::Swap => told.swap(place, place + 1),
            Self::NeedlessGap | Self::NeedlessOutage => {
                let source = if self == Self::NeedlessGap { 1 } else { 0 };
                let what = What::Gap { source, reason: GapReason::Outage, missed: None };
                let at = told[place].at;
                told.insert(place, Told { at, what });
            }
            Self::FalseResume => {
                if let What::Subscribed { resumed, .. } = &mut told[place].what {
                    *resumed = true;
                }
            }
        }
        Some(history)
    }

    /// Whether it can be planted at a place and be a bug there. What raw clients miss nobody owes them.
    fn fits(self, account: &Account, history: usize, place: usize) -> bool {
        let told = &account.record.histories[history].told;
        let message = |place: usize| match told.get(place).map(|told| &told.what) {
            Some(What::Message(received)) if !received.early && !received.redelivered => {
                Some(&account.record.truth.messages[received.number])
            }
            _ => None,
        };
        let is_told = !account.journeys[history].is_raw;
        match self {
            Self::Skip => {
                let is_followed = message(place + 1).is_some() && place > 0 && message(place - 1).is_some();
                let is_owed = account.journeys[history].flow == passerelle::model::flow::Flow::CatchUp;
                is_told && is_followed && is_owed && message(place).is_some_and(|one| one.fate == Fate::Logged)
            }
            Self::Repeat => is_told && message(place).is_some(),
            Self::Swap => match (message(place), message(place + 1)) {
                (Some(one), Some(other)) => one.source == other.source && one.at.before(other.at),
                _ => false,
            },
            Self::LostGap => {
                let what = told.get(place).map(|told| &told.what);
                matches!(what, Some(What::Gap { reason: GapReason::UnknownCursor, .. }))
                    && told.get(place + 1).is_some_and(|next| !matches!(next.what, What::Ended { .. }))
            }
            Self::NeedlessGap => is_told && message(place).is_some_and(|one| one.source == 1),
            Self::NeedlessOutage => is_told && account.harms.is_empty() && message(place).is_some(),
            Self::FalseResume => {
                let is_gap = matches!(told.get(place + 1).map(|told| &told.what), Some(What::Gap { .. }));
                is_gap && matches!(told[place].what, What::Subscribed { resumed: false, .. })
            }
        }
    }
}
