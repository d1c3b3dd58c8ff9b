//! Presence over several nodes against a naive model, over lines that lose and delay; and what bounds it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::{Presence as Table, Presences};
use crate::model::presence::{Entry, Names, Question, Roster};

const HEARTBEAT: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

fn member(name: &str) -> Member {
    Member { connection: name.into(), user: None }
}

fn terms(names_max: usize, members_max: usize) -> Terms {
    let table = Table { name: "x".into(), pattern: pattern("p.#"), join_leave: true, members_max: names_max };
    Terms { presences: Presences(vec![table]), members_max, heartbeat: HEARTBEAT }
}

/// Names of who is there, or how many.
fn seen(look: Look) -> Result<Vec<String>, u64> {
    match look {
        Look::Known(Roster { members: Some(members), count }) => {
            assert_eq!(count, members.len() as u64);
            Ok(members.iter().map(|member| member.connection.to_string()).collect())
        }
        Look::Known(Roster { members: None, count }) | Look::Unsettled { count } => Err(count),
    }
}

/// Several nodes, and a line from each to each.
struct World {
    terms: Terms,
    now: Instant,
    nodes: Vec<Census>,
    linked: Vec<bool>,
    lines: BTreeMap<(usize, usize), VecDeque<Bulletin>>,
    drawn: u64,
}

impl World {
    fn new(count: usize, terms: Terms) -> Self {
        let now = Instant::now();
        let mut world = Self { terms, now, nodes: Vec::new(), linked: Vec::new(), lines: BTreeMap::new(), drawn: 0 };
        for _ in 0..count {
            let node = world.node();
            world.nodes.push(node);
            world.linked.push(true);
        }
        world
    }

    /// One that was just started.
    fn node(&mut self) -> Census {
        self.drawn += 1;
        let mut census = Census::new(self.terms.clone(), NodeId(self.drawn), self.now);
        census.link_up();
        census
    }

    /// Killed, and started again under another number. What it was sent before its end is lost.
    fn restart(&mut self, node: usize) {
        self.nodes[node] = self.node();
        self.linked[node] = true;
        self.lines.iter_mut().filter(|((_, to), _)| *to == node).for_each(|(_, line)| line.clear());
    }

    fn switch(&mut self, node: usize, up: bool) {
        self.linked[node] = up;
        if up {
            self.nodes[node].link_up();
        } else {
            self.nodes[node].link_down();
            self.lines.iter_mut().filter(|((_, to), _)| *to == node).for_each(|(_, line)| line.clear());
        }
    }

    /// Time passes, and everybody tells what is due.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for from in 0..self.nodes.len() {
            self.nodes[from].expire(self.now);
            for _ in 0..4 {
                if self.nodes[from].due() > self.now {
                    break;
                }
                let Some(bulletin) = self.nodes[from].bulletin(self.now) else { break };
                for to in (0..self.nodes.len()).filter(|to| self.linked[*to]) {
                    self.lines.entry((from, to)).or_default().push_back(bulletin.clone());
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, most: usize) {
        let line = self.lines.entry((from, to)).or_default();
        for bulletin in line.drain(..most.min(line.len())) {
            self.nodes[to].hear(bulletin, self.now);
        }
    }

    fn deliver_all(&mut self) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.deliver(from, to, usize::MAX);
            }
        }
    }

    /// Everything that is under way arrives, and whoever is silent is given up.
    fn settle(&mut self) {
        for _ in 0..120 {
            self.pass(STEP);
            self.deliver_all();
        }
    }
}

/// What may happen.
#[derive(Debug, Clone)]
enum Step {
    Join { node: usize, pattern: usize, name: u8 },
    Leave { node: usize, pattern: usize, name: u8 },
    Pass { steps: u32 },
    Deliver { from: usize, to: usize, most: usize },
    DeliverAll,
    Lose { from: usize, to: usize },
    Restart { node: usize },
    Switch { node: usize, up: bool },
}

const NODES: usize = 3;
const PATTERNS: [&str; 3] = ["p.a", "p.b.#", "p"];

