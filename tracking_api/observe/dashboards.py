"""The dashboards: panels and their queries, for the page /observe and for Grafana.

`python -m ops.grafana` makes Grafana's files of them. tests/integration/test_monitoring.py runs
every query against a loaded stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Unit = Literal["per second", "seconds", "bytes", "bytes per second", "count", "share"]

_LATENCY: Final = "doorstep_driver_events_commit_latency_seconds_bucket"
_TABLES: Final = "fix_history|fix_chunk|evidence|orders|outbox|parked_fix|audit|series_point"
_HTTP: Final = "doorstep_http_request_seconds"
_ON_PRIMARY: Final = " unless on (instance) doorstep_database_is_standby == 1"  # with --ha


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression. `legend` names its series: `{label}` stands for a label's value."""

    promql: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart. `note` says how to read it."""

    panel_id: str
    title: str
    unit: Unit
    queries: tuple[Query, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Panels that answer one question."""

    dashboard_id: str
    title: str
    panels: tuple[Panel, ...]


def _quantiles(buckets: str, by: str = "") -> tuple[Query, ...]:
    """Return the median and the 99th percentile of a histogram."""
    return tuple(
        Query(f"histogram_quantile({quantile}, sum by (le) (rate({buckets}[1m])))", f"{name}{by}")
        for quantile, name in ((0.5, "p50"), (0.99, "p99"))
    )


FLEET: Final = Dashboard(
    "fleet",
    "Fleet",
    (
        Panel(
            "fleet-fixes",
            "Fixes by outcome",
            "per second",
            (
                Query(
                    "sum by (outcome) (rate(doorstep_driver_events_fixes_total[1m]))", "{outcome}"
                ),
            ),
            "Rejected ones are in dead-letter, with the reason.",
        ),
        Panel(
            "fleet-connections",
            "Devices connected to each broker",
            "count",
            (Query("doorstep_bridge_broker_clients", "{broker}"),),
            "The bridge and driver_events included.",
        ),
        Panel(
            "fleet-refused",
            "Refused, parked and chatty",
            "per second",
            (
                Query(
                    "sum(rate(doorstep_driver_events_dead_letters_total[5m])) or vector(0)",
                    "dead letters",
                ),
                Query("sum(rate(doorstep_driver_events_unparked_total[5m]))", "unparked"),
                Query("sum(rate(doorstep_driver_events_chatty_total[5m]))", "chatty devices"),
            ),
        ),
        Panel(
            "fleet-watermarks",
            "Watermarks sent to devices",
            "per second",
            (Query("sum(rate(doorstep_driver_events_watermarks_total[1m]))", "watermarks"),),
            "Without them devices send again.",
        ),
    ),
)

FIX_PATH: Final = Dashboard(
    "fix-path",
    "Path of a fix",
    (
        Panel(
            "path-rate",
            "Messages through each hop",
            "per second",
            (
                Query("sum(rate(doorstep_bridge_broker_received[1m]))", "1 Mosquitto received"),
                Query("sum(rate(doorstep_bridge_messages_total[1m]))", "2 bridge received"),
                Query("sum(rate(doorstep_bridge_acked_total[1m]))", "3 bridge acknowledged"),
                Query(
                    'sum(rate(kafka_topic_messages_in_total{topic="driver-pos"}[1m]))',
                    "4 Kafka driver-pos",
                ),
                Query("sum(rate(doorstep_driver_events_fixes_total[1m]))", "5 committed fixes"),
                Query("sum(rate(doorstep_live_records_total[1m]))", "6 live records"),
            ),
            "A message holds up to 256 fixes, a live record a batch.",
        ),
        Panel(
            "path-lag",
            "Waiting at each hop",
            "count",
            (
                Query("sum(doorstep_bridge_broker_stored)", "Mosquitto, retained included"),
                Query("sum(doorstep_bridge_in_flight)", "bridge"),
                Query("sum(doorstep_driver_events_lag)", "Kafka driver-pos"),
            ),
        ),
        Panel(
            "path-lag-partitions",
            "Lag of driver-pos by partition",
            "count",
            (Query("sum by (partition) (doorstep_driver_events_lag)", "{partition}"),),
        ),
        Panel(
            "path-phone-to-commit",
            "From the phone's clock to the commit",
            "seconds",
            _quantiles(f'{_LATENCY}{{since="fix_at"}}'),
        ),
        Panel(
            "path-arrival-to-commit",
            "From Kafka to the commit",
            "seconds",
            _quantiles(f'{_LATENCY}{{since="received_at"}}'),
        ),
        Panel(
            "path-hops",
            "Time in each hop",
            "seconds",
            (
                Query(
                    'max by (request) (kafka_request_milliseconds{percentile="99",'
                    'request="Produce"}) / 1000',
                    "Kafka {request} p99",
                ),
                Query(
                    "histogram_quantile(0.99, sum by (le) "
                    "(rate(doorstep_driver_events_batch_seconds_bucket[1m])))",
                    "database batch p99",
                ),
                Query("max(doorstep_live_feed_lag_seconds)", "commit to tracking_api"),
            ),
        ),
        Panel(
            "path-bytes",
            "Kafka's traffic",
            "bytes per second",
            (Query("sum by (direction) (rate(kafka_topic_bytes_total[1m]))", "{direction}"),),
        ),
    ),
)

