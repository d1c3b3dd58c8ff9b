//! One client's conversation from the protocol header to the end (AMQP 0-9-1, section 2.2.4), as a state machine: bytes
//! in, bytes out. It knows no socket and no clock; [`super::connection`] does the I/O and minds the time.

use std::collections::HashMap;
use std::time::Duration;

use amq_protocol::protocol::{AMQPClass, channel, connection};
use amq_protocol::types::{AMQPValue, FieldTable};
use bytes::{Buf, BytesMut};

use super::broker::{Broker, ChannelRef, SessionId};
use super::channel::{Channel, Turn};
use super::fault::{Code, Fault, short};
use super::limits::{CHANNELS_MAX, FRAME_BYTES_MAX, FRAME_BYTES_MIN, HEARTBEAT_SECONDS};
use super::login::{self, Login};
use super::message::Account;
use super::output::{Output, put_outgoing};
use super::table::field;
use super::wire::{self, Frame, PROTOCOL_HEADER, RawFrame, put_method};

/// How far a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The protocol header is awaited.
    Greeting,
    /// `start-ok` is.
    Login,
    /// `tune-ok` is.
    Tuning,
    /// `connection.open` is.
    Opening,
    /// All is agreed.
    Open,
    /// We said that it ends and await the answer.
    Closing,
    /// Nothing more is said once the output is sent.
    Closed,
}

/// What is the same for all conversations of a listener.
#[derive(Debug, Clone)]
pub(crate) struct House {
    pub(crate) connections_max: usize,
    /// What bodies cost that are still being received.
    pub(crate) assembling: Account,
}

/// What the client said of itself.
#[derive(Debug, Default)]
struct Abilities {
    consumer_cancel_notify: bool,
    connection_blocked: bool,
    authentication_failure_close: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Conversation {
    stage: Stage,
    house: House,
    /// Whether the peer is on this machine.
    is_local: bool,
    abilities: Abilities,
    frame_bytes_max: usize,
    channel_max: u16,
    heartbeat: Option<Duration>,
    session: Option<SessionId>,
    channels: HashMap<u16, Channel>,
    /// Channels with confirms that are not yet written.
    unconfirmed: Vec<u16>,
    /// Whether the client has to wait for its answers, because it published while memory is full.
    is_blocked: bool,
    /// Whether work was left because the output is full.
    is_stalled: bool,
    pub(crate) output: Output,
}

impl Conversation {
    /// A conversation that begins. `is_local`: whether the peer is on this machine.
    pub(crate) fn new(house: House, is_local: bool) -> Self {
        Self {
            stage: Stage::Greeting,
            house,
            is_local,
            abilities: Abilities::default(),
            frame_bytes_max: FRAME_BYTES_MAX as usize,
            channel_max: CHANNELS_MAX,
            heartbeat: None,
            session: None,
            channels: HashMap::new(),
            unconfirmed: Vec::new(),
            is_blocked: false,
            is_stalled: false,
            output: Output::default(),
        }
    }

    /// How far it is.
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Its session with the broker, once open.
    pub(crate) fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Between two signs of life, as agreed; `None` when the client wants none.
    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat
    }

    /// The largest frame, as agreed.
    pub(crate) fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    /// Whether work was left because the output was full.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// Takes whole frames off the input and answers them, until the input, the room for answers or the memory ends.
    pub(crate) fn receive(&mut self, input: &mut BytesMut, broker: &mut Broker) {
        self.is_stalled = false;
        self.unblock(broker);
        while self.stage != Stage::Closed && !self.is_blocked {
            if self.output.is_full() {
                self.is_stalled = true;
                return;
            }
            let more = match self.stage {
                Stage::Greeting => self.greet(input),
                _ => self.receive_frame(input, broker),
            };
            if !more {
                return;
            }
        }
    }

    fn greet(&mut self, input: &mut BytesMut) -> bool {
        let Some(header) = input.get(..PROTOCOL_HEADER.len()) else { return false };
        if header == PROTOCOL_HEADER {
            input.advance(PROTOCOL_HEADER.len());
            self.say(0, AMQPClass::Connection(connection::AMQPMethod::Start(login::start())));
            self.stage = Stage::Login;
        } else {
            self.output.bytes.extend(PROTOCOL_HEADER);
            self.stage = Stage::Closed;
        }
        true
    }

