//! A turn: what one shard pushed to whom since it last flushed, kept so that the same bytes are built once.
//!
//! The envelopes that a subscriber was pushed in a turn form a sequence, and sequences share their beginnings: they are a
//! tree. A push moves the subscriber from its node to that node's child for the current envelope. Subscribers that end at
//! the same node were pushed exactly the same, so for each encoding their bytes are joined once and written to each with
//! one call. A subscriber costs four bytes here and a push costs two reads and a write, whatever the payload.
//!
//! The key is what was pushed, never what was subscribed. A turn knows no protocol: an [`Encoding`] is a number, and
//! whoever flushes brings the [`Encode`]. Who is not sent just what others are, takes its sequence message by message.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use foldhash::fast::RandomState;

use crate::hub::index::SubscriberId;
use crate::model::publication::{Publication, SourceId};

/// Which bytes a subscriber gets for a publication: a subprotocol, compressed or not, and what it calls its subscription
/// where that is written into each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Encoding(pub u64);

/// Makes the bytes of a publication, ready for the wire.
pub trait Encode {
    /// The whole frame, or empty bytes when this encoding cannot carry the publication.
    fn encode(&mut self, encoding: Encoding, publication: &Publication) -> Bytes;
}

/// A publication with its ready frames, one for each encoding that anybody needed.
#[derive(Debug)]
struct Envelope {
    publication: Arc<Publication>,
    frames: ByEncoding<Bytes>,
}

/// How many encodings are looked through one by one. Most turns have one or two; but strangers choose the names of their
/// subscriptions, and of those there may be as many as connections.
const FEW: usize = 8;

/// Bytes by their encoding.
#[derive(Debug)]
struct ByEncoding<T> {
    few: Vec<(Encoding, T)>,
    many: HashMap<Encoding, T, RandomState>,
}

/// Names an envelope within its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeId(u32);

/// One sequence of envelopes: its last one, and the sequence before it.
#[derive(Debug)]
struct Node {
    parent: u32,
    envelope: u32,
    /// The sequence that continues this one with the envelope being pushed; valid while it is of that envelope.
    child: u32,
    /// Envelopes in the sequence.
    length: u32,
    /// Subscribers that ended here; counted when the turn closes.
    readers: u32,
    /// The sequence's bytes by encoding, built for the first of several readers.
    joined: ByEncoding<Joined>,
}

/// The bytes of a sequence, and of how many messages they are: an encoding may leave some out.
#[derive(Debug, Clone)]
struct Joined {
    bytes: Bytes,
    messages: u64,
}

/// What a subscriber gets at the end of a turn.
#[derive(Debug, Clone)]
pub enum Delivery<'a> {
    /// One piece, shared with everybody who was pushed the same.
    Joined(Bytes),
    /// A frame each; nobody else was pushed just these.
    Frames(&'a [Bytes]),
}

/// Joined bytes that one turn may build; beyond it sequences are written frame by frame.
const JOINED_BYTES_MAX: usize = 32 << 20;

const ROOT: u32 = 0;

/// The pushes of one turn.
#[derive(Debug)]
pub struct Turn {
    envelopes: Vec<Envelope>,
    nodes: Vec<Node>,
    /// The first node of the envelope being pushed: a subscriber at or beyond it already has that envelope.
    first_node: u32,
    /// Where each subscriber is in the tree, by its id.
    places: Vec<u32>,
    /// Subscribers that left the root, in the order in which they did.
    dirty: Vec<SubscriberId>,
    joined_bytes: usize,
    scratch: Vec<Bytes>,
    /// Who is not pushed the open envelope, because it comes to them by the log.
    withheld: HashSet<SubscriberId, RandomState>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            envelopes: Vec::new(),
            nodes: vec![Node::new(ROOT, 0, 0)],
            first_node: 1,
            places: Vec::new(),
            dirty: Vec::new(),
            joined_bytes: 0,
            scratch: Vec::new(),
            withheld: HashSet::default(),
        }
    }
}

