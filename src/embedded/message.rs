//! A message as the broker holds it, and the account of memory that it is charged to. Knows no queue and no connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amq_protocol::protocol::BasicProperties;
use amq_protocol::protocol::basic::gen_properties;
use amq_protocol::types::{AMQPValue, FieldTable};
use bytes::Bytes;

use super::fault::{Fault, short};
use super::limits::{
    CONTENT_HEAD_BYTES, EXTRA_KEYS_MAX, FRAME_BYTES_MAX, FRAME_OVERHEAD, MESSAGE_OVERHEAD, TTL_MILLISECONDS_MAX,
};
use super::table::{field, utf8};

/// The name of an exchange, a queue, a consumer, or a routing key: at most 255 bytes. Cloning shares the text.
pub(crate) type Name = Arc<str>;

/// How many bytes are held somewhere. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account(Arc<AtomicUsize>);

/// A share of an [`Account`], given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Account,
    bytes: usize,
}

impl Account {
    /// Bytes charged now.
    pub(crate) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Charges bytes until the charge is dropped.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Charge { account: self.clone(), bytes }
    }
}

impl Charge {
    /// Charges more.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.account.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a client publishes, whole.
#[derive(Debug)]
pub(crate) struct Publish {
    /// Where to.
    pub(crate) exchange: Name,
    /// Under which key.
    pub(crate) routing_key: Name,
    /// As they were parsed.
    pub(crate) properties: BasicProperties,
    /// As they were sent: flags and values.
    pub(crate) properties_raw: Bytes,
    /// The body.
    pub(crate) body: Bytes,
}

/// A message that was routed: immutable and shared by all who hold it.
#[derive(Debug)]
pub(crate) struct Message {
    /// The exchange that it was published to.
    pub(crate) exchange: Name,
    /// The key that it was published with.
    pub(crate) routing_key: Name,
    /// Flags and values of its properties, ready for the wire.
    pub(crate) properties: Bytes,
    /// The body.
    pub(crate) body: Bytes,
    /// What the memory account was charged for it.
    _charge: Charge,
}

impl Message {
    /// A message, charged to the account as long as somebody holds it.
    pub(crate) fn new(publish: Publish, memory: &Account) -> Self {
        let bytes = publish.body.len() + publish.properties_raw.len() + MESSAGE_OVERHEAD;
        Self {
            exchange: publish.exchange,
            routing_key: publish.routing_key,
            properties: publish.properties_raw,
            body: publish.body,
            _charge: memory.charge(bytes),
        }
    }
}

impl Publish {
    /// The routing keys: the one it was published with, and those of its `CC` and `BCC` headers.
    ///
    /// # Errors
    /// 406 when such a header is no array of strings, or holds too many.
    pub(crate) fn keys(&self) -> Result<Vec<Name>, Fault> {
        let mut keys = vec![self.routing_key.clone()];
        if let Some(headers) = self.properties.headers() {
            for name in ["CC", "BCC"] {
                keys.extend(extra_keys(headers, name)?);
            }
        }
        Ok(keys)
    }

    /// Removes the `BCC` header, which no receiver may see.
    pub(crate) fn hide_blind_copies(&mut self) {
        let Some(headers) = self.properties.headers().as_ref().filter(|headers| headers.contains_key("BCC")) else {
            return;
        };
        let kept = headers.into_iter().filter(|(name, _)| name.as_str() != "BCC");
        let kept = FieldTable::from(
            kept.map(|(name, value)| (name.clone(), value.clone())).collect::<std::collections::BTreeMap<_, _>>(),
        );
        self.set_properties(self.properties.clone().with_headers(kept));
    }

    /// Names another place for the reply.
    pub(crate) fn redirect_reply(&mut self, reply_to: &str) {
        self.set_properties(self.properties.clone().with_reply_to(short(reply_to)));
    }

