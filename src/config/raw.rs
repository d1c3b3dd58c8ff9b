//! What was configured, before it is made sense of: values by path, each with its origin, and mistakes with theirs.
//!
//! Every value here already has the shape of its kind; what it means is for `settle` to say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use super::key::{self, Key};
use super::value::Value;

/// Where a value comes from. What is listed later here wins over what is listed earlier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// Nobody set it, and it follows from something else, which is named.
    Derived(&'static str),
    /// A line of the file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

/// A value that somebody set.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its row in the table.
    pub key: &'static Key,
    /// What it was set to.
    pub value: Value,
    /// By whom.
    pub origin: Origin,
}

/// Something wrong, or dangerous, with the place where it can be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands; `Default` when it stands nowhere.
    pub origin: Origin,
    /// The key or table, as written; empty when it concerns the whole.
    pub path: String,
    /// What is wrong and what to do.
    pub sentence: String,
}

/// Everything that was configured.
#[derive(Debug, Default)]
pub struct Raw {
    entries: BTreeMap<String, Entry>,
    /// Where each table of the user's naming was first mentioned, by path.
    tables: BTreeMap<String, Origin>,
    /// Paths whose values could not be read: set, but without a value.
    unreadable: BTreeSet<String>,
    /// Whether some file could not be read, so that what is missing may well be there.
    pub incomplete: bool,
}

impl Origin {
    /// 0 for defaults, then 1 file, 2 environment, 3 flag: the later wins.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Default | Self::Derived(_) => 0,
            Self::File { .. } => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Derived(from) => formatter.write_str(from),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Environment(name) => formatter.write_str(name),
            Self::Flag(name) => formatter.write_str(name),
        }
    }
}

impl Mistake {
    /// Sorts mistakes by the places where they stand; those that stand nowhere come last.
    pub fn sort(mistakes: &mut [Self]) {
        mistakes.sort_by(|a, b| {
            (a.origin.rank() == 0, &a.origin, &a.path).cmp(&(b.origin.rank() == 0, &b.origin, &b.path))
        });
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Sentences that begin with "is" speak of what stands before them.
        let separator = if self.sentence.starts_with("is ") { " " } else { ": " };
        match (self.origin.rank() > 0, self.path.as_str()) {
            (true, "") => write!(formatter, "{}{separator}{}", self.origin, self.sentence),
            (true, path) => write!(formatter, "{}: {path}{separator}{}", self.origin, self.sentence),
            (false, "") => formatter.write_str(&self.sentence),
            (false, path) => write!(formatter, "{path}{separator}{}", self.sentence),
        }
    }
}

impl Raw {
    /// Sets a value, over whatever was there.
    pub fn set(&mut self, segments: &[String], entry: Entry) {
        self.mention(segments, &entry.origin);
        let path = key::dotted(segments);
        self.unreadable.remove(&path);
        self.entries.insert(path, entry);
    }

    /// Remembers that a value stands there which could not be read.
    pub fn set_unreadable(&mut self, segments: &[String], origin: &Origin) {
        self.mention(segments, origin);
        let path = key::dotted(segments);
        self.entries.remove(&path);
        self.unreadable.insert(path);
    }

    /// Remembers where a table of the user's naming was first mentioned.
    pub fn mention(&mut self, segments: &[String], origin: &Origin) {
        if let [table, name, ..] = segments
            && matches!(table.as_str(), "source" | "route" | "consume" | "presence")
        {
            self.tables.entry(key::dotted(&[table, name])).or_insert_with(|| origin.clone());
        }
    }

    /// What was set at this path.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Every value that was set, by path.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Whether somebody set this, even if what was set could not be read.
    pub fn is_set(&self, path: &str) -> bool {
        self.entries.contains_key(path) || self.unreadable.contains(path)
    }

    /// Names of the user's choosing below this table, in order.
    pub fn names(&self, table: &str) -> Vec<String> {
        let below = self.tables.keys().filter_map(|path| path.strip_prefix(table)?.strip_prefix('.'));
        below.map(str::to_owned).collect()
    }

    /// Where this key, or the table of this name, stands.
    pub fn origin(&self, path: &str) -> Origin {
        let entry = self.entries.get(path).map(|entry| &entry.origin);
        entry.or_else(|| self.tables.get(path)).cloned().unwrap_or(Origin::Default)
    }
}
