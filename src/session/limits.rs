//! What one session may use, and what a client may put into a message on its way to the broker.
//!
//! The rules for properties and headers hold for every protocol. They keep a client from closing the AMQP channel that it
//! shares with everybody (a property of the wrong type does that), and from writing what only brokers write.

use std::time::Duration;

use crate::auth::queues::Queues;
use crate::auth::shares::Shares;
use crate::config::{Presences, Settings};
use crate::model::flow::Flow;
use crate::model::outgoing::Outgoing;
use crate::model::value::{Headers, Value};
use crate::session::exchanges::Exchanges;

/// Header fields of a message from a client, those in nested tables not counted.
pub const HEADERS_MAX: usize = 64;

/// Levels of tables and lists in its headers, the header table itself included.
pub const HEADER_DEPTH_MAX: usize = 8;

/// Bytes of all names and values of its headers, a few a value added for its type and length.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// Bytes of a header's name (AMQP 0-9-1, section 4.2.5.5).
pub const HEADER_NAME_BYTES_MAX: usize = 128;

/// Bytes of a property that is an AMQP short string.
pub const PROPERTY_BYTES_MAX: usize = 255;

/// Bytes of the reason in a close frame (RFC 6455, section 5.5.1).
pub const CLOSE_DETAIL_BYTES_MAX: usize = 123;

/// Patterns that [`super::Session::describe`] names.
pub const DESCRIBED_PATTERNS_MAX: usize = 8;

/// Headers that only brokers and this server write: a name, or the start of one that ends in `-`.
const RESERVED: &[&str] =
    &["x-passerelle-", "x-death", "x-first-death-", "x-last-death-", "x-stream-offset", "user_id", "user-id"];

/// Headers by which RabbitMQ routes a message to further keys ("sender-selected distribution"), past the rights on its topic.
const FURTHER_ROUTES: &[&str] = &["cc", "bcc"];

/// What every session of a server shares.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Patterns of one session.
    pub subscriptions_max: usize,
    /// Publishes without their confirm; beyond it the socket is not read.
    pub publishes_in_flight_max: usize,
    /// Calls without their answer; one more is refused.
    pub calls_in_flight_max: usize,
    /// Queues that one session may consume at a time.
    pub queues_max: usize,
    /// Those that it may consume at all.
    pub queues: Queues,
    /// Those of groups whose members it may be one of.
    pub shares: Shares,
    /// Patterns of which it can be asked who is subscribed.
    pub presences: Presences,
    /// Messages that `last` may bring in all.
    pub last_max: usize,
    /// What a subscription that falls behind does when it did not say.
    pub on_slow: Flow,
    /// The exchanges that clients may name.
    pub exchanges: Exchanges,
    /// Told in `welcome`.
    pub message_bytes_max: usize,
    /// Told in `welcome`.
    pub heartbeat: Duration,
    /// Without identity after the handshake.
    pub unauthenticated_timeout: Duration,
    /// Of a call that names none.
    pub call_timeout: Duration,
    /// The longest that a call may ask for.
    pub call_timeout_max: Duration,
}

impl Terms {
    /// The terms of a configuration.
    pub fn new(settings: &Settings) -> Self {
        Self {
            subscriptions_max: settings.limits.subscriptions_max,
            publishes_in_flight_max: settings.limits.publishes_in_flight_max,
            calls_in_flight_max: settings.limits.calls_in_flight_max,
            queues_max: settings.limits.queues_max,
            queues: Queues::new(settings),
            shares: Shares::new(settings),
            presences: settings.presences.clone(),
            last_max: settings.limits.last_max,
            on_slow: settings.limits.on_slow,
            exchanges: Exchanges::new(settings),
            message_bytes_max: settings.limits.message_bytes_max,
            heartbeat: settings.server.heartbeat,
            unauthenticated_timeout: settings.limits.unauthenticated_timeout,
            call_timeout: settings.call.timeout,
            call_timeout_max: settings.call.timeout_max,
        }
    }
}

/// Whether a client may send this message upward.
///
/// # Errors
/// A sentence that names the field and the limit.
pub fn check_outgoing(message: &Outgoing) -> Result<(), String> {
    check_property("content_type", message.content_type.as_deref())?;
    check_property("message_id", message.message_id.as_deref())?;
    check_property("correlation_id", message.correlation_id.as_deref())?;
    check_headers(&message.headers)
}

fn check_property(name: &str, value: Option<&str>) -> Result<(), String> {
    match value {
        Some(text) if text.len() > PROPERTY_BYTES_MAX => {
            Err(format!("\"{name}\" may have at most {PROPERTY_BYTES_MAX} bytes"))
        }
        _ => Ok(()),
    }
}

fn check_headers(headers: &Headers) -> Result<(), String> {
    if headers.0.len() > HEADERS_MAX {
        return Err(format!("a message may have at most {HEADERS_MAX} headers"));
    }
    let bytes = bytes_of_table(headers, HEADER_DEPTH_MAX)?;
    if bytes > HEADER_BYTES_MAX {
        return Err(format!("headers may have at most {HEADER_BYTES_MAX} bytes"));
    }
    headers.0.iter().try_for_each(|(name, _)| check_header(name))
}

fn check_header(name: &str) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    let is_reserved =
        |reserved: &&str| if reserved.ends_with('-') { lower.starts_with(*reserved) } else { lower == **reserved };
    if RESERVED.iter().any(is_reserved) {
        return Err(format!("the header {name:?} is reserved: leave it out"));
    }
    if FURTHER_ROUTES.contains(&lower.as_str()) {
        return Err(format!("the header {name:?} would route the message elsewhere too: publish once for each topic"));
    }
    Ok(())
}

