//! What a node tells the others of its own members: changes since it last told, whole accounts for those who ask, and
//! signs of life. What it tells is read off the members as they are then, so that coming and going in between is never
//! told, and a bulletin always agrees with itself. Bounded: what has changed beyond a number is told as a whole account.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hub::presence::part::Part;
use crate::model::presence::{Bulletin, Entry, Member, Names, NodeId, Question};
use crate::model::topic::Pattern;

/// Between two times at which a node tells something: what changes in quick succession is told together.
const PERIOD: Duration = Duration::from_millis(50);

/// Bytes of the names in one bulletin, about.
pub(super) const BULLETIN_BYTES_MAX: usize = 32 << 10;

/// Bytes of an entry beside its pattern and its names, and of a name beside itself; about.
const ENTRY_BYTES: usize = 48;
const NAME_BYTES: usize = 16;

/// Changes that are remembered until they are told.
const CHANGES_MAX: usize = 65_536;

/// The members on this node, in an order in which a whole account goes through them.
pub(super) type Own = BTreeMap<Pattern, Part>;

/// See the module.
#[derive(Debug)]
pub(super) struct Teller {
    node: NodeId,
    next_number: u64,
    told: Instant,
    linked: bool,
    /// Whether everybody is to be asked.
    asks_everybody: bool,
    changes: BTreeMap<Pattern, Change>,
    /// Connections in them, about.
    changed: usize,
    account: Account,
}

/// What has changed on one pattern.
#[derive(Debug, Default)]
struct Change {
    /// The others know no names of it yet.
    afresh: bool,
    /// Who came or went, or both.
    connections: BTreeSet<Arc<str>>,
}

/// How far a whole account is.
#[derive(Debug, PartialEq, Eq)]
enum Account {
    Unwanted,
    Wanted,
    /// All patterns up to this one were told.
    Begun {
        until: Option<Pattern>,
        /// Somebody asked when it had begun.
        again: bool,
    },
}

impl Teller {
    pub(super) fn new(node: NodeId, now: Instant) -> Self {
        Self {
            node,
            next_number: 0,
            told: now,
            linked: false,
            asks_everybody: false,
            changes: BTreeMap::new(),
            changed: 0,
            account: Account::Unwanted,
        }
    }

    pub(super) fn link_up(&mut self) {
        self.linked = true;
        self.asks_everybody = true;
        self.account = Account::Wanted;
    }

    /// What has changed is not remembered while nobody can be told: a whole account is given afterwards.
    pub(super) fn link_down(&mut self) {
        self.linked = false;
        self.changes.clear();
        self.changed = 0;
        self.account = Account::Unwanted;
    }

    pub(super) fn give_account(&mut self) {
        match &mut self.account {
            Account::Unwanted | Account::Wanted => self.account = Account::Wanted,
            Account::Begun { again, .. } => *again = true,
        }
    }

    /// Somebody came or went.
    pub(super) fn touch(&mut self, pattern: &Pattern, connection: &Arc<str>) {
        if !self.linked {
            return;
        }
        self.changes.entry(pattern.clone()).or_default().connections.insert(connection.clone());
        self.changed += 1;
        if self.changed > CHANGES_MAX {
            self.changes.clear();
            self.changed = 0;
            self.give_account();
        }
    }

    /// The names of a pattern's members are told from now on.
    pub(super) fn tell_afresh(&mut self, pattern: &Pattern) {
        if self.linked {
            self.changes.entry(pattern.clone()).or_default().afresh = true;
        }
    }

    /// When the next bulletin is due; `asks`: whether there is a question to go with it.
    pub(super) fn due(&self, asks: bool, heartbeat: Duration) -> Instant {
        self.told + if self.linked && (asks || self.waits()) { PERIOD.min(heartbeat) } else { heartbeat }
    }

    /// Whether there is something to tell.
    fn waits(&self) -> bool {
        !self.changes.is_empty() || self.account != Account::Unwanted || self.asks_everybody
    }

