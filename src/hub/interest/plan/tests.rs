//! The planner against a broker that answers late, in any order, or with no, and against the definition of what should
//! be bound.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LINGER: Duration = Duration::from_secs(10);
/// The first so many have no wildcards.
const LITERALS: usize = 11;
const PATTERNS: [&str; 18] = [
    "a.b", "a.c", "a", "b", "a.b.c", "a.d", "b.b", "b.c", "a.c.c", "d.e.f", "b.d", "#", "*.*", "a.*", "a.#", "*.b",
    "*", "#.b",
];

#[derive(Debug, Clone)]
enum Step {
    Want(usize),
    Unwant(usize),
    Plan,
    /// The broker's answer to one of what it was asked; whether it is yes.
    Answer {
        place: usize,
        yes: bool,
    },
    Pass(u64),
    Lose,
}

fn step(patterns: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..patterns).prop_map(Step::Want),
        5 => (0..patterns).prop_map(Step::Unwant),
        8 => Just(Step::Plan),
        8 => (0..8usize, 0..12u8).prop_map(|(place, luck)| Step::Answer { place, yes: luck > 0 }),
        3 => (0..15u64).prop_map(Step::Pass),
        1 => Just(Step::Lose),
    ]
}

struct World {
    planner: Planner,
    takes_patterns: bool,
    now: Instant,
    /// What the sessions hold, with what they were told last.
    wanted: BTreeMap<Pattern, Standing>,
    /// Of what they hold that of which they were told that it stands.
    has_stood: BTreeSet<Pattern>,
    /// What is bound for certain: from the broker's yes until the removal is asked for.
    bound: BTreeSet<Pattern>,
    asked: Vec<(Pattern, bool)>,
    /// What was told of folding.
    told: Vec<Folding>,
    bindings_max: usize,
}

impl World {
    fn new(bindings_max: usize) -> Self {
        Self::of(bindings_max, true)
    }

    /// Of an exchange that takes patterns, or of one that takes topics only.
    fn of(bindings_max: usize, takes_patterns: bool) -> Self {
        let limits = Limits { linger: LINGER, bindings_max, takes_patterns, too_many: "too many".into() };
        Self {
            planner: Planner::new(limits),
            takes_patterns,
            now: Instant::now(),
            wanted: BTreeMap::new(),
            has_stood: BTreeSet::new(),
            bound: BTreeSet::new(),
            asked: Vec::new(),
            told: Vec::new(),
            bindings_max,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Want(pattern) => {
                let pattern = Pattern::parse(PATTERNS[*pattern]).unwrap();
                if !self.wanted.contains_key(&pattern) {
                    let standing = self.planner.want(&pattern);
                    self.wanted.insert(pattern, standing);
                }
            }
            Step::Unwant(pattern) => {
                let pattern = Pattern::parse(PATTERNS[*pattern]).unwrap();
                self.has_stood.remove(&pattern);
                if self.wanted.remove(&pattern).is_some() {
                    self.planner.unwant(&pattern);
                }
            }
            Step::Plan => self.plan(),
            Step::Answer { place, yes } if !self.asked.is_empty() => self.answer(place % self.asked.len(), *yes),
            Step::Answer { .. } => {}
            Step::Pass(seconds) => self.now += Duration::from_secs(*seconds),
            Step::Lose => {
                self.bound.clear();
                self.asked.clear();
                self.planner.lost();
            }
        }
        self.hear();
        self.check_counts();
    }

    fn plan(&mut self) {
        let plan = self.planner.plan(self.now);
        self.told.extend(plan.folding);
        for pattern in plan.bind {
            assert!(!self.bound.contains(&pattern) && self.asked.iter().all(|(asked, _)| *asked != pattern));
            self.asked.push((pattern, true));
        }
        for pattern in plan.unbind {
            assert!(self.bound.remove(&pattern), "{pattern} is not bound");
            self.asked.push((pattern, false));
        }
        let again = self.planner.plan(self.now);
        assert_eq!((again.bind.len(), again.unbind.len()), (0, 0), "the same was planned twice");
    }

