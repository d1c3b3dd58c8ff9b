//! What a client's packets ask for.
//!
//! Each is answered once it is done: a PUBLISH when the broker has confirmed it, a SUBSCRIBE when everything that is published
//! from then on will come.

use std::time::Duration;

use super::answers::Answers;
use super::codec::{Client, Mqtt, Standing};
use super::label::Wish;
use super::message;
use super::packet::{
    Acknowledgement, Connect, Delivery, Disconnect, Packet, PacketId, Publish, Qos, RetainHandling, Subscribe,
    Subscription, SubscriptionId, Unsubscribe, Version, Will,
};
use super::reason::{ReasonCode, Violation};
use super::subscriptions::{Asked, Ending, Filter};
use super::topic::{self, TopicFilter};
use super::upward::{BAD_NAME, Received};
use super::window::Window;
use crate::model::delivery::Share;
use crate::model::flow::Flow;
use crate::model::outgoing::Outgoing;
use crate::model::topic::{Pattern, is_wildcard};
use crate::protocol::{Claim, Command, Echo, Fault, Said, Subscribe as SubscribeCommand, Which};

/// What RabbitMQ's plugin takes anybody for who says nothing else; here it is as good as nothing.
const GUEST: &str = "guest";

const QOS_2: Violation =
    Violation { reason: ReasonCode::QosNotSupported, sentence: "QoS 2 is not supported in 5.0: see CONNACK" };
const BAD_METHOD: Violation = Violation {
    reason: ReasonCode::BadAuthenticationMethod,
    sentence: "no authentication methods are supported: use a user name and password",
};
const BAD_PASSWORD: Violation =
    Violation { reason: ReasonCode::BadUserNameOrPassword, sentence: "a password is UTF-8 here" };
const NO_LOCAL: Violation = Violation::protocol("a shared subscription may not have no local");
const NO_SESSION: Violation =
    Violation::protocol("DISCONNECT may not keep a session that was to end with its connection");
const NOT_NOW: Violation = Violation::protocol("an answer at QoS 2: this server sends nothing at QoS 2");

