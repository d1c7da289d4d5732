"""Every alert rule fires on the series that it is for, and resolves after them. Needs promtool."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.unit.deployment.conftest import Promtool, RunCase
from tests.unit.deployment.test_alerts import RULES, RULES_FILE

FIRING_AT_MIN = 30
RESOLVED_AT_MIN = 59


class Case(NamedTuple):
    """Series of an hour: calm, at fault from minute 15 to 31, calm again."""

    alert: str
    series: dict[str, str]


def gauge(calm: float, fault: float) -> str:
    """A gauge's values."""
    return f"{calm}x59 {fault}x64 {calm}x115"


def counter(calm: float, fault: float) -> str:
    """A counter's values, by its increase per step."""
    middle, end = 60 * calm, 60 * calm + 65 * fault
    return f"0+{calm}x59 {middle}+{fault}x64 {end}+{calm}x115"


UPDATED = "0+15x59 0x64 1860+15x115"  # an instant: now, but for the minutes from 15 to 31
LATENCY = 'doorstep_driver_events_commit_latency_seconds_bucket{since="received_at",le="%s"}'
CASES = [
    Case("ServiceDown", {'up{job="bridge"}': gauge(1, 0)}),
    Case("ExporterDown", {'up{job="node"}': gauge(1, 0)}),
    Case("ExporterDown", {'pg_up{job="postgres"}': gauge(1, 0)}),
    Case("DependencyUnavailable", {'doorstep_ready{dependency="database"}': gauge(1, 0)}),
    Case("ClockStepped", {'doorstep_ready{dependency="clock"}': gauge(1, 0)}),
    Case(
        "ClockOff",
        {
            'node_timex_maxerror_seconds{instance="a"}': gauge(0.1, 1.5),
            'node_timex_sync_status{instance="a"}': gauge(1, 1),
        },
    ),
    # against Prometheus' clock, which begins at 0
    Case("ClockOff", {"node_time_seconds": "0+15x59 898+15x64 1875+15x115"}),
    Case("BrokerNotConnected", {'doorstep_bridge_connected{broker="b"}': gauge(1, 0)}),
    Case("BrokerDropsMessages", {'doorstep_bridge_broker_dropped{broker="b"}': counter(0, 5)}),
    Case("RevocationsWaiting", {"doorstep_broker_sync_synced_timestamp_seconds": UPDATED}),
    Case(
        "BridgeStuck",
        {"doorstep_bridge_in_flight": gauge(0, 9), "doorstep_bridge_acked_total": counter(5, 0)},
    ),
    Case("KafkaUnderReplicated", {"kafka_under_replicated_partitions": gauge(0, 2)}),
    Case(
        "NoStandby",
        {
            'patroni_sync_standby{job="patroni",instance="1"}': gauge(0, 0),
            'patroni_sync_standby{job="patroni",instance="2"}': gauge(1, 0),
        },
    ),
    Case("PatroniDown", {'up{job="patroni",instance="1"}': gauge(1, 0)}),
    Case("EtcdDown", {'up{job="etcd",instance="1"}': gauge(1, 0)}),
    Case("EtcdWithoutLeader", {'etcd_server_has_leader{job="etcd",instance="1"}': gauge(1, 0)}),
    Case("PoisonMessages", {"doorstep_bridge_poison_total": counter(0, 1)}),
    Case("ConsumerLag", {'doorstep_driver_events_lag{partition="1"}': gauge(5, 200_000)}),
    Case(
        "RecordsDeletedUnread",
        {'doorstep_driver_events_deleted_unread_total{topic="driver-pos"}': counter(0, 1)},
    ),
    Case(
        "SlowCommits",
        {
            LATENCY % "5": counter(9, 0),
            LATENCY % "10": counter(9, 9),
            LATENCY % "+Inf": counter(9, 9),
        },
    ),
    Case(
        "NoWatermarks",
        {
            'doorstep_driver_events_watermarks_total{instance="a"}': counter(3, 0),
            'doorstep_driver_events_fixes_total{instance="a",outcome="committed"}': counter(9, 9),
        },
    ),
    Case(
        "ManyDeadLetters",
        {
            'doorstep_driver_events_dead_letters_total{reason="not_json"}': counter(0, 5),
            'doorstep_driver_events_fixes_total{outcome="committed"}': counter(50, 50),
        },
    ),
    Case("WorkerUnhealthy", {'doorstep_driver_events_worker_healthy{worker="acks"}': gauge(1, 0)}),
    Case(
        "ParkedFixes",
        {
            'doorstep_driver_events_fixes_total{outcome="parked"}': counter(0, 100),
            "doorstep_driver_events_unparked_total": counter(0, 1),
        },
    ),
    Case(
        "ServerErrors",
        {'doorstep_http_request_seconds_count{job="driver_api",status="500"}': counter(0, 1)},
    ),
    Case("LiveFeedDisconnected", {"doorstep_live_feed_connected": gauge(1, 0)}),
    Case("WebhooksWaiting", {"doorstep_webhooks_oldest_seconds": gauge(5, 4000)}),
    Case(
        "BackupOld",
        {
            "doorstep_backup_every_seconds": gauge(300, 300),
            "doorstep_backup_last_timestamp_seconds": UPDATED,
        },
    ),
    Case("BackupDamaged", {"doorstep_backup_verified": gauge(1, 0)}),
    Case("WalNotArchived", {"doorstep_backup_archiving": gauge(1, 0)}),
    Case("WalNotArchived", {"doorstep_backup_checked_timestamp_seconds": UPDATED}),
]
SCRIPT = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series: {series}
    promql_expr_test:
      - eval_time: 14m
        expr: &firing count by (alertname) (ALERTS{{alertstate="firing"}})
      - eval_time: {firing}m
        expr: *firing
        exp_samples: [{{labels: '{{alertname="{alert}"}}', value: 1}}]
      - eval_time: {resolved}m
        expr: *firing
