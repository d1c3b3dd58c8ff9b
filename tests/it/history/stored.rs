//! A stream as RabbitMQ keeps it: messages with offsets, of which the oldest are cut off in time, under a name that may come
//! to be another stream's. What was kept under it before is known here too, for whoever asks what a cursor stood for.

use passerelle::model::stream;

use crate::history::record::{Moment, Number, Span};

/// Scatters marks, so that they follow no order.
const SCATTER: u64 = 7_919;

/// What is kept at one offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) position: u64,
    /// Nothing where it is no message that a node could make anything of.
    pub(crate) number: Option<Number>,
    pub(crate) at: Moment,
}

impl Entry {
    /// Where somebody stands who has come so far.
    pub(crate) fn until(self) -> u64 {
        if self.number.is_some() { self.position } else { stream::before(stream::following(self.position)) }
    }
}

/// One of the streams that had the name.
#[derive(Debug)]
struct Life {
    made_at: Moment,
    entries: Vec<Entry>,
    /// The first offset that is still there.
    first: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The last one is the present one.
    lives: Vec<Life>,
    /// What was ever kept.
    count: u64,
}

impl Stored {
    pub(crate) fn new(made_at: Moment) -> Self {
        let life = Life { made_at, entries: Vec::new(), first: 0 };
        Self { lives: vec![life], count: 0 }
    }

    fn life(&self) -> &Life {
        self.lives.last().expect("there is always one")
    }

    fn life_mut(&mut self) -> &mut Life {
        self.lives.last_mut().expect("there is always one")
    }

    pub(crate) fn push(&mut self, number: Option<Number>, at: Moment) {
        self.count += 1;
        let hash = self.count * SCATTER;
        let entries = &mut self.life_mut().entries;
        let position = stream::position(entries.len() as u64, hash).expect("there are not so many");
        entries.push(Entry { position, number, at });
    }

    /// The first offset that is still there, if anything is.
    pub(crate) fn first(&self) -> u64 {
        self.life().first
    }

    /// The offset that comes next.
    pub(crate) fn end(&self) -> u64 {
        self.life().entries.len() as u64
    }

    /// What is there at an offset, or else after it, with its offset.
    pub(crate) fn from(&self, offset: u64) -> Option<(u64, Entry)> {
        let offset = offset.max(self.first());
        self.life().entries.get(usize::try_from(offset).ok()?).map(|entry| (offset, *entry))
    }

    /// Cuts off what is before an offset, and says what that was.
    pub(crate) fn cut(&mut self, before: u64) -> Vec<Entry> {
        let life = self.life_mut();
        let cut = life.entries[life.first as usize..before as usize].to_vec();
        life.first = before;
        cut
    }

    /// Another stream takes the name. Says what is gone with the one before.
    pub(crate) fn remake(&mut self, made_at: Moment) -> Vec<Entry> {
        let gone = self.cut(self.end());
        self.lives.push(Life { made_at, entries: Vec::new(), first: 0 });
        gone
    }

    /// What a position stands for: everything up to that moment. A place before a message does not say of which stream it is.
    pub(crate) fn moment(&self, position: u64) -> Option<Span> {
        if !stream::is_position(position) {
            return None;
        }
        let entry = |life: &Life, offset: u64| life.entries.get(offset as usize).copied();
        if let Some(offset) = stream::named(position) {
            let here = self.lives.iter().filter_map(|life| entry(life, offset));
            return here.filter(|entry| entry.position == position).map(|entry| Span::at(entry.at)).next();
        }
        let before = |life: &Life| match stream::following(position).checked_sub(1) {
            Some(offset) => entry(life, offset).map(|entry| entry.at),
            None => Some(life.made_at),
        };
        let moments: Vec<Moment> = self.lives.iter().filter_map(before).collect();
        moments.iter().min().zip(moments.iter().max()).map(|(from, to)| Span { from: *from, to: *to })
    }
}
