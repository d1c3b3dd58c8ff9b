//! The codec of one session: packets in, commands out; events in, packets out. What it remembers is what the session does
//! not: what the client said of itself, packets that are not answered yet, and what the client has still to acknowledge.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};

use super::answers::Answers;
use super::endings;
use super::keep_alive::KeepAlive;
use super::label::{Publisher, Wanted};
use super::memory::Memory;
use super::message;
use super::packet::{Acknowledgement, Connack, Delivery, Disconnect, Packet, PacketId, Qos, Transmission, Version};
use super::properties::{ConnackProperties, DisconnectProperties, ReasonProperties};
use super::reader::{self, Limits, Reader};
use super::reason::ReasonCode;
use super::shares::Shares;
use super::subscriptions::Subscriptions;
use super::upward::Upward;
use super::window::Window;
use super::wire::Text;
use super::writer;
use crate::model::close::CloseReason;
use crate::model::cursor::JointCursor;
use crate::model::delivery::Delivery as QueueDelivery;
use crate::model::outgoing::Outgoing;
use crate::model::publication::Draft;
use crate::model::topic::Pattern;
use crate::protocol::missing::{Missing, Untold};
use crate::protocol::{
    Codec, CommandId, ErrorCode, Event, Fault, Gap, HandOut, Incoming, Keep, Message, Opening, Outbound, Receiving,
    Said, Stage, Tick,
};

/// Bytes of a CONNECT, which anybody may send: a will's payload and a password are counted by two bytes each.
const CONNECT_BYTES_MAX: usize = 256 << 10;

/// The codec.
#[derive(Debug)]
pub(super) struct Mqtt {
    reader: Reader,
    /// What came after the packet that is being dealt with.
    pending: Bytes,
    /// What the packets that were read say and nobody has taken yet.
    pub(super) said: VecDeque<Said>,
    pub(super) standing: Standing,
    pub(super) client: Client,
    packet_bytes_max: usize,
    /// What the client did wrong, to be told last.
    fault: Option<reader::Fault>,
    pub(super) subscriptions: Subscriptions,
    pub(super) upward: Upward,
    pub(super) window: Window,
    pub(super) shares: Shares,
    untold: Untold<Pattern>,
    keep_alive: KeepAlive,
    /// The session's own name, by which it knows its own messages.
    connection: Option<Arc<str>>,
    /// What is to be published when the connection breaks.
    pub(super) will: Option<Outgoing>,
    /// How long after that.
    pub(super) will_delay: Duration,
    /// How long a session may outlive its connection.
    pub(super) session_expiry_max: Duration,
    /// Whether this is one that an earlier connection left.
    is_restored: bool,
}

/// How far the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// No CONNACK was sent.
    New,
    /// The client was welcomed.
    Connected,
    /// The last packet was sent, or DISCONNECT came: nothing more is said.
    Over,
}

/// What the client said of itself.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) version: Version,
    /// Whether it left its name to the server.
    pub(super) is_unnamed: bool,
    /// The largest packet that it takes.
    pub(super) packet_bytes_max: usize,
    /// Whether it wants reasons in words with every failure.
    pub(super) wants_words: bool,
    /// How long it would have its session outlive the connection.
    pub(super) session_expiry_seconds: Option<u32>,
    /// How long that is.
    pub(super) lifetime: Duration,
}

impl Mqtt {
    pub(super) fn new(opening: &Opening) -> Self {
        let packet_bytes_max = opening.message_bytes_max;
        let limits = Limits { packet_bytes_max, connect_bytes_max: packet_bytes_max.min(CONNECT_BYTES_MAX) };
        Self {
            reader: Reader::of_client(limits),
            pending: Bytes::new(),
            said: VecDeque::new(),
            standing: Standing::New,
            client: Client {
                version: Version::V311,
                is_unnamed: false,
                packet_bytes_max: usize::MAX,
                wants_words: true,
                session_expiry_seconds: None,
                lifetime: Duration::ZERO,
            },
            packet_bytes_max,
            fault: None,
            subscriptions: Subscriptions::default(),
            upward: Upward::default(),
            window: Window::default(),
            shares: Shares::default(),
            untold: Untold::default(),
            keep_alive: KeepAlive::default(),
            connection: None,
            will: None,
            will_delay: Duration::ZERO,
            session_expiry_max: opening.session_expiry_max,
            is_restored: false,
        }
    }

    /// The first thing that bytes say, and how many of them were read for it.
    fn read(&mut self, bytes: &[u8]) -> (Result<Said, Fault>, usize) {
        let mut input = bytes;
        let read = |input: &[u8]| bytes.len() - input.len();
        loop {
            if let Some(said) = self.said.pop_front() {
                return (Ok(said), read(input));
            }
            if self.standing == Standing::Over || self.fault.is_some() {
                return (Ok(Said::Nothing), bytes.len());
            }
            let fault = match self.reader.next(&mut input) {
                Ok(Some(packet)) => self.packet(packet).err(),
                Ok(None) => return (Ok(Said::Nothing), bytes.len()),
                Err(fault) => Some(self.end_with(fault)),
            };
            if let Some(fault) = fault {
                return (Err(fault), bytes.len());
            }
        }
    }

    /// Ends the session because the client broke a rule.
    pub(super) fn refuse(&mut self, reason: ReasonCode, sentence: &'static str) -> Fault {
        self.end_with(reader::Fault { reason, sentence, version: Some(self.client.version) })
    }

    fn end_with(&mut self, fault: reader::Fault) -> Fault {
        self.said.clear();
        self.fault = Some(fault);
        Fault::Close { reason: endings::of_violation(fault.reason), detail: fault.sentence }
    }

    /// How often the client has to be heard.
    pub(super) fn promise(&mut self, keep_alive_seconds: u16) {
        self.keep_alive = KeepAlive::of(keep_alive_seconds);
    }

    /// A packet in the client's version; nothing where that has no such packet.
    pub(super) fn written(&self, packet: &Packet) -> Option<Outbound> {
        writer::encode(packet, self.client.version).ok().map(Outbound::Binary)
    }

    /// Queues an answer that needs nobody's word.
    pub(super) fn answer(&mut self, packet: &Packet) {
        let written = self.written(packet);
        self.said.extend(written.map(Said::Answered));
    }

    /// An answer to a packet, in words too where the client wants them and takes so much.
    pub(super) fn acknowledgement(&self, packet_id: PacketId, reason: ReasonCode, words: &str) -> Acknowledgement {
        Acknowledgement { packet_id, reason, properties: self.words(words) }
    }

    pub(super) fn words(&self, words: &str) -> ReasonProperties {
        let fits = words.len() + usize::from(u8::MAX) < self.client.packet_bytes_max;
        let is_wanted = self.client.wants_words && fits && !words.is_empty();
        ReasonProperties { reason_string: is_wanted.then(|| Text::new(words)).flatten(), ..Default::default() }
    }

    fn welcome(&mut self, connection: &Arc<str>) -> Option<Outbound> {
        self.standing = Standing::Connected;
        self.connection = Some(connection.clone());
        let name = self.client.is_unnamed.then(|| Text::new(&**connection)).flatten();
        let properties = ConnackProperties {
            // [MQTT-3.2.2.3.2]: told where it is not what the client asked for.
            session_expiry_seconds: self.client.session_expiry_seconds.and_then(|asked| {
                let granted = seconds(self.client.lifetime);
                (granted != asked).then_some(granted)
            }),
            receive_maximum: Some(Upward::RECEIVE_MAXIMUM),
            maximum_qos: Some(Qos::AtLeastOnce),
            retain_available: Some(true),
            packet_bytes_max: u32::try_from(self.packet_bytes_max).ok().and_then(std::num::NonZeroU32::new),
            assigned_client_id: name,
            topic_alias_maximum: Some(Upward::ALIASES_MAX),
            wildcards_available: Some(true),
            subscription_ids_available: Some(true),
            shared_available: Some(true),
            ..ConnackProperties::default()
        };
        let connack = Connack { session_present: self.is_restored, reason: ReasonCode::Success, properties };
        let welcome = self.written(&Packet::Connack(Box::new(connack)));
        self.say_again();
        welcome
    }

    /// Sends what an earlier connection was sent and did not acknowledge, as far as the client takes it now.
    pub(super) fn say_again(&mut self) {
        while let Some(packet) = self.window.next_again() {
            // As with those that are sent for the first time.
            if packet.len() <= self.client.packet_bytes_max {
                self.said.push_back(Said::Delivered(Outbound::Binary(packet)));
            } else {
                self.window.settle_last();
            }
        }
    }

    /// A CONNACK that says no, which is the last word.
    fn turn_away(&mut self, reason: ReasonCode, sentence: &str) -> Option<Outbound> {
        self.standing = Standing::Over;
        let properties = ConnackProperties { reason_string: Text::new(sentence), ..Default::default() };
        self.written(&Packet::Connack(Box::new(Connack { session_present: false, reason, properties })))
    }

