"""One courier: waits for an order, rides, picks up, rides, walks to the door, delivers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from doorstep.errors import DoorstepError
from simulators.api import Answer, Api
from simulators.couriers.clock import Clock
from simulators.couriers.demand import Demand, Restaurant
from simulators.couriers.details import failure, wrong_pin
from simulators.couriers.job import Ending, Job, Stage
from simulators.couriers.motion import WALK_MPS, Course, Vehicle, door_of
from simulators.couriers.photo import photo_of_door
from simulators.couriers.receiver import Receiver
from simulators.couriers.streets import Point, StreetPoint, Streets
from simulators.couriers.traffic import Traffic, draw_rider_factor

IDLE_S = (90.0, 600.0)  # between two moves of a courier without an order
DECLINE_SHARE = 0.04
DECLINE_AFTER_S = 8.0
FAIL_SHARE = 0.03
PHOTO_SHARE = 0.3  # of the deliveries without a PIN: left at the door
WRONG_PIN_SHARE = 0.1
WRONG_PIN_S = 15.0  # until the customer finds the right one
UNKNOWN_MEMBER = 422
MAX_JOBS = 2  # a courier's own limit
AT_THE_COUNTER_S = 45.0  # at least: by the default policy 30 s within 60 m prove an arrival
STILL_MPS = 0.3  # below this a phone has no heading


class UnknownCourier(DoorstepError):
    """The courier is not registered."""


@dataclass(frozen=True, slots=True)
class World:
    """What all couriers share: streets, demand, clock, API, traffic."""

    streets: Streets
    demand: Demand
    clock: Clock
    api: Api
    traffic: Traffic = field(default_factory=Traffic)


class Courier:
    """A driver with a vehicle, a phone and at times an order."""

    def __init__(
        self, driver_id: str, token: str, world: World, rng: random.Random, home: Point
    ) -> None:
        self.driver_id = driver_id
        self.vehicle = rng.choices(list(Vehicle), (4, 5, 1))[0]
        self.busy = False
        self._token = token
        self._world = world
        self._rng = rng
        self._receiver = Receiver(rng)
        self._course = Course(world.clock.now_s(), home)
        self._jobs: asyncio.Queue[tuple[Job, Stage]] = asyncio.Queue()
        self._battery = rng.uniform(0.35, 1.0)
        self._rider_factor = draw_rider_factor(rng)

    def assign(self, job: Job, stage: Stage = Stage.TO_RESTAURANT) -> None:
        """Hand over an order that was assigned to this driver."""
        self.busy = True
        self._jobs.put_nowait((job, stage))

    def observe(self, now_s: float) -> dict[str, object]:
        """Return the phone's fix at this instant, without `fix_at`."""
        here = self._course.at(now_s)
        x, y, accuracy_m = self._receiver.observe(here.x, here.y, now_s)
        lon_deg, lat_deg = self._world.streets.to_lon_lat(x, y)
        fix: dict[str, object] = {
            "lat_deg": round(lat_deg, 7),
            "lon_deg": round(lon_deg, 7),
            "accuracy_m": round(accuracy_m, 1),
            "speed_mps": round(here.speed_mps * self._world.clock.speedup, 2),
            "battery": round(max(0.05, self._battery - now_s / 36_000), 2),
        }
        if here.speed_mps > STILL_MPS:
            fix["heading_deg"] = round(here.heading_deg, 1)
        return fix

    def position(self) -> Point:
        """Return the true position, (lon_deg, lat_deg)."""
        here = self._course.at(self._world.clock.now_s())
        return self._world.streets.to_lon_lat(here.x, here.y)

    def place_at(self, job: Job, stage: Stage) -> None:
        """Move an idle courier to where a courier at this stage of an order would be."""
        course = self._warm_course(job, stage)
        here = course.at(0.0)
        self._course = Course(self._world.clock.now_s(), (here.x, here.y))

    async def go_on_duty(self) -> bool:
        """Go on duty. Returns whether the driver has an order already. Raises UnknownCourier."""
        answer = await self._post("on-duty")
        if answer.status in (401, 403, 404):
            raise UnknownCourier(f"{self.driver_id} is not registered, or with another fleet key")
        return not (answer.ok and answer.body["state"] == "available")

    async def go_off_duty(self) -> bool:
        """Go off duty. Returns False if refused, because an order has just been assigned."""
        return (await self._post("off-duty")).ok

    @property
    def has_room(self) -> bool:
        """Whether this courier takes another order beside the present one."""
        return self._jobs.qsize() + 1 < MAX_JOBS

    async def current_orders(self) -> list[dict[str, Any]]:
        """Return the driver's open orders, the next stop first."""
        answer = await self._world.api.driver("GET", f"/drivers/{self.driver_id}", self._token)
        if not answer.ok or answer.body.get("order") is None:
            return []
        return answer.body.get("orders") or [answer.body["order"]]

    async def pick_up(self, job: Job) -> bool:
        """Report the pick-up. Returns False if the order was taken away."""
        return (await self._post(f"orders/{job.order_id}/picked-up")).ok

    async def run_shift(self) -> None:
        """Work on assigned orders until cancelled."""
        while True:
            try:
                wait_s = self._rng.uniform(*IDLE_S) / self._world.clock.speedup
                job, stage = await asyncio.wait_for(self._jobs.get(), wait_s)
            except TimeoutError:
                self._move_on()
                continue
            ending = await self._work(job, stage)
            self.busy = not self._jobs.empty()
            job.end(ending)

    async def _work(self, job: Job, stage: Stage) -> Ending:
        rng, clock = self._rng, self._world.clock
        if stage is Stage.TO_RESTAURANT and rng.random() < DECLINE_SHARE:
            await clock.sleep(DECLINE_AFTER_S)
            declined = await self._post(f"orders/{job.order_id}/decline")
            return Ending.DECLINED if declined.ok else Ending.TAKEN_AWAY
        if not stage.has_food:
            self._ride_to_restaurant(job.restaurant)
            at_counter_s = max(AT_THE_COUNTER_S, self._world.demand.pickup_s())
            await clock.sleep_until(max(self._course.end_s + at_counter_s, job.ready_s))
            if not await self.pick_up(job):
                return Ending.TAKEN_AWAY
        self._ride_to_door(job)
        service_s = self._world.demand.dropoff_s()
        if stage is Stage.AT_CUSTOMER:
            service_s *= rng.random()  # the rest of it
        await clock.sleep_until(self._course.end_s + max(AT_THE_COUNTER_S, service_s))
        if rng.random() < FAIL_SHARE:
            return await self._fail(job)
        return Ending.DELIVERED if await self._deliver(job) else Ending.TAKEN_AWAY

    async def _deliver(self, job: Job) -> bool:
        """Hand the order over, with the customer's PIN, which some get wrong at first.

        Some orders without a PIN are left at the door, and photographed.
        """
        path = f"orders/{job.order_id}/delivered"
        if job.pin is None:
            is_delivered = (await self._post(path)).ok
            if is_delivered and self._rng.random() < PHOTO_SHARE:
                await self._send_photo(job)
            return is_delivered
        if self._rng.random() < WRONG_PIN_SHARE:
            if (await self._post(path, {"pin": wrong_pin(job.pin)})).ok:
                return True  # the order needs none
            await self._world.clock.sleep(WRONG_PIN_S)
        return (await self._post(path, {"pin": job.pin})).ok

    async def _fail(self, job: Job) -> Ending:
        """Fail the order, and take it back to the restaurant if that is the next step."""
        path, why = f"orders/{job.order_id}", dict(failure(self._rng))
        failed = await self._post(f"{path}/failed", why)
        if failed.status == UNKNOWN_MEMBER and "next_step" in why:  # of an earlier release
            del why["next_step"]
            failed = await self._post(f"{path}/failed", why)
        if not failed.ok:
            return Ending.TAKEN_AWAY
        job.is_retried = why.get("next_step") == "retry"
        if why.get("next_step") == "return":
            self._ride_to_restaurant(job.restaurant)
            await self._world.clock.sleep_until(self._course.end_s)
            await self._post(f"{path}/returned")
        return Ending.FAILED

    def _ride_to_restaurant(self, restaurant: Restaurant) -> None:
        course = self._start_course()
        self._ride(course, restaurant.place)
        course.go(door_of(restaurant.place, restaurant.point, self._rng), WALK_MPS)
        self._course = course

    def _ride_to_door(self, job: Job) -> None:
        course = self._start_course()
        self._ride(course, job.door.place)
        course.go(door_of(job.door.place, job.door.point, self._rng), WALK_MPS)
        self._course = course

    def _ride(self, course: Course, goal: StreetPoint) -> None:
        way = self._world.streets.way(self._world.streets.nearest(*course.end), goal)
        conditions = self._world.traffic.conditions(self.vehicle, self._rider_factor, self._rng)
        course.ride(way, self.vehicle, self._rng, conditions)

    def _move_on(self) -> None:
        """Ride to a restaurant half of the time: a courier without an order waits near them."""
        if self._rng.random() < 0.5:
            self._ride_to_restaurant(self._world.demand.restaurant())

    def _start_course(self) -> Course:
        now_s = self._world.clock.now_s()
        here = self._course.at(now_s)
        return Course(now_s, (here.x, here.y))

    def _warm_course(self, job: Job, stage: Stage) -> Course:
        """Build the course of a courier at this stage, shifted so that now is 0 s."""
        streets, rng = self._world.streets, self._rng
        course = Course(0.0, job.restaurant.place.point)
        if stage.has_food:
            course.ride(streets.way(job.restaurant.place, job.door.place), self.vehicle, rng)
            course.go(door_of(job.door.place, job.door.point, rng), WALK_MPS)
        elif stage is Stage.TO_RESTAURANT:
            course.ride(streets.way(job.door.place, job.restaurant.place), self.vehicle, rng)
        gone_s = {
            Stage.TO_RESTAURANT: course.end_s * rng.uniform(0.5, 0.9),
            Stage.AT_RESTAURANT: course.end_s,
            Stage.TO_CUSTOMER: course.end_s * rng.uniform(0.05, 0.6),
            Stage.ARRIVING: course.end_s - rng.uniform(30, 60),
            Stage.AT_CUSTOMER: course.end_s,
        }[stage]
        course.shift(-gone_s)
        return course

    async def _send_photo(self, job: Job) -> None:
        path = f"/drivers/{self.driver_id}/orders/{job.order_id}/photo"
        await self._world.api.photo(path, self._token, photo_of_door(self._rng))

    async def _post(self, command: str, body: Mapping[str, Any] | None = None) -> Answer:
        path = f"/drivers/{self.driver_id}/{command}"
        return await self._world.api.driver("POST", path, self._token, body)