fn step() -> impl Strategy<Value = Step> {
    let (node, pattern) = (0..NODES, 0..PATTERNS.len());
    prop_oneof![
        8 => (node.clone(), pattern.clone(), 0..9_u8).prop_map(|(node, pattern, name)| Step::Join { node, pattern, name }),
        5 => (node.clone(), pattern, 0..9_u8).prop_map(|(node, pattern, name)| Step::Leave { node, pattern, name }),
        4 => (1..6_u32).prop_map(|steps| Step::Pass { steps }),
        6 => (node.clone(), node.clone(), 1..4_usize).prop_map(|(from, to, most)| Step::Deliver { from, to, most }),
        3 => Just(Step::DeliverAll),
        2 => (node.clone(), node.clone()).prop_map(|(from, to)| Step::Lose { from, to }),
        1 => node.clone().prop_map(|node| Step::Restart { node }),
        1 => (node, any::<bool>()).prop_map(|(node, up)| Step::Switch { node, up }),
    ]
}

type Naive = Vec<BTreeSet<(usize, String)>>;

fn perform(world: &mut World, naive: &mut Naive, step: Step) {
    let name = |node: usize, name: u8| format!("{node}-{name}");
    match step {
        Step::Join { node, pattern: number, name: which } => {
            if naive[node].insert((number, name(node, which))) {
                world.nodes[node].join(&pattern(PATTERNS[number]), member(&name(node, which)));
            }
        }
        Step::Leave { node, pattern: number, name: which } => {
            if naive[node].remove(&(number, name(node, which))) {
                world.nodes[node].leave(&pattern(PATTERNS[number]), &name(node, which).into());
            }
        }
        Step::Pass { steps } => world.pass(STEP * steps),
        Step::Deliver { from, to, most } => world.deliver(from, to, most),
        Step::DeliverAll => world.deliver_all(),
        Step::Lose { from, to } => drop(world.lines.entry((from, to)).or_default().pop_front()),
        Step::Restart { node } => {
            naive[node].clear();
            world.restart(node);
        }
        Step::Switch { node, up } => world.switch(node, up),
    }
}

proptest! {
    /// Whatever was lost, in the end every node knows who is there on all of them.
    #[test]
    fn all_nodes_agree_with_a_plain_set_once_lines_hold(steps in vec(step(), 0..150), names_max in 0..20_usize) {
        let mut world = World::new(NODES, terms(names_max, 1_000));
        let mut naive: Naive = vec![BTreeSet::new(); NODES];
        world.settle();
        for step in steps {
            perform(&mut world, &mut naive, step);
        }
        // Whoever has its link finds out by itself what it missed; a new link would tell all again.
        (0..NODES).filter(|node| !world.linked[*node]).collect::<Vec<_>>().into_iter().for_each(|node| world.switch(node, true));
        world.settle();
        for (number, text) in PATTERNS.iter().enumerate() {
            let mut expected: Vec<String> = naive.iter().flatten().filter(|(of, _)| *of == number).map(|(_, name)| name.clone()).collect();
            expected.sort_unstable();
            for node in &world.nodes {
                match seen(node.look(&pattern(text))) {
                    Ok(names) => {
                        prop_assert_eq!(&names, &expected);
                        prop_assert!(names.len() <= names_max);
                    }
                    Err(count) => {
                        prop_assert_eq!(count as usize, expected.len());
                        prop_assert!(expected.len() > names_max - names_max / 4, "{} of {names_max}", expected.len());
                    }
                }
                prop_assert_eq!(node.size(), (naive.iter().map(BTreeSet::len).sum::<usize>() as u64, NODES));
            }
        }
    }

    /// Whatever strangers say, nothing breaks, and what is remembered stays bounded.
    #[test]
    fn strangers_cannot_fill_the_memory(
        told in vec((0..4_u64, 0..9_u64, 0..40_u8, 0..5_u64, vec(any::<u8>(), 0..6), any::<(bool, bool, bool)>()), 0..200),
    ) {
        let now = Instant::now();
        let mut census = Census::new(terms(100, 20), NodeId(9), now);
        for (node, number, which, count, names, (afresh, begins, ends)) in told {
            let members = names.iter().map(|name| member(&name.to_string())).collect();
            let names = if afresh { Names::Afresh(members) } else { Names::Changed { joined: members, left: Vec::new() } };
            let entries = vec![Entry { pattern: pattern(&format!("p.{which}")), count, names }];
            let question = Question::Everybody;
            census.hear(Bulletin { node: NodeId(node), number, entries, begins, ends, question, farewell: false }, now);
            let named: usize = (0..40).map(|which| match census.look(&pattern(&format!("p.{which}"))) {
                Look::Known(Roster { members: Some(members), .. }) => members.len(),
                _ => 0,
            }).sum();
            prop_assert!(named <= 20, "{named} are named");
        }
        census.expire(now + HEARTBEAT * 4);
        prop_assert_eq!(census.size(), (0, 1));
    }
}

