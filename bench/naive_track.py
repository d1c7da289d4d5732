"""GET /track of the simple implementations: the members of tracking_api's answer, plainly.

One statement each for the order, its events and its notices, and one for the start of the ride when
the estimate is computed. The estimate and the way ahead come from the package `eta`, as its user
would call it, and are kept in a dict by order, event and fix. Pydantic models validate and
serialize the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel

from data.cities import list_cities
from eta.estimate import Estimate, Estimator, Observation, Task
from eta.features import City
from eta.model import EtaModel, Phase
from eta.streets import Point, load_streets
from eta.travel_time_cache import TravelTimeCache

ORDER = """
SELECT o.order_id, o.state::text AS state, o.assignment_no, o.order_seq,
    r.city, r.name AS restaurant_name, r.lon_deg AS restaurant_lon_deg,
    r.lat_deg AS restaurant_lat_deg, o.lon_deg AS destination_lon_deg,
    o.lat_deg AS destination_lat_deg, p.pace, d.promised_to, n.pin, a.driver_id, a.assigned_at,
    s.fix_at, s.received_at, s.lon_deg, s.lat_deg, s.accuracy_m, s.speed_mps, s.heading_deg,
    clock_timestamp() AS now
FROM orders o
JOIN restaurant r USING (restaurant_id)
JOIN policy p USING (policy_id)
LEFT JOIN order_detail d ON d.order_id = o.order_id
LEFT JOIN order_pin n ON n.order_id = o.order_id
LEFT JOIN assignment a ON a.order_id = o.order_id AND a.ended_at IS NULL
LEFT JOIN driver_state s ON s.driver_id = a.driver_id
WHERE o.order_id = :order_id
"""
EVENTS = """
SELECT order_seq, state::text AS state, source::text AS source, occurred_at, assignment_no
FROM order_event WHERE order_id = :order_id ORDER BY order_seq
"""
NOTICES = """
SELECT kind::text AS kind, occurred_at FROM order_notice
WHERE order_id = :order_id AND (kind = 'late' OR assignment_no = :assignment_no)
ORDER BY order_seq
"""
START_OF_RIDE = """
SELECT fix_at, lon_deg, lat_deg FROM fix_history
WHERE driver_id = :driver_id AND quarantine IS NULL
    AND fix_at >= greatest(:began_at, now() - interval '5 min') AND fix_at < :fix_at
ORDER BY fix_at LIMIT 1
"""

PHASES = {
    "assigned": Phase.TO_RESTAURANT,
    "at_restaurant": Phase.AT_RESTAURANT,
    "picked_up": Phase.TO_CUSTOMER,
    "arriving": Phase.TO_CUSTOMER,
}
FRESHNESS = {"live": 15, "recent": 60, "stale": 300}
MAX_ARRIVALS = 20_000

Row = Mapping[str, Any]


class Geometry(BaseModel):
    """A GeoJSON point."""

    type: str = "Point"
    coordinates: tuple[float, float]


class Way(BaseModel):
    """A GeoJSON line."""

    type: str = "LineString"
    coordinates: list[tuple[float, float]]


class Properties(BaseModel):
    """A fix's instants and accuracy, and its age."""

    fix_at: datetime
    received_at: datetime
    accuracy_m: float | None
    speed_mps: float | None
    heading_deg: float | None
    age_s: float
    freshness: str


class PositionFeature(BaseModel):
    """A position as a GeoJSON feature."""

    type: str = "Feature"
    geometry: Geometry
    properties: Properties


class Arrival(BaseModel):
    """An estimated arrival."""

    arrives_at: datetime
    p10_at: datetime
    p90_at: datetime
    as_of: datetime
    seconds: int
    distance_m: int
    speed_mps: float
    route: str = "road"
    speeds: str = "assumed"
    basis: str = "the way by road at assumed speeds"


class Place(BaseModel):
    """A place with its name, if it has one."""

    lon_deg: float
    lat_deg: float
    name: str | None = None


class OrderEvent(BaseModel):
    """One step of an order."""

    order_seq: int
    state: str
    source: str
    occurred_at: datetime


class FullTrack(BaseModel):
    """The members of tracking_api's TrackAnswer."""

    order_id: UUID
    state: str
    assignment_no: int
    order_seq: int
    city: str | None
    late_by_s: int | None
    nearby_at: datetime | None
    position: PositionFeature | None
    eta: Arrival | None
    route: Way | None
    other_delivery_first: bool = False
    restaurant: Place
    destination: Place
    events: list[OrderEvent]
    is_shared: bool = False
    pin: str | None
    ended_reason: str | None = None
    photo: bool = False


class Computed(NamedTuple):
    """An estimate and its way ahead."""

    estimate: Estimate
    way: list[Point]