    fn answer(&mut self, place: usize, yes: bool) {
        match self.asked.remove(place) {
            (pattern, true) if yes => {
                self.bound.insert(pattern.clone());
                self.planner.stands(&pattern);
            }
            (pattern, true) => self.planner.refused(&pattern, "no".into()),
            (pattern, false) => self.planner.gone(&pattern),
        }
    }

    /// Sessions hear the news; whoever is told that it stands must be served, and nobody is served without being told.
    fn hear(&mut self) {
        for (pattern, standing) in self.planner.news() {
            self.check_refusal(&pattern, &standing);
            if let Some(told) = self.wanted.get_mut(&pattern) {
                *told = standing;
            }
        }
        let standing = self.wanted.iter().filter(|(_, told)| **told == Standing::Stands);
        self.has_stood.extend(standing.map(|(pattern, _)| pattern.clone()));
        for (pattern, told) in &self.wanted {
            let is_served = self.bound.iter().any(|bound| bound.includes(pattern));
            match told {
                Standing::Stands => assert!(is_served, "{pattern} was told that it stands: {:?}", self.bound),
                Standing::Wanted => assert!(!is_served, "{pattern} was not told that it stands"),
                Standing::Refused(_) => {}
            }
        }
        let bound: BTreeSet<Pattern> = self.planner.bound().cloned().collect();
        let (bound_count, asked_count) = (self.bound.len(), self.asked.len());
        assert!(bound_count + asked_count <= self.bindings_max, "{bound:?}, {:?}", self.asked);
        let leaving = self.asked.iter().filter(|(_, bind)| !bind).map(|(pattern, _)| pattern.clone());
        assert_eq!(bound, self.bound.iter().cloned().chain(leaving).collect());
    }

    /// Every count that is kept must be what counting anew gives.
    fn check_counts(&self) {
        let planner = &self.planner;
        let members: Vec<(&Pattern, usize)> = planner.lattice.in_order().collect();
        for (inner, key) in &members {
            let mut counted = Entry::default();
            for (_, outer) in members.iter().filter(|(outer, _)| outer.includes(inner)) {
                counted.count(*outer, Effect::NONE, planner.entries[*outer].effect());
            }
            let entry = &planner.entries[*key];
            let counts = |entry: &Entry| {
                let Entry { claimed, wanted, kept, standing, anchoring, holding, standing_keys, .. } = entry;
                [claimed, wanted, kept, standing, anchoring, holding, standing_keys].map(|count| *count)
            };
            assert_eq!(counts(entry), counts(&counted), "{inner}");
            let consequences = members.iter().map(|(_, other)| planner.entries[*other].consequence());
            assert_eq!(entry.dependants, consequences.filter(|other| other.depends_on == Some(*key)).count());
            assert_eq!(entry.until.is_some(), planner.lingering.iter().any(|(_, lingering)| lingering == key));
        }
        let mut totals = Totals::default();
        let nothing = Entry::default().consequence();
        members.iter().for_each(|(_, key)| totals.count(&nothing, &planner.entries[*key].consequence()));
        assert_eq!(planner.totals, totals);
        self.check_covers(&members);
    }

    /// Those who stood have a place before those who never did. They are too many only where the broker had refused some of
    /// them, whose places went to others.
    fn check_refusal(&self, pattern: &Pattern, standing: &Standing) {
        let is_for_want_of_places = *standing == Standing::Refused("too many".into());
        if is_for_want_of_places && !self.takes_patterns && self.has_stood.contains(pattern) {
            assert!(self.has_stood.len() > self.bindings_max, "{pattern}: {:?}", self.wanted);
        }
    }

    /// A cover is there for at least two of what sessions want.
    fn check_covers(&self, members: &[(&Pattern, usize)]) {
        let entries = &self.planner.entries;
        for (cover, key) in members.iter().filter(|(_, key)| entries[*key].is_cover) {
            let included = members
                .iter()
                .filter(|(inner, key)| inner != cover && cover.includes(inner) && entries[*key].is_claimed());
            let members = included.count();
            assert_eq!(entries[*key].members, members, "{cover}");
            assert!(self.takes_patterns);
        }
    }

