//! What becomes of the answer to a packet. It travels with the command as the command's id: four numbers.

use std::num::NonZeroU16;

use serde_json::value::to_raw_value;

use super::packet::{PacketId, Version};
use crate::protocol::{CommandId, ErrorCode};

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// A CONNECT, with a user name and password to be looked at, or without.
    Connect {
        /// Whether it has them.
        has_credentials: bool,
    },
    /// A PUBLISH that is not answered.
    Nobody(Version),
    /// A PUBLISH at QoS 1.
    Puback(Version, PacketId),
    /// A PUBLISH at QoS 2.
    Pubrec(Version, PacketId),
    /// A filter of a SUBSCRIBE, by its place.
    Suback(PacketId, u16),
    /// A filter of an UNSUBSCRIBE, by its place.
    Unsuback(PacketId, u16),
    /// A subscription of an earlier connection, by its number: nobody waits for an answer.
    Restored(u16),
    /// A message of a group that the client has acknowledged, or does not get: likewise.
    Settled,
}

impl Answers {
    /// As a command's id.
    pub(super) fn into_id(self) -> CommandId {
        let numbers: (u8, u8, u16, u16) = match self {
            Self::Connect { has_credentials } => (0, u8::from(has_credentials), 0, 0),
            Self::Nobody(version) => (1, version.level(), 0, 0),
            Self::Puback(version, packet) => (2, version.level(), packet.0.get(), 0),
            Self::Pubrec(version, packet) => (3, version.level(), packet.0.get(), 0),
            Self::Suback(packet, place) => (4, 0, packet.0.get(), place),
            Self::Unsuback(packet, place) => (5, 0, packet.0.get(), place),
            Self::Restored(place) => (6, 0, 0, place),
            Self::Settled => (7, 0, 0, 0),
        };
        to_raw_value(&numbers).ok()
    }

    /// From one, if it is one of these.
    pub(super) fn of(id: &CommandId) -> Option<Self> {
        let (kind, detail, packet, place): (u8, u8, u16, u16) = serde_json::from_str(id.as_deref()?.get()).ok()?;
        let version = || Version::ALL.into_iter().find(|version| version.level() == detail);
        let packet = || NonZeroU16::new(packet).map(PacketId);
        Some(match kind {
            0 => Self::Connect { has_credentials: detail == 1 },
            1 => Self::Nobody(version()?),
            2 => Self::Puback(version()?, packet()?),
            3 => Self::Pubrec(version()?, packet()?),
            4 => Self::Suback(packet()?, place),
            5 => Self::Unsuback(packet()?, place),
            6 => Self::Restored(place),
            7 => Self::Settled,
            _ => return None,
        })
    }
}

/// Whether a failure ends its session. 5.0 has a reason code for nearly everything; 3.x has one for a filter only, and where it
/// cannot say that a message was not taken, closing is all that keeps its client from believing so (3.1.1 §3.3.5).
pub(super) fn is_last(id: &CommandId, code: ErrorCode) -> bool {
    match Answers::of(id) {
        Some(Answers::Suback(..) | Answers::Unsuback(..) | Answers::Settled) => false,
        Some(Answers::Puback(version, _) | Answers::Pubrec(version, _)) => version < Version::V5,
        // A message at QoS 0 may be lost; that it never can arrive the client is told.
        Some(Answers::Nobody(_)) => !matches!(code, ErrorCode::Unavailable | ErrorCode::Refused | ErrorCode::Timeout),
        // There is no other word by which the client learns that it has this subscription no more.
        Some(Answers::Connect { .. } | Answers::Restored(_)) | None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_an_answer_is_for_survives_as_an_id() {
        let packet = |number| PacketId(NonZeroU16::new(number).unwrap());
        let mut all = vec![
            Answers::Connect { has_credentials: false },
            Answers::Connect { has_credentials: true },
            Answers::Suback(packet(1), 0),
            Answers::Unsuback(packet(65_535), 1023),
            Answers::Restored(7),
            Answers::Settled,
        ];
        for version in Version::ALL {
            all.extend([
                Answers::Nobody(version),
                Answers::Puback(version, packet(7)),
                Answers::Pubrec(version, packet(8)),
            ]);
        }
        for answers in all {
            assert_eq!(Answers::of(&answers.into_id()), Some(answers));
        }
        assert_eq!(Answers::of(&None), None);
        assert_eq!(Answers::of(&to_raw_value("x").ok()), None);
        assert_eq!(Answers::of(&to_raw_value(&(2, 4, 0, 0)).ok()), None, "there is no packet id 0");
    }

    #[test]
    fn only_what_has_a_reason_code_is_survived() {
        let packet = PacketId(NonZeroU16::MIN);
        for version in Version::ALL {
            let ends = |code| is_last(&Answers::Puback(version, packet).into_id(), code);
            assert_eq!(ends(ErrorCode::Forbidden), version < Version::V5);
            assert!(is_last(&Answers::Nobody(version).into_id(), ErrorCode::Forbidden));
            assert!(!is_last(&Answers::Nobody(version).into_id(), ErrorCode::Unavailable));
        }
        assert!(!is_last(&Answers::Suback(packet, 0).into_id(), ErrorCode::Forbidden));
        assert!(is_last(&None, ErrorCode::BadMessage));
    }
}
