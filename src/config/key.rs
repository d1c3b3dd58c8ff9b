//! What a configuration key is, and how names are looked up in the one table of them ([`super::table`]).
//!
//! Reading files and the environment, `passerelle config`, the reference file and `docs/configuration.md` all derive from
//! that table. Nothing here knows where a value came from or what it means.

use super::table::SECTIONS;

/// A run of keys that belong together: one table of the reference file, one chapter of the documentation.
#[derive(Debug)]
pub struct Section {
    /// The table's name; `*` stands for a name of the user's choosing.
    pub path: &'static str,
    /// How the table is written in the reference file.
    pub example: &'static str,
    /// The chapter's title.
    pub title: &'static str,
    /// What the table is for.
    pub about: &'static str,
    /// Its keys, in reading order.
    pub keys: &'static [Key],
    /// Keys of other sections that the reference file shows here too, each as a line of TOML.
    pub also: &'static [&'static str],
}

/// One configuration key.
#[derive(Debug)]
pub struct Key {
    /// Dotted; `*` stands for a name of the user's choosing.
    pub path: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Its value in TOML when nobody sets it; `None` when there is none, and `about` says what holds then.
    pub default: Option<&'static str>,
    /// A value in TOML that shows how it is written: the default where there is one.
    pub example: &'static str,
    /// What it does, in sentences.
    pub about: &'static str,
    /// The flag of `serve` that sets it.
    pub flag: Option<&'static str>,
}

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text of at most 255 bytes: an AMQP short string.
    Name,
    /// A file or folder.
    Path,
    /// Texts: one, or a list.
    Texts,
    /// A keyword or a list of patterns.
    Patterns,
    /// Broker addresses with their passwords: one, or a list. Never printed as they are.
    Urls,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Count {
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// Bytes.
    Size {
        /// The least.
        least: u64,
    },
    /// A duration.
    Time {
        /// The least, in milliseconds.
        least_ms: u64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl Key {
    /// A key with a default, in TOML.
    pub(super) const fn new(path: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Self {
        Self { path, kind, default: Some(default), example: default, about, flag: None }
    }

    /// A key without a default; `example` shows how it is written, `about` says what holds without it.
    pub(super) const fn optional(path: &'static str, kind: Kind, example: &'static str, about: &'static str) -> Self {
        Self { path, kind, default: None, example, about, flag: None }
    }

    /// The same key, which a flag sets too.
    pub(super) const fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    /// Whether its value must not be printed.
    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Urls
    }

    /// The environment variable that sets it, with `NAME` for a name of the user's choosing.
    pub fn variable(&self) -> String {
        variable(&self.path.replace('*', "NAME"))
    }

    /// The key's name within its section.
    pub fn name_in(&self, section: &Section) -> &'static str {
        self.path.strip_prefix(section.path).and_then(|rest| rest.strip_prefix('.')).unwrap_or(self.path)
    }
}

impl Kind {
    /// What may be written, in a few words.
    pub fn words(self) -> String {
        match self {
            Self::Text | Self::Name => "text".into(),
            Self::Path => "path".into(),
            Self::Texts => "text or list".into(),
            Self::Patterns => "\"on-demand\", \"all\" or list of patterns".into(),
            Self::Urls => "URL or list, secret".into(),
            Self::Flag => "true or false".into(),
            Self::Count { least, most: u64::MAX } => format!("number, at least {least}"),
            Self::Count { least, most } => format!("number, {least} to {most}"),
            Self::Size { least } => format!("size, at least {}", super::value::size_text(least)),
            Self::Time { .. } => "duration".into(),
            Self::Choice(words) => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", "),
        }
    }
}

/// Every key, in reading order.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key with this path, given in segments.
pub fn find<S: AsRef<str>>(segments: &[S]) -> Option<&'static Key> {
    keys().find(|key| key.path.split('.').count() == segments.len() && agrees(key, segments))
}

/// Whether some key lies below this path, so that it is a table.
pub fn is_table<S: AsRef<str>>(segments: &[S]) -> bool {
    keys().any(|key| key.path.split('.').count() > segments.len() && agrees(key, segments))
}

