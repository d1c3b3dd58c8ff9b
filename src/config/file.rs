//! Reads a configuration file: TOML text into values with their lines, unknown names refused with the nearest known one.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{self, Key};
use super::raw::{Entry, Mistake, Origin, Raw};
use super::value::Value;

/// Bytes of a configuration file at most: far beyond any that people write, far below what would hurt.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads `text`, which stands in the file called `path`, into `raw`.
pub(super) fn read(path: &Path, text: &str, raw: &mut Raw, mistakes: &mut Vec<Mistake>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { path, text, raw, mistakes };
    for error in &errors {
        // The message only: the error's own display quotes the line, which may hold a password.
        let origin = reader.origin(error.span().map_or(0, |span| span.start));
        let sentence = format!("{}: this is not TOML", error.message().trim_end_matches('.'));
        reader.mistakes.push(Mistake { origin, path: String::new(), sentence });
    }
    if errors.is_empty() {
        reader.table(&mut Vec::new(), table.get_ref());
    } else {
        reader.raw.incomplete = true;
    }
}

/// One pass over one file.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    raw: &'a mut Raw,
    mistakes: &'a mut Vec<Mistake>,
}

impl Reader<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Origin::File { path: self.path.to_owned(), line }
    }

    fn table(&mut self, segments: &mut Vec<String>, table: &DeTable<'_>) {
        for (name, value) in table {
            let origin = self.origin(name.span().start);
            segments.push(name.get_ref().to_string());
            self.item(segments, value, &origin);
            segments.pop();
        }
    }

    fn item(&mut self, segments: &mut Vec<String>, value: &Spanned<DeValue<'_>>, origin: &Origin) {
        let known = key::find(segments);
        match (known, value.get_ref()) {
            (None, DeValue::Table(table)) if key::is_table(segments) => {
                self.raw.mention(segments, origin);
                self.table(segments, table);
            }
            (Some(key), value) => self.value(segments, key, value, origin),
            (None, value) => self.unknown(segments, matches!(value, DeValue::Table(_)), origin),
        }
    }

    fn value(&mut self, segments: &[String], key: &'static Key, value: &DeValue<'_>, origin: &Origin) {
        match Value::read(key.kind, value) {
            Ok(value) => self.raw.set(segments, Entry { key, value, origin: origin.clone() }),
            Err(sentence) => {
                self.raw.set_unreadable(segments, origin);
                self.mistakes.push(Mistake { origin: origin.clone(), path: key::dotted(segments), sentence });
            }
        }
    }

    fn unknown(&mut self, segments: &[String], is_table: bool, origin: &Origin) {
        let path = key::dotted(segments);
        let sentence = if key::is_table(segments) {
            let example =
                if matches!(path.as_str(), "source" | "route" | "consume" | "presence") { ".NAME" } else { "" };
            format!("is a table: write [{path}{example}] and its keys below")
        } else {
            let nearest = key::nearest_path(segments, is_table);
            let hint = nearest.map(|known| format!(": did you mean {known}?")).unwrap_or_default();
            format!("is not known{hint}")
        };
        self.mistakes.push(Mistake { origin: origin.clone(), path, sentence });
    }
}