    fn receive_frame(&mut self, input: &mut BytesMut, broker: &mut Broker) -> bool {
        match wire::take_frame(input, self.frame_bytes_max) {
            Ok(None) => return false,
            Ok(Some(raw)) => {
                let cause = self.cause(&raw);
                match self.answer(&raw, broker) {
                    Ok(()) => {}
                    Err(fault) if fault.code.is_soft() && self.stage == Stage::Open && raw.channel != 0 => {
                        self.close_channel(raw.channel, &fault, cause, broker);
                    }
                    Err(fault) => self.fail(&fault, cause, broker),
                }
            }
            Err(fault) => {
                self.fail(&fault, (0, 0), broker);
                // Where the next frame begins is anybody's guess.
                self.stage = Stage::Closed;
            }
        }
        true
    }

    /// The method that is to blame for what a frame does wrong: within a content, the publish that it belongs to.
    fn cause(&self, raw: &RawFrame) -> (u16, u16) {
        match self.channels.get(&raw.channel) {
            Some(channel) if channel.has_content() => (60, 40),
            _ => wire::method_number(raw),
        }
    }

    fn answer(&mut self, raw: &RawFrame, broker: &mut Broker) -> Result<(), Fault> {
        match self.stage {
            Stage::Closing => {
                self.await_close(wire::method_number(raw));
                Ok(())
            }
            Stage::Open if raw.channel != 0 => self.channel_frame(raw, broker),
            _ => match (wire::parse(raw)?, raw.channel) {
                (Frame::Heartbeat, _) => Ok(()),
                (Frame::Method(method), 0) => self.connection_method(*method, broker),
                (Frame::Method(_), _) => Err(Fault::new(Code::ChannelError, "the connection is not open yet")),
                _ => Err(Fault::new(Code::UnexpectedFrame, "content on channel 0, or before the connection is open")),
            },
        }
    }

