"""A stack with `--observe` under load: panels have data; an alert reaches a webhook."""

from __future__ import annotations

import json
import math
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from playwright.async_api import Page
from pydantic import SecretStr

from ops.servers.waiting import wait_until
from ops.stack.addresses import MONITORING, reach
from ops.stack.monitoring_files import PROGRAMS, find_agent, find_program
from ops.stack.paths import OBSERVER
from ops.stack.postgres import DATABASE
from ops.stack.processes import module_argv
from ops.stack.rotation import rotate_secrets
from ops.stack.settings import FREE_PORTS, PROJECT, StackSettings
from ops.stack.stack import Stack
from tests.browser.conftest import opened_pages, running_chromium
from tests.browser.page_checks import collect_errors, eventually
from tests.programs import provided
from tests.prometheus import query
from tests.unit.deployment.metric_names import EXTERNAL_METRICS
from tracking_api.observe.dashboards import DASHBOARDS, PANELS, Dashboard

# Each panel's text for screen readers, and how many pixels of its canvas have a line's colour:
# axes and grid are grey.
DRAWN = """() => [...document.querySelectorAll("#panels .panel")].map((panel) => {
  const canvas = panel.querySelector("canvas");
  const { width, height } = canvas ?? { width: 0, height: 0 };
  const pixels = canvas?.getContext("2d").getImageData(0, 0, width, height).data ?? [];
  let colours = 0;
  for (let at = 0; at < pixels.length; at += 4) {
    const [red, green, blue, alpha] = pixels.subarray(at, at + 4);
    if (alpha > 128 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60) colours += 1;
  }
  const label = panel.querySelector(".chart").getAttribute("aria-label") ?? "no data";
  return { title: panel.querySelector("h2").textContent, label, colours };
})"""
LOAD_S = 240.0
ALERT_S = 240.0
COURIERS = [f"courier-{number}" for number in range(1, 5)]


