//! The properties of packets that begin and end a connection: CONNECT, CONNACK, DISCONNECT and AUTH.

use std::num::{NonZeroU16, NonZeroU32};

use crate::protocol::mqtt::packet::{Qos, Secret};
use crate::protocol::mqtt::properties::UserProperties;
use crate::protocol::mqtt::property::{
    self, NOT_HERE, PropertyList, ReadProperties, WriteProperties, flag, four_bytes_not_zero, maximum_qos, once,
    two_bytes_not_zero,
};
use crate::protocol::mqtt::reason::Violation;
use crate::protocol::mqtt::wire::{Cursor, Text};

const DATA_ALONE: Violation = Violation::protocol("authentication data without an authentication method");
const NO_METHOD: Violation = Violation::protocol("AUTH without an authentication method");

/// Of CONNECT (MQTT 5.0 §3.1.2.11).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectProperties {
    /// Seconds for which the session outlives the connection; absent: 0. All ones: for ever.
    pub session_expiry_seconds: Option<u32>,
    /// Publishes above QoS 0 that the client would hold unanswered; absent: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Bytes of the largest packet that the client takes; absent: any.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// The largest topic alias that the client takes; absent: 0, none.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the client wants response information; absent: no.
    pub request_response_information: Option<bool>,
    /// Whether the client wants reason strings and user properties with failures; absent: yes. With no they stand in
    /// PUBLISH, CONNACK and DISCONNECT only [MQTT-3.1.2-29].
    pub request_problem_information: Option<bool>,
    /// How the client authenticates beyond name and password.
    pub authentication_method: Option<Text>,
    /// Data of that method.
    pub authentication_data: Option<Secret>,
    /// User properties.
    pub user: UserProperties,
}

impl ReadProperties for ConnectProperties {
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        match identifier {
            property::SESSION_EXPIRY => once(&mut self.session_expiry_seconds, cursor.four_bytes()?),
            property::RECEIVE_MAXIMUM => once(&mut self.receive_maximum, two_bytes_not_zero(cursor)?),
            property::MAXIMUM_PACKET_SIZE => once(&mut self.packet_bytes_max, four_bytes_not_zero(cursor)?),
            property::TOPIC_ALIAS_MAXIMUM => once(&mut self.topic_alias_maximum, cursor.two_bytes()?),
            property::REQUEST_RESPONSE_INFORMATION => once(&mut self.request_response_information, flag(cursor)?),
            property::REQUEST_PROBLEM_INFORMATION => once(&mut self.request_problem_information, flag(cursor)?),
            property::AUTHENTICATION_METHOD => once(&mut self.authentication_method, cursor.text()?),
            property::AUTHENTICATION_DATA => once(&mut self.authentication_data, Secret(cursor.binary()?)),
            property::USER_PROPERTY => self.user.one(cursor),
            _ => Err(NOT_HERE),
        }
    }

    fn check(&self) -> Result<(), Violation> {
        let alone = self.authentication_data.is_some() && self.authentication_method.is_none();
        if alone { Err(DATA_ALONE) } else { Ok(()) }
    }
}

