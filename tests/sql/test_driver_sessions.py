"""Sessions of drivers, for the courier's page, in the database."""

from __future__ import annotations

import secrets

import psycopg
import pytest

from doorstep.credentials import DeviceSecrets
from doorstep.store import admin
from doorstep.store.people import change_device
from tests.database import Database
from tests.sql.fleet import Fleet

WHO = "run:test"


def driver_of(fleet: Fleet, token: bytes) -> str | None:
    rows = fleet.run("SELECT driver_id FROM find_token_v2(%s)", token)
    return rows[0]["driver_id"] if rows else None


def register(fleet: Fleet, driver_id: str, token: bytes) -> None:
    admin.register_drivers(fleet.conn, [admin.NewDriver(driver_id, "Anna", token)])


def sign_in(fleet: Fleet, token: bytes, lifetime_s: float = 60.0) -> bytes | None:
    """Open a session of a driver's token; None if it is refused."""
    session = secrets.token_bytes(32)
    opened = fleet.run(
        "SELECT * FROM open_driver_session_v1(%s, %s, %s)", token, session, lifetime_s
    )
    return session if opened else None


@pytest.fixture
def token(fleet: Fleet) -> bytes:
    """The token of the driver anna."""
    token = secrets.token_bytes(32)
    register(fleet, "anna", token)
    return token


def test_session__reads_and_commands_as_the_driver(fleet: Fleet, token: bytes) -> None:
    session = sign_in(fleet, token)
    [row] = fleet.run("SELECT * FROM driver_change_duty_v1(%s, 'on_duty', NULL)", session)
    assert (row["driver_id"], row["duty"]) == ("anna", "on_duty")


@pytest.mark.parametrize("change", ["revoke", "rotate", "remove"])
def test_session__of_a_driver_who_is_changed__ends(fleet: Fleet, token: bytes, change: str) -> None:
    session = sign_in(fleet, token)
    assert session is not None
    assert driver_of(fleet, session) == "anna"
    new = DeviceSecrets.draw("driver") if change == "rotate" else None
    change_device(fleet.conn, "driver", "anna", change, who=WHO, secrets=new)
    assert driver_of(fleet, session) is None
    assert sign_in(fleet, token) is None


def test_session__driver_is_registered_again__lasts_as_long_as_the_token(
    fleet: Fleet, token: bytes
) -> None:
    session = sign_in(fleet, token)
    assert session is not None
    register(fleet, "anna", token)  # as at each start of the stack
    assert driver_of(fleet, session) == "anna"
    register(fleet, "anna", secrets.token_bytes(32))  # of another fleet key
    assert driver_of(fleet, session) is None


def test_session__expires_and_opens_no_other(fleet: Fleet, token: bytes) -> None:
    over, session = sign_in(fleet, token, -1), sign_in(fleet, token)
    assert over is not None
    assert session is not None
    assert driver_of(fleet, over) is None
    assert sign_in(fleet, session) is None
    assert sign_in(fleet, secrets.token_bytes(32)) is None


def test_sign_out__ends_this_session_only(fleet: Fleet, token: bytes) -> None:
    first, second = sign_in(fleet, token), sign_in(fleet, token)
    assert first is not None
    assert second is not None
    fleet.run("SELECT close_driver_session_v1(%s)", token)
    fleet.run("SELECT close_driver_session_v1(%s)", first)
    assert [driver_of(fleet, one) for one in (token, first, second)] == ["anna", None, "anna"]


@pytest.mark.parametrize("role", ["driver_events", "tracking_api", "customer", "broker_sync"])
def test_session__any_other_role__may_open_none(database: Database, role: str) -> None:
    with database.connect(role) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT * FROM open_driver_session_v1('a', 'b', 1)")
