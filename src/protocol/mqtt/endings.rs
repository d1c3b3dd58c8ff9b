//! How failures and endings are said in reason codes.

use super::reason::ReasonCode;
use crate::model::close::CloseReason;
use crate::protocol::ErrorCode;

/// The reason of the DISCONNECT before a session of 5.0 is closed (MQTT 5.0 §3.14.2.1).
pub(super) const fn of_close(reason: CloseReason) -> ReasonCode {
    match reason {
        CloseReason::Normal => ReasonCode::Success,
        CloseReason::GoingAway | CloseReason::Restart => ReasonCode::ServerShuttingDown,
        CloseReason::ProtocolError => ReasonCode::ProtocolError,
        CloseReason::UnsupportedData | CloseReason::InvalidData => ReasonCode::MalformedPacket,
        CloseReason::Policy => ReasonCode::ImplementationSpecificError,
        CloseReason::TooBig => ReasonCode::PacketTooLarge,
        CloseReason::TryLater => ReasonCode::ServerBusy,
        CloseReason::SlowConsumer => ReasonCode::QuotaExceeded,
        CloseReason::Unauthenticated | CloseReason::Forbidden => ReasonCode::NotAuthorized,
        CloseReason::Timeout => ReasonCode::KeepAliveTimeout,
        CloseReason::TakenOver => ReasonCode::SessionTakenOver,
        CloseReason::RateLimited => ReasonCode::MessageRateTooHigh,
        CloseReason::Internal | CloseReason::Lost => ReasonCode::UnspecifiedError,
    }
}

/// The ending of a session whose client broke a rule.
pub(super) const fn of_violation(reason: ReasonCode) -> CloseReason {
    match reason {
        ReasonCode::PacketTooLarge => CloseReason::TooBig,
        ReasonCode::NotAuthorized => CloseReason::Forbidden,
        ReasonCode::BadUserNameOrPassword => CloseReason::Unauthenticated,
        _ => CloseReason::Policy,
    }
}

/// The reason in a CONNACK where a session cannot begin, before or after the client has shown who it is.
pub(super) const fn of_connect(code: ErrorCode, has_credentials: bool) -> ReasonCode {
    match code {
        ErrorCode::Unauthenticated if has_credentials => ReasonCode::BadUserNameOrPassword,
        ErrorCode::Unauthenticated | ErrorCode::Forbidden => ReasonCode::NotAuthorized,
        ErrorCode::Limit => ReasonCode::QuotaExceeded,
        _ => ReasonCode::ServerUnavailable,
    }
}

/// The reason in a PUBACK, PUBREC or UNSUBACK, and in a SUBACK but for [`of_subscribe`].
pub(super) const fn of_failure(code: ErrorCode) -> ReasonCode {
    match code {
        ErrorCode::Unauthenticated | ErrorCode::Forbidden => ReasonCode::NotAuthorized,
        ErrorCode::Limit => ReasonCode::QuotaExceeded,
        ErrorCode::Unavailable | ErrorCode::Timeout => ReasonCode::UnspecifiedError,
        _ => ReasonCode::ImplementationSpecificError,
    }
}

/// The reason in a SUBACK.
pub(super) const fn of_subscribe(code: ErrorCode) -> ReasonCode {
    match code {
        // Only groups are refused for this: their filter no source can share.
        ErrorCode::Unsupported => ReasonCode::SharedSubscriptionsNotSupported,
        code => of_failure(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::mqtt::packet::PacketKind;

    #[test]
    fn packets_may_carry_what_they_are_given() {
        for reason in CloseReason::ALL {
            assert!(of_close(*reason).kinds().contains(&PacketKind::Disconnect), "{reason:?}");
        }
        for code in ErrorCode::ALL {
            for kind in [PacketKind::Puback, PacketKind::Pubrec, PacketKind::Suback, PacketKind::Unsuback] {
                assert!(of_subscribe(*code).kinds().contains(&PacketKind::Suback), "{code:?}");
                let is_limit = *code == ErrorCode::Limit && kind == PacketKind::Unsuback;
                assert!(is_limit || of_failure(*code).kinds().contains(&kind), "{code:?} in {kind:?}");
            }
            for has_credentials in [false, true] {
                let reason = of_connect(*code, has_credentials);
                assert!(reason.kinds().contains(&PacketKind::Connack), "{code:?}");
                assert!(reason.return_code().is_some(), "3.x has a word for {code:?}");
            }
        }
    }

    #[test]
    fn an_ending_that_a_rule_caused_is_one_that_is_sent() {
        for reason in ReasonCode::ALL {
            assert!(!matches!(of_violation(*reason), CloseReason::Lost | CloseReason::Normal), "{reason:?}");
        }
    }
}
