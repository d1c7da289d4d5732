"""Days of the past and what is read of them, for tests of packing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

from doorstep.store.compaction import Compacted, Compactor
from tests.database import Database
from tests.factories import AWAY
from tests.sql.fleet import Fleet

DAY = datetime.now(tz=UTC).date() - timedelta(days=10)
MIDNIGHT = datetime.combine(DAY, time(), UTC)
MAX_SEQ = 4611686018427387904
KEPT = (
    "fix_at, boot, seq, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg, "
    "quarantine, battery"
)
PUT = f"COPY fix_history (driver_id, {KEPT}) FROM STDIN"
BETWEEN = f"""
    SELECT {KEPT} FROM fix_history__between_v1(%s, %s, %s) ORDER BY fix_at, boot, seq
"""
ROUND_TRIP = f"""
    SELECT {", ".join("u." + name for name in KEPT.split(", "))}
    FROM fix_chunk__pack(%s, ARRAY['d1']) c CROSS JOIN LATERAL fix_chunk__unpack(c) u
    ORDER BY u.fix_at, u.boot, u.seq
"""
SECOND = timedelta(seconds=1)
TO_10_CM = 0.1 / 111_320  # degrees of latitude

Row = tuple[Any, ...]


def old_fix(n: int, **values: Any) -> Row:
    """The n-th fix of a walk on DAY, one every 4 s."""
    fix_at = values.pop("fix_at", MIDNIGHT + timedelta(hours=9, seconds=4 * n, milliseconds=n % 7))
    row = {
        "fix_at": fix_at,
        "boot": "b1",
        "seq": n + 1,
        "received_at": fix_at + timedelta(milliseconds=300),
        "lon_deg": round(AWAY.lon_deg + n * 1e-5, 7),
        "lat_deg": round(AWAY.lat_deg + n * 2e-6, 7),
        "accuracy_m": 4.5,
        "speed_mps": 3.1,
        "heading_deg": 271.0,
        "quarantine": None,
        "battery": 0.8 - n // 300 / 100,
    }
    return tuple((row | values).values())


def put(fleet: Fleet, rows: Sequence[Row], driver_id: str = "d1") -> None:
    """Store fixes as if they had come when that day was young."""
    fleet.run("SELECT fix_history__ensure_partitions_v1(%s, %s)", DAY, DAY)
    put_by_default(fleet, rows, driver_id)


def put_by_default(fleet: Fleet, rows: Sequence[Row], driver_id: str = "d1") -> None:
    """Store fixes, and make no partition for them."""
    with fleet.conn.cursor() as cursor, cursor.copy(PUT) as copy:
        for row in rows:
            copy.write_row((driver_id, *row))


def read(fleet: Fleet, driver_id: str = "d1") -> list[Row]:
    rows = fleet.run(BETWEEN, driver_id, MIDNIGHT, MIDNIGHT + timedelta(days=1))
    return [tuple(row.values()) for row in rows]


def is_about(packed: Row, row: Row) -> bool:
    """Whether a fix is what it was, to the precision that is promised."""
    *same, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg = (
        packed[i] for i in (0, 1, 2, 9, 3, 4, 5, 6, 7, 8)
    )
    turned = abs((heading_deg or 0) - (row[8] or 0))
    return (
        same == [row[0], row[1], row[2], row[9]]
        and abs((received_at - row[3]).total_seconds()) <= 0.0501
        and abs(lon_deg - row[4]) < TO_10_CM
        and abs(lat_deg - row[5]) < TO_10_CM
        and [one is None for one in packed] == [one is None for one in row]
        and abs((packed[10] or 0) - (row[10] or 0)) <= 0.00501
        and abs((accuracy_m or 0) - (row[6] or 0)) <= 0.0501
        and abs((speed_mps or 0) - (row[7] or 0)) <= 0.0501
        and min(turned, 360 - turned) <= 0.501
    )


def compact(database: Database, unread: datetime | None = None, role: str = "") -> Compacted:
    with database.connect(role or "doorstep_owner") as conn:
        compactor = Compactor(conn)
        return compactor.run(compactor.plan(unread))


def held_by(database: Database, unread: datetime | None = None) -> str:
    with database.connect() as conn:
        plan = Compactor(conn).plan(unread)
    assert plan.days == []
    return plan.held_by
