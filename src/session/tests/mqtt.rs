//! MQTT packets as lines of a transcript: `KIND …`, with words `name=value` and flags for what is there, and ` | payload` at the
//! end of a message. Reasons are hexadecimal. `BYTES 10 0e …` is what is no packet.

use std::fmt::Write as _;
use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use crate::protocol::Outbound;
use crate::protocol::mqtt::packet::*;
use crate::protocol::mqtt::properties::*;
use crate::protocol::mqtt::{Binary, Limits, Reader, ReasonCode, Text, writer};

/// What stands in a line.
struct Line<'a> {
    words: Vec<&'a str>,
    payload: Bytes,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> (&'a str, Self) {
        let (head, payload) = line.split_once(" | ").unwrap_or((line, ""));
        let (kind, rest) = head.split_once(' ').unwrap_or((head, ""));
        let words = rest.split(' ').filter(|word| !word.is_empty()).collect();
        (kind, Self { words, payload: Bytes::copy_from_slice(payload.as_bytes()) })
    }

    /// The first words that are no `name=value`, in order.
    fn plain(&self) -> Vec<&'a str> {
        self.words.iter().copied().filter(|word| !word.contains('=')).collect()
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn text(&self, name: &str) -> Option<Text> {
        self.value(name).map(text)
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        self.value(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
    }

    fn has(&self, flag: &str) -> bool {
        self.words.contains(&flag)
    }

    fn user(&self) -> UserProperties {
        let user = self.words.iter().filter_map(|word| word.strip_prefix("user.")?.split_once('='));
        UserProperties(user.map(|(name, value)| (text(name), text(value))).collect())
    }

    fn message(&self) -> MessageProperties {
        MessageProperties {
            payload_is_utf8: self.has("utf8").then_some(true),
            expiry_seconds: None,
            content_type: self.text("type"),
            response_topic: self.text("reply"),
            correlation_data: self.value("correlation").map(|data| Binary::new(data.to_owned().into()).unwrap()),
            user: self.user(),
        }
    }
}

fn text(text: &str) -> Text {
    Text::new(text).unwrap()
}

fn packet_id(word: &str) -> PacketId {
    PacketId(word.parse().unwrap_or_else(|_| panic!("{word:?} is no packet id")))
}

fn reason(word: &str) -> ReasonCode {
    ReasonCode::from_number(u8::from_str_radix(word, 16).unwrap()).unwrap()
}

fn connect(line: &Line<'_>) -> Connect {
    let plain = line.plain();
    let version = Version::ALL.into_iter().find(|version| version.level().to_string() == plain[0]).unwrap();
    let will = line.value("will").map(|topic| Will {
        topic: text(topic),
        payload: Binary::new(line.payload.clone()).unwrap(),
        qos: Qos::AtMostOnce,
        retain: line.has("retain"),
        properties: WillProperties::default(),
    });
    let id = line.value("id").unwrap_or_default();
    Connect {
        version,
        client_id: text(id),
        clean_start: !line.has("keep"),
        keep_alive_seconds: line.number("alive").unwrap_or(0),
        will,
        user_name: line.text("user"),
        password: line.value("password").map(|word| Secret(Binary::new(word.to_owned().into()).unwrap())),
        properties: ConnectProperties {
            session_expiry_seconds: line.number("expiry"),
            receive_maximum: line.number("receive"),
            packet_bytes_max: line.number::<NonZeroU32>("largest"),
            request_problem_information: line.has("quiet").then_some(false),
            authentication_method: line.text("method"),
            ..ConnectProperties::default()
        },
    }
}

