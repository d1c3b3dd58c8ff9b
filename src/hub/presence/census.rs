//! Who is subscribed to what, on this node and on all others that were heard of. Pure: no I/O, no clock, no lock.
//!
//! Counts are exact as far as bulletins came; names are known up to a bound a pattern, and up to another in all. A pattern
//! that has grown beyond its bound is counted only, until it has shrunk to three quarters of it: so one that stands at the
//! bound does not change its ways with everybody who comes or goes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Presences;
use crate::hub::presence::part::Part;
use crate::hub::presence::teller::{Own, Teller};
use crate::model::presence::{Bulletin, Entry, MEMBER_BYTES_MAX, Member, NodeId, Question, Roster};
use crate::model::topic::Pattern;

/// Other nodes that are remembered; strangers who draw a new number for each message shall not fill the memory.
pub(super) const NODES_MAX: usize = 1024;

/// Heartbeats without a word after which a node's members are gone.
const SILENT_MAX: u32 = 3;

/// What a census is made with.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Which patterns it is kept for.
    pub presences: Presences,
    /// Names that are remembered in all.
    pub members_max: usize,
    /// Between two signs of life of a node.
    pub heartbeat: Duration,
}

/// How a pattern looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// So.
    Known(Roster),
    /// Some names are still on their way; the next bulletins bring them.
    Unsettled {
        /// What holds meanwhile.
        count: u64,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Census {
    terms: Terms,
    node: NodeId,
    own: Own,
    teller: Teller,
    peers: BTreeMap<NodeId, Peer>,
    /// Patterns that are counted only, for now.
    big: HashSet<Pattern>,
    /// Names in all, and patterns of other nodes, which cost as much.
    remembered: usize,
    /// Members in all.
    members: u64,
    /// Patterns that changed since they were last asked for.
    changed: HashSet<Pattern>,
}

/// Another node.
#[derive(Debug)]
struct Peer {
    heard: Instant,
    next_number: u64,
    /// Whether nothing that it told was missed.
    trusted: bool,
    /// Whether it is giving a whole account of which nothing was missed.
    accounting: bool,
    asked: Option<Instant>,
    account: u64,
    parts: HashMap<Pattern, Part>,
}

impl Census {
    /// Of a node without members, that knows no other.
    pub fn new(terms: Terms, node: NodeId, now: Instant) -> Self {
        Self {
            terms,
            node,
            own: Own::default(),
            teller: Teller::new(node, now),
            peers: BTreeMap::new(),
            big: HashSet::new(),
            remembered: 0,
            members: 0,
            changed: HashSet::new(),
        }
    }

    /// Somebody subscribed here. Each connection joins a pattern once, and leaves it once.
    pub fn join(&mut self, pattern: &Pattern, member: Member) {
        let Some(names_max) = self.names_max(pattern) else { return };
        let part = self.own.entry(pattern.clone()).or_default();
        part.count += 1;
        self.members += 1;
        self.teller.touch(pattern, &member.connection);
        if self.remembered < self.terms.members_max && member.bytes() <= MEMBER_BYTES_MAX {
            self.remembered += 1;
            part.names.insert(member.connection, member.user);
        }
        self.withhold(pattern, names_max);
        self.note(pattern);
    }

    /// That ended.
    pub fn leave(&mut self, pattern: &Pattern, connection: &Arc<str>) {
        let Some(names_max) = self.names_max(pattern) else { return };
        let Some(part) = self.own.get_mut(pattern) else { return };
        part.count -= 1;
        self.members -= 1;
        self.remembered -= usize::from(part.names.remove(connection).is_some());
        self.teller.touch(pattern, connection);
        self.withhold(pattern, names_max);
        if self.own.get(pattern).is_some_and(|part| part.count == 0) {
            self.own.remove(pattern);
        }
        self.note(pattern);
    }

    /// Decides whether others are told who a pattern's members here are.
    fn withhold(&mut self, pattern: &Pattern, names_max: u64) {
        let Some(part) = self.own.get_mut(pattern) else { return };
        let withheld = is_big(part.withheld, part.count, names_max) || !part.is_complete();
        if part.withheld && !withheld {
            self.teller.tell_afresh(pattern);
        }
        part.withheld = withheld;
    }

    /// What another node tells, or this one, which is passed over.
    pub fn hear(&mut self, bulletin: Bulletin, now: Instant) {
        let node = bulletin.node;
        if node == self.node {
            return;
        }
        if bulletin.farewell {
            return self.forget(node);
        }
        if self.peers.len() >= NODES_MAX && !self.peers.contains_key(&node) {
            return;
        }
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(bulletin.number, now));
        peer.heard = now;
        if !peer.follows(&bulletin) {
            return;
        }
        let is_asked = match &bulletin.question {
            Question::Nobody => false,
            Question::Nodes(nodes) => nodes.contains(&self.node),
            Question::Everybody => true,
        };
        for entry in bulletin.entries {
            self.apply(node, entry);
        }
        if bulletin.ends {
            self.close_account(node);
        }
        if is_asked {
            self.teller.give_account();
        }
    }

    fn apply(&mut self, node: NodeId, entry: Entry) {
        let Entry { pattern, count, names } = entry;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let is_new = !peer.parts.contains_key(&pattern);
        let room = self.terms.members_max.saturating_sub(self.remembered);
        if self.terms.presences.of(&pattern).is_none() || (is_new && (count == 0 || room == 0)) {
            return;
        }
        let part = peer.parts.entry(pattern.clone()).or_default();
        part.account = peer.account;
        self.remembered -= if is_new { 0 } else { part.names.len() + 1 };
        self.members = self.members - part.count + count;
        part.count = count;
        part.tell(names, self.terms.members_max.saturating_sub(self.remembered + 1));
        if count == 0 {
            peer.parts.remove(&pattern);
        } else {
            self.remembered += part.names.len() + 1;
        }
        self.note(&pattern);
    }

    /// What a whole account did not name is gone.
    fn close_account(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if !std::mem::take(&mut peer.accounting) {
            return;
        }
        peer.trusted = true;
        let account = peer.account;
        let gone: Vec<(Pattern, Part)> = peer.parts.extract_if(|_, part| part.account != account).collect();
        self.drop_parts(gone);
    }

    /// A node is gone, and its members with it.
    fn forget(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.remove(&node) {
            self.drop_parts(peer.parts);
        }
    }

    fn drop_parts(&mut self, parts: impl IntoIterator<Item = (Pattern, Part)>) {
        for (pattern, part) in parts {
            self.remembered -= part.names.len() + 1;
            self.members -= part.count;
            self.note(&pattern);
        }
    }

    /// Forgets nodes that have been silent for too long.
    pub fn expire(&mut self, now: Instant) {
        let silence_max = self.terms.heartbeat * SILENT_MAX;
        let is_silent = |peer: &Peer| now.saturating_duration_since(peer.heard) > silence_max;
        let silent: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| is_silent(peer)).map(|(node, _)| *node).collect();
        silent.into_iter().for_each(|node| self.forget(node));
    }

    /// Nobody can be heard at present, so no silence counts that there has been.
    pub fn excuse(&mut self, now: Instant) {
        self.peers.values_mut().for_each(|peer| peer.heard = now);
    }

    /// From now on others hear what is told, and are heard: everybody gives a whole account to everybody.
    pub fn link_up(&mut self) {
        self.teller.link_up();
        for peer in self.peers.values_mut() {
            (peer.trusted, peer.accounting, peer.asked) = (false, false, None);
        }
    }

    /// Nobody hears anything any more. Own members stay known; those of others until they count as silent.
    pub fn link_down(&mut self) {
        self.teller.link_down();
    }

    /// When there will be something to tell, if nothing happens before.
    pub fn due(&self) -> Instant {
        let doubts = self.peers.values().any(|peer| peer.is_doubted() && peer.asked.is_none());
        self.teller.due(doubts, self.terms.heartbeat)
    }

    /// What is to be told now, if anything.
    pub fn bulletin(&mut self, now: Instant) -> Option<Bulletin> {
        let doubted = self.doubted(now);
        self.teller.bulletin(&self.own, doubted, (now, self.terms.heartbeat))
    }

    /// The nodes of which something was missed, to be asked once a heartbeat.
    fn doubted(&mut self, now: Instant) -> Vec<NodeId> {
        let heartbeat = self.terms.heartbeat;
        let is_due = |peer: &Peer| peer.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= heartbeat);
        let doubted = self.peers.iter_mut().filter(|(_, peer)| peer.is_doubted() && is_due(peer));
        let asked = doubted.map(|(node, peer)| {
            peer.asked = Some(now);
            *node
        });
        asked.collect()
    }

    /// The last word of a node that stops.
    pub fn farewell(&mut self) -> Bulletin {
        self.teller.farewell()
    }

    /// How a pattern looks now.
    pub fn look(&self, pattern: &Pattern) -> Look {
        let parts = || self.parts(pattern);
        let count = parts().map(|part| part.count).sum();
        if self.big.contains(pattern) || parts().any(|part| part.withheld) {
            return Look::Known(Roster { count, members: None });
        }
        if !parts().all(Part::is_complete) {
            return Look::Unsettled { count };
        }
        let mut members: Vec<Member> = parts().flat_map(Part::members).collect();
        members.sort_unstable();
        Look::Known(Roster { count, members: Some(members.into()) })
    }

    /// Patterns that may look different than when this was last asked.
    pub fn take_changed(&mut self) -> HashSet<Pattern> {
        std::mem::take(&mut self.changed)
    }

    /// Members, and nodes, this one included.
    pub fn size(&self) -> (u64, usize) {
        (self.members, self.peers.len() + 1)
    }

    fn parts(&self, pattern: &Pattern) -> impl Iterator<Item = &Part> {
        let others = self.peers.values().filter_map(move |peer| peer.parts.get(pattern));
        self.own.get(pattern).into_iter().chain(others)
    }

    fn names_max(&self, pattern: &Pattern) -> Option<u64> {
        self.terms.presences.of(pattern).map(|presence| presence.members_max as u64)
    }

    fn note(&mut self, pattern: &Pattern) {
        let Some(names_max) = self.names_max(pattern) else { return };
        let count = self.parts(pattern).map(|part| part.count).sum();
        if is_big(self.big.contains(pattern), count, names_max) {
            self.big.insert(pattern.clone());
        } else {
            self.big.remove(pattern);
        }
        self.changed.insert(pattern.clone());
    }
}

/// Whether so many are too many to be named, which depends on whether they were before.
fn is_big(was: bool, count: u64, names_max: u64) -> bool {
    if was { count > names_max - names_max / 4 } else { count > names_max }
}

impl Peer {
    fn new(next_number: u64, heard: Instant) -> Self {
        let parts = HashMap::new();
        Self { heard, next_number, trusted: false, accounting: false, asked: None, account: 0, parts }
    }

    /// Whether something that it told was missed, and it is not telling all.
    fn is_doubted(&self) -> bool {
        !self.trusted && !self.accounting
    }

    /// Whether a bulletin is a new one, and notes what was lost before it.
    fn follows(&mut self, bulletin: &Bulletin) -> bool {
        if bulletin.number < self.next_number {
            return false;
        }
        if bulletin.number > self.next_number {
            (self.trusted, self.accounting) = (false, false);
        }
        self.next_number = bulletin.number.saturating_add(1);
        if bulletin.begins {
            self.accounting = true;
            self.account += 1;
        }
        true
    }
}
