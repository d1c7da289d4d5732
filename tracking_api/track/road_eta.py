"""When an order's driver arrives: by road at learned speeds where there is a street graph, else
in a straight line. Four of five arrivals fall into the estimate's band."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import msgspec

from data.cities import CityFolder, list_cities
from doorstep.errors import DoorstepError
from doorstep.geo import Place
from doorstep.telemetry import get_logger
from eta.estimate import Estimate, Estimator, Observation, Task
from eta.model import EtaModel, Phase
from tracking_api.track.early_eta import EarlyRide, estimate_early, is_early, straight_ride
from tracking_api.track.straight_eta import Eta, estimate_arrival
from tracking_api.track.visibility import (
    STALE_WITHIN_S,
    EstimateKey,
    Position,
    TrackedOrder,
    age_s,
)

if TYPE_CHECKING:
    from eta.streets import Point

encode_json = msgspec.json.Encoder().encode

EstimateArrival = Callable[[TrackedOrder], Eta | None]
Ride = tuple[float, float]
"""Seconds and metres."""
EstimateRide = Callable[[str | None, Place, Place, datetime], Ride | None]
ReadModel = Callable[[int], Awaitable[EtaModel | None]]

MODEL_INTERVAL_S = 60.0
GRAPH_AFTER_S = 3.0  # 1.2 s of CPU: viewers that reconnect after a restart come first
BUSY_RETRY_S = 1.0
NO_MODEL = 0
MAX_ESTIMATES = 20_000  # of about 1.5 kB, with the way

_PHASES = {
    "assigned": Phase.TO_RESTAURANT,
    "at_restaurant": Phase.AT_RESTAURANT,
    "picked_up": Phase.TO_CUSTOMER,
    "arriving": Phase.TO_CUSTOMER,
}


class HeldArrival(NamedTuple):
    """An order's newest estimate, what it holds for, and the encoded way ahead."""

    key: EstimateKey
    estimate: Estimate
    way: msgspec.Raw | None

    @property
    def arrives_at(self) -> datetime:
        """The estimated instant, which may have passed."""
        return self.key.fix_at + timedelta(seconds=self.estimate.seconds)

    @property
    def ahead_until(self) -> datetime:
        """Until when every instant of the estimate is ahead; one that has passed becomes now."""
        first_s = min(self.estimate.seconds, self.estimate.p10_s, self.estimate.p90_s)
        return self.key.fix_at + timedelta(seconds=first_s)


class RoadEta:
    """Estimates arrivals by road once it has an estimator, and in a straight line until then.

    An estimate is computed once per fix and event of an order, however often it is read.
    """

    def __init__(
        self, estimators: Mapping[str, Estimator] | None = None, cities_dir: Path | None = None
    ) -> None:
        """`estimators` are by city. Those of the cities below `cities_dir` are added later."""
        self._estimators = dict(estimators or {})
        self._cities_dir = cities_dir
        self._loaded: dict[str, CityFolder] = {}
        self._model: EtaModel | None = None  # the newest that was read
        # by order: the event and the fix that the estimate holds for
        self._estimates: OrderedDict[UUID, HeldArrival] = OrderedDict()

    def held(self, order_id: UUID) -> EstimateKey | None:
        """Return the event and the fix for which an order's estimate is held."""
        held = self._estimates.get(order_id)
        return held.key if held is not None else None

    def arrival(self, order_id: UUID) -> HeldArrival | None:
        """Return the estimate that is held of an order. A new one is another object."""
        return self._estimates.get(order_id)

    def ride(self, city: str | None, start: Place, goal: Place, at: datetime) -> Ride | None:
        """Return the ride by road between two places; None without streets or a route."""
        estimator = self._estimators.get(city or "")
        found = estimator.ride(start, goal, at) if estimator is not None else None
        return (found.seconds, found.metres) if found is not None else None

    async def keep_model_current(
        self, read_model: ReadModel, is_busy: Callable[[], bool] = lambda: False
    ) -> None:
        """Load street graphs in another thread, and newer models, until cancelled.

        The first graph is loaded once `is_busy` returns False.
        """
        await asyncio.sleep(GRAPH_AFTER_S)
        while is_busy():  # noqa: ASYNC110 - busy means a burst of viewers, without an event
            await asyncio.sleep(BUSY_RETRY_S)
        while True:
            try:
                await self._load_cities()
                model = await read_model(self._model.model_id if self._model else NO_MODEL)
                if model is not None:
                    self._model = model
                    for estimator in self._estimators.values():
                        estimator.set_model(model)
                    self._estimates.clear()
                    get_logger().info("eta_model", model_id=model.model_id, rides=model.rides)
            except DoorstepError:
                pass  # the database is unavailable: keep the present model
            except Exception:  # noqa: BLE001 - the task's boundary
                get_logger().exception("eta_model_defect")
            await asyncio.sleep(MODEL_INTERVAL_S)

    async def _load_cities(self) -> None:
        """Load the graphs of new and changed cities, and drop those of removed ones."""
        cities = {city.name: city for city in list_cities(self._cities_dir)}
        for name in self._loaded.keys() - cities.keys():
            del self._loaded[name], self._estimators[name]
            self._estimates.clear()
        for name, city in cities.items():
            if self._loaded.get(name) == city:
                continue
            estimator = await asyncio.to_thread(load_estimator, city)
            if self._model is not None:
                estimator.set_model(self._model)
            self._estimators[name], self._loaded[name] = estimator, city
            self._estimates.clear()  # of the previous streets

    def __call__(self, order: TrackedOrder) -> Eta | None:
        """Estimate when the driver is with the customer.

        Before a courier can be seen, from usual times and the ride. None while a position is
        hidden after pick-up, when the last one is too old, and when the driver has arrived.
        """
        if is_early(order) and order.plan is not None:
            return estimate_early(
                order, order.plan, self._early_ride(order) or straight_ride(order)
            )
        position, phase = order.position, _PHASES.get(order.state)
        if position is None or phase is None or age_s(position.fix_at, order.now) > STALE_WITHIN_S:
            return None
        estimator = self._estimators.get(order.city or "")
        if estimator is None:
            return estimate_arrival(order)
        key = EstimateKey(order.order_seq, position.fix_at)
        held = self._estimates.get(order.order_id)
        if held is not None and held.key == key:
            return _eta_of(order, position, held.estimate, estimator.model, held.way)
        task = _task(order, position, phase)
        estimate = estimator.estimate(task)
        if estimate is None:
            return estimate_arrival(order)
        way = _encode_way(estimator.way(task))
        if not order.is_trail_omitted:  # omitted for an estimate that has since been replaced
            self._estimates.pop(order.order_id, None)
            self._estimates[order.order_id] = HeldArrival(key, estimate, way)
            if len(self._estimates) > MAX_ESTIMATES:
                self._estimates.popitem(last=False)
        return _eta_of(order, position, estimate, estimator.model, way)

    def _early_ride(self, order: TrackedOrder) -> EarlyRide | None:
        """Estimate the ride from the restaurant by road."""
        estimator = self._estimators.get(order.city or "")
        if estimator is None:
            return None
        start = [Observation(order.now, order.restaurant)]
        task = Task(Phase.TO_CUSTOMER, order.restaurant, order.destination, start, pace=order.pace)
        found = estimator.estimate(task)
        if found is None:
            return None
        is_learned = estimator.model.learned_at is not None
        return EarlyRide(found.seconds, found.p10_s, found.p90_s, found.metres, True, is_learned)


