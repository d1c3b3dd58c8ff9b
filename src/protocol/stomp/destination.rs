//! Destinations as RabbitMQ's STOMP plugin reads them, and how they are written.
//!
//! A name ends at the next slash; a slash inside a name is `%2F`, in capitals, and nothing else is decoded. The name of a reply
//! queue goes to the end. A text without a slash is the name of a queue.

use std::fmt;

use thiserror::Error;

use crate::model::topic::TOPIC_BYTES_MAX;

/// How a slash inside a name is written.
const SLASH: &str = "%2F";

/// Where messages go to or come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// `/topic/a.b.c`: of the topic exchange. To subscribe it may hold wildcards.
    Topic(String),
    /// `/exchange/NAME/KEY`: of an exchange by name.
    Exchange {
        /// The exchange.
        name: String,
        /// The routing key, or the pattern to subscribe; empty where none is given.
        key: String,
    },
    /// `/queue/NAME`: a queue of STOMP's own, which RabbitMQ declares.
    Queue(String),
    /// `/amq/queue/NAME`: a queue that exists.
    ExistingQueue(String),
    /// `/temp-queue/NAME`: a name for this session's own queue; good in `reply-to` only.
    TemporaryQueue(String),
    /// `/reply-queue/NAME`: the queue that answers to a message go to.
    ReplyQueue(String),
}

/// Not a destination: the rest of a sentence that begins with what was called one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DestinationError {
    /// It begins with nothing that there is.
    #[error("must begin with /topic/, /exchange/, /queue/, /amq/queue/, /temp-queue/ or /reply-queue/")]
    Unknown,
    /// The name is missing.
    #[error("has no name: write {prefix}/NAME")]
    Nameless {
        /// What comes before the name.
        prefix: &'static str,
    },
    /// A slash too many.
    #[error("has a slash too many: join the words of a topic with dots, and write a slash inside a name as {SLASH}")]
    Slash,
    /// A name that AMQP has no room for.
    #[error("has a name of more than {TOPIC_BYTES_MAX} bytes, the limit of AMQP")]
    TooLong,
}

/// What comes before a name, and what it makes of it.
type Kind = (&'static str, fn(String) -> Destination);

/// All but exchanges, whose names are two.
const KINDS: [Kind; 5] = [
    ("/topic", Destination::Topic),
    ("/queue", Destination::Queue),
    ("/amq/queue", Destination::ExistingQueue),
    ("/temp-queue", Destination::TemporaryQueue),
    (REPLY_QUEUE, Destination::ReplyQueue),
];

const EXCHANGE: &str = "/exchange";

const REPLY_QUEUE: &str = "/reply-queue";

impl Destination {
    /// Reads a destination.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        if !text.contains('/') {
            return Ok(Self::Queue(name(text, "/queue")?));
        }
        if let Some(rest) = below(text, EXCHANGE) {
            return exchange(rest);
        }
        for (prefix, make) in KINDS {
            let Some(rest) = below(text, prefix) else { continue };
            if rest.contains('/') && prefix != REPLY_QUEUE {
                return Err(DestinationError::Slash);
            }
            return Ok(make(name(rest, prefix)?));
        }
        Err(DestinationError::Unknown)
    }
}

/// What follows a prefix and its slash; empty where nothing does.
fn below<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(prefix)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// An exchange, and a key where there is one. No key and an empty one are the same.
fn exchange(rest: &str) -> Result<Destination, DestinationError> {
    let (exchange, key) = rest.split_once('/').unwrap_or((rest, ""));
    let name = name(exchange, EXCHANGE)?;
    if key.contains('/') {
        return Err(DestinationError::Slash);
    }
    Ok(Destination::Exchange { name, key: decoded(key)? })
}

fn name(text: &str, prefix: &'static str) -> Result<String, DestinationError> {
    if text.is_empty() { Err(DestinationError::Nameless { prefix }) } else { decoded(text) }
}

fn decoded(text: &str) -> Result<String, DestinationError> {
    let name = text.replace(SLASH, "/");
    if name.len() > TOPIC_BYTES_MAX { Err(DestinationError::TooLong) } else { Ok(name) }
}

