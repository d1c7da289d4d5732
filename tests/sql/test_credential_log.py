"""What was revoked or erased after the restored instant stays so: the log, on two databases.

`earlier` is a copy of the database at the instant; the log then follows the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from doorstep.credentials import DeviceSecrets, token_sha256
from doorstep.store.admin import NewDriver, register_drivers
from doorstep.store.people import add_devices, change_device, change_staff
from doorstep.store.personal_data import forget_driver
from ops.backup.credential_log import Applied, CredentialLog, end_customer_links
from ops.stack.backup_repository import CONFIG
from tests.database import Database, cloned_database
from tests.sql.fleet import Fleet

WHO = "run:test"
OLD, NEW = b"o" * 32, b"n" * 32
LINK = b"l" * 32


@pytest.fixture
def later(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """The database up to the instant: d1, d2 with tokens, zoe and an order under way."""
    fleet = Fleet(database)
    fleet.add_drivers("d1", "d2")
    add_devices(fleet.conn, "driver", ["d1", "d2"])
    for name in ("d1", "d2"):
        fleet.run(
            "INSERT INTO access_token (token_sha256, role, driver_id) VALUES (%s, 'driver', %s)",
            token_sha256(name),
            name,
        )
    expires_at = datetime.now(UTC) + timedelta(days=1)
    change_staff(fleet.conn, "zoe", "add", who=WHO, role="admin", token_sha256=OLD,
                 expires_at=expires_at)  # fmt: skip
    fleet.assigned_order("d1", token_sha256=LINK)
    fleet.close()
    with database.connect(autocommit=True) as conn:
        yield conn


@pytest.fixture
def earlier(
    database: Database, later: psycopg.Connection[Any]
) -> Iterator[psycopg.Connection[Any]]:
    """A copy, which a restore to that instant would give."""
    later.close()
    with (
        cloned_database(database.cluster, database.name) as copy,
        copy.connect(autocommit=True) as conn,
    ):
        yield conn


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / CONFIG).touch()
    return tmp_path / "credentials.jsonl"


def restored(database: Database, earlier: psycopg.Connection[Any], log: Path) -> Applied:
    """Log the database's present state, and apply what a new process reads from the file."""
    with database.connect() as conn:
        CredentialLog(log).follow(conn)
    earlier.autocommit = False
    return CredentialLog(log).apply(earlier)


def who_is(conn: psycopg.Connection[Any], token: bytes) -> Any:
    row = conn.execute("SELECT role, staff_role FROM find_token_v2(%s)", (token,)).fetchone()
    return row and (row[1] or row[0])


def is_active(conn: psycopg.Connection[Any], device_id: str) -> Any:
    row = conn.execute(
        "SELECT is_active FROM changed_devices_v2(0) WHERE device_id = %s", (device_id,)
    ).fetchone()
    return row and row[0]


@pytest.mark.parametrize("change", ["revoke", "remove"])
def test_apply__driver_ended_later__cannot_log_in(
    database: Database, earlier: psycopg.Connection[Any], log: Path, change: str
) -> None:
    with database.connect(autocommit=True) as conn:
        change_device(conn, "driver", "d2", change, WHO)
    assert is_active(earlier, "d2")
    assert who_is(earlier, token_sha256("d2")) == "driver"

    applied = restored(database, earlier, log)

    assert applied.credentials[0] == "driver d2 (revoked)"
    assert is_active(earlier, "d2") is False
    assert who_is(earlier, token_sha256("d2")) is None
    assert is_active(earlier, "d1")
    assert who_is(earlier, token_sha256("d1")) == "driver"


def test_apply__driver_rotated_later__only_the_new_secrets_count(
    database: Database, earlier: psycopg.Connection[Any], log: Path
) -> None:
    secrets = DeviceSecrets.draw("driver")
    assert secrets.token is not None
    with database.connect(autocommit=True) as conn:
        change_device(conn, "driver", "d2", "rotate", WHO, secrets)

    restored(database, earlier, log)

    assert is_active(earlier, "d2")
    assert who_is(earlier, token_sha256("d2")) is None
    assert who_is(earlier, token_sha256(secrets.token)) == "driver"
    with database.connect() as conn:
        columns = "SELECT generation, mqtt_hash FROM device_credential WHERE device_id = 'd2'"
        assert earlier.execute(columns).fetchone() == conn.execute(columns).fetchone()


@pytest.mark.parametrize(("again", "is_revoked"), [(False, True), (True, False)])
def test_apply__phone_changed_later__has_the_later_generation_and_end(
    database: Database, earlier: psycopg.Connection[Any], log: Path, again: bool, is_revoked: bool
) -> None:
    with database.connect(autocommit=True) as conn:
        conn.execute("SELECT issue_phone_v2('d2', false, 'run:test', NULL, NULL)")
        earlier.execute("SELECT issue_phone_v2('d2', false, 'run:test', NULL, NULL)")
        conn.execute("SELECT revoke_phone_v1('d2', 'run:test')")
        if again:
            conn.execute("SELECT issue_phone_v2('d2', true, 'run:test', 'h', sha256('x'))")

    applied = restored(database, earlier, log)

    assert "phone of d2" in applied.credentials
    columns = "generation, revoked_at IS NOT NULL, mqtt_hash, token_sha256"
    phone = f"SELECT {columns} FROM phone_credential WHERE driver_id = 'd2'"
    with database.connect() as conn:
        assert earlier.execute(phone).fetchone() == conn.execute(phone).fetchone()
    assert (earlier.execute(phone).fetchone() or ())[1] == is_revoked


