//! Values of configuration keys: how TOML and plain text are read by kind, units included, and how values are written.
//!
//! Every failure is a sentence that says what to write. Nothing here knows which key a value belongs to.

use std::time::Duration;

use toml::de::DeValue;

use super::key::{Kind, nearest};

/// A value in the shape that its key's [`Kind`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Count(u64),
    /// Bytes.
    Size(u64),
    /// A duration.
    Time(Duration),
    /// A text, or one text where a list could be.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

/// Bytes of an AMQP short string at most (AMQP 0-9-1, section 4.2.5.3).
const NAME_BYTES_MAX: usize = 255;

/// Units of durations with their milliseconds, the largest first.
const TIME_UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of sizes with their bytes, the largest of each family first.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Value {
    /// Reads a value as it stands in a file.
    ///
    /// # Errors
    /// A sentence that says what to write instead.
    pub fn read(kind: Kind, given: &DeValue<'_>) -> Result<Self, String> {
        match (kind, given) {
            (Kind::Flag, DeValue::Boolean(flag)) => Ok(Self::Flag(*flag)),
            (Kind::Count { .. } | Kind::Size { .. }, DeValue::Integer(_)) => {
                Self::parse(kind, &integer(given).ok_or("is a number that no key takes")?.to_string())
            }
            (Kind::Time { .. }, DeValue::Integer(number)) => Err(without_unit(number.as_str())),
            (Kind::Texts | Kind::Patterns | Kind::Urls, DeValue::Array(items)) => {
                let texts: Option<Vec<String>> =
                    items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
                texts.map(Self::List).ok_or_else(|| "is a list of something else than texts: quote its items".into())
            }
            (Kind::Texts | Kind::Patterns | Kind::Urls, DeValue::String(text)) => Ok(Self::Text(text.to_string())),
            (Kind::Flag | Kind::Count { .. }, DeValue::String(_)) => Err(format!("is a text: write {}", shape(kind))),
            (_, DeValue::String(text)) => Self::parse(kind, text),
            _ => Err(format!("is {}: write {}", article(given.type_str()), shape(kind))),
        }
    }

    /// Reads a value as it stands in the environment or behind a flag: lists have commas or are TOML.
    ///
    /// # Errors
    /// A sentence that says what to write instead.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        match kind {
            Kind::Text | Kind::Path => Ok(Self::Text(text.to_owned())),
            Kind::Name => name(text),
            Kind::Texts | Kind::Patterns | Kind::Urls => list(kind, text),
            Kind::Flag => flag(text),
            Kind::Count { least, most } => count(text, least, most),
            Kind::Size { least } => size(text, least),
            Kind::Time { least_ms } => time(text, least_ms),
            Kind::Choice(words) => choice(text, words),
        }
    }

    /// Reads a value written in TOML, as the table of keys holds its defaults.
    ///
    /// # Errors
    /// A sentence about the TOML or the value.
    pub fn from_toml(kind: Kind, toml: &str) -> Result<Self, String> {
        let parsed = DeValue::parse(toml).map_err(|error| format!("is not TOML: {}", error.message()))?;
        Self::read(kind, parsed.get_ref())
    }

    /// The flag; no for every other shape.
    pub fn flag(&self) -> bool {
        matches!(self, Self::Flag(true))
    }

    /// The number or the bytes; 0 for every other shape.
    pub fn number(&self) -> u64 {
        match self {
            Self::Count(number) | Self::Size(number) => *number,
            _ => 0,
        }
    }

    /// The duration; none at all for every other shape.
    pub fn time(&self) -> Duration {
        if let Self::Time(time) = self { *time } else { Duration::ZERO }
    }

    /// The text; empty for every other shape.
    pub fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    /// The list, or the only text as one; empty for every other shape.
    pub fn texts(&self) -> &[String] {
        match self {
            Self::List(texts) => texts,
            Self::Text(text) => std::slice::from_ref(text),
            _ => &[],
        }
    }

    /// The value in TOML.
    pub fn to_toml(&self) -> String {
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Count(number) => number.to_string(),
            Self::Size(bytes) if *bytes < 1024 => bytes.to_string(),
            Self::Size(bytes) => quoted(&size_text(*bytes)),
            Self::Time(time) => quoted(&time_text(*time)),
            Self::Text(text) => quoted(text),
            Self::List(texts) => {
                format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// The same with every password in it hidden.
    pub fn masked(&self) -> Self {
        match self {
            Self::Text(text) => Self::Text(super::settle::broker::mask(text)),
            Self::List(texts) => Self::List(texts.iter().map(|text| super::settle::broker::mask(text)).collect()),
            other => other.clone(),
        }
    }
}

/// A text as a TOML string.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A size in the largest unit that divides it.
pub fn size_text(bytes: u64) -> String {
    let unit = SIZE_UNITS.iter().take(3).find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{} {name}", bytes / factor))
}

/// A duration in the largest unit that divides it.
pub fn time_text(time: Duration) -> String {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let unit = TIME_UNITS.iter().find(|(_, factor)| milliseconds >= *factor && milliseconds.is_multiple_of(*factor));
    unit.map_or_else(|| "0s".into(), |(name, factor)| format!("{}{name}", milliseconds / factor))
}

fn integer(given: &DeValue<'_>) -> Option<i64> {
    let integer = given.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn name(text: &str) -> Result<Value, String> {
    if text.len() > NAME_BYTES_MAX {
        return Err(format!("is {} bytes long, AMQP names have at most {NAME_BYTES_MAX}", text.len()));
    }
    Ok(Value::Text(text.to_owned()))
}

fn list(kind: Kind, text: &str) -> Result<Value, String> {
    let text = text.trim();
    if text.starts_with('[') && text.ends_with(']') && !text.starts_with("[::") {
        return Value::from_toml(kind, text);
    }
    if !text.contains(',') {
        return Ok(Value::Text(text.to_owned()));
    }
    let mut items: Vec<String> = Vec::new();
    for piece in text.split(',') {
        // A comma inside a password does not begin another address.
        match items.last_mut().filter(|_| kind == Kind::Urls && !piece.trim_start().starts_with("amqp")) {
            Some(last) => *last = format!("{last},{piece}"),
            None => items.push(piece.trim().to_owned()),
        }
    }
    items.retain(|item| !item.is_empty());
    Ok(Value::List(items))
}

fn flag(text: &str) -> Result<Value, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(Value::Flag(true)),
        "false" => Ok(Value::Flag(false)),
        _ => Err(format!("is {text:?}: write true or false")),
    }
}