#[test]
fn who_comes_to_one_node_is_soon_known_on_the_other() {
    let mut world = World::new(2, terms(10, 100));
    world.settle();
    world.nodes[0].join(&pattern("p.a"), member("anna"));
    world.pass(STEP);
    world.deliver_all();
    assert_eq!(seen(world.nodes[1].look(&pattern("p.a"))), Ok(vec!["anna".to_owned()]));
    world.nodes[0].leave(&pattern("p.a"), &"anna".into());
    world.pass(STEP);
    world.deliver_all();
    assert_eq!(seen(world.nodes[1].look(&pattern("p.a"))), Ok(vec![]));
}

#[test]
fn members_go_with_a_node_that_is_silent_for_three_heartbeats_or_says_goodbye() {
    let mut world = World::new(2, terms(10, 100));
    world.nodes[0].join(&pattern("p"), member("anna"));
    world.settle();
    let heard = world.now;
    // Its last heartbeat was up to one ago.
    world.nodes[1].expire(heard + HEARTBEAT * 2);
    assert_eq!(seen(world.nodes[1].look(&pattern("p"))), Ok(vec!["anna".to_owned()]));
    world.nodes[1].expire(heard + HEARTBEAT * 4);
    assert_eq!((seen(world.nodes[1].look(&pattern("p"))), world.nodes[1].size()), (Ok(vec![]), (0, 1)));
    world.settle();
    assert_eq!(world.nodes[1].size(), (1, 2), "it was asked, and told all again");
    let farewell = world.nodes[0].farewell();
    world.nodes[1].hear(farewell, world.now);
    assert_eq!(world.nodes[1].size(), (0, 1));
}

/// An alarm at the broker took everybody on other nodes away, who were all still there.
#[test]
fn silence_is_excused_while_nobody_can_be_heard_and_for_three_heartbeats_after() {
    let mut world = World::new(2, terms(10, 100));
    world.nodes[0].join(&pattern("p"), member("anna"));
    world.settle();
    let excused = world.now + HEARTBEAT * 60;
    world.nodes[1].excuse(excused);
    world.nodes[1].expire(excused + HEARTBEAT * 3);
    assert_eq!(seen(world.nodes[1].look(&pattern("p"))), Ok(vec!["anna".to_owned()]));
    world.nodes[1].expire(excused + HEARTBEAT * 4);
    assert_eq!(world.nodes[1].size(), (0, 1));
}

#[test]
fn a_pattern_at_its_bound_does_not_change_its_ways_with_everybody() {
    let mut world = World::new(1, terms(8, 100));
    let (node, pattern) = (&mut world.nodes[0], pattern("p"));
    for number in 0..9 {
        assert!(seen(node.look(&pattern)).is_ok(), "{number}");
        node.join(&pattern, member(&number.to_string()));
    }
    for left in (6..9).rev() {
        assert_eq!(seen(node.look(&pattern)), Err(left + 1));
        node.leave(&pattern, &left.to_string().into());
    }
    assert_eq!(seen(node.look(&pattern)).map(|names| names.len()), Ok(6));
}

