"""Where a recorded trace was between two instants."""

from __future__ import annotations

from statistics import median

from bench.recordings.labels import Position
from bench.recordings.traces import Place, Trace, metres, moved

USABLE_M = 200.0


def place_of(trace: Trace, position: Position) -> Place:
    """Return the median place of the usable fixes in a span of time, or of all if none is."""
    inside = [
        fix for fix in trace.fixes if position.from_s <= fix.fix_s - trace.begins_s <= position.to_s
    ]
    usable = [fix for fix in inside if fix.accuracy_m is None or fix.accuracy_m <= USABLE_M]
    places = [fix.place for fix in usable or inside]
    place = Place(
        median(place.lon_deg for place in places), median(place.lat_deg for place in places)
    )
    return moved(place, position.east_m, 0.0)


def nearest_m(trace: Trace, place: Place, assigned_s: float) -> float:
    """Return the least distance of the trace's fixes to a place since `assigned_s`."""
    return min(
        metres(fix.place, place) for fix in trace.fixes if fix.fix_s >= trace.begins_s + assigned_s
    )
