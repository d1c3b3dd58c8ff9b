//! What went wrong at the broker, in sentences that name the key to change. The broker's own words are quoted where they
//! say more than its code; no sentence holds a password.

use std::io;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

use crate::model::topic::Pattern;
use crate::source::Trouble;

/// Whom we speak to and as whom: what may be printed of an AMQP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Host and port.
    pub(crate) address: String,
    /// The virtual host.
    pub(crate) vhost: String,
    /// The user's name.
    pub(crate) user: String,
}

/// What the broker's refusal of an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It does not exist (404).
    NotFound,
    /// Not permitted (403).
    AccessRefused,
    /// Consumed by somebody else, and one of the two would be alone (403 too).
    InUse,
    /// Locked by another connection (405).
    Locked,
    /// Exists with other settings, or an argument is wrong (406).
    Precondition,
    /// There are as many as there may be (406 too).
    Limit,
    /// Anything else that closes the channel and not the connection.
    Other,
}

/// The broker's refusal, if that is what the error is. Its texts quote names and patterns that anybody may have chosen, and
/// are cut off after 255 bytes: so only how they begin, up to the first name, tells what the code leaves open. So it is from
/// RabbitMQ 3.10 to 4.
pub(crate) fn refusal(error: &Error) -> Option<Refusal> {
    let ErrorKind::ProtocolError(error) = error.kind() else { return None };
    let text = error.get_message().as_str();
    match error.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) if text.starts_with("NOT_FOUND - no ") => Some(Refusal::NotFound),
        // So RabbitMQ speaks of what it has and cannot reach, as in its own first moments: "home node '…' of …".
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Some(Refusal::Other),
        // "queue '…' in vhost '…' in exclusive use"; where a right is missing, it says "access to queue '…' …".
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if text.starts_with("ACCESS_REFUSED - queue '") => {
            Some(Refusal::InUse)
        }
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Some(Refusal::AccessRefused),
        AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => Some(Refusal::Locked),
        // "cannot declare queue '…': queue limit in vhost '…' (…) is reached".
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
            if text.starts_with("PRECONDITION_FAILED - cannot declare ") =>
        {
            Some(Refusal::Limit)
        }
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => Some(Refusal::Precondition),
        AMQPErrorKind::Soft(_) => Some(Refusal::Other),
        AMQPErrorKind::Hard(_) => None,
    }
}

/// Whether a consumer was refused because what it named is a stream; see [`super::intake::of_a_queue`].
pub(crate) fn is_of_a_stream(error: &Error) -> bool {
    refusal(error) == Some(Refusal::Precondition) && quoted(error).contains(super::intake::PRIORITY)
}

/// Whether the broker permits what was asked for, but not with this topic.
pub(crate) fn is_about_topic(error: &Error) -> bool {
    // A topic may hold any word by which the broker's refusals are told apart.
    matches!(refusal(error), Some(Refusal::AccessRefused | Refusal::InUse))
        && quoted(error).contains("access to topic '")
}

/// Whether a consumer that would begin at a place in a stream was refused because there is a queue.
pub(crate) fn is_of_a_queue(error: &Error) -> bool {
    refusal(error) == Some(Refusal::Precondition) && quoted(error).contains(super::stream::OFFSET)
}

/// Bytes of the largest payload that the broker takes, where it says so because one was larger: "message size 9 is larger than
/// configured max size 8". It does not say which one it was.
pub(crate) fn payload_bytes_max(error: &Error) -> Option<usize> {
    if refusal(error) != Some(Refusal::Precondition) {
        return None;
    }
    quoted(error).strip_prefix("PRECONDITION_FAILED - message size ")?.rsplit(' ').next()?.parse().ok()
}

/// Whether a stream was refused because the broker is the embedded one of another passerelle.
pub(crate) fn has_no_streams(error: &Error) -> bool {
    refusal(error) == Some(Refusal::Precondition)
        && quoted(error).starts_with("PRECONDITION_FAILED - the embedded broker has no queues of type ")
}

