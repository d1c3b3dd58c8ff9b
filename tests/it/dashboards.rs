//! Every expression of the dashboard and of the alerts, asked of a real Prometheus that scraped a node with something to
//! show: each must be understood, and each must have data, so that no panel is empty for want of a right name.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use passerelle::metrics::{BrokerLink, Handshake, Metrics, PublishResult, Transport};
use passerelle::model::cursor::Epoch;
use passerelle::model::publication::{Attributes, Draft, Publication, PublishedAt, RawFrames, SourceId, SourceInfo};
use passerelle::model::topic::Topic;
use passerelle::protocol::REGISTRY;
use passerelle::transport::admin::AdminListener;
use passerelle::transport::admin::view::{AdminView, ConnectionRow, Listing, NodePhase, OnOutage, Readiness, TopicRow};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::prometheus::{Prometheus, promtool};
use crate::repository::{root, text, yaml};

const DASHBOARD: &str = "grafana/dashboards/passerelle.json";

/// Expressions without data on a healthy node, each with the reason.
const EXPECTED_EMPTY: [(&str, &str); 0] = [];

/// What RabbitMQ's own exporter says of its alarms.
const RABBITMQ: &str = "rabbitmq_alarms_memory_used_watermark 0\nrabbitmq_alarms_free_disk_space_watermark 0\n";

/// A page of metrics as a node.
struct Page<Render>(Render);

impl<Render: Fn() -> String + Send + Sync + 'static> AdminView for Page<Render> {
    fn metrics(&self) -> String {
        (self.0)()
    }

    fn readiness(&self) -> Readiness {
        Readiness::of(NodePhase::Serving, OnOutage::StayReady, [])
    }

    async fn connections(&self, _limit: usize) -> Listing<ConnectionRow> {
        Listing { rows: Vec::new(), total: 0 }
    }

    async fn topics(&self, _limit: usize) -> Listing<TopicRow> {
        Listing { rows: Vec::new(), total: 0 }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_has_data_while_messages_flow() {
    let metrics = Metrics::new(&["events"]).expect("metrics");
    let node = exporter(move || busy(&metrics)).await;
    let rabbitmq = exporter(|| RABBITMQ.to_owned()).await;
    let asked = tokio::task::spawn_blocking(move || ask_everything(node, rabbitmq));
    asked.await.expect("the expressions were asked");
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

/// Serves what `render` says to whoever scrapes.
async fn exporter(render: impl Fn() -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = AdminListener::bind((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a port is free");
    let address = listener.address();
    tokio::spawn(listener.serve(Arc::new(Page(render)), CancellationToken::new()));
    address
}

/// A scrape of a node that did some of everything since the last.
fn busy(metrics: &Metrics) -> String {
    let source = SourceId(0);
    metrics.link_up(BrokerLink::Consume);
    metrics.link_up(BrokerLink::Publish);
    metrics.source_received(source, 10, 1_280);
    metrics.source_unsettled(source, 3);
    metrics.bindings(source, 1);
    metrics.handshake(Handshake::Accepted);
    metrics.publish(PublishResult::Routed);
    for row in REGISTRY {
        metrics.connection_opened(row.index, Transport::WebSocket);
        metrics.encodes(row.index, 10);
        metrics.deliveries(row.index, 100, 15_000);
    }
    let attributes = Attributes { published_at: PublishedAt::Millis(1_000), ..Attributes::default() };
    let info = SourceInfo { id: source, name: "events".into(), epoch: Epoch(1), raw_frames: RawFrames::Auto };
    let topic = Topic::parse("orders.eu").expect("a topic");
    let draft = Draft { topic, payload: Default::default(), attributes, received_at: 1_001 };
    metrics.latencies().written(&Publication { source: Arc::new(info), offset: 1, draft }, 1_004);
    metrics.render()
}

/// Starts Prometheus on both exporters, waits for it to have seen them change, and asks.
fn ask_everything(node: SocketAddr, rabbitmq: SocketAddr) {
    let folder = tempfile::tempdir().expect("a folder");
    let configuration = folder.path().join("prometheus.yml");
    let config = text("config/prometheus.yml")
        .replace("15s", "1s")
        .replace("passerelle:8081", &node.to_string())
        .replace("rabbitmq:15692", &rabbitmq.to_string())
        .replace("- alerts.yml", &format!("- {}", root().join("config/alerts.yml").display()));
    std::fs::write(&configuration, config).expect("the configuration can be written");
    let prometheus = Prometheus::start(&configuration);
    // Three scrapes of each: rates need two, and a histogram's need the second to differ.
    prometheus.wait_for("count_over_time(up[1m]) >= 3", |series| series.len() == 2);
    prometheus.wait_for_rules();

    let mut silent = Vec::new();
    for (place, expression) in expressions() {
        match prometheus.query(&expression) {
            Ok(series) if series.iter().any(has_number) => {}
            answer if EXPECTED_EMPTY.iter().any(|(known, _)| *known == place) => assert!(answer.is_ok(), "{answer:?}"),
            answer => silent.push(format!("{place}: {expression}\n    {answer:?}")),
        }
    }
    assert!(silent.is_empty(), "without data:\n{}", silent.join("\n"));
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}").expect("alerts can be asked for");
    assert!(firing.is_empty(), "a healthy node calls somebody: {firing:?}");
}

/// Whether a series has a value that a panel can draw.
fn has_number(series: &Value) -> bool {
    let value = series["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
    value.is_some_and(f64::is_finite)
}

/// Every expression, with its place: the dashboard's with Grafana's variables filled in, the alerts' with comparisons
/// that give a number either way, so that a healthy node has data for them too.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard()["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            let filled = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
            assert!(!filled.contains('$'), "a variable that this test does not know: {expression}");
            found.push((panel["title"].as_str().unwrap_or_default().to_owned(), filled));
        }
    }
    assert!(found.len() > 20, "the dashboard has lost its panels");
    let alerts = alerts().into_iter();
    found.extend(
        alerts.map(|(name, expression)| (name, expression.replace(" > ", " > bool ").replace(" == ", " == bool "))),
    );
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