    /// Lets everything that is under way come to its end, with a broker that agrees.
    fn come_to_rest(&mut self) {
        loop {
            self.take(&Step::Plan);
            if self.asked.is_empty() {
                return;
            }
            while !self.asked.is_empty() {
                self.take(&Step::Answer { place: 0, yes: true });
            }
        }
    }

    fn granted(&self) -> impl Iterator<Item = &Pattern> {
        self.wanted.iter().filter(|(_, told)| !matches!(told, Standing::Refused(_))).map(|(pattern, _)| pattern)
    }

    fn covers(&self) -> impl Iterator<Item = &Pattern> {
        self.planner
            .lattice
            .in_order()
            .filter(|(_, key)| self.planner.entries[*key].is_cover)
            .map(|(pattern, _)| pattern)
    }

    /// What is wanted, covers among it, and not included by something else that is wanted.
    fn antichain(&self) -> BTreeSet<Pattern> {
        let wanted: BTreeSet<&Pattern> = self.granted().chain(self.covers()).collect();
        let is_outermost =
            |pattern: &&&Pattern| !wanted.iter().any(|other| other != *pattern && other.includes(pattern));
        wanted.iter().filter(is_outermost).map(|pattern| (*pattern).clone()).collect()
    }

    fn check_at_rest(&mut self) {
        self.come_to_rest();
        assert!(self.granted().all(|pattern| self.wanted[pattern] == Standing::Stands));
        let antichain = self.antichain();
        for bound in self.bound.difference(&antichain) {
            let entry = &self.planner.entries[self.planner.lattice.key(bound).unwrap()];
            // Without room for what should replace it, a binding stays for as long as somebody stands by it.
            let has_no_successor = !self.planner.crowded.is_empty() && entry.dependants > 0;
            assert!(entry.until.is_some() || entry.is_wanted() || has_no_successor, "{bound} is bound for nobody");
            let mut covers = antichain.iter().filter(|other| *other != bound && other.includes(bound));
            assert!(!covers.any(|cover| self.bound.contains(cover)), "{bound} was not absorbed");
        }
    }