def _task(order: TrackedOrder, position: Position, phase: Phase) -> Task:
    began_at = _began_at(order)
    waited_s = max(0.0, (position.fix_at - began_at).total_seconds()) if began_at else 0.0
    return Task(
        phase=phase,
        restaurant=order.restaurant,
        door=order.destination,
        trail=list(_ride(order, position, began_at)),
        driver_id=order.driver_id,
        waited_s=waited_s,
        pace=order.pace,
    )


def seconds_until(arrives_at: datetime, now: datetime) -> int:
    """Return the whole seconds left."""
    return round((arrives_at - now).total_seconds())


def no_ride(_city: str | None, _start: Place, _goal: Place, _at: datetime) -> Ride | None:
    """Stand in for `RoadEta.ride` without streets."""
    return None


def load_estimator(city: CityFolder) -> Estimator:
    """Load a city's street graph, with nothing learned yet."""
    # Imported here: importing numpy and scipy takes a third of a second.
    from eta.features import City
    from eta.streets import load_streets
    from eta.travel_time_cache import TravelTimeCache

    return Estimator(TravelTimeCache(City(load_streets(city)), EtaModel()))


def _began_at(order: TrackedOrder) -> datetime | None:
    """Return when the present phase began: the ride to either place, or the wait."""
    if order.state == "assigned":
        return order.assigned_at
    state = "at_restaurant" if order.state == "at_restaurant" else "picked_up"
    times = [
        event.occurred_at
        for event in order.events
        if event.state == state and event.assignment_no == order.assignment_no
    ]
    return min(times, default=None)


def _ride(
    order: TrackedOrder, position: Position, began_at: datetime | None
) -> Iterator[Observation]:
    """Yield the first known place of this ride, and the last."""
    if began_at is not None:
        first = next((one for one in order.trail if one.fix_at >= began_at), None)
        if first is not None:
            yield Observation(first.fix_at, first.lon_lat)
    yield Observation(position.fix_at, position.lon_lat)


def _encode_way(points: Sequence[Point]) -> msgspec.Raw | None:
    """Encode a GeoJSON line once for all answers that show it."""
    if len(points) < 2:
        return None
    return msgspec.Raw(encode_json({"type": "LineString", "coordinates": points}))


def _eta_of(
    order: TrackedOrder,
    position: Position,
    estimate: Estimate,
    model: EtaModel,
    way: msgspec.Raw | None,
) -> Eta:
    def at(seconds: float) -> datetime:
        return max(position.fix_at + timedelta(seconds=seconds), order.now)

    arrives_at = at(estimate.seconds)
    return Eta(
        arrives_at=arrives_at,
        p10_at=min(at(estimate.p10_s), arrives_at),
        p90_at=max(at(estimate.p90_s), arrives_at),
        as_of=position.fix_at,
        seconds=seconds_until(arrives_at, order.now),
        distance_m=round(estimate.metres),
        speed_mps=round(estimate.metres / max(estimate.ride_s, 1.0), 2),
        route="road",
        speeds="assumed" if model.learned_at is None else "learned",
        basis=_basis(estimate, model),
        way=way,
    )


def _basis(estimate: Estimate, model: EtaModel) -> str:
    speeds = "assumed speeds: nothing is learned yet"
    if model.learned_at is not None:
        speeds = f"speeds learned from {model.rides:,} rides"
    wait = f", plus {estimate.wait_s:.0f} s at the restaurant" if estimate.wait_s else ""
    return f"the way by road at {speeds}{wait}"
