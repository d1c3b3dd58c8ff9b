//! What a message carries when it dies: the header `x-death` as RabbitMQ writes it. Knows tables and strings only.

use std::collections::BTreeMap;

use amq_protocol::frame::parsing::parse_content_header;
use amq_protocol::protocol::BasicProperties;
use amq_protocol::types::{AMQPValue, FieldArray, FieldTable};

use super::fault::short;
use super::message::{Message, extra_keys};
use super::table::{field, integer, text};

/// Why a message died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its time to live ended.
    Expired,
    /// The queue was full.
    MaxLength,
    /// A consumer rejected it without requeue.
    Rejected,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::Rejected => "rejected",
        }
    }
}

/// One death.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death<'a> {
    /// Where it died.
    pub(crate) queue: &'a str,
    /// Of what.
    pub(crate) reason: Reason,
    /// When, in seconds since 1970.
    pub(crate) unix_seconds: u64,
}

/// The properties of a message, parsed again.
pub(crate) fn properties(message: &Message) -> BasicProperties {
    let payload = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &message.properties[..]].concat();
    parse_content_header(&payload[..]).map(|(_, header)| header.properties).unwrap_or_default()
}

fn long_string(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn is(death: &AMQPValue, name: &str, wanted: &str) -> bool {
    matches!(death, AMQPValue::FieldTable(death) if field(death, name).and_then(text) == Some(wanted.as_bytes()))
}

fn deaths(headers: &FieldTable) -> &[AMQPValue] {
    match field(headers, "x-death") {
        Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice(),
        _ => &[],
    }
}

/// Whether a message that died in `queue` went round without anybody rejecting it, and would go on for ever.
pub(crate) fn is_cycle(headers: &FieldTable, queue: &str) -> bool {
    let deaths = deaths(headers);
    let Some(last) = deaths.iter().position(|death| is(death, "queue", queue)) else { return false };
    !deaths.iter().take(last + 1).any(|death| is(death, "reason", "rejected"))
}

/// The properties that a dead message goes on with: `x-death` brought up to date, no expiration, and, when it gets a new
/// key, no `CC`.
pub(crate) fn bury(message: &Message, death: &Death<'_>, new_key: Option<&str>) -> BasicProperties {
    let old = properties(message);
    let mut headers: BTreeMap<_, _> = old.headers().as_ref().map(|table| table.inner().clone()).unwrap_or_default();
    let before = FieldTable::from(headers.clone());
    let (mut same, others): (Vec<_>, Vec<_>) = deaths(&before)
        .iter()
        .cloned()
        .partition(|each| is(each, "queue", death.queue) && is(each, "reason", death.reason.name()));
    let entry = match same.pop() {
        Some(AMQPValue::FieldTable(again)) => counted_once_more(&again),
        _ => first_death(message, death, &old),
    };
    let all = std::iter::once(AMQPValue::FieldTable(entry)).chain(others).collect::<Vec<_>>();
    headers.insert(short("x-death"), AMQPValue::FieldArray(FieldArray::from(all)));
    for (name, value) in [
        ("x-first-death-exchange", &*message.exchange),
        ("x-first-death-queue", death.queue),
        ("x-first-death-reason", death.reason.name()),
    ] {
        headers.entry(short(name)).or_insert_with(|| long_string(value));
    }
    if new_key.is_some() {
        headers.remove("CC");
    }
    without_expiration(&old, headers.into())
}

/// The properties that a dead message goes on with when there is no room to say how it died: what `x-death` says stays.
pub(crate) fn bury_unrecorded(message: &Message, new_key: Option<&str>) -> BasicProperties {
    let old = properties(message);
    let mut headers: BTreeMap<_, _> = old.headers().as_ref().map(|table| table.inner().clone()).unwrap_or_default();
    if new_key.is_some() {
        headers.remove("CC");
    }
    without_expiration(&old, headers.into())
}

fn counted_once_more(entry: &FieldTable) -> FieldTable {
    let count = field(entry, "count").and_then(integer).unwrap_or(0);
    let mut entry = entry.clone();
    entry.insert(short("count"), AMQPValue::LongLongInt(count.saturating_add(1)));
    entry
}

fn first_death(message: &Message, death: &Death<'_>, old: &BasicProperties) -> FieldTable {
    let copies = old.headers().as_ref().and_then(|headers| extra_keys(headers, "CC").ok()).unwrap_or_default();
    let keys = std::iter::once(&message.routing_key).chain(&copies).map(|key| long_string(key)).collect::<Vec<_>>();
    let mut entry = FieldTable::default();
    entry
        .insert(short("count"), AMQPValue::LongLongInt(1))
        .insert(short("reason"), long_string(death.reason.name()))
        .insert(short("queue"), long_string(death.queue))
        .insert(short("time"), AMQPValue::Timestamp(death.unix_seconds))
        .insert(short("exchange"), long_string(&message.exchange))
        .insert(short("routing-keys"), AMQPValue::FieldArray(FieldArray::from(keys)));
    if let Some(expiration) = old.expiration() {
        entry.insert(short("original-expiration"), long_string(expiration.as_str()));
    }
    entry
}

/// The properties with other headers and without expiration; a dead message must not die of the same again.
fn without_expiration(old: &BasicProperties, headers: FieldTable) -> BasicProperties {
    let mut new = BasicProperties::default().with_headers(headers);
    macro_rules! keep {
        ($($name:ident => $with:ident),*) => { $(if let Some(value) = old.$name() { new = new.$with(value.clone()); })* };
    }
    keep!(
        content_type => with_content_type,
        content_encoding => with_content_encoding,
        delivery_mode => with_delivery_mode,
        priority => with_priority,
        correlation_id => with_correlation_id,
        reply_to => with_reply_to,
        message_id => with_message_id,
        timestamp => with_timestamp,
        kind => with_type,
        user_id => with_user_id,
        app_id => with_app_id,
        cluster_id => with_cluster_id
    );
    new
}

#[cfg(test)]
mod tests {
    use super::super::message::{Account, Publish, encode_properties};
    use super::*;

    fn message(properties: BasicProperties) -> Message {
        let publish = Publish {
            exchange: "orders".into(),
            routing_key: "a.b".into(),
            properties_raw: encode_properties(&properties),
            properties,
            body: Default::default(),
        };
        Message::new(publish, &Account::default())
    }

    fn death(queue: &str, reason: Reason) -> Death<'_> {
        Death { queue, reason, unix_seconds: 1_000 }
    }

    #[test]
    fn a_second_death_of_the_same_kind_is_counted() {
        let alive = BasicProperties::default().with_expiration(short("5")).with_message_id(short("m"));
        let once = bury(&message(alive), &death("q", Reason::Expired), None);
        assert!(once.expiration().is_none() && once.message_id().is_some());
        let other = bury(&message(once), &death("r", Reason::Rejected), None);
        let twice = bury(&message(other), &death("q", Reason::Expired), None);
        let headers = twice.headers().clone().unwrap();
        let deaths = deaths(&headers);
        assert_eq!(deaths.len(), 2);
        assert!(is(&deaths[0], "queue", "q") && is(&deaths[1], "queue", "r"));
        let AMQPValue::FieldTable(newest) = &deaths[0] else { panic!() };
        assert_eq!(field(newest, "count"), Some(&AMQPValue::LongLongInt(2)));
        assert_eq!(field(newest, "original-expiration").and_then(text), Some(&b"5"[..]));
        assert_eq!(field(&headers, "x-first-death-reason").and_then(text), Some(&b"expired"[..]));
    }

    #[test]
    fn going_round_is_a_cycle_unless_somebody_rejected() {
        let once = bury(&message(BasicProperties::default()), &death("q", Reason::MaxLength), None);
        let headers = once.headers().clone().unwrap();
        assert!(is_cycle(&headers, "q") && !is_cycle(&headers, "r"));
        let rejected = bury(&message(once), &death("r", Reason::Rejected), None);
        assert!(!is_cycle(&rejected.headers().clone().unwrap(), "q"));
    }
}
