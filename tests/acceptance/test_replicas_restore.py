"""Backups of a stack with --ha: the archive goes on from the next primary, and restores work."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from ops.servers.waiting import wait_until
from ops.stack.monitoring_files import PROGRAMS, find_agent
from ops.stack.programs import find_program
from ops.stack.replicas import patroni
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from tests.acceptance.backed_up_stack import (
    TRACK_FIXES,
    acknowledged,
    api,
    create_order,
    ledger_of,
    run,
    start_replay,
)
from tests.acceptance.conftest import ACK_EVERY_S, folder_for_all
from tests.programs import provided
from tests.prometheus import query, samples
from tests.unit.deployment.metric_names import WITH_REPLICAS
from tracking_api.observe.dashboards import PANELS

SWITCH = "SELECT pg_switch_wal()"
LATE = "wal_archived_after_failover"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack with --ha whose WAL is archived, with one backup."""
    for program in ("pgbackrest", "etcd", "patroni", *PROGRAMS.values()):
        provided(find_program, program, "./run test")
    provided(find_agent)
    with folder_for_all() as root:
        environment = os.environ | {"ACK_EVERY_S": ACK_EVERY_S}
        settings = StackSettings(
            doorstep_home=root, doorstep_ha=True, doorstep_observe=True, **FREE_PORTS
        )
        whole = Stack(settings, environment=environment, echo=lambda _: None)
        try:
            whole.up(owner_pid=os.getpid())
            run(whole, "backup", BACKUP_DIR=str(root.parent / "disk2"))
            yield whole
        finally:
            whole.down(erase=True)


def test_backup__primary_lost_with_wal_that_it_had_not_archived__the_archive_goes_on(
    stack: Stack,
) -> None:
    repository = stack.backups().folder / "repository"
    away = repository.with_name("away")
    create_order(stack)
    repository.rename(away)  # the primary cannot archive
    try:
        switch_wal(stack)
        create_order(stack)
        switch_wal(stack)
        lose_primary(stack)
    finally:
        away.rename(repository)
    order = create_order(stack)
    log = stack.log_files()["backup_worker"]
    wait_until(lambda: LATE in log.read_text(), 120, "WAL that was missing is archived")
    wait_until(lambda: stack.backups().verify().is_valid, 120, "no WAL is missing")

    run(stack, "backup")

    listed = json.loads(run(stack, "backups", "--verify", "--json"))
    first, last = listed["wal"]
    assert first.startswith("00000001")
    assert last.startswith("00000002")
    assert [one["type"] for one in listed["backups"]] == ["full", "incr"]
    assert listed["is_valid"]
    assert api(stack, f"/orders/{order['order_id']}")["state"] == "created"


def test_figures__after_a_failover__are_of_every_node_and_the_dashboards_of_the_primary(
    stack: Stack,
) -> None:
    nodes = {"kafka": 3, "postgres": 2, "etcd": 3, "patroni": 2}
    wait_until(lambda: query(stack, "min(up)") == [1], 60, "every target")
    for job, count in nodes.items():
        assert len(query(stack, f'up{{job="{job}"}}')) == count
    wait_until(lambda: query(stack, "pg_up") == [1, 1], 60, "both databases")
    for name in WITH_REPLICAS:
        assert query(stack, name)

    primary = str(stack.addresses.postgres_exporters[stack.primary()])
    shown = PANELS["database-wal"].queries[0].promql

    def instances() -> list[str]:
        return [labels["instance"] for labels, _ in samples(stack, shown)]

    wait_until(lambda: instances() == [primary], 90, "the primary's panel")
    assert len(query(stack, "doorstep_wal_bytes_total")) == 2


def test_kafka_view__a_node_of_three_stops_and_returns__is_named_and_lag_stays_known(
    stack: Stack,
) -> None:
    def behind() -> dict[tuple[str, int], list[int]]:
        """The nodes that lack each partition."""
        with contextlib.suppress(urllib.error.HTTPError):  # 503: leaders are being elected
            return {
                (topic["name"], one["partition"]): one["out_of_sync"]
                for topic in api(stack, "/observe/kafka")["topics"]
                for one in topic["partitions"]
            }
        return {}

    def all_behind(nodes: list[int]) -> bool:
        found = behind()
        return bool(found) and all(one == nodes for one in found.values())

    wait_until(lambda: all_behind([]), 120, "every copy")
    stack.stop_process("kafka-3")
    try:
        wait_until(lambda: all_behind([3]), 120, "no copy on the third node")
        answer = api(stack, "/observe/kafka")
    finally:
        stack.start_process("kafka-3")
    assert answer["nodes"] == [1, 2]
    partitions = [one for topic in answer["topics"] for one in topic["partitions"]]
    assert {one["leader"] for one in partitions} == {1, 2}
    assert {(one["replicas"], one["in_sync"]) for one in partitions} == {(3, 2)}
    lags = {one["name"]: [it["lag"] for it in one["offsets"]] for one in answer["groups"]}
    assert len(lags["driver-events"]) == 12
    assert None not in lags["driver-events"]
    wait_until(lambda: all_behind([]), 120, "every copy again")
    stack.wait_ready()