/// Whether the first segments of the key's path are these.
fn agrees<S: AsRef<str>>(key: &Key, segments: &[S]) -> bool {
    key.path.split('.').zip(segments).all(|(own, given)| own == "*" || own == given.as_ref())
}

/// A path as it is shown: segments that TOML would not take bare are quoted.
pub fn dotted<S: AsRef<str>>(segments: &[S]) -> String {
    segments.iter().map(|segment| bare(segment.as_ref())).collect::<Vec<_>>().join(".")
}

/// A segment, quoted if TOML asks for it.
fn bare(segment: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !segment.is_empty() && segment.bytes().all(plain) { segment.to_owned() } else { format!("{segment:?}") }
}

/// The environment variable for a dotted path.
pub fn variable(path: &str) -> String {
    format!("PASSERELLE_{}", path.replace('.', "__").to_uppercase())
}

/// The known path nearest to an unknown one: a key where a value was given, else a table. Names of the user's choosing
/// stay as given.
pub fn nearest_path<S: AsRef<str>>(segments: &[S], wants_table: bool) -> Option<String> {
    let given = dotted(segments);
    let candidates: Vec<String> = if wants_table {
        SECTIONS.iter().map(|section| named(section.path, segments)).collect()
    } else {
        keys().filter(|key| !key.path.ends_with('*')).map(|key| named(key.path, segments)).collect()
    };
    nearest(&given, candidates.iter().map(String::as_str))
        .or_else(|| {
            // Right key, wrong table: its last word is worth a look elsewhere.
            let last = segments.last()?.as_ref();
            candidates.iter().map(String::as_str).find(|path| path.rsplit('.').next() == Some(last))
        })
        .map(str::to_owned)
}

/// A path of the table with the user's own name put in where it says `*`.
pub fn named<S: AsRef<str>>(path: &str, segments: &[S]) -> String {
    let name = segments.get(1).map_or("NAME", AsRef::as_ref);
    path.split('.').map(|own| if own == "*" { bare(name) } else { own.to_owned() }).collect::<Vec<_>>().join(".")
}

/// The candidate with the fewest edits, if they are few for the word's length.
pub fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let tolerated = (given.chars().count() / 3).clamp(1, 4);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(given, candidate), candidate))
        .filter(|(edits, _)| *edits <= tolerated)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Value;

    #[test]
    fn every_key_is_listed_once_below_its_section_with_a_sentence_and_values_that_it_takes() {
        let mut seen = std::collections::BTreeSet::new();
        for section in SECTIONS {
            assert!(section.about.ends_with('.'), "{}", section.path);
            for key in section.keys {
                assert!(seen.insert(key.path), "{} is listed twice", key.path);
                assert!(key.path.starts_with(section.path), "{} in {}", key.path, section.path);
                assert!(key.about.ends_with('.'), "{} is not explained in sentences", key.path);
                for text in [Some(key.example), key.default].into_iter().flatten() {
                    Value::from_toml(key.kind, text).unwrap_or_else(|sentence| panic!("{}: {sentence}", key.path));
                }
            }
        }
    }

    #[test]
    fn names_are_found_and_tables_told_from_keys() {
        assert_eq!(find(&["source", "orders", "log", "age_max"]).unwrap().path, "source.*.log.age_max");
        assert!(find(&["source", "orders"]).is_none());
        assert!(is_table(&["source", "orders"]) && is_table(&["source"]) && !is_table(&["server", "listen"]));
        assert_eq!(find(&["source", "a", "exchange"]).unwrap().variable(), "PASSERELLE_SOURCE__NAME__EXCHANGE");
    }

    #[test]
    fn the_nearest_name_keeps_the_users_own_names() {
        assert_eq!(nearest_path(&["server", "listne"], false).as_deref(), Some("server.listen"));
        assert_eq!(nearest_path(&["source", "orders", "echange"], false).as_deref(), Some("source.orders.exchange"));
        assert_eq!(nearest_path(&["server", "queue_prefix"], false).as_deref(), Some("amqp.queue_prefix"));
        assert_eq!(nearest_path(&["sever"], true).as_deref(), Some("server"));
        assert_eq!(nearest_path(&["zzz", "zzz"], false), None);
    }
}
