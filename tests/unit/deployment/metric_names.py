"""The metrics that exist: those of the services' code, of our exporters' files, and of others."""

from __future__ import annotations

import importlib
import re

import prometheus_client
import yaml

from ops.stack.settings import PROJECT

SERVICES_METRICS = (
    *("bridge.metrics", "driver_events.metrics", "webhooks.metrics", "ops.backup.metrics"),
    *("doorstep.telemetry", "doorstep.http.http_metrics", "driver_api.routes"),
    *("tracking_api.live.feed", "tracking_api.live.connection_manager", "tracking_api.live.hub"),
    *("tracking_api.live.fleet_channel", "ops.stack.broker_sync"),
)
# Of Prometheus and of exporters of a stack. test_monitoring.py reads each from a real one.
EXTERNAL_METRICS = {
    *("up", "pg_up", "pg_stat_database_xact_commit", "pg_stat_database_xact_rollback"),
    *("pg_stat_database_blks_hit", "pg_stat_database_blks_read"),
    *("pg_stat_activity_count", "pg_stat_activity_max_tx_duration"),
    *("node_filesystem_avail_bytes", "node_filesystem_size_bytes", "node_cpu_seconds_total"),
    *("node_time_seconds", "node_timex_maxerror_seconds", "node_timex_sync_status"),
}
WITH_REPLICAS = {"patroni_sync_standby", "etcd_server_has_leader"}  # only with --ha
METRIC = re.compile(r"\b(?:doorstep|kafka|node|patroni|pg|etcd)_[a-z0-9_]+\b|\bup\b")


def names_in(promql: str) -> set[str]:
    """The metrics that an expression reads."""
    return set(METRIC.findall(re.sub(r'"[^"]*"', '""', promql)))


def of_services() -> dict[str, set[str]]:
    """Every metric that the services can expose, with its labels."""
    for name in SERVICES_METRICS:
        importlib.import_module(name)
    collectors = prometheus_client.REGISTRY._names_to_collectors
    return {name: set(getattr(one, "_labelnames", ())) for name, one in collectors.items()}


def of_files() -> dict[str, set[str]]:
    """The metrics that the files of postgres_exporter and Kafka's agent name, with their labels."""
    found: dict[str, set[str]] = {}
    queries = yaml.safe_load((PROJECT / "prometheus" / "postgres.yml").read_text(encoding="utf-8"))
    for prefix, one in queries.items():
        columns = {name: use for metric in one["metrics"] for name, use in metric.items()}
        labels = {name for name, use in columns.items() if use["usage"] == "LABEL"}
        found |= {f"{prefix}_{name}": labels for name in columns.keys() - labels}
    agent = yaml.safe_load((PROJECT / "prometheus" / "kafka.yml").read_text(encoding="utf-8"))
    for rule in agent["rules"]:
        found[rule["name"]] = set(rule.get("labels", ()))
    return found
