"""What a restore loses, counted: devices, PATCHes and orders run on through it.

Everything that was answered before the chosen instant is back. Of what came later, fixes over MQTT
come again from Kafka, which their devices have deleted long since; PATCHes and orders are missing.
The backups are encrypted, in a folder of their own.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from doorstep.credentials import driver_token
from doorstep.provision import owner_connection
from ops.servers.waiting import wait_until
from ops.stack.programs import find_program
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from tests.acceptance.backed_up_stack import (
    DESTINATION,
    TRACK_FIXES,
    acknowledged,
    ledger_of,
    lose_the_database,
    run,
    start_replay,
)
from tests.acceptance.conftest import ACK_EVERY_S, folder_for_all
from tests.faults.apis import make_fix, rows_of
from tests.programs import provided

CALLER = "caller"
PAUSE_S = 0.25  # a driver's quota is 5 fixes a second
ORDERS = "SELECT order_id::text FROM orders WHERE order_id::text = ANY (%s)"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack whose first backup has begun an encrypted repository."""
    provided(find_program, "pgbackrest", "./run test")
    with folder_for_all() as root:
        pass_file, environment = root.parent / "pass", os.environ | {"ACK_EVERY_S": ACK_EVERY_S}
        pass_file.write_text(secrets.token_hex(16))
        settings = StackSettings(doorstep_home=root, **FREE_PORTS)
        whole = Stack(settings, environment=environment, echo=lambda _: None)
        try:
            whole.up(owner_pid=os.getpid())
            whole.add_drivers([CALLER])
            variables = {
                "BACKUP_DIR": str(root.parent / "disk2"),
                "BACKUP_CIPHER_PASS_FILE": str(pass_file),
            }
            run(whole, "backup", "--full", **variables)
            yield whole
        finally:
            whole.down(erase=True)


@dataclass(frozen=True, slots=True)
class Answered:
    """An order, or the seq of a PATCH, that was answered as committed."""

    key: str | int
    sent_at: datetime
    answered_at: datetime


class Callers:
    """Sends PATCHes and creates orders in a thread, and keeps what was answered as committed."""

    def __init__(self, stack: Stack) -> None:
        self.boot = "c" + secrets.token_hex(6)
        self.patched: list[Answered] = []
        self.orders: list[Answered] = []
        self._stack = stack
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        with owner_connection(stack.database_admin_url) as conn:
            [self._restaurant_id] = (
                conn.execute("SELECT min(restaurant_id) FROM restaurant").fetchone() or ()
            )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        at, key = self._stack.addresses, self._stack.paths.fleet_key()
        driver = {"Authorization": f"Bearer {driver_token(key, CALLER)}"}
        staff = {"Authorization": f"Bearer {self._stack.paths.staff_token()}"}
        location = f"{at.driver_api_url}/drivers/{CALLER}/location"
        order = {"restaurant_id": self._restaurant_id, "destination": DESTINATION}
        seq = 0
        with httpx.Client(timeout=10, trust_env=False) as client:
            while not self._stopping.is_set():
                seq += 1
                sent_at = datetime.now(UTC)
                answer = _send(client, "PATCH", location, driver, make_fix(self.boot, seq))
                if answer is not None:
                    self.patched.append(Answered(seq, sent_at, datetime.now(UTC)))
                sent_at = datetime.now(UTC)
                answer = _send(client, "POST", f"{at.tracking_api_url}/orders", staff, order)
                if answer is not None:
                    answered_at = datetime.now(UTC)
                    self.orders.append(Answered(answer["order_id"], sent_at, answered_at))
                time.sleep(PAUSE_S)

    def missing(self) -> list[Answered]:
        """Return what was answered as committed and is not in the database."""
        ids = [one.key for one in self.orders]
        with owner_connection(self._stack.database_admin_url) as conn:
            stored = rows_of(conn, self.boot)
            there = {row[0] for row in conn.execute(ORDERS, [ids])}
        lost = [one for one in self.patched if (CALLER, one.key) not in stored]
        return lost + [one for one in self.orders if one.key not in there]

    @property
    def answered(self) -> list[Answered]:
        """Return everything that was answered as committed."""
        return self.patched + self.orders


