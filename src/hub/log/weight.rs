//! How many bytes of the log's bound a publication takes: its topic, payload and attributes, not their bookkeeping.

use crate::model::publication::Draft;
use crate::model::value::{Headers, Value};

/// Bytes of a draft, as the log and its readers count them.
pub(in crate::hub) fn weight_bytes(draft: &Draft) -> usize {
    let attributes = &draft.attributes;
    let texts = [&attributes.content_type, &attributes.message_id, &attributes.correlation_id];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    draft.topic.as_str().len() + draft.payload.len() + texts + headers_bytes(&attributes.headers)
}

fn headers_bytes(headers: &Headers) -> usize {
    headers.0.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    let content = match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(values) => values.iter().map(value_bytes).sum(),
        Value::Table(table) => headers_bytes(table),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Timestamp(_) => 0,
    };
    size_of::<Value>() + content
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::publication::Attributes;
    use crate::model::topic::Topic;

    #[test]
    fn everything_that_a_stranger_can_make_large_weighs() {
        let topic = Topic::parse("ab").unwrap();
        let mut draft =
            Draft { topic, payload: Bytes::from_static(b"xyz"), attributes: Attributes::default(), received_at: 0 };
        assert_eq!(weight_bytes(&draft), 5);
        draft.attributes.message_id = Some("1234".into());
        let nested = Headers(vec![("key".into(), Value::Bytes(vec![0; 500]))]);
        draft.attributes.headers = Headers(vec![("list".into(), Value::List(vec![Value::Table(nested), Value::Null]))]);
        assert_eq!(weight_bytes(&draft), 5 + 4 + 4 + 3 + 500 + 4 * size_of::<Value>());
    }
}
