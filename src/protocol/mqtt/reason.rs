//! Reason codes of MQTT 5.0 (§2.4): number, name and the packets that may carry each; and what is left of them in 3.x.
//!
//! A [`Violation`] is how everything that reads says that a peer broke a rule: the code to answer with, and a sentence.

use crate::protocol::mqtt::packet::PacketKind;

/// That a peer broke a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// What MQTT 5.0 calls it.
    pub reason: ReasonCode,
    /// What was wrong, short enough for the reason of a WebSocket close frame (123 bytes).
    pub sentence: &'static str,
}

impl Violation {
    /// What cannot be parsed (MQTT 5.0 §1.2, "Malformed Packet").
    pub const fn malformed(sentence: &'static str) -> Self {
        Self { reason: ReasonCode::MalformedPacket, sentence }
    }

    /// What can be parsed and is not allowed (MQTT 5.0 §1.2, "Protocol Error").
    pub const fn protocol(sentence: &'static str) -> Self {
        Self { reason: ReasonCode::ProtocolError, sentence }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal, [$($kind:ident),+];)+) => {
        /// A reason code (MQTT 5.0 §2.4). Zero has three names, one meaning and one variant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl ReasonCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code of a number, if there is one.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// As the standard calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The packets that may carry it (MQTT 5.0 §2.4, table 2-6).
            pub const fn kinds(self) -> &'static [PacketKind] {
                match self { $(Self::$variant => &[$(PacketKind::$kind),+],)+ }
            }
        }
    };
}