/// The broker's own words, or the library's, fit for a line of the log: they may quote what a client sent.
pub(crate) fn quoted(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => printable(error.get_message().as_str()),
        _ => printable(&error.to_string()),
    }
}

/// A text as it may stand in a sentence: what would end a line, or change how it is shown, is escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\'' | '"' => printable.push(character),
            _ => printable.extend(character.escape_debug()),
        }
    }
    printable
}

/// Why a connection could not be opened.
pub(crate) fn of_connect(error: &Error, peer: &Peer) -> Trouble {
    let address = &peer.address;
    Trouble(match error.kind() {
        ErrorKind::IOError(error) => return of_socket(error, peer),
        ErrorKind::ProtocolError(refusal) => of_login(refusal.kind(), &quoted(error), peer),
        ErrorKind::InvalidProtocolVersion(version) => {
            format!("{address} wants AMQP {version}, not 0-9-1: correct amqp.url")
        }
        _ => format!("cannot connect to RabbitMQ at {address}: {error}"),
    })
}

/// Why RabbitMQ lets nobody in, by its text: what is in it of names is the configuration's.
fn of_login(kind: &AMQPErrorKind, text: &str, peer: &Peer) -> String {
    let Peer { address, vhost, user } = peer;
    match kind {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => format!(
            "RabbitMQ at {address} refused user '{user}': correct user and password in amqp.url (the user 'guest' may log \
             in from RabbitMQ's own machine only)"
        ),
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.ends_with("is reached") => format!(
            "RabbitMQ at {address} has as many connections as it may, and a node needs two, better five: raise its limit, of the vhost \
             (rabbitmqctl set_vhost_limits -p {vhost}), of the user (rabbitmqctl set_user_limits {user}) or of the whole \
             broker (connection_max), or close others ({text})"
        ),
        AMQPErrorKind::Hard(_) if text.ends_with("is down") => format!(
            "vhost '{vhost}' is down at {address}: look why in RabbitMQ's log, and start it (rabbitmqctl restart_vhost -p \
             {vhost})"
        ),
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.contains("not found") => format!(
            "vhost '{vhost}' does not exist at {address}: create it (rabbitmqctl add_vhost {vhost}) or correct the path of \
             amqp.url ('/%2f' is the vhost '/')"
        ),
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.contains("refused for user") => format!(
            "user '{user}' may not use vhost '{vhost}' at {address}: grant it (rabbitmqctl set_permissions -p {vhost} {user} \
             '.*' '.*' '.*') or correct amqp.url"
        ),
        _ => format!("RabbitMQ at {address} refused the connection: {text}"),
    }
}

/// Why a socket could not be opened, or ended during the handshake.
pub(crate) fn of_socket(error: &io::Error, peer: &Peer) -> Trouble {
    let address = &peer.address;
    Trouble(match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens at {address}: start RabbitMQ or correct amqp.url")
        }
        io::ErrorKind::TimedOut => {
            format!("{address} did not answer within amqp.connect_timeout: correct amqp.url or look at the network")
        }
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            format!(
                "{address} closed the connection during the AMQP handshake: is it RabbitMQ, and is amqp:// or amqps:// right in amqp.url?"
            )
        }
        _ => format!("cannot connect to {address}: {error}"),
    })
}

/// Why a connection that stood is gone.
pub(crate) fn of_lost(error: Option<&Error>, peer: &Peer) -> Trouble {
    let Peer { address, user, .. } = peer;
    Trouble(match error.map(quoted) {
        // RabbitMQ does not refuse the channel, it ends the connection.
        Some(text) if text.starts_with("NOT_ALLOWED - number of channels opened ") => format!(
            "RabbitMQ at {address} ended the connection over one channel too many: raise the limit of the user (rabbitmqctl \
             set_user_limits {user} '{{\"max-channels\": -1}}') or of the whole broker (channel_max_per_node) ({text})"
        ),
        Some(text) => format!("lost the connection to RabbitMQ at {address} ({text}): connecting again"),
        None => format!("lost the connection to RabbitMQ at {address}: connecting again"),
    })
}

