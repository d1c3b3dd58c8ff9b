//! Values of AMQP headers, independent of any AMQP library, and the ordered table that holds them.

/// The largest integer up to which every integer has a double of its own.
pub const EXACT_INTEGER_MAX: u128 = 1 << 53;

/// One value of an AMQP field table (AMQP 0-9-1, section 4.2.5.5, with RabbitMQ's type letters).
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A truth value.
    Bool(bool),
    /// Any signed or unsigned integer that fits.
    Int(i64),
    /// An unsigned integer beyond `i64::MAX`.
    UInt(u64),
    /// A floating-point number.
    Float(f64),
    /// A string that is UTF-8.
    Text(String),
    /// A byte array, or a string that is not UTF-8.
    Bytes(Vec<u8>),
    /// Seconds since 1970.
    Timestamp(u64),
    /// A list.
    List(Vec<Value>),
    /// A nested table.
    Table(Headers),
}

/// A field table in its order on the wire; keys may repeat there, the last one counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Headers(pub Vec<(String, Value)>);

impl Headers {
    /// The value of a key, the last one if it repeats.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
