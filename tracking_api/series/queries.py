"""Series and simulations as tracking_api reads and shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from sqlalchemy import Double, Integer, column, func, select
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from doorstep.errors import NotFound, UnknownDriver
from doorstep.http.instants import Instant
from doorstep.store.tables import driver_state, series, simulation_target

MOST_POINTS = 5000
DRIVERS = "driver/"
UNITS = {"battery": "", "speed_mps": "m/s"}  # a driver's own, in the order of their names
MEASURES = tuple(UNITS)

Measure = Literal["battery", "speed_mps"]
Kind = Literal["couriers", "cities", "tickers"]
MOST_OF = 5000  # of a kind
_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
Point = Annotated[tuple[float, float], WithJsonSchema(_PAIR)]


class UnknownSeries(NotFound):
    """Nobody has published such a series."""

    problem = "unknown-series"


class SeriesName(NamedTuple):
    """A source's series, or (with `of_driver`) one of a driver's own."""

    of: str
    measure: str
    of_driver: bool = False

    def __str__(self) -> str:
        return f"{DRIVERS if self.of_driver else ''}{self.of}/{self.measure}"


class SeriesEntry(BaseModel):
    """One series of the list. `last_at` is null where nothing has been published yet."""

    name: str
    unit: str
    last_at: Instant | None
    last_value: float | None


class SeriesPage(BaseModel):
    """A page of series. `next_after` is null on the last one."""

    series: list[SeriesEntry]
    next_after: str | None


class SeriesSample(BaseModel):
    """A series for a picture: `points` are [epoch ms, value], the oldest first.

    `stands_for`: how many points there are in the stretch; with more than were asked for, each
    part of it gives its lowest and its highest.
    """

    name: str
    unit: str
    from_at: Instant = Field(serialization_alias="from")
    to_at: Instant = Field(serialization_alias="to")
    stands_for: int
    points: list[Point]


class Simulation(BaseModel):
    """How many of a kind the simulators are to run. Null: as they were started."""

    kind: Kind
    wanted: int | None
    set_at: Instant | None


class Simulations(BaseModel):
    """Every kind."""

    simulations: list[Simulation]


class SimulationCount(BaseModel):
    """How many there are to be."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=0, le=MOST_OF)


def epoch_ms(at: datetime) -> float:
    """An instant as charts count it, exact to the microsecond."""
    return round(at.timestamp() * 1000, 3)


async def select_entries(
    conn: AsyncConnection, prefix: str, after: str, limit: int
) -> list[SeriesEntry]:
    """Read series whose names begin with `prefix`: of sources by name, then of drivers by id."""
    found: list[SeriesEntry] = []
    after_driver, _, after_measure = after.removeprefix(DRIVERS).partition("/")
    is_past_sources = after.startswith(DRIVERS) and bool(after_measure)
    if not is_past_sources:
        statement = (
            select(series.c.name, series.c.unit, series.c.last_at, series.c.last_value)
            .where(series.c.name > after, series.c.name.startswith(prefix, autoescape=True))
            .order_by(series.c.name)
            .limit(limit)
        )
        for name, unit, last_at, last_value in await conn.execute(statement):
            found.append(SeriesEntry(name=name, unit=unit, last_at=last_at, last_value=last_value))
    if len(found) < limit:
        start = (after_driver, after_measure) if is_past_sources else ("", "")
        found += (await _select_drivers(conn, prefix, start))[: limit - len(found)]
    return found


async def _select_drivers(
    conn: AsyncConnection, prefix: str, after: tuple[str, str]
) -> list[SeriesEntry]:
    """Read the drivers' own series after (driver_id, measure), enough of them for a page."""
    if not (prefix.startswith(DRIVERS) or DRIVERS.startswith(prefix)):
        return []
    driver_prefix, whole, measure_prefix = prefix.removeprefix(DRIVERS).partition("/")
    if DRIVERS.startswith(prefix):
        driver_prefix = measure_prefix = ""
    driver_id = driver_state.c.driver_id
    statement = (
        select(driver_id, driver_state.c.fix_at, driver_state.c.battery, driver_state.c.speed_mps)
        .where(driver_state.c.fix_at.is_not(None), driver_id >= after[0])
        .where(
            driver_id == driver_prefix
            if whole and driver_prefix
            else driver_id.startswith(driver_prefix, autoescape=True)
        )
        .order_by(driver_id)
        .limit(MOST_DRIVERS)
    )
    return [
        SeriesEntry(
            name=str(SeriesName(row.driver_id, measure, of_driver=True)),
            unit=UNITS[measure],
            last_at=row.fix_at,
            last_value=getattr(row, measure),
        )
        for row in await conn.execute(statement)
        for measure in MEASURES
        if (row.driver_id, measure) > after and measure.startswith(measure_prefix)
    ]


MOST_DRIVERS = 1001  # of a page: each has two series, the first may be over already


async def select_is_there(conn: AsyncConnection, name: SeriesName) -> bool:
    """Say whether a source has published this series."""
    statement = select(series.c.series_no).where(series.c.name == str(name))
    return (await conn.execute(statement)).one_or_none() is not None


async def select_sample(
    conn: AsyncConnection, name: SeriesName, from_at: datetime, to_at: datetime, points: int
) -> SeriesSample:
    """Read a stretch of a series, at most `points` of it. Raises UnknownSeries, UnknownDriver."""
    number, unit = await _find(conn, name)
    rows = func.series__downsample_v1(
        number, name.of if name.of_driver else None, name.measure, from_at, to_at, points
    ).table_valued(
        column("low_at", TIMESTAMP(timezone=True)),
        column("low", Double),
        column("high_at", TIMESTAMP(timezone=True)),
        column("high", Double),
        column("point_count", Integer),
        name="sample",
    )
    found: Sequence[Any] = (await conn.execute(select(rows))).all()
    drawn: list[tuple[float, float]] = []
    for row in found:
        ends = {(row.low_at, row.low), (row.high_at, row.high)}
        drawn += [(epoch_ms(at), value) for at, value in sorted(ends)]
    return SeriesSample(
        name=str(name),
        unit=unit,
        from_at=from_at,
        to_at=to_at,
        stands_for=sum(row.point_count for row in found),
        points=drawn,
    )


async def _find(conn: AsyncConnection, name: SeriesName) -> tuple[int | None, str]:
    if name.of_driver:
        known = select(driver_state.c.driver_id).where(driver_state.c.driver_id == name.of)
        if (await conn.execute(known)).one_or_none() is None:
            raise UnknownDriver
        return None, UNITS[name.measure]
    statement = select(series.c.series_no, series.c.unit).where(series.c.name == str(name))
    row = (await conn.execute(statement)).one_or_none()
    if row is None:
        raise UnknownSeries
    return row.series_no, row.unit


async def select_simulations(conn: AsyncConnection) -> list[Simulation]:
    """Read how many of each kind are wanted."""
    found = {row.kind: row for row in await conn.execute(select(simulation_target))}
    kinds: tuple[Kind, ...] = ("couriers", "cities", "tickers")
    return [
        Simulation(
            kind=kind,
            wanted=found[kind].target_count if kind in found else None,
            set_at=found[kind].set_at if kind in found else None,
        )
        for kind in kinds
    ]
