"""`./run backup` and `restore`, while devices with real journals publish."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from doorstep.credentials import mqtt_password
from ops.servers.waiting import wait_until
from ops.stack import probes
from ops.stack.addresses import reach
from ops.stack.backup_repository import BackupError
from ops.stack.programs import find_program
from ops.stack.stack import Stack
from tests.acceptance.backed_up_stack import (
    PROJECT,
    TRACK_FIXES,
    acknowledged,
    api,
    create_order,
    environment_of,
    ledger_of,
    lose_the_database,
    run,
    start_replay,
)
from tests.programs import provided


@pytest.fixture(scope="module")
def backed_up(stack: Stack) -> Stack:
    """The stack, with one backup, which switches archiving on."""
    provided(find_program, "pgbackrest", "./run test")
    output = run(stack, "backup")
    assert " valid " in output
    return stack


def test_restore__database_folder_lost_while_devices_publish__no_acknowledged_fix_is_missing(
    backed_up: Stack,
) -> None:
    stack = backed_up
    replay = start_replay(stack, "phoenix")
    wait_until(lambda: acknowledged(stack, "phoenix") >= 20, 120)
    lose_the_database(stack)
    deleted = acknowledged(stack, "phoenix")
    assert deleted < TRACK_FIXES
    assert replay.poll() is None, "the device ended before the database was lost"

    output = run(stack, "restore", "--yes")

    said, _ = replay.communicate(timeout=400)
    assert replay.returncode == 0, said
    ledger = ledger_of(stack, "phoenix")
    assert ledger.agrees, ledger.complaints()
    assert (ledger.committed, ledger.lost, ledger.rejected) == (TRACK_FIXES, 0, 0)
    assert deleted >= 20
    assert "the database of before is in" not in output  # it was erased
    assert "not in: later orders" in output  # the last WAL file was lost with the folder


def test_restore__postgres_killed__every_commit_is_back(backed_up: Stack) -> None:
    stack = backed_up
    order = create_order(stack)
    os.kill(stack.pid_of("postgres"), signal.SIGKILL)

    output = run(stack, "restore", "--yes")

    assert "(the newest commit)" in output
    kept = output.partition("the database of before is in ")[2].partition(":")[0]
    assert (Path(kept) / "PG_VERSION").exists()
    assert api(stack, f"/orders/{order['order_id']}")["state"] == "created"


def test_restore__instant_without_a_later_commit__fails_and_the_database_is_as_before(
    backed_up: Stack,
) -> None:
    stack = backed_up
    order = create_order(stack)
    stack.supervisor.stop_group("services")  # nothing commits any more
    stack.supervisor.stop_group("backups")
    stop_autovacuum(stack)
    time.sleep(2)
    instant = datetime.now(UTC)
    time.sleep(1)

    done = subprocess.run(
        [sys.executable, "-m", "ops", "restore", "--to", instant.isoformat(), "--yes"],
        env=environment_of(stack), cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "no commit as late as that" in done.stderr + done.stdout
    stack.wait_ready()
    assert api(stack, f"/orders/{order['order_id']}")["state"] == "created"


def test_restore__to_an_earlier_second__fixes_return_and_revocations_stay(
    backed_up: Stack,
) -> None:
    stack = backed_up
    run(stack, "drivers", "add", "revoked", "earlier")
    before = create_order(stack)
    leaver = api(stack, "/staff", "POST", {"name": "zoe", "role": "viewer"})
    assert api(stack, "/orders", token=leaver["token"])
    password = mqtt_password(stack.paths.fleet_key(), "revoked")
    [broker] = stack.addresses.mqtt
    assert probes.mqtt_accepts(broker, "revoked", password)
    time.sleep(1.1)
    instant = datetime.now(UTC)
    time.sleep(1.1)
    replay = start_replay(stack, "earlier", speedup=60)
    said, _ = replay.communicate(timeout=400)
    assert replay.returncode == 0, said
    later = create_order(stack)
    run(stack, "drivers", "revoke", "revoked")
    run(stack, "staff", "revoke", "zoe")
    api(stack, f"/orders/{before['order_id']}/confirm", "POST")
    assert acknowledged(stack, "earlier") == TRACK_FIXES  # the device has none of them left

    output = run(stack, "restore", "--to", instant.isoformat(), "--yes")

    # From Kafka: no device has them any more.
    wait_until(lambda: ledger_of(stack, "earlier").committed == TRACK_FIXES, 120)
    ledger = ledger_of(stack, "earlier")
    assert ledger.agrees, ledger.complaints()
    assert (ledger.lost, ledger.rejected) == (0, 0)
    # What was revoked later is revoked.
    assert "driver revoked (revoked)" in output
    assert "staff zoe" in output
    assert not probes.mqtt_accepts(broker, "revoked", password)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        api(stack, "/orders", token=leaver["token"])
    # Commands and orders of later are missing, as the documentation says.
    assert api(stack, f"/orders/{before['order_id']}")["state"] == "created"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        api(stack, f"/orders/{later['order_id']}")


def test_backups__their_disk_is_not_mounted__nothing_is_lost_or_written_below(
    backed_up: Stack,
) -> None:
    stack = backed_up
    run(stack, "drivers", "add", "leaver")
    folder = stack.backups().folder.resolve()
    away = folder.with_name(f"{folder.name}-away")
    wait_until(lambda: is_archiving(stack), 120, "WAL is archived")
    wait_until(lambda: noted(stack, "leaver") == [True], 60, "the driver in the log")
    folder.rename(away)
    folder.mkdir()  # the mount point
    try:
        wait_until(lambda: not is_archiving(stack), 60, "the alarm")
        run(stack, "drivers", "revoke", "leaver")
        with pytest.raises(BackupError, match="mount the disk again"):
            stack.set_up_backups()
        with psycopg.connect(stack.cluster().superuser_url(), autocommit=True) as conn:
            conn.execute("SELECT pg_switch_wal()")
        wait_until(lambda: waiting_wal(stack) > 0, 60, "WAL that waits")
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)
        away.rename(folder)

    wait_until(lambda: waiting_wal(stack) == 0, 150, "the WAL that waited")
    wait_until(lambda: is_archiving(stack), 60, "the alarm's end")
    assert noted(stack, "leaver") == [True, False]
    assert stack.backups().verify().is_valid


def noted(stack: Stack, driver_id: str) -> list[bool]:
    """Return whether a driver is accepted, as the backups' log of credentials has it."""
    log = stack.backups().credentials_file
    lines = [json.loads(one) for one in log.read_text().splitlines()] if log.exists() else []
    return [one["row"]["revoked_at"] is None for one in lines if one["key"] == driver_id]


