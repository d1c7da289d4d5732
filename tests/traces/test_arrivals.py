"""The benchmark's rule for an arrival agrees with the reference model on every recorded drive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bench.recorded_drives import Drive, read_drives
from bench.recordings.arrivals import Fixes, proves_arrival
from bench.recordings.traces import Place
from tests.property import records
from tests.property.model import World
from tests.traces.marks import needs_traces

pytestmark = needs_traces
GOAL_RUNS = 40
THINNED_TO = (1, 3, 6, 12)  # every n-th fix
SHIFTS_M = (0.0, 45.0)  # at and near the place


def model_proves_arrival(fixes: Fixes, place: Place, from_s: float, to_s: float) -> bool:
    """Evaluate the model for an order whose restaurant is at the place."""
    begins_at, ends_at = (datetime.fromtimestamp(at_s, UTC) for at_s in (from_s, to_s))
    world = World(areas=())
    world.fixes["d1"] = {
        records.Fix("d1", "b", seq, at, at, records.Place(fix["lon_deg"], fix["lat_deg"]))
        for seq, fix in enumerate(fixes, 1)
        for at in [datetime.fromtimestamp(fix["fix_at"] / 1000, UTC)]
        if from_s <= fix["fix_at"] / 1000 <= to_s and abs(fix["lat_deg"] - place.lat_deg) < 0.002
    }
    restaurant = records.Place(*place)
    customer = records.Place(place.lon_deg, place.lat_deg + 0.5)
    order = records.Order(restaurant, customer, records.Policy(), begins_at)
    assignment = records.Assignment("d1", begins_at, ends_at + timedelta(seconds=1))
    return "at_restaurant" in world.proved(order, assignment)


def test_proves_arrival__every_recorded_arrival__agrees_with_the_model() -> None:
    drives: list[Drive] = [one for drives in read_drives(GOAL_RUNS).values() for one in drives]
    answers = []
    for drive in drives:
        for name, place, from_s, to_s in drive.arrivals:
            for every in THINNED_TO:
                for shift_m in SHIFTS_M:
                    fixes = drive.fixes[::every]
                    moved = Place(place.lon_deg, place.lat_deg + shift_m / 111_195)
                    found = proves_arrival(fixes, moved, from_s, to_s)
                    assert found == model_proves_arrival(fixes, moved, from_s, to_s), name
                    answers.append(found)
    assert answers.count(True) > 50
    assert answers.count(False) > 50