    /// At most so many bytes of what is to be told; a heartbeat when it is time for one.
    pub(super) fn bulletin(
        &mut self,
        own: &Own,
        doubted: Vec<NodeId>,
        (now, heartbeat): (Instant, Duration),
    ) -> Option<Bulletin> {
        if !self.linked || !(self.waits() || !doubted.is_empty() || now >= self.told + heartbeat) {
            return None;
        }
        let mut bulletin = self.blank();
        self.told = now;
        bulletin.question = match std::mem::take(&mut self.asks_everybody) {
            true => Question::Everybody,
            false if doubted.is_empty() => Question::Nobody,
            false => Question::Nodes(doubted),
        };
        let mut room = BULLETIN_BYTES_MAX;
        // Changes first: what an account says of a pattern is later than what was to be told of it.
        self.tell_changes(own, &mut bulletin.entries, &mut room);
        self.tell_account(own, &mut bulletin, &mut room);
        Some(bulletin)
    }

    pub(super) fn farewell(&mut self) -> Bulletin {
        Bulletin { farewell: true, ..self.blank() }
    }

    fn blank(&mut self) -> Bulletin {
        let number = self.next_number;
        self.next_number += 1;
        Bulletin {
            node: self.node,
            number,
            entries: Vec::new(),
            begins: false,
            ends: false,
            question: Question::Nobody,
            farewell: false,
        }
    }

    fn tell_changes(&mut self, own: &Own, entries: &mut Vec<Entry>, room: &mut usize) {
        while *room > 0
            && let Some((pattern, mut change)) = self.changes.pop_first()
        {
            entries.push(entry(&pattern, own.get(&pattern), &mut change, room));
            if !change.connections.is_empty() {
                self.changes.insert(pattern, change);
            }
        }
        if self.changes.is_empty() {
            self.changed = 0;
        }
    }

    fn tell_account(&mut self, own: &Own, bulletin: &mut Bulletin, room: &mut usize) {
        if self.account == Account::Unwanted || *room == 0 {
            return;
        }
        if self.account == Account::Wanted {
            self.account = Account::Begun { until: None, again: false };
            bulletin.begins = true;
        }
        let Account::Begun { until, again } = &mut self.account else { return };
        let after = until.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = own.range((after, Bound::Unbounded));
        while *room > 0 {
            let Some((pattern, part)) = rest.next() else {
                bulletin.ends = true;
                self.account = if *again { Account::Wanted } else { Account::Unwanted };
                return;
            };
            let mut change = Change { afresh: true, connections: BTreeSet::new() };
            bulletin.entries.push(entry(pattern, Some(part), &mut change, room));
            *until = Some(pattern.clone());
            if !change.connections.is_empty() {
                self.changes.entry(pattern.clone()).or_default().connections.append(&mut change.connections);
            }
        }
    }
}

/// What is to be told of one pattern, as far as there is room; what is left stays in `change`.
fn entry(pattern: &Pattern, part: Option<&Part>, change: &mut Change, room: &mut usize) -> Entry {
    *room = room.saturating_sub(ENTRY_BYTES + pattern.as_str().len());
    let count = part.map_or(0, |part| part.count);
    let afresh = std::mem::take(&mut change.afresh);
    let Some(part) = part.filter(|part| !part.withheld) else {
        change.connections.clear();
        let nobody = Names::Changed { joined: Vec::new(), left: Vec::new() };
        return Entry { pattern: pattern.clone(), count, names: if count > 0 { Names::Untold } else { nobody } };
    };
    if afresh {
        change.connections = part.names.keys().cloned().collect();
    }
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    while *room > 0
        && let Some(connection) = change.connections.pop_first()
    {
        *room = room.saturating_sub(NAME_BYTES + connection.len());
        match part.names.get(&connection) {
            Some(user) => {
                *room = room.saturating_sub(user.as_deref().map_or(0, str::len));
                joined.push(Member { connection, user: user.clone() });
            }
            None => left.push(connection),
        }
    }
    let names = if afresh { Names::Afresh(joined) } else { Names::Changed { joined, left } };
    Entry { pattern: pattern.clone(), count, names }
}
