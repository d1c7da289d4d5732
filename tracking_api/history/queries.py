"""The past in the database: fixes of an order, of a driver, of the drivers in a viewport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from psycopg import AsyncConnection

from doorstep.errors import UnknownDriver
from doorstep.store.deadline import fetch_all, fetch_rows, run_command
from doorstep.store.pool import Pool
from sql import query
from tracking_api.fleet.viewports import Box
from tracking_api.history.chunks import Chunk
from tracking_api.history.fixes import FIRST_SEQ, FixKey, HistoricFix, PackedFixes
from tracking_api.history.pacing import off_the_loop
from tracking_api.track.visibility import Position

SQL_FILE = "queries/history.sql"
MAX_REPLAYED_DRIVERS = 500
REPLAY_STEPS = 240
PACKED_FIX_BYTES = 10


class Replay(NamedTuple):
    """Past positions of several drivers: (driver_id, fix_at, lon_deg, lat_deg), ordered so."""

    step_s: float
    driver_ids: list[str]
    more: bool  # more drivers than MAX_REPLAYED_DRIVERS are in the box
    fixes: Sequence[tuple[str, datetime, float, float]]


class HistoryStore(Protocol):
    """The past. Errors are DoorstepErrors."""

    async def read_order_history(
        self,
        order_id: UUID,
        from_at: datetime | None,
        to_at: datetime | None,
        *,
        limit: int,
    ) -> list[Position] | None: ...

    async def read_driver_history(
        self,
        driver_id: str,
        from_at: datetime,
        to_at: datetime,
        limit: int,
        after: FixKey | None = None,
    ) -> Sequence[HistoricFix]: ...

    async def read_replay(self, box: Box, from_at: datetime, to_at: datetime) -> Replay: ...


@dataclass(frozen=True, slots=True)
class HistoryQueries:
    """The HistoryStore on PostgreSQL."""

    pool: Pool

    async def read_order_history(
        self,
        order_id: UUID,
        from_at: datetime | None,
        to_at: datetime | None,
        *,
        limit: int,
    ) -> list[Position] | None:
        """Read the current assignment's fixes for staff, oldest first. None: no such order."""
        parameters = {
            "order_id": order_id,
            "from_at": from_at,
            "to_at": to_at,
            "limit": limit,
        }
        rows = await fetch_all(self.pool, query("read_order_history", SQL_FILE), parameters)
        if not rows:
            return None
        return await off_the_loop(len(rows), _positions, rows)

    async def read_driver_history(
        self,
        driver_id: str,
        from_at: datetime,
        to_at: datetime,
        limit: int,
        after: FixKey | None = None,
    ) -> Sequence[HistoricFix]:
        """Read a page of a driver's fixes, oldest first. Raises UnknownDriver."""

        async def read(conn: AsyncConnection[Any]) -> Sequence[HistoricFix]:
            found = await _driver_fixes(conn, driver_id, from_at, to_at, limit, after)
            if not found:
                cursor = await conn.execute(
                    query("driver_exists", SQL_FILE), {"driver_id": driver_id}
                )
                if await cursor.fetchone() != (True,):
                    raise UnknownDriver
            return found

        return await run_command(self.pool, read)

    async def read_replay(self, box: Box, from_at: datetime, to_at: datetime) -> Replay:
        """Read the past positions of the drivers who are in a box now."""
        step_s = max(1.0, (to_at - from_at).total_seconds() / REPLAY_STEPS)
        limit = MAX_REPLAYED_DRIVERS + 1
        statement = query("read_drivers_in_box", SQL_FILE)
        rows = await fetch_all(self.pool, statement, {**box._asdict(), "limit": limit})
        driver_ids = [driver_id for (driver_id,) in rows[:MAX_REPLAYED_DRIVERS]]
        parameters = {
            "driver_ids": driver_ids,
            "from_at": from_at,
            "to_at": to_at,
            "step_s": step_s,
        }
        fixes = await fetch_all(self.pool, query("read_fleet_history", SQL_FILE), parameters)
        return Replay(step_s, driver_ids, len(rows) > MAX_REPLAYED_DRIVERS, fixes)


def _positions(rows: Sequence[Sequence[Any]]) -> list[Position]:
    return [Position(*row) for row in rows if row[0] is not None]


async def _driver_fixes(
    conn: AsyncConnection[Any],
    driver_id: str,
    from_at: datetime,
    to_at: datetime,
    limit: int,
    after: FixKey | None,
) -> Sequence[HistoricFix]:
    """Read day by day: packed fixes are unpacked before LIMIT applies."""
    key = after or FixKey(from_at, "", FIRST_SEQ)
    statement = query("read_driver_history", SQL_FILE)
    found: Sequence[HistoricFix] = []
    since = max(from_at, key.fix_at)
    while since < to_at and len(found) < limit:
        until = min(to_at, _next_day(since))
        parameters = {
            "driver_id": driver_id,
            "from_at": since,
            "to_at": until,
            "after_fix_at": key.fix_at,
            "after_boot": key.boot,
            "after_seq": key.seq,
            "limit": limit - len(found),
        }
        cursor = await conn.execute(statement, parameters, binary=True)
        rows = await fetch_rows(cursor)
        fixes = sum(len(row[-1]) // PACKED_FIX_BYTES if row[-1] else 1 for row in rows)
        page = await off_the_loop(fixes, _fixes_of, rows, since, until, key, limit - len(found))
        found = [*found, *page] if found else page  # one day's may be columns
        since = until
    return found


def _fixes_of(
    rows: Sequence[Sequence[Any]], since: datetime, until: datetime, after: FixKey, limit: int
) -> Sequence[HistoricFix]:
    """Return the fixes of a day's rows: either fixes, or chunks with more than the range."""
    if not rows or rows[0][-1] is None:
        return [HistoricFix(*row[:9]) for row in rows]
    chunks = [Chunk(row[0], row[7], row[9], row[10], row[8], row[11]) for row in rows]
    return PackedFixes.of(chunks, since, until, after)[:limit]


def _next_day(at: datetime) -> datetime:
    return datetime.combine(at.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