fn count(text: &str, least: u64, most: u64) -> Result<Value, String> {
    let number: i128 =
        text.trim().replace('_', "").parse().map_err(|_| format!("is {text:?}: write a whole number"))?;
    if number < i128::from(least) {
        return Err(format!("is {number}: the least is {least}"));
    }
    match u64::try_from(number) {
        Ok(number) if number <= most => Ok(Value::Count(number)),
        _ => Err(format!("is {number}: the most is {most}")),
    }
}

fn size(text: &str, least: u64) -> Result<Value, String> {
    let (number, unit) = number_and_unit(text);
    let factor = if unit.is_empty() { Some(1) } else { factor_of(SIZE_UNITS, unit) };
    let (Some(number), Some(factor)) = (number, factor) else {
        return Err(format!(
            "is {text:?}: write bytes as a whole number, or with one of the units KiB, MiB, GiB, kB, MB, GB, such as \"64 KiB\""
        ));
    };
    let bytes = number.checked_mul(factor).ok_or_else(|| format!("is {text:?}: that is more than can be counted"))?;
    if bytes < least {
        return Err(format!("is {}: the least is {}", size_text(bytes), size_text(least)));
    }
    Ok(Value::Size(bytes))
}

fn time(text: &str, least_ms: u64) -> Result<Value, String> {
    let (number, unit) = number_and_unit(text);
    if number.is_some() && unit.is_empty() {
        return Err(without_unit(text.trim()));
    }
    let (Some(number), Some(factor)) = (number, factor_of(TIME_UNITS, unit)) else {
        return Err(format!("is {text:?}: write a whole number with one of the units ms, s, m, h, d, such as \"25s\""));
    };
    let milliseconds =
        number.checked_mul(factor).ok_or_else(|| format!("is {text:?}: that is longer than can be counted"))?;
    if milliseconds < least_ms {
        return Err(format!("is {text}: the least is {}", time_text(Duration::from_millis(least_ms))));
    }
    Ok(Value::Time(Duration::from_millis(milliseconds)))
}

fn choice(text: &str, words: &[&str]) -> Result<Value, String> {
    if words.contains(&text) {
        return Ok(Value::Text(text.to_owned()));
    }
    let all = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ");
    match nearest(text, words.iter().copied()) {
        Some(word) => Err(format!("is {text:?}, which is none of {all}: did you mean {word:?}?")),
        None => Err(format!("is {text:?}, which is none of {all}")),
    }
}

/// Digits, then a unit, with or without a space between them.
fn number_and_unit(text: &str) -> (Option<u64>, &str) {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits.replace('_', "").parse().ok(), unit.trim_start())
}

