"""An answer that rests on a commit waits for the standby, even if it writes nothing.

The seam: a standby that never connects. So a commit waits until the wait is cancelled, as the APIs
do at their deadline, and is visible then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql as pgsql

from doorstep.credentials import token_sha256
from doorstep.store import fix_writer
from driver_events.acks import watermark_reader
from driver_events.recorder import Connection
from ops.servers.waiting import wait_until
from sql import query
from tests.database import Database
from tests.factories import make_fix
from tests.sql.fleet import Fleet

ORDER: dict[str, object] = {
    "restaurant_id": 1, "pickup": None, "lon_deg": 11.25, "lat_deg": 43.77, "policy_id": None,
    "token_sha256": b"o" * 32, "idempotency_key": "k", "customer_name": None, "details": None,
    "who": "anna",
}  # fmt: skip
WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND wait_event = 'SyncRep'"
Call = Callable[[psycopg.Connection[Any]], object]


class Commits:
    """Transactions, one at a time, of which each is seen to wait for the standby."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._admin = psycopg.connect(database.superuser_url, autocommit=True)
        alter = pgsql.SQL("ALTER DATABASE {} SET synchronous_commit = on")
        self._admin.execute(alter.format(pgsql.Identifier(database.name)))
        self._pool = ThreadPoolExecutor(1)

    def close(self) -> None:
        self._admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        self._admin.execute("SELECT pg_reload_conf()")
        self._pool.shutdown()
        self._admin.close()

    def lose_standby(self) -> None:
        """Let the next commits wait, until `waits` cancels the wait."""
        self._admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
        self._admin.execute("SELECT pg_reload_conf()")

    def waits(self, role: str, call: Call) -> bool:
        """Run a transaction as a role; return whether it waited for the standby."""

        def run() -> None:
            with self._database.connect(role) as conn:
                call(conn)

        return self.wait_of(run)

    def wait_of(self, run: Callable[[], object]) -> bool:
        """Run what commits once, cancel its wait for the standby, and return whether it waited."""
        done = self._pool.submit(run)
        cancelled: set[int] = set()

        def has_ended() -> bool:
            for (pid,) in self._admin.execute(WAITING, (self._database.name,)).fetchall():
                self._admin.execute("SELECT pg_cancel_backend(%s)", (pid,))
                cancelled.add(pid)
            return done.done()

        wait_until(has_ended, 60, "the transaction ends")
        done.result()
        return bool(cancelled)


@pytest.fixture
def commits(fleet: Fleet) -> Iterator[Commits]:
    fleet.add_token("d1")
    commits = Commits(fleet.database)
    try:
        yield commits
    finally:
        commits.close()


def named(statement: str, parameters: dict[str, object], file: str = "queries.sql") -> Call:
    return lambda conn: conn.execute(query(statement, file), parameters)  # type: ignore[arg-type]


def test_repeat__of_a_patch_whose_wait_was_cancelled__waits_for_the_standby(
    commits: Commits,
) -> None:
    found: list[list[str]] = []
    fix = make_fix("d1")

    def patch(conn: psycopg.Connection[Any]) -> None:
        found.append([one.outcome for one in fix_writer.record_fixes(conn, [fix])])

    commits.lose_standby()

    assert commits.waits("driver_api", patch)
    assert commits.waits("driver_api", patch)
    assert found == [[], ["duplicate"]]


def test_repeat__of_a_new_order__waits_for_the_standby(commits: Commits, fleet: Fleet) -> None:
    commits.lose_standby()

    assert commits.waits("tracking_api", named("create_order", ORDER))
    assert commits.waits("tracking_api", named("create_order", ORDER))
    assert len(fleet.run("SELECT order_id FROM orders")) == 1


def test_repeat__of_a_command_of_staff__waits_for_the_standby(
    commits: Commits, fleet: Fleet
) -> None:
    order_id = fleet.create_order()["order_id"]
    parameters: dict[str, object] = {
        "order_id": order_id, "command": "confirm", "name": "anna", "driver_id": None,
        "idempotency_key": "k",
    }  # fmt: skip
    command = named("command_order_as_staff", parameters)
    commits.lose_standby()

    assert commits.waits("tracking_api", command)
    assert commits.waits("tracking_api", command)
    assert len(fleet.run("SELECT command FROM order_command WHERE command = 'confirm'")) == 1


def test_repeat__of_a_couriers_command__waits_for_the_standby(
    commits: Commits, fleet: Fleet
) -> None:
    parameters: dict[str, object] = {
        "token_sha256": token_sha256("d1"), "order_id": fleet.assigned_order("d1"),
        "command": "pick_up", "idempotency_key": "k",
    }  # fmt: skip
    pick_up = named("command_own_order", parameters, "queries/driver_api.sql")
    commits.lose_standby()

    assert commits.waits("driver_api", pick_up)
    assert commits.waits("driver_api", pick_up)


def test_watermark__of_a_commit_whose_wait_was_cancelled__waits_for_the_standby(
    commits: Commits, fleet: Fleet
) -> None:
    fix = make_fix("d1")
    commits.lose_standby()
    assert commits.waits("driver_api", lambda conn: fix_writer.record_fixes(conn, [fix]))
    connection = Connection(fleet.database.url("driver_events"), "acks")
    read = watermark_reader(connection)
    marks: list[tuple[str, int]] = []

    assert commits.wait_of(
        lambda: marks.extend((one.boot, one.seq) for one in read([("d1", "b1")]))
    )
    connection.discard()
    assert marks == [("b1", 1)]


def test_confirm_commit__without_a_standby__writes_nothing(fleet: Fleet) -> None:
    with fleet.database.connect("driver_events") as conn:
        fix_writer.confirm_commit(conn)
        assigned = conn.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()

    assert assigned == (None,)
