//! Every expression of the dashboard and of the alerts, asked of a real Prometheus that scraped the program and its RabbitMQ
//! under load: each must be understood and have something to show, so that no panel is empty for want of a right name.

mod load;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use crate::prometheus::{Prometheus, promtool, wait_until};
use crate::rabbit::{EXPORTER, Rabbit};
use crate::repository::{root, text, yaml};
use load::Load;

const DASHBOARD: &str = "grafana/dashboards/passerelle.json";

/// Panels that may show zero under load, each with the reason. None may be without data.
const MAY_BE_ZERO: [(&str, &str); 1] =
    [("Not yet acknowledged", "deliveries are acknowledged within a moment, between two scrapes")];

/// Alerts that the load fires, because they wait for nothing: messages were lost, others could not be passed on.
const FIRING: [&str; 2] = ["PasserelleMessagesLost", "PasserelleRejectsMessages"];

/// What the load must have done for the panels to be worth looking at.
const DONE: [&str; 11] = [
    r#"passerelle_connections{protocol="passerelle.v1.json",transport="websocket"}"#,
    r#"passerelle_connections{protocol="passerelle.v1.raw",transport="websocket"}"#,
    r#"passerelle_connections{protocol="sse",transport="sse"}"#,
    r#"passerelle_publishes_total{result="routed"}"#,
    r#"passerelle_publishes_total{result="unrouted"}"#,
    r#"passerelle_calls_total{result="replied"}"#,
    r#"passerelle_calls_total{result="unroutable"}"#,
    r#"passerelle_closes_total{reason="slow_consumer"}"#,
    r#"passerelle_drops_total{reason="slow_consumer"}"#,
    r#"passerelle_gaps_total{reason="outage"}"#,
    r#"passerelle_source_rejected_total{source="kinds",reason="template_field"}"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_has_data_under_load() {
    let rabbit = Rabbit::with_plugins(&[EXPORTER]);
    let mut load = Load::prepare(&rabbit).await;
    let folder = tempfile::tempdir().expect("a folder");
    let node: SocketAddr = load.program.admin.parse().expect("an address");
    let prometheus = scrape(folder.path(), node, rabbit.exporter());
    // What is counted before the first scrape is no increase.
    let prometheus = blocking(move || {
        prometheus.wait_for("count_over_time(up[1m]) >= 2", |series| series.len() == 2);
        prometheus
    })
    .await;
    load.begin(&rabbit).await;
    load.lose_the_link(&rabbit).await;
    blocking(move || ask_everything(&prometheus)).await;
}

#[test]
fn prometheus_takes_its_configuration_and_rules() {
    promtool(&["check", "config", "config/prometheus.yml"]);
    promtool(&["check", "rules", "config/alerts.yml"]);
}

#[test]
fn every_alert_fires_on_its_trouble_and_only_then() {
    promtool(&["test", "rules", "tests/it/alerts.yml"]);
    let tests = text("tests/it/alerts.yml");
    for (name, _) in alerts() {
        assert!(tests.contains(&format!("{{alertname=\"{name}\"}}")), "no test fires {name}");
    }
}

#[test]
fn panels_are_where_they_can_be_seen() {
    let dashboard = dashboard();
    let mut taken = std::collections::HashSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(place("x") + place("w") <= 24, "{} leaves the page", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} covers another panel", panel["title"]);
            }
        }
        let described = panel["type"] == "row" || panel["description"].as_str().is_some_and(|text| !text.is_empty());
        assert!(described, "{} does not say what it shows", panel["title"]);
    }
}

/// Runs what waits by blocking its thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it ends well")
}

/// A Prometheus with the configuration that is shipped, pointed at these two and in a hurry.
fn scrape(folder: &Path, node: SocketAddr, rabbitmq: SocketAddr) -> Prometheus {
    let configuration = folder.join("prometheus.yml");
    let config = text("config/prometheus.yml")
        .replace("15s", "1s")
        .replace("passerelle:8081", &node.to_string())
        .replace("rabbitmq:15692", &rabbitmq.to_string())
        .replace("- alerts.yml", &format!("- {}", root().join("config/alerts.yml").display()));
    std::fs::write(&configuration, config).expect("the configuration can be written");
    Prometheus::start(&configuration)
}

/// Waits until everything has something to show, and the alerts fire that should.
fn ask_everything(prometheus: &Prometheus) {
    prometheus.wait_for_rules();
    for series in DONE {
        prometheus.wait_for(&format!("{series} > 0"), |found| found.len() == 1);
    }
    let mut silent = expressions();
    wait_until("every expression has data", || {
        silent.retain(|expression| !expression.is_answered(prometheus));
        let left: Vec<_> = silent.iter().map(|Expression { place, text, .. }| format!("{place}: {text}")).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    });
    wait_until("the alerts fire that should", || {
        let alerts = prometheus.query("ALERTS{alertstate=\"firing\"}")?;
        let names = alerts.iter().filter_map(|series| series["metric"]["alertname"].as_str());
        let firing: BTreeSet<&str> = names.collect();
        if firing == BTreeSet::from(FIRING) { Ok(()) } else { Err(format!("{firing:?} fire")) }
    });
}

/// What is asked, and what counts as an answer.
struct Expression {
    place: String,
    text: String,
    may_be_zero: bool,
}

impl Expression {
    /// Whether some series has a value that a panel can draw.
    fn is_answered(&self, prometheus: &Prometheus) -> bool {
        let series = prometheus.query(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.place));
        let mut values = series.iter().filter_map(|series| series["value"][1].as_str()?.parse::<f64>().ok());
        values.any(|value| value.is_finite() && (self.may_be_zero || value != 0.0))
    }
}

/// Every expression: the dashboard's with Grafana's variables filled in, the alerts' with comparisons that give a number
/// either way, so that an alert that does not fire has data too.
fn expressions() -> Vec<Expression> {
    let mut found = Vec::new();
    for panel in dashboard()["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            let text = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
            assert!(!text.contains('$'), "a variable that this test does not know: {expression}");
            let place = panel["title"].as_str().unwrap_or_default().to_owned();
            let may_be_zero = MAY_BE_ZERO.iter().any(|(known, _)| *known == place);
            found.push(Expression { place, text, may_be_zero });
        }
    }
    assert!(found.len() > 20, "the dashboard has lost its panels");
    for (place, expression) in alerts() {
        let either_way = expression.replace(" > ", " > bool ").replace(" == ", " == bool ");
        // Each side of an `or` by itself: together, one is enough to hide that the other has no data.
        let sides = either_way.split(" or ").map(str::to_owned);
        found.extend(sides.map(|text| Expression { place: place.clone(), text, may_be_zero: true }));
    }
    found
}

fn dashboard() -> Value {
    serde_json::from_str(&text(DASHBOARD)).expect("the dashboard is JSON")
}

/// Every alert's name and expression.
pub(crate) fn alerts() -> Vec<(String, String)> {
    let groups = yaml("config/alerts.yml");
    let rules =
        groups["groups"].as_array().expect("groups").iter().filter_map(|group| group["rules"].as_array()).flatten();
    let word = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_else(|| panic!("{rule} has no {key}")).to_owned();
    rules.map(|rule| (word(rule, "alert"), word(rule, "expr"))).collect()
}