impl Node {
    fn new(parent: u32, envelope: u32, length: u32) -> Self {
        Self { parent, envelope, child: ROOT, length, readers: 0, joined: ByEncoding::default() }
    }
}

impl<T> Default for ByEncoding<T> {
    fn default() -> Self {
        Self { few: Vec::new(), many: HashMap::default() }
    }
}

impl<T> ByEncoding<T> {
    fn find(&self, encoding: Encoding) -> Option<&T> {
        match self.few.iter().find(|(known, _)| *known == encoding) {
            Some((_, made)) => Some(made),
            None if self.many.is_empty() => None,
            None => self.many.get(&encoding),
        }
    }

    fn insert(&mut self, encoding: Encoding, made: T) {
        if self.few.len() < FEW {
            self.few.push((encoding, made));
        } else {
            self.many.insert(encoding, made);
        }
    }
}

impl Turn {
    /// Makes room for a subscriber. Ids are dense, so this is an index.
    pub fn admit(&mut self, subscriber: SubscriberId) {
        let needed = subscriber.index() + 1;
        if self.places.len() < needed {
            self.places.resize(needed, ROOT);
        }
    }

    /// Opens the next envelope; pushes go to it from now on.
    pub fn open(&mut self, publication: Arc<Publication>) {
        self.envelopes.push(Envelope { publication, frames: ByEncoding::default() });
        self.first_node = self.nodes.len() as u32;
        self.withheld.clear();
    }

    /// The open envelope comes to this subscriber in another way, whoever wants it pushed.
    pub fn withhold(&mut self, subscriber: SubscriberId) {
        self.withheld.insert(subscriber);
    }

    /// Pushes the open envelope to each subscriber that has not got it yet.
    pub fn push(&mut self, subscribers: &[SubscriberId]) {
        if self.withheld.is_empty() {
            return self.push_all(subscribers);
        }
        let withheld = std::mem::take(&mut self.withheld);
        subscribers.split(|subscriber| withheld.contains(subscriber)).for_each(|others| self.push_all(others));
        self.withheld = withheld;
    }

    fn push_all(&mut self, subscribers: &[SubscriberId]) {
        let envelope = (self.envelopes.len() as u32).wrapping_sub(1);
        for subscriber in subscribers {
            let Some(place) = self.places.get_mut(subscriber.index()) else { continue };
            let from = *place;
            if from >= self.first_node {
                continue;
            }
            let mut child = self.nodes[from as usize].child;
            if child < self.first_node {
                child = self.nodes.len() as u32;
                let length = self.nodes[from as usize].length + 1;
                self.nodes.push(Node::new(from, envelope, length));
                self.nodes[from as usize].child = child;
            }
            if from == ROOT {
                self.dirty.push(*subscriber);
            }
            *place = child;
        }
    }

