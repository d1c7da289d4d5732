"""When an order's driver arrives: by road at learned speeds where there is a street graph, else
as the crow flies. Beside the instant stands a band that four of five arrivals fall into."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta

from doorstep.errors import DoorstepError
from doorstep.telemetry import get_logger
from eta.estimate import Estimate, Estimator, Observation, Task
from eta.model import EtaModel, Phase
from tracking_api.track.straight_eta import Eta, estimate_arrival
from tracking_api.track.visibility import STALE_WITHIN_S, Position, TrackedOrder, age_s

EstimateArrival = Callable[[TrackedOrder], Eta | None]
ReadModel = Callable[[int], Awaitable[EtaModel | None]]

LOOK_EVERY_S = 60.0  # for a newer model
GRAPH_AFTER_S = 3.0  # 1.2 s of CPU: those who come back after a restart are served first

_PHASES = {
    "assigned": Phase.TO_RESTAURANT,
    "at_restaurant": Phase.AT_RESTAURANT,
    "picked_up": Phase.TO_CUSTOMER,
    "arriving": Phase.TO_CUSTOMER,
}


class RoadEta:
    """Estimates arrivals by road as soon as it has an estimator, and until then without one."""

    def __init__(self, estimator: Estimator | None = None) -> None:
        self._estimator = estimator

    async def keep_model_current(self, read_model: ReadModel) -> None:
        """Load the street graph, on another thread, then take up what is learned, for ever.

        Until then arrivals are estimated from the straight line, and say so.
        """
        await asyncio.sleep(GRAPH_AFTER_S)
        estimator = self._estimator = await asyncio.to_thread(load_estimator)
        while True:
            try:
                model = await read_model(estimator.model.model_id)
                if model is not None:
                    estimator.use(model)
                    get_logger().info("eta_model", model_id=model.model_id, rides=model.rides)
            except DoorstepError:
                pass  # the database is away: the model that is known goes on
            except Exception:  # noqa: BLE001 - the task goes on
                get_logger().exception("eta_model_defect")
            await asyncio.sleep(LOOK_EVERY_S)

    def __call__(self, order: TrackedOrder) -> Eta | None:
        """Estimate when the driver is with the customer.

        None while no position may be shown, when the last one is too old to say anything, and
        when the driver has arrived.
        """
        spot, phase = order.visible, _PHASES.get(order.state)
        if spot is None or phase is None or age_s(spot.fix_at, order.now) > STALE_WITHIN_S:
            return None
        began_at = _began_at(order)
        task = Task(
            phase=phase,
            restaurant=order.restaurant,
            door=order.destination,
            trail=list(_ride(order, spot, began_at)),
            driver_id=order.driver_id,
            waited_s=max(0.0, (spot.fix_at - began_at).total_seconds()) if began_at else 0.0,
            pace=order.pace,
        )
        estimate = self._estimator.estimate(task) if self._estimator is not None else None
        if self._estimator is None or estimate is None:
            return estimate_arrival(order)
        return _eta_of(order, spot, estimate, self._estimator.model)


def load_estimator() -> Estimator:
    """Make ready to estimate arrivals in Florence, with nothing learned yet."""
    # Imported here: numpy and scipy are a third of a second that a start does not wait for.
    from eta.features import City
    from eta.streets import load_firenze
    from eta.travel_time_cache import TravelTimeCache

    return Estimator(TravelTimeCache(City(load_firenze()), EtaModel()))


def _began_at(order: TrackedOrder) -> datetime | None:
    """When this part of the work began: the ride to either place, or the wait."""
    if order.state == "assigned":
        return order.window.assigned_at if order.window else None
    state = "at_restaurant" if order.state == "at_restaurant" else "picked_up"
    times = [
        event.occurred_at
        for event in order.events
        if event.state == state and event.assignment_no == order.assignment_no
    ]
    return min(times, default=None)


def _ride(order: TrackedOrder, spot: Position, began_at: datetime | None) -> Iterator[Observation]:
    """The first place of this ride that is known, and the last."""
    if began_at is not None:
        first = next((one for one in order.trail if one.fix_at >= began_at), None)
        if first is not None:
            yield Observation(first.fix_at, first.lon_lat)
    yield Observation(spot.fix_at, spot.lon_lat)


def _eta_of(order: TrackedOrder, spot: Position, estimate: Estimate, model: EtaModel) -> Eta:
    def at(seconds: float) -> datetime:
        return max(spot.fix_at + timedelta(seconds=seconds), order.now)

    arrives_at = at(estimate.seconds)
    return Eta(
        arrives_at=arrives_at,
        p10_at=min(at(estimate.p10_s), arrives_at),
        p90_at=max(at(estimate.p90_s), arrives_at),
        as_of=spot.fix_at,
        seconds=round((arrives_at - order.now).total_seconds()),
        distance_m=round(estimate.metres),
        speed_mps=round(estimate.metres / max(estimate.ride_s, 1.0), 2),
        route="road",
        speeds="assumed" if model.learned_at is None else "learned",
        basis=_basis(estimate, model),
    )


def _basis(estimate: Estimate, model: EtaModel) -> str:
    speeds = "assumed speeds: nothing is learned yet"
    if model.learned_at is not None:
        speeds = f"speeds learned from {model.rides:,} rides"
    wait = f", plus {estimate.wait_s:.0f} s at the restaurant" if estimate.wait_s else ""
    return f"the way by road at {speeds}{wait}"