impl WriteProperties for ConnectProperties {
    fn write(&self, list: &mut PropertyList) {
        list.four_bytes(property::SESSION_EXPIRY, self.session_expiry_seconds);
        list.two_bytes(property::RECEIVE_MAXIMUM, self.receive_maximum.map(NonZeroU16::get));
        list.four_bytes(property::MAXIMUM_PACKET_SIZE, self.packet_bytes_max.map(NonZeroU32::get));
        list.two_bytes(property::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        list.flag(property::REQUEST_RESPONSE_INFORMATION, self.request_response_information);
        list.flag(property::REQUEST_PROBLEM_INFORMATION, self.request_problem_information);
        list.text(property::AUTHENTICATION_METHOD, self.authentication_method.as_ref());
        list.binary(property::AUTHENTICATION_DATA, self.authentication_data.as_ref().map(|secret| &secret.0));
        list.user(&self.user);
    }
}

/// Of CONNACK (MQTT 5.0 §3.2.2.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnackProperties {
    /// What the server uses in place of the client's wish.
    pub session_expiry_seconds: Option<u32>,
    /// Publishes above QoS 0 that the server would hold unanswered; absent: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The highest quality that the server takes, 0 or 1; absent: 2. One of 2 is written as absent.
    pub maximum_qos: Option<Qos>,
    /// Whether it retains messages; absent: yes.
    pub retain_available: Option<bool>,
    /// Bytes of the largest packet that it takes; absent: any.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// The id that it gave the client.
    pub assigned_client_id: Option<Text>,
    /// The largest topic alias that it takes; absent: 0, none.
    pub topic_alias_maximum: Option<u16>,
    /// A sentence for people who look for the fault.
    pub reason_string: Option<Text>,
    /// User properties.
    pub user: UserProperties,
    /// Whether filters may hold wildcards; absent: yes.
    pub wildcards_available: Option<bool>,
    /// Whether subscriptions may have identifiers; absent: yes.
    pub subscription_ids_available: Option<bool>,
    /// Whether subscriptions may be shared; absent: yes.
    pub shared_available: Option<bool>,
    /// The keep alive that the client is to use in place of its own.
    pub keep_alive_seconds: Option<u16>,
    /// From what the client makes response topics.
    pub response_information: Option<Text>,
    /// Where else the client may go.
    pub server_reference: Option<Text>,
    /// The method of the client.
    pub authentication_method: Option<Text>,
    /// Data of that method.
    pub authentication_data: Option<Secret>,
}

impl ReadProperties for ConnackProperties {
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        match identifier {
            property::SESSION_EXPIRY => once(&mut self.session_expiry_seconds, cursor.four_bytes()?),
            property::RECEIVE_MAXIMUM => once(&mut self.receive_maximum, two_bytes_not_zero(cursor)?),
            property::MAXIMUM_QOS => once(&mut self.maximum_qos, maximum_qos(cursor)?),
            property::RETAIN_AVAILABLE => once(&mut self.retain_available, flag(cursor)?),
            property::MAXIMUM_PACKET_SIZE => once(&mut self.packet_bytes_max, four_bytes_not_zero(cursor)?),
            property::ASSIGNED_CLIENT_ID => once(&mut self.assigned_client_id, cursor.text()?),
            property::TOPIC_ALIAS_MAXIMUM => once(&mut self.topic_alias_maximum, cursor.two_bytes()?),
            property::REASON_STRING => once(&mut self.reason_string, cursor.text()?),
            property::USER_PROPERTY => self.user.one(cursor),
            property::WILDCARDS_AVAILABLE => once(&mut self.wildcards_available, flag(cursor)?),
            property::SUBSCRIPTION_IDS_AVAILABLE => once(&mut self.subscription_ids_available, flag(cursor)?),
            property::SHARED_AVAILABLE => once(&mut self.shared_available, flag(cursor)?),
            property::SERVER_KEEP_ALIVE => once(&mut self.keep_alive_seconds, cursor.two_bytes()?),
            property::RESPONSE_INFORMATION => once(&mut self.response_information, cursor.text()?),
            property::SERVER_REFERENCE => once(&mut self.server_reference, cursor.text()?),
            property::AUTHENTICATION_METHOD => once(&mut self.authentication_method, cursor.text()?),
            property::AUTHENTICATION_DATA => once(&mut self.authentication_data, Secret(cursor.binary()?)),
            _ => Err(NOT_HERE),
        }
    }
}

