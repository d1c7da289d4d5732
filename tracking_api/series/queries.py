"""Series of numbers and simulations in the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from psycopg.rows import TupleRow

from doorstep.errors import NotFound, UnknownDriver
from doorstep.store import commands
from doorstep.store.deadline import fetch_all, fetch_one, run_command
from doorstep.store.pool import Pool
from sql import query

SQL_FILE = "queries/series.sql"
MAX_POINTS = 5000
DRIVERS_PREFIX = "driver/"
DRIVER_UNITS = {"battery": "", "speed_mps": "m/s"}  # of each driver's own series, by measure
MAX_DRIVERS = 1001  # of a page: each has two series, and the first one may be past already

Measure = Literal["battery", "speed_mps"]
SimulationKind = Literal["couriers", "cities", "tickers"]
SIMULATION_KINDS: tuple[SimulationKind, ...] = ("couriers", "cities", "tickers")


class UnknownSeries(NotFound):
    """There is no such series."""

    problem = "unknown-series"


class SeriesName(NamedTuple):
    """A source's series, or (with `of_driver`) one of a driver's own."""

    of: str
    measure: str
    of_driver: bool = False

    def __str__(self) -> str:
        return f"{DRIVERS_PREFIX if self.of_driver else ''}{self.of}/{self.measure}"


class SeriesSummary(NamedTuple):
    """One series and its newest point."""

    name: str
    unit: str
    last_at: datetime | None
    last_value: float | None


class Sample(NamedTuple):
    """A series for a chart: `points` are (epoch ms, value), `stands_for` the number they sample."""

    unit: str
    stands_for: int
    points: list[tuple[float, float]]


class SimulationTarget(NamedTuple):
    """How many of a kind the simulators run. None: as many as they were started with."""

    kind: SimulationKind
    wanted: int | None
    set_at: datetime | None


class SeriesStore(Protocol):
    """Series and simulations. Errors are DoorstepErrors."""

    async def list_series(self, prefix: str, after: str, limit: int) -> list[SeriesSummary]: ...

    async def read_series(
        self, name: SeriesName, from_at: datetime, to_at: datetime, points: int
    ) -> Sample: ...

    async def has_series(self, name: SeriesName) -> bool: ...

    async def read_simulations(self) -> list[SimulationTarget]: ...

    async def set_simulation(self, kind: str, count: int) -> None: ...


@dataclass(frozen=True, slots=True)
class SeriesQueries:
    """The SeriesStore on PostgreSQL."""

    pool: Pool

    async def list_series(self, prefix: str, after: str, limit: int) -> list[SeriesSummary]:
        """Read a page of series with this prefix: of sources by name, then of drivers by id."""
        found: list[SeriesSummary] = []
        driver_id, _, measure = after.removeprefix(DRIVERS_PREFIX).partition("/")
        is_past_sources = after.startswith(DRIVERS_PREFIX) and bool(measure)
        if not is_past_sources:
            parameters = {"after": after, "prefix": prefix, "limit": limit}
            rows = await fetch_all(self.pool, query("read_series_page", SQL_FILE), parameters)
            found = [SeriesSummary(*row) for row in rows]
        if len(found) < limit:
            start = (driver_id, measure) if is_past_sources else ("", "")
            found += (await self._list_driver_series(prefix, start))[: limit - len(found)]
        return found

    async def _list_driver_series(self, prefix: str, after: tuple[str, str]) -> list[SeriesSummary]:
        """Read the drivers' own series after (driver_id, measure), enough of them for a page."""
        if not (prefix.startswith(DRIVERS_PREFIX) or DRIVERS_PREFIX.startswith(prefix)):
            return []
        driver_prefix, slash, measure_prefix = prefix.removeprefix(DRIVERS_PREFIX).partition("/")
        if DRIVERS_PREFIX.startswith(prefix):
            driver_prefix = measure_prefix = ""
        parameters = {
            "after": after[0],
            "prefix": driver_prefix,
            "is_whole_id": bool(slash and driver_prefix),
            "limit": MAX_DRIVERS,
        }
        rows = await fetch_all(self.pool, query("read_driver_series_page", SQL_FILE), parameters)
        return [
            SeriesSummary(
                str(SeriesName(driver_id, measure, of_driver=True)),
                DRIVER_UNITS[measure],
                fix_at,
                value,
            )
            for driver_id, fix_at, *values in rows
            for measure, value in zip(DRIVER_UNITS, values, strict=True)
            if (driver_id, measure) > after and measure.startswith(measure_prefix)
        ]

    async def read_series(
        self, name: SeriesName, from_at: datetime, to_at: datetime, points: int
    ) -> Sample:
        """Sample a range of a series in at most `points`. Raises UnknownSeries, UnknownDriver."""
        series_no, unit = await self._find(name)
        parameters = {
            "series_no": series_no,
            "driver_id": name.of if name.of_driver else None,
            "measure": name.measure,
            "from_at": from_at,
            "to_at": to_at,
            "points": points,
        }
        rows = await fetch_all(self.pool, query("read_series_sample", SQL_FILE), parameters)
        drawn: list[tuple[float, float]] = []
        stands_for = 0
        for low_at, low, high_at, high, count in rows:
            drawn += [
                (epoch_ms(at), value) for at, value in sorted({(low_at, low), (high_at, high)})
            ]
            stands_for += count
        return Sample(unit, stands_for, drawn)

    async def _find(self, name: SeriesName) -> tuple[int | None, str]:
        if name.of_driver:
            statement = query("find_driver_series", SQL_FILE)
            if await fetch_one(self.pool, statement, {"driver_id": name.of}) is None:
                raise UnknownDriver
            return None, DRIVER_UNITS[name.measure]
        row = await self._find_row(name)
        if row is None:
            raise UnknownSeries
        return row[0], row[1]

    async def has_series(self, name: SeriesName) -> bool:
        """Return whether a source has published this series."""
        return await self._find_row(name) is not None

    async def _find_row(self, name: SeriesName) -> TupleRow | None:
        return await fetch_one(self.pool, query("find_series", SQL_FILE), {"name": str(name)})

    async def read_simulations(self) -> list[SimulationTarget]:
        """Read how many of each kind the simulators are to run."""
        rows = await fetch_all(self.pool, query("read_simulations", SQL_FILE))
        targets = {kind: (wanted, set_at) for kind, wanted, set_at in rows}
        return [
            SimulationTarget(kind, *targets.get(kind, (None, None))) for kind in SIMULATION_KINDS
        ]

    async def set_simulation(self, kind: str, count: int) -> None:
        """Set how many of a kind the simulators are to run."""
        await run_command(self.pool, lambda conn: commands.set_simulation(conn, kind, count))


def epoch_ms(at: datetime) -> float:
    """Return an instant in epoch milliseconds, exact to the microsecond."""
    return round(at.timestamp() * 1000, 3)
