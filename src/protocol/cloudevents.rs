//! `cloudevents.json`: CloudEvents 1.0 over WebSocket in structured mode, one event in JSON a text message, both ways.
//!
//! [`event`] reads events, of clients and of structured AMQP messages; [`encode`] makes events of AMQP messages, [`decode`] AMQP
//! messages of events, in binary mode. What a session is told beside messages comes as events of types of our own.

mod decode;
mod encode;
mod event;
mod time;

use std::sync::Arc;

use crate::model::close::CloseReason;
use crate::model::topic::Topic;
use crate::protocol::{
    Codec, Command, Echo, Event, Failures, Fault, Incoming, Labels, Opening, Outbound, ProtocolId, Said, Subprotocol,
};

/// The row of the registry.
pub const SUBPROTOCOL: Subprotocol = Subprotocol {
    name: "cloudevents.json",
    summary: "CloudEvents 1.0, one event in JSON a message: `/ws?pattern=…&publish=TOPIC`",
    negotiable: true,
    index: ProtocolId(9),
    failures: Failures::End,
    labels: Labels::Absent,
    codec: |opening| Box::new(CloudEvents::new(opening)),
    encode_message: |message| Ok(Outbound::Text(encode::message(message).into())),
};

/// The codec of one session.
#[derive(Debug, Clone)]
pub struct CloudEvents {
    /// Where everything that it sends goes; without it each event to its subject.
    publish: Option<Topic>,
    /// Its name, part of the source of what it is told.
    connection: Arc<str>,
    /// How many events it was told beside messages, each with a number.
    told: u64,
}

impl CloudEvents {
    fn new(Opening { publish, connection, .. }: Opening) -> Self {
        Self { publish, connection, told: 0 }
    }
}

impl Codec for CloudEvents {
    fn decode(&mut self, message: Incoming<'_>) -> Result<Said, Fault> {
        let Incoming::Text(text) = message else {
            let detail = "cloudevents.json speaks in text messages: send text";
            return Err(Fault::Close { reason: CloseReason::UnsupportedData, detail });
        };
        let event = event::read(text).and_then(|event| decode::outgoing(&event, self.publish.as_ref()));
        let message = event.map_err(|detail| Fault::Close { reason: CloseReason::Policy, detail })?;
        Ok(Said::Command(Command::Publish { id: None, message, mandatory: false, echo: Echo::All }))
    }

    fn encode(&mut self, event: &Event) -> Option<Outbound> {
        let (name, cursors) = match event {
            // Resuming from here loses nothing, because a position is told only when everything before it was sent.
            Event::Position { cursors } => ("position", Some(cursors)),
            Event::CaughtUp { cursors, .. } => ("caught_up", Some(cursors)),
            Event::Subscribed { .. } => ("subscribed", None),
            Event::Gap(_) => ("gap", None),
            Event::Outage { .. } => ("outage", None),
            Event::Restored { .. } => ("restored", None),
            Event::Goodbye { .. } => ("goodbye", None),
            Event::Joined { .. } => ("join", None),
            Event::Left { .. } => ("leave", None),
            Event::Presence { .. } => ("presence", None),
            // Answers to what a client asks for, for which there is no word.
            Event::Welcome { .. }
            | Event::Done { .. }
            | Event::Delivered(_)
            | Event::Revoked { .. }
            | Event::Result { .. }
            | Event::Error { .. }
            | Event::Pong { .. } => return None,
        };
        self.told += 1;
        Some(Outbound::Text(encode::told((name, self.told), &self.connection, event, cursors).into()))
    }
}

#[cfg(test)]
mod tests;