class Arrivals:
    """Estimates by road, kept by order, event and fix."""

    def __init__(self) -> None:
        self._estimators = {
            city.name: Estimator(TravelTimeCache(City(load_streets(city)), EtaModel()))
            for city in list_cities(None)
        }
        self._kept: dict[tuple[UUID, int, datetime], Computed] = {}

    def kept(self, order: Row) -> Computed | None:
        """Return the estimate of an order's newest event and fix."""
        return self._kept.get((order["order_id"], order["order_seq"], order["fix_at"]))

    def compute(self, order: Row, began_at: datetime | None, start: Row | None) -> Computed | None:
        """Estimate an arrival. None without a position, and where the streets have no route."""
        estimator, phase = self._estimators.get(order["city"] or ""), PHASES.get(order["state"])
        if estimator is None or phase is None or order["fix_at"] is None:
            return None
        trail = [start] if start is not None else []
        waited_s = (order["fix_at"] - began_at).total_seconds() if began_at is not None else 0.0
        task = Task(
            phase,
            (order["restaurant_lon_deg"], order["restaurant_lat_deg"]),
            (order["destination_lon_deg"], order["destination_lat_deg"]),
            [
                Observation(one["fix_at"], (one["lon_deg"], one["lat_deg"]))
                for one in (*trail, order)
            ],
            order["driver_id"],
            max(0.0, waited_s),
            order["pace"],
        )
        estimate = estimator.estimate(task)
        if estimate is None:
            return None
        if len(self._kept) >= MAX_ARRIVALS:
            self._kept.clear()
        computed = Computed(estimate, estimator.way(task))
        self._kept[order["order_id"], order["order_seq"], order["fix_at"]] = computed
        return computed


def began_at(order: Row, events: Sequence[Row]) -> datetime | None:
    """Return when the present phase began: the ride to either place, or the wait."""
    if order["state"] == "assigned":
        found: datetime | None = order["assigned_at"]
        return found
    state = "at_restaurant" if order["state"] == "at_restaurant" else "picked_up"
    return min((one["occurred_at"] for one in events if one["state"] == state), default=None)


def ride_of(order: Row, began: datetime | None) -> dict[str, Any]:
    """Return the values of START_OF_RIDE; without a known beginning it finds none."""
    return {
        "driver_id": order["driver_id"],
        "began_at": began or order["fix_at"],
        "fix_at": order["fix_at"],
    }


def full_track(
    order: Row, events: Sequence[Row], notices: Sequence[Row], computed: Computed | None
) -> FullTrack:
    """Build the answer."""
    now, nearby = order["now"], [one["occurred_at"] for one in notices if one["kind"] == "nearby"]
    is_late = order["promised_to"] is not None and any(one["kind"] == "late" for one in notices)
    way = computed.way if computed is not None else []
    return FullTrack(
        order_id=order["order_id"],
        state=order["state"],
        assignment_no=order["assignment_no"],
        order_seq=order["order_seq"],
        city=order["city"],
        late_by_s=max(0, round((now - order["promised_to"]).total_seconds())) if is_late else None,
        nearby_at=nearby[-1] if nearby else None,
        position=_position(order, now) if order["fix_at"] is not None else None,
        eta=_arrival(order["fix_at"], now, computed.estimate) if computed is not None else None,
        route=Way(coordinates=way) if len(way) > 1 else None,
        restaurant=Place(
            lon_deg=order["restaurant_lon_deg"],
            lat_deg=order["restaurant_lat_deg"],
            name=order["restaurant_name"],
        ),
        destination=Place(
            lon_deg=order["destination_lon_deg"], lat_deg=order["destination_lat_deg"]
        ),
        events=[OrderEvent(**one) for one in events],
        pin=order["pin"],
    )


def _position(order: Row, now: datetime) -> PositionFeature:
    age_s = max(0.0, round((now - order["fix_at"]).total_seconds(), 3))
    return PositionFeature(
        geometry=Geometry(coordinates=(order["lon_deg"], order["lat_deg"])),
        properties=Properties(
            fix_at=order["fix_at"],
            received_at=order["received_at"],
            accuracy_m=order["accuracy_m"],
            speed_mps=order["speed_mps"],
            heading_deg=order["heading_deg"],
            age_s=age_s,
            freshness=next((name for name, limit in FRESHNESS.items() if age_s <= limit), "lost"),
        ),
    )


def _arrival(fix_at: datetime, now: datetime, estimate: Estimate) -> Arrival:
    def at(seconds: float) -> datetime:
        return max(fix_at + timedelta(seconds=seconds), now).astimezone(UTC)

    arrives_at = at(estimate.seconds)
    return Arrival(
        arrives_at=arrives_at,
        p10_at=min(at(estimate.p10_s), arrives_at),
        p90_at=max(at(estimate.p90_s), arrives_at),
        as_of=fix_at,
        seconds=round((arrives_at - now).total_seconds()),
        distance_m=round(estimate.metres),
        speed_mps=round(estimate.metres / max(estimate.ride_s, 1.0), 2),
    )