fn factor_of(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

fn without_unit(number: &str) -> String {
    format!("is {number}, which has no unit: write \"{number}s\" for seconds (units: ms, s, m, h, d)")
}

/// What to write, with an article.
fn shape(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => "true or false",
        Kind::Count { .. } => "a number without quotes",
        Kind::Size { .. } => "a size such as \"64 KiB\"",
        Kind::Time { .. } => "a duration such as \"25s\"",
        Kind::Texts | Kind::Patterns | Kind::Urls => "a text in quotes or a list of them",
        Kind::Text | Kind::Name | Kind::Path | Kind::Choice(_) => "a text in quotes",
    }
}

fn article(word: &str) -> String {
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {word}", if vowel { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Kind = Kind::Time { least_ms: 1 };
    const SIZE: Kind = Kind::Size { least: 1 };

    #[test]
    fn durations_and_sizes_have_units() {
        let milliseconds = |text| Value::parse(TIME, text).map(|value| value.time().as_millis());
        assert_eq!(milliseconds("25s"), Ok(25_000));
        assert_eq!(milliseconds("500ms"), Ok(500));
        assert_eq!(milliseconds("10 m"), Ok(600_000));
        assert_eq!(milliseconds("2d"), Ok(172_800_000));
        let bytes = |text| Value::parse(SIZE, text).map(|value| value.number());
        assert_eq!(bytes("64 KiB"), Ok(65_536));
        assert_eq!(bytes("1MiB"), Ok(1_048_576));
        assert_eq!(bytes("4096"), Ok(4_096));
        assert_eq!(bytes("5 MB"), Ok(5_000_000));
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        for (kind, toml) in
            [(TIME, "\"1500ms\""), (TIME, "\"10m\""), (SIZE, "\"64 KiB\""), (SIZE, "256"), (SIZE, "1025")]
        {
            let value = Value::from_toml(kind, toml).unwrap();
            assert_eq!(Value::from_toml(kind, &value.to_toml()), Ok(value));
        }
        let texts = Value::List(vec!["a\"b".into(), "c\\d\n".into()]);
        assert_eq!(Value::from_toml(Kind::Texts, &texts.to_toml()), Ok(texts));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let sentence = |kind, toml| Value::from_toml(kind, toml).unwrap_err();
        assert_eq!(sentence(TIME, "25"), "is 25, which has no unit: write \"25s\" for seconds (units: ms, s, m, h, d)");
        assert_eq!(sentence(TIME, "\"25\""), sentence(TIME, "25"));
        assert!(sentence(TIME, "\"25 parsecs\"").contains("units ms, s, m, h, d"));
        assert!(sentence(TIME, "\"-5s\"").contains("whole number"));
        assert_eq!(sentence(TIME, "\"0s\""), "is 0s: the least is 1ms");
        assert_eq!(sentence(Kind::Size { least: 8192 }, "\"4 KiB\""), "is 4 KiB: the least is 8 KiB");
        assert!(sentence(SIZE, "\"64 KB\"").contains("KiB, MiB"));
        assert!(sentence(SIZE, "\"99999999999 GiB\"").contains("more than can be counted"));
        assert_eq!(sentence(Kind::Flag, "\"yes\""), "is a text: write true or false");
        assert_eq!(sentence(Kind::Count { least: 1, most: 9 }, "-3"), "is -3: the least is 1");
        assert_eq!(sentence(Kind::Count { least: 1, most: 9 }, "10"), "is 10: the most is 9");
        assert_eq!(sentence(Kind::Text, "5"), "is an integer: write a text in quotes");
        assert_eq!(sentence(Kind::Texts, "[5]"), "is a list of something else than texts: quote its items");
        let kinds = Kind::Choice(&["topic", "direct"]);
        assert_eq!(
            sentence(kinds, "\"topci\""),
            "is \"topci\", which is none of \"topic\", \"direct\": did you mean \"topic\"?"
        );
        assert_eq!(sentence(kinds, "\"x\""), "is \"x\", which is none of \"topic\", \"direct\"");
    }

    #[test]
    fn lists_in_the_environment_have_commas_or_are_toml() {
        let texts = |kind, text| Value::parse(kind, text).unwrap().texts().to_vec();
        assert_eq!(texts(Kind::Texts, "a, b,"), ["a", "b"]);
        assert_eq!(texts(Kind::Texts, "[\"a,b\", \"c\"]"), ["a,b", "c"]);
        assert_eq!(texts(Kind::Texts, "[::]:8080"), ["[::]:8080"]);
        assert_eq!(texts(Kind::Urls, "amqp://u:p,w@a,amqp://b"), ["amqp://u:p,w@a", "amqp://b"]);
        assert_eq!(Value::parse(Kind::Patterns, "all"), Ok(Value::Text("all".into())));
    }
}
