"""Invitations of drivers to set a phone up. Nothing here commits.

The rules are in `sql/schema/55_invitations.sql`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import tuple_row

from doorstep.credentials import PhoneSecret, token_sha256
from doorstep.store.error_mapping import translated
from sql import query

SQL_FILE = "queries/phones.sql"


class Joined(NamedTuple):
    """The driver who used an invitation, and until when the page's session is good."""

    driver_id: str
    name: str
    session_expires_at: datetime


def invite_driver(conn: psycopg.Connection[Any], driver_id: str, token: str, who: str) -> datetime:
    """Make an invitation; an earlier open one ends. Returns when it expires.

    Raises UnknownDriver, also for a driver who may not log in.
    """
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        [(expires_at,)] = cursor.execute(
            query("invite_driver", SQL_FILE), _invitation(driver_id, token, who)
        ).fetchall()
    return expires_at  # type: ignore[no-any-return]


async def invite_driver_async(
    conn: psycopg.AsyncConnection[Any], driver_id: str, token: str, who: str
) -> datetime:
    """Like `invite_driver`, for an API's connection."""
    with translated():
        cursor = await conn.execute(
            query("invite_driver", SQL_FILE), _invitation(driver_id, token, who)
        )
        [(expires_at,)] = await cursor.fetchall()
    return expires_at  # type: ignore[no-any-return]


def _invitation(driver_id: str, token: str, who: str) -> dict[str, object]:
    return {"driver_id": driver_id, "token_sha256": token_sha256(token), "who": who}


async def use_invitation(
    conn: psycopg.AsyncConnection[Any],
    token: str,
    *,
    follow: str,
    session: str,
    session_s: float,
    secret: PhoneSecret | None,
) -> Joined | None:
    """Use an invitation: the earlier phone and sessions end. None if it is not good.

    `follow` may ask for the first position. Without a secret there is no phone app.
    """
    mqtt_hash, phone_sha256 = secret.hashes() if secret else (None, None)
    parameters = {
        "token_sha256": token_sha256(token),
        "follow_sha256": token_sha256(follow),
        "session_sha256": token_sha256(session),
        "session_s": session_s,
        "mqtt_hash": mqtt_hash,
        "phone_sha256": phone_sha256,
    }
    with translated():
        cursor = await conn.execute(query("use_invitation", SQL_FILE), parameters)
        row = await cursor.fetchone()
        return Joined(*row) if row else None


async def has_position(conn: psycopg.AsyncConnection[Any], follow: str) -> bool | None:
    """Whether a position has come since the invitation was used; None for a bad token."""
    with translated():
        parameters = {"follow_sha256": token_sha256(follow)}
        cursor = await conn.execute(query("invitation_positioned", SQL_FILE), parameters)
        row = await cursor.fetchone()
        return row[0] if row else None
