//! Every method shows in the text that Prometheus reads, under the name of the contract.

use std::sync::Arc;

use super::*;
use crate::model::cursor::Epoch;
use crate::model::outgoing::{CallOutcome, PublishOutcome};
use crate::model::publication::{Attributes, Draft, SourceInfo};
use crate::model::topic::Topic;

const JSON: ProtocolId = ProtocolId(0);
const ORDERS: SourceId = SourceId(1);

fn metrics() -> Metrics {
    Metrics::new(&["events", "orders"]).unwrap()
}

#[track_caller]
fn shows(metrics: &Metrics, line: &str) {
    let text = metrics.render();
    assert!(text.lines().any(|candidate| candidate == line), "no line `{line}` in\n{text}");
}

fn publication(published_at: PublishedAt, received_at: UnixMillis) -> Publication {
    let source = Arc::new(SourceInfo::new(ORDERS, "orders", Epoch(1)));
    let attributes = Attributes { published_at, ..Attributes::default() };
    let topic = Topic::parse("orders.eu").unwrap();
    Publication { source, offset: 1, draft: Draft { topic, payload: Default::default(), attributes, received_at } }
}

#[test]
fn every_metric_of_the_contract_is_there_from_the_start() {
    let text = metrics().render();
    for name in [
        "source_messages_total",
        "source_bytes_total",
        "source_rejected_total",
        "source_unsettled",
        "deliveries_total",
        "delivered_bytes_total",
        "encodes_total",
        "gaps_total",
        "drops_total",
        "connections",
        "subscriptions",
        "bindings",
        "handshakes_total",
        "closes_total",
        "publishes_total",
        "calls_total",
        "amqp_link_up",
        "publish_to_socket_seconds",
        "receive_to_socket_seconds",
        "outbox_bytes",
        "slow_sessions",
        "fell_behind_total",
        "log_reads_total",
        "build_info",
    ] {
        assert!(text.contains(&format!("# TYPE passerelle_{name} ")), "{name} is missing");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_describes_itself() {
    let text = metrics().render();
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
        assert!(text.contains(&format!("\n{name} ")), "{name} is missing");
    }
}

#[test]
fn sources_are_counted_by_name() {
    let metrics = metrics();
    metrics.source_received(ORDERS, 3, 70);
    metrics.source_rejected(ORDERS, Rejection::Topic);
    metrics.source_unsettled(ORDERS, 9);
    metrics.source_unsettled(ORDERS, 4);
    metrics.bindings(ORDERS, 2);
    metrics.source_received(SourceId(77), 1, 1);
    shows(&metrics, r#"passerelle_source_messages_total{source="orders"} 3"#);
    shows(&metrics, r#"passerelle_source_messages_total{source="events"} 0"#);
    shows(&metrics, r#"passerelle_source_bytes_total{source="orders"} 70"#);
    shows(&metrics, r#"passerelle_source_rejected_total{reason="topic",source="orders"} 1"#);
    shows(&metrics, r#"passerelle_source_unsettled{source="orders"} 4"#);
    shows(&metrics, r#"passerelle_bindings{source="orders"} 2"#);
}

#[test]
fn protocols_are_counted_by_the_registry_s_names() {
    let metrics = metrics();
    let name = REGISTRY[0].name;
    metrics.deliveries(JSON, 1_000, 128_000);
    metrics.encodes(JSON, 1);
    metrics.connection_opened(JSON, Transport::WebSocket);
    metrics.connection_opened(JSON, Transport::WebSocket);
    metrics.connection_closed(JSON, Transport::WebSocket, CloseReason::SlowConsumer);
    shows(&metrics, &format!(r#"passerelle_deliveries_total{{protocol="{name}"}} 1000"#));
    shows(&metrics, &format!(r#"passerelle_delivered_bytes_total{{protocol="{name}"}} 128000"#));
    shows(&metrics, &format!(r#"passerelle_encodes_total{{protocol="{name}"}} 1"#));
    shows(&metrics, &format!(r#"passerelle_connections{{protocol="{name}",transport="websocket"}} 1"#));
    shows(&metrics, r#"passerelle_closes_total{reason="slow_consumer"} 1"#);
}

#[test]
fn rows_of_the_registry_are_their_own_index() {
    for (position, row) in REGISTRY.iter().enumerate() {
        assert_eq!(usize::from(row.index.0), position, "{}", row.name);
    }
}

#[test]
fn outcomes_become_results() {
    let metrics = metrics();
    metrics.publish(&PublishOutcome::Confirmed { routed: false });
    metrics.publish(PublishResult::Forbidden);
    metrics.call(&CallOutcome::TimedOut);
    metrics.handshake(Handshake::RefusedOrigin);
    metrics.gaps(GapReason::Outage, 5);
    metrics.drops(DropReason::SlowConsumer, 6);
    metrics.link_up(BrokerLink::Consume);
    shows(&metrics, r#"passerelle_publishes_total{result="unrouted"} 1"#);
    shows(&metrics, r#"passerelle_publishes_total{result="forbidden"} 1"#);
    shows(&metrics, r#"passerelle_calls_total{result="timeout"} 1"#);
    shows(&metrics, r#"passerelle_handshakes_total{result="refused_origin"} 1"#);
    shows(&metrics, r#"passerelle_gaps_total{reason="outage"} 5"#);
    shows(&metrics, r#"passerelle_drops_total{reason="slow_consumer"} 6"#);
    shows(&metrics, r#"passerelle_amqp_link_up{link="consume"} 1"#);
    metrics.link_down(BrokerLink::Consume);
    shows(&metrics, r#"passerelle_amqp_link_up{link="consume"} 0"#);
}

#[test]
fn gauges_follow_what_shards_say() {
    let metrics = metrics();
    metrics.subscriptions_changed(5);
    metrics.subscriptions_changed(-2);
    metrics.outbox_bytes_changed(4_096);
    metrics.slow_sessions_changed(1);
    metrics.fell_behind();
    metrics.looked_at(9);
    shows(&metrics, "passerelle_subscriptions 3");
    shows(&metrics, "passerelle_outbox_bytes 4096");
    shows(&metrics, "passerelle_slow_sessions 1");
    shows(&metrics, "passerelle_fell_behind_total 1");
    shows(&metrics, "passerelle_log_reads_total 9");
}

#[test]
fn only_publishers_that_tell_milliseconds_enter_the_first_histogram() {
    let metrics = metrics();
    let latencies = metrics.latencies();
    latencies.written(&publication(PublishedAt::Millis(1_000), 1_090), 1_100);
    latencies.written(&publication(PublishedAt::Seconds(1_000), 1_090), 1_100);
    latencies.written(&publication(PublishedAt::Unknown, 1_090), 1_100);
    shows(&metrics, "passerelle_receive_to_socket_seconds_count 0");
    latencies.flush();
    shows(&metrics, "passerelle_publish_to_socket_seconds_count 1");
    shows(&metrics, r#"passerelle_publish_to_socket_seconds_bucket{le="0.05"} 0"#);
    shows(&metrics, r#"passerelle_publish_to_socket_seconds_bucket{le="0.1"} 1"#);
    shows(&metrics, "passerelle_receive_to_socket_seconds_count 3");
    shows(&metrics, r#"passerelle_receive_to_socket_seconds_bucket{le="0.01"} 3"#);
}

#[test]
fn a_publisher_s_clock_ahead_of_ours_is_no_time_at_all() {
    let metrics = metrics();
    metrics.latencies().written(&publication(PublishedAt::Millis(2_000), 2_000), 1_000);
    shows(&metrics, "passerelle_publish_to_socket_seconds_sum 0");
    shows(&metrics, r#"passerelle_publish_to_socket_seconds_bucket{le="0.001"} 1"#);
}

#[test]
fn labels_with_strange_characters_stay_one_line() {
    let metrics = Metrics::new(&["a\"b\nc"]).unwrap();
    assert!(metrics.render().contains(r#"{source="a\"b\nc"} 0"#));
}
