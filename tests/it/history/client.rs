//! Clients as they are: one that keeps cursors as `clients/js/passerelle.js` does, and a browser's event stream, which keeps
//! the last `id` it saw. They read frames and write down what their subscriptions were given.

use std::collections::{BTreeMap, HashSet};

use passerelle::model::cursor::{Cursor, JointCursor};
use passerelle::model::flow::Flow;
use passerelle::model::selector::Selector;
use passerelle::protocol::{Command, CommandId, Only, Subscribe, Which};
use serde_json::value::RawValue;

use crate::history::node::{Frame, Message};
use crate::history::record::Received;

/// The newest cursor of each source, by its name.
pub(crate) type Saved = BTreeMap<String, Cursor>;

/// What a client notes down for one of its subscriptions, by that one's history.
#[derive(Debug)]
pub(crate) enum Note {
    Asked { after: Saved, last: bool, flow: Flow },
    Subscribed { cursors: JointCursor, resumed: bool },
    Message(Received),
    Gap { source: String, reason: passerelle::model::gap::GapReason, missed: Option<u64> },
    CaughtUp { cursors: JointCursor },
    Ended { kept: Saved },
}

/// Notes with the histories that they belong to.
pub(crate) type Notes = Vec<(usize, Note)>;

/// How a subscription was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) wanted: Selector,
    pub(crate) source: Option<String>,
    pub(crate) last: usize,
    pub(crate) flow: Flow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Asked,
    Standing,
}

/// One subscription: what it has seen, and so where it goes on after a lost line.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) history: usize,
    pub(crate) wish: Wish,
    stage: Stage,
    id: u64,
    turn: String,
    saved: Saved,
    ahead: HashSet<(usize, u64, u64)>,
    replaying: bool,
}

impl Subscription {
    pub(crate) fn new(history: usize, wish: Wish, after: Saved) -> Self {
        let mut subscription = Self {
            history,
            wish,
            stage: Stage::Idle,
            id: 0,
            turn: String::new(),
            saved: after,
            ahead: HashSet::new(),
            replaying: false,
        };
        subscription.replaying = !subscription.replay_key().is_empty();
        subscription
    }

    /// What it asks to be sent again; two with the same key can replay together.
    fn replay_key(&self) -> String {
        if !self.saved.is_empty() {
            return format!("{:?}", self.saved);
        }
        if self.wish.last > 0 { format!("last of {}", self.wish.wanted.pattern) } else { String::new() }
    }

    pub(crate) fn saved(&self) -> &Saved {
        &self.saved
    }

    pub(crate) fn is_standing(&self) -> bool {
        self.stage == Stage::Standing
    }

    fn reads(&self, source: &str) -> bool {
        self.wish.source.as_deref().is_none_or(|only| only == source)
    }

    /// Whether it is about such a message, whatever its headers say.
    fn is_about(&self, message: &Message, source: &str) -> bool {
        self.reads(source) && self.wish.wanted.pattern.matches(&message.topic)
    }

    fn hears(&self, message: &Message, source: &str) -> bool {
        if !self.reads(source) {
            return false;
        }
        if message.replay {
            return self.stage == Stage::Standing && self.replaying;
        }
        self.stage == Stage::Standing || (self.replaying && !self.saved.is_empty())
    }

    fn stand(&mut self, cursors: &JointCursor) {
        if !self.replaying {
            self.take_over(cursors);
        }
    }

    fn take_over(&mut self, cursors: &JointCursor) {
        self.saved.extend(cursors.0.iter().cloned());
    }

    fn caught_up(&mut self, cursors: &JointCursor) {
        self.replaying = false;
        self.take_over(cursors);
        self.ahead.clear();
    }

    /// Whether to deliver a live message, and whether it is ahead of this subscription's own.
    fn live(&mut self, message: &Message, source: &str, matching: bool) -> Option<bool> {
        if self.replaying {
            return (matching && self.remember(message)).then_some(true);
        }
        let fresh = self.saved.insert(source.to_owned(), message.cursor) != Some(message.cursor);
        (matching && fresh).then_some(false)
    }