#[test]
fn who_comes_beyond_the_bound_of_all_is_counted_and_not_named() {
    let mut world = World::new(2, terms(8, 2));
    for name in ["a", "b", "c"] {
        world.nodes[0].join(&pattern("p"), member(name));
    }
    world.settle();
    assert_eq!([0, 1].map(|node| seen(world.nodes[node].look(&pattern("p")))), [Err(3), Err(3)]);
    world.nodes[0].leave(&pattern("p"), &"c".into());
    assert_eq!(seen(world.nodes[0].look(&pattern("p"))).map(|names| names.len()), Ok(2));
    let long = Member { connection: "x".repeat(2_000).into(), user: None };
    world.nodes[0].join(&pattern("p.long"), long);
    assert_eq!(seen(world.nodes[0].look(&pattern("p.long"))), Err(1));
    world.nodes[0].join(&pattern("elsewhere"), member("d"));
    assert_eq!((seen(world.nodes[0].look(&pattern("elsewhere"))), world.nodes[0].size()), (Ok(vec![]), (3, 2)));
}

/// A list that takes several bulletins is never taken for whole before it is.
#[test]
fn bulletins_are_bounded_and_a_list_in_pieces_is_told_as_one() {
    let mut world = World::new(1, terms(1_000, 10_000));
    let name = |number: usize| format!("{number:0>200}");
    (0..600).for_each(|number| world.nodes[0].join(&pattern("p"), member(&name(number))));
    let newcomer = world.node();
    world.nodes.push(newcomer);
    world.linked.push(true);
    let mut pieces = 0;
    while seen(world.nodes[1].look(&pattern("p"))).map(|names| names.len()) != Ok(600) {
        let look = world.nodes[1].look(&pattern("p"));
        assert!(matches!(look, Look::Unsettled { count: 600 }) || seen(look.clone()) == Ok(vec![]), "{look:?}");
        world.now += STEP;
        let bulletin = world.nodes[0].bulletin(world.now).unwrap();
        let joined = |entry: &Entry| match &entry.names {
            Names::Afresh(members) | Names::Changed { joined: members, .. } => members.iter().map(Member::bytes).sum(),
            Names::Untold => 0,
        };
        assert!(bulletin.entries.iter().map(joined).sum::<usize>() <= teller::BULLETIN_BYTES_MAX);
        world.nodes[1].hear(bulletin, world.now);
        pieces += 1;
    }
    assert!(pieces > 3, "{pieces}");
}

#[test]
fn more_changes_than_are_remembered_become_a_whole_account() {
    let mut world = World::new(2, terms(10, 1_000_000));
    world.settle();
    for number in 0..70_000 {
        world.nodes[0].join(&pattern(&format!("p.{}", number % 2_000)), member(&number.to_string()));
    }
    (0..70_000).filter(|number| number % 2_000 > 0).for_each(|number| {
        world.nodes[0].leave(&pattern(&format!("p.{}", number % 2_000)), &number.to_string().into());
    });
    world.settle();
    assert_eq!(seen(world.nodes[1].look(&pattern("p.0"))), Err(35));
    assert_eq!(world.nodes[1].size(), (35, 2));
}

#[tokio::test]
async fn a_shard_is_told_once_which_patterns_to_look_at_again() {
    let presence = Arc::new(Presence::new(terms(10, 100)));
    let doorbell = Arc::new(Notify::new());
    let watch = presence.watch(doorbell.clone());
    watch.begin(&pattern("p.a"));
    for name in ["a", "b"] {
        presence.join(&pattern("p.a"), member(name));
        presence.join(&pattern("p.b"), member(name));
    }
    tokio::time::timeout(Duration::from_secs(30), doorbell.notified()).await.unwrap();
    assert_eq!(watch.changed(9), (vec![pattern("p.a")], false));
    assert_eq!(watch.changed(9), (vec![], false));
    watch.begin(&pattern("p.b"));
    presence.leave(&pattern("p.a"), &"a".into());
    presence.leave(&pattern("p.b"), &"a".into());
    assert_eq!(watch.changed(1), (vec![pattern("p.a")], true));
    assert_eq!(watch.changed(1), (vec![pattern("p.b")], false));
    watch.end(&pattern("p.a"));
    presence.leave(&pattern("p.a"), &"b".into());
    assert_eq!(watch.changed(9), (vec![], false));
}

#[test]
fn differences_are_who_came_and_who_went() {
    let all = |names: &[&str]| names.iter().map(|name| member(name)).collect::<Vec<_>>();
    assert_eq!(differences(&all(&["a", "b"]), &all(&["b", "c", "d"])), (all(&["c", "d"]), all(&["a"])));
}
