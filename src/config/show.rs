//! Writes the effective configuration as TOML, each value with its origin, passwords hidden.

use std::fmt::Write;

use super::Configuration;
use super::key::{self, Key};
use super::raw::{Origin, Raw};
use super::settle::Reads;
use super::settle::broker::mask;
use super::table::SECTIONS;
use super::value::{Value, quoted};

/// Column at which origins begin, where the value leaves room.
const ORIGIN_COLUMN: usize = 48;

/// The effective configuration.
pub fn effective(configuration: &Configuration) -> String {
    let raw = &configuration.raw;
    let mut out = String::new();
    let mut tables: Vec<&str> = SECTIONS.iter().map(|section| section.path).collect();
    tables.dedup();
    for table in tables {
        match table.strip_suffix(".*") {
            Some(parent) => {
                raw.names(parent)
                    .iter()
                    .for_each(|name| block(&mut out, &format!("{parent}.{name}"), own_rows(raw, table, name)));
            }
            None if table == "amqp" => block(&mut out, table, broker_rows(configuration)),
            None if table == "embedded" && configuration.settings.embedded.is_none() => {}
            None if table == "alias" => block(&mut out, table, alias_rows(raw)),
            None => block(&mut out, table, rows(raw, table, "")),
        }
    }
    out
}

/// One line: name, value in TOML, origin.
type Row = (String, String, Origin);

fn block(out: &mut String, table: &str, rows: Vec<Row>) {
    if rows.is_empty() {
        return;
    }
    let separator = if out.is_empty() { "" } else { "\n" };
    let _ = writeln!(out, "{separator}[{table}]");
    for (name, value, origin) in rows {
        let line = format!("{name} = {value}");
        let _ = writeln!(out, "{line:ORIGIN_COLUMN$} # {origin}");
    }
}

/// The rows of a table: what was set, and defaults. `name` stands for the star.
fn rows(raw: &Raw, table: &str, name: &str) -> Vec<Row> {
    let below = |key: &&'static Key| key.path.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
    key::keys().filter(below).filter_map(|key| row(raw, key, table, name)).collect()
}

fn row(raw: &Raw, key: &'static Key, table: &str, name: &str) -> Option<Row> {
    let (value, origin) = match raw.entry(&key.path.replace('*', name)) {
        Some(entry) => (entry.value.clone(), entry.origin.clone()),
        None => (Value::from_toml(key.kind, key.default?).ok()?, Origin::Default),
    };
    let value = if key.is_secret() { value.masked() } else { value };
    Some((key.path.strip_prefix(table)?.trim_start_matches('.').to_owned(), value.to_toml(), origin))
}

/// The rows of a source or route: without defaults of keys that only the other kind of source has.
fn own_rows(raw: &Raw, table: &str, name: &str) -> Vec<Row> {
    let is_set = |key: &str| raw.is_set(&format!("source.{name}.{key}"));
    let reads = match (is_set("stream"), is_set("queue")) {
        (true, true) => Reads::QueueThroughStream,
        (true, false) => Reads::Stream,
        (false, true) => Reads::Queue,
        (false, false) => Reads::Exchange,
    };
    let mut rows = rows(raw, table, name);
    rows.retain(|(key, _, origin)| origin.rank() > 0 || table != "source.*" || reads.has(key));
    rows
}

/// The broker's rows: with the embedded broker, its address.
fn broker_rows(configuration: &Configuration) -> Vec<Row> {
    let mut rows = rows(&configuration.raw, "amqp", "");
    if configuration.settings.embedded.is_some() {
        rows.retain(|(name, ..)| name != "url");
        let urls = configuration.settings.amqp.urls.iter();
        let own = urls.map(|url| ("url".into(), quoted(&mask(url.reveal())), Origin::Derived("the embedded broker")));
        rows.splice(0..0, own);
    }
    rows
}

fn alias_rows(raw: &Raw) -> Vec<Row> {
    let aliases = raw.entries().filter(|(_, entry)| entry.key.path == "alias.*");
    let row = |(path, entry): (&str, &super::raw::Entry)| {
        (path.trim_start_matches("alias.").to_owned(), entry.value.to_toml(), entry.origin.clone())
    };
    aliases.map(row).collect()
}
