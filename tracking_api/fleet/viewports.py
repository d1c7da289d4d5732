"""Viewports: boxes in degrees, and how a request names one."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import Query

from doorstep.http.problems import UnusableRequest


class Box(NamedTuple):
    """A viewport, in degrees."""

    west: float
    south: float
    east: float
    north: float


EVERYWHERE = Box(-180.0, -90.0, 180.0, 90.0)

BoxQuery = Annotated[
    str | None,
    Query(max_length=200, description="west,south,east,north in degrees; else everywhere."),
]


def parse_box(text: str | None) -> Box:
    """Parse a viewport. Raises UnusableRequest."""
    if text is None:
        return EVERYWHERE
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        west = south = east = north = float("nan")
    if -180 <= west < east <= 180 and -90 <= south < north <= 90:
        return Box(west, south, east, north)
    complaint = {"loc": "query.bbox", "msg": "not west,south,east,north", "reason": "out_of_range"}
    raise UnusableRequest([complaint])