/// A sentence for whatever else the broker says of something.
fn of_other(error: &Error, what: &str, peer: &Peer) -> String {
    let (vhost, text) = (&peer.vhost, quoted(error));
    match refusal(error) {
        Some(Refusal::Limit) => format!(
            "{what} cannot be declared on vhost '{vhost}', where a limit is reached: delete what is not needed, or raise the \
             limit, as with rabbitmqctl set_vhost_limits -p {vhost} ({text})"
        ),
        _ => format!("{what} on vhost '{vhost}': {text}"),
    }
}

/// Why an exchange could not be checked, declared or bound; `key` is the section that names it.
pub(crate) fn of_exchange(error: &Error, exchange: &str, (peer, key): (&Peer, &str)) -> Trouble {
    let Peer { vhost, user, .. } = peer;
    Trouble(match refusal(error) {
        Some(Refusal::NotFound) => {
            format!("exchange '{exchange}' does not exist on vhost '{vhost}': create it or set {key}.declare = true")
        }
        Some(_) if is_about_topic(error) => format!(
            "user '{user}' may not bind a topic to exchange '{exchange}' on vhost '{vhost}': grant it with rabbitmqctl \
             set_topic_permissions ({})",
            quoted(error)
        ),
        Some(Refusal::AccessRefused) => format!(
            "user '{user}' may not use exchange '{exchange}' on vhost '{vhost}': grant it with rabbitmqctl \
             set_permissions ({})",
            quoted(error)
        ),
        Some(Refusal::Precondition) if quoted(error).starts_with("PRECONDITION_FAILED - inequivalent arg ") => format!(
            "exchange '{exchange}' exists on vhost '{vhost}' with other settings: correct {key}.type or remove \
             {key}.declare ({})",
            quoted(error)
        ),
        // Of the types that come with RabbitMQ only this one is so.
        Some(Refusal::Precondition) => format!(
            "exchange '{exchange}' on vhost '{vhost}' takes no topics as binding keys: set {key}.bindings to what it takes, \
             as to [\"1\"] where it is a consistent-hash exchange ({})",
            quoted(error)
        ),
        _ => of_other(error, &format!("exchange '{exchange}'"), peer),
    })
}

/// Why an exchange could not be bound by one pattern, where that is so of this one and says nothing of others.
pub(crate) fn of_pattern(error: &Error, pattern: &Pattern, (exchange, user): (&str, &str)) -> Option<String> {
    let pattern = printable(pattern.as_str());
    match refusal(error)? {
        Refusal::AccessRefused => Some(format!(
            "RabbitMQ does not let user '{user}' bind '{pattern}' to exchange '{exchange}': grant it with rabbitmqctl \
             set_permissions or set_topic_permissions"
        )),
        Refusal::Precondition => {
            Some(format!("RabbitMQ cannot bind '{pattern}' to exchange '{exchange}' ({})", quoted(error)))
        }
        _ => None,
    }
}

/// Why nothing can be published to an exchange, which `key` names.
pub(crate) fn of_publish(error: &Error, exchange: &str, (peer, key): (&Peer, &str)) -> Trouble {
    let Peer { vhost, user, .. } = peer;
    Trouble(match refusal(error) {
        Some(Refusal::NotFound) => {
            format!("exchange '{exchange}' does not exist on vhost '{vhost}': create it or correct {key}")
        }
        Some(Refusal::AccessRefused) => format!(
            "user '{user}' may not publish to exchange '{exchange}' on vhost '{vhost}': grant write on it with rabbitmqctl \
             set_permissions, or correct {key} ({})",
            quoted(error)
        ),
        _ => of_other(error, &format!("exchange '{exchange}'"), peer),
    })
}

