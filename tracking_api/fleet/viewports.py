"""Viewports: boxes in degrees, and how a request names one."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import Query

from doorstep.http.problems import UnusableRequest


class Box(NamedTuple):
    """A viewport, in degrees. One that crosses ±180° has its west above its east."""

    west: float
    south: float
    east: float
    north: float

    @property
    def width_deg(self) -> float:
        """From west to east."""
        return self.east - self.west + (360.0 if self.west > self.east else 0.0)


EVERYWHERE = Box(-180.0, -90.0, 180.0, 90.0)

BoxQuery = Annotated[
    str | None,
    Query(
        max_length=200,
        description="west,south,east,north in degrees (west > east across ±180°); else everywhere.",
    ),
]


def parse_box(text: str | None) -> Box:
    """Parse a viewport. Raises UnusableRequest."""
    if text is None:
        return EVERYWHERE
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        west = south = east = north = float("nan")
    if -180 <= west <= 180 and -180 <= east <= 180 and west != east and -90 <= south < north <= 90:
        return Box(west, south, east, north)
    complaint = {"loc": "query.bbox", "msg": "not west,south,east,north", "reason": "out_of_range"}
    raise UnusableRequest([complaint])