/// Bytes of a value beside its content, about: its type and length on the wire.
const VALUE_OVERHEAD_BYTES: usize = 5;

/// Counts bytes and refuses bad names and needless depth, in one walk that itself goes only so deep.
fn bytes_of_table(table: &Headers, levels_left: usize) -> Result<usize, String> {
    let levels_left = one_level_less(levels_left)?;
    let mut bytes = 0_usize;
    for (name, value) in &table.0 {
        if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX || name.contains('\0') {
            return Err(format!("names of headers have 1 to {HEADER_NAME_BYTES_MAX} bytes and no NUL"));
        }
        bytes = bytes.saturating_add(name.len()).saturating_add(bytes_of(value, levels_left)?);
    }
    Ok(bytes)
}

fn bytes_of(value: &Value, levels_left: usize) -> Result<usize, String> {
    let content = match value {
        Value::Null | Value::Bool(_) => 0,
        Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Timestamp(_) => 8,
        Value::Text(text) => text.len(),
        Value::Bytes(raw) => raw.len(),
        Value::Table(table) => bytes_of_table(table, levels_left)?,
        Value::List(items) => {
            let levels_left = one_level_less(levels_left)?;
            let sizes = items.iter().map(|item| bytes_of(item, levels_left));
            sizes.sum::<Result<usize, String>>()?
        }
    };
    Ok(content.saturating_add(VALUE_OVERHEAD_BYTES))
}

fn one_level_less(levels_left: usize) -> Result<usize, String> {
    levels_left.checked_sub(1).ok_or_else(|| format!("headers may be nested {HEADER_DEPTH_MAX} levels deep"))
}

/// A sentence cut to what a close frame can hold.
pub(super) fn close_detail(mut sentence: String) -> String {
    if sentence.len() > CLOSE_DETAIL_BYTES_MAX {
        sentence.truncate(sentence.floor_char_boundary(CLOSE_DETAIL_BYTES_MAX - '…'.len_utf8()));
        sentence.push('…');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::topic::Topic;

    fn with_headers(fields: Vec<(&str, Value)>) -> Result<(), String> {
        let headers = Headers(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        check_headers(&headers)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn ordinary_headers_pass() {
        let fields = vec![("x-tenant", text("é")), ("timestamp_in_ms", Value::Int(5)), ("ccc", text("a"))];
        assert_eq!(with_headers(fields), Ok(()));
    }

    #[test]
    fn what_brokers_write_is_refused() {
        for name in ["x-passerelle-job", "X-Passerelle-", "x-death", "x-first-death-queue", "user_id"] {
            let sentence = with_headers(vec![(name, text("x"))]).unwrap_err();
            assert_eq!(sentence, format!("the header {name:?} is reserved: leave it out"));
        }
        assert_eq!(with_headers(vec![("x-deathly", text("x")), ("user_identity", text("x"))]), Ok(()));
    }

    #[test]
    fn nothing_is_routed_past_the_rights_on_its_topic() {
        for name in ["CC", "BCC", "bcc"] {
            let sentence = with_headers(vec![(name, Value::List(vec![text("a.b")]))]).unwrap_err();
            assert!(sentence.ends_with("publish once for each topic"), "{sentence}");
        }
    }

    #[test]
    fn count_size_names_and_depth_are_bounded() {
        let many: Vec<String> = (0..=HEADERS_MAX).map(|number| number.to_string()).collect();
        let fields = |count: usize| many.iter().take(count).map(|name| (name.as_str(), Value::Null)).collect();
        assert_eq!(with_headers(fields(HEADERS_MAX)), Ok(()));
        assert_eq!(with_headers(fields(HEADERS_MAX + 1)), Err("a message may have at most 64 headers".into()));
        let big = text(&"x".repeat(HEADER_BYTES_MAX));
        assert_eq!(with_headers(vec![("a", big)]), Err("headers may have at most 65536 bytes".into()));
        let many_nulls = Value::List(vec![Value::Null; HEADER_BYTES_MAX / VALUE_OVERHEAD_BYTES]);
        assert_eq!(with_headers(vec![("a", many_nulls)]), Err("headers may have at most 65536 bytes".into()));
        for name in ["", "a\0b", &"x".repeat(129)] {
            assert!(with_headers(vec![(name, Value::Null)]).is_err());
        }
        let nested = |levels: usize| {
            (1..levels).fold(Headers::default(), |inner, _| Headers(vec![("x".into(), Value::Table(inner))]))
        };
        assert_eq!(check_headers(&nested(HEADER_DEPTH_MAX)), Ok(()));
        assert_eq!(check_headers(&nested(HEADER_DEPTH_MAX + 1)), Err("headers may be nested 8 levels deep".into()));
    }

    #[test]
    fn properties_are_short_strings() {
        let mut message = Outgoing::new(Topic::parse("a").unwrap(), Bytes::new());
        message.content_type = Some("x".repeat(255));
        message.message_id = message.content_type.clone();
        assert_eq!(check_outgoing(&message), Ok(()));
        message.message_id = Some("x".repeat(256));
        assert_eq!(check_outgoing(&message), Err("\"message_id\" may have at most 255 bytes".into()));
    }

    #[test]
    fn a_close_frame_holds_whole_characters() {
        assert_eq!(close_detail("é".repeat(100)), "é".repeat(60) + "…");
        let fits = "x".repeat(CLOSE_DETAIL_BYTES_MAX);
        assert_eq!(close_detail(fits.clone()), fits);
    }
}