/// Why the exchange through which nodes share presence could not be declared; `key` names it.
pub(crate) fn of_presence(error: &Error, exchange: &str, (peer, key): (&Peer, &str)) -> Trouble {
    let Peer { vhost, user, .. } = peer;
    Trouble(match refusal(error) {
        Some(Refusal::AccessRefused) => format!(
            "user '{user}' may not declare exchange '{exchange}' on vhost '{vhost}': grant configure, read and write on it, \
             name another in {key}, or set that to \"off\" ({})",
            quoted(error)
        ),
        Some(Refusal::Precondition) => format!(
            "exchange '{exchange}' on vhost '{vhost}' is no durable fanout exchange: name another in {key} ({})",
            quoted(error)
        ),
        _ => of_other(error, &format!("exchange '{exchange}'"), peer),
    })
}

/// Why a queue could not be checked, declared or consumed; `key` is the section that names it.
pub(crate) fn of_queue(error: &Error, queue: &str, (peer, key): (&Peer, &str)) -> Trouble {
    let Peer { vhost, user, .. } = peer;
    Trouble(match refusal(error) {
        Some(Refusal::NotFound) => {
            format!("queue '{queue}' does not exist on vhost '{vhost}': create it or set {key}.declare = true")
        }
        Some(Refusal::InUse) => format!(
            "queue '{queue}' on vhost '{vhost}' is consumed exclusively by somebody else: use exchange = \"…\" \
             in [{key}] instead"
        ),
        Some(Refusal::AccessRefused) => format!(
            "user '{user}' may not use queue '{queue}' on vhost '{vhost}': grant it with rabbitmqctl \
             set_permissions ({})",
            quoted(error)
        ),
        Some(Refusal::Locked) => {
            format!(
                "queue '{queue}' on vhost '{vhost}' belongs to another connection alone: name another in {key}.queue"
            )
        }
        Some(Refusal::Precondition) if is_of_a_stream(error) => return not_a_queue(queue, key),
        Some(Refusal::Precondition) => format!(
            "queue '{queue}' exists on vhost '{vhost}' with other settings: remove {key}.declare ({})",
            quoted(error)
        ),
        _ => of_other(error, &format!("queue '{queue}'"), peer),
    })
}

/// Why a stream could not be checked, declared or read; `key` is the section that names it.
pub(crate) fn of_stream(error: &Error, stream: &str, (peer, key): (&Peer, &str)) -> Trouble {
    let Peer { vhost, user, .. } = peer;
    Trouble(match refusal(error) {
        Some(Refusal::NotFound) => {
            format!("stream '{stream}' does not exist on vhost '{vhost}': create it or set {key}.declare = true")
        }
        Some(Refusal::AccessRefused) => format!(
            "user '{user}' may not use stream '{stream}' on vhost '{vhost}': grant it with rabbitmqctl \
             set_permissions ({})",
            quoted(error)
        ),
        Some(Refusal::Precondition) if is_of_a_queue(error) => not_a_stream(stream).0,
        Some(Refusal::Precondition) if has_no_streams(error) => format!(
            "stream '{stream}' needs RabbitMQ, and at {} is an embedded broker of passerelle: correct amqp.url, or read an \
             exchange or a queue",
            peer.address
        ),
        Some(Refusal::Precondition) => format!(
            "stream '{stream}' exists on vhost '{vhost}' with other settings: correct {key}.retention_age and \
             {key}.retention_bytes, or remove {key}.declare ({})",
            quoted(error)
        ),
        _ => of_other(error, &format!("stream '{stream}'"), peer),
    })
}

/// Why the exchange could not be had by whose way a queue's messages are moved into a stream.
pub(crate) fn of_relay(error: &Error, stream: &str, peer: &Peer) -> Trouble {
    let Peer { vhost, user, .. } = peer;
    Trouble(match refusal(error) {
        Some(Refusal::AccessRefused) => format!(
            "user '{user}' may not declare exchange '{stream}' on vhost '{vhost}' and bind the stream of that name to it: \
             grant configure, write and read on '{stream}' with rabbitmqctl set_permissions ({})",
            quoted(error)
        ),
        Some(Refusal::Precondition) => format!(
            "exchange '{stream}' on vhost '{vhost}' is no durable fanout exchange: name the stream otherwise ({})",
            quoted(error)
        ),
        _ => of_other(error, &format!("exchange '{stream}'"), peer),
    })
}

