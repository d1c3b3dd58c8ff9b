//! The URIs by which WAMP names why something failed or ended (sections "Basic Profile URIs" and "Advanced Profile URIs"),
//! and which of them each of our own error codes is. For what WAMP has no URI there are some of ours.

use crate::protocol::ErrorCode;
use crate::protocol::wamp::kind::Kind;

/// A URI broke the rules.
pub const INVALID_URI: &str = "wamp.error.invalid_uri";
/// Nobody is registered for the procedure.
pub const NO_SUCH_PROCEDURE: &str = "wamp.error.no_such_procedure";
/// Somebody is already.
pub const PROCEDURE_ALREADY_EXISTS: &str = "wamp.error.procedure_already_exists";
/// There is no such registration.
pub const NO_SUCH_REGISTRATION: &str = "wamp.error.no_such_registration";
/// There is no such subscription.
pub const NO_SUCH_SUBSCRIPTION: &str = "wamp.error.no_such_subscription";
/// An argument or option has a value that cannot be.
pub const INVALID_ARGUMENT: &str = "wamp.error.invalid_argument";
/// A call was canceled.
pub const CANCELED: &str = "wamp.error.canceled";
/// A message is too big.
pub const PAYLOAD_SIZE_EXCEEDED: &str = "wamp.error.payload_size_exceeded";
/// A message that must not be, or not now: ends the session.
pub const PROTOCOL_VIOLATION: &str = "wamp.error.protocol_violation";
/// Not allowed.
pub const NOT_AUTHORIZED: &str = "wamp.error.not_authorized";
/// There is no such realm.
pub const NO_SUCH_REALM: &str = "wamp.error.no_such_realm";
/// No method of authentication that the client offers is spoken here.
pub const NO_MATCHING_AUTH_METHOD: &str = "wamp.error.no_matching_auth_method";
/// The secret or token is wrong.
pub const AUTHENTICATION_DENIED: &str = "wamp.error.authentication_denied";
/// First say who you are.
pub const AUTHENTICATION_REQUIRED: &str = "wamp.error.authentication_required";
/// Nobody answered in time.
pub const TIMEOUT: &str = "wamp.error.timeout";
/// An option that this router does not allow.
pub const OPTION_NOT_ALLOWED: &str = "wamp.error.option_not_allowed";
/// The broker is away.
pub const NETWORK_FAILURE: &str = "wamp.error.network_failure";
/// Asks for a feature that nobody announced.
pub const FEATURE_NOT_SUPPORTED: &str = "wamp.error.feature_not_supported";

/// The router shuts down.
pub const SYSTEM_SHUTDOWN: &str = "wamp.close.system_shutdown";
/// The peer leaves.
pub const CLOSE_REALM: &str = "wamp.close.close_realm";
/// The answer to a `GOODBYE`.
pub const GOODBYE_AND_OUT: &str = "wamp.close.goodbye_and_out";
/// The router ends the session by force.
pub const KILLED: &str = "wamp.close.killed";

/// No queue got the message.
pub const UNROUTABLE: &str = "passerelle.error.unroutable";
/// The broker refused.
pub const REFUSED: &str = "passerelle.error.refused";
/// A limit of this server.
pub const LIMIT: &str = "passerelle.error.limit";
/// This client does not hold such a delivery.
pub const STALE_TAG: &str = "passerelle.error.stale_tag";
/// There is no such source or queue.
pub const NOT_FOUND: &str = "passerelle.error.not_found";

/// The URI of an error code, in the answer to a message of this type.
pub const fn reason(code: ErrorCode, asked: Kind) -> &'static str {
    match (code, asked) {
        (ErrorCode::BadMessage | ErrorCode::UnknownOp, _) => PROTOCOL_VIOLATION,
        (ErrorCode::BadField, _) => INVALID_ARGUMENT,
        (ErrorCode::Unsupported, _) => FEATURE_NOT_SUPPORTED,
        (ErrorCode::Unauthenticated, _) => AUTHENTICATION_REQUIRED,
        (ErrorCode::Forbidden, _) => NOT_AUTHORIZED,
        (ErrorCode::Limit, _) => LIMIT,
        (ErrorCode::NotFound, Kind::Unsubscribe) => NO_SUCH_SUBSCRIPTION,
        (ErrorCode::NotFound, Kind::Unregister) => NO_SUCH_REGISTRATION,
        // A call that no queue got is one that nobody would answer.
        (ErrorCode::NotFound | ErrorCode::Unroutable, Kind::Call) => NO_SUCH_PROCEDURE,
        (ErrorCode::NotFound, _) => NOT_FOUND,
        (ErrorCode::Unroutable, _) => UNROUTABLE,
        (ErrorCode::Refused, _) => REFUSED,
        (ErrorCode::InUse, _) => PROCEDURE_ALREADY_EXISTS,
        (ErrorCode::Unavailable, _) => NETWORK_FAILURE,
        (ErrorCode::Timeout, _) => TIMEOUT,
        (ErrorCode::StaleTag, _) => STALE_TAG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wamp::uri;

    #[test]
    fn every_error_has_a_uri_and_what_was_asked_chooses() {
        for code in ErrorCode::ALL {
            for kind in Kind::ALL {
                assert_eq!(uri::check(reason(*code, *kind)), Ok(()), "{code:?}");
            }
        }
        assert_eq!(reason(ErrorCode::NotFound, Kind::Unsubscribe), NO_SUCH_SUBSCRIPTION);
        assert_eq!(reason(ErrorCode::NotFound, Kind::Unregister), NO_SUCH_REGISTRATION);
        assert_eq!(reason(ErrorCode::Unroutable, Kind::Call), NO_SUCH_PROCEDURE);
        assert_eq!(reason(ErrorCode::Unroutable, Kind::Publish), UNROUTABLE);
    }
}
