"""The way a driver went inside one assignment, as GeoJSON.

A jump (over 70 m/s) depends on its neighbours, so it is worked out when the track is read: the
point is kept and flagged, and the line leaves it out. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shapely import LineString, Point
from shapely.geometry import mapping

from doorstep.geo import distance_m
from doorstep.http.instants import format_instant
from tracking_api.track.visibility import Position

JUMP_MPS = 70.0  # 252 km/h: no courier
MAX_POINTS = 5000  # five and a half hours at one every 4 s


class Jumps:
    """Says of one spot after the other, in time order, whether nobody could have got there from
    the line so far.

    Two jumped spots in a row that agree with each other are where the driver really is: the line
    goes on from there. A second copy of one fix is no second witness.
    """

    def __init__(self) -> None:
        self._on_line: Position | None = None
        self._jumped: Position | None = None  # the spot before this one, if it was a jump

    def is_jump(self, spot: Position) -> bool:
        """Judge the next spot."""
        reachable = self._on_line is None or not _too_fast(self._on_line, spot)
        if reachable or (self._jumped is not None and _agree(self._jumped, spot)):
            self._on_line, self._jumped = spot, None
            return False
        self._jumped = spot
        return True


def flag_jumps(trail: Sequence[Position]) -> list[bool]:
    """Say of each spot of a trail (oldest first) whether it is a jump."""
    jumps = Jumps()
    return [jumps.is_jump(spot) for spot in trail]


def feature_collection(trail: Sequence[Position], *, truncated: bool = False) -> dict[str, Any]:
    """Draw a trail (oldest first): one line without the jumps, and every point with its fix."""
    flags = flag_jumps(trail)
    features = [point_feature(spot, jump) for spot, jump in zip(trail, flags, strict=True)]
    line = [spot.lon_lat for spot, jump in zip(trail, flags, strict=True) if not jump]
    if len(line) > 1:
        features.insert(
            0,
            {
                "type": "Feature",
                "geometry": mapping(LineString(line)),
                "properties": {"points": len(line), "jumps": sum(flags)},
            },
        )
    return {"type": "FeatureCollection", "features": features, "truncated": truncated}


def point_feature(spot: Position, jump: bool) -> dict[str, Any]:
    """One fix as a GeoJSON feature."""
    return {
        "type": "Feature",
        "geometry": mapping(Point(spot.lon_lat)),
        "properties": {
            "fix_at": format_instant(spot.fix_at),
            "received_at": format_instant(spot.received_at),
            "accuracy_m": spot.accuracy_m,
            "speed_mps": spot.speed_mps,
            "heading_deg": spot.heading_deg,
            "jump": jump,
        },
    }


def _agree(a: Position, b: Position) -> bool:
    return a.fix_at < b.fix_at and not _too_fast(a, b)


def _too_fast(a: Position, b: Position) -> bool:
    apart_m = distance_m(a.lon_lat, b.lon_lat)
    return apart_m > JUMP_MPS * abs((b.fix_at - a.fix_at).total_seconds())
