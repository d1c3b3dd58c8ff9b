//! Writes the table of keys as the commented reference file and as `docs/configuration.md`.
//!
//! Tests hold both files equal to what is written here; `UPDATE_DOCS=1 cargo test config` rewrites them.

use std::fmt::Write;

use super::key::{Key, Section};
use super::table::SECTIONS;

/// Characters of a comment line of the reference file at most.
const COMMENT_COLUMNS: usize = 100;

const REFERENCE_HEAD: &str = "\
# passerelle's configuration: every key, with its default, its unit and what it does.
#
# A line that begins with # and no space is a key that is not set: remove the # to set it. What stands there is the
# default, or an example where there is none. `passerelle --config FILE` reads such a file, `passerelle check` names every
# mistake in it, `passerelle config` shows what holds in the end.
#
# Every key can be set by the environment too: PASSERELLE_, the table, two underscores, the key, as in
# PASSERELLE_AMQP__URL; that wins over the file, and flags win over both.
#
# Durations have a unit: ms, s, m, h, d. Sizes are bytes or have one: KiB, MiB, GiB, kB, MB, GB.
";

const MARKDOWN_HEAD: &str = "\
# Configuration

<!-- Written from the table of keys in src/config/table.rs by `UPDATE_DOCS=1 cargo test config`. -->

Every value can be set in a file of [TOML](https://toml.io), by the environment and, for the common ones, by a flag. Later
wins in that order. [`config/passerelle.toml`](../config/passerelle.toml) is a file that holds every key, ready to be
copied.

    passerelle --config passerelle.toml     # or PASSERELLE_CONFIG=passerelle.toml
    passerelle check --config passerelle.toml    # names every mistake with file, line and key; exits 1 on any
    passerelle config --config passerelle.toml   # shows what holds in the end, and where each value comes from

- **Environment**: `PASSERELLE_`, the table, two underscores, the key, in capitals: `PASSERELLE_AMQP__URL`,
  `PASSERELLE_SOURCE__EVENTS__EXCHANGE`, `PASSERELLE_SOURCE__EVENTS__LOG__AGE_MAX`. Lists have commas or are written as in
  TOML. An empty variable counts as not set.
- **Unknown names**, in the file or beginning with `PASSERELLE_`, are refused with the nearest known one. (What Kubernetes
  adds for a service called `passerelle`, such as `PASSERELLE_SERVICE_HOST`, is let pass.)
- **Platforms**: `AMQP_URL` is the broker's address when nothing else names one. `PORT`, and `HOST` or `IP` when they parse
  as an address, replace port and address of the public listener that the file or the default names;
  `PASSERELLE_SERVER__LISTEN` and `--listen` win over them.
- **Durations** have a unit: `ms`, `s`, `m`, `h`, `d`. **Sizes** are bytes, or have one: `KiB`, `MiB`, `GiB`, `kB`, `MB`,
  `GB`.
- **Secrets**: the broker's address holds a password. It can come from the environment or from a file (`amqp.url_file`), and
  is never printed: `passerelle config`, logs and mistakes show `amqp://user:***@host`.
- **Nothing configured at all** (no file, no flag, no `PASSERELLE_*`, no `AMQP_URL`): the embedded broker runs, in memory, on
  loopback. Otherwise the broker's address is required.
";

/// The complete commented reference file, `config/passerelle.toml`.
pub fn reference() -> String {
    let mut out = String::from(REFERENCE_HEAD);
    for section in SECTIONS {
        out.push('\n');
        comment(&mut out, &format!("{}. {}", section.title, section.about));
        // A table of the user's naming would be there as soon as its header is.
        let hash = if section.path.contains('*') { "#" } else { "" };
        let _ = writeln!(out, "{hash}[{}]", section.example);
        for key in section.keys {
            reference_key(&mut out, section, key);
        }
        for line in section.also {
            let _ = writeln!(out, "\n# As above.\n#{line}");
        }
    }
    out
}

fn reference_key(out: &mut String, section: &Section, key: &Key) {
    let example = if key.default.is_none() { " For example:" } else { "" };
    out.push('\n');
    comment(out, &format!("{}{example}", key.about));
    let name = match key.name_in(section) {
        "*" => "\"events.example.org\"",
        name => name,
    };
    let _ = writeln!(out, "#{name} = {}", key.example);
}

/// Appends a text as comment lines, broken between words.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > COMMENT_COLUMNS {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut out = String::from(MARKDOWN_HEAD);
    for section in SECTIONS {
        let _ = writeln!(out, "\n## {}\n\n{}\n", section.title, section.about);
        let _ = writeln!(out, "| key | what to write | default | |\n|---|---|---|---|");
        for key in section.keys {
            let default = key.default.map_or_else(String::new, code);
            let flag = key.flag.map(|flag| format!(" Flag: {}.", code(flag))).unwrap_or_default();
            let path = code(&key.path.replace('*', "NAME"));
            let _ = writeln!(out, "| {path} | {} | {default} | {}{flag} |", cell(&key.kind.words()), cell(key.about));
        }
    }
    out
}