reasons! {
    /// Done; also a normal disconnection, and QoS 0 granted.
    Success = 0x00, "Success", [Connack, Puback, Pubrec, Pubrel, Pubcomp, Suback, Unsuback, Disconnect, Auth];
    /// QoS 1 granted.
    GrantedQos1 = 0x01, "Granted QoS 1", [Suback];
    /// QoS 2 granted.
    GrantedQos2 = 0x02, "Granted QoS 2", [Suback];
    /// The client leaves and wants its will published.
    DisconnectWithWill = 0x04, "Disconnect with Will Message", [Disconnect];
    /// Accepted, and nobody listens.
    NoMatchingSubscribers = 0x10, "No matching subscribers", [Puback, Pubrec];
    /// Nothing to end.
    NoSubscriptionExisted = 0x11, "No subscription existed", [Unsuback];
    /// The authentication takes another step.
    ContinueAuthentication = 0x18, "Continue authentication", [Auth];
    /// The client wants to authenticate anew.
    Reauthenticate = 0x19, "Re-authenticate", [Auth];
    /// The reason is not revealed, or none of the others.
    UnspecifiedError = 0x80, "Unspecified error", [Connack, Puback, Pubrec, Suback, Unsuback, Disconnect];
    /// Could not be parsed.
    MalformedPacket = 0x81, "Malformed Packet", [Connack, Disconnect];
    /// Not allowed by the protocol.
    ProtocolError = 0x82, "Protocol Error", [Connack, Disconnect];
    /// Valid, and not accepted by this server.
    ImplementationSpecificError = 0x83, "Implementation specific error",
        [Connack, Puback, Pubrec, Suback, Unsuback, Disconnect];
    /// A version that this server does not speak.
    UnsupportedProtocolVersion = 0x84, "Unsupported Protocol Version", [Connack];
    /// A valid client id that is not allowed.
    ClientIdentifierNotValid = 0x85, "Client Identifier not valid", [Connack];
    /// The user name or password is not accepted.
    BadUserNameOrPassword = 0x86, "Bad User Name or Password", [Connack];
    /// Not allowed to this client.
    NotAuthorized = 0x87, "Not authorized", [Connack, Puback, Pubrec, Suback, Unsuback, Disconnect];
    /// The server is not available.
    ServerUnavailable = 0x88, "Server unavailable", [Connack];
    /// Try again later.
    ServerBusy = 0x89, "Server busy", [Connack, Disconnect];
    /// This client was banned.
    Banned = 0x8A, "Banned", [Connack];
    /// The server is shutting down.
    ServerShuttingDown = 0x8B, "Server shutting down", [Disconnect];
    /// The authentication method is not supported, or not the one that is in use.
    BadAuthenticationMethod = 0x8C, "Bad authentication method", [Connack, Disconnect];
    /// Nothing came for one and a half times the keep alive.
    KeepAliveTimeout = 0x8D, "Keep Alive timeout", [Disconnect];
    /// Another connection uses the same client id.
    SessionTakenOver = 0x8E, "Session taken over", [Disconnect];
    /// The topic filter is not accepted.
    TopicFilterInvalid = 0x8F, "Topic Filter invalid", [Suback, Unsuback, Disconnect];
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90, "Topic Name invalid", [Connack, Puback, Pubrec, Disconnect];
    /// The packet id is in use already.
    PacketIdentifierInUse = 0x91, "Packet Identifier in use", [Puback, Pubrec, Suback, Unsuback];
    /// The packet id is not known.
    PacketIdentifierNotFound = 0x92, "Packet Identifier not found", [Pubrel, Pubcomp];
    /// More publishes without acknowledgement than the receive maximum.
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded", [Disconnect];
    /// A topic alias beyond the maximum.
    TopicAliasInvalid = 0x94, "Topic Alias invalid", [Disconnect];
    /// Larger than the maximum packet size.
    PacketTooLarge = 0x95, "Packet too large", [Connack, Disconnect];
    /// Too many messages in too little time.
    MessageRateTooHigh = 0x96, "Message rate too high", [Disconnect];
    /// A limit of this server.
    QuotaExceeded = 0x97, "Quota exceeded", [Connack, Puback, Pubrec, Suback, Disconnect];
    /// An administrator ended it.
    AdministrativeAction = 0x98, "Administrative action", [Disconnect];
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99, "Payload format invalid", [Connack, Puback, Pubrec, Disconnect];
    /// No retained messages here.
    RetainNotSupported = 0x9A, "Retain not supported", [Connack, Disconnect];
    /// Not this quality of service.
    QosNotSupported = 0x9B, "QoS not supported", [Connack, Disconnect];
    /// For now another server.
    UseAnotherServer = 0x9C, "Use another server", [Connack, Disconnect];
    /// From now on another server.
    ServerMoved = 0x9D, "Server moved", [Connack, Disconnect];
    /// No shared subscriptions here.
    SharedSubscriptionsNotSupported = 0x9E, "Shared Subscriptions not supported", [Suback, Disconnect];
    /// Too many connections in too little time.
    ConnectionRateExceeded = 0x9F, "Connection rate exceeded", [Connack, Disconnect];
    /// As long as a connection may last.
    MaximumConnectTime = 0xA0, "Maximum connect time", [Disconnect];
    /// No subscription identifiers here.
    SubscriptionIdentifiersNotSupported = 0xA1, "Subscription Identifiers not supported", [Suback, Disconnect];
    /// No wildcards here.
    WildcardSubscriptionsNotSupported = 0xA2, "Wildcard Subscriptions not supported", [Suback, Disconnect];
}

/// SUBACK's word for every failure in 3.1.1 (§3.9.3).
pub(super) const SUBACK_FAILURE: u8 = 0x80;

impl ReasonCode {
    /// As it stands on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether it tells a failure (MQTT 5.0 §2.4: 0x80 and above).
    pub const fn is_failure(self) -> bool {
        self.number() >= 0x80
    }

    /// The return code of a 3.x CONNACK (MQTT 3.1.1 §3.2.2.3). `None`: there is none for this, and the connection is closed
    /// without a CONNACK.
    pub const fn return_code(self) -> Option<u8> {
        Some(match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded => 3,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned => 5,
            _ => return None,
        })
    }

    /// The code that a 3.x CONNACK's return code stands for.
    pub(super) const fn from_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }

    /// The code that a SUBACK of 3.x carries for it: the QoS that is granted, or 0x80. 3.1 has no word for a failure at all
    /// (§3.9); a client of it takes 0x80 as it may.
    pub(super) const fn suback_code(self) -> u8 {
        if self.is_failure() { SUBACK_FAILURE } else { self.number() }
    }

    /// A number as the reason of a packet of this kind.
    pub(super) fn read(number: u8, kind: PacketKind) -> Result<Self, Violation> {
        let reason = Self::from_number(number).filter(|reason| reason.kinds().contains(&kind));
        reason.ok_or(Violation::protocol("a reason code that this packet may not carry"))
    }
}