class AlertSink(BaseHTTPRequestHandler):
    """A webhook that keeps what Alertmanager sends: (alert, job, status)."""

    seen: list[tuple[str, str, str]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for one in body["alerts"]:
            labels = one["labels"]
            self.seen.append((labels["alertname"], labels.get("job", ""), one["status"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def webhook() -> Iterator[ThreadingHTTPServer]:
    """A sink for alerts on a free port."""
    AlertSink.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), AlertSink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def observed(
    server_home: Path, webhook: ThreadingHTTPServer, only_worker: Callable[[str], None]
) -> Iterator[Stack]:
    """A stack with monitoring, and couriers that deliver."""
    provided(find_agent)
    for name in PROGRAMS:
        provided(find_program, name)
    only_worker("integration's stack with monitoring")
    settings = StackSettings(
        doorstep_home=server_home / "observed",
        doorstep_observe=True,
        alert_webhook_url=SecretStr(f"http://127.0.0.1:{webhook.server_port}/alerts"),
        **FREE_PORTS,
    )
    environment = os.environ | {"ACK_EVERY_S": "2"}
    stack = Stack(settings, environment=environment, echo=lambda _line: None)
    couriers = None
    try:
        stack.up(owner_pid=os.getpid())
        stack.add_drivers(COURIERS)
        argv = [*module_argv("couriers"), "--couriers", str(len(COURIERS)), "--speedup", "10"]
        couriers = subprocess.Popen(
            argv, env=stack.client_environment(), cwd=PROJECT, stderr=subprocess.DEVNULL
        )
        yield stack
    finally:
        if couriers is not None:
            couriers.kill()
            couriers.wait()
        stack.down(erase=True)


def as_admin(stack: Stack) -> httpx.Client:
    headers = {"Authorization": f"Bearer {stack.paths.staff_token()}"}
    return httpx.Client(base_url=stack.addresses.tracking_api_url, headers=headers, timeout=30)


def test_targets__all__are_scraped_on_loopback(observed: Stack) -> None:
    jobs = {"bridge", "driver_events", "driver_api", "tracking_api", "webhooks", "broker_sync"}
    jobs |= {"node", "postgres", "kafka"}
    wait_until(lambda: len(query(observed, "up == 1")) == len(jobs), description="targets")
    assert len(query(observed, "up")) == len(jobs)
    wait_until(lambda: query(observed, "pg_up") == [1], description="the exporter's role")
    binds = [getattr(observed.addresses, name) for name in MONITORING]
    assert {bind.host for bind in binds} == {"127.0.0.1"}
    names = {one.name for one in observed.status() if one.ready}
    assert {"prometheus", "alertmanager", "node_exporter", "postgres_exporter"} <= names


def test_files_with_secrets__are_readable_by_their_owner_only(observed: Stack) -> None:
    files = [
        observed.paths.supervisor_config,
        observed.paths.secrets / "database" / OBSERVER,
        observed.paths.alertmanager.resolve() / "alertmanager.yml",
    ]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_observer__reads_statistics_and_no_table(observed: Stack) -> None:
    password = observed.paths.observer_password()
    url = f"postgresql://{OBSERVER}:{password}@{reach(observed.addresses.database)}/{DATABASE}"
    with psycopg.connect(url, autocommit=True) as conn:
        sessions = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE query <> ''")
        assert sessions.fetchone() != (0,)
        tables = conn.execute("SELECT relid, relname FROM pg_stat_user_tables").fetchall()
        readable = [
            name
            for relid, name in tables
            if conn.execute("SELECT has_table_privilege(%s::oid, 'SELECT')", [relid]).fetchone()
            == (True,)
        ]
        assert len(tables) > 30
        assert readable in ([], ["spatial_ref_sys"])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM doorstep.driver")


def test_panels__every_query__returns_data_of_a_loaded_stack(observed: Stack) -> None:
    def empty() -> list[str]:
        return [
            f"{panel_id}: {one.promql}"
            for panel_id, panel in PANELS.items()
            for one in panel.queries
            if not any(map(math.isfinite, query(observed, one.promql)))
        ]

    wait_until(lambda: not empty(), LOAD_S, "data for every query", poll_s=2)
    assert empty() == []
    assert query(observed, "sum(rate(doorstep_driver_events_fixes_total[1m]))")[0] > 0


def test_metrics__of_others_that_rules_and_panels_read__are_those_of_real_servers(
    observed: Stack,
) -> None:
    def missing() -> set[str]:
        return {name for name in EXTERNAL_METRICS if not query(observed, f"count({name})")}

    wait_until(lambda: not missing(), description="every metric")
    assert missing() == set()


@pytest.mark.parametrize("panel_id", PANELS)
def test_panel__over_the_api__has_a_value_per_series_and_instant(
    observed: Stack, panel_id: str
) -> None:
    with as_admin(observed) as http:

        def read() -> dict[str, Any]:
            found = http.get(f"/observe/panels/{panel_id}", params={"minutes": "5"})
            return found.raise_for_status().json()

        # The instants are multiples of the step: up to 5 s behind the newest figures.
        wait_until(lambda: read()["series"], LOAD_S, "series", poll_s=1)
        answer = read()
    assert len(answer["at"]) == 61
    assert answer["series"]
    for one in answer["series"]:
        assert one["label"]
        assert len(one["values"]) == 61


async def test_observe_page__of_a_loaded_stack__draws_every_panel_of_every_dashboard(
    observed: Stack,
) -> None:
    url, errors = observed.addresses.tracking_api_url, list[list[str]]()

    def listen(page: Page) -> None:
        errors.append(collect_errors(page))

    async with running_chromium() as browser, opened_pages(browser, url) as open_page:
        page = await open_page(f"/observe#{observed.paths.staff_token()}", before=listen)
        await page.select_option("#minutes", "5")
        for dashboard in DASHBOARDS:
            await page.click(f"#tabs a[href='#{dashboard.dashboard_id}']")

            async def drawn(dashboard: Dashboard = dashboard) -> bool:
                """Whether each panel has a series whose line is on its canvas."""
                found = await page.evaluate(DRAWN)
                titles = [one.title for one in dashboard.panels]
                return [one["title"] for one in found] == titles and all(
                    one["colours"] and "no data" not in one["label"] for one in found
                )

            assert await eventually(drawn), await page.evaluate(DRAWN)
        assert await page.locator("#problem").is_hidden()
    # Chromium warns that the test reads canvases back.
    assert [one for one in errors[0] if "willReadFrequently" not in one] == []


def test_kafka_view__topics_and_groups__are_listed(observed: Stack) -> None:
    with as_admin(observed) as http:
        answer = http.get("/observe/kafka").json()
    topics = {one["name"]: one for one in answer["topics"]}
    assert len(topics["driver-pos"]["partitions"]) == 12
    assert sum(one["high"] for one in topics["driver-pos"]["partitions"]) > 0
    assert {one["name"] for one in answer["groups"]} >= {"driver-events", "driver-events-series"}
    readable = {name for name, one in topics.items() if one["is_readable"]}
    assert readable == {"tracking-updates", "series", "streams"}


def test_kafka_view__messages__are_bounded_and_of_topics_without_positions(
    observed: Stack,
) -> None:
    found: list[dict[str, Any]] = []
    with as_admin(observed) as http:
        for partition in range(6):
            path = "/observe/kafka/topics/tracking-updates/messages"
            answer = http.get(path, params={"partition": partition, "count": 2}).json()
            assert len(answer["messages"]) <= 2
            found += answer["messages"]
        for topic in ("driver-pos", "dead-letter", "tracking-positions"):
            answer = http.get(f"/observe/kafka/topics/{topic}/messages")
            assert answer.status_code == 404
    assert found
    assert all(json.loads(one["value"])["order_id"] == one["key"] for one in found)


def test_principal_of_tracking_api__describes_all_and_reads_no_more_than_before(
    observed: Stack,
) -> None:
    access = observed.kafka_access("tracking_api").as_librdkafka_dict()
    consumer = Consumer({**access, "group.id": "tracking-api-test", "log_level": 0})
    try:
        assert consumer.get_watermark_offsets(TopicPartition("driver-pos", 0), timeout=10)[1] >= 0
        consumer.assign([TopicPartition("driver-pos", 0, 0)])
        record = None
        while record is None:
            record = consumer.poll(1.0)
        error = record.error()
        assert error is not None
        assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    finally:
        consumer.close()


def test_alert__service_stops_and_returns__fires_and_resolves_at_the_webhook(
    observed: Stack,
) -> None:
    observed.stop_process("bridge")
    try:
        firing = ("ServiceDown", "bridge", "firing")
        wait_until(lambda: firing in AlertSink.seen, ALERT_S, "the alert to fire")
        with as_admin(observed) as http:
            alerts = http.get("/observe/overview").json()["alerts"]
        assert ("ServiceDown", "firing") in {(one["name"], one["state"]) for one in alerts}
    finally:
        observed.start_process("bridge")
    resolved = ("ServiceDown", "bridge", "resolved")
    wait_until(lambda: resolved in AlertSink.seen, ALERT_S, "the alert to resolve")
    assert AlertSink.seen.index(firing) < AlertSink.seen.index(resolved)


def test_rotation__password_of_the_observer__is_replaced_and_the_exporter_goes_on(
    observed: Stack,
) -> None:
    old = observed.paths.observer_password()
    rotate_secrets(observed, lambda _line: None)
    new = observed.paths.observer_password()
    assert new != old
    address = f"{reach(observed.addresses.database)}/{DATABASE}"
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://{OBSERVER}:{old}@{address}")
    before = query(observed, "sum(doorstep_wal_bytes_total)")
    wait_until(
        lambda: query(observed, "pg_up") == [1] and query(observed, "up == 0") == [],
        description="the exporter with its new password",
    )
    later = "sum(doorstep_wal_bytes_total)"
    wait_until(lambda: query(observed, later) > before, description="new figures")
    assert query(observed, later) > before
