//! A filter on headers from its JSON text, wherever that stands: in a `subscribe`, in a URL, on the command line.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::model::filter::{Combination, Filter, Number, Scalar};
use crate::model::value::EXACT_INTEGER_MAX;
use crate::protocol::json::fields::shortened;

/// Bytes of a filter's JSON text.
pub(crate) const FILTER_BYTES_MAX: usize = 4 << 10;

/// The field that says how the others are combined, as in the arguments of an AMQP headers exchange.
const COMBINATION: &str = "x-match";

/// Reads a filter; nothing where it lets everything in.
///
/// # Errors
/// The rest of a sentence that begins with what was called a filter.
pub(crate) fn read(json: &str) -> Result<Option<Filter>, String> {
    if json.len() > FILTER_BYTES_MAX {
        return Err(format!("may have at most {FILTER_BYTES_MAX} bytes"));
    }
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json)
        .map_err(|_| "must be a JSON object of headers and their values, such as {\"region\":\"eu\"}".to_owned())?;
    let mut combination = Combination::default();
    let mut wanted = BTreeMap::new();
    for (name, value) in fields {
        let value = scalar(&name, value.get())?;
        if name == COMBINATION {
            combination = named(&value)?;
        } else {
            wanted.insert(name, value);
        }
    }
    Filter::new(combination, wanted).map_err(|error| error.to_string())
}

fn named(value: &Scalar) -> Result<Combination, String> {
    match value {
        Scalar::Text(name) if name == "all" => Ok(Combination::All),
        Scalar::Text(name) if name == "any" => Ok(Combination::Any),
        _ => Err(format!("takes \"all\" or \"any\" in {COMBINATION:?}")),
    }
}