    /// Likewise, but one of them does not want it.
    pub fn push_to_others(&mut self, subscribers: &[SubscriberId], except: SubscriberId) {
        subscribers.split(|subscriber| *subscriber == except).for_each(|others| self.push(others));
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Closes the turn: from now on [`Self::delivery`] says what each of the returned subscribers gets.
    pub fn close(&mut self) -> Vec<SubscriberId> {
        let dirty = std::mem::take(&mut self.dirty);
        for subscriber in &dirty {
            self.nodes[self.places[subscriber.index()] as usize].readers += 1;
        }
        dirty
    }

    /// What a subscriber gets in its encoding, and how many messages that is. Its place goes back to the root.
    pub fn delivery(
        &mut self,
        subscriber: SubscriberId,
        encoding: Encoding,
        encode: &mut impl Encode,
    ) -> (Delivery<'_>, u64) {
        let place = std::mem::replace(&mut self.places[subscriber.index()], ROOT) as usize;
        if let Some(Joined { bytes, messages }) = self.nodes[place].joined.find(encoding) {
            return (Delivery::Joined(bytes.clone()), *messages);
        }
        self.collect(place, encoding, encode);
        let messages = self.scratch.len() as u64;
        let bytes: usize = self.scratch.iter().map(Bytes::len).sum();
        let worth_joining = self.nodes[place].readers > 1 && self.joined_bytes + bytes <= JOINED_BYTES_MAX;
        if self.scratch.len() == 1 || !worth_joining {
            return (Delivery::Frames(&self.scratch), messages);
        }
        let mut joined = BytesMut::with_capacity(bytes);
        self.scratch.drain(..).for_each(|frame| joined.extend_from_slice(&frame));
        self.joined_bytes += bytes;
        let joined = joined.freeze();
        self.nodes[place].joined.insert(encoding, Joined { bytes: joined.clone(), messages });
        (Delivery::Joined(joined), messages)
    }

    /// The sequence of a subscriber that is not sent just what others are, in order. Its place goes back to the root.
    pub fn sequence(&mut self, subscriber: SubscriberId) -> Vec<EnvelopeId> {
        let place = std::mem::replace(&mut self.places[subscriber.index()], ROOT) as usize;
        let mut sequence = Vec::with_capacity(self.nodes[place].length as usize);
        let mut node = place;
        while node != ROOT as usize {
            sequence.push(EnvelopeId(self.nodes[node].envelope));
            node = self.nodes[node].parent as usize;
        }
        sequence.reverse();
        sequence
    }

    /// The publication of an envelope of this turn.
    pub fn publication(&self, envelope: EnvelopeId) -> &Arc<Publication> {
        &self.envelopes[envelope.0 as usize].publication
    }

    /// Its frame, made once for all who need it in this encoding.
    pub fn frame(&mut self, envelope: EnvelopeId, encoding: Encoding, encode: &mut impl Encode) -> Bytes {
        self.envelopes[envelope.0 as usize].frame(encoding, encode)
    }

    /// Forgets a subscriber that left between [`Self::close`] and its delivery.
    pub fn forget(&mut self, subscriber: SubscriberId) {
        if let Some(place) = self.places.get_mut(subscriber.index()) {
            *place = ROOT;
        }
    }

    /// The publications of the turn, for whoever measures how late they are.
    pub fn publications(&self) -> impl Iterator<Item = &Arc<Publication>> {
        self.envelopes.iter().map(|envelope| &envelope.publication)
    }

    /// The source of the turn's publications, and the offset before the first of them.
    pub fn origin(&self) -> Option<(SourceId, u64)> {
        let first = &self.envelopes.first()?.publication;
        Some((first.source.id, first.offset - 1))
    }

    /// Ends the turn. Memory is kept for the next one.
    pub fn end(&mut self) {
        self.envelopes.clear();
        self.nodes.truncate(1);
        self.nodes[0].child = ROOT;
        self.first_node = 1;
        self.joined_bytes = 0;
    }

    /// Puts the frames of a node's sequence into the scratch, in order.
    fn collect(&mut self, place: usize, encoding: Encoding, encode: &mut impl Encode) {
        self.scratch.clear();
        let mut node = place;
        while node != ROOT as usize {
            let Node { parent, envelope, .. } = self.nodes[node];
            let frame = self.envelopes[envelope as usize].frame(encoding, encode);
            if !frame.is_empty() {
                self.scratch.push(frame);
            }
            node = parent as usize;
        }
        self.scratch.reverse();
    }
}

impl Envelope {
    fn frame(&mut self, encoding: Encoding, encode: &mut impl Encode) -> Bytes {
        if let Some(frame) = self.frames.find(encoding) {
            return frame.clone();
        }
        let frame = encode.encode(encoding, &self.publication);
        self.frames.insert(encoding, frame.clone());
        frame
    }
}

#[cfg(test)]
mod tests;
