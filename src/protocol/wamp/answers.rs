//! What becomes of the answer to a request. It travels with the command as the command's id, so that nothing has to be
//! remembered here: a list of the request's type, its id and, where the answer names one, another.

use serde_json::value::{RawValue, to_raw_value};

use crate::protocol::CommandId;
use crate::protocol::wamp::id::Id;
use crate::protocol::wamp::kind::Kind;

/// What a command was asked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// The type of the message.
    pub(super) kind: Kind,
    /// Its request; `HELLO` and `GOODBYE` have none, and it is 1.
    pub(super) request: Id,
    /// The subscription, publication or registration that its answer names.
    pub(super) names: Option<Id>,
}

impl Asked {
    /// By a message of which there can be only one.
    pub(super) fn once(kind: Kind) -> Self {
        Self::by(kind, Id::FIRST)
    }

    /// By a request.
    pub(super) fn by(kind: Kind, request: Id) -> Self {
        Self { kind, request, names: None }
    }

    /// By one whose answer names something.
    pub(super) fn naming(kind: Kind, request: Id, names: Id) -> Self {
        Self { kind, request, names: Some(names) }
    }

    /// As a command's id.
    pub(super) fn id(self) -> CommandId {
        let mut numbers = vec![self.kind.code(), self.request.number()];
        numbers.extend(self.names.map(Id::number));
        to_raw_value(&numbers).ok()
    }

    /// From one.
    pub(super) fn of(id: &CommandId) -> Option<Self> {
        let read = |id: &RawValue| serde_json::from_str::<Vec<u64>>(id.get()).ok();
        let numbers = id.as_deref().and_then(read)?;
        let (kind, request, names) = match *numbers.as_slice() {
            [kind, request] => (kind, request, None),
            [kind, request, names] => (kind, request, Some(Id::new(names)?)),
            _ => return None,
        };
        Some(Self { kind: Kind::of_code(kind)?, request: Id::new(request)?, names })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_an_answer_is_for_survives_as_an_id() {
        let id = |number| Id::new(number).unwrap();
        let all = [
            Asked::once(Kind::Hello),
            Asked::by(Kind::Call, id(1 << 53)),
            Asked::naming(Kind::Subscribe, id(7), id(1 << 53)),
        ];
        for asked in all {
            assert_eq!(Asked::of(&asked.id()), Some(asked));
        }
        for foreign in ["17", "\"x\"", "[]", "[1]", "[1,0]", "[7,1]", "[1,1,0]", "[1,1,1,1]"] {
            assert_eq!(Asked::of(&RawValue::from_string(foreign.into()).ok()), None, "{foreign}");
        }
        assert_eq!(Asked::of(&None), None);
    }
}