DATABASE: Final = Dashboard(
    "database",
    "Database",
    (
        Panel(
            "database-transactions",
            "Transactions",
            "per second",
            (
                Query(
                    'rate(pg_stat_database_xact_commit{datname="food_delivery"}[1m])'
                    f"{_ON_PRIMARY}",
                    "committed",
                ),
                Query(
                    'rate(pg_stat_database_xact_rollback{datname="food_delivery"}[1m])'
                    f"{_ON_PRIMARY}",
                    "rolled back",
                ),
            ),
        ),
        Panel(
            "database-connections",
            "Connections by state",
            "count",
            (
                Query(
                    'sum by (state) (pg_stat_activity_count{datname="food_delivery"}'
                    f"{_ON_PRIMARY}) > 0",
                    "{state}",
                ),
            ),
            "100 are the limit.",
        ),
        Panel(
            "database-transaction-age",
            "Longest open transaction",
            "seconds",
            (
                Query(
                    'max(pg_stat_activity_max_tx_duration{datname="food_delivery"}'
                    f"{_ON_PRIMARY})",
                    "longest",
                ),
            ),
            "5 s of idleness end a transaction.",
        ),
        Panel(
            "database-wal",
            "WAL written",
            "bytes per second",
            (Query(f"rate(doorstep_wal_bytes_total[1m]){_ON_PRIMARY}", "WAL"),),
        ),
        Panel(
            "database-cache",
            "Blocks found in the cache",
            "share",
            (
                Query(
                    'rate(pg_stat_database_blks_hit{datname="food_delivery"}[5m]) / '
                    '(rate(pg_stat_database_blks_hit{datname="food_delivery"}[5m]) + '
                    'rate(pg_stat_database_blks_read{datname="food_delivery"}[5m]))'
                    f"{_ON_PRIMARY}",
                    "cache",
                ),
            ),
        ),
        Panel(
            "database-size",
            "Tables that grow, with indexes",
            "bytes",
            (Query(f'doorstep_table_bytes{{table=~"{_TABLES}"}}{_ON_PRIMARY}', "{table}"),),
        ),
        Panel(
            "database-cpu",
            "CPUs of the machine in use",
            "count",
            (
                Query(
                    'sum by (mode) (rate(node_cpu_seconds_total{mode=~"user|system|iowait"}[1m]))',
                    "{mode}",
                ),
            ),
        ),
        Panel(
            "database-disk",
            "Free disk",
            "bytes",
            (
                Query(
                    'min by (mountpoint) (node_filesystem_avail_bytes{fstype!~"tmpfs|overlay"})',
                    "{mountpoint}",
                ),
            ),
        ),
    ),
)

CUSTOMERS: Final = Dashboard(
    "customers",
    "What customers see",
    (
        Panel(
            "customers-requests",
            "Requests by status",
            "per second",
            (
                Query(
                    f'sum by (status) (rate({_HTTP}_count{{job="tracking_api"}}[1m]))',
                    "{status}",
                ),
            ),
        ),
        Panel(
            "customers-latency",
            "Time to answer",
            "seconds",
            _quantiles(f'{_HTTP}_bucket{{job="tracking_api"}}'),
        ),
        Panel(
            "customers-streams",
            "Open streams",
            "count",
            (
                Query("sum(doorstep_live_viewers)", "all streams"),
                Query("sum(doorstep_live_fleet_viewers)", "of the fleet"),
                Query("sum(doorstep_live_orders)", "orders watched"),
            ),
        ),
        Panel(
            "customers-pushes",
            "Frames written to viewers of orders",
            "per second",
            (Query("sum by (kind) (rate(doorstep_live_pushes_total[1m]))", "{kind}"),),
        ),
        Panel(
            "customers-age",
            "Age of a position when tracking_api has it",
            "seconds",
            (Query("max by (topic) (doorstep_live_feed_lag_seconds)", "{topic}"),),
        ),
        Panel(
            "customers-errors",
            "Answers 5xx, and streams that the server closed",
            "per second",
            (
                Query(f'sum(rate({_HTTP}_count{{status=~"5.."}}[5m])) or vector(0)', "5xx"),
                Query("sum(rate(doorstep_live_disconnects_total[5m])) or vector(0)", "streams"),
            ),
        ),
    ),
)

DASHBOARDS: Final = (FLEET, FIX_PATH, DATABASE, CUSTOMERS)
PANELS: Final = {panel.panel_id: panel for one in DASHBOARDS for panel in one.panels}
