//! The planner against a broker that answers late, in any order, or with no, and against the definition of what should
//! be bound.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LINGER: Duration = Duration::from_secs(10);
/// The first so many have no wildcards.
const LITERALS: usize = 5;
const PATTERNS: [&str; 12] = ["a.b", "a.c", "a", "b", "a.b.c", "#", "*.*", "a.*", "a.#", "*.b", "*", "#.b"];

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
    now: Instant,
    /// What the sessions hold, with what they were told last.
    wanted: BTreeMap<Pattern, Standing>,
    /// What is bound for certain: from the broker's yes until the removal is asked for.
    bound: BTreeSet<Pattern>,
    asked: Vec<(Pattern, bool)>,
    bindings_max: usize,
}

impl World {
    fn new(bindings_max: usize) -> Self {
        let limits = Limits { linger: LINGER, bindings_max, too_many: "too many".into() };
        Self {
            planner: Planner::new(limits),
            now: Instant::now(),
            wanted: BTreeMap::new(),
            bound: BTreeSet::new(),
            asked: Vec::new(),
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
            if let Some(told) = self.wanted.get_mut(&pattern) {
                *told = standing;
            }
        }
        for (pattern, told) in &self.wanted {
            let is_served = self.bound.iter().any(|bound| bound.includes(pattern));
            match told {
                Standing::Stands => assert!(is_served, "{pattern} was told that it stands: {:?}", self.bound),
                Standing::Wanted => assert!(!is_served, "{pattern} was not told that it stands"),
                Standing::Refused(_) => {}
            }
        }
        let bound: BTreeSet<Pattern> = self.planner.bound().cloned().collect();
        assert!(bound.len() <= 2 * self.bindings_max);
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
                (entry.wanted, entry.kept, entry.standing, entry.anchoring, entry.holding, entry.standing_keys)
            };
            assert_eq!(counts(entry), counts(&counted), "{inner}");
            let consequences = members.iter().map(|(_, other)| planner.entries[*other].consequence());
            assert_eq!(entry.dependants, consequences.filter(|other| other.depends_on == Some(*key)).count());
            assert_eq!(entry.until.is_some(), planner.lingering.iter().any(|(_, lingering)| lingering == key));
        }
        let settled = members.iter().filter(|(_, key)| planner.entries[*key].consequence().counts).count();
        assert_eq!(planner.settled, settled);
        let held = members.iter().filter(|(_, key)| planner.entries[*key].role != Role::Unbound).count();
        assert_eq!(planner.held, held);
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

    /// What is wanted and not included by something else that is wanted.
    fn antichain(&self) -> BTreeSet<Pattern> {
        let is_outermost =
            |pattern: &&Pattern| !self.granted().any(|other| other != *pattern && other.includes(pattern));
        self.granted().filter(is_outermost).cloned().collect()
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
            let mut covers = self.granted().filter(|other| *other != bound && other.includes(bound));
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
            assert!(antichain.len() > self.bindings_max);
        }
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
        steps in proptest::collection::vec(step(PATTERNS.len()), 0..120), bindings_max in 1..4usize
    ) {
        let mut world = World::new(bindings_max);
        steps.iter().for_each(|step| world.take(step));
        world.check_at_rest();
        world.check_when_nothing_lingers();
    }

    #[test]
    fn topics_without_covers_keep_to_the_limit_at_every_moment(
        steps in proptest::collection::vec(step(LITERALS), 0..120), bindings_max in 1..4usize
    ) {
        let mut world = World::new(bindings_max);
        for step in &steps {
            world.take(step);
            let asked = world.asked.iter().filter(|(_, bind)| *bind).count();
            prop_assert!(world.bound.len() + asked <= bindings_max);
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
fn beyond_the_limit_idle_bindings_go_and_then_claims_are_refused() {
    let mut world = world_with(2, &["a.b", "a.c"]);
    unwant(&mut world, "a.b");
    want(&mut world, "a");
    world.come_to_rest();
    assert_eq!(bound(&world), ["a", "a.c"]);
    want(&mut world, "b");
    world.come_to_rest();
    assert_eq!(world.wanted[&Pattern::parse("b").unwrap()], Standing::Refused("too many".into()));
    want(&mut world, "#");
    world.come_to_rest();
    assert_eq!(bound(&world), ["#"]);
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