/// Something else has a stream's name.
pub(crate) fn not_a_stream(stream: &str) -> Trouble {
    Trouble(format!("'{stream}' is a queue and no stream: use queue = \"{stream}\", or name a stream"))
}

/// A stream has the name of a queue that a source is to read.
pub(crate) fn not_a_queue(queue: &str, key: &str) -> Trouble {
    Trouble(format!(
        "'{queue}' is a stream and no queue: set {key}.stream = \"{queue}\" in place of {key}.queue, or name a queue"
    ))
}

/// A stream has the name of a queue that clients are to consume.
pub(crate) fn not_consumed(queue: &str, section: &str) -> String {
    format!(
        "'{queue}' is a stream, of which nobody can settle a message: let a source read it (stream = \"{queue}\"), or \
         name a queue in {section}.queue"
    )
}

/// Why a client cannot consume a queue, which `section` of the configuration opens to it.
pub(crate) fn of_consumed(error: &Error, queue: &str, (peer, section): (&Peer, &str)) -> String {
    let Peer { vhost, user, .. } = peer;
    match refusal(error) {
        Some(Refusal::NotFound) => {
            format!("queue '{queue}' does not exist on vhost '{vhost}': create it or set {section}.declare = true")
        }
        Some(Refusal::InUse) => format!(
            "queue '{queue}' on vhost '{vhost}' is consumed by somebody else, and one of the two would be alone: try \
             again when they are gone"
        ),
        Some(Refusal::AccessRefused) => format!(
            "user '{user}' may not use queue '{queue}' on vhost '{vhost}': grant it with rabbitmqctl \
             set_permissions ({})",
            quoted(error)
        ),
        Some(Refusal::Locked) => format!(
            "queue '{queue}' on vhost '{vhost}' belongs to another connection alone: name another in {section}.queue"
        ),
        Some(Refusal::Precondition) if is_of_a_stream(error) => not_consumed(queue, section),
        Some(Refusal::Precondition) => format!(
            "queue '{queue}' exists on vhost '{vhost}' with other settings: remove {section}.declare and \
             {section}.expires, or set them as they are ({})",
            quoted(error)
        ),
        _ => of_other(error, &format!("queue '{queue}'"), peer),
    }
}

/// Why the queue of a group of clients cannot be declared or consumed.
pub(crate) fn of_share(error: &Error, queue: &str, peer: &Peer) -> String {
    match refusal(error) {
        Some(Refusal::Precondition) => format!(
            "queue '{queue}' exists on vhost '{}' with other settings: set mqtt.share_expiry as it was when the queue was \
             declared, alike on all nodes, or delete the queue ({})",
            peer.vhost,
            quoted(error)
        ),
        _ => of_own_queue(error, queue, peer).0,
    }
}

/// Why one of our own queues could not be declared or consumed. What is drawn at random in its name is different at each try,
/// and left out, so that the same trouble is the same sentence.
pub(crate) fn of_own_queue(error: &Error, queue: &str, peer: &Peer) -> Trouble {
    let Peer { vhost, user, .. } = peer;
    let sentence = match refusal(error) {
        Some(Refusal::AccessRefused) => format!(
            "user '{user}' may not declare and use queues such as '{queue}' on vhost '{vhost}': grant configure, write \
             and read on them, and write on 'amq.default', with rabbitmqctl set_permissions, or change \
             amqp.queue_prefix ({})",
            quoted(error)
        ),
        _ => of_other(error, &format!("queue '{queue}'"), peer),
    };
    let is_drawn = |part: &&str| part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    Trouble(match queue.split('.').rfind(is_drawn) {
        Some(drawn) => sentence.replace(drawn, "…"),
        None => sentence,
    })
}

