"""What is read of the whole fleet: every driver's newest position, packed.

Rows come as JSON that the database writes, in one text: 5,000 of them cost Python a hundredth of
a second, and not a tenth.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    Text,
    any_,
    cast,
    extract,
    func,
    literal,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from doorstep.store.tables import driver_state

COMMITTED_WITHIN = timedelta(seconds=10)  # of its arrival, but when something was down
POSITION_COLUMNS = [
    "driver_id",
    "state",
    "lon_deg",
    "lat_deg",
    "fix_at_ms",
    "received_at_ms",
    "speed_mps",
    "heading_deg",
    "accuracy_m",
    "battery",
    "order_id",
    "duty",
]

_decode_rows = msgspec.json.Decoder(list[list[Any]]).decode


async def select_positions(
    conn: AsyncConnection, since_ms: int | None
) -> tuple[int, list[list[Any]]]:
    """Read every driver's newest position as rows of POSITION_COLUMNS."""
    everybody = _fleet()
    if since_ms is not None:
        # A fix arrives some time before it is committed: a batch, a restart of driver_events.
        since = datetime.fromtimestamp(since_ms / 1000, tz=UTC) - COMMITTED_WITHIN
        everybody = everybody.where(driver_state.c.received_at > since)
    return await _packed(conn, everybody)


async def select_fleet(
    conn: AsyncConnection, after: str, at_most: int
) -> tuple[int, list[list[Any]]]:
    """Read the next drivers after one as rows of POSITION_COLUMNS, by driver_id."""
    part = _fleet().where(driver_state.c.driver_id > after).order_by(driver_state.c.driver_id)
    return await _packed(conn, part.limit(at_most))


async def select_fleet_of(
    conn: AsyncConnection, driver_ids: Sequence[str]
) -> tuple[int, list[list[Any]]]:
    """Read these drivers as rows of POSITION_COLUMNS."""
    wanted = any_(literal(list(driver_ids), ARRAY(Text)))
    return await _packed(conn, _fleet().where(driver_state.c.driver_id == wanted))


def _fleet() -> Select[Any]:
    """Every driver's newest position, each as one JSON array of POSITION_COLUMNS."""
    return select(
        func.json_build_array(
            driver_state.c.driver_id,
            driver_state.c.state,
            driver_state.c.lon_deg,
            driver_state.c.lat_deg,
            _epoch_ms(driver_state.c.fix_at),
            _epoch_ms(driver_state.c.received_at),
            driver_state.c.speed_mps,
            driver_state.c.heading_deg,
            driver_state.c.accuracy_m,
            driver_state.c.battery,
            driver_state.c.order_id,
            driver_state.c.duty,
        ).label("row")
    ).where(driver_state.c.fix_at.is_not(None))


async def _packed(conn: AsyncConnection, rows: Select[Any]) -> tuple[int, list[list[Any]]]:
    """Read JSON arrays as one text: 5,000 rows cost Python a hundredth of a second, not a tenth."""
    part = rows.subquery("part")
    statement = select(
        _epoch_ms(func.clock_timestamp()), cast(func.json_agg(part.c.row), Text)
    ).select_from(part)
    at_ms, text = (await conn.execute(statement)).one()
    return int(at_ms), [] if text is None else _decode_rows(text)


def _epoch_ms(instant: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(func.round(extract("epoch", instant) * 1000), BigInteger)
