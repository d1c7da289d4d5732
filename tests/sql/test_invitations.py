"""Invitations in the database: good once, for a day; a new phone replaces the old one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from doorstep.credentials import DeviceSecrets, PhoneSecret, token_sha256
from doorstep.errors import UnknownDriver
from doorstep.provision import provision_drivers
from doorstep.store.invitations import Joined, has_position, invite_driver, use_invitation
from doorstep.store.people import change_device, read_audit
from doorstep.store.phones import HeardOf, changed_phones, heard_of_phones, issue_phone
from doorstep.store.pool import Pool, connection, open_pool
from tests.database import Database

KEY = bytes(32)
WHO = "run:test"
Conn = psycopg.Connection[Any]


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with database.connect() as conn:
        provision_drivers(conn, KEY, ["anna", "ben"], print)
        conn.commit()
        yield conn


def invite(conn: Conn, token: str = "inv-1", driver_id: str = "anna") -> None:
    invite_driver(conn, driver_id, token, WHO)
    conn.commit()


def run(database: Database, *tokens: str, secret: PhoneSecret | None = None) -> list[Joined | None]:
    """Use invitations as driver_api, all at once; sessions and followers are named by place."""

    async def use(pool: Pool, n: int, token: str) -> Joined | None:
        async with connection(pool) as conn:
            found = await use_invitation(
                conn,
                token,
                follow=f"fol-{token}-{n}",
                session=f"ses-{token}-{n}",
                session_s=60,
                secret=secret,
            )
            await conn.commit()
            return found

    async def use_all() -> list[Joined | None]:
        pool = await open_pool(database.url("driver_api"), 4)
        try:
            return list(await asyncio.gather(*(use(pool, *one) for one in enumerate(tokens))))
        finally:
            await pool.close()

    return asyncio.run(use_all())


def followed(database: Database, follow: str) -> bool | None:
    async def read() -> bool | None:
        pool = await open_pool(database.url("driver_api"), 1)
        try:
            async with connection(pool) as conn:
                return await has_position(conn, follow)
        finally:
            await pool.close()

    return asyncio.run(read())


def scalar(conn: Conn, statement: str, *parameters: object) -> Any:
    row = conn.execute(statement, parameters).fetchone()  # type: ignore[arg-type]
    conn.commit()
    return row[0] if row else None


def phone_of(conn: Conn, secret: PhoneSecret) -> str | None:
    statement = "SELECT doorstep.find_phone_v1(%s)"
    return scalar(conn, statement, token_sha256(secret.token))  # type: ignore[no-any-return]


def session_is_good(conn: Conn, session: str) -> bool:
    statement = "SELECT driver_id FROM doorstep.find_token_v2(%s)"
    return scalar(conn, statement, token_sha256(session)) == "anna"


def test_invitation__used__gives_a_phone_and_a_session_and_is_spent(
    conn: Conn, database: Database
) -> None:
    invite(conn)
    secret = PhoneSecret.draw()
    [joined] = run(database, "inv-1", secret=secret)
    assert joined is not None
    assert joined[:2] == ("anna", "anna")
    assert joined.session_expires_at < datetime.now(UTC) + timedelta(seconds=61)
    assert phone_of(conn, secret) == "anna"
    assert session_is_good(conn, "ses-inv-1-0")
    [phone] = changed_phones(conn, -1)
    assert (phone.is_active, phone.has_derived_token) == (True, False)
    assert run(database, "inv-1") == [None]
    audit = [(one.who, one.action) for one in read_audit(conn, None)]
    assert (WHO, "driver.invite") in audit
    assert ("driver:anna", "driver.join") in audit


def test_invitation__two_requests_at_once__one_of_them_wins(conn: Conn, database: Database) -> None:
    invite(conn)
    found = run(database, "inv-1", "inv-1", "inv-1", secret=PhoneSecret.draw())
    assert sum(one is not None for one in found) == 1


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE doorstep.invitation SET expires_at = clock_timestamp()",
        "SELECT doorstep.invite_driver_v1('anna', sha256('another'), 'run:test')",
    ],
    ids=["after a day", "replaced"],
)
def test_invitation__ended__is_refused_and_changes_nothing(
    conn: Conn, database: Database, end: str
) -> None:
    invite(conn)
    old = PhoneSecret.draw()
    issue_phone(conn, KEY, "anna", WHO, secret=old)
    conn.execute(end)  # type: ignore[arg-type]
    conn.commit()
    version = scalar(conn, "SELECT version FROM doorstep.credential_version")
    assert run(database, "inv-1", "inv-guess", secret=PhoneSecret.draw()) == [None, None]
    assert phone_of(conn, old) == "anna"
    assert scalar(conn, "SELECT version FROM doorstep.credential_version") == version


@pytest.mark.parametrize("change", ["revoke", "rotate", "remove"])
def test_invitation__of_a_driver_who_is_revoked_rotated_or_removed__has_ended(
    conn: Conn, database: Database, change: str
) -> None:
    invite(conn)
    invite(conn, "inv-ben", "ben")
    secrets = DeviceSecrets.draw("driver") if change == "rotate" else None
    change_device(conn, "driver", "anna", change, WHO, secrets)
    conn.commit()
    assert run(database, "inv-1") == [None]
    assert run(database, "inv-ben") != [None]
    if change != "rotate":
        with pytest.raises(UnknownDriver):
            invite(conn)


def test_second_phone__replaces_the_first__whose_token_and_session_end(
    conn: Conn, database: Database
) -> None:
    invite(conn)
    first, second = PhoneSecret.draw(), PhoneSecret.draw()
    run(database, "inv-1", secret=first)
    version = max(one.version for one in changed_phones(conn, -1))
    invite(conn, "inv-2")
    run(database, "inv-2", secret=second)
    assert (phone_of(conn, first), phone_of(conn, second)) == (None, "anna")
    assert not session_is_good(conn, "ses-inv-1-0")
    assert session_is_good(conn, "ses-inv-2-0")
    assert [one.is_active for one in changed_phones(conn, version)] == [True]


def test_browser__after_a_phone_app__ends_the_apps_credential(
    conn: Conn, database: Database
) -> None:
    invite(conn)
    app = PhoneSecret.draw()
    run(database, "inv-1", secret=app)
    version = max(one.version for one in changed_phones(conn, -1))
    invite(conn, "inv-2")
    run(database, "inv-2")
    assert phone_of(conn, app) is None
    assert session_is_good(conn, "ses-inv-2-0")
    assert [one.is_active for one in changed_phones(conn, version)] == [False]


def test_follow_up__tells_of_the_first_position_and_of_no_other_message(
    conn: Conn, database: Database
) -> None:
    invite(conn)
    run(database, "inv-1", secret=PhoneSecret.draw())
    assert followed(database, "fol-inv-1-0") is False
    heard_of_phones(conn, [HeardOf("anna", None, has_position=False)], "osmand")
    conn.commit()
    assert followed(database, "fol-inv-1-0") is False
    heard_of_phones(conn, [HeardOf("anna", None, has_position=True)], "osmand")
    conn.commit()
    assert followed(database, "fol-inv-1-0") is True
    assert followed(database, "fol-guess") is None


def test_staff__sees_invited_until_the_phone_is_heard_of(conn: Conn, database: Database) -> None:
    def seen() -> tuple[Any, ...] | None:
        with database.connect("tracking_api") as reader:
            return reader.execute(
                "SELECT state, invited_until IS NOT NULL, app FROM doorstep.driver_phone"
                " WHERE driver_id = 'anna'"
            ).fetchone()

    assert seen() == (None, False, None)
    invite(conn)
    assert seen() == ("invited", True, None)
    run(database, "inv-1", secret=PhoneSecret.draw())
    assert seen() == ("invited", False, None)
    heard_of_phones(conn, [HeardOf("anna", None, has_position=True)], "OwnTracks over MQTT")
    conn.commit()
    assert seen() == ("heard", False, "OwnTracks over MQTT")
