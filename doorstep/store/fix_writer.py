"""Writes fixes, Kafka offsets and the outbox, for driver_events and driver_api.

Nothing here commits: the caller owns the transaction, so that fixes, offsets and dead letters of
one batch are atomic. StoreUnavailable aborts the transaction; repeating it on a new connection is
safe, because everything here is idempotent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import psycopg
from psycopg.rows import scalar_row, tuple_row

from doorstep.sampling import SamplingPolicy
from doorstep.store.error_mapping import translated
from doorstep.store.records import (
    INCOMING_COLUMNS,
    INCOMING_TYPES,
    DeadLetter,
    IncomingRow,
    OutboxRecord,
    Outcome,
    Watermark,
    letter_columns,
)
from sql import query

__all__ = [
    "INCOMING_COLUMNS",
    "DeadLetter",
    "IncomingRow",
    "OutboxRecord",
    "Outcome",
    "Watermark",
    "add_dead_letters",
    "advance_offsets",
    "confirm_commit",
    "delete_outbox",
    "expire_points",
    "has_parked",
    "open_offsets",
    "read_watermarks",
    "record_fixes",
    "record_fixes_async",
    "record_parked",
    "record_points",
    "take_outbox",
]


def record_fixes(conn: psycopg.Connection, rows: Iterable[IncomingRow]) -> list[Outcome]:
    """Write a batch of fixes. Returns the outcomes of the rows that are not committed.

    `rows` are tuples in the order of INCOMING_COLUMNS.
    """
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(query("prepare_incoming"))
        with cursor.copy(query("copy_incoming")) as copy:
            copy.set_types(INCOMING_TYPES)
            for row in rows:
                copy.write_row(row)
        cursor.execute(query("record_fixes"))
        return [Outcome(*found) for found in cursor]


async def record_fixes_async(
    conn: psycopg.AsyncConnection, rows: Iterable[IncomingRow]
) -> list[Outcome]:
    """Like `record_fixes`, for an API's connection."""
    with translated():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(query("prepare_incoming"))
            async with cursor.copy(query("copy_incoming")) as copy:
                copy.set_types(INCOMING_TYPES)
                for row in rows:
                    await copy.write_row(row)
            await cursor.execute(query("record_fixes"))
            return [Outcome(*found) async for found in cursor]


def record_parked(conn: psycopg.Connection) -> int:
    """Try to record the parked fixes; return how many are no longer parked.

    Refused ones become dead letters here. The outcomes show in the watermark.
    """
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(query("record_parked")).fetchone()
        return int(row[0]) if row else 0


def has_parked(conn: psycopg.Connection) -> bool:
    """Return whether any fix is parked."""
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(query("has_parked")).fetchone()
        return bool(row and row[0])


def read_watermarks(conn: psycopg.Connection, pairs: Sequence[tuple[str, str]]) -> list[Watermark]:
    """Read the committed watermark of each known (driver_id, boot)."""
    parameters = {"driver_ids": [pair[0] for pair in pairs], "boots": [pair[1] for pair in pairs]}
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(query("read_watermarks"), parameters)
        return [
            Watermark(
                driver_id, boot, seq, [(first, last) for first, last in missing or ()], hold_s, held
            )
            for driver_id, boot, seq, missing, hold_s, held in cursor
        ]


def confirm_commit(conn: psycopg.Connection) -> None:
    """Let the commit of this transaction, which may only read, wait for the standby."""
    with translated():
        conn.execute(query("confirm_commit"))


def add_dead_letters(conn: psycopg.Connection, letters: Sequence[DeadLetter]) -> None:
    """Insert dead letters into the outbox."""
    if letters:
        with translated():
            conn.execute(query("add_dead_letters"), letter_columns(letters))


def open_offsets(
    conn: psycopg.Connection, cluster_id: str, topic_id: str, partitions: Sequence[int]
) -> dict[int, int]:
    """Read the next offset of each partition; an unknown one starts at 0."""
    parameters = {
        "cluster_id": cluster_id,
        "topic_id": topic_id,
        "partitions": list(partitions),
    }
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(query("open_offsets"), parameters)
        return dict(cursor.fetchall())


