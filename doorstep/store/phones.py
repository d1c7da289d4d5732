"""Credentials of drivers' phone apps. Nothing here commits.

The rules are in `sql/schema/55_phones.sql`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row, tuple_row

from doorstep.credentials import phone_token, token_sha256
from doorstep.store.error_mapping import translated
from doorstep.store.records import DeadLetter
from sql import query

SQL_FILE = "queries/phones.sql"


@dataclass(frozen=True, slots=True)
class ChangedPhone:
    """A phone's credential that was issued or ended, for broker_sync."""

    driver_id: str
    generation: int
    is_active: bool
    version: int


def issue_phone(
    conn: psycopg.Connection[Any], key: bytes, driver_id: str, who: str, *, again: bool = False
) -> int:
    """Give a driver's phone a credential, register its token and return its generation.

    One that exists stays, unless it is revoked or `again`. Raises UnknownDriver, also for a driver
    who may not log in.
    """
    parameters = {"driver_id": driver_id, "again": again, "who": who}
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        [(generation,)] = cursor.execute(query("issue_phone", SQL_FILE), parameters).fetchall()
    register_phone_tokens(conn, key, [(driver_id, generation)])
    return int(generation)


def revoke_phone(conn: psycopg.Connection[Any], driver_id: str, who: str) -> None:
    """End the credential of a driver's phone. Raises UnknownDriver."""
    with translated():
        conn.execute(query("revoke_phone", SQL_FILE), {"driver_id": driver_id, "who": who})


def phone_generation(conn: psycopg.Connection[Any], driver_id: str) -> int:
    """Return the generation of a phone's credential, for the database's owner."""
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        parameters = {"driver_id": driver_id}
        [(generation,)] = cursor.execute(query("phone_generation", SQL_FILE), parameters).fetchall()
        return int(generation)


def register_phone_tokens(
    conn: psycopg.Connection[Any], key: bytes, phones: Sequence[tuple[str, int]]
) -> None:
    """Register the tokens of (driver_id, generation), of active phones only."""
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


def heard_of_phones(conn: psycopg.Connection[Any], driver_ids: Collection[str], app: str) -> None:
    """Note that these drivers' phones were heard of."""
    parameters = {"driver_ids": sorted(driver_ids), "app": app}
    with translated():
        conn.execute(query("heard_of_phones", SQL_FILE), parameters)


async def heard_of_phone_async(
    conn: psycopg.AsyncConnection[Any], driver_id: str, app: str
) -> None:
    """Like `heard_of_phones`, for an API's connection."""
    with translated():
        parameters = {"driver_ids": [driver_id], "app": app}
        await conn.execute(query("heard_of_phones", SQL_FILE), parameters)


async def add_phone_dead_letters_async(
    conn: psycopg.AsyncConnection[Any], sha256: bytes, letters: Sequence[DeadLetter]
) -> None:
    """Insert dead letters of the phone that has this token. Raises UnknownDriver."""
    if not letters:
        return
    parameters = {
        "token_sha256": sha256,
        "payloads": [letter.payload for letter in letters],
        "reasons": [letter.reason for letter in letters],
        "topics": [letter.topic for letter in letters],
        "details": [letter.detail for letter in letters],
        "received_at_mss": [letter.received_at_ms for letter in letters],
    }
    with translated():
        await conn.execute(query("add_phone_dead_letters", SQL_FILE), parameters)


async def find_phone(conn: psycopg.AsyncConnection[Any], sha256: bytes) -> str | None:
    """Return the driver whose phone has this token; None if there is none."""
    with translated():
        parameters = {"token_sha256": sha256}
        cursor = await conn.execute(query("find_phone", SQL_FILE), parameters)
        row = await cursor.fetchone()
        return row[0] if row else None
