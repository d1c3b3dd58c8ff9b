//! MQTT 5.0, by the packets that the server's side is made of. Messages come at QoS 1, so that a slow terminal is waited for.
//! The protocol has no word for where to go on: what comes while the connection is lost is missed.

use std::num::NonZeroU16;

use tokio_tungstenite::tungstenite::Message;

use super::{Client, FRAME_BYTES_MAX, Heard, Received, Terms, gaps, headers, not_understood, refused};
use crate::cli::client::Ended;
use crate::model::topic::Pattern;
use crate::protocol::mqtt::packet::{
    Acknowledgement, Connect, Delivery, PacketId, Publish, PublishTopic, Qos, RetainHandling, Subscribe, Subscription,
};
use crate::protocol::mqtt::properties::{MessageProperties, ReasonProperties};
use crate::protocol::mqtt::{Limits, Packet, Reader, ReasonCode, Text, Version, topic, writer};

const VERSION: Version = Version::V5;
const SUBSCRIBE: PacketId = PacketId(NonZeroU16::MIN);

/// The client.
#[derive(Debug)]
pub(in crate::cli) struct Mqtt {
    patterns: Vec<Pattern>,
    filters: Vec<Text>,
    reader: Reader,
}

impl Mqtt {
    /// # Errors
    /// A sentence, where the protocol has no word for what is wanted.
    pub(in crate::cli) fn new(terms: &Terms) -> Result<Self, String> {
        let (after, filter, on_slow) = (!terms.after.0.is_empty(), terms.filter.is_some(), terms.on_slow.is_some());
        terms.refuse("MQTT", &[("--after", after), ("--filter", filter), ("--on-slow", on_slow)])?;
        let filter = |pattern: &Pattern| {
            let wrong =
                || format!("MQTT has no word for {:?}, where # is not the last: use --protocol json", pattern.as_str());
            topic::filter_of(pattern).ok_or_else(wrong)
        };
        let filters = terms.patterns.iter().map(filter).collect::<Result<_, _>>()?;
        Ok(Self { patterns: terms.patterns.clone(), filters, reader: reader() })
    }

    fn subscribe(&self) -> Result<Heard, Ended> {
        let subscription = |filter: &Text| Subscription {
            filter: filter.clone(),
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::DoNotSend,
        };
        let subscriptions = self.filters.iter().map(subscription).collect();
        let subscribe = Subscribe { packet_id: SUBSCRIBE, properties: Default::default(), subscriptions };
        said(&Packet::Subscribe(subscribe)).map(Heard::Say)
    }

    fn packet(&self, packet: Packet) -> Result<Vec<Heard>, Ended> {
        match packet {
            Packet::Connack(connack) if connack.reason == ReasonCode::Success => Ok(vec![self.subscribe()?]),
            Packet::Suback(suback) => match suback.reasons.iter().find(|reason| reason.is_failure()) {
                Some(reason) => Err(denied(*reason, suback.properties.reason_string.as_ref())),
                None => Ok(vec![Heard::Stands]),
            },
            Packet::Publish(publish) => self.message(&publish),
            // The closing frame that follows any other CONNACK, or a DISCONNECT, says whether to come back.
            _ => Ok(Vec::new()),
        }
    }

    fn message(&self, publish: &Publish) -> Result<Vec<Heard>, Ended> {
        let PublishTopic::Named { name, .. } = &publish.topic else {
            return Err(not_understood("MQTT", "a topic alias that nobody offered"));
        };
        let topic = topic::told_by(name).map_err(|error| not_understood("MQTT", &error.to_string()))?;
        let MessageProperties { content_type, user, .. } = &publish.properties;
        let fields = || user.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let field = |wanted: &str| fields().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        let received = Received {
            topic: topic.as_str(),
            content_type: content_type.as_deref(),
            headers: headers(fields(), &[]),
            payload: &publish.payload,
            ..Received::default()
        };
        let pattern = self.patterns.iter().find(|pattern| pattern.matches(&topic));
        let mut heard = gaps(pattern.map_or(topic.as_str(), Pattern::as_str), field);
        heard.push(Heard::Message(received.line()));
        if let Delivery::AtLeastOnce(transmission) = publish.delivery {
            let properties = ReasonProperties::default();
            let answer = Acknowledgement { packet_id: transmission.packet_id, reason: ReasonCode::Success, properties };
            heard.push(Heard::Say(said(&Packet::Puback(answer))?));
        }
        Ok(heard)
    }
}

impl Client for Mqtt {
    fn subprotocol(&self) -> &'static str {
        "mqtt"
    }

    fn open(&mut self) -> Result<Message, Ended> {
        self.reader = reader();
        let connect = Connect {
            version: VERSION,
            client_id: Text::default(),
            clean_start: true,
            // The WebSocket below has pings of its own.
            keep_alive_seconds: 0,
            will: None,
            user_name: None,
            password: None,
            properties: Default::default(),
        };
        said(&Packet::Connect(Box::new(connect)))
    }

    fn has_no_place(&self) -> bool {
        true
    }

    fn hear(&mut self, message: Message) -> Result<Vec<Heard>, Ended> {
        let bytes = message.into_data();
        let mut input: &[u8] = &bytes;
        let mut heard = Vec::new();
        loop {
            match self.reader.next(&mut input) {
                Ok(Some(packet)) => heard.extend(self.packet(packet)?),
                Ok(None) => return Ok(heard),
                Err(fault) => return Err(not_understood("MQTT", fault.sentence)),
            }
        }
    }
}

fn reader() -> Reader {
    Reader::of_server(Limits { packet_bytes_max: FRAME_BYTES_MAX, connect_bytes_max: 0 }, VERSION)
}

fn said(packet: &Packet) -> Result<Message, Ended> {
    let written = writer::encode(packet, VERSION).map(Message::Binary);
    written.map_err(|error| Ended::Refused(format!("this cannot be said in MQTT: {error:?}")))
}

fn denied(reason: ReasonCode, words: Option<&Text>) -> Ended {
    let number = reason.number();
    let sentence = words.map_or("the server gave no reason", Text::as_str);
    // Which this server says where its broker is away.
    refused(format!("{sentence} (0x{number:02X})"), reason == ReasonCode::UnspecifiedError)
}