"""


@pytest.mark.parametrize("case", CASES, ids=[f"{one.alert}-{n}" for n, one in enumerate(CASES)])
def test_rule__fault_of_a_quarter_of_an_hour__fires_and_resolves(
    run_case: RunCase, case: Case
) -> None:
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    text = SCRIPT.format(
        rules=RULES_FILE, series=json.dumps(series), alert=case.alert,
        firing=FIRING_AT_MIN, resolved=RESOLVED_AT_MIN,
    )  # fmt: skip
    done = run_case(text)
    assert done.returncode == 0, done.stdout + done.stderr


FIRST_SCRIPT = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series: [{{series: '{series}', values: '_x59 14888x119'}}]
    promql_expr_test:
      - eval_time: 14m
        expr: &firing count by (alertname) (ALERTS{{alertstate="firing"}})
      - eval_time: 17m
        expr: *firing
        exp_samples: [{{labels: '{{alertname="{alert}"}}', value: 1}}]
      - eval_time: 40m
        expr: *firing
"""
COUNTED_ONCE = {
    "BrokerDropsMessages": 'doorstep_bridge_broker_dropped{broker="b"}',
    "PoisonMessages": "doorstep_bridge_poison_total",
    "RecordsDeletedUnread": 'doorstep_driver_events_deleted_unread_total{topic="driver-pos"}',
    "ServerErrors": 'doorstep_http_request_seconds_count{job="driver_api",status="500"}',
}
# Each of these needs minutes of a rate, or counts from 0 (tests of driver_events).
NEED_A_TREND = {"BridgeStuck", "SlowCommits", "NoWatermarks", "ManyDeadLetters", "ParkedFixes"}