    fn done(&mut self, id: &CommandId, routed: Option<bool>) -> Option<Outbound> {
        let reason = if routed == Some(false) { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        match Answers::of(id)? {
            Answers::Puback(_, packet) => {
                self.upward.settle(packet);
                self.written(&Packet::Puback(self.acknowledgement(packet, reason, "")))
            }
            Answers::Pubrec(_, packet) => {
                self.upward.confirm(packet);
                self.written(&Packet::Pubrec(self.acknowledgement(packet, reason, "")))
            }
            Answers::Suback(packet, place) => {
                let answer = self.subscriptions.stands(packet, place)?;
                self.written(&Packet::Suback(answer))
            }
            Answers::Unsuback(packet, place) => {
                let answer = self.subscriptions.ended(packet, place, ReasonCode::Success)?;
                self.written(&Packet::Unsuback(answer))
            }
            Answers::Restored(number) => {
                self.subscriptions.goes_on(number);
                None
            }
            Answers::Connect { .. } | Answers::Nobody(_) | Answers::Settled => None,
        }
    }

    fn failed(&mut self, id: &CommandId, code: ErrorCode, sentence: &str) -> Option<Outbound> {
        let reason = endings::of_failure(code);
        match Answers::of(id)? {
            Answers::Connect { has_credentials } => {
                self.turn_away(endings::of_connect(code, has_credentials), sentence)
            }
            Answers::Puback(version, packet) => {
                self.upward.settle(packet);
                let answer = Packet::Puback(self.acknowledgement(packet, reason, sentence));
                // In 3.x it would say that all is well.
                if version < Version::V5 { None } else { self.written(&answer) }
            }
            Answers::Suback(packet, place) => {
                let answer = self.subscriptions.failed((packet, place), endings::of_subscribe(code))?;
                let properties = self.words(sentence);
                self.written(&Packet::Suback(super::packet::SubscriptionAcknowledgement { properties, ..answer }))
            }
            Answers::Unsuback(packet, place) => {
                let not_found = code == ErrorCode::NotFound;
                let reason = if not_found { ReasonCode::NoSubscriptionExisted } else { ReasonCode::UnspecifiedError };
                let answer = self.subscriptions.ended(packet, place, reason)?;
                self.written(&Packet::Unsuback(answer))
            }
            Answers::Restored(number) => {
                self.subscriptions.lose(number);
                None
            }
            Answers::Pubrec(..) | Answers::Nobody(_) | Answers::Settled => None,
        }
    }

    /// Kept for the next message that the subscription gets, of which there are only so many; 3.x has no word for it.
    fn missed(&mut self, gap: &Gap) {
        if self.client.version >= Version::V5 {
            self.untold.note(&gap.pattern, gap);
        }
    }

    /// What was missed of a subscription that has ended is of no interest.
    pub(super) fn forget(&mut self, pattern: &Pattern) {
        self.untold.forget(pattern);
    }

    /// Takes what was missed before this message.
    fn take_missing(&mut self, message: &Message<'_>) -> Option<Missing> {
        let topic = &message.publication.draft.topic;
        self.untold.take_first(|pattern| pattern.matches(topic))
    }

    /// A PUBLISH for this client alone, with its packet id at QoS 1. Nothing where the client cannot be sent it: that counts as
    /// if it had taken it [MQTT-3.1.2-25].
    pub(super) fn written_for(
        &mut self,
        draft: (&Draft, Stage),
        wanted: &Wanted,
        missing: Option<&Missing>,
    ) -> Option<(Outbound, Option<PacketId>)> {
        let packet_id = (wanted.qos > Qos::AtMostOnce).then(|| self.window.take());
        let delivery = packet_id.map_or(Delivery::AtMostOnce, |packet_id| {
            Delivery::AtLeastOnce(Transmission { packet_id, duplicate: false })
        });
        let outbound = message::of_draft(draft, wanted, delivery, missing);
        let outbound = outbound.filter(|outbound| outbound.bytes().len() <= self.client.packet_bytes_max);
        if let (None, Some(packet_id)) = (&outbound, packet_id) {
            self.window.settle(packet_id);
        }
        outbound.map(|outbound| (outbound, packet_id))
    }

    fn publisher(&self, message: &Message<'_>) -> Publisher {
        let origin = message.publication.draft.attributes.origin.as_ref();
        let is_own = origin.is_some() && origin == self.connection.as_ref();
        if is_own { Publisher::Own } else { Publisher::Other }
    }
}

impl Codec for Mqtt {
    fn decode(&mut self, message: Incoming<'_>) -> Result<Said, Fault> {
        self.keep_alive.hear();
        let bytes = match message {
            Incoming::Binary(bytes) => bytes,
            // [MQTT-6.0.0-1]
            Incoming::Text(_) => {
                let reason = ReasonCode::MalformedPacket;
                return Err(self.refuse(reason, "MQTT travels in binary frames: this was one of text"));
            }
        };
        let (said, read) = self.read(bytes);
        self.pending = bytes.get(read..).map(Bytes::copy_from_slice).unwrap_or_default();
        said
    }

