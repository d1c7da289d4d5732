"""An answer that rests on a commit waits for the standby, even if it writes nothing.

The seam: a standby that never connects. So a commit waits until the wait is cancelled, as the APIs
do at their deadline, and is visible then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
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
CUSTOMER, SESSION = b"c" * 32, b"e" * 32
ENDPOINT = "https://push.example.org/send/1"
Parameters = dict[str, object]
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


def subscribed_order(fleet: Fleet) -> Parameters:
    order_id = fleet.create_order(token_sha256=CUSTOMER)["order_id"]
    insert = "INSERT INTO push_subscription VALUES (%s, %s, %s, 'k', 'a')"
    fleet.run(insert, CUSTOMER, ENDPOINT, order_id)
    return {
        "token_sha256": CUSTOMER,
        "order_id": order_id,
        "endpoint_sha256": sha256(ENDPOINT.encode()).digest(),
        "share_sha256": b"s" * 32,
        "door_note": "x",
    }


def retried_order(fleet: Fleet) -> Parameters:
    order_id = fleet.create_order(token_sha256=CUSTOMER)["order_id"]
    retry_id = fleet.create_order()["order_id"]
    fleet.run("INSERT INTO order_retry (order_id, retry_of) VALUES (%s, %s)", retry_id, order_id)
    return {"token_sha256": CUSTOMER, "order_id": order_id, "retry_sha256": b"r" * 32}


def session_of_staff(fleet: Fleet) -> Parameters:
    insert = "INSERT INTO access_token (token_sha256, role, name, expires_at, is_session)"
    fleet.run("INSERT INTO staff (name, role) VALUES ('anna', 'admin')")
    fleet.run(f"{insert} VALUES (%s, 'staff', 'anna', now() + interval '1 h', true)", SESSION)
    return {"session_sha256": SESSION}


def session_of_a_driver(fleet: Fleet) -> Parameters:
    insert = "INSERT INTO access_token (token_sha256, role, driver_id, expires_at, is_session)"
    fleet.run(f"{insert} VALUES (%s, 'driver', 'd1', now() + interval '1 h', true)", SESSION)
    return {"session_sha256": SESSION}


def other_policy(fleet: Fleet) -> Parameters:
    return {"key": fleet.run("SELECT create_policy_v1('{}') AS id")[0]["id"], "who": "anna"}


def open_alert(fleet: Fleet) -> Parameters:
    raise_it = "INSERT INTO alert (kind, driver_id) VALUES ('over_quota', 'd1') RETURNING alert_id"
    return {"alert_id": fleet.run(raise_it)[0]["alert_id"], "who": "anna"}


def pinned_sampling(fleet: Fleet) -> Parameters:
    fleet.run("SELECT driver_sampling__set_v1('d1', '{}')")
    return {"driver_id": "d1"}


PAGE, ADMINISTRATION = "queries/customer_page.sql", "queries/administration.sql"


@pytest.mark.parametrize(
    ("role", "file", "name", "prepare"),
    [
        ("customer", PAGE, "change_note", subscribed_order),
        ("customer", PAGE, "share", subscribed_order),
        ("customer", PAGE, "unshare", subscribed_order),
        ("customer", PAGE, "unsubscribe", subscribed_order),
        ("customer", PAGE, "follow_retry", retried_order),
        ("tracking_api", "queries.sql", "revoke_customer_tokens", subscribed_order),
        ("tracking_api", "queries.sql", "close_staff_session", session_of_staff),
        ("tracking_api", "queries.sql", "unpin_sampling", pinned_sampling),
        ("tracking_api", ADMINISTRATION, "set_default_policy", other_policy),
        ("tracking_api", "queries/webhooks.sql", "acknowledge_alert", open_alert),
        ("driver_api", "queries/driver_api.sql", "close_driver_session", session_of_a_driver),
    ],
)
def test_repeat__that_finds_the_work_done__waits_for_the_standby(
    commits: Commits,
    fleet: Fleet,
    role: str,
    file: str,
    name: str,
    prepare: Callable[[Fleet], Parameters],
) -> None:
    command = named(name, prepare(fleet), file)
    commits.lose_standby()

    assert commits.waits(role, command)
    assert commits.waits(role, command)


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
