//! Packets of every kind for property tests, as 5.0 has them, and what is left of each in 3.x.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use proptest::option::of;
use proptest::prelude::*;

use crate::protocol::mqtt::decode::Sender;
use crate::protocol::mqtt::packet::{
    Acknowledgement, Auth, Connack, Connect, Delivery, Disconnect, Packet, PacketId, PacketKind, Publish, PublishTopic,
    Qos, RetainHandling, Secret, Subscribe, Subscription, SubscriptionAcknowledgement, SubscriptionId, Transmission,
    Unsubscribe, Version, Will,
};
use crate::protocol::mqtt::properties::{
    AuthProperties, ConnackProperties, ConnectProperties, DisconnectProperties, MessageProperties, ReasonProperties,
    SubscribeProperties, UserProperties, WillProperties,
};
use crate::protocol::mqtt::reason::ReasonCode;
use crate::protocol::mqtt::wire::{Binary, Text, VARIABLE_INTEGER_MAX};

pub(super) fn versions() -> impl Strategy<Value = Version> {
    prop::sample::select(&Version::ALL[..])
}

fn texts() -> impl Strategy<Value = Text> {
    "\\PC{0,6}|[a-z]{0,3}\u{feff}|[a-z]{130}".prop_map(|text| Text::new(text).unwrap())
}

fn names() -> impl Strategy<Value = Text> {
    "[a-c/.*$é]{1,12}|[a-z]{127,130}".prop_map(|text| Text::new(text).unwrap())
}

fn binaries() -> impl Strategy<Value = Binary> {
    prop::collection::vec(any::<u8>(), 0..6).prop_map(|bytes| Binary::new(bytes.into()).unwrap())
}

fn secrets() -> impl Strategy<Value = Secret> {
    binaries().prop_map(Secret)
}

fn payloads() -> impl Strategy<Value = Bytes> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 100..300)]
        .prop_map(Bytes::from)
}

fn two_bytes() -> impl Strategy<Value = NonZeroU16> {
    any::<NonZeroU16>()
}

pub(super) fn subscription_ids() -> impl Strategy<Value = SubscriptionId> {
    prop_oneof![1..300u32, 1..=VARIABLE_INTEGER_MAX].prop_map(|number| SubscriptionId::new(number).unwrap())
}

fn packet_ids() -> impl Strategy<Value = PacketId> {
    two_bytes().prop_map(PacketId)
}

fn user() -> impl Strategy<Value = UserProperties> {
    prop::collection::vec((texts(), texts()), 0..3).prop_map(UserProperties)
}

fn qualities() -> impl Strategy<Value = Qos> {
    (0..3u8).prop_map(|number| Qos::from_number(number).unwrap())
}

fn reasons(kind: PacketKind) -> impl Strategy<Value = ReasonCode> {
    let reasons = ReasonCode::ALL.iter().copied().filter(move |reason| reason.kinds().contains(&kind));
    prop::sample::select(reasons.collect::<Vec<_>>())
}

pub(super) fn messages() -> impl Strategy<Value = MessageProperties> {
    (of(any::<bool>()), of(any::<u32>()), of(texts()), of(names()), of(binaries()), user()).prop_map(
        |(payload_is_utf8, expiry_seconds, content_type, response_topic, correlation_data, user)| MessageProperties {
            payload_is_utf8,
            expiry_seconds,
            content_type,
            response_topic,
            correlation_data,
            user,
        },
    )
}

