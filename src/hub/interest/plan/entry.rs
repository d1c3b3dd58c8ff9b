//! What is known of one pattern that is wanted or bound, and what follows from it for others.

use std::time::Instant;

/// One pattern.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) demand: Demand,
    /// Whether it is wanted in the place of what clients want: see `covers`.
    pub(super) is_cover: bool,
    /// Of a cover: how many patterns that clients want it includes, itself not counted.
    pub(super) members: usize,
    pub(super) role: Role,
    /// While it lingers: when it may go.
    pub(super) until: Option<Instant>,
    /// Whether it has stood since clients want it, be it on a link before: they were told so.
    pub(super) has_stood: bool,
    pub(super) is_touched: bool,
    /// Whether it is in a queue for a place.
    pub(super) is_queued: bool,
    /// What the entries that include this one are for it, itself among them.
    pub(super) claimed: usize,
    pub(super) wanted: usize,
    pub(super) kept: usize,
    pub(super) standing: usize,
    pub(super) anchoring: usize,
    pub(super) holding: usize,
    /// The keys of those that stand, combined by exclusive or: with only one, that is its key.
    pub(super) standing_keys: usize,
    /// How many wanted entries stand by this one only.
    pub(super) dependants: usize,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Demand {
    #[default]
    None,
    Wanted,
    Refused(String),
}

/// What became of an entry at the broker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    #[default]
    Unbound,
    /// Asked for, not answered.
    Asked,
    Stands,
    /// Stands, and goes as soon as nobody depends on it.
    Ending,
    /// Its removal was asked for: nobody may rely on it.
    Leaving,
}

/// What an entry is to those that it includes; 1 or 0 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Effect {
    /// Is wanted by clients.
    pub(super) claimed: usize,
    /// The same, or is a cover.
    pub(super) wanted: usize,
    /// Is bound or will be, and is to stay.
    pub(super) kept: usize,
    pub(super) standing: usize,
    /// Is wanted, stands, and stays: what it includes need not be bound.
    pub(super) anchoring: usize,
    /// The same, or will be: what it includes will not count for long.
    pub(super) holding: usize,
}

/// What follows from an entry's counts, for others and for the totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Consequence {
    /// The only binding by which it stands.
    pub(super) depends_on: Option<usize>,
    /// Whether it will be bound when everything under way is done.
    pub(super) counts: bool,
    /// Whether it is bound, or may be.
    pub(super) is_held: bool,
    /// Whether the broker has not answered yet what it was asked.
    pub(super) is_under_way: bool,
    pub(super) stands: bool,
    /// Whether it is wanted, and nothing else that is wanted includes it.
    pub(super) is_outermost: bool,
    /// The same among what clients want.
    pub(super) is_outermost_claim: bool,
}

/// How many entries there are of each kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// Bindings that there will be when everything under way is done.
    pub(super) settled: usize,
    /// Bindings that there are or may be at the broker now.
    pub(super) held: usize,
    /// Questions that the broker has not answered.
    pub(super) under_way: usize,
    /// Bindings that are wanted.
    pub(super) outermost: usize,
    /// Bindings that would be wanted without covers.
    pub(super) unfolded: usize,
}

impl Entry {
    pub(super) fn is_wanted(&self) -> bool {
        self.is_claimed() || self.is_cover
    }

    /// Whether clients want it.
    pub(super) fn is_claimed(&self) -> bool {
        self.demand == Demand::Wanted
    }

    pub(super) fn effect(&self) -> Effect {
        Effect {
            claimed: usize::from(self.is_claimed()),
            wanted: usize::from(self.is_wanted()),
            kept: usize::from(matches!(self.role, Role::Asked | Role::Stands)),
            standing: usize::from(matches!(self.role, Role::Stands | Role::Ending)),
            anchoring: usize::from(self.is_wanted() && self.role == Role::Stands),
            holding: usize::from(self.is_wanted() && matches!(self.role, Role::Asked | Role::Stands)),
        }
    }

    /// Counts what an entry that includes this one was and is for it.
    pub(super) fn count(&mut self, key: usize, was: Effect, is: Effect) {
        self.claimed = self.claimed - was.claimed + is.claimed;
        self.wanted = self.wanted - was.wanted + is.wanted;
        self.kept = self.kept - was.kept + is.kept;
        self.anchoring = self.anchoring - was.anchoring + is.anchoring;
        self.holding = self.holding - was.holding + is.holding;
        self.standing = self.standing - was.standing + is.standing;
        if was.standing != is.standing {
            self.standing_keys ^= key;
        }
    }

    /// Whether nothing else that is wanted includes it.
    pub(super) fn is_outermost(&self) -> bool {
        self.wanted == self.effect().wanted
    }

    /// Whether something else that is wanted and stands includes it.
    pub(super) fn is_anchored(&self) -> bool {
        self.anchoring > self.effect().anchoring
    }

    /// Whether it needs a binding of its own: nothing that is to stay includes it. One that is about to go may stay.
    pub(super) fn asks(&self) -> bool {
        match self.role {
            Role::Unbound => self.is_wanted() && self.is_outermost() && self.kept == 0,
            Role::Ending => self.is_wanted() && !self.is_anchored(),
            Role::Asked | Role::Stands | Role::Leaving => false,
        }
    }

    pub(super) fn consequence(&self) -> Consequence {
        Consequence {
            depends_on: (self.is_wanted() && self.standing == 1).then_some(self.standing_keys),
            counts: self.effect().kept == 1 && self.holding == self.effect().holding,
            is_held: self.role != Role::Unbound,
            is_under_way: matches!(self.role, Role::Asked | Role::Leaving),
            stands: self.standing > 0,
            is_outermost: self.is_wanted() && self.is_outermost(),
            is_outermost_claim: self.is_claimed() && self.claimed == 1,
        }
    }
}

impl Totals {
    /// Counts what an entry was and is.
    pub(super) fn count(&mut self, was: &Consequence, is: &Consequence) {
        let counted = |total: usize, was: bool, is: bool| total + usize::from(is) - usize::from(was);
        self.settled = counted(self.settled, was.counts, is.counts);
        self.held = counted(self.held, was.is_held, is.is_held);
        self.under_way = counted(self.under_way, was.is_under_way, is.is_under_way);
        self.outermost = counted(self.outermost, was.is_outermost, is.is_outermost);
        self.unfolded = counted(self.unfolded, was.is_outermost_claim, is.is_outermost_claim);
    }
}

impl Effect {
    pub(super) const NONE: Self = Self { claimed: 0, wanted: 0, kept: 0, standing: 0, anchoring: 0, holding: 0 };
}