fn code(text: &str) -> String {
    format!("`{}`", cell(text))
}

/// A text as it may stand in a table of Markdown.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::config::key::{dotted, find, keys};
    use crate::config::raw::Raw;
    use crate::config::value::Value;
    use crate::config::{Inputs, Settings, file, read};

    /// Holds a file of the repository equal to a text, or rewrites it when asked to.
    fn hold(path: &str, expected: &str) {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, expected).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == expected, "{path} is not what the table says: UPDATE_DOCS=1 cargo test config");
    }

    /// Sets every key of the reference file.
    fn uncommented() -> String {
        let line = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest.to_owned() + "\n",
            _ => line.to_owned() + "\n",
        };
        reference().lines().map(line).collect()
    }

    #[test]
    fn the_reference_file_is_current() {
        hold("config/passerelle.toml", &reference());
    }

    #[test]
    fn the_documentation_is_current() {
        hold("docs/configuration.md", &markdown());
    }

    #[test]
    fn the_reference_file_sets_every_key_to_its_default() {
        let (mut raw, mut mistakes) = (Raw::default(), Vec::new());
        file::read("reference".as_ref(), &uncommented(), &mut raw, &mut mistakes);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let mut seen: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for (_, entry) in raw.entries() {
            seen.entry(entry.key.path).or_default().push(&entry.value);
        }
        for key in keys() {
            let expected = Value::from_toml(key.kind, key.example).unwrap();
            let values = seen.get(key.path).unwrap_or_else(|| panic!("{} is not in the reference file", key.path));
            assert!(values.contains(&&expected), "{}", key.path);
        }
    }

    #[test]
    fn the_reference_file_settles_to_the_defaults() {
        // Keys without a default are examples, among them things that exclude each other; all others stay set.
        let text: String = uncommented()
            .lines()
            .scan(Vec::<String>::new(), |table, line| {
                if let Some(name) = line.strip_prefix('[') {
                    *table = name.trim_end_matches(']').split('.').map(str::to_owned).collect();
                }
                let name = line.split(" = ").next().unwrap_or_default();
                let path: Vec<String> = table.iter().cloned().chain(name.split('.').map(str::to_owned)).collect();
                let example = find(&path).is_some_and(|key| key.default.is_none());
                let other_source = ["source.orders", "source.audit", "route", "consume", "presence", "alias"]
                    .iter()
                    .any(|other| dotted(table).starts_with(other));
                Some(if example || other_source { String::new() } else { line.to_owned() + "\n" })
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passerelle.toml");
        std::fs::write(&path, text.replace("[source.events]", "[source.events]\nexchange = \"amq.topic\"")).unwrap();
        let inputs = Inputs { file: Some(path), flags: vec![("--amqp", "amqp://host".into())], ..Inputs::default() };
        let mut settings = read(&inputs).unwrap().settings;
        settings.amqp.urls.clear();
        settings.amqp.node.clear();
        let defaults = Settings { sources: vec![crate::config::Source::events()], ..Settings::default() };
        assert_eq!(format!("{settings:#?}"), format!("{defaults:#?}"));
    }

    #[test]
    fn every_kind_of_source_says_who_else_gets_the_message() {
        let sources: Vec<_> = SECTIONS.iter().filter(|section| section.path == "source.*").collect();
        assert_eq!(sources.len(), 3);
        assert!(sources.iter().all(|section| section.about.contains("Who else gets the message:")));
    }
}
