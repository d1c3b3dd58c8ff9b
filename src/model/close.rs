//! The table of endings: every way a session can end, with its number, its name and whether to come back.
//!
//! One value drives the closing frame of every protocol, the label of the metric and the line in the log.

/// Whether a client should connect again after an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// Trying again would end the same way.
    No,
    /// At once, with the usual backoff.
    Yes,
    /// After a longer pause.
    Later,
    /// Only with another token.
    WithNewToken,
}

macro_rules! endings {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $name:literal, $reconnect:ident;)+) => {
        /// Why a session ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl CloseReason {
            /// Every ending, in the order of the numbers.
            pub const ALL: &[CloseReason] = &[$(CloseReason::$variant,)+];

            /// The WebSocket close code (RFC 6455, section 7.4).
            pub const fn code(self) -> u16 {
                match self { $(CloseReason::$variant => $code,)+ }
            }

            /// The short name: metric label and log field.
            pub const fn name(self) -> &'static str {
                match self { $(CloseReason::$variant => $name,)+ }
            }

            /// Whether the client should come back.
            pub const fn reconnect(self) -> Reconnect {
                match self { $(CloseReason::$variant => Reconnect::$reconnect,)+ }
            }

            /// What it means, in a sentence; the text of `docs/close-codes.md`.
            pub const fn meaning(self) -> &'static str {
                match self { $(CloseReason::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

endings! {
    /// The client closed, or nothing is left to say.
    Normal = 1000, "normal", No;
    /// The server is draining; another node, or this one a little later, takes the session.
    GoingAway = 1001, "going_away", Yes;
    /// The peer broke the WebSocket protocol.
    ProtocolError = 1002, "protocol_error", No;
    /// The kind of data cannot be accepted here, such as a publish on a socket that only listens.
    UnsupportedData = 1003, "unsupported_data", No;
    /// A text message was not UTF-8, or compressed data did not inflate.
    InvalidData = 1007, "invalid_data", No;
    /// The peer broke a rule of this server.
    Policy = 1008, "policy", No;
    /// A message was larger than the limit.
    TooBig = 1009, "too_big", No;
    /// The server failed.
    Internal = 1011, "internal", Yes;
    /// The server restarts.
    Restart = 1012, "restart", Yes;
    /// The server is full, or cannot reach its broker.
    TryLater = 1013, "try_later", Later;
    /// The client read too slowly and its outbox was full.
    SlowConsumer = 4400, "slow_consumer", Yes;
    /// No token, a bad one or an expired one.
    Unauthenticated = 4401, "unauthenticated", WithNewToken;
    /// The token does not allow this.
    Forbidden = 4403, "forbidden", No;
    /// The handshake took too long or heartbeats stayed away.
    Timeout = 4408, "timeout", Yes;
    /// Another connection came with the same client id.
    TakenOver = 4409, "taken_over", No;
    /// Too much in too little time.
    RateLimited = 4429, "rate_limited", Later;
    /// The connection broke without a closing handshake; never sent.
    Lost = 1006, "lost", Yes;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        for (position, reason) in CloseReason::ALL.iter().enumerate() {
            for other in &CloseReason::ALL[position + 1..] {
                assert_ne!(reason.code(), other.code());
                assert_ne!(reason.name(), other.name());
            }
        }
    }
}
