"""Factories for tests: each takes only what matters to the test.

RESTAURANT is restaurant 1 on Piazza della Signoria, CUSTOMER is 1.6 km to its north-east, and AWAY
is half way between. 0.001 degrees of latitude are 111 m.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from doorstep.store.records import INCOMING_COLUMNS, IncomingRow


class Place(NamedTuple):
    """A place, longitude first."""

    lon_deg: float
    lat_deg: float

    def north(self, metres: float) -> Place:
        return Place(self.lon_deg, self.lat_deg + metres / 111_195.0)


RESTAURANT = Place(11.2556, 43.7696)
CUSTOMER = Place(11.2700, 43.7800)
AWAY = Place(11.2628, 43.7748)


def now() -> datetime:
    return datetime.now(tz=UTC)


def make_fix(
    driver_id: str = "d1",
    seq: int | None = 1,
    *,
    n: int = 0,
    boot: str | None = "b1",
    place: Place = AWAY,
    fix_at: datetime | None = None,
    late_s: float = 0.0,
    **values: object,
) -> IncomingRow:
    """Make an incoming fix. `late_s` is the delay between the fix and its arrival."""
    received_at = values.pop("received_at", None) or now()
    assert isinstance(received_at, datetime)
    row: dict[str, object] = dict.fromkeys(INCOMING_COLUMNS)
    row |= {
        "n": n,
        "driver_id": driver_id,
        "boot": boot,
        "seq": seq,
        "fix_at": fix_at or received_at - timedelta(seconds=late_s),
        "received_at": received_at,
        "lon_deg": place.lon_deg,
        "lat_deg": place.lat_deg,
    }
    unknown = values.keys() - row.keys()
    assert not unknown, f"a fix has no {unknown}"
    row |= values
    return tuple(row[name] for name in INCOMING_COLUMNS)  # type: ignore[return-value]


def numbered(rows: list[IncomingRow]) -> list[IncomingRow]:
    """Number the fixes of a batch from 0."""
    return [(n, *row[1:]) for n, row in enumerate(rows)]


def make_walk(
    start_at: datetime,
    *legs: tuple[Place, float],
    driver_id: str = "d1",
    boot: str = "b1",
    first_seq: int = 1,
    every_s: float = 4.0,
    received_at: datetime | None = None,
) -> list[IncomingRow]:
    """Make a driver's fixes along legs of (place, seconds there), one fix every `every_s`."""
    rows: list[IncomingRow] = []
    at = start_at
    for place, stay_s in legs:
        for _ in range(max(1, round(stay_s / every_s))):
            rows.append(
                make_fix(
                    driver_id,
                    first_seq + len(rows),
                    boot=boot,
                    place=place,
                    fix_at=at,
                    received_at=received_at or now(),
                )
            )
            at += timedelta(seconds=every_s)
    return numbered(rows)