def test_apply__invitation_open_at_the_instant__has_ended(
    database: Database, earlier: psycopg.Connection[Any], log: Path
) -> None:
    """It may have been used since."""
    earlier.execute("SELECT invite_driver_v1('d2', %s, 'run:test')", (OLD,))

    restored(database, earlier, log)

    ended = earlier.execute("SELECT revoked_at IS NOT NULL FROM invitation").fetchone()
    assert ended == (True,)


def test_apply__driver_added_and_revoked_later__is_known_as_revoked(
    database: Database, earlier: psycopg.Connection[Any], log: Path
) -> None:
    with database.connect(autocommit=True) as conn:
        add_devices(conn, "driver", ["d3"])
        change_device(conn, "driver", "d3", "revoke", WHO)

    restored(database, earlier, log)

    assert is_active(earlier, "d3") is False


def test_apply__driver_added_later__can_log_in(
    database: Database, earlier: psycopg.Connection[Any], log: Path
) -> None:
    with database.connect(autocommit=True) as conn:
        add_devices(conn, "driver", ["d3"])
        register_drivers(conn, [NewDriver("d3", "d3", token_sha256("d3"))])

    assert restored(database, earlier, log).credentials == [
        "driver d3 (active)",
        "token of d3",
    ]
    assert is_active(earlier, "d3")
    assert who_is(earlier, token_sha256("d3")) == "driver"


@pytest.mark.parametrize(("change", "role"), [("revoke", None), ("rotate", "viewer")])
def test_apply__staff_changed_later__has_the_later_role_and_token(
    database: Database,
    earlier: psycopg.Connection[Any],
    log: Path,
    change: str,
    role: str | None,
) -> None:
    with database.connect(autocommit=True) as conn:
        change_staff(conn, "zoe", change, who=WHO, role=role, token_sha256=NEW,
                     expires_at=datetime.now(UTC) + timedelta(days=1))  # fmt: skip
    assert who_is(earlier, OLD) == "admin"

    restored(database, earlier, log)

    assert who_is(earlier, OLD) is None
    assert who_is(earlier, NEW) == role


def test_apply__customers_link_revoked_later__stays_revoked(
    database: Database, earlier: psycopg.Connection[Any], log: Path
) -> None:
    with database.connect(autocommit=True) as conn:
        conn.execute("SELECT revoke_customer_tokens_v1(order_id) FROM orders")
    assert who_is(earlier, LINK) == "customer"

    restored(database, earlier, log)

    assert who_is(earlier, LINK) is None


def test_apply__driver_forgotten_later__is_erased_again(
    database: Database, earlier: psycopg.Connection[Any], log: Path
) -> None:
    with database.connect() as conn:
        forget_driver(conn, "d2", WHO)
        conn.commit()

    applied = restored(database, earlier, log)

    assert applied.forgotten == ["driver d2"]
    drivers = earlier.execute("SELECT driver_id FROM driver ORDER BY 1").fetchall()
    assert drivers == [("d1",), ("forgotten",)]


def test_apply__newest_state_and_again__changes_nothing(
    database: Database, earlier: psycopg.Connection[Any], log: Path
) -> None:
    with database.connect(autocommit=True) as conn:
        change_device(conn, "driver", "d2", "revoke", WHO)
        change_staff(conn, "zoe", "revoke", who=WHO)
    assert restored(database, earlier, log).credentials

    again = restored(database, earlier, log)

    assert again == Applied()
    with database.connect() as conn:
        assert CredentialLog(log).apply(conn) == Applied()


def test_apply__database_is_newer_than_the_log__keeps_its_own(
    database: Database, earlier: psycopg.Connection[Any], log: Path
) -> None:
    with database.connect() as conn:
        change_device(conn, "driver", "d2", "revoke", WHO)
        conn.commit()
        CredentialLog(log).follow(conn)
        change_device(conn, "driver", "d2", "rotate", WHO, DeviceSecrets.draw("driver"))
        conn.commit()

        applied = CredentialLog(log).apply(conn)

        assert applied == Applied()
        assert is_active(conn, "d2")


def test_follow__nothing_changed__writes_nothing(database: Database, later: Any, log: Path) -> None:
    del later
    with database.connect() as conn:
        followed = CredentialLog(log)
        assert followed.follow(conn) > 0
        assert followed.follow(conn) == 0
        assert CredentialLog(log).follow(conn) == 0


def test_end_customer_links__order_under_way__ends_its_links(
    earlier: psycopg.Connection[Any],
) -> None:
    [(order_id,)] = earlier.execute("SELECT order_id FROM orders").fetchall()

    assert end_customer_links(earlier) == [str(order_id)]
    assert who_is(earlier, LINK) is None


def test_end_customer_links__shared_link__ends_too(earlier: psycopg.Connection[Any]) -> None:
    earlier.execute(
        "INSERT INTO share_link (token_sha256, order_id, owner_sha256)"
        " SELECT sha256('shared'), t.order_id, t.token_sha256 FROM access_token t"
        " WHERE t.role = 'customer' LIMIT 1"
    )

    end_customer_links(earlier)

    [(active,)] = earlier.execute("SELECT count(*) FROM share_link WHERE revoked_at IS NULL")
    assert active == 0