impl Mqtt {
    /// What a packet says, appended to what is said; what it leads to when it breaks a rule.
    pub(super) fn packet(&mut self, packet: Packet) -> Result<(), Fault> {
        let outcome = match packet {
            Packet::Connect(connect) => self.connect(*connect),
            Packet::Publish(publish) => self.publish(*publish),
            Packet::Puback(answer) => {
                self.window.settle(answer.packet_id);
                self.settle_share(&answer);
                self.say_again();
                self.say_waiting();
                Ok(())
            }
            Packet::Pubrel(answer) => {
                self.release(&answer);
                Ok(())
            }
            Packet::Pubrec(_) | Packet::Pubcomp(_) => Err(NOT_NOW),
            Packet::Subscribe(subscribe) => self.subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => {
                self.unsubscribe(&unsubscribe);
                Ok(())
            }
            Packet::Pingreq => {
                self.answer(&Packet::Pingresp);
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.disconnect(&disconnect),
            Packet::Auth(_) => Err(BAD_METHOD),
            // What a server sends, the reader does not let pass.
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => Ok(()),
        };
        outcome.map_err(|Violation { reason, sentence }| self.refuse(reason, sentence))
    }

    fn connect(&mut self, connect: Connect) -> Result<(), Violation> {
        let Connect { version, client_id, clean_start, keep_alive_seconds, will, user_name, password, properties } =
            connect;
        self.client = Client {
            version,
            is_unnamed: version == Version::V5 && client_id.is_empty(),
            packet_bytes_max: properties.packet_bytes_max.map_or(usize::MAX, |max| max.get() as usize),
            wants_words: properties.request_problem_information != Some(false),
            session_expiry_seconds: properties.session_expiry_seconds,
            lifetime: match version {
                Version::V5 => self.lifetime(properties.session_expiry_seconds.unwrap_or(0)),
                // A clean session is one that ends with its connection, and another has no end that the client names.
                Version::V31 | Version::V311 if clean_start => Duration::ZERO,
                Version::V31 | Version::V311 => self.session_expiry_max,
            },
        };
        self.window = Window::of(properties.receive_maximum);
        self.promise(keep_alive_seconds);
        if properties.authentication_method.is_some() {
            return Err(BAD_METHOD);
        }
        let will_delay_seconds = will.as_ref().and_then(|will| will.properties.delay_seconds).unwrap_or(0);
        self.will_delay = Duration::from_secs(will_delay_seconds.into());
        self.will = will.map(|will| testament(version, will)).transpose()?;
        let password = password.map(|password| String::from_utf8(password.0.bytes().to_vec()));
        let password = password.transpose().map_err(|_| BAD_PASSWORD)?;
        let is_guest = user_name.is_none_or(|name| name.is_empty() || name.as_str() == GUEST);
        let token = password.filter(|password| !(is_guest && (password.is_empty() || password == GUEST)));
        let id = Answers::Connect { has_credentials: token.is_some() }.into_id();
        let client = Some(client_id.into_string()).filter(|id| !id.is_empty());
        let claim = Some(Claim { client: client.clone(), anew: clean_start });
        self.said.push_back(Said::Command(Command::Connect { id, token, client, claim }));
        Ok(())
    }

    /// How long the session outlives its connection, when the client would have it do so for this long.
    fn lifetime(&self, asked_seconds: u32) -> Duration {
        Duration::from_secs(asked_seconds.into()).min(self.session_expiry_max)
    }

    /// Has the subscriptions of an earlier connection go on where they stood.
    pub(super) fn go_on(&mut self) {
        for (number, (filter, wish)) in self.subscriptions.standing().iter().enumerate() {
            let answers = Answers::Restored(u16::try_from(number).unwrap_or(u16::MAX));
            let command = match filter {
                Filter::Own(pattern) => Command::Subscribe(SubscribeCommand {
                    id: answers.into_id(),
                    after: self.subscriptions.goes_on_after(pattern),
                    ..wish.subscribe(pattern.clone())
                }),
                Filter::Shared(share) => self.join(share.clone(), answers),
            };
            self.said.push_back(Said::Command(command));
        }
    }

    fn publish(&mut self, publish: Publish) -> Result<(), Violation> {
        let version = self.client.version;
        let topic = match self.upward.topic(&publish.topic) {
            Ok(topic) => topic,
            Err(BAD_NAME) if version == Version::V5 => return self.decline(publish.delivery, BAD_NAME),
            Err(violation) => return Err(violation),
        };
        let answers = match publish.delivery {
            Delivery::AtMostOnce => Answers::Nobody(version),
            Delivery::AtLeastOnce(transmission) => {
                if version == Version::V5 {
                    self.upward.expect(transmission.packet_id)?;
                }
                Answers::Puback(version, transmission.packet_id)
            }
            Delivery::ExactlyOnce(_) if version == Version::V5 => return Err(QOS_2),
            Delivery::ExactlyOnce(transmission) => {
                let packet = transmission.packet_id;
                match self.upward.receive(packet)? {
                    None => Answers::Pubrec(version, packet),
                    // It is confirmed when the broker has confirmed it.
                    Some(Received::OnItsWay) => return Ok(()),
                    Some(Received::Confirmed) => {
                        let answer = self.acknowledgement(packet, ReasonCode::Success, "");
                        self.answer(&Packet::Pubrec(answer));
                        return Ok(());
                    }
                }
            }
        };
        let message = match message::outgoing(topic, publish.properties, publish.payload) {
            Ok(message) => message,
            Err(reason) => {
                let sentence = "the payload, or the response topic, is not what it is said to be";
                return self.decline(publish.delivery, Violation { reason, sentence });
            }
        };
        let message = Outgoing { retained: publish.retain, ..message };
        let echo = if self.subscriptions.needs().publishers { Echo::Marked } else { Echo::All };
        let id = answers.into_id();
        self.said.push_back(Said::Command(Command::Publish { id, message, mandatory: false, echo }));
        Ok(())
    }

    /// Does not take a message of 5.0: at QoS 1 that is told, at QoS 0 it ends the session.
    fn decline(&mut self, delivery: Delivery, violation: Violation) -> Result<(), Violation> {
        let Delivery::AtLeastOnce(transmission) = delivery else { return Err(violation) };
        self.upward.settle(transmission.packet_id);
        let answer = self.acknowledgement(transmission.packet_id, violation.reason, violation.sentence);
        self.answer(&Packet::Puback(answer));
        Ok(())
    }

    /// PUBREL is answered even when nothing of it is known: it was answered before (3.1.1 §4.3.3).
    fn release(&mut self, answer: &Acknowledgement) {
        let is_known = self.upward.release(answer.packet_id);
        let reason = if is_known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        let answer = self.acknowledgement(answer.packet_id, reason, "");
        self.answer(&Packet::Pubcomp(answer));
    }

    fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), Violation> {
        let Subscribe { packet_id, properties, subscriptions } = subscribe;
        let is_in_use = self.subscriptions.is_in_use(packet_id);
        let mut filters = Vec::with_capacity(subscriptions.len());
        let mut commands = Vec::new();
        for (place, subscription) in subscriptions.iter().enumerate() {
            if is_in_use {
                filters.push(Asked::Answered(ReasonCode::PacketIdentifierInUse));
                continue;
            }
            let answers = Answers::Suback(packet_id, u16::try_from(place).unwrap_or(u16::MAX));
            let (asked, asking) = self.filter(subscription, (answers, properties.id))?;
            filters.push(asked);
            commands.extend(asking.map(Said::Command));
        }
        if is_in_use {
            let reasons = vec![ReasonCode::PacketIdentifierInUse; filters.len()];
            let properties = self.words("a SUBSCRIBE or UNSUBSCRIBE with this packet id is not answered yet");
            let answer = super::packet::SubscriptionAcknowledgement { packet_id, reasons, properties };
            self.answer(&Packet::Suback(answer));
            return Ok(());
        }
        if let Some(answer) = self.subscriptions.ask(packet_id, filters) {
            self.answer(&Packet::Suback(answer));
        }
        self.said.extend(commands);
        Ok(())
    }