    fn replayed(&mut self, message: &Message, source: &str, alone: bool) -> Option<bool> {
        let moves = alone && !self.saved.is_empty();
        let fresh = if moves { !self.ahead.contains(&identity(message)) } else { self.remember(message) };
        if moves {
            self.saved.insert(source.to_owned(), message.cursor);
        }
        fresh.then_some(!alone)
    }

    fn remember(&mut self, message: &Message) -> bool {
        self.ahead.insert(identity(message))
    }
}

fn identity(message: &Message) -> (usize, u64, u64) {
    (message.source, message.cursor.epoch.0, message.cursor.offset)
}

/// A client of `passerelle.v1.json`.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) subscriptions: Vec<Subscription>,
    /// Unsubscribed while they replayed, by the id under which that will be answered: till then their messages come.
    leaving: Vec<(u64, Subscription)>,
    /// Likewise all others.
    left: Vec<(u64, Subscription)>,
    connected: bool,
    next_id: u64,
}

impl Page {
    pub(crate) fn connect(&mut self, notes: &mut Notes) -> Vec<Command> {
        self.connected = true;
        self.pump(notes)
    }

    pub(crate) fn disconnect(&mut self, notes: &mut Notes) {
        self.connected = false;
        self.leaving.clear();
        self.left.clear();
        for one in &mut self.subscriptions {
            if one.stage != Stage::Idle {
                notes.push((one.history, Note::Ended { kept: one.saved.clone() }));
            }
            one.stage = Stage::Idle;
            one.replaying = !one.replay_key().is_empty();
        }
    }

    pub(crate) fn subscribe(&mut self, subscription: Subscription, notes: &mut Notes) -> Vec<Command> {
        self.subscriptions.push(subscription);
        self.pump(notes)
    }

    /// Subscribes again on a pattern that stands: from where it is, or as if for the first time. Where others replay it is
    /// not the turn of this one.
    pub(crate) fn replace(&mut self, place: usize, resumes: bool, notes: &mut Notes) -> Vec<Command> {
        let is_replaying = |one: &Subscription| one.stage != Stage::Idle && one.replaying;
        if resumes && (!self.leaving.is_empty() || self.subscriptions.iter().any(is_replaying)) {
            return Vec::new();
        }
        let Some(one) = self.subscriptions.get_mut(place).filter(|one| one.is_standing() && !one.replaying) else {
            return Vec::new();
        };
        self.next_id += 1;
        one.id = self.next_id;
        let after = if resumes { one.saved.clone() } else { Saved::new() };
        one.replaying = resumes;
        one.turn = one.replay_key();
        vec![ask(one, after, 0, notes)]
    }

    pub(crate) fn unsubscribe(&mut self, place: usize, notes: &mut Notes) -> Vec<Command> {
        let one = self.subscriptions.remove(place);
        let mut commands = Vec::new();
        if self.connected && one.stage != Stage::Idle {
            notes.push((one.history, Note::Ended { kept: one.saved.clone() }));
            self.next_id += 1;
            let which = Which::Pattern(one.wish.wanted.pattern.clone());
            commands.push(Command::Unsubscribe { id: command_id(self.next_id), which });
            let left = if one.replaying { &mut self.leaving } else { &mut self.left };
            left.push((self.next_id, one));
        }
        commands.extend(self.pump(notes));
        commands
    }

    /// Asks for what is not on the wire yet; those that replay take turns.
    fn pump(&mut self, notes: &mut Notes) -> Vec<Command> {
        if !self.connected {
            return Vec::new();
        }
        let mut replaying = self.subscriptions.iter().filter(|one| one.stage != Stage::Idle && one.replaying);
        let mut turn = replaying.clone().next().map(|one| one.turn.clone());
        // Who has gone on since it asked has messages that would come again for one that joins it.
        let has_moved = replaying.any(|one| one.turn != one.replay_key());
        let mut commands = Vec::new();
        for one in self.subscriptions.iter_mut().filter(|one| one.stage == Stage::Idle) {
            let key = one.replay_key();
            if !key.is_empty() && (has_moved || *turn.get_or_insert_with(|| key.clone()) != key) {
                continue;
            }
            self.next_id += 1;
            (one.stage, one.id) = (Stage::Asked, self.next_id);
            one.replaying = !key.is_empty();
            one.turn = key;
            let last = if one.saved.is_empty() { one.wish.last } else { 0 };
            commands.push(ask(one, one.saved.clone(), last, notes));
        }
        commands
    }