impl WriteProperties for ConnackProperties {
    fn write(&self, list: &mut PropertyList) {
        list.four_bytes(property::SESSION_EXPIRY, self.session_expiry_seconds);
        list.two_bytes(property::RECEIVE_MAXIMUM, self.receive_maximum.map(NonZeroU16::get));
        let maximum_qos = self.maximum_qos.filter(|qos| *qos < Qos::ExactlyOnce);
        list.flag(property::MAXIMUM_QOS, maximum_qos.map(|qos| qos == Qos::AtLeastOnce));
        list.flag(property::RETAIN_AVAILABLE, self.retain_available);
        list.four_bytes(property::MAXIMUM_PACKET_SIZE, self.packet_bytes_max.map(NonZeroU32::get));
        list.text(property::ASSIGNED_CLIENT_ID, self.assigned_client_id.as_ref());
        list.two_bytes(property::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        list.text(property::REASON_STRING, self.reason_string.as_ref());
        list.user(&self.user);
        list.flag(property::WILDCARDS_AVAILABLE, self.wildcards_available);
        list.flag(property::SUBSCRIPTION_IDS_AVAILABLE, self.subscription_ids_available);
        list.flag(property::SHARED_AVAILABLE, self.shared_available);
        list.two_bytes(property::SERVER_KEEP_ALIVE, self.keep_alive_seconds);
        list.text(property::RESPONSE_INFORMATION, self.response_information.as_ref());
        list.text(property::SERVER_REFERENCE, self.server_reference.as_ref());
        list.text(property::AUTHENTICATION_METHOD, self.authentication_method.as_ref());
        list.binary(property::AUTHENTICATION_DATA, self.authentication_data.as_ref().map(|secret| &secret.0));
    }
}

/// Of DISCONNECT (MQTT 5.0 §3.14.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DisconnectProperties {
    /// From a client: in place of what CONNECT said. Never from a server [MQTT-3.14.2-2].
    pub session_expiry_seconds: Option<u32>,
    /// A sentence for people who look for the fault.
    pub reason_string: Option<Text>,
    /// User properties.
    pub user: UserProperties,
    /// From a server: where else the client may go.
    pub server_reference: Option<Text>,
}

impl ReadProperties for DisconnectProperties {
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        match identifier {
            property::SESSION_EXPIRY => once(&mut self.session_expiry_seconds, cursor.four_bytes()?),
            property::REASON_STRING => once(&mut self.reason_string, cursor.text()?),
            property::USER_PROPERTY => self.user.one(cursor),
            property::SERVER_REFERENCE => once(&mut self.server_reference, cursor.text()?),
            _ => Err(NOT_HERE),
        }
    }
}

impl WriteProperties for DisconnectProperties {
    fn write(&self, list: &mut PropertyList) {
        list.four_bytes(property::SESSION_EXPIRY, self.session_expiry_seconds);
        list.text(property::REASON_STRING, self.reason_string.as_ref());
        list.user(&self.user);
        list.text(property::SERVER_REFERENCE, self.server_reference.as_ref());
    }
}

/// Of AUTH (MQTT 5.0 §3.15.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthProperties {
    /// The method; absent only in an AUTH that is nothing but its kind.
    pub method: Option<Text>,
    /// Data of that method.
    pub data: Option<Secret>,
    /// A sentence for people who look for the fault.
    pub reason_string: Option<Text>,
    /// User properties.
    pub user: UserProperties,
}

impl ReadProperties for AuthProperties {
    fn read(&mut self, identifier: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
        match identifier {
            property::AUTHENTICATION_METHOD => once(&mut self.method, cursor.text()?),
            property::AUTHENTICATION_DATA => once(&mut self.data, Secret(cursor.binary()?)),
            property::REASON_STRING => once(&mut self.reason_string, cursor.text()?),
            property::USER_PROPERTY => self.user.one(cursor),
            _ => Err(NOT_HERE),
        }
    }

    fn check(&self) -> Result<(), Violation> {
        // §3.15.2.2.2: it is a protocol error to leave the method out.
        if self.method.is_some() { Ok(()) } else { Err(NO_METHOD) }
    }
}

impl WriteProperties for AuthProperties {
    fn write(&self, list: &mut PropertyList) {
        list.text(property::AUTHENTICATION_METHOD, self.method.as_ref());
        list.binary(property::AUTHENTICATION_DATA, self.data.as_ref().map(|secret| &secret.0));
        list.text(property::REASON_STRING, self.reason_string.as_ref());
        list.user(&self.user);
    }
}