    fn check_when_nothing_lingers(&mut self) {
        self.now += LINGER;
        self.come_to_rest();
        let antichain = self.antichain();
        if self.planner.crowded.is_empty() {
            assert_eq!(self.bound, antichain);
        } else {
            assert!(self.planner.totals.held >= self.planner.ordinary_max());
        }
        assert!(self.covers().next().is_none() || self.planner.totals.unfolded > self.bindings_max / 2);
        let entries = &self.planner.entries;
        assert!(entries.iter().all(|entry| !entry.is_cover || entry.members > 1), "a cover is there for two at least");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_told_is_true_and_what_is_bound_is_the_antichain(
        steps in proptest::collection::vec(step(PATTERNS.len()), 0..120)
    ) {
        let mut world = World::new(100);
        steps.iter().for_each(|step| world.take(step));
        world.check_at_rest();
        world.check_when_nothing_lingers();
    }

    #[test]
    fn nobody_who_stands_falls_when_bindings_are_few(
        steps in proptest::collection::vec(step(PATTERNS.len()), 0..120), bindings_max in 2..7usize
    ) {
        let mut world = World::new(bindings_max);
        steps.iter().for_each(|step| world.take(step));
        world.check_at_rest();
        world.check_when_nothing_lingers();
    }

    #[test]
    fn with_a_broker_that_agrees_nobody_is_refused(
        steps in proptest::collection::vec(step(PATTERNS.len()), 0..120), bindings_max in 4..9usize
    ) {
        let mut world = World::new(bindings_max);
        for step in &steps {
            match step {
                // As the binder does, which carries out a plan before it asks for the next one.
                Step::Plan => world.come_to_rest(),
                step => world.take(step),
            }
            prop_assert!(world.granted().count() == world.wanted.len());
        }
        world.check_at_rest();
        prop_assert!(world.planner.crowded.is_empty());
        world.check_when_nothing_lingers();
    }

    #[test]
    fn topics_of_an_exchange_that_takes_no_patterns_are_not_folded(
        steps in proptest::collection::vec(step(LITERALS), 0..120), bindings_max in 1..4usize
    ) {
        let mut world = World::of(bindings_max, false);
        for step in &steps {
            world.take(step);
            prop_assert!(world.bound.iter().all(Pattern::is_literal));
        }
        world.check_at_rest();
        world.check_when_nothing_lingers();
    }
}

fn world_with(bindings_max: usize, wanted: &[&str]) -> World {
    let mut world = World::new(bindings_max);
    wanted.iter().for_each(|text| want(&mut world, text));
    world.come_to_rest();
    world
}

fn place(text: &str) -> usize {
    PATTERNS.iter().position(|known| *known == text).unwrap()
}

fn want(world: &mut World, text: &str) {
    world.take(&Step::Want(place(text)));
}

fn unwant(world: &mut World, text: &str) {
    world.take(&Step::Unwant(place(text)));
}

fn bound(world: &World) -> Vec<&str> {
    world.bound.iter().map(Pattern::as_str).collect()
}

#[test]
fn a_cover_is_bound_before_what_it_covers_goes() {
    let mut world = world_with(10, &["a.b", "a.c"]);
    want(&mut world, "a.*");
    world.plan();
    assert_eq!(world.asked, [(Pattern::parse("a.*").unwrap(), true)]);
    assert_eq!(bound(&world), ["a.b", "a.c"]);
    world.come_to_rest();
    assert_eq!(bound(&world), ["a.*"]);
}

#[test]
fn what_a_lingering_cover_served_is_bound_before_the_cover_goes() {
    let mut world = world_with(10, &["a.b", "a.c", "a.*"]);
    unwant(&mut world, "a.*");
    world.come_to_rest();
    assert_eq!(bound(&world), ["a.*"]);
    world.now += LINGER;
    world.plan();
    assert_eq!(bound(&world), ["a.*"]);
    assert_eq!(world.asked.len(), 2);
    world.come_to_rest();
    assert_eq!(bound(&world), ["a.b", "a.c"]);
}

#[test]
fn a_binding_lingers_and_serves_who_comes_back_at_once() {
    let mut world = world_with(10, &["a.b"]);
    unwant(&mut world, "a.b");
    world.come_to_rest();
    world.now += LINGER / 2;
    want(&mut world, "a.b");
    assert_eq!(world.wanted.values().collect::<Vec<_>>(), [&Standing::Stands]);
    world.now += LINGER;
    world.come_to_rest();
    assert_eq!(bound(&world), ["a.b"]);
    unwant(&mut world, "a.b");
    let plan = world.planner.plan(world.now);
    assert_eq!(plan.next, Some(world.now + LINGER));
}

#[test]
fn beyond_the_limit_of_an_exchange_without_patterns_idle_bindings_go_and_then_claims_are_refused() {
    let mut world = World::of(2, false);
    ["a.b", "a.c"].iter().for_each(|text| want(&mut world, text));
    world.come_to_rest();
    unwant(&mut world, "a.b");
    want(&mut world, "a");
    world.come_to_rest();
    assert_eq!(bound(&world), ["a", "a.c"]);
    want(&mut world, "b");
    world.come_to_rest();
    assert_eq!(world.wanted[&Pattern::parse("b").unwrap()], Standing::Refused("too many".into()));
}

#[test]
fn idle_bindings_go_before_anything_is_folded() {
    let mut world = world_with(5, &["a.b", "a.c", "b"]);
    unwant(&mut world, "b");
    want(&mut world, "b.b");
    world.come_to_rest();
    assert_eq!(bound(&world), ["a.b", "a.c", "b.b"]);
    want(&mut world, "a");
    world.come_to_rest();
    assert_eq!(bound(&world), ["a", "a.*", "b.b"]);
}

#[test]
fn folding_is_told_once_when_it_begins_and_once_when_it_ends() {
    let mut world = world_with(5, &["a.b", "a.c"]);
    assert_eq!(world.told, []);
    ["a.d", "b", "b.b"].iter().for_each(|text| want(&mut world, text));
    world.come_to_rest();
    let begun = Folding::Begun { wanted: 5, bindings_max: 5, covers: vec![Pattern::parse("a.*").unwrap()] };
    assert_eq!(world.told, [begun]);
    assert_eq!(bound(&world), ["a.*", "b", "b.b"]);
    ["b", "b.b"].iter().for_each(|text| unwant(&mut world, text));
    world.come_to_rest();
    assert_eq!(world.told.len(), 1, "three are not well below five");
    unwant(&mut world, "a.c");
    world.come_to_rest();
    assert_eq!(world.told[1..], [Folding::Ended]);
    world.now += LINGER;
    world.come_to_rest();
    assert_eq!(bound(&world), ["a.b", "a.d"]);
}

#[test]
fn when_a_cover_is_refused_claims_go_on_as_without_it() {
    let mut world = World::new(5);
    ["a.b", "a.c", "a.d"].iter().for_each(|text| want(&mut world, text));
    world.come_to_rest();
    want(&mut world, "b.b");
    // Whatever the broker lets be bound has no wildcard.
    loop {
        world.take(&Step::Plan);
        let Some((pattern, _)) = world.asked.first() else { break };
        let yes = pattern.is_literal();
        world.take(&Step::Answer { place: 0, yes });
    }
    assert_eq!(bound(&world), ["a.b", "a.c", "a.d"]);
    assert_eq!(world.wanted[&Pattern::parse("b.b").unwrap()], Standing::Refused("too many".into()));
    assert_eq!(world.told.last(), Some(&Folding::Ended));
    unwant(&mut world, "a.d");
    world.come_to_rest();
    want(&mut world, "b");
    world.come_to_rest();
    assert_eq!(bound(&world), ["a.b", "a.c", "b"]);
}

#[test]
fn a_refused_cover_leaves_what_it_would_have_covered() {
    let mut world = World::new(10);
    want(&mut world, "a.b");
    want(&mut world, "#");
    world.plan();
    world.take(&Step::Answer { place: 0, yes: false });
    assert_eq!(world.wanted[&Pattern::parse("#").unwrap()], Standing::Refused("no".into()));
    world.come_to_rest();
    assert_eq!(bound(&world), ["a.b"]);
}

/// One claim more must not cost a look at every other one: a million looks a change would not end in anybody's patience.
#[test]
fn ten_thousand_patterns_are_planned_one_by_one() {
    let mut world = World::new(20_000);
    let planner = &mut world.planner;
    for number in 0..10_000 {
        let text = if number % 2 == 0 { format!("tenant{number}.#") } else { format!("*.kind{number}") };
        planner.want(&Pattern::parse(&text).unwrap());
        let plan = planner.plan(world.now);
        assert_eq!(plan.bind.len(), 1);
        plan.bind.iter().for_each(|pattern| planner.stands(pattern));
    }
    assert_eq!(planner.bound().count(), 10_000);
}

/// Topics that come one by one beyond the limit are folded a few times, not each time.
#[test]
fn five_thousand_topics_are_folded_a_few_times() {
    const LIMIT: usize = 1_000;
    let mut world = World::new(LIMIT);
    let planner = &mut world.planner;
    for number in 0..5_000 {
        // Of words that nothing has in common, and of kinds of which there are few.
        let text = match number % 3 {
            0 => format!("tenant{number}.event{number}"),
            1 => format!("user.{number}"),
            _ => format!("order.{number}.{}", number % 7),
        };
        planner.want(&Pattern::parse(&text).unwrap());
        loop {
            let plan = planner.plan(world.now);
            if plan.bind.is_empty() && plan.unbind.is_empty() {
                break;
            }
            assert!(planner.held() <= LIMIT);
            plan.bind.iter().for_each(|pattern| planner.stands(pattern));
            plan.unbind.iter().for_each(|pattern| planner.gone(pattern));
        }
    }
    assert!(planner.lattice.in_order().all(|(_, key)| planner.entries[key].standing > 0));
    println!("{} foldings, {:?}", planner.covers.foldings, planner.totals);
    assert!(planner.covers.foldings <= 8, "{}", planner.covers.foldings);
}
