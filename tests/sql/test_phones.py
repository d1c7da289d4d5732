"""Credentials of phone apps in the database."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from doorstep.credentials import DeviceSecrets, PhoneSecret, phone_token, token_sha256
from doorstep.errors import UnknownDriver
from doorstep.provision import provision_drivers
from doorstep.store.people import change_device, read_audit
from doorstep.store.phones import (
    HeardOf,
    changed_phones,
    heard_of_phones,
    issue_phone,
    register_phone_tokens,
    revoke_phone,
)
from tests.database import Database

KEY = bytes(32)
WHO = "run:test"


@pytest.fixture
def conn(database: Database) -> Iterator[psycopg.Connection[object]]:
    with database.connect() as conn:
        provision_drivers(conn, KEY, ["anna", "ben"], print)
        yield conn


def found(conn: psycopg.Connection[object], generation: int = 0) -> str | None:
    return holder_of(conn, phone_token(KEY, "anna", generation))


def holder_of(conn: psycopg.Connection[object], token: str) -> str | None:
    row = conn.execute("SELECT doorstep.find_phone_v1(%s)", (token_sha256(token),)).fetchone()
    return row[0] if row else None  # type: ignore[index, no-any-return]


def heard_of(driver_id: str, mode: int | None = None) -> HeardOf:
    return HeardOf(driver_id, mode, has_position=True)


def test_issue_phone__again__begins_a_generation_and_ends_the_old_token(
    conn: psycopg.Connection[object],
) -> None:
    assert issue_phone(conn, KEY, "anna", WHO) == (0, True)
    assert issue_phone(conn, KEY, "anna", WHO) == (0, True)
    assert found(conn) == "anna"
    secret = PhoneSecret.draw()
    assert issue_phone(conn, KEY, "anna", WHO, secret=secret) == (1, False)
    assert issue_phone(conn, KEY, "anna", WHO) == (1, False)
    register_phone_tokens(conn, KEY, [("anna", 1)])
    assert (found(conn), found(conn, 1)) == (None, None)
    assert holder_of(conn, secret.token) == "anna"
    audit = [(one.action, one.detail) for one in read_audit(conn, WHO)]
    assert audit == [("phone.issue", {"generation": 0}), ("phone.issue", {"generation": 1})]


def test_revoke_phone__then_issued__is_the_next_generation(
    conn: psycopg.Connection[object],
) -> None:
    issue_phone(conn, KEY, "anna", WHO)
    revoke_phone(conn, "anna", WHO)
    assert found(conn) is None
    register_phone_tokens(conn, KEY, [("anna", 0)])
    assert found(conn) is None
    assert issue_phone(conn, KEY, "anna", WHO) == (1, True)
    assert (found(conn), found(conn, 1)) == (None, "anna")


@pytest.mark.parametrize("change", ["revoke", "rotate", "remove"])
def test_driver__revoked_rotated_or_removed__ends_the_phone_and_tells_broker_sync(
    conn: psycopg.Connection[object], change: str
) -> None:
    issue_phone(conn, KEY, "anna", WHO)
    issue_phone(conn, KEY, "ben", WHO)
    version = max(one.version for one in changed_phones(conn, -1))
    secrets = DeviceSecrets.draw("driver") if change == "rotate" else None
    change_device(conn, "driver", "anna", change, WHO, secrets)
    assert found(conn) is None
    [changed] = changed_phones(conn, version)
    assert (changed.driver_id, changed.is_active) == ("anna", False)
    if change == "rotate":
        assert issue_phone(conn, KEY, "anna", WHO) == (1, True)
        change_device(conn, "driver", "ben", "revoke", WHO)  # updates no row of anna's
        assert found(conn, 1) == "anna"
    else:
        with pytest.raises(UnknownDriver):
            issue_phone(conn, KEY, "anna", WHO)


def test_issue_or_revoke__no_such_driver_or_phone__is_refused(
    conn: psycopg.Connection[object],
) -> None:
    with pytest.raises(UnknownDriver):
        issue_phone(conn, KEY, "nina", WHO)
    conn.rollback()
    with pytest.raises(UnknownDriver):
        revoke_phone(conn, "anna", WHO)


def test_heard_of__within_20_s__is_written_once_per_app(
    conn: psycopg.Connection[object],
) -> None:
    def heard() -> object:
        return conn.execute(
            "SELECT heard_at, heard_app FROM doorstep.phone_credential WHERE driver_id = 'anna'"
        ).fetchone()

    issue_phone(conn, KEY, "anna", WHO)
    assert heard() == (None, None)
    heard_of_phones(conn, [heard_of("ben"), heard_of("anna")], "overland")
    first = heard()
    heard_of_phones(conn, [heard_of("anna")], "overland")
    assert heard() == first
    heard_of_phones(conn, [heard_of("anna")], "osmand")
    assert heard() != first


def test_phone_token__is_no_access_token(conn: psycopg.Connection[object]) -> None:
    issue_phone(conn, KEY, "anna", WHO)
    digest = token_sha256(phone_token(KEY, "anna"))
    rows = conn.execute("SELECT * FROM doorstep.find_token_v2(%s)", (digest,)).fetchall()
    assert rows == []


@pytest.mark.parametrize(
    ("role", "call"),
    [
        ("driver_events", "find_phone_v1(''::bytea)"),
        ("tracking_api", "find_phone_v1(''::bytea)"),
        ("driver_api", "issue_phone_v2('anna', true, 'x', NULL, NULL)"),
        ("driver_api", "invite_driver_v1('anna', ''::bytea, 'x')"),
        ("tracking_api", "use_invitation_v1(NULL, NULL, NULL, 1, NULL, NULL)"),
        ("driver_api", "register_phone_tokens_v1('{}', '{}', '{}')"),
        ("broker_sync", "revoke_phone_v1('anna', 'x')"),
        ("customer", "phone_credential__heard_v2('{}', '{}', '{}', 'x', false)"),
    ],
)
def test_roles__functions_that_they_do_not_need__are_refused(
    database: Database, role: str, call: str
) -> None:
    with database.connect(role) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(f"SELECT doorstep.{call}")  # type: ignore[arg-type]
