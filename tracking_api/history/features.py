"""A driver's track inside one assignment, as GeoJSON. Pure.

A jump (over 70 m/s) depends on neighbouring fixes, so it is computed when a track is read: the
point is kept and flagged, and the line leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from doorstep.geo import EARTH_RADIUS_M, distance_m
from doorstep.http.instants import format_instant
from tracking_api.history.fixes import Floats, PackedFixes
from tracking_api.track.visibility import Position

JUMP_MPS = 70.0  # 252 km/h: no courier
MAX_POINTS = 5000  # five and a half hours at one every 4 s


class Jumps:
    """Flags jumps among positions given one by one, in time order.

    A position is a jump if it cannot be reached from the line so far. Two jumps in a row that
    agree with each other are the driver's real place: the line continues from there. A second copy
    of one fix confirms nothing.
    """

    def __init__(self) -> None:
        self._on_line: Position | None = None
        self._jumped: Position | None = None  # the previous position, if it was a jump

    def is_jump(self, position: Position) -> bool:
        """Classify the next position."""
        reachable = self._on_line is None or not _too_fast(self._on_line, position)
        if reachable or (self._jumped is not None and _agree(self._jumped, position)):
            self._on_line, self._jumped = position, None
            return False
        self._jumped = position
        return True


def flag_jumps(trail: Sequence[Position]) -> list[bool]:
    """Return for each position of a trail (oldest first) whether it is a jump, as Jumps does."""
    flags = [False] * len(trail)
    lon, lat, at_s = _columns(trail)
    fast_steps = _fast_steps(lon, lat, at_s)
    if not any(fast_steps):
        return flags
    places = list(zip(lon.tolist(), lat.tolist(), strict=True))
    seconds = at_s.tolist()
    on_line = 0  # index of the last position on the line
    for n in range(1, len(trail)):
        after_jump = on_line != n - 1
        too_fast = fast_steps[n - 1]
        if after_jump:
            apart_m = distance_m(places[on_line], places[n])
            too_fast = apart_m > JUMP_MPS * abs(seconds[n] - seconds[on_line])
        if too_fast and after_jump:  # two jumps that agree are the driver's real place
            too_fast = seconds[n - 1] >= seconds[n] or fast_steps[n - 1]
        flags[n] = too_fast
        if not too_fast:
            on_line = n
    return flags


def _columns(trail: Sequence[Position]) -> tuple[Floats, Floats, Floats]:
    """Return longitudes, latitudes and epoch seconds."""
    if isinstance(trail, PackedFixes):
        return trail.places[:, 0], trail.places[:, 1], trail.instants_us[:, 0] / 1e6
    columns = [(one.lon_deg, one.lat_deg, one.fix_at.timestamp()) for one in trail]
    lon, lat, at_s = np.array(columns, np.float64).reshape(-1, 3).T
    return lon, lat, at_s


def _fast_steps(lon: Floats, lat: Floats, at_s: Floats) -> list[bool]:
    """Return for each step between neighbours whether it is too fast: `_too_fast`, vectorized."""
    lon, lat = np.radians(lon), np.radians(lat)
    half = np.sin(np.diff(lat) / 2) ** 2
    half += np.cos(lat[:-1]) * np.cos(lat[1:]) * np.sin(np.diff(lon) / 2) ** 2
    step_m = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(1.0, half)))
    fast: list[bool] = (step_m > JUMP_MPS * np.abs(np.diff(at_s))).tolist()
    return fast


def feature_collection(trail: Sequence[Position], *, truncated: bool = False) -> dict[str, Any]:
    """Return a trail (oldest first) as one line without the jumps, and a point per fix."""
    flags = flag_jumps(trail)
    features = [point_feature(one, jump) for one, jump in zip(trail, flags, strict=True)]
    line = [one.lon_lat for one, jump in zip(trail, flags, strict=True) if not jump]
    if len(line) > 1:
        features.insert(
            0,
            {
                "type": "Feature",
                "geometry": {"type": "LineString", "coordinates": line},
                "properties": {"points": len(line), "jumps": sum(flags)},
            },
        )
    return {"type": "FeatureCollection", "features": features, "truncated": truncated}


def point_feature(position: Position, jump: bool) -> dict[str, Any]:
    """Return one fix as a GeoJSON feature."""
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": position.lon_lat},
        "properties": {
            "fix_at": format_instant(position.fix_at),
            "received_at": format_instant(position.received_at),
            "accuracy_m": position.accuracy_m,
            "speed_mps": position.speed_mps,
            "heading_deg": position.heading_deg,
            "jump": jump,
        },
    }


def _agree(a: Position, b: Position) -> bool:
    return a.fix_at < b.fix_at and not _too_fast(a, b)


def _too_fast(a: Position, b: Position) -> bool:
    apart_m = distance_m(a.lon_lat, b.lon_lat)
    return apart_m > JUMP_MPS * abs((b.fix_at - a.fix_at).total_seconds())