def advance_offsets(
    conn: psycopg.Connection,
    cluster_id: str,
    topic_id: str,
    moves: Mapping[int, tuple[int, int]],
) -> None:
    """Advance each partition's offset, {partition: (from, to)}, by compare-and-set.

    Raises OffsetLost if one of them is not at `from`: another consumer owns the partition, so roll
    back and rejoin.
    """
    if not moves:
        return
    parameters = {
        "cluster_id": cluster_id,
        "topic_id": topic_id,
        "partitions": list(moves),
        "from_offsets": [move[0] for move in moves.values()],
        "to_offsets": [move[1] for move in moves.values()],
    }
    with translated():
        conn.execute(query("advance_offsets"), parameters)


def record_points(
    conn: psycopg.Connection, rows: Iterable[tuple[int, str, datetime, float]]
) -> list[tuple[int, str]]:
    """Write points of series, (n, name, at, value). Returns (n, outcome) of those not written.

    `outcome` is `duplicate`, `conflict` (a different value at a known instant) or
    `too_many_series`.
    """
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(query("prepare_points"))
        with cursor.copy(query("copy_points")) as copy:
            copy.set_types(("int4", "text", "timestamptz", "float8"))
            for row in rows:
                copy.write_row(row)
        cursor.execute(query("record_points"))
        return cursor.fetchall()


def expire_points(conn: psycopg.Connection, before: datetime) -> int:
    """Drop the points of series before an instant, and return how many."""
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(query("expire_points"), {"before": before}).fetchone()
        return int(row[0]) if row else 0


def take_outbox(conn: psycopg.Connection, limit: int) -> list[OutboxRecord]:
    """Read the oldest records of the outbox; none while another transaction holds the lock.

    Publish them, then `delete_outbox` in the same transaction, then commit.
    """
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(query("take_outbox"), {"limit": limit})
        return [
            OutboxRecord(outbox_id, topic, key, payload, [(k, v) for k, v in headers])
            for outbox_id, topic, key, payload, headers in cursor
        ]


def delete_outbox(conn: psycopg.Connection, ids: Sequence[int]) -> None:
    """Delete the records that Kafka has confirmed."""
    if ids:
        with translated():
            conn.execute(query("delete_outbox"), {"ids": list(ids)})


def follow_demand(conn: psycopg.Connection, *, everybody: bool) -> int:
    """Choose the sampling policies of drivers whose demand has changed; return their number.

    With `everybody`, also those of drivers that have no policy yet.
    """
    with translated(), conn.cursor(row_factory=scalar_row) as cursor:
        cursor.execute(query("follow_demand"), {"everybody": everybody})
        changed: int = cursor.fetchone() or 0
        return changed


def take_reporting(conn: psycopg.Connection, limit: int) -> list[tuple[str, int, SamplingPolicy]]:
    """Read policies that no broker has confirmed: (driver_id, version, policy).

    None while another transaction holds the lock. Publish them, then `confirm_reporting` in the
    same transaction, then commit.
    """
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(query("take_sampling"), {"limit": limit})
        return [
            (driver_id, version, SamplingPolicy(**report)) for driver_id, version, report in cursor
        ]


def confirm_reporting(conn: psycopg.Connection, taken: Sequence[tuple[str, int]]) -> None:
    """Mark (driver_id, version) as confirmed by a broker."""
    if taken:
        parameters = {
            "driver_ids": [driver_id for driver_id, _ in taken],
            "versions": [version for _, version in taken],
        }
        with translated():
            conn.execute(query("confirm_sampling"), parameters)


def renew_reporting(conn: psycopg.Connection) -> None:
    """Mark every policy as unconfirmed: a broker may have lost it."""
    with translated():
        conn.execute(query("mark_sampling_undelivered"))