    /// What one filter asks for.
    fn filter(
        &mut self,
        subscription: &Subscription,
        (answers, id): (Answers, Option<SubscriptionId>),
    ) -> Result<(Asked, Option<Command>), Violation> {
        let Ok(TopicFilter { pattern, share }) = TopicFilter::parse(&subscription.filter) else {
            return Ok((Asked::Answered(ReasonCode::TopicFilterInvalid), None));
        };
        if share.is_some() && subscription.no_local {
            return Err(NO_LOCAL);
        }
        let wish = Wish {
            version: self.client.version,
            qos: subscription.qos.min(Qos::AtLeastOnce),
            retain_as_published: subscription.retain_as_published,
            no_local: subscription.no_local,
            is_wild: pattern.words().next().is_some_and(is_wildcard),
            id,
        };
        if let Some(group) = share {
            let share = Share { name: subscription.filter.as_str().to_owned(), group, pattern };
            self.give_back(&share.name);
            let command = self.join(share.clone(), answers);
            return Ok((Asked::Waits(Filter::Shared(share), wish), Some(command)));
        }
        let filter = Filter::Own(pattern.clone());
        let retained = match subscription.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !self.subscriptions.holds(&filter),
            RetainHandling::DoNotSend => false,
        };
        let after = self.subscriptions.goes_on_after(&pattern);
        let command = SubscribeCommand { id: answers.into_id(), after, retained, ..wish.subscribe(pattern) };
        Ok((Asked::Waits(filter, wish), Some(Command::Subscribe(command))))
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let packet_id = unsubscribe.packet_id;
        if self.subscriptions.is_in_use(packet_id) {
            let reasons = vec![ReasonCode::PacketIdentifierInUse; unsubscribe.filters.len()];
            let properties = self.words("a SUBSCRIBE or UNSUBSCRIBE with this packet id is not answered yet");
            let answer = super::packet::SubscriptionAcknowledgement { packet_id, reasons, properties };
            return self.answer(&Packet::Unsuback(answer));
        }
        let mut commands = Vec::new();
        let mut filters = Vec::with_capacity(unsubscribe.filters.len());
        for (place, filter) in unsubscribe.filters.iter().enumerate() {
            let (ending, command) = self.ending(filter, (packet_id, u16::try_from(place).unwrap_or(u16::MAX)));
            filters.push(ending);
            commands.extend(command.map(Said::Command));
        }
        if let Some(answer) = self.subscriptions.end(packet_id, filters) {
            self.answer(&Packet::Unsuback(answer));
        }
        self.said.extend(commands);
    }

    fn ending(&mut self, text: &str, (packet, place): (PacketId, u16)) -> (Ending, Option<Command>) {
        let answers = Answers::Unsuback(packet, place);
        match TopicFilter::parse(text) {
            Err(_) => (Ending::Answered(ReasonCode::TopicFilterInvalid), None),
            Ok(TopicFilter { pattern, share: None }) => {
                self.forget(&pattern);
                let which = Which::Pattern(pattern.clone());
                let command = Command::Unsubscribe { id: answers.into_id(), which };
                (Ending::Waits(Filter::Own(pattern)), Some(command))
            }
            Ok(TopicFilter { pattern, share: Some(group) }) => {
                let share = Share { name: text.to_owned(), group, pattern };
                let filter = Filter::Shared(share.clone());
                if !self.subscriptions.holds(&filter) {
                    return (Ending::Answered(ReasonCode::NoSubscriptionExisted), None);
                }
                (Ending::Waits(filter), Some(self.part(share, answers)))
            }
        }
    }

    /// The client leaves: its will goes with it, unless it says otherwise. It may say anew how long its session is kept, but not
    /// that it is at all (MQTT 5.0 §3.14.2.2.2).
    fn disconnect(&mut self, disconnect: &Disconnect) -> Result<(), Violation> {
        if let Some(asked) = disconnect.properties.session_expiry_seconds {
            if asked > 0 && self.client.session_expiry_seconds.unwrap_or(0) == 0 {
                return Err(NO_SESSION);
            }
            self.client.lifetime = self.lifetime(asked);
        }
        if disconnect.reason == ReasonCode::Success {
            self.will = None;
        }
        self.standing = Standing::Over;
        self.said.push_back(Said::Command(Command::Leave { id: None }));
        Ok(())
    }
}

impl Wish {
    /// A subscription that is so.
    fn subscribe(&self, pattern: Pattern) -> SubscribeCommand {
        SubscribeCommand {
            // What has to be acknowledged may come late, and none of it is left out.
            flow: (self.qos > Qos::AtMostOnce).then_some(Flow::CatchUp),
            label: Some(self.label()),
            ..SubscribeCommand::to(pattern)
        }
    }
}

/// A will as the message that it becomes.
fn testament(version: Version, will: Will) -> Result<Outgoing, Violation> {
    if version == Version::V5 && will.qos == Qos::ExactlyOnce {
        return Err(QOS_2);
    }
    let topic = topic::topic_of(&will.topic).map_err(|_| BAD_NAME)?;
    let message = message::outgoing(topic, will.properties.message, will.payload.into_bytes());
    let sentence = "the will's payload, or its response topic, is not what it is said to be";
    let message = message.map_err(|reason| Violation { reason, sentence })?;
    Ok(Outgoing { retained: will.retain, ..message })
}
