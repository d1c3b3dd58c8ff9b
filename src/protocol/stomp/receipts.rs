//! What becomes of the answer to a frame. It travels with the command as the command's id, so that nothing has to be
//! remembered here: a text is a receipt, a number one of a transaction's parts, an object a request with its reply.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::protocol::CommandId;

/// Whom an answer is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answers {
    /// Nobody asked for one.
    Nobody,
    /// A `RECEIPT` with this id.
    Receipt(String),
    /// One part of a transaction of which all have to be done.
    Part(u64),
    /// A `MESSAGE` with the reply.
    Reply {
        /// The `reply-to` of the request.
        to: String,
        /// Its `correlation-id`.
        correlation: Option<String>,
        /// The receipt that it asked for.
        receipt: Option<String>,
    },
}

impl Answers {
    /// For the receipt that a frame asks for, if it does.
    pub(super) fn receipt(receipt: Option<&str>) -> Self {
        receipt.map_or(Self::Nobody, |id| Self::Receipt(id.to_owned()))
    }

    /// As a command's id.
    pub(super) fn into_id(self) -> CommandId {
        let value = match self {
            Self::Nobody => return None,
            Self::Receipt(id) => Value::String(id),
            Self::Part(number) => number.into(),
            Self::Reply { to, correlation, receipt } => json!([to, correlation, receipt]),
        };
        to_raw_value(&value).ok()
    }

    /// From one.
    pub(super) fn of(id: &CommandId) -> Self {
        let read = |id: &RawValue| serde_json::from_str::<Value>(id.get()).ok();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match id.as_deref().and_then(read) {
            Some(Value::String(id)) => Self::Receipt(id),
            Some(Value::Number(number)) => number.as_u64().map_or(Self::Nobody, Self::Part),
            Some(Value::Array(parts)) => match parts.as_slice() {
                [to, correlation, receipt] => Self::Reply {
                    to: text(to).unwrap_or_default(),
                    correlation: text(correlation),
                    receipt: text(receipt),
                },
                _ => Self::Nobody,
            },
            _ => Self::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_an_answer_is_for_survives_as_an_id() {
        let reply = |correlation: Option<&str>, receipt: Option<&str>| Answers::Reply {
            to: "/temp-queue/\"é".into(),
            correlation: correlation.map(str::to_owned),
            receipt: receipt.map(str::to_owned),
        };
        let all = [
            Answers::Nobody,
            Answers::Receipt("\"\n1".into()),
            Answers::Receipt("17".into()),
            Answers::Part(17),
            reply(None, None),
            reply(Some("c"), Some("r")),
        ];
        for answers in all {
            assert_eq!(Answers::of(&answers.clone().into_id()), answers);
        }
    }
}