fn publish(line: &Line<'_>) -> Publish {
    let transmission =
        || Transmission { packet_id: packet_id(line.value("packet").unwrap()), duplicate: line.has("dup") };
    let delivery = match line.value("qos") {
        None => Delivery::AtMostOnce,
        Some("1") => Delivery::AtLeastOnce(transmission()),
        Some(_) => Delivery::ExactlyOnce(transmission()),
    };
    let alias = line.number::<NonZeroU16>("alias");
    let topic = match line.plain().first() {
        Some(name) => PublishTopic::Named { name: text(name), alias },
        None => PublishTopic::Aliased(alias.unwrap()),
    };
    let (subscription_ids, properties) = (Vec::new(), line.message());
    Publish { delivery, retain: line.has("retain"), topic, subscription_ids, properties, payload: line.payload.clone() }
}

/// `filter:QOS` with letters after it: `n` no local, `r` retain as published, `i` retained only if new, `d` not at all.
fn subscription(word: &str) -> Subscription {
    let (filter, options) = word.rsplit_once(':').unwrap();
    let (qos, flags) = options.split_at(1);
    let retain_handling = match (flags.contains('i'), flags.contains('d')) {
        (true, _) => RetainHandling::SendIfNew,
        (_, true) => RetainHandling::DoNotSend,
        _ => RetainHandling::Send,
    };
    Subscription {
        filter: text(filter),
        qos: Qos::from_number(qos.parse().unwrap()).unwrap(),
        no_local: flags.contains('n'),
        retain_as_published: flags.contains('r'),
        retain_handling,
    }
}

/// A packet as a client sends it; a CONNECT says in which version what follows is written.
pub(super) fn bytes(line: &str, version: &mut Version) -> Vec<u8> {
    let (kind, line) = Line::of(line);
    let plain = line.plain();
    let acknowledgement = || Acknowledgement {
        packet_id: packet_id(plain[0]),
        reason: plain.get(1).map_or(ReasonCode::Success, |word| reason(word)),
        properties: ReasonProperties::default(),
    };
    let packet = match kind {
        "BYTES" => return plain.iter().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect(),
        "CONNECT" => {
            let connect = connect(&line);
            *version = connect.version;
            Packet::Connect(Box::new(connect))
        }
        "PUBLISH" => Packet::Publish(Box::new(publish(&line))),
        "PUBACK" => Packet::Puback(acknowledgement()),
        "PUBREC" => Packet::Pubrec(acknowledgement()),
        "PUBREL" => Packet::Pubrel(acknowledgement()),
        "SUBSCRIBE" => Packet::Subscribe(Subscribe {
            packet_id: packet_id(plain[0]),
            properties: SubscribeProperties {
                id: line.number("id").and_then(SubscriptionId::new),
                user: UserProperties::default(),
            },
            subscriptions: plain[1..].iter().map(|word| subscription(word)).collect(),
        }),
        "UNSUBSCRIBE" => Packet::Unsubscribe(Unsubscribe {
            packet_id: packet_id(plain[0]),
            user: UserProperties::default(),
            filters: plain[1..].iter().map(|word| text(word)).collect(),
        }),
        "PINGREQ" => Packet::Pingreq,
        "DISCONNECT" => Packet::Disconnect(Disconnect {
            reason: plain.first().map_or(ReasonCode::Success, |word| reason(word)),
            properties: DisconnectProperties::default(),
        }),
        other => panic!("{other:?} is no packet of a client"),
    };
    writer::encode(&packet, *version).unwrap().to_vec()
}

/// A packet of the server as a line.
pub(super) fn line(outbound: &Outbound, version: Version) -> String {
    let Outbound::Binary(bytes) = outbound else { panic!("{outbound:?} is no MQTT") };
    let limits = Limits { packet_bytes_max: 1 << 20, connect_bytes_max: 1 << 20 };
    let (mut reader, mut input) = (Reader::of_server(limits, version), &bytes[..]);
    let packet = reader.next(&mut input).unwrap().unwrap();
    assert!(input.is_empty(), "{bytes:?} is more than one packet");
    format!("< {}", described(packet))
}

