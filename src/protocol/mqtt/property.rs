//! How one property of MQTT 5.0 (§2.2.2) is read and written, and the rules that hold for all of them. Which packet may have
//! which stands in [`super::properties`].

use std::num::{NonZeroU16, NonZeroU32};

use crate::protocol::mqtt::packet::{Qos, Version};
use crate::protocol::mqtt::properties::UserProperties;
use crate::protocol::mqtt::reason::Violation;
use crate::protocol::mqtt::wire::{Binary, Cursor, Text, put_binary, put_text, put_variable_integer};

// The identifiers (MQTT 5.0 §2.2.2.2, table 2-4). All are below 128: one byte is the whole variable byte integer.
pub(super) const PAYLOAD_FORMAT: u8 = 0x01;
pub(super) const MESSAGE_EXPIRY: u8 = 0x02;
pub(super) const CONTENT_TYPE: u8 = 0x03;
pub(super) const RESPONSE_TOPIC: u8 = 0x08;
pub(super) const CORRELATION_DATA: u8 = 0x09;
pub(super) const SUBSCRIPTION_ID: u8 = 0x0b;
pub(super) const SESSION_EXPIRY: u8 = 0x11;
pub(super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(super) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(super) const AUTHENTICATION_DATA: u8 = 0x16;
pub(super) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
pub(super) const WILL_DELAY: u8 = 0x18;
pub(super) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
pub(super) const RESPONSE_INFORMATION: u8 = 0x1a;
pub(super) const SERVER_REFERENCE: u8 = 0x1c;
pub(super) const REASON_STRING: u8 = 0x1f;
pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(super) const TOPIC_ALIAS: u8 = 0x23;
pub(super) const MAXIMUM_QOS: u8 = 0x24;
pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
pub(super) const USER_PROPERTY: u8 = 0x26;
pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub(super) const WILDCARDS_AVAILABLE: u8 = 0x28;
pub(super) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
pub(super) const SHARED_AVAILABLE: u8 = 0x2a;

/// A property that is unknown, or not of this packet: malformed by §2.2.2.2.
pub(super) const NOT_HERE: Violation = Violation::malformed("a property that this packet may not have");

/// A property that may come once and came again.
const TWICE: Violation = Violation::protocol("a property comes twice");

const TOO_LONG: Violation = Violation::malformed("properties are longer than their packet");
const NOT_0_OR_1: Violation = Violation::protocol("a property that may be 0 or 1 is neither");
const ZERO: Violation = Violation::protocol("a property that may not be 0 is");

/// The properties that one packet may have, as they are read.
pub(super) trait ReadProperties: Default {
    /// Reads the value of one property and keeps it.
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation>;

    /// What can be told only when all were read.
    fn check(&self) -> Result<(), Violation> {
        Ok(())
    }
}

/// The properties that one packet may have, as they are written.
pub(super) trait WriteProperties {
    /// Writes all that are there.
    fn write(&self, list: &mut PropertyList);
}

/// Reads a packet's properties with their length (§2.2.2.1); 3.x has none and no length.
pub(super) fn read_set<S: ReadProperties>(version: Version, cursor: &mut Cursor<'_>) -> Result<S, Violation> {
    let mut set = S::default();
    if version < Version::V5 {
        return Ok(set);
    }
    let length = usize::try_from(cursor.variable_integer()?).unwrap_or(usize::MAX);
    let mut properties = Cursor::new(cursor.take(length).map_err(|_| TOO_LONG)?);
    while !properties.is_empty() {
        let identifier = u8::try_from(properties.variable_integer()?).map_err(|_| NOT_HERE)?;
        set.read(identifier, &mut properties)?;
    }
    set.check()?;
    Ok(set)
}

/// Keeps a value that may come once.
pub(super) fn once<T>(kept: &mut Option<T>, value: T) -> Result<(), Violation> {
    if kept.replace(value).is_some() { Err(TWICE) } else { Ok(()) }
}

/// A byte that is 0 or 1.
pub(super) fn flag(cursor: &mut Cursor<'_>) -> Result<bool, Violation> {
    match cursor.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(NOT_0_OR_1),
    }
}

/// A maximum QoS, which is never 2: that is said by its absence (§3.2.2.3.4).
pub(super) fn maximum_qos(cursor: &mut Cursor<'_>) -> Result<Qos, Violation> {
    flag(cursor).map(|one| if one { Qos::AtLeastOnce } else { Qos::AtMostOnce })
}

/// A two byte integer that may not be 0.
pub(super) fn two_bytes_not_zero(cursor: &mut Cursor<'_>) -> Result<NonZeroU16, Violation> {
    NonZeroU16::new(cursor.two_bytes()?).ok_or(ZERO)
}

/// A four byte integer that may not be 0.
pub(super) fn four_bytes_not_zero(cursor: &mut Cursor<'_>) -> Result<NonZeroU32, Violation> {
    NonZeroU32::new(cursor.four_bytes()?).ok_or(ZERO)
}

/// Properties in the making. Each method writes one, if it is there.
#[derive(Debug, Default)]
pub(super) struct PropertyList(Vec<u8>);

impl PropertyList {
    /// A set, written.
    pub(super) fn of(set: &impl WriteProperties) -> Self {
        let mut list = Self::default();
        set.write(&mut list);
        list
    }

    /// The properties alone.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn flag(&mut self, identifier: u8, value: Option<bool>) {
        self.put(identifier, value, |out, value| out.push(u8::from(value)));
    }

    pub(super) fn two_bytes(&mut self, identifier: u8, value: Option<u16>) {
        self.put(identifier, value, |out, value| out.extend_from_slice(&value.to_be_bytes()));
    }

    pub(super) fn four_bytes(&mut self, identifier: u8, value: Option<u32>) {
        self.put(identifier, value, |out, value| out.extend_from_slice(&value.to_be_bytes()));
    }

    pub(super) fn variable_integer(&mut self, identifier: u8, value: Option<u32>) {
        self.put(identifier, value, put_variable_integer);
    }

    pub(super) fn text(&mut self, identifier: u8, value: Option<&Text>) {
        self.put(identifier, value, put_text);
    }

    pub(super) fn binary(&mut self, identifier: u8, value: Option<&Binary>) {
        self.put(identifier, value, put_binary);
    }

    pub(super) fn user(&mut self, properties: &UserProperties) {
        for (name, value) in &properties.0 {
            self.text(USER_PROPERTY, Some(name));
            put_text(&mut self.0, value);
        }
    }

    fn put<T>(&mut self, identifier: u8, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
        if let Some(value) = value {
            self.0.push(identifier);
            write(&mut self.0, value);
        }
    }
}

/// Writes a set with its length, or nothing in 3.x.
pub(super) fn put_set(out: &mut Vec<u8>, version: Version, set: &impl WriteProperties) {
    if version == Version::V5 {
        let list = PropertyList::of(set);
        // One that is too large makes its packet too large, which is told when that is put together.
        put_variable_integer(out, u32::try_from(list.bytes().len()).unwrap_or(u32::MAX));
        out.extend_from_slice(list.bytes());
    }
}