@pytest.mark.parametrize("alert", COUNTED_ONCE)
def test_rule__series_that_begins_above_0__fires_once(run_case: RunCase, alert: str) -> None:
    done = run_case(FIRST_SCRIPT.format(rules=RULES_FILE, alert=alert, series=COUNTED_ONCE[alert]))
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules__every_counter__is_tested_from_its_first_value() -> None:
    counters = {rule["alert"] for rule in RULES if re.search(r"\b(increase|rate)\(", rule["expr"])}
    assert counters == COUNTED_ONCE.keys() | NEED_A_TREND


CLOCK_SCRIPT = """
rule_files: [{rules}]
evaluation_interval: 5m
tests:
  - interval: 5m
    input_series:
      - {{series: 'node_timex_maxerror_seconds{{instance="a"}}', values: '{error}'}}
      - {{series: 'node_timex_sync_status{{instance="a"}}', values: '{sync}'}}
      - {{series: 'node_time_seconds{{instance="a"}}', values: '0+300x900'}}
    promql_expr_test:
      - eval_time: {minutes}m
        expr: count by (alertname) (ALERTS{{alertstate="firing"}})
        exp_samples: [{expected}]
"""


@pytest.mark.parametrize(
    ("error", "sync", "minutes", "fires"),
    [
        pytest.param("16x900", "0x900", 1440, False, id="has no NTP"),
        pytest.param("0.02x900", "1x900", 1440, False, id="NTP keeps it"),
        # for less than a minute between two answers of the rarest poll, 2,048 s
        pytest.param("0.2x100 1.02 0.2x800", "1x900", 505, False, id="just before a poll"),
        pytest.param("0.2x100 2x800", "1x900", 1440, True, id="NTP does not answer"),
        pytest.param("0.2x100 16x800", "1x100 0x800", 1440, True, id="NTP was switched off"),
        pytest.param("0.2x100 16x800", "1x100 0x800", 4320, False, id="for two days"),
    ],
)
def test_clock_alert__bound_of_the_error__counts_where_there_is_ntp(
    run_case: RunCase, error: str, sync: str, minutes: int, fires: bool
) -> None:
    expected = """{labels: '{alertname="ClockOff"}', value: 1}""" if fires else ""
    case = CLOCK_SCRIPT.format(
        rules=RULES_FILE, error=error, sync=sync, minutes=minutes, expected=expected
    )
    done = run_case(case)
    assert done.returncode == 0, done.stdout + done.stderr


DISK_SCRIPT = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'node_filesystem_avail_bytes{{mountpoint="/",fstype="ext4"}}'
        values: '{values}'
      - series: 'node_filesystem_size_bytes{{mountpoint="/",fstype="ext4"}}'
        values: '1000x240'
    promql_expr_test:
      - eval_time: 80m
        expr: &firing count by (alertname) (ALERTS{{alertstate="firing"}})
        exp_samples: [{expected}]
      - eval_time: 240m
        expr: *firing
"""


@pytest.mark.parametrize(
    ("values", "fires"),
    [
        pytest.param("380-2x90 200x150", True, id="fills, then does not"),
        pytest.param("900-2x90 720x150", False, id="still half empty"),
        pytest.param("200x240", False, id="small and constant"),
        pytest.param("_x70 380-2x20 340x150", False, id="watched for ten minutes only"),
    ],
)
def test_disk_alert__trend_and_free_space__decide(
    run_case: RunCase, values: str, fires: bool
) -> None:
    expected = """{labels: '{alertname="DiskFillingUp"}', value: 1}""" if fires else ""
    done = run_case(DISK_SCRIPT.format(rules=RULES_FILE, values=values, expected=expected))
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules__every_alert__has_a_case_here() -> None:
    tested = {case.alert for case in CASES} | {"DiskFillingUp"}
    assert tested == {rule["alert"] for rule in RULES}


def test_prometheus__configuration_with_the_containers_targets__is_valid(
    promtool: Promtool, tmp_path: Path
) -> None:
    folder = RULES_FILE.parent
    names = ("prometheus.yml", "alerts.yml", "in-containers/targets.json")
    for name in (*names, "in-containers/alertmanagers.json"):
        shutil.copy(folder / name, tmp_path)
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout
