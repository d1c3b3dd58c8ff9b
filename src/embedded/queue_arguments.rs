//! The arguments of `queue.declare`, checked: which rules a queue keeps. Knows no queue.

use std::time::Duration;

use amq_protocol::types::{AMQPValue, FieldTable};

use super::fault::Fault;
use super::limits::TTL_MILLISECONDS_MAX;
use super::message::Name;
use super::table::{field, integer, utf8};

/// What happens when a queue holds all it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Overflow {
    /// The oldest goes, to the dead letters where there are any.
    #[default]
    DropHead,
    /// The new one is refused: its publisher gets a nack.
    RejectPublish,
    /// The same, and it goes to the dead letters.
    RejectPublishDeadLetter,
}

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetters {
    pub(crate) exchange: Name,
    /// Instead of the key that the message had.
    pub(crate) routing_key: Option<Name>,
}

/// The rules of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rules {
    pub(crate) max_length: Option<u64>,
    pub(crate) max_length_bytes: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) message_ttl: Option<Duration>,
    pub(crate) expires: Option<Duration>,
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) max_priority: Option<u8>,
    pub(crate) single_active_consumer: bool,
}

/// The arguments that must be the same when a queue is declared again.
pub(crate) const COMPARED: [&str; 10] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-type",
    "x-single-active-consumer",
];

/// Arguments of streams and quorum queues, which a classic queue refuses.
const FOREIGN: [&str; 6] = [
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
    "x-delivery-limit",
    "x-quorum-initial-group-size",
    "x-max-in-memory-length",
];

fn invalid(name: &str, needs: &str) -> Fault {
    Fault::precondition(format!("invalid arg '{name}': it needs {needs}"))
}

/// The argument as a whole number that is not negative.
fn number(arguments: &FieldTable, name: &str) -> Result<Option<u64>, Fault> {
    let Some(value) = field(arguments, name) else { return Ok(None) };
    let number = integer(value).and_then(|number| u64::try_from(number).ok());
    number.map(Some).ok_or_else(|| invalid(name, "a whole number that is not negative"))
}

fn duration(arguments: &FieldTable, name: &str) -> Result<Option<Duration>, Fault> {
    match number(arguments, name)? {
        Some(milliseconds) if milliseconds > TTL_MILLISECONDS_MAX => {
            Err(invalid(name, &format!("to be at most {TTL_MILLISECONDS_MAX} ms")))
        }
        other => Ok(other.map(Duration::from_millis)),
    }
}

/// The argument as text that fits a short string.
fn name(arguments: &FieldTable, name: &str) -> Result<Option<Name>, Fault> {
    let Some(value) = field(arguments, name) else { return Ok(None) };
    let text = utf8(value).filter(|text| text.len() <= 255);
    text.map(|text| Some(text.into())).ok_or_else(|| invalid(name, "a text of at most 255 bytes"))
}

fn check_type(arguments: &FieldTable) -> Result<(), Fault> {
    let kind = name(arguments, "x-queue-type")?;
    match kind.as_deref() {
        None | Some("classic") => {}
        // RabbitMQ without the type refuses the queue and spares the connection.
        Some(kind @ ("quorum" | "stream")) => {
            return Err(Fault::precondition(format!("the embedded broker has no queues of type {kind}: use RabbitMQ")));
        }
        Some(_) => return Err(invalid("x-queue-type", "to be classic")),
    }
    match FOREIGN.iter().find(|name| field(arguments, name).is_some()) {
        Some(name) => Err(Fault::precondition(format!("invalid arg '{name}' for a queue of type classic"))),
        None => Ok(()),
    }
}

impl Rules {
    /// Reads the arguments; those without meaning here (`x-queue-mode` and what nobody knows) are ignored, as RabbitMQ does.
    ///
    /// # Errors
    /// 406 for a value that makes no sense, and for the queue types of RabbitMQ that are not here.
    pub(crate) fn parse(arguments: &FieldTable) -> Result<Self, Fault> {
        check_type(arguments)?;
        let overflow = match name(arguments, "x-overflow")?.as_deref() {
            None | Some("drop-head") => Overflow::DropHead,
            Some("reject-publish") => Overflow::RejectPublish,
            Some("reject-publish-dlx") => Overflow::RejectPublishDeadLetter,
            Some(_) => return Err(invalid("x-overflow", "drop-head, reject-publish or reject-publish-dlx")),
        };
        let expires = duration(arguments, "x-expires")?;
        if expires.is_some_and(|after| after.is_zero()) {
            return Err(invalid("x-expires", "to be more than 0 ms"));
        }
        let max_priority = number(arguments, "x-max-priority")?.map(u8::try_from).transpose();
        let single_active_consumer = match field(arguments, "x-single-active-consumer") {
            None => false,
            Some(AMQPValue::Boolean(wanted)) => *wanted,
            Some(_) => return Err(invalid("x-single-active-consumer", "true or false")),
        };
        Ok(Self {
            max_length: number(arguments, "x-max-length")?,
            max_length_bytes: number(arguments, "x-max-length-bytes")?,
            overflow,
            message_ttl: duration(arguments, "x-message-ttl")?,
            expires,
            dead_letters: dead_letters(arguments)?,
            max_priority: max_priority.map_err(|_| invalid("x-max-priority", "to be at most 255"))?,
            single_active_consumer,
        })
    }
}

fn dead_letters(arguments: &FieldTable) -> Result<Option<DeadLetters>, Fault> {
    let routing_key = name(arguments, "x-dead-letter-routing-key")?;
    match name(arguments, "x-dead-letter-exchange")? {
        Some(exchange) => Ok(Some(DeadLetters { exchange, routing_key })),
        None if routing_key.is_some() => Err(invalid("x-dead-letter-routing-key", "x-dead-letter-exchange beside it")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Code, short};
    use super::*;

    fn parse(name: &str, value: AMQPValue) -> Result<Rules, Fault> {
        let mut table = FieldTable::default();
        table.insert(short(name), value);
        Rules::parse(&table)
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (name, value) in [
            ("x-max-length", AMQPValue::LongInt(-1)),
            ("x-max-length", text("5")),
            ("x-message-ttl", AMQPValue::LongLongInt(i64::MAX)),
            ("x-expires", AMQPValue::LongInt(0)),
            ("x-overflow", text("explode")),
            ("x-dead-letter-routing-key", text("alone")),
            ("x-dead-letter-exchange", AMQPValue::Boolean(true)),
            ("x-max-priority", AMQPValue::LongInt(256)),
            ("x-single-active-consumer", text("yes")),
            ("x-max-age", text("1h")),
        ] {
            assert_eq!(parse(name, value).unwrap_err().code, Code::PreconditionFailed, "{name}");
        }
    }

    #[test]
    fn other_types_of_queue_are_for_rabbitmq() {
        for kind in ["stream", "quorum"] {
            let fault = parse("x-queue-type", text(kind)).unwrap_err();
            assert_eq!(fault.code, Code::PreconditionFailed, "the connection is spared");
            assert!(fault.text.contains("use RabbitMQ"));
        }
        assert_eq!(parse("x-queue-type", text("classic")), Ok(Rules::default()));
        assert_eq!(parse("x-something", text("else")), Ok(Rules::default()));
    }
}
