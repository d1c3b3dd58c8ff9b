//! CONNECT (MQTT 5.0 §3.1, 3.1.1 §3.1, 3.1 §3.1): the one packet that is read before the version is known.

use crate::protocol::mqtt::packet::{Connect, Qos, Secret, Version, Will};
use crate::protocol::mqtt::property::read_set;
use crate::protocol::mqtt::reason::{ReasonCode, Violation};
use crate::protocol::mqtt::topic::is_topic_name;
use crate::protocol::mqtt::wire::{Cursor, Text};

/// Bytes of a client id. Every version lets a server have its own bound above 23; 3.1 (§3.1) would refuse what is longer than
/// that, which nobody does any more.
pub const CLIENT_ID_BYTES_MAX: usize = 255;

// Connect Flags (MQTT 5.0 §3.1.2.3).
const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

const NOT_MQTT: Violation =
    Violation { reason: ReasonCode::UnsupportedProtocolVersion, sentence: "the protocol name is not MQTT or MQIsdp" };
const OTHER_LEVEL: Violation = Violation {
    reason: ReasonCode::UnsupportedProtocolVersion,
    sentence: "this server speaks MQTT 3.1, 3.1.1 and 5.0 (protocol levels 3, 4 and 5)",
};
const RESERVED_FLAG: Violation = Violation::malformed("the reserved flag of CONNECT is set");
const WILL_QOS_3: Violation = Violation::malformed("the will has QoS 3");
const NO_WILL: Violation = Violation::malformed("CONNECT has QoS or retain of a will, and no will");
const WILL_TOPIC: Violation =
    Violation { reason: ReasonCode::TopicNameInvalid, sentence: "the will's topic may not hold wildcards or be empty" };
const PASSWORD_ALONE: Violation = Violation::malformed("a password without a user name needs MQTT 5.0");
const NO_CLIENT_ID: Violation = Violation {
    reason: ReasonCode::ClientIdentifierNotValid,
    sentence: "an empty client id needs MQTT 5.0, or 3.1.1 with a clean session",
};
const LONG_CLIENT_ID: Violation =
    Violation { reason: ReasonCode::ClientIdentifierNotValid, sentence: "a client id may have at most 255 bytes" };

/// What is wrong with a CONNECT, and the version in which that can be answered; without one it is not answered at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) violation: Violation,
    pub(super) version: Option<Version>,
}

/// A CONNECT, from the body of its packet.
pub(super) fn read(body: &[u8]) -> Result<Connect, Refusal> {
    let mut cursor = Cursor::new(body);
    let version = version(&mut cursor)?;
    let answered = |violation| Refusal { violation, version: Some(version) };
    let connect = after_version(version, &mut cursor).map_err(answered)?;
    cursor.finish().map_err(answered)?;
    Ok(connect)
}

/// The version. Whoever names another level is answered in the words that it will know: those of 3.1.1 [MQTT-3.1.2-2 of 3.1.1]
/// below 5, and above 0x80, where Mosquitto's bridges put the level that they mean; else those of 5.0.
fn version(cursor: &mut Cursor<'_>) -> Result<Version, Refusal> {
    let unanswered = |violation| Refusal { violation, version: None };
    let name = cursor.text().map_err(unanswered)?;
    if !Version::ALL.iter().any(|version| version.protocol_name() == name.as_str()) {
        return Err(unanswered(NOT_MQTT));
    }
    let level = cursor.byte().map_err(unanswered)?;
    let version = Version::ALL.into_iter().find(|it| it.protocol_name() == name.as_str() && it.level() == level);
    let spoken = if (5..0x80).contains(&level) { Version::V5 } else { Version::V311 };
    version.ok_or(Refusal { violation: OTHER_LEVEL, version: Some(spoken) })
}

fn after_version(version: Version, cursor: &mut Cursor<'_>) -> Result<Connect, Violation> {
    let flags = cursor.byte()?;
    check_flags(version, flags)?;
    let keep_alive_seconds = cursor.two_bytes()?;
    let properties = read_set(version, cursor)?;
    let client_id = cursor.text()?;
    let clean_start = flags & CLEAN_START != 0;
    check_client_id(version, &client_id, clean_start)?;
    let will = if flags & WILL != 0 { Some(will(version, flags, cursor)?) } else { None };
    // 3.1 (§3.1) lets a packet end before a user name or password that its flags announce.
    let announced = |flag, cursor: &Cursor<'_>| flags & flag != 0 && !(version == Version::V31 && cursor.is_empty());
    let user_name = if announced(USER_NAME, cursor) { Some(cursor.text()?) } else { None };
    let password = if announced(PASSWORD, cursor) { Some(Secret(cursor.binary()?)) } else { None };
    Ok(Connect { version, client_id, clean_start, keep_alive_seconds, will, user_name, password, properties })
}

/// 3.1 calls the reserved flag unused, and says nothing of the flags of a will that there is none of.
fn check_flags(version: Version, flags: u8) -> Result<(), Violation> {
    let has_will = flags & WILL != 0;
    if version > Version::V31 && flags & RESERVED != 0 {
        return Err(RESERVED_FLAG);
    }
    if version > Version::V31 && !has_will && flags & (WILL_RETAIN | 0b11 << WILL_QOS_SHIFT) != 0 {
        return Err(NO_WILL);
    }
    if has_will && will_qos(flags).is_none() {
        return Err(WILL_QOS_3);
    }
    if version < Version::V5 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        return Err(PASSWORD_ALONE);
    }
    Ok(())
}

fn will_qos(flags: u8) -> Option<Qos> {
    Qos::from_number(flags >> WILL_QOS_SHIFT & 0b11)
}

/// MQTT 5.0 §3.1.3.1: an empty one is a wish for one; 3.1.1 [MQTT-3.1.3-7, 3.1.3-8]: only with a clean session; 3.1 (§3.1): never.
fn check_client_id(version: Version, client_id: &Text, clean_start: bool) -> Result<(), Violation> {
    let may_be_empty = match version {
        Version::V31 => false,
        Version::V311 => clean_start,
        Version::V5 => true,
    };
    if client_id.is_empty() && !may_be_empty {
        return Err(NO_CLIENT_ID);
    }
    if client_id.len() > CLIENT_ID_BYTES_MAX { Err(LONG_CLIENT_ID) } else { Ok(()) }
}

fn will(version: Version, flags: u8, cursor: &mut Cursor<'_>) -> Result<Will, Violation> {
    let properties = read_set(version, cursor)?;
    let topic = cursor.text()?;
    if !is_topic_name(&topic) {
        return Err(WILL_TOPIC);
    }
    let qos = will_qos(flags).ok_or(WILL_QOS_3)?;
    Ok(Will { topic, payload: cursor.binary()?, qos, retain: flags & WILL_RETAIN != 0, properties })
}

/// The flags of a CONNECT that is to be written.
pub(super) fn flags(connect: &Connect) -> u8 {
    let set = |flag, is_set: bool| if is_set { flag } else { 0 };
    let will = connect
        .will
        .as_ref()
        .map_or(0, |will| WILL | (will.qos as u8) << WILL_QOS_SHIFT | set(WILL_RETAIN, will.retain));
    will | set(CLEAN_START, connect.clean_start)
        | set(USER_NAME, connect.user_name.is_some())
        | set(PASSWORD, connect.password.is_some())
}