    fn more(&mut self) -> Result<Said, Fault> {
        let mut pending = std::mem::take(&mut self.pending);
        let (said, read) = self.read(&pending);
        pending.advance(read);
        // Read whole, it would still hold the memory of its message.
        self.pending = if pending.is_empty() { Bytes::new() } else { pending };
        said
    }

    fn encode(&mut self, event: &Event) -> Option<Outbound> {
        match event {
            Event::Welcome { connection, .. } => self.welcome(connection),
            Event::Subscribed { id, .. } => self.done(id, None),
            Event::Done { id, routed } => self.done(id, *routed),
            Event::Error { id, code, message } => self.failed(id, *code, message),
            Event::Gap(gap) => {
                self.missed(gap);
                None
            }
            Event::Revoked { tags } => {
                self.shares.revoke(tags);
                None
            }
            // For these the protocol has no word.
            Event::Delivered(_)
            | Event::CaughtUp { .. }
            | Event::Position { .. }
            | Event::Outage { .. }
            | Event::Restored { .. }
            | Event::Presence { .. }
            | Event::Joined { .. }
            | Event::Left { .. }
            | Event::Goodbye { .. }
            | Event::Result { .. }
            | Event::Pong { .. } => None,
        }
    }

    fn farewell(&mut self, reason: CloseReason, detail: &str) -> Option<Outbound> {
        let standing = std::mem::replace(&mut self.standing, Standing::Over);
        let fault = self.fault.take();
        match (standing, fault) {
            (Standing::Over, _) => None,
            (Standing::New, Some(fault)) => {
                self.client.version = fault.version?;
                self.written(&fault.connack())
            }
            (Standing::Connected, Some(fault)) => self.written(&fault.disconnect()),
            // Nobody asked for a session.
            (Standing::New, None) => None,
            (Standing::Connected, None) if reason == CloseReason::Normal => None,
            (Standing::Connected, None) => {
                let properties = DisconnectProperties { reason_string: Text::new(detail), ..Default::default() };
                let reason = endings::of_close(reason);
                self.written(&Packet::Disconnect(Disconnect { reason, properties }))
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Tick {
        let is_over = self.keep_alive.is_over(now);
        let sentence = "nothing came for one and a half times the keep alive: send PINGREQ";
        Tick { send: None, end: is_over.then_some((CloseReason::Timeout, sentence)), next: self.keep_alive.next() }
    }

    fn excuse(&mut self) {
        self.keep_alive.hear();
    }

    fn receiving(&self) -> Receiving {
        let is_plain = self.untold.is_empty() && self.client.packet_bytes_max == usize::MAX;
        match self.subscriptions.needs() {
            needs if needs.acknowledgements => Receiving::Own(self.window.room()),
            needs if needs.publishers || !is_plain => Receiving::Own(usize::MAX),
            _ => Receiving::Shared,
        }
    }

    fn message(&mut self, message: Message<'_>) -> Option<Outbound> {
        let wanted = Wanted::of(message.labels, &message.publication.draft, self.publisher(&message))?;
        let missing = self.take_missing(&message);
        let place = (&message.publication.draft, message.stage);
        let (outbound, packet_id) = self.written_for(place, &wanted, missing.as_ref())?;
        if packet_id.is_some() && !self.client.lifetime.is_zero() {
            self.window.keep(outbound.bytes());
        }
        Some(outbound)
    }

    fn hand_out(&mut self, delivery: Box<QueueDelivery>) -> HandOut {
        self.take_share(*delivery)
    }

    fn retains(&self) -> bool {
        true
    }

    fn keep(&mut self) -> Option<Keep> {
        let lifetime = self.client.lifetime;
        if lifetime.is_zero() {
            return None;
        }
        let memory = Memory {
            version: self.client.version,
            standing: self.subscriptions.standing().clone(),
            unacknowledged: std::mem::take(&mut self.window).into_unacknowledged(),
            unreleased: self.upward.confirmed(),
        };
        Some(Keep { memory, lifetime, will_delay: self.will_delay })
    }

    fn restore(&mut self, memory: Memory, place: &dyn Fn(&Pattern) -> JointCursor) -> bool {
        if memory.version != self.client.version {
            return false;
        }
        self.is_restored = true;
        self.window.send_again(memory.unacknowledged);
        self.upward.restore(memory.unreleased);
        self.subscriptions.restore(memory.standing, place);
        self.go_on();
        true
    }

    fn testament(&mut self) -> Option<Outgoing> {
        // Who was not let in leaves nothing.
        self.connection.as_ref()?;
        self.will.take()
    }
}

/// As MQTT counts.
pub(super) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