fn scalar(name: &str, json: &str) -> Result<Scalar, String> {
    let wrong = || {
        let name = shortened(name);
        format!("compares with a string, a number, true, false or null: give {name:?} one of these")
    };
    match json {
        "null" => Ok(Scalar::Null),
        "true" => Ok(Scalar::Bool(true)),
        "false" => Ok(Scalar::Bool(false)),
        text if text.starts_with('"') => serde_json::from_str(text).map(Scalar::Text).map_err(|_| wrong()),
        number if number.starts_with(['[', '{']) || number.is_empty() => Err(wrong()),
        number => {
            let is_whole = !number.contains(['.', 'e', 'E']);
            // More digits than fit are more than is exact.
            let is_exact = || number.parse::<i128>().is_ok_and(|whole| whole.unsigned_abs() <= EXACT_INTEGER_MAX);
            if is_whole && !is_exact() {
                let (name, number) = (shortened(name), shortened(number));
                return Err(format!(
                    "must have integers beyond 2^53 in quotes, as messages show them: {{{name:?}:\"{number}\"}}"
                ));
            }
            // By the standard library, which rounds to the nearest double as readers of messages do.
            let number = number.parse().ok().and_then(Number::new);
            number.map(Scalar::Number).ok_or_else(wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::model::value::{Headers, Value};
    use crate::protocol::json::headers;

    fn read_one(json: &str) -> Filter {
        read(json).unwrap().unwrap()
    }

    #[test]
    fn the_form_does_not_matter() {
        let filter = read_one(r#"{"region":"eu","vip":true,"n":1}"#);
        for same in [
            r#" { "n" : 1.0, "vip":true, "region":"\u0065u" } "#,
            r#"{"x-match":"all","region":"us","region":"eu","vip":true,"n":10e-1}"#,
        ] {
            assert_eq!(read_one(same), filter, "{same}");
        }
        assert_eq!(read("{}"), Ok(None));
        assert_eq!(read(r#"{"x-match":"all"}"#), Ok(None));
        assert_eq!(read_one(r#"{"x-match":"any","a":-0.0}"#), read_one(r#"{"a":0}"#));
    }

    /// The table that the JavaScript client is tested with too.
    #[test]
    fn the_shared_table_of_cases_holds() {
        #[derive(serde::Deserialize)]
        struct Case<'a> {
            #[serde(borrow)]
            filter: &'a RawValue,
            #[serde(borrow)]
            headers: &'a RawValue,
            matches: bool,
        }
        let table = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/filters.json")).unwrap();
        let cases: Vec<Case<'_>> = serde_json::from_str(&table).unwrap();
        assert!(cases.len() > 40);
        for Case { filter, headers, matches } in cases {
            let filter_read = read(filter.get()).unwrap();
            let table = headers::from_json(headers.get()).unwrap();
            let lets_in = filter_read.is_none_or(|filter| filter.matches(&table));
            assert_eq!(lets_in, matches, "{filter} against {headers}");
        }
    }

    #[test]
    fn what_is_no_filter_is_answered_with_what_to_write() {
        let many: Vec<String> = (0..17).map(|number| format!("\"{number}\":1")).collect();
        let many = format!("{{{}}}", many.join(","));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(FILTER_BYTES_MAX));
        let object = "must be a JSON object of headers and their values, such as {\"region\":\"eu\"}";
        let value = "compares with a string, a number, true, false or null: give \"a\" one of these";
        let any = "takes \"all\" or \"any\" in \"x-match\"";
        let quotes = "must have integers beyond 2^53 in quotes, as messages show them: {\"a\":\"-9007199254740993\"}";
        for (text, sentence) in [
            ("", object),
            ("region=eu", object),
            ("[]", object),
            ("\"eu\"", object),
            ("{\"a\":1}x", object),
            ("{\"a\":\"\\ud800\"}", value),
            ("{\"a\":[1]}", value),
            ("{\"a\":{\"b\":1}}", value),
            ("{\"a\":1e999}", value),
            ("{\"a\":-9007199254740993}", quotes),
            ("{\"x-match\":\"some\"}", any),
            ("{\"x-match\":true,\"a\":1}", any),
            ("{\"x-match\":\"any\"}", "must name a header beside \"x-match\":\"any\""),
            (&many, "may name at most 16 headers"),
            (&long, "may have at most 4096 bytes"),
        ] {
            assert_eq!(read(text), Err(sentence.to_owned()), "{text}");
        }
    }

    /// Some of what headers hold, and each kind near the edges of its form.
    fn value() -> impl Strategy<Value = Value> {
        let edges = [0, 1, -1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, i64::MIN, i64::MAX];
        let text =
            prop_oneof![Just("eu".to_owned()), Just("AQI=".to_owned()), Just("9007199254740993".to_owned()), ".{0,4}"];
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            proptest::sample::select(edges.to_vec()).prop_map(Value::Int),
            any::<i64>().prop_map(Value::Int),
            any::<u64>().prop_map(Value::UInt),
            any::<u64>().prop_map(Value::Timestamp),
            any::<f64>().prop_map(Value::Float),
            proptest::sample::select(vec![0.5, -0.0, f64::NAN, 1e300, 0.1 + 0.2]).prop_map(Value::Float),
            text.prop_map(Value::Text),
            proptest::collection::vec(1..4_u8, 0..4).prop_map(Value::Bytes),
            Just(Value::List(vec![Value::Null])),
            Just(Value::Table(Headers::default())),
        ]
    }

    fn table() -> impl Strategy<Value = Headers> {
        proptest::collection::vec(("[ab.*]", value()), 0..5).prop_map(Headers)
    }

    /// What a subscriber is shown of headers.
    fn shown(headers: &Headers) -> BTreeMap<String, Box<RawValue>> {
        let mut bytes = Vec::new();
        headers::push(&mut bytes, headers);
        serde_json::from_slice(&bytes).unwrap()
    }

    /// As a reader in JavaScript would compare them.
    fn is_same(one: &RawValue, other: &RawValue) -> bool {
        match (one.get().parse::<f64>(), other.get().parse::<f64>()) {
            (Ok(one), Ok(other)) => one == other,
            _ => serde_json::from_str::<Json>(one.get()).unwrap() == serde_json::from_str::<Json>(other.get()).unwrap(),
        }
    }

    proptest! {
        /// A filter made of what some headers are shown as, against a comparison of what others are shown as.
        #[test]
        fn it_compares_what_is_shown(wanted in table(), headers in table(), any in any::<bool>()) {
            let is_scalar = |raw: &RawValue| !raw.get().starts_with(['[', '{']);
            // What another message shows is wanted, and for one field what this one shows, so that it often agrees.
            let mut wanted = shown(&wanted);
            let seen = shown(&headers);
            wanted.extend(seen.first_key_value().map(|(name, value)| (name.clone(), value.clone())));
            wanted.retain(|_, value| is_scalar(value));
            let agrees = |name: &String| seen.get(name).is_some_and(|seen| is_same(seen, &wanted[name]));
            let expected = if any { wanted.keys().any(agrees) } else { wanted.keys().all(agrees) };
            let combination = if any { "any" } else { "all" };
            let field = |(name, value)| format!(",{}:{value}", serde_json::json!(name));
            let fields: String = wanted.iter().map(field).collect();
            let text = format!("{{\"x-match\":\"{combination}\"{fields}}}");
            match read(&text) {
                Ok(Some(filter)) => prop_assert_eq!(filter.matches(&headers), expected, "{}", text),
                Ok(None) => prop_assert!(expected, "{}", text),
                Err(_) => prop_assert!(wanted.is_empty() && any, "{}", text),
            }
        }
    }
}