    /// Reads one frame.
    pub(crate) fn read(&mut self, frame: Frame, names: &[String], notes: &mut Notes) -> Vec<Command> {
        match frame {
            Frame::Message(message) => self.message(&message, &names[message.source], notes),
            Frame::Subscribed { id, cursors, resumed, .. } => {
                let Some(one) = self.by_id(id) else { return Vec::new() };
                one.stage = Stage::Standing;
                one.stand(&cursors);
                notes.push((one.history, Note::Subscribed { cursors, resumed }));
            }
            Frame::CaughtUp { id, cursors, .. } => {
                if let Some(one) = self.by_id(id) {
                    one.caught_up(&cursors);
                    notes.push((one.history, Note::CaughtUp { cursors }));
                }
                return self.pump(notes);
            }
            Frame::Unsubscribed(id) => {
                for left in [&mut self.leaving, &mut self.left] {
                    left.retain(|(one, _)| Some(*one) != id);
                }
            }
            Frame::Position { cursors } => {
                for one in self.subscriptions.iter_mut().filter(|one| one.stage == Stage::Standing) {
                    let heard = cursors.0.iter().filter(|(name, _)| one.reads(name)).cloned().collect();
                    one.stand(&JointCursor(heard));
                }
            }
            Frame::Gap { pattern, source, reason, missed } => {
                let stands = |one: &&Subscription| one.is_standing() && one.wish.wanted.pattern.as_str() == pattern;
                if let Some(one) = self.subscriptions.iter().find(stands) {
                    notes.push((one.history, Note::Gap { source: source.to_string(), reason, missed }));
                }
            }
        }
        Vec::new()
    }

    /// The histories of those that are not where they want to be.
    pub(crate) fn waiting(&self) -> Vec<usize> {
        let waiting = self.subscriptions.iter().filter(|one| !one.is_standing() || one.replaying);
        waiting.map(|one| one.history).collect()
    }

    fn by_id(&mut self, id: Option<u64>) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|one| Some(one.id) == id && one.stage != Stage::Idle)
    }

    fn message(&mut self, message: &Message, source: &str, notes: &mut Notes) {
        let hears: Vec<bool> = self.subscriptions.iter().map(|one| one.hears(message, source)).collect();
        let matches = |one: &Subscription| message.is_wanted(&one.wish.wanted);
        // It may as well be for one that is not heard yet, or not any more.
        let asked = self.subscriptions.iter().filter(|one| one.stage == Stage::Asked && one.replaying);
        let mut others = self.leaving.iter().map(|(_, one)| one).chain(asked);
        let alone = !others.any(|one| one.is_about(message, source))
            && self.subscriptions.iter().zip(&hears).filter(|(one, hears)| **hears && matches(one)).count() == 1;
        let is_only = self.might_want(message, source) == 1;
        for (one, hears) in self.subscriptions.iter_mut().zip(hears) {
            let matching = matches(one);
            let early = match (hears, message.replay) {
                (false, _) => None,
                (true, true) if !matching => None,
                (true, true) => one.replayed(message, source, alone),
                (true, false) => one.live(message, source, matching),
            };
            if let Some(early) = early {
                let received = Received { early, alone: is_only, ..received(message) };
                notes.push((one.history, Note::Message(received)));
            }
        }
    }

    /// How many subscriptions there are, or were when it was sent, for which a message may have come.
    fn might_want(&self, message: &Message, source: &str) -> usize {
        let here = self.subscriptions.iter().filter(|one| one.stage != Stage::Idle);
        let left = self.leaving.iter().chain(&self.left).map(|(_, one)| one);
        here.chain(left).filter(|one| one.is_about(message, source)).count()
    }
}

fn received(message: &Message) -> Received {
    let Message { number, replay, redelivered, .. } = *message;
    Received { number, replay, redelivered, ..Received::default() }
}

