"""Series of numbers and simulations as the API takes and returns them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from doorstep.http.instants import Instant
from tracking_api.series.queries import SimulationKind

MAX_SIMULATED = 5000  # of a kind
_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
Point = Annotated[tuple[float, float], WithJsonSchema(_PAIR)]


class SeriesEntry(BaseModel):
    """One series of the list. `last_at` is null if nothing has been published yet."""

    name: str
    unit: str
    last_at: Instant | None
    last_value: float | None


class SeriesPage(BaseModel):
    """A page of series. `next_after` is null on the last one."""

    series: list[SeriesEntry]
    next_after: str | None


class SeriesSample(BaseModel):
    """A series for a chart: `points` are [epoch ms, value], the oldest first.

    `stands_for`: the number of points in the range. If it exceeds what was requested, each part of
    the range is represented by its lowest and its highest.
    """

    name: str
    unit: str
    from_at: Instant = Field(serialization_alias="from")
    to_at: Instant = Field(serialization_alias="to")
    stands_for: int
    points: list[Point]


class Simulation(BaseModel):
    """How many of a kind the simulators run. Null: as many as they were started with."""

    kind: SimulationKind
    wanted: int | None
    set_at: Instant | None


class Simulations(BaseModel):
    """Every kind."""

    simulations: list[Simulation]


class SimulationCount(BaseModel):
    """How many to run."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=0, le=MAX_SIMULATED)