    /// After our `connection.close` only its answer counts, or one that crossed it.
    fn await_close(&mut self, method: (u16, u16)) {
        match method {
            (10, 50) => {
                self.say(0, AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {})));
                self.stage = Stage::Closed;
            }
            (10, 51) => self.stage = Stage::Closed,
            _ => {}
        }
    }

    fn connection_method(&mut self, method: AMQPClass, broker: &mut Broker) -> Result<(), Fault> {
        let AMQPClass::Connection(method) = method else {
            return Err(Fault::new(Code::CommandInvalid, "only the methods of class connection belong on channel 0"));
        };
        match (self.stage, method) {
            (Stage::Login, connection::AMQPMethod::StartOk(method)) => self.log_in(&method),
            (Stage::Tuning, connection::AMQPMethod::TuneOk(method)) => self.tune(&method),
            (Stage::Opening, connection::AMQPMethod::Open(method)) => self.open(&method, broker),
            (_, connection::AMQPMethod::Close(_)) => {
                self.leave(broker);
                self.say(0, AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {})));
                self.stage = Stage::Closed;
                Ok(())
            }
            (_, connection::AMQPMethod::UpdateSecret(_)) => Err(Fault::unsupported("secrets that are updated")),
            (stage, _) => Err(Fault::new(Code::CommandInvalid, format!("this method is not awaited now ({stage:?})"))),
        }
    }

    fn log_in(&mut self, method: &connection::StartOk) -> Result<(), Fault> {
        let capabilities = match field(&method.client_properties, "capabilities") {
            Some(AMQPValue::FieldTable(capabilities)) => capabilities.clone(),
            _ => FieldTable::default(),
        };
        let can = |name: &str| field(&capabilities, name) == Some(&AMQPValue::Boolean(true));
        self.abilities = Abilities {
            consumer_cancel_notify: can("consumer_cancel_notify"),
            connection_blocked: can("connection.blocked"),
            authentication_failure_close: can("authentication_failure_close"),
        };
        match Login::parse(method).and_then(|login| login.check(self.is_local)) {
            Ok(()) => {}
            Err(fault) if self.abilities.authentication_failure_close => return Err(fault),
            Err(fault) => {
                // An old client takes the end of the connection for a refused login, and a method for a surprise.
                tracing::info!(text = %fault.text, "embedded broker refused a login");
                self.stage = Stage::Closed;
                return Ok(());
            }
        }
        let tune =
            connection::Tune { channel_max: CHANNELS_MAX, frame_max: FRAME_BYTES_MAX, heartbeat: HEARTBEAT_SECONDS };
        self.say(0, AMQPClass::Connection(connection::AMQPMethod::Tune(tune)));
        self.stage = Stage::Tuning;
        Ok(())
    }

    fn tune(&mut self, method: &connection::TuneOk) -> Result<(), Fault> {
        let check = |name: &str, wanted: u32, least: u32, most: u32| {
            match wanted {
                0 => Ok(most),
                low if low < least => Err(("lower than the minimum", least)),
                high if high > most => Err(("higher than the maximum", most)),
                agreed => Ok(agreed),
            }
            .map_err(|(what, limit)| {
                let text = format!("negotiated {name} = {wanted} is {what} allowed value ({limit})");
                Fault::new(Code::NotAllowed, text)
            })
        };
        let frame_bytes_max = check("frame_max", method.frame_max, FRAME_BYTES_MIN, FRAME_BYTES_MAX)?;
        let channel_max = check("channel_max", method.channel_max.into(), 1, CHANNELS_MAX.into())?;
        self.frame_bytes_max = frame_bytes_max as usize;
        self.channel_max = u16::try_from(channel_max).unwrap_or(CHANNELS_MAX);
        self.heartbeat = (method.heartbeat > 0).then(|| Duration::from_secs(method.heartbeat.into()));
        self.stage = Stage::Opening;
        Ok(())
    }

    fn open(&mut self, method: &connection::Open, broker: &mut Broker) -> Result<(), Fault> {
        let vhost = method.virtual_host.as_str();
        if vhost != "/" {
            let text = format!("vhost {vhost} not found: the embedded broker has '/' only");
            return Err(Fault::new(Code::NotAllowed, text));
        }
        if broker.sessions() >= self.house.connections_max {
            let text =
                format!("connection limit ({}) is reached: raise embedded.connections_max", self.house.connections_max);
            return Err(Fault::new(Code::NotAllowed, text));
        }
        self.session = Some(broker.open_session(self.abilities.consumer_cancel_notify));
        self.stage = Stage::Open;
        self.say(0, AMQPClass::Connection(connection::AMQPMethod::OpenOk(connection::OpenOk {})));
        Ok(())
    }

    fn channel_frame(&mut self, raw: &RawFrame, broker: &mut Broker) -> Result<(), Fault> {
        let number = raw.channel;
        let method = wire::method_number(raw);
        let Some(session) = self.session else { return Ok(()) };
        let at = ChannelRef { session, number };
        match (method, self.channels.get(&number).map(Channel::is_closing)) {
            // What a client sent before it learnt of the end of its channel is not for us to answer.
            ((20, 41), _) => {
                if self.channels.get(&number).is_some_and(Channel::is_closing) {
                    self.channels.remove(&number);
                }
                return Ok(());
            }
            ((20, 40), Some(_)) => {
                self.flush_confirms();
                self.drain(broker);
                broker.close_channel(at);
                self.channels.remove(&number);
                self.say(number, AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})));
                return Ok(());
            }
            (_, Some(true)) => return Ok(()),
            ((20, 10), None) => return self.open_channel(at, broker),
            ((20, 10), Some(_)) => return Err(Fault::new(Code::ChannelError, "second 'channel.open' seen")),
            (_, None) => {
                return Err(Fault::new(Code::ChannelError, format!("channel {number}: expected 'channel.open'")));
            }
            (_, Some(false)) => {}
        }
        let frame = wire::parse(raw)?;
        let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
        let mut turn = Turn {
            broker,
            at,
            out: &mut self.output.bytes,
            frame_bytes_max: self.frame_bytes_max,
            assembling: &self.house.assembling,
        };
        let published = channel.receive(frame, &mut turn)?;
        if channel.has_confirms() && self.unconfirmed.last() != Some(&number) {
            self.unconfirmed.push(number);
        }
        if published && broker.is_alarmed() {
            self.block(session, broker);
        }
        Ok(())
    }

    fn open_channel(&mut self, at: ChannelRef, broker: &mut Broker) -> Result<(), Fault> {
        if at.number > self.channel_max || self.channels.len() >= usize::from(self.channel_max) {
            let text = format!("channel {} is beyond the negotiated channel_max ({})", at.number, self.channel_max);
            return Err(Fault::new(Code::NotAllowed, text));
        }
        broker.open_channel(at);
        self.channels.insert(at.number, Channel::default());
        self.say(at.number, AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {})));
        Ok(())
    }

    fn close_channel(&mut self, number: u16, fault: &Fault, (class_id, method_id): (u16, u16), broker: &mut Broker) {
        tracing::info!(channel = number, code = fault.code.number(), text = %fault.text, "embedded broker closed a channel");
        self.flush_confirms();
        self.drain(broker);
        if let Some(session) = self.session {
            broker.close_channel(ChannelRef { session, number });
        }
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.end();
        }
        let close =
            channel::Close { reply_code: fault.code.number(), reply_text: fault.reply_text(), class_id, method_id };
        self.say(number, AMQPClass::Channel(channel::AMQPMethod::Close(close)));
    }

    /// Ends the conversation because of a fault, or to stop the listener.
    pub(crate) fn fail(&mut self, fault: &Fault, (class_id, method_id): (u16, u16), broker: &mut Broker) {
        if matches!(self.stage, Stage::Closing | Stage::Closed) {
            return;
        }
        if fault.code != Code::ConnectionForced {
            tracing::info!(code = fault.code.number(), text = %fault.text, "embedded broker closed a connection");
        }
        self.leave(broker);
        self.is_blocked = false;
        let (reply_code, reply_text) = (fault.code.number(), fault.reply_text());
        let close = connection::Close { reply_code, reply_text, class_id, method_id };
        self.say(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)));
        // Before its header, a peer may not even speak this protocol.
        self.stage = if self.stage == Stage::Greeting { Stage::Closed } else { Stage::Closing };
    }

    /// Gives back everything that the client held.
    pub(crate) fn leave(&mut self, broker: &mut Broker) {
        self.flush_confirms();
        self.channels.clear();
        if let Some(session) = self.session.take() {
            broker.close_session(session);
        }
    }

    fn block(&mut self, session: SessionId, broker: &mut Broker) {
        self.is_blocked = true;
        broker.set_blocked(session, true);
        if self.abilities.connection_blocked {
            let reason = short("low on memory: consume something, or raise embedded.memory_bytes_max");
            self.say(0, AMQPClass::Connection(connection::AMQPMethod::Blocked(connection::Blocked { reason })));
        }
    }

    fn unblock(&mut self, broker: &mut Broker) {
        let Some(session) = self.session.filter(|_| self.is_blocked && !broker.is_alarmed()) else { return };
        self.is_blocked = false;
        broker.set_blocked(session, false);
        if self.abilities.connection_blocked {
            self.say(0, AMQPClass::Connection(connection::AMQPMethod::Unblocked(connection::Unblocked {})));
        }
    }

    /// Writes what is due without having been asked for: confirms and deliveries.
    pub(crate) fn collect(&mut self, broker: &mut Broker) {
        let Some(session) = self.session else { return };
        self.flush_confirms();
        loop {
            self.drain(broker);
            if self.output.is_full() {
                self.is_stalled = true;
                return;
            }
            if !broker.feed(session) {
                return;
            }
        }
    }

    /// Writes what waits for this connection.
    fn drain(&mut self, broker: &mut Broker) {
        let Some(session) = self.session else { return };
        for outgoing in broker.take_outbox(session) {
            put_outgoing(&mut self.output.bytes, outgoing, self.frame_bytes_max);
        }
    }

    fn flush_confirms(&mut self) {
        for number in self.unconfirmed.drain(..) {
            if let Some(channel) = self.channels.get_mut(&number) {
                channel.flush_confirms(number, &mut self.output.bytes);
            }
        }
    }

    /// Writes a sign of life.
    pub(crate) fn beat(&mut self) {
        wire::put_heartbeat(&mut self.output.bytes);
    }

    fn say(&mut self, channel: u16, method: AMQPClass) {
        put_method(&mut self.output.bytes, channel, method);
    }
}