fn ask(one: &Subscription, after: Saved, last: usize, notes: &mut Notes) -> Command {
    notes.push((one.history, Note::Asked { after: after.clone(), last: last > 0, flow: one.wish.flow }));
    subscribe_command(Some(one.id), &one.wish, JointCursor(after.into_iter().collect()), last)
}

fn command_id(number: u64) -> CommandId {
    Some(RawValue::from_string(number.to_string()).expect("a number is JSON"))
}

fn subscribe_command(id: Option<u64>, wish: &Wish, after: JointCursor, last: usize) -> Command {
    let id = id.and_then(command_id);
    let Wish { wanted: Selector { pattern, filter }, source, flow, .. } = wish.clone();
    Command::Subscribe(Subscribe {
        id,
        filter,
        after,
        last,
        only: source.map(Only::Source),
        flow: Some(flow),
        ..Subscribe::to(pattern)
    })
}

/// A browser's event stream: the patterns of its URL, and the last `id`.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) wishes: Vec<(usize, Wish)>,
    last_id: JointCursor,
    /// The histories of those that have not caught up.
    asked: Vec<usize>,
}

impl Stream {
    pub(crate) fn new(wishes: Vec<(usize, Wish)>) -> Self {
        Self { wishes, last_id: JointCursor::default(), asked: Vec::new() }
    }

    /// As if it had come so far before.
    pub(crate) fn after(self, last_id: Saved) -> Self {
        Self { last_id: JointCursor(last_id.into_iter().collect()), ..self }
    }

    /// The histories of those that have not caught up.
    pub(crate) fn waiting(&self) -> Vec<usize> {
        self.asked.clone()
    }

    fn saved(&self) -> Saved {
        self.last_id.0.iter().cloned().collect()
    }

    pub(crate) fn connect(&mut self, notes: &mut Notes) -> Vec<Command> {
        let after = self.saved();
        let ask = |(history, wish): &(usize, Wish)| {
            notes.push((*history, Note::Asked { after: after.clone(), last: wish.last > 0, flow: wish.flow }));
            subscribe_command(None, wish, self.last_id.clone(), wish.last)
        };
        self.asked = self.wishes.iter().map(|(history, _)| *history).collect();
        self.wishes.iter().map(ask).collect()
    }

    pub(crate) fn disconnect(&mut self, notes: &mut Notes) {
        notes.extend(self.wishes.iter().map(|(history, _)| (*history, Note::Ended { kept: self.saved() })));
    }

    pub(crate) fn read(&mut self, frame: Frame, notes: &mut Notes) {
        let of = |pattern: &str| self.wishes.iter().find(|(_, wish)| wish.wanted.pattern.as_str() == pattern);
        match frame {
            Frame::Message(message) => {
                let heard = self.wishes.iter().filter(|(_, wish)| message.is_wanted(&wish.wanted));
                let about = self.wishes.iter().filter(|(_, wish)| wish.wanted.pattern.matches(&message.topic)).count();
                let received = Received { alone: about == 1, ..received(&message) };
                notes.extend(heard.map(|(history, _)| (*history, Note::Message(received))));
                self.last_id = message.position;
            }
            Frame::Subscribed { pattern, cursors, resumed, .. } => {
                let Some((history, wish)) = of(&pattern) else { return };
                if wish.last == 0 && self.last_id.0.is_empty() {
                    self.asked.retain(|asked| asked != history);
                }
                notes.push((*history, Note::Subscribed { cursors, resumed }));
            }
            Frame::CaughtUp { pattern, cursors, .. } => {
                let note = |(history, _): &(usize, Wish)| (*history, Note::CaughtUp { cursors: cursors.clone() });
                notes.extend(of(&pattern).map(note));
                let caught_up = of(&pattern).map(|(history, _)| *history);
                self.asked.retain(|history| Some(*history) != caught_up);
                self.last_id = cursors;
            }
            Frame::Unsubscribed(_) => {}
            Frame::Position { cursors } => self.last_id = cursors,
            Frame::Gap { pattern, source, reason, missed } => {
                let note = Note::Gap { source: source.to_string(), reason, missed };
                notes.extend(of(&pattern).map(|(history, _)| (*history, note)));
            }
        }
    }
}
