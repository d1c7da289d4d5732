"""Alert rules: each uses metrics that exist, and states what to do next."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import yaml

from tests.unit.deployment.conftest import RunCase

RULES_FILE = Path(__file__).parents[3] / "prometheus" / "alerts.yml"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
SERVICES_METRICS = (
    *(
        "bridge.metrics",
        "driver_events.metrics",
        "doorstep.telemetry",
        "doorstep.http.http_metrics",
    ),
    *("driver_api.routes", "tracking_api.live.feed", "ops.backup.metrics", "webhooks.metrics"),
    "ops.stack.broker_sync",
)
# of Prometheus and the exporters
EXTERNAL_METRICS = {
    *("up", "pg_up", "kafka_under_replicated_partitions", "patroni_sync_standby"),
    *("node_filesystem_avail_bytes", "node_filesystem_size_bytes"),
}
METRIC = re.compile(r"\b(?:doorstep|kafka|node|patroni|pg)_[a-z0-9_]+\b|\bup\b")


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Every metric that the services can expose, with its labels."""
    for name in SERVICES_METRICS:
        importlib.import_module(name)
    found: dict[str, set[str]] = {}
    collectors = prometheus_client.REGISTRY._names_to_collectors
    for name, collector in collectors.items():
        found[name] = set(getattr(collector, "_labelnames", ()))
    return found


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_rule__expression__uses_metrics_and_labels_that_exist(
    rule: dict[str, Any], known: dict[str, set[str]]
) -> None:
    names = set(METRIC.findall(rule["expr"]))
    assert names
    assert names - EXTERNAL_METRICS <= known.keys()
    for name, labels in re.findall(r"\b(doorstep_\w+)\{([^}]*)\}", rule["expr"]):
        assert set(re.findall(r"(\w+)\s*!?=", labels)) <= known[name] | {"job", "instance"}
    for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
        has = set().union(
            {"job", "instance", "mountpoint"}, *(known.get(name, ()) for name in names)
        )
        assert label in has


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_rule__annotations__state_severity_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    sentences = re.findall(r"[^.?:]+[.?:](?:\s|$)", rule["annotations"]["summary"])
    assert len(sentences) >= 2  # the problem, and what to do


def test_runbook__every_alert__has_a_row() -> None:
    text = (RULES_FILE.parents[1] / "docs" / "how-to" / "alerts.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| ([A-Z]\w+(?:, \w+)*) \|", text)
    assert [name for row in rows for name in row.split(", ")] == [rule["alert"] for rule in RULES]


DROPS = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - series: 'doorstep_bridge_broker_dropped{{broker="mqtt://b:1883"}}'
        values: '{values}'
    alert_rule_test:
      - eval_time: {minutes}m
        alertname: BrokerDropsMessages
        exp_alerts: [{expected}]
"""


@pytest.mark.parametrize(
    ("values", "minutes", "fires"),
    [
        pytest.param("0x40", 8, False, id="nothing dropped"),
        pytest.param("0x20 120x20", 6, True, id="rises"),
        pytest.param("120x80", 15, False, id="dropped long ago"),
        pytest.param("_x30 120x20", 9, True, id="the bridge has restarted"),
        pytest.param("500x20 0x60", 15, False, id="the broker has restarted"),
    ],
)
def test_drop_alert__dropped_messages__fires_while_the_count_rises(
    run_case: RunCase, values: str, minutes: int, fires: bool
) -> None:
    summary = next(rule for rule in RULES if rule["alert"] == "BrokerDropsMessages")
    text = summary["annotations"]["summary"].replace("{{ $labels.broker }}", "mqtt://b:1883")
    expected = {
        "exp_labels": {"severity": "page", "broker": "mqtt://b:1883"},
        "exp_annotations": {"summary": text},
    }
    case = DROPS.format(
        rules=RULES_FILE, values=values, minutes=minutes,
        expected=json.dumps(expected) if fires else "",
    )  # fmt: skip
    done = run_case(case)
    assert done.returncode == 0, done.stdout + done.stderr


BACKUPS = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: doorstep_backup_every_seconds
        values: '{every_s}x120'
      - series: doorstep_backup_last_timestamp_seconds
        values: '{last}'
      - series: doorstep_backup_verified
        values: '{verified}'
      - series: doorstep_backup_archiving
        values: '{archiving}'
    promql_expr_test:
      - eval_time: 120m
        expr: count by (alertname) (ALERTS{{alertstate="firing"}})
        exp_samples: [{expected}]
"""


@pytest.mark.parametrize(
    ("every_s", "last", "verified", "archiving", "fires"),
    [
        pytest.param(1800, "0+60x120", "1x120", "1x120", None, id="all is well"),
        pytest.param(1800, "1800x120", "1x120", "1x120", "BackupOld", id="old"),
        pytest.param(0, "0x120", "1x120", "1x120", None, id="not scheduled"),
        pytest.param(1800, "0x120", "1x120", "1x120", "BackupOld", id="never made"),
        pytest.param(1800, "0+60x120", "1x100 0x20", "1x120", "BackupDamaged", id="damaged"),
        pytest.param(1800, "0+60x120", "0x100 1x20", "1x120", None, id="was damaged"),
        pytest.param(1800, "0+60x120", "1x120", "1x100 0x20", "WalNotArchived", id="WAL refused"),
        pytest.param(1800, "0+60x120", "1x120", "0x100 1x20", None, id="WAL goes on"),
    ],
)
def test_backup_alerts__state_of_the_backups__fires_and_resolves(
    run_case: RunCase, every_s: int, last: str, verified: str, archiving: str, fires: str | None
) -> None:
    sample = json.dumps({"labels": f'{{alertname="{fires}"}}', "value": 1}) if fires else ""
    case = BACKUPS.format(
        rules=RULES_FILE, every_s=every_s, last=last, verified=verified, archiving=archiving,
        expected=sample,
    )  # fmt: skip
    done = run_case(case)
    assert done.returncode == 0, done.stdout + done.stderr
