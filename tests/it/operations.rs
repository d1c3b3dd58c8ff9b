//! `docs/operations.md` is true: its table of metrics is that of the program, each alert has its advice, and what it
//! names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use passerelle::config::key;
use passerelle::metrics::Metrics;
use passerelle::protocol::REGISTRY;

use crate::dashboards::alerts;
use crate::repository::{files_named, text, yaml};

const PAGE: &str = "docs/operations.md";

#[test]
fn the_table_of_metrics_is_the_program_s_own() {
    let table = table_of_metrics();
    assert!(text(PAGE).contains(&table), "{PAGE} should hold this table:\n\n{table}");
}

#[test]
fn every_alert_has_its_advice_and_no_advice_lacks_its_alert() {
    let page = text(PAGE);
    let chapter = page.split("\n## ").find(|chapter| chapter.starts_with("Alerts")).expect("a chapter on alerts");
    let advice: BTreeSet<String> =
        chapter.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    let alerts: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(advice, alerts, "headings of {PAGE}, alerts of config/alerts.yml");
}

#[test]
fn keys_that_the_documentation_names_exist() {
    let sections: BTreeSet<&str> = key::keys().filter_map(|key| key.path.split('.').next()).collect();
    for page in files_named("docs", ".md") {
        // What stands between backticks and looks like a key: `section.key`, perhaps with `= value`.
        for quoted in text(&page).split('`').skip(1).step_by(2) {
            let path = quoted.split(" = ").next().unwrap_or_default();
            let words: Vec<&str> = path.split('.').collect();
            let dotted = words.len() > 1 && path.chars().all(|it| it.is_ascii_alphanumeric() || "._*-".contains(it));
            let is_protocol = REGISTRY.iter().any(|row| row.name == path);
            if dotted && !is_protocol && sections.contains(words[0]) {
                let known = key::find(&words).is_some() || key::is_table(&words);
                assert!(known, "{} names `{path}`, which is no key", page.display());
            }
        }
    }
}

#[test]
fn alerts_say_what_is_wrong_and_how_much_it_matters() {
    let groups = yaml("config/alerts.yml");
    let rules =
        groups["groups"].as_array().expect("groups").iter().filter_map(|group| group["rules"].as_array()).flatten();
    for rule in rules {
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{rule}");
        assert!(rule["annotations"]["summary"].as_str().is_some_and(|summary| summary.ends_with('.')), "{rule}");
    }
}

/// Name, kind, labels with their values, and meaning of every metric that is ours, in the order of the names.
fn table_of_metrics() -> String {
    let rendered = Metrics::new(&["events"]).expect("metrics").render();
    let mut table = String::from("| metric | kind | labels | what |\n|---|---|---|---|\n");
    for line in rendered.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else { continue };
        if !name.starts_with("passerelle_") {
            continue;
        }
        let kind = rendered.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        let labels: Vec<String> = labels_of(&rendered, name).iter().map(in_words).collect();
        let row = writeln!(table, "| `{name}` | {} | {} | {help} |", kind.expect("a kind"), labels.join("; "));
        row.expect("a text takes what is written");
    }
    table
}

/// A label with its values, where they are of this program's choosing and stand nowhere else.
fn in_words((label, values): (&String, &BTreeSet<String>)) -> String {
    if ["source", "protocol", "version"].contains(&label.as_str()) {
        return format!("`{label}`");
    }
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    format!("`{label}`: {}", values.join(", "))
}

/// Labels of a metric's samples and their values.
fn labels_of(rendered: &str, name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for sample in rendered.lines().filter_map(|line| line.strip_prefix(&format!("{name}{{"))) {
        let (pairs, _) = sample.split_once("\"}").expect("labels end");
        for (label, value) in pairs.split("\",").filter_map(|pair| pair.split_once("=\"")) {
            labels.entry(label.to_owned()).or_default().insert(value.to_owned());
        }
    }
    labels
}
