"""`python -m simulators.couriers.sample > track.gpx`: one delivery as a GPX track, for `replay`.

A ride to a restaurant, the wait, the ride to a customer and the hand-over, with a fix of a phone
every 4 s. The same seed gives the same track.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from xml.sax.saxutils import escape

import data
from data.cities import CityFolder, bundled_city
from simulators.couriers.demand import Demand, place_restaurants, read_restaurants
from simulators.couriers.motion import WALK_MPS, Course, Vehicle, door_of
from simulators.couriers.receiver import Receiver
from simulators.couriers.streets import Streets, load_streets

REPORT_EVERY_S = 4
STARTS_AT = datetime(2026, 1, 16, 19, 0, tzinfo=UTC)
NAMESPACES = (
    'xmlns="http://www.topografix.com/GPX/1/1" xmlns:d="https://doorstep.example/gpx/fix/1"'
)


def deliver(streets: Streets, city: CityFolder, rng: random.Random) -> tuple[str, Course]:
    """Draw a delivery: (the restaurant's name, the courier's course)."""
    restaurants = place_restaurants(streets, read_restaurants(city.restaurants))
    demand = Demand(streets, restaurants, rng, city.buildings)
    start, restaurant = demand.restaurant().place, demand.restaurant()
    door = demand.door(restaurant)
    course = Course(0.0, start.point)
    course.ride(streets.way(start, restaurant.place), Vehicle.SCOOTER, rng)
    course.go(door_of(restaurant.place, restaurant.point, rng), WALK_MPS)
    course.wait(demand.pickup_s())
    course.ride(streets.way(streets.nearest(*course.end), door.place), Vehicle.SCOOTER, rng)
    course.go(door_of(door.place, door.point, rng), WALK_MPS)
    course.wait(demand.dropoff_s())
    return restaurant.name, course


def gpx_lines(streets: Streets, name: str, course: Course, rng: random.Random) -> Iterator[str]:
    """Format a course, with the phone's errors, as GPX."""
    receiver = Receiver(rng)
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<gpx version="1.1" creator="simulators.couriers.sample" {NAMESPACES}>'
    yield f"<metadata><copyright author={data.OSM_ATTRIBUTION!r}/></metadata>"
    yield f"<trk><name>{escape(name)}</name><trkseg>"
    for second in range(0, int(course.end_s) + 1, REPORT_EVERY_S):
        here = course.at(second)
        x, y, accuracy_m = receiver.observe(here.x, here.y, second)
        lon_deg, lat_deg = streets.to_lon_lat(x, y)
        at = (STARTS_AT + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield (
            f'<trkpt lat="{lat_deg:.7f}" lon="{lon_deg:.7f}"><time>{at}</time><extensions>'
            f"<d:accuracy>{accuracy_m:.1f}</d:accuracy><d:speed>{here.speed_mps:.2f}</d:speed>"
            "</extensions></trkpt>"
        )
    yield "</trkseg></trk></gpx>"


def main() -> int:
    """Run the command; the return value is the exit status."""
    parser = argparse.ArgumentParser(prog="simulators.couriers.sample", description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="selects the delivery (7)")
    rng = random.Random(parser.parse_args().seed)
    city = bundled_city()
    streets = load_streets(city)
    name, course = deliver(streets, city, rng)
    print("\n".join(gpx_lines(streets, f"A delivery from {name}", course, rng)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
