"""Alert rules and panels use metrics that exist; each rule states what to do next."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deployment.conftest import RunCase
from tests.unit.deployment.metric_names import (
    EXTERNAL_METRICS,
    WITH_REPLICAS,
    names_in,
    of_files,
    of_services,
)
from tracking_api.observe.dashboards import PANELS

RULES_FILE = Path(__file__).parents[3] / "prometheus" / "alerts.yml"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in RULES} | {
    f"{panel_id} {number}": one.promql
    for panel_id, panel in PANELS.items()
    for number, one in enumerate(panel.queries)
}


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Every metric of our own services and files, with its labels."""
    return of_services() | of_files()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expression__of_a_rule_or_panel__uses_metrics_and_labels_that_exist(
    name: str, known: dict[str, set[str]]
) -> None:
    expression = EXPRESSIONS[name]
    names = names_in(expression)
    assert names
    assert names - EXTERNAL_METRICS - WITH_REPLICAS <= known.keys()
    for metric, labels in re.findall(r"\b((?:doorstep|kafka)_\w+)\{([^}]*)\}", expression):
        has = known[metric] | {"job", "instance", "le"}
        assert set(re.findall(r"(\w+)\s*(?:!?=|[=!]~)", labels)) <= has


@pytest.mark.parametrize("expression", ["sum(doorstep_live_viewer)", "kafka_log_byte", "pg_upp"])
def test_expression__misspelt_metric__is_found(expression: str, known: dict[str, set[str]]) -> None:
    assert names_in(f"{expression} or vector(0)") - EXTERNAL_METRICS - known.keys()


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_rule__summary__uses_labels_that_its_metrics_have(
    rule: dict[str, Any], known: dict[str, set[str]]
) -> None:
    of_metrics = [known.get(name, set()) for name in names_in(rule["expr"])]
    has = {"job", "instance", "mountpoint"}.union(*of_metrics)
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= has


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