fn wills() -> impl Strategy<Value = Will> {
    (names(), binaries(), qualities(), any::<bool>(), of(any::<u32>()), messages()).prop_map(
        |(topic, payload, qos, retain, delay_seconds, message)| Will {
            topic,
            payload,
            qos,
            retain,
            properties: WillProperties { delay_seconds, message },
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    let numbers = (of(any::<u32>()), of(two_bytes()), of(any::<NonZeroU32>()), of(any::<u16>()));
    let rest = (of(any::<bool>()), of(any::<bool>()), of((texts(), of(secrets()))), user());
    (numbers, rest).prop_map(|((expiry, receive, packet, alias), (response, problem, authentication, user))| {
        let (method, data) = authentication.map_or((None, None), |(method, data)| (Some(method), data));
        ConnectProperties {
            session_expiry_seconds: expiry,
            receive_maximum: receive,
            packet_bytes_max: packet,
            topic_alias_maximum: alias,
            request_response_information: response,
            request_problem_information: problem,
            authentication_method: method,
            authentication_data: data,
            user,
        }
    })
}

/// CONNECT of a version, as that has it.
pub(super) fn connects(version: Version) -> impl Strategy<Value = Connect> {
    let identity = ("[a-z0-9]{1,20}", any::<bool>(), any::<bool>(), any::<u16>());
    let rest = (of(wills()), of(texts()), of(secrets()), connect_properties());
    (identity, rest).prop_map(
        move |((client_id, is_empty, clean_start, keep_alive_seconds), (will, user_name, password, properties))| {
            let is_v5 = version == Version::V5;
            let may_be_empty = is_v5 || (version == Version::V311 && clean_start);
            let client_id = if is_empty && may_be_empty { String::new() } else { client_id };
            let mut connect = Connect {
                version,
                client_id: Text::new(client_id).unwrap(),
                clean_start,
                keep_alive_seconds,
                will,
                password: password.filter(|_| is_v5 || user_name.is_some()),
                user_name,
                properties,
            };
            if !is_v5 {
                connect.properties = ConnectProperties::default();
                connect.will = connect.will.map(|will| Will { properties: WillProperties::default(), ..will });
            }
            connect
        },
    )
}

fn connack_properties() -> impl Strategy<Value = ConnackProperties> {
    let numbers = (of(any::<u32>()), of(two_bytes()), of(any::<NonZeroU32>()), of(any::<u16>()), of(any::<u16>()));
    let flags = (of(0..2u8), of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>()));
    let names = (of(texts()), of(texts()), of(texts()), of(texts()), of(texts()), of(secrets()), user());
    (numbers, flags, names).prop_map(|(numbers, flags, names)| ConnackProperties {
        session_expiry_seconds: numbers.0,
        receive_maximum: numbers.1,
        packet_bytes_max: numbers.2,
        topic_alias_maximum: numbers.3,
        keep_alive_seconds: numbers.4,
        maximum_qos: flags.0.and_then(Qos::from_number),
        retain_available: flags.1,
        wildcards_available: flags.2,
        subscription_ids_available: flags.3,
        shared_available: flags.4,
        assigned_client_id: names.0,
        reason_string: names.1,
        response_information: names.2,
        server_reference: names.3,
        authentication_method: names.4,
        authentication_data: names.5,
        user: names.6,
    })
}

fn connacks() -> impl Strategy<Value = Packet> {
    (any::<bool>(), reasons(PacketKind::Connack), connack_properties()).prop_map(|(present, reason, properties)| {
        let session_present = present && !reason.is_failure();
        Packet::Connack(Box::new(Connack { session_present, reason, properties }))
    })
}

fn deliveries() -> impl Strategy<Value = Delivery> {
    (qualities(), packet_ids(), any::<bool>()).prop_map(|(qos, packet_id, duplicate)| match qos {
        Qos::AtMostOnce => Delivery::AtMostOnce,
        Qos::AtLeastOnce => Delivery::AtLeastOnce(Transmission { packet_id, duplicate }),
        Qos::ExactlyOnce => Delivery::ExactlyOnce(Transmission { packet_id, duplicate }),
    })
}

fn publishes(sender: Sender) -> impl Strategy<Value = Packet> {
    let topic = prop_oneof![
        (names(), of(two_bytes())).prop_map(|(name, alias)| PublishTopic::Named { name, alias }),
        two_bytes().prop_map(PublishTopic::Aliased),
    ];
    let ids = prop::collection::vec(subscription_ids(), if sender == Sender::Server { 0..4 } else { 0..1 });
    (deliveries(), any::<bool>(), topic, ids, messages(), payloads()).prop_map(
        |(delivery, retain, topic, subscription_ids, properties, payload)| {
            Packet::Publish(Box::new(Publish { delivery, retain, topic, subscription_ids, properties, payload }))
        },
    )
}

fn reason_properties() -> impl Strategy<Value = ReasonProperties> {
    (of(texts()), user()).prop_map(|(reason_string, user)| ReasonProperties { reason_string, user })
}

fn acknowledgements(kind: PacketKind, packet: fn(Acknowledgement) -> Packet) -> impl Strategy<Value = Packet> {
    (packet_ids(), reasons(kind), reason_properties())
        .prop_map(move |(packet_id, reason, properties)| packet(Acknowledgement { packet_id, reason, properties }))
}

fn subscriptions() -> impl Strategy<Value = Subscription> {
    (texts(), qualities(), any::<bool>(), any::<bool>(), 0..3u8).prop_map(
        |(filter, qos, no_local, retain_as_published, handling)| Subscription {
            filter,
            qos,
            no_local,
            retain_as_published,
            retain_handling: RetainHandling::from_number(handling).unwrap(),
        },
    )
}

fn subscribes() -> impl Strategy<Value = Packet> {
    (packet_ids(), of(subscription_ids()), user(), prop::collection::vec(subscriptions(), 1..4)).prop_map(
        |(packet_id, id, user, subscriptions)| {
            Packet::Subscribe(Subscribe { packet_id, properties: SubscribeProperties { id, user }, subscriptions })
        },
    )
}

fn unsubscribes() -> impl Strategy<Value = Packet> {
    (packet_ids(), user(), prop::collection::vec(texts(), 1..4))
        .prop_map(|(packet_id, user, filters)| Packet::Unsubscribe(Unsubscribe { packet_id, user, filters }))
}

fn subacks(kind: PacketKind, packet: fn(SubscriptionAcknowledgement) -> Packet) -> impl Strategy<Value = Packet> {
    (packet_ids(), prop::collection::vec(reasons(kind), 1..4), reason_properties()).prop_map(
        move |(packet_id, reasons, properties)| packet(SubscriptionAcknowledgement { packet_id, reasons, properties }),
    )
}

fn disconnects(sender: Sender) -> impl Strategy<Value = Packet> {
    (reasons(PacketKind::Disconnect), of(any::<u32>()), of(texts()), user(), of(texts())).prop_map(
        move |(reason, expiry, reason_string, user, server_reference)| {
            let session_expiry_seconds = expiry.filter(|_| sender == Sender::Client);
            let properties = DisconnectProperties { session_expiry_seconds, reason_string, user, server_reference };
            Packet::Disconnect(Disconnect { reason, properties })
        },
    )
}

fn auths() -> impl Strategy<Value = Packet> {
    let full = (reasons(PacketKind::Auth), texts(), of(secrets()), of(texts()), user()).prop_map(
        |(reason, method, data, reason_string, user)| {
            Packet::Auth(Auth {
                reason,
                properties: AuthProperties { method: Some(method), data, reason_string, user },
            })
        },
    );
    let bare = Packet::Auth(Auth { reason: ReasonCode::Success, properties: AuthProperties::default() });
    prop_oneof![4 => full, 1 => Just(bare)]
}

/// What this peer may send after the CONNECT, as 5.0 has it.
pub(super) fn packets(sender: Sender) -> BoxedStrategy<Packet> {
    let both = prop_oneof![
        4 => publishes(sender),
        1 => acknowledgements(PacketKind::Puback, Packet::Puback),
        1 => acknowledgements(PacketKind::Pubrec, Packet::Pubrec),
        1 => acknowledgements(PacketKind::Pubrel, Packet::Pubrel),
        1 => acknowledgements(PacketKind::Pubcomp, Packet::Pubcomp),
        1 => disconnects(sender),
        1 => auths(),
    ];
    match sender {
        Sender::Client => {
            prop_oneof![3 => both, 1 => subscribes(), 1 => unsubscribes(), 1 => Just(Packet::Pingreq)].boxed()
        }
        Sender::Server => prop_oneof![
            4 => both,
            1 => connacks(),
            1 => subacks(PacketKind::Suback, Packet::Suback),
            1 => subacks(PacketKind::Unsuback, Packet::Unsuback),
            1 => Just(Packet::Pingresp),
        ]
        .boxed(),
    }
}

/// What of a packet of this peer is left in a version; nothing where it has no such packet.
pub(super) fn as_in(packet: &Packet, version: Version, sender: Sender) -> Option<Packet> {
    if version == Version::V5 {
        return Some(packet.clone());
    }
    let mut packet = packet.clone();
    match &mut packet {
        Packet::Auth(_) => return None,
        Packet::Disconnect(_) if sender == Sender::Server => return None,
        Packet::Disconnect(disconnect) if disconnect.reason != ReasonCode::Success => return None,
        Packet::Disconnect(disconnect) => disconnect.properties = DisconnectProperties::default(),
        Packet::Connack(connack) => {
            connack.session_present &= version == Version::V311;
            connack.reason = ReasonCode::from_return_code(connack.reason.return_code()?)?;
            connack.properties = ConnackProperties::default();
        }
        Packet::Publish(publish) => {
            match &mut publish.topic {
                PublishTopic::Aliased(_) => return None,
                PublishTopic::Named { alias, .. } => *alias = None,
            }
            publish.subscription_ids.clear();
            publish.properties = MessageProperties::default();
        }
        Packet::Puback(answer) | Packet::Pubrec(answer) | Packet::Pubrel(answer) | Packet::Pubcomp(answer) => {
            answer.reason = ReasonCode::Success;
            answer.properties = ReasonProperties::default();
        }
        Packet::Subscribe(subscribe) => {
            subscribe.properties = SubscribeProperties::default();
            for subscription in &mut subscribe.subscriptions {
                subscription.no_local = false;
                subscription.retain_as_published = false;
                subscription.retain_handling = RetainHandling::Send;
            }
        }
        Packet::Unsubscribe(unsubscribe) => unsubscribe.user = UserProperties::default(),
        Packet::Suback(answer) => {
            answer.properties = ReasonProperties::default();
            for reason in &mut answer.reasons {
                *reason = if reason.is_failure() { ReasonCode::UnspecifiedError } else { *reason };
            }
        }
        Packet::Unsuback(answer) => {
            answer.properties = ReasonProperties::default();
            answer.reasons.clear();
        }
        Packet::Connect(_) | Packet::Pingreq | Packet::Pingresp => {}
    }
    Some(packet)
}