/// As a client may send it back: all but names that hold the three characters `%2F` are read again as they were. RabbitMQ
/// writes more than a slash in hexadecimal, but does not read that itself.
impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, name) = match self {
            Self::Exchange { name, key } => {
                write!(formatter, "{EXCHANGE}/{}", name.replace('/', SLASH))?;
                let separator = if key.is_empty() { "" } else { "/" };
                return write!(formatter, "{separator}{}", key.replace('/', SLASH));
            }
            Self::Topic(name) => ("/topic", name),
            Self::Queue(name) => ("/queue", name),
            Self::ExistingQueue(name) => ("/amq/queue", name),
            Self::TemporaryQueue(name) => ("/temp-queue", name),
            Self::ReplyQueue(name) => (REPLY_QUEUE, name),
        };
        write!(formatter, "{prefix}/{}", name.replace('/', SLASH))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exchange(name: &str, key: &str) -> Destination {
        Destination::Exchange { name: name.into(), key: key.into() }
    }

    /// What RabbitMQ 3.10.8 reads, asked of its own code.
    #[test]
    fn destinations_are_read_as_rabbitmq_reads_them() {
        use Destination::{ExistingQueue, Queue, ReplyQueue, TemporaryQueue, Topic};
        for (text, expected) in [
            ("/topic/a.b.c", Topic("a.b.c".into())),
            ("/topic/a.*.#", Topic("a.*.#".into())),
            ("/topic/a%2Fb", Topic("a/b".into())),
            ("/topic/a%2fb", Topic("a%2fb".into())),
            ("/topic/a%20b", Topic("a%20b".into())),
            ("/topic/%252F", Topic("%252F".into())),
            ("/topic/%%2F2F", Topic("%/2F".into())),
            ("/exchange/logs", exchange("logs", "")),
            ("/exchange/logs/", exchange("logs", "")),
            ("/exchange/logs/a.b", exchange("logs", "a.b")),
            ("/exchange/a%2Fb/c%2Fd", exchange("a/b", "c/d")),
            ("/queue/jobs", Queue("jobs".into())),
            ("/queue/a b", Queue("a b".into())),
            ("/queue/a%2Fb", Queue("a/b".into())),
            ("jobs", Queue("jobs".into())),
            ("a%2Fb", Queue("a/b".into())),
            ("/amq/queue/jobs", ExistingQueue("jobs".into())),
            ("/temp-queue/x", TemporaryQueue("x".into())),
            ("/reply-queue/x", ReplyQueue("x".into())),
            ("/reply-queue/a/b", ReplyQueue("a/b".into())),
            ("/reply-queue/a%2Fb", ReplyQueue("a/b".into())),
            ("/reply-queue//", ReplyQueue("/".into())),
        ] {
            assert_eq!(Destination::parse(text), Ok(expected), "{text}");
        }
    }

    /// What RabbitMQ 3.10.8 refuses, likewise; the empty text and `/reply-queue` it refuses in other words.
    #[test]
    fn what_rabbitmq_refuses_is_refused() {
        use DestinationError::{Nameless, Slash, Unknown};
        let nameless = |prefix| Nameless { prefix };
        for (text, expected) in [
            ("", nameless("/queue")),
            ("/topic", nameless("/topic")),
            ("/topic/", nameless("/topic")),
            ("/topic/a/b", Slash),
            ("/topic/a/", Slash),
            ("/exchange", nameless("/exchange")),
            ("/exchange/", nameless("/exchange")),
            ("/exchange//a", nameless("/exchange")),
            ("/exchange/logs/a/b", Slash),
            ("/queue", nameless("/queue")),
            ("/queue/", nameless("/queue")),
            ("/queue/a/b", Slash),
            ("/amq/queue", nameless("/amq/queue")),
            ("/amq/queue/", nameless("/amq/queue")),
            ("/amq/queue/a/b", Slash),
            ("/temp-queue", nameless("/temp-queue")),
            ("/temp-queue/a/b", Slash),
            ("/reply-queue", nameless("/reply-queue")),
            ("/reply-queue/", nameless("/reply-queue")),
            ("/amq", Unknown),
            ("/amq/topic/x", Unknown),
            ("/", Unknown),
            ("a/b", Unknown),
            ("topic/a", Unknown),
            ("//topic/a", Unknown),
            ("/Topic/a", Unknown),
            ("/topics/a", Unknown),
            (" /topic/a", Unknown),
        ] {
            assert_eq!(Destination::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn names_have_the_length_that_amqp_has_room_for() {
        for prefix in ["/topic/", "/exchange/", "/exchange/x/", "/queue/", "/amq/queue/", "/reply-queue/", ""] {
            let longest = format!("{prefix}{}%2F", "x".repeat(254));
            assert!(Destination::parse(&longest).is_ok(), "{longest}");
            assert_eq!(Destination::parse(&format!("{longest}x")), Err(DestinationError::TooLong), "{longest}");
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let sentence = |text| Destination::parse(text).unwrap_err().to_string();
        assert_eq!(sentence("/topic"), "has no name: write /topic/NAME");
        assert!(sentence("/topic/a/b").ends_with("a slash inside a name as %2F"));
        assert!(sentence("/tpoic/a").starts_with("must begin with /topic/, "));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(kind in 0..6_usize, name in "[a/%2é .]{1,8}", key in "[a/%2é .*#]{0,8}") {
            let destination = match KINDS.get(kind) {
                Some((_, make)) => make(name),
                None => exchange(&name, &key),
            };
            prop_assert_eq!(Destination::parse(&destination.to_string()), Ok(destination));
        }

        #[test]
        fn no_text_does_harm(text in "(/(topic|exchange|queue|amq|temp-queue|reply-queue)?){0,3}[/%2Fa]{0,6}|\\PC{0,20}") {
            if let Ok(destination) = Destination::parse(&text) {
                prop_assert_eq!(Destination::parse(&destination.to_string()), Ok(destination));
            }
        }
    }
}
