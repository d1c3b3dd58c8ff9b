//! The values of every label that is not a source or a subprotocol: small enums with a name each, so that no label is
//! ever made of something that a stranger sent.

use crate::model::delivery::Settlement;
use crate::model::gap::GapReason;
use crate::model::outgoing::{CallOutcome, PublishOutcome};

/// A closed set of label values, usable as an index.
pub(super) trait Label: Copy + 'static {
    /// Every value, each at its own index.
    const ALL: &'static [Self];

    /// Where it stands in [`Label::ALL`].
    fn index(self) -> usize;

    /// The label's value.
    fn name(self) -> &'static str;
}

macro_rules! labels {
    ($($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $value_doc:literal])+ $variant:ident = $text:literal,)+ })+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            pub enum $name {
                $($(#[doc = $value_doc])+ $variant,)+
            }

            impl $name {
                /// Every value.
                pub const ALL: &[Self] = &[$(Self::$variant,)+];

                /// As it is written on metrics and in the log.
                pub const fn name(self) -> &'static str {
                    match self { $(Self::$variant => $text,)+ }
                }
            }

            impl Label for $name {
                const ALL: &'static [Self] = $name::ALL;

                fn index(self) -> usize {
                    self as usize
                }

                fn name(self) -> &'static str {
                    self.name()
                }
            }
        )+
    };
}

labels! {
    /// How a client is connected.
    Transport {
        /// A WebSocket.
        WebSocket = "websocket",
        /// A stream of Server-Sent Events.
        Sse = "sse",
        /// Lines of JSON over HTTP.
        Stream = "stream",
        /// A poll that waits for its answer.
        Poll = "poll",
    }

    /// One of a node's two connections to its broker.
    BrokerLink {
        /// The one that consumes.
        Consume = "consume",
        /// The one that publishes and calls.
        Publish = "publish",
    }

    /// How an attempt to open a WebSocket or an event stream ended.
    Handshake {
        /// The session began.
        Accepted = "accepted",
        /// The page comes from an origin that is not allowed.
        RefusedOrigin = "refused_origin",
        /// Not a request that can become a session.
        BadRequest = "bad_request",
        /// A version of the WebSocket protocol other than 13.
        WrongVersion = "wrong_version",
        /// Only unknown subprotocols, and the server is strict.
        UnsupportedProtocol = "unsupported_protocol",
        /// The request's head was too large or had too many fields.
        HeadTooLarge = "head_too_large",
        /// The request did not arrive in time.
        Timeout = "timeout",
        /// As many connections as are allowed.
        Full = "full",
    }

    /// Why a delivery of the broker could not become a message.
    Rejection {
        /// The routing key, or what the source's template made of it, is no topic.
        Topic = "topic",
        /// The source's template names a header field that the delivery does not have.
        TemplateField = "template_field",
        /// The header fields are longer than a frame may be.
        Properties = "properties",
        /// It is larger than a source's log may be.
        TooLarge = "too_large",
    }

    /// Why a message that was on its way to a client was thrown away.
    DropReason {
        /// The session was ended as too slow while it waited.
        SlowConsumer = "slow_consumer",
        /// The session's subprotocol cannot carry it; counted once for all who share its encoding.
        NotEncodable = "not_encodable",
    }

    /// How a publish ended.
    PublishResult {
        /// The broker confirmed it and at least one queue has it.
        Routed = "routed",
        /// The broker confirmed it, but no queue wanted it.
        Unrouted = "unrouted",
        /// The broker, or a rule of this server, refused it.
        Refused = "refused",
        /// The client may not publish there.
        Forbidden = "forbidden",
        /// The broker was away, blocked or silent.
        Unavailable = "unavailable",
    }

    /// How a call ended.
    CallResult {
        /// Somebody answered.
        Replied = "replied",
        /// No queue took the request.
        Unroutable = "unroutable",
        /// Nobody answered in time.
        Timeout = "timeout",
        /// The broker, or a rule of this server, refused it.
        Refused = "refused",
        /// The client may not call there.
        Forbidden = "forbidden",
        /// The broker was away, blocked or silent.
        Unavailable = "unavailable",
        /// Its client was gone, or had let go of it.
        Abandoned = "abandoned",
    }

    /// What became of a delivery that a client consumed.
    Settling {
        /// The client acknowledged it.
        Acknowledged = "acknowledged",
        /// The client gave it back.
        Requeued = "requeued",
        /// The client refused it for good.
        Discarded = "discarded",
        /// The client held it for too long, so it went back.
        Expired = "expired",
        /// The client left, so it went back.
        Returned = "returned",
        /// The link to the broker was lost, so the broker took it back.
        Lost = "lost",
    }
}

impl From<Settlement> for Settling {
    fn from(settlement: Settlement) -> Self {
        match settlement {
            Settlement::Acknowledge => Self::Acknowledged,
            Settlement::Requeue => Self::Requeued,
            Settlement::Discard => Self::Discarded,
        }
    }
}

impl From<&PublishOutcome> for PublishResult {
    fn from(outcome: &PublishOutcome) -> Self {
        match outcome {
            PublishOutcome::Confirmed { routed: true } => Self::Routed,
            PublishOutcome::Confirmed { routed: false } => Self::Unrouted,
            PublishOutcome::Refused(_) => Self::Refused,
            PublishOutcome::Unavailable(_) => Self::Unavailable,
        }
    }
}

impl From<&CallOutcome> for CallResult {
    fn from(outcome: &CallOutcome) -> Self {
        match outcome {
            CallOutcome::Replied(_) => Self::Replied,
            CallOutcome::Unroutable => Self::Unroutable,
            CallOutcome::TimedOut => Self::Timeout,
            CallOutcome::Refused(_) => Self::Refused,
            CallOutcome::Unavailable(_) => Self::Unavailable,
        }
    }
}

impl Label for GapReason {
    const ALL: &'static [Self] = &GapReason::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        self.name()
    }
}

impl Label for crate::model::close::CloseReason {
    const ALL: &'static [Self] = Self::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        self.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::close::CloseReason;

    fn every_value_stands_at_its_index<L: Label>() {
        for (position, value) in L::ALL.iter().enumerate() {
            assert_eq!(value.index(), position, "{}", value.name());
        }
    }

    #[test]
    fn indexes_are_positions() {
        every_value_stands_at_its_index::<Transport>();
        every_value_stands_at_its_index::<BrokerLink>();
        every_value_stands_at_its_index::<Handshake>();
        every_value_stands_at_its_index::<Rejection>();
        every_value_stands_at_its_index::<DropReason>();
        every_value_stands_at_its_index::<PublishResult>();
        every_value_stands_at_its_index::<CallResult>();
        every_value_stands_at_its_index::<Settling>();
        every_value_stands_at_its_index::<GapReason>();
        every_value_stands_at_its_index::<CloseReason>();
    }
}
