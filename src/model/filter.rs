//! Filters: which values a subscription wants in a message's headers. Compared is what a subscriber is shown of a header, so
//! that a filter says what a reader of messages would write. How it is written and how headers are shown is not known here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

use crate::model::value::{EXACT_INTEGER_MAX, Headers, Value};

/// Headers that one filter may name.
pub const FILTER_FIELDS_MAX: usize = 16;

/// Which values a subscription wants in a message's headers. Equal meaning is equal value, so that those who want the same
/// share one answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    combination: Combination,
    /// In the order of their names, at least one.
    fields: Vec<(String, Scalar)>,
}

/// How many of a filter's fields must be as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Combination {
    /// All of them.
    #[default]
    All,
    /// At least one.
    Any,
}

/// A value that a header may be shown with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// Null.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
}

/// A finite number, as the bits of a double that is no negative zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Number(u64);

/// Why something is no filter; reads on after what was called so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FilterError {
    /// It names too many headers.
    #[error("may name at most {FILTER_FIELDS_MAX} headers")]
    TooMany,
    /// One of none is to match.
    #[error("must name a header beside \"x-match\":\"any\"")]
    AnyOfNone,
}

impl Filter {
    /// A filter; nothing where it lets everything in.
    ///
    /// # Errors
    /// When it names too many headers, or wants any of none.
    pub fn new(combination: Combination, fields: BTreeMap<String, Scalar>) -> Result<Option<Self>, FilterError> {
        match (fields.len(), combination) {
            (0, Combination::All) => Ok(None),
            (0, Combination::Any) => Err(FilterError::AnyOfNone),
            // Of one field all is any.
            (1, _) => Ok(Some(Self { combination: Combination::All, fields: fields.into_iter().collect() })),
            (2..=FILTER_FIELDS_MAX, _) => Ok(Some(Self { combination, fields: fields.into_iter().collect() })),
            _ => Err(FilterError::TooMany),
        }
    }

    /// Whether it lets a message with these headers in.
    pub fn matches(&self, headers: &Headers) -> bool {
        let agrees =
            |(name, wanted): &(String, Scalar)| headers.value(name).is_some_and(|value| wanted.is_shown_for(value));
        match self.combination {
            Combination::All => self.fields.iter().all(agrees),
            Combination::Any => self.fields.iter().any(agrees),
        }
    }
}

impl Scalar {
    /// Whether a header of this value is shown as this scalar.
    fn is_shown_for(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Null, Value::Null) => true,
            (Self::Null, Value::Float(number)) => !number.is_finite(),
            (Self::Bool(wanted), Value::Bool(truth)) => wanted == truth,
            (Self::Number(wanted), Value::Float(number)) => Number::new(*number) == Some(*wanted),
            (Self::Text(wanted), Value::Text(text)) => wanted == text,
            (Self::Text(wanted), Value::Bytes(bytes)) => is_base64_of(wanted, bytes),
            (_, Value::Int(number)) => self.is_integer(i128::from(*number)),
            (_, Value::UInt(number) | Value::Timestamp(number)) => self.is_integer(i128::from(*number)),
            _ => false,
        }
    }

    /// Integers are shown as numbers as far as every reader can tell them apart, and beyond that as strings.
    fn is_integer(&self, number: i128) -> bool {
        let is_exact = number.unsigned_abs() <= EXACT_INTEGER_MAX;
        match self {
            Self::Number(wanted) => is_exact && Number::new(number as f64) == Some(*wanted),
            Self::Text(wanted) => !is_exact && *wanted == number.to_string(),
            Self::Null | Self::Bool(_) => false,
        }
    }
}

/// The length is compared first, because most headers are refused by it.
fn is_base64_of(text: &str, bytes: &[u8]) -> bool {
    text.len() == bytes.len().div_ceil(3) * 4 && text == BASE64.encode(bytes)
}

impl Number {
    /// A number, if it is finite.
    pub fn new(number: f64) -> Option<Self> {
        // The sum of zero and a negative zero is zero.
        number.is_finite().then(|| Self((number + 0.0).to_bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    fn filter(combination: Combination, fields: &[(&str, Scalar)]) -> Result<Option<Filter>, FilterError> {
        Filter::new(combination, fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    fn headers(fields: &[(&str, Value)]) -> Headers {
        Headers(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn all_fields_must_match_or_any() {
        let fields = [("region", text("eu")), ("vip", Scalar::Bool(true))];
        let (all, any) = (filter(Combination::All, &fields).unwrap(), filter(Combination::Any, &fields).unwrap());
        let (all, any) = (all.unwrap(), any.unwrap());
        let region = ("region", Value::Text("eu".into()));
        for (fields, by_all, by_any) in [
            (vec![region.clone(), ("vip", Value::Bool(true)), ("other", Value::Null)], true, true),
            (vec![region.clone(), ("vip", Value::Bool(false))], false, true),
            (vec![region], false, true),
            (vec![("vip", Value::Text("true".into()))], false, false),
            (vec![], false, false),
        ] {
            let headers = headers(&fields);
            assert_eq!((all.matches(&headers), any.matches(&headers)), (by_all, by_any), "{fields:?}");
        }
    }

    #[test]
    fn of_a_repeated_header_the_last_counts() {
        let filter = filter(Combination::All, &[("a", text("2"))]).unwrap().unwrap();
        let (one, two) = (("a", Value::Text("1".into())), ("a", Value::Text("2".into())));
        assert!(filter.matches(&headers(&[one.clone(), two.clone()])));
        assert!(!filter.matches(&headers(&[two, one])));
    }

    #[test]
    fn a_header_that_is_not_there_is_not_null() {
        let filter = filter(Combination::All, &[("a", Scalar::Null)]).unwrap().unwrap();
        assert!(filter.matches(&headers(&[("a", Value::Null)])));
        assert!(!filter.matches(&headers(&[("b", Value::Null)])));
    }

    /// Names and values are plain texts: there are neither words nor wildcards in them.
    #[test]
    fn wildcards_and_dots_mean_nothing() {
        let filter = filter(Combination::All, &[("a.*", text("#"))]).unwrap().unwrap();
        assert!(filter.matches(&headers(&[("a.*", Value::Text("#".into()))])));
        assert!(!filter.matches(&headers(&[("a.b", Value::Text("#".into()))])));
        assert!(!filter.matches(&headers(&[("a.*", Value::Text("x.y".into()))])));
    }

    #[test]
    fn equal_meaning_is_equal_value() {
        let one = [("a", text("1")), ("b", Scalar::Number(Number::new(-0.0).unwrap()))];
        let other = [("b", Scalar::Number(Number::new(0.0).unwrap())), ("a", text("1"))];
        assert_eq!(filter(Combination::Any, &one), filter(Combination::Any, &other));
        assert_ne!(filter(Combination::Any, &one), filter(Combination::All, &one));
        assert_eq!(filter(Combination::Any, &one[..1]), filter(Combination::All, &one[..1]));
    }

    #[test]
    fn what_names_nothing_lets_everything_in_or_is_refused() {
        assert_eq!(filter(Combination::All, &[]), Ok(None));
        assert_eq!(filter(Combination::Any, &[]), Err(FilterError::AnyOfNone));
        let many = |count: usize| (0..count).map(|number| (number.to_string(), Scalar::Null)).collect();
        assert!(Filter::new(Combination::All, many(FILTER_FIELDS_MAX)).is_ok());
        assert_eq!(Filter::new(Combination::All, many(FILTER_FIELDS_MAX + 1)), Err(FilterError::TooMany));
    }
}
