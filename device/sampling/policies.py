"""Whether a fix is news, compared with the last one sent. Pure functions of two fixes."""

from __future__ import annotations

from collections.abc import Mapping
from math import cos, hypot, radians
from typing import Any, NamedTuple

from doorstep.errors import MalformedFix
from doorstep.fix import instant_of
from doorstep.geo import M_PER_DEG
from doorstep.sampling import SamplingPolicy, predict


class ObservedFix(NamedTuple):
    """The fields of a fix that policies use. Speed is 0 without a heading."""

    at_s: float
    lon_deg: float
    lat_deg: float
    accuracy_m: float = 0.0
    speed_mps: float = 0.0
    heading_deg: float = 0.0


def observed_fix_of(fix: Mapping[str, Any]) -> ObservedFix | None:
    """Read a fix; None if it is malformed. The platform then rejects it with a reason."""
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


def is_news(policy: SamplingPolicy, last: ObservedFix, now: ObservedFix, pace: float = 1.0) -> bool:
    """Return whether the policy wants a fix sent. `pace` divides its durations."""
    match policy.mode:
        case "all":
            return True
        case "time":
            return now.at_s - last.at_s >= policy.every_s / pace
        case "distance":
            return moved_m(last, now) >= policy.distance_m
        case "accuracy":
            return moved_m(last, now) > last.accuracy_m + now.accuracy_m
        case "dead_reckoning":
            return off_by_m(last, now) > policy.off_by_m


def moved_m(one: ObservedFix, other: ObservedFix) -> float:
    """Distance of two fixes, in the plane: exact to 0.1 % within some kilometres."""
    return _distance_m(one.lon_deg, one.lat_deg, other)


def off_by_m(last: ObservedFix, now: ObservedFix) -> float:
    """Distance of a fix from the position predicted by the last one's speed and heading."""
    predicted = predict(
        last.lon_deg, last.lat_deg, last.speed_mps, last.heading_deg, now.at_s - last.at_s
    )
    return _distance_m(*predicted, now)


def _distance_m(lon_deg: float, lat_deg: float, other: ObservedFix) -> float:
    east = (other.lon_deg - lon_deg) * cos(radians((lat_deg + other.lat_deg) / 2))
    return hypot(east, other.lat_deg - lat_deg) * M_PER_DEG