fn described(packet: Packet) -> String {
    match packet {
        Packet::Connack(connack) => connack_line(&connack),
        Packet::Publish(publish) => publish_line(&publish),
        Packet::Puback(answer) => acknowledgement("PUBACK", &answer),
        Packet::Pubrec(answer) => acknowledgement("PUBREC", &answer),
        Packet::Pubcomp(answer) => acknowledgement("PUBCOMP", &answer),
        Packet::Suback(answer) => reasons("SUBACK", &answer),
        Packet::Unsuback(answer) => reasons("UNSUBACK", &answer),
        Packet::Pingresp => "PINGRESP".into(),
        Packet::Disconnect(Disconnect { reason, properties }) => {
            format!("DISCONNECT {:02x}{}", reason.number(), words(properties.reason_string))
        }
        other => panic!("{other:?} is no packet of a server"),
    }
}

fn words(sentence: Option<Text>) -> String {
    sentence.map(|sentence| format!(" | {sentence}")).unwrap_or_default()
}

fn connack_line(connack: &Connack) -> String {
    let mut line = format!("CONNACK {:02x}", connack.reason.number());
    line += if connack.session_present { " present" } else { "" };
    let properties = &connack.properties;
    let mut push = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            write!(line, " {name}={value}").unwrap();
        }
    };
    push("id", properties.assigned_client_id.as_ref().map(Text::to_string));
    push("expiry", properties.session_expiry_seconds.map(|seconds| seconds.to_string()));
    push("qos", properties.maximum_qos.map(|qos| (qos as u8).to_string()));
    push("retain", properties.retain_available.map(|is_it| is_it.to_string()));
    push("receive", properties.receive_maximum.map(|max| max.to_string()));
    push("largest", properties.packet_bytes_max.map(|max| max.to_string()));
    push("aliases", properties.topic_alias_maximum.map(|max| max.to_string()));
    push("wildcards", properties.wildcards_available.map(|are_they| are_they.to_string()));
    push("ids", properties.subscription_ids_available.map(|are_they| are_they.to_string()));
    push("shared", properties.shared_available.map(|are_they| are_they.to_string()));
    line + &words(properties.reason_string.clone())
}

fn publish_line(publish: &Publish) -> String {
    let PublishTopic::Named { name, .. } = &publish.topic else { panic!("an alias") };
    let mut line = format!("PUBLISH {name}");
    if let Some(Transmission { packet_id, duplicate }) = publish.delivery.transmission() {
        line += &format!(" qos={} packet={}", publish.delivery.qos() as u8, packet_id.0);
        line += if duplicate { " dup" } else { "" };
    }
    line += if publish.retain { " retain" } else { "" };
    let properties = &publish.properties;
    line += &publish.subscription_ids.iter().map(|id| format!(" id={}", id.number())).collect::<String>();
    for (name, value) in [("type", &properties.content_type), ("reply", &properties.response_topic)] {
        line += &value.as_ref().map(|value| format!(" {name}={value}")).unwrap_or_default();
    }
    if let Some(data) = &properties.correlation_data {
        line += &format!(" correlation={}", String::from_utf8_lossy(data.bytes()));
    }
    line += &properties.user.0.iter().map(|(name, value)| format!(" user.{name}={value}")).collect::<String>();
    line + " | " + &String::from_utf8_lossy(&publish.payload)
}

fn acknowledgement(kind: &str, answer: &Acknowledgement) -> String {
    let reason = answer.reason.number();
    let reason = if reason == 0 { String::new() } else { format!(" {reason:02x}") };
    format!("{kind} {}{reason}{}", answer.packet_id.0, words(answer.properties.reason_string.clone()))
}

fn reasons(kind: &str, answer: &SubscriptionAcknowledgement) -> String {
    let reasons: String = answer.reasons.iter().map(|reason| format!(" {:02x}", reason.number())).collect();
    format!("{kind} {}{reasons}{}", answer.packet_id.0, words(answer.properties.reason_string.clone()))
}