/// The contract's sentence on queues that somebody else consumes.
pub(crate) fn has_consumers(queue: &str, consumers: u32) -> Trouble {
    let consumers = if consumers == 1 { "1 consumer".to_owned() } else { format!("{consumers} consumers") };
    Trouble(format!(
        "queue '{queue}' already has {consumers}, passerelle would take its messages: use exchange = \"…\", or \
         shared = true"
    ))
}

/// Another node consumes the queue, and this one would get nothing of it.
pub(crate) fn has_another_node(queue: &str, section: &str) -> Trouble {
    Trouble(format!(
        "queue '{queue}' already has 1 consumer, which is another node: set {section}.stream = \"…\" on all nodes, through \
         which they all get its messages, or shared = true"
    ))
}

/// The broker has not noticed yet that a connection of this node is gone, which has what the node needs.
pub(crate) fn is_held_by_us(queue: &str) -> Trouble {
    Trouble(format!("queue '{queue}' is still consumed on the connection that this node lost: trying again"))
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    fn soft(kind: AMQPSoftError, text: &str) -> Error {
        ErrorKind::ProtocolError(AMQPError::new(kind.into(), text.into())).into()
    }

    #[test]
    fn the_broker_says_how_much_it_takes() {
        let said = |text: &str| payload_bytes_max(&soft(AMQPSoftError::PRECONDITIONFAILED, text));
        for words in ["configured max size", "max size"] {
            let text = format!("PRECONDITION_FAILED - message size 200000 is larger than {words} 100000");
            assert_eq!(said(&text), Some(100_000));
        }
        assert_eq!(said("PRECONDITION_FAILED - invalid expiration 'message size 9' 8"), None);
        assert_eq!(said("PRECONDITION_FAILED - message size 200000 is too much"), None);
    }

    /// A client's pattern `exclusive.offers` was read as a queue that somebody consumes, and took its source down.
    #[test]
    fn names_that_the_broker_quotes_change_nothing_of_what_it_says() {
        let access = |text: &str| refusal(&soft(AMQPSoftError::ACCESSREFUSED, text));
        let missing = |text: &str| refusal(&soft(AMQPSoftError::NOTFOUND, text));
        for name in ["q", "exclusive.offers", "' in exclusive use", "is down or inaccessible", "no queue"] {
            for what in ["access to topic", "read access to topic", "access to queue"] {
                let text =
                    format!("ACCESS_REFUSED - {what} '{name}' in exchange 'x' in vhost '/' refused for user 'u'");
                assert_eq!(access(&text), Some(Refusal::AccessRefused), "{text}");
            }
            let text = format!("ACCESS_REFUSED - queue '{name}' in vhost '/' in exclusive use");
            assert_eq!(access(&text), Some(Refusal::InUse), "{text}");
            let text = format!("NOT_FOUND - no queue '{name}' in vhost '/'");
            assert_eq!(missing(&text), Some(Refusal::NotFound), "{text}");
            for text in [
                format!("NOT_FOUND - home node 'n' of durable queue '{name}' in vhost '/' is down or inaccessible"),
                format!("NOT_FOUND - queue '{name}' in vhost '/' process is stopped by supervisor"),
                format!("NOT_FOUND - failed to perform operation on queue '{name}' in vhost '/' due to timeout"),
            ] {
                assert_eq!(missing(&text), Some(Refusal::Other), "{text}");
            }
        }
        let cut_off = format!("ACCESS_REFUSED - queue '{}...", "q".repeat(228));
        assert_eq!(access(&cut_off), Some(Refusal::InUse));
    }

    fn peer() -> Peer {
        Peer { address: "h:1".into(), vhost: "v".into(), user: "u".into() }
    }

    fn hard(kind: AMQPHardError, text: &str) -> Error {
        ErrorKind::ProtocolError(AMQPError::new(kind.into(), text.into())).into()
    }

    #[test]
    fn a_limit_or_a_vhost_that_is_down_is_no_missing_right() {
        let connect = |kind: AMQPHardError, text: &str| of_connect(&hard(kind, text), &peer()).0;
        for text in [
            "NOT_ALLOWED - access to vhost 'v' refused for user 'u': connection limit (1) is reached",
            "NOT_ALLOWED - connection refused for user 'u': user connection limit (1) is reached",
            "NOT_ALLOWED - connection refused: node connection limit (1) is reached",
        ] {
            let sentence = connect(AMQPHardError::NOTALLOWED, text);
            assert!(sentence.contains("as many connections as it may") && sentence.contains(text), "{sentence}");
        }
        let down = "INTERNAL_ERROR - access to vhost 'v' refused for user 'u': vhost 'v' is down";
        assert!(connect(AMQPHardError::INTERNALERROR, down).starts_with("vhost 'v' is down at h:1"));
        let refused = "NOT_ALLOWED - access to vhost 'v' refused for user 'u'";
        assert!(connect(AMQPHardError::NOTALLOWED, refused).starts_with("user 'u' may not use vhost 'v'"));
        for text in [
            "NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed user limit of (2)",
            "NOT_ALLOWED - number of channels opened on node 'n' has reached the maximum allowed limit of 2",
        ] {
            let lost = of_lost(Some(&hard(AMQPHardError::NOTALLOWED, text)), &peer()).0;
            assert!(lost.contains("one channel too many") && lost.contains("set_user_limits u"), "{lost}");
        }
    }

    #[test]
    fn what_may_not_be_declared_for_a_limit_is_not_told_to_have_other_settings() {
        let limit = |text: &str| soft(AMQPSoftError::PRECONDITIONFAILED, text);
        for text in [
            "PRECONDITION_FAILED - cannot declare queue 'q': queue limit in vhost 'v' (0) is reached",
            "PRECONDITION_FAILED - cannot declare queue 'q': queue limit in cluster (9) is reached",
        ] {
            let (error, peer) = (limit(text), peer());
            let sentences = [
                of_queue(&error, "q", (&peer, "source.a")).0,
                of_stream(&error, "q", (&peer, "source.a")).0,
                of_consumed(&error, "q", (&peer, "consume.a")),
                of_own_queue(&error, "q", &peer).0,
            ];
            for sentence in sentences {
                assert!(
                    sentence.contains("'q' cannot be declared on vhost 'v', where a limit is reached"),
                    "{sentence}"
                );
            }
        }
        let exchange = |text: &str| of_exchange(&limit(text), "x", (&peer(), "source.a")).0;
        let kind =
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost 'v': received 'topic' but …";
        assert!(exchange(kind).contains("with other settings: correct source.a.type"));
        let key = "PRECONDITION_FAILED - The binding key must be an integer: <<\"a.b\">>";
        assert!(exchange(key).contains("set source.a.bindings to what it takes, as to [\"1\"]"));
    }

    /// Each try draws another name, and each made a line of its own in the log.
    #[test]
    fn a_queue_of_ours_that_cannot_be_had_is_the_same_sentence_at_each_try() {
        for (kind, text) in [
            (AMQPSoftError::ACCESSREFUSED, "ACCESS_REFUSED - access to queue 'NAME' in vhost 'v' refused for user 'u'"),
            (AMQPSoftError::PRECONDITIONFAILED, "PRECONDITION_FAILED - cannot declare queue 'NAME': queue limit …"),
        ] {
            let said = |drawn: &str| {
                let name = format!("passerelle.vm.e.{drawn}.dropped");
                of_own_queue(&soft(kind.clone(), &text.replace("NAME", &name)), &name, &peer())
            };
            assert_eq!(said("8d5b1f07d3b567c4"), said("5b9c66a6d5168998"));
            assert!(said("8d5b1f07d3b567c4").0.contains("'passerelle.vm.e.….dropped'"));
        }
    }

    #[test]
    fn what_clients_sent_makes_no_lines_of_its_own() {
        assert_eq!(printable("no queue 'zażółć' in vhost \"/\""), "no queue 'zażółć' in vhost \"/\"");
        assert_eq!(printable("a\n2026 INFO b\u{1b}[2J\u{202e}\\"), "a\\n2026 INFO b\\u{1b}[2J\\u{202e}\\\\");
    }
}