    /// Replaces the properties, parsed and raw.
    pub(crate) fn set_properties(&mut self, properties: BasicProperties) {
        self.properties_raw = encode_properties(&properties);
        self.properties = properties;
    }
}

/// Properties as the wire carries them.
pub(crate) fn encode_properties(properties: &BasicProperties) -> Bytes {
    // Writing to memory cannot fail; were it to, a message without properties is what is left.
    gen_properties(properties)(Vec::new().into())
        .map_or_else(|_| Bytes::from_static(&[0, 0]), |context| context.into_inner().0.into())
}

/// Whether properties fit the one frame that they are sent in: a content header cannot be split as a body is.
pub(crate) fn fits_content_header(properties: &[u8]) -> bool {
    CONTENT_HEAD_BYTES + properties.len() + FRAME_OVERHEAD <= FRAME_BYTES_MAX as usize
}

/// The keys in the header `CC` or `BCC`.
///
/// # Errors
/// 406 when it is there and no array of strings, or holds too many.
pub(crate) fn extra_keys(headers: &FieldTable, name: &str) -> Result<Vec<Name>, Fault> {
    let Some(value) = field(headers, name) else { return Ok(Vec::new()) };
    let AMQPValue::FieldArray(keys) = value else {
        return Err(Fault::precondition(format!("header '{name}' must be an array of strings")));
    };
    if keys.as_slice().len() > EXTRA_KEYS_MAX {
        return Err(Fault::precondition(format!("header '{name}' holds more than {EXTRA_KEYS_MAX} keys")));
    }
    let as_key = |key| {
        utf8(key)
            .map(Name::from)
            .ok_or_else(|| Fault::precondition(format!("header '{name}' holds a key that is no text")))
    };
    keys.as_slice().iter().map(as_key).collect()
}

/// A message's own time to live in milliseconds, if it has one.
///
/// # Errors
/// 406 when the property is no such number.
pub(crate) fn expiration(properties: &BasicProperties) -> Result<Option<u64>, Fault> {
    let Some(text) = properties.expiration() else { return Ok(None) };
    let digits = text.as_str().bytes().all(|byte| byte.is_ascii_digit());
    match text.as_str().parse() {
        Ok(milliseconds) if digits && milliseconds <= TTL_MILLISECONDS_MAX => Ok(Some(milliseconds)),
        _ => {
            Err(Fault::precondition(format!("invalid expiration '{text}': a number of milliseconds as text is needed")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::types::FieldArray;

    fn publish(properties: BasicProperties) -> Publish {
        Publish {
            exchange: "".into(),
            routing_key: "a".into(),
            properties_raw: encode_properties(&properties),
            properties,
            body: Bytes::from_static(b"body"),
        }
    }

    fn headers(name: &str, value: AMQPValue) -> BasicProperties {
        let mut table = FieldTable::default();
        table.insert(short("other"), AMQPValue::Boolean(true)).insert(short(name), value);
        BasicProperties::default().with_headers(table)
    }

    #[test]
    fn the_account_knows_what_is_held() {
        let account = Account::default();
        let message = Arc::new(Message::new(publish(BasicProperties::default()), &account));
        let shared = message.clone();
        assert_eq!(account.used(), 4 + 2 + MESSAGE_OVERHEAD);
        drop(message);
        assert!(account.used() > 0);
        drop(shared);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn blind_copies_are_keys_and_never_seen() {
        let keys = AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::LongString("b".into())]));
        let mut publish = publish(headers("BCC", keys));
        assert_eq!(publish.keys().unwrap(), [Name::from("a"), Name::from("b")]);
        publish.hide_blind_copies();
        assert_eq!(publish.properties.headers().as_ref().unwrap().inner().len(), 1);
        assert_eq!(publish.properties_raw, encode_properties(&publish.properties));
    }

    #[test]
    fn poisoned_properties_are_refused() {
        assert!(publish(headers("CC", AMQPValue::LongInt(1))).keys().is_err());
        for text in ["", "abc", "-1", "+1", "1.5", "99999999999999999999"] {
            assert!(expiration(&BasicProperties::default().with_expiration(short(text))).is_err(), "{text:?}");
        }
        assert_eq!(expiration(&BasicProperties::default().with_expiration(short("60000"))), Ok(Some(60_000)));
    }
}
