//! The elements of a message of a client, taken one after the other, each checked for what it has to be. An error names the
//! message, the element and what was there instead.

use std::vec;

use crate::protocol::wamp::id::Id;
use crate::protocol::wamp::kind::Kind;
use crate::protocol::wamp::refusal::Refusal;
use crate::protocol::wamp::value::{Dict, Payload, Value};

/// What is left of a message.
pub(super) struct Fields {
    kind: Kind,
    elements: vec::IntoIter<Value>,
    /// How many were taken, the type included: the position that sentences name.
    taken: usize,
}

impl Fields {
    /// Begins with a message that has as many elements as it should.
    pub(super) fn open(message: Value) -> Result<Self, Refusal> {
        let elements = match message {
            Value::List(elements) => elements,
            other => return Err(Refusal::violation(format!("a message is a list, not {}", other.shown()))),
        };
        let count = elements.len();
        let mut elements = elements.into_iter();
        let kind = kind_of(elements.next())?;
        let row = kind.row();
        let (least, most) = row.elements;
        if count < least || count > most {
            let range = if least == most { least.to_string() } else { format!("{least} to {most}") };
            return Err(Refusal::violation(format!("{} has {range} elements, not {count}", row.name)));
        }
        Ok(Self { kind, elements, taken: 1 })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn id(&mut self, name: &str) -> Result<Id, Refusal> {
        let value = self.next();
        let id = value.as_integer().and_then(Id::new);
        id.ok_or_else(|| self.wrong(name, "an id from 1 to 2^53", &value))
    }

    /// The type of the message that another is about.
    pub(super) fn code(&mut self, name: &str) -> Result<u64, Refusal> {
        let value = self.next();
        value.as_integer().ok_or_else(|| self.wrong(name, "an integer", &value))
    }

    pub(super) fn text(&mut self, name: &str) -> Result<String, Refusal> {
        match self.next() {
            Value::Text(text) => Ok(text),
            other => Err(self.wrong(name, "a string", &other)),
        }
    }

    pub(super) fn dict(&mut self, name: &str) -> Result<Dict, Refusal> {
        match self.next() {
            Value::Dict(dict) => Ok(dict),
            other => Err(self.wrong(name, "a dict", &other)),
        }
    }

    /// What the application sends along, at the end of the message.
    pub(super) fn payload(mut self) -> Result<Payload, Refusal> {
        let arguments = match self.elements.len() {
            0 => Vec::new(),
            _ => match self.next() {
                Value::List(arguments) => arguments,
                other => return Err(self.wrong("Arguments", "a list", &other)),
            },
        };
        let keywords = if self.elements.len() == 0 { Dict::default() } else { self.dict("ArgumentsKw")? };
        Ok(Payload { arguments, keywords })
    }

    fn next(&mut self) -> Value {
        self.taken += 1;
        // That it is there was seen when the elements were counted.
        self.elements.next().unwrap_or(Value::Null)
    }

    fn wrong(&self, name: &str, expected: &str, value: &Value) -> Refusal {
        let (message, position) = (self.kind.name(), self.taken);
        let instead = value.shown();
        Refusal::violation(format!("{message} needs {expected} as element {position} ({name}), not {instead}"))
    }
}

fn kind_of(first: Option<Value>) -> Result<Kind, Refusal> {
    let Some(first) = first else {
        return Err(Refusal::violation("a message begins with its type: this list is empty"));
    };
    let Some(code) = first.as_integer() else {
        let instead = first.shown();
        return Err(Refusal::violation(format!("a message begins with its type, an integer, not {instead}")));
    };
    Kind::of_code(code).ok_or_else(|| Refusal::violation(format!("there is no message type {code}")))
}
