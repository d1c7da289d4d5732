"""Credentials of drivers' phone apps. Nothing here commits.

The rules are in `sql/schema/55_phones.sql`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import class_row, tuple_row

from doorstep.credentials import PhoneSecret, phone_token, token_sha256
from doorstep.store.error_mapping import translated
from doorstep.store.records import DeadLetter, letter_columns
from sql import query

SQL_FILE = "queries/phones.sql"


@dataclass(frozen=True, slots=True)
class ChangedPhone:
    """A phone's credential that was issued or ended, for broker_sync."""

    driver_id: str
    generation: int
    mqtt_hash: str | None
    is_active: bool
    version: int

    @property
    def has_derived_token(self) -> bool:
        return self.is_active and self.mqtt_hash is None


class IssuedPhone(NamedTuple):
    """A phone's credential. A secret that is not derived was shown once, when it was made."""

    generation: int
    is_derived: bool


class HeardOf(NamedTuple):
    """A message of a phone: OwnTracks' mode, if it was given, and whether it was a position."""

    driver_id: str
    mode: int | None
    has_position: bool


def issue_phone(
    conn: psycopg.Connection[Any],
    key: bytes,
    driver_id: str,
    who: str,
    *,
    secret: PhoneSecret | None = None,
) -> IssuedPhone:
    """Give a driver's phone a credential and register its token.

    One that exists stays, unless it is revoked or there is a new secret: then it ends. Without a
    secret, one is derived. Raises UnknownDriver, also for a driver who may not log in.
    """
    mqtt_hash, token_sha = secret.hashes() if secret else (None, None)
    parameters = {
        "driver_id": driver_id,
        "again": secret is not None,
        "who": who,
        "mqtt_hash": mqtt_hash,
        "token_sha256": token_sha,
    }
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        [row] = cursor.execute(query("issue_phone", SQL_FILE), parameters).fetchall()
    issued = IssuedPhone(*row)
    if issued.is_derived:
        register_phone_tokens(conn, key, [(driver_id, issued.generation)])
    return issued


def revoke_phone(conn: psycopg.Connection[Any], driver_id: str, who: str) -> None:
    """End the credential of a driver's phone. Raises UnknownDriver."""
    with translated():
        conn.execute(query("revoke_phone", SQL_FILE), {"driver_id": driver_id, "who": who})


def read_phone(conn: psycopg.Connection[Any], driver_id: str) -> IssuedPhone:
    """Return a phone's credential, for the database's owner."""
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        [row] = cursor.execute(
            query("phone_generation", SQL_FILE), {"driver_id": driver_id}
        ).fetchall()
        return IssuedPhone(*row)


def register_phone_tokens(
    conn: psycopg.Connection[Any], key: bytes, phones: Sequence[tuple[str, int]]
) -> None:
    """Register the derived tokens of (driver_id, generation), of active phones only."""
    parameters = {
        "driver_ids": [driver_id for driver_id, _ in phones],
        "generations": [generation for _, generation in phones],
        "token_sha256s": [token_sha256(phone_token(key, *phone)) for phone in phones],
    }
    with translated():
        conn.execute(query("register_phone_tokens", SQL_FILE), parameters)


def changed_phones(conn: psycopg.Connection[Any], since: int) -> list[ChangedPhone]:
    """Return the phones changed since a version; -1 for all."""
    with translated(), conn.cursor(row_factory=class_row(ChangedPhone)) as cursor:
        return cursor.execute(query("changed_phones", SQL_FILE), {"since": since}).fetchall()


def heard_of_phones(conn: psycopg.Connection[Any], heard: Collection[HeardOf], app: str) -> None:
    """Note that these drivers' phones were heard of."""
    with translated():
        conn.execute(query("heard_of_phones", SQL_FILE), _heard(heard, app, can_command=False))


async def heard_of_phone_async(
    conn: psycopg.AsyncConnection[Any], heard: HeardOf, app: str, *, can_command: bool
) -> int | None:
    """Like `heard_of_phones`, for an API. Returns the mode that the phone is to set."""
    with translated():
        parameters = _heard([heard], app, can_command=can_command)
        cursor = await conn.execute(query("heard_of_phones", SQL_FILE), parameters)
        row = await cursor.fetchone()
        return row[1] if row else None


def _heard(heard: Collection[HeardOf], app: str, *, can_command: bool) -> dict[str, object]:
    found = sorted(heard, key=lambda one: one.driver_id)
    return {
        "driver_ids": [one.driver_id for one in found],
        "modes": [one.mode for one in found],
        "have_positions": [one.has_position for one in found],
        "app": app,
        "can_command": can_command,
    }


def unsent_phone_modes(
    conn: psycopg.Connection[Any], app: str, at_most: int
) -> list[tuple[str, int]]:
    """Return (driver_id, mode) of phones to be sent a mode, and lock their rows."""
    parameters = {"app": app, "at_most": at_most}
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query("unsent_phone_modes", SQL_FILE), parameters).fetchall()


def sent_phone_modes(conn: psycopg.Connection[Any], sent: Sequence[tuple[str, int]]) -> None:
    """Note that these modes were sent."""
    parameters = {
        "driver_ids": [driver_id for driver_id, _ in sent],
        "modes": [mode for _, mode in sent],
    }
    with translated():
        conn.execute(query("sent_phone_modes", SQL_FILE), parameters)


async def add_phone_dead_letters_async(
    conn: psycopg.AsyncConnection[Any], sha256: bytes, letters: Sequence[DeadLetter]
) -> None:
    """Insert dead letters of the phone that has this token. Raises UnknownDriver."""
    if not letters:
        return
    parameters = letter_columns(letters) | {"token_sha256": sha256}
    with translated():
        await conn.execute(query("add_phone_dead_letters", SQL_FILE), parameters)


async def find_phone(conn: psycopg.AsyncConnection[Any], sha256: bytes) -> str | None:
    """Return the driver whose phone has this token; None if there is none."""
    with translated():
        parameters = {"token_sha256": sha256}
        cursor = await conn.execute(query("find_phone", SQL_FILE), parameters)
        row = await cursor.fetchone()
        return row[0] if row else None
