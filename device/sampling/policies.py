"""Is a fix news, to those who know the last one that went out? Pure functions of the two."""

from __future__ import annotations

from collections.abc import Mapping
from math import cos, hypot, radians
from typing import Any, NamedTuple

from doorstep.errors import MalformedFix
from doorstep.fix import instant_of
from doorstep.sampling import DEGREE_M, SamplingPolicy, predict


class ObservedFix(NamedTuple):
    """What a policy looks at. `speed_mps` and `heading_deg` as the fix itself says them."""

    at_s: float
    lon_deg: float
    lat_deg: float
    accuracy_m: float = 0.0
    speed_mps: float = 0.0
    heading_deg: float = 0.0


def observed_fix_of(fix: Mapping[str, Any]) -> ObservedFix | None:
    """Read a fix; None if it is none, and then the platform shall judge it."""
    try:
        heading = fix.get("heading_deg")
        return ObservedFix(
            instant_of(fix["fix_at"]).timestamp(),
            float(fix["lon_deg"]),
            float(fix["lat_deg"]),
            float(fix.get("accuracy_m") or 0.0),
            float(fix.get("speed_mps") or 0.0) if heading is not None else 0.0,
            float(heading or 0.0),
        )
    except (KeyError, TypeError, ValueError, MalformedFix):
        return None


def is_news(report: SamplingPolicy, last: ObservedFix, now: ObservedFix, pace: float = 1.0) -> bool:
    """Whether the mode wants a fix sent. At `pace` 10 a second of the rules is a tenth of ours."""
    match report.mode:
        case "all":
            return True
        case "time":
            return now.at_s - last.at_s >= report.every_s / pace
        case "distance":
            return moved_m(last, now) >= report.distance_m
        case "accuracy":
            return moved_m(last, now) > last.accuracy_m + now.accuracy_m
        case "dead_reckoning":
            return off_by_m(last, now) > report.off_by_m


def moved_m(one: ObservedFix, other: ObservedFix) -> float:
    """How far apart two fixes are, in the plane: good to a thousandth within some kilometres."""
    return _apart_m(one.lon_deg, one.lat_deg, other)


def off_by_m(last: ObservedFix, now: ObservedFix) -> float:
    """How far a fix lies from where the last one's speed and heading would have led."""
    predicted = predict(
        last.lon_deg, last.lat_deg, last.speed_mps, last.heading_deg, now.at_s - last.at_s
    )
    return _apart_m(*predicted, now)


def _apart_m(lon_deg: float, lat_deg: float, other: ObservedFix) -> float:
    east = (other.lon_deg - lon_deg) * cos(radians((lat_deg + other.lat_deg) / 2))
    return hypot(east, other.lat_deg - lat_deg) * DEGREE_M