def test_restore__to_an_earlier_second__both_servers_have_it_and_fixes_return(
    stack: Stack,
) -> None:
    stack.add_drivers(["earlier"])
    before = create_order(stack)
    time.sleep(1.1)
    instant = datetime.now(UTC)
    time.sleep(1.1)
    replay = start_replay(stack, "earlier", speedup=60)
    said, _ = replay.communicate(timeout=400)
    assert replay.returncode == 0, said
    later = create_order(stack)
    assert acknowledged(stack, "earlier") == TRACK_FIXES  # the device has none of them left

    run(stack, "restore", "--to", instant.isoformat(), "--yes")

    stack.wait_ready()  # a standby included
    wait_until(lambda: ledger_of(stack, "earlier").committed == TRACK_FIXES, 120)
    assert ledger_of(stack, "earlier").agrees
    assert api(stack, f"/orders/{before['order_id']}")["state"] == "created"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        api(stack, f"/orders/{later['order_id']}")


def test_restore__everything_but_backups_and_secrets_lost__is_whole_again(stack: Stack) -> None:
    order = create_order(stack)
    switch_wal(stack)
    run(stack, "backup")
    settings, environment = stack.settings, stack._environment
    stack.down()
    for folder in stack.paths.root.glob("*-[0-9]"):
        if not folder.name.startswith("mosquitto"):
            shutil.rmtree(folder.resolve())

    run(stack, "restore", "--yes", DOORSTEP_HA="true", **free_ports())

    again = Stack(settings, environment=environment, echo=lambda _: None)
    again.wait_ready()
    assert api(again, f"/orders/{order['order_id']}")["state"] == "created"
    assert again.primary() in (0, 1)


def test_restore__of_a_stack_without_replicas__gives_one_with_them() -> None:
    with folder_for_all() as root:
        alone = Stack(StackSettings(doorstep_home=root, **FREE_PORTS), echo=lambda _: None)
        backups = root.parent / "disk2"
        try:
            alone.up(owner_pid=os.getpid())
            order = create_order(alone)
            run(alone, "backup", BACKUP_DIR=str(backups))
        finally:
            alone.down()
        home = root.with_name("replicated")
        shutil.copytree(alone.paths.secrets, home / "secrets")
        settings = StackSettings(doorstep_home=home, doorstep_ha=True, **FREE_PORTS)
        whole = Stack(settings, echo=lambda _: None)
        try:
            variables = {"DOORSTEP_HA": "true", "BACKUP_DIR": str(backups), **free_ports()}
            run(whole, "restore", "--yes", **variables)

            whole.wait_ready()  # a standby included
            assert api(whole, f"/orders/{order['order_id']}")["state"] == "created"
        finally:
            whole.down(erase=True)
            alone.down(erase=True)


def free_ports() -> dict[str, str]:
    return {name.upper(): str(value) for name, value in FREE_PORTS.items()}


def switch_wal(stack: Stack) -> None:
    with psycopg.connect(stack.cluster().superuser_url()) as conn:
        conn.execute(SWITCH)


def lose_primary(stack: Stack) -> None:
    """Kill the primary and erase its data, and wait until the other one is the primary."""
    lost = stack.primary()
    node = stack.database_nodes()[lost]
    postmaster = node.pid()
    assert postmaster is not None
    name = patroni.member_name(lost + 1)
    os.kill(stack.pid_of(name), signal.SIGKILL)
    stack.stop_process(name)
    os.kill(postmaster, signal.SIGKILL)

    def is_gone() -> bool:
        shutil.rmtree(node.data_dir, ignore_errors=True)  # its children may still write
        return not node.data_dir.exists()

    wait_until(is_gone, 60)
    other = stack.addresses.patroni[1 - lost]
    wait_until(lambda: patroni.probe(other) == (True, patroni.PRIMARY), 60)
    stack.start_process(name)
    stack.wait_ready()