def is_archiving(stack: Stack) -> bool:
    address = f"http://{reach(stack.addresses.backups)}/metrics"
    with urllib.request.urlopen(address) as answer:
        return b"doorstep_backup_archiving 1.0" in answer.read()


def waiting_wal(stack: Stack) -> int:
    """The WAL files that PostgreSQL could not archive yet."""
    status = stack.cluster().data_dir / "pg_wal" / "archive_status"
    return len(list(status.glob("*.ready")))


def stop_autovacuum(stack: Stack) -> None:
    """An ANALYZE of autovacuum is a commit, too."""
    with psycopg.connect(stack.cluster().superuser_url(), autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET autovacuum = off")
        conn.execute("SELECT pg_reload_conf()")
        running = "SELECT FROM pg_stat_activity WHERE backend_type LIKE 'autovacuum%'"
        wait_until(lambda: conn.execute(running).fetchone() is None, 60)


def test_backups__after_the_restores__are_listed_and_valid(backed_up: Stack) -> None:
    run(backed_up, "backup")

    listed = json.loads(run(backed_up, "backups", "--verify", "--json"))

    assert [one["type"] for one in listed["backups"]] == ["full", "incr"]
    assert listed["is_valid"]
    assert all(one["verified"] for one in listed["backups"])


def test_backups__a_damaged_file__is_reported(backed_up: Stack) -> None:
    folder = backed_up.backups().folder.resolve() / "repository" / "archive"
    wal = max(folder.rglob("*.lz4"), key=lambda one: one.stat().st_size)
    good = wal.read_bytes()
    wal.write_bytes(good[:1000] + b"damaged" + good[1007:])
    try:
        damaged = backed_up.backups().verify()
    finally:
        wal.write_bytes(good)

    assert not damaged.is_valid
    assert "lz4" in damaged.detail or "valid" in damaged.detail
    assert backed_up.backups().verify().is_valid
