//! Presence in one shard: who of its connections counts where, and which of them are told who comes and goes. What they
//! were told last is kept, and they are told how that differs from what is now, so that nothing is told that came and went
//! in between, and the answer to who is there fits what was told before and comes after.

use std::collections::{HashMap, HashSet};

use crate::hub::index::SubscriberId;
use crate::hub::presence::{Look, Watch, differences};
use crate::model::presence::{Member, Roster};
use crate::model::topic::Pattern;
use crate::transport::driver::Driver;
use crate::transport::driver::connection::Connection;
use crate::transport::driver::rota::Ticket;

/// Patterns that are looked at again between two turns.
const LOOKS_MAX: usize = 64;

/// What a shard watches.
#[derive(Debug)]
pub(super) struct Attendance {
    watch: Watch,
    rooms: HashMap<Pattern, Room>,
}

/// One pattern, and who of this shard is told of it.
#[derive(Debug)]
struct Room {
    told: Roster,
    watchers: HashSet<Ticket>,
}

/// What the watchers of a pattern are to be told.
enum News {
    Moved { joined: Vec<Member>, left: Vec<Member> },
    Present(Roster),
}

impl Attendance {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, rooms: HashMap::new() }
    }

    /// What changed on a pattern since its watchers were told.
    fn news(&mut self, pattern: &Pattern, look: Look) -> Option<News> {
        let (room, Look::Known(now)) = (self.rooms.get_mut(pattern)?, look) else { return None };
        let before = std::mem::replace(&mut room.told, now.clone());
        match (&before.members, &now.members) {
            (None, None) => None,
            (Some(before), Some(now)) => {
                let (joined, left) = differences(before, now);
                (!joined.is_empty() || !left.is_empty()).then_some(News::Moved { joined, left })
            }
            _ => Some(News::Present(now)),
        }
    }
}

impl Driver {
    /// Tells who came and went, of some of the patterns where anybody did. True when there are more.
    pub(super) fn tell_changes(&mut self) -> bool {
        let (patterns, more) = self.attendance.watch.changed(LOOKS_MAX);
        for pattern in patterns {
            self.tell_change(&pattern, None);
        }
        more
    }

    /// Tells the watchers of one pattern; `lent` is one who may be among them and is in use by the caller.
    fn tell_change(&mut self, pattern: &Pattern, mut lent: Option<(Ticket, &mut Connection)>) {
        let look = self.shared.hub.presence().look(pattern);
        let Some(news) = self.attendance.news(pattern, look) else { return };
        let room = self.attendance.rooms.get(pattern);
        let watchers: Vec<Ticket> = room.into_iter().flat_map(|room| room.watchers.iter().copied()).collect();
        for watcher in watchers {
            match &mut lent {
                Some((ticket, connection)) if *ticket == watcher => self.tell(watcher, connection, (pattern, &news)),
                _ => {
                    self.with_ticket(watcher, |driver, connection| driver.tell(watcher, connection, (pattern, &news)));
                }
            }
        }
    }

    /// Who reads too slowly is told how things are when it has caught up.
    fn tell(&mut self, watcher: Ticket, connection: &mut Connection, (pattern, news): (&Pattern, &News)) {
        if connection.outbox.bytes() > self.behind_bytes {
            connection.owed.insert(pattern.clone());
        }
        if connection.owed.contains(pattern) {
            return;
        }
        let mut actions = Vec::new();
        match news {
            News::Moved { joined, left } => connection.session.moved(pattern, (joined, left), &mut actions),
            News::Present(roster) => connection.session.present(pattern, roster.clone(), &mut actions),
        }
        self.perform(watcher.subscriber, connection, actions);
    }

    /// Its socket has drained.
    pub(super) fn tell_owed(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        if connection.owed.is_empty() || !connection.outbox.is_empty() {
            return;
        }
        let mut actions = Vec::new();
        for pattern in std::mem::take(&mut connection.owed) {
            if let Some(room) = self.attendance.rooms.get(&pattern) {
                connection.session.present(&pattern, room.told.clone(), &mut actions);
            }
        }
        self.perform(subscriber, connection, actions);
    }

    /// Counts a connection among the members of a pattern.
    pub(super) fn attend(
        &mut self,
        subscriber: SubscriberId,
        connection: &mut Connection,
        (pattern, member): (Pattern, Member),
    ) {
        // Who was there before it is no news to it.
        self.tell_change(&pattern, None);
        let presence = self.shared.hub.presence().clone();
        presence.join(&pattern, member);
        connection.attending.insert(pattern.clone());
        if !self.shared.settings.presences.of(&pattern).is_some_and(|presence| presence.join_leave) {
            return;
        }
        let ticket = self.ticket(subscriber);
        let Attendance { watch, rooms } = &mut self.attendance;
        let room = rooms.entry(pattern).or_insert_with_key(|pattern| {
            watch.begin(pattern);
            Room { told: roster_of(presence.look(pattern)), watchers: HashSet::new() }
        });
        room.watchers.insert(ticket);
    }

    /// Counts it no more.
    pub(super) fn depart(&mut self, ticket: Ticket, connection: &mut Connection, pattern: &Pattern) {
        if !connection.attending.remove(pattern) {
            return;
        }
        connection.owed.remove(pattern);
        self.shared.hub.presence().leave(pattern, connection.session.connection());
        let Attendance { watch, rooms } = &mut self.attendance;
        if let Some(room) = rooms.get_mut(pattern)
            && room.watchers.remove(&ticket)
            && room.watchers.is_empty()
        {
            watch.end(pattern);
            rooms.remove(pattern);
        }
    }

    /// Counts it nowhere any more.
    pub(super) fn depart_from_all(&mut self, ticket: Ticket, connection: &mut Connection) {
        while let Some(pattern) = connection.attending.first().cloned() {
            self.depart(ticket, connection, &pattern);
        }
    }

    /// Who is subscribed to a pattern: to who is told of it, what fits that.
    pub(super) fn roster(
        &mut self,
        subscriber: SubscriberId,
        connection: &mut Connection,
        pattern: &Pattern,
    ) -> Roster {
        let ticket = self.ticket(subscriber);
        self.tell_change(pattern, Some((ticket, connection)));
        match self.attendance.rooms.get(pattern) {
            Some(room) if room.watchers.contains(&ticket) => room.told.clone(),
            _ => roster_of(self.shared.hub.presence().look(pattern)),
        }
    }
}

fn roster_of(look: Look) -> Roster {
    match look {
        Look::Known(roster) => roster,
        Look::Unsettled { count } => Roster { count, members: None },
    }
}
