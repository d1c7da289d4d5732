"""Presence of a driver's device: what has arrived from it, and when. Pure."""

from __future__ import annotations

from typing import Literal

Presence = Literal["online", "stationary", "silent", "lost"]
SILENT_AFTER_S = 60  # two heartbeats of 30 s
LOST_AFTER_S = 300
MOVING_MPS = 0.5  # below it, GPS noise looks like movement


def presence_of(silent_s: float | None, speed_mps: float | None) -> Presence:
    """Return a device's presence. `silent_s`: time since anything arrived, None for never.

    The function fleet_tile_v1 of the database applies the same rule with these limits.
    """
    if silent_s is None or silent_s > LOST_AFTER_S:
        return "lost"
    if silent_s > SILENT_AFTER_S:
        return "silent"
    return "stationary" if speed_mps is not None and speed_mps < MOVING_MPS else "online"