def _send(
    client: httpx.Client, method: str, url: str, headers: dict[str, str], body: dict[str, Any]
) -> dict[str, Any] | None:
    try:
        answer = client.request(method, url, json=body, headers=headers)
    except httpx.TransportError:
        return None
    return answer.json() if answer.is_success else None


def check(callers: Callers, first_lost: datetime, last_lost: datetime, what: str) -> None:
    """Check that exactly what was answered between two instants is missing."""
    missing = callers.missing()
    print(
        f"{what}: of {len(callers.patched)} PATCHes and {len(callers.orders)} orders answered as "
        f"committed, {len(missing)} are missing"
    )
    assert missing
    assert [one for one in missing if one.answered_at <= first_lost] == []
    assert [one for one in missing if one.sent_at >= last_lost] == []
    lost_from = min(one.answered_at for one in missing)
    lost_until = max(one.answered_at for one in missing)
    back = [one for one in callers.answered if one not in missing]
    assert [one for one in back if lost_from < one.sent_at < lost_until] == []


def check_device(stack: Stack, driver_id: str, deleted: int) -> None:
    """Check that no fix of a device is missing, though it has deleted `deleted` of them."""
    ledger = ledger_of(stack, driver_id)
    print(
        f"device: {TRACK_FIXES} fixes, {deleted} deleted before the restore, {ledger.committed} "
        f"in the database, {ledger.lost} lost"
    )
    assert deleted > 0
    assert ledger.agrees, ledger.complaints()
    assert (ledger.committed, ledger.lost, ledger.rejected) == (TRACK_FIXES, 0, 0)


def test_restore__to_a_second_between__only_later_requests_are_missing(stack: Stack) -> None:
    replay = start_replay(stack, "ledger-1", speedup=20)
    with Callers(stack) as callers:
        wait_until(lambda: acknowledged(stack, "ledger-1") >= 10, 120)
        before = acknowledged(stack, "ledger-1")
        instant = datetime.now(UTC)
        wait_until(lambda: acknowledged(stack, "ledger-1") > before + 10, 120)
        deleted = acknowledged(stack, "ledger-1")
        run(stack, "restore", "--to", instant.isoformat(), "--yes")
        restored_at, answered = datetime.now(UTC), len(callers.answered)
        wait_until(lambda: len(callers.answered) > answered + 4, 60)
    said, _ = replay.communicate(timeout=400)
    assert replay.returncode == 0, said
    check_device(stack, "ledger-1", deleted)
    check(callers, instant, restored_at, "restored to a second between")


def test_restore__wal_since_the_last_backup_lost__is_the_state_of_that_backup(
    stack: Stack,
) -> None:
    replay = start_replay(stack, "ledger-2", speedup=20)
    with Callers(stack) as callers:
        wait_until(lambda: acknowledged(stack, "ledger-2") >= 10, 120)
        run(stack, "backup", "--diff")
        newest = stack.backups().info().backups[-1]
        before = acknowledged(stack, "ledger-2")
        wait_until(lambda: acknowledged(stack, "ledger-2") > before + 10, 120)
        deleted = acknowledged(stack, "ledger-2")
        lose_the_database(stack)
        for file in (stack.backups().folder / "repository" / "archive").rglob("*-*"):
            if file.is_file() and file.name[:24] > newest.last_wal:
                file.unlink()
        run(
            stack, "restore", "--yes", BACKUP_CIPHER_PASS_FILE=str(stack.paths.root.parent / "pass")
        )
        restored_at, answered = datetime.now(UTC), len(callers.answered)
        wait_until(lambda: len(callers.answered) > answered + 4, 60)
    said, _ = replay.communicate(timeout=400)
    assert replay.returncode == 0, said
    check_device(stack, "ledger-2", deleted)
    # pgBackRest's seconds are whole ones.
    check(callers, newest.started_at, restored_at, "restored to the last backup")


def test_repository__encrypted__holds_no_readable_wal(stack: Stack) -> None:
    archive = stack.backups().folder / "repository" / "archive"
    files = [one for one in archive.rglob("*") if one.is_file()]

    assert files
    assert {one.read_bytes()[:8] for one in files} == {b"Salted__"}
    assert stack.backups().verify().is_valid
