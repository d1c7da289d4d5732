"""A shift of the whole fleet: start, fixes, restart, changes of its size.

The journal holds the fixes and the couriers' positions. The rest of the state is the platform's:
after kill -9 each courier reads its order from `GET /drivers/{id}`, and continues from its saved
position.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from data.cities import CityFolder, bundled_city
from device.device import Device, make_login
from device.journal import Journal
from device.publish_spans import NO_TRACING, DeviceTracing
from device.settings import DeviceSettings, FleetSecrets
from doorstep.errors import DoorstepError
from doorstep.sampling import SamplingPolicy
from doorstep.telemetry import get_logger
from simulators.api import Api
from simulators.couriers.clock import Clock
from simulators.couriers.courier import Courier, UnknownCourier, World
from simulators.couriers.demand import Demand, place_door, place_restaurant, place_restaurants
from simulators.couriers.job import Job, Stage
from simulators.couriers.orders import Dispatch
from simulators.couriers.streets import Point, load_streets
from simulators.draining import drain, pending_of

REPORT_EVERY_S = 4.0
TICK_S = 0.04  # fixes that fall due within a tick share one fsync
CATCH_UP_S = 5.0  # after a longer stall of this process the missed fixes are skipped
SAVE_POSITIONS_EVERY_S = 2.0
PROGRESS_EVERY_S = 10.0
APPLY_TARGET_EVERY_S = 1.0
WARM_SHARE = 0.65  # of the couriers have an order when the shift starts
WARM_STAGES = {  # weights of their stages
    Stage.TO_RESTAURANT: 4,
    Stage.AT_RESTAURANT: 4,
    Stage.TO_CUSTOMER: 6,
    Stage.ARRIVING: 3,
    Stage.AT_CUSTOMER: 3,
}
WARM_READY_S = (30.0, 400.0)
START_PARALLEL = 8
END_DUTY_TIMEOUT_S = 8.0
WAITING_SHARE = 0.12  # more orders, waiting for a courier
POSITIONS_NOTE = "positions"
RESUME_WITHIN_S = 120.0  # after a longer pause a new shift starts


@dataclass(frozen=True, slots=True)
class ShiftOptions:
    """The options of the command line."""

    couriers: int
    speedup: float
    seed: int
    city: CityFolder = field(default_factory=bundled_city)
    prefix: str = "courier-"
    mqtt_5: bool = False
    sampling: SamplingPolicy | None = None  # None: as the server commands
    resume: bool = True  # from saved positions, if they are recent

    def driver_ids(self, count: int) -> list[str]:
        """Name the first `count` couriers; numbers have the width of the initial count."""
        width = len(str(self.couriers))
        return [f"{self.prefix}{number:0{width}}" for number in range(1, count + 1)]


class Shift:
    """The couriers, their devices and their orders, in one asyncio event loop."""

    def __init__(
        self,
        options: ShiftOptions,
        settings: DeviceSettings,
        fleet: FleetSecrets,
        journal: Journal,
        api: Api,
        restaurants: list[tuple[int, str, float, float]],
        policy_id: int | None,
        tracing: DeviceTracing = NO_TRACING,
    ) -> None:
        self._options = options
        self._journal = journal
        self._tracing = tracing
        self._rng = random.Random(options.seed)
        streets = load_streets(options.city)
        self._restaurants = place_restaurants(streets, restaurants)
        demand = Demand(streets, self._restaurants, self._rng, options.city.buildings)
        self._world = World(streets, demand, Clock(options.speedup), api)
        self._log = get_logger()
        self._saved_positions = read_positions(journal, time.time()) if options.resume else {}
        self._settings, self._fleet = settings, fleet
        self._couriers: dict[str, Courier] = {}
        self._devices: dict[str, Device] = {}
        for driver_id in options.driver_ids(options.couriers):
            self._add_courier(driver_id)
        self._due: dict[
            str, float
        ] = {}  # the time of each courier's next fix, on the monotonic clock
        self._device_tasks: list[asyncio.Task[None]] = []
        self._dispatch = Dispatch(
            self._world, fleet.staff_token(), self._couriers, policy_id, self._rng
        )
        self._plan = self._plan_start()
        self._target = options.couriers
        self._unregistered_id = ""  # the courier that was not registered at the last try
        self._off_shift: set[str] = set()  # off duty, because the target is lower
        self._starting = asyncio.Semaphore(START_PARALLEL)
        self._published = 0
        self._started_at = time.monotonic()

    @property
    def is_resumed(self) -> bool:
        """Whether this process continues the shift of one that has just ended."""
        return bool(self._saved_positions)

    def resize(self, count: int) -> None:
        """Set the target. New couriers join once they are registered."""
        self._target = max(0, count)
        self._dispatch.on_shift = min(self._target, len(self._couriers))

    async def run(self, stop: asyncio.Event) -> int:
        """Run the shift until `stop`, then until the watermark covers every fix.

        Returns the number of fixes that it does not cover once it has stood still for two ack
        periods.
        """
        self._device_tasks += [
            asyncio.create_task(device.run()) for device in self._devices.values()
        ]
        device_tasks = list(self._device_tasks)
        work = asyncio.create_task(self._work())
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({work, stopped, *device_tasks}, return_when="FIRST_COMPLETED")
        for task in done:
            if (failure := task.exception()) is not None:  # all but `stopped` end with an error
                raise unwrap_error(failure)
        work.cancel()
        self._dispatch.stop()
        draining = drain(self._devices.values(), self._journal, self._settings.ack_every_s)
        left, _ = await asyncio.gather(draining, self._end_duty())
        for device in self._devices.values():
            await device.stop()
        await asyncio.gather(*self._device_tasks)
        self._save_positions()
        self._journal.commit()
        return left

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish_fixes())
            group.create_task(self._progress())
            await asyncio.gather(
                *(self._start_courier(one, group) for one in self._couriers.values())
            )
            await self._start_waiting_orders()
            group.create_task(self._dispatch.take_orders())
            group.create_task(self._apply_target(group))

    def _add_courier(self, driver_id: str) -> Courier:
        """Create a courier and its device, without starting them."""
        courier = self._couriers[driver_id] = Courier(
            driver_id,
            self._fleet.driver_token(driver_id),
            self._world,
            random.Random(f"{self._options.seed} {driver_id}"),
            self._start_position(driver_id),
        )
        login = make_login(driver_id, self._settings, self._fleet, mqtt_5=self._options.mqtt_5)
        spans = self._tracing.of(driver_id)
        device = Device(login, self._journal, self._settings.ack_every_s, spans)
        device.sampler.pace = self._options.speedup
        if self._options.sampling is not None:
            device.sampler.policy = self._options.sampling
            device.ignores_commands = True
        self._devices[driver_id] = device
        return courier

    async def _add_couriers(self, group: asyncio.TaskGroup) -> None:
        """Add couriers up to the target, as far as they are registered."""
        for driver_id in self._options.driver_ids(self._target)[len(self._couriers) :]:
            courier = self._add_courier(driver_id)
            try:
                await self._start_courier(courier, group)
            except UnknownCourier as exc:
                del self._couriers[driver_id], self._devices[driver_id]
                if driver_id != self._unregistered_id:
                    self._log.warning(
                        "courier_not_registered", detail=str(exc), target=self._target
                    )
                self._unregistered_id = driver_id  # tried again later
                return
            self._device_tasks.append(asyncio.create_task(self._devices[driver_id].run()))
            self._due[driver_id] = time.monotonic()
            self._dispatch.on_shift = min(self._target, len(self._couriers))

    async def _apply_target(self, group: asyncio.TaskGroup) -> None:
        """Send couriers without an order off duty, or back on duty, to meet the target."""
        while True:
            await asyncio.sleep(APPLY_TARGET_EVERY_S)
            for task in self._device_tasks:
                if task.done():
                    task.result()  # raises the error that ended it
            await self._add_couriers(group)
            for number, (driver_id, courier) in enumerate(self._couriers.items()):
                if number < self._dispatch.on_shift:
                    if driver_id in self._off_shift:
                        await courier.go_on_duty()
                        self._off_shift.discard(driver_id)
                elif driver_id in self._off_shift or courier.busy:
                    continue
                elif await courier.go_off_duty():
                    self._off_shift.add(driver_id)

    async def _end_duty(self) -> None:
        """Send couriers without an order off duty, so that they get no more orders."""
        idle = [courier for courier in self._couriers.values() if not courier.busy]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_DUTY_TIMEOUT_S):
                await asyncio.gather(*(courier.go_off_duty() for courier in idle))

    @property
    def pending(self) -> int:
        """The number of fixes that the watermark does not cover."""
        return pending_of(self._devices.values())

    # -- fixes ------------------------------------------------------------------------------

    async def _publish_fixes(self) -> None:
        """Write the fixes that are due, make them durable with one fsync, and publish them."""
        every_s = REPORT_EVERY_S / self._options.speedup
        step_s = every_s / len(self._couriers)
        started_at = saved_at = time.monotonic()
        self._due = {one: started_at + number * step_s for number, one in enumerate(self._couriers)}
        while True:
            now, wall_s, clock_s = time.monotonic(), time.time(), self._world.clock.now_s()
            devices, published = [], 0
            for driver_id, due in self._due.items():
                late_s = now - due
                if late_s < 0 or driver_id in self._off_shift:
                    continue
                courier, device = self._couriers[driver_id], self._devices[driver_id]
                fix = courier.observe(clock_s - late_s * self._options.speedup)
                published += device.observe({"fix_at": round((wall_s - late_s) * 1000), **fix})
                devices.append(device)
                self._due[driver_id] += every_s if late_s < CATCH_UP_S else late_s + every_s
            if now - saved_at > SAVE_POSITIONS_EVERY_S:
                self._save_positions()
                saved_at = now
            self._journal.commit()
            for device in devices:
                device.pump()
            self._published += published
            await asyncio.sleep(TICK_S)

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            devices = self._devices.values()
            self._log.info(
                "shift",
                published=self._published,
                fixes_per_s=round(self._published / (time.monotonic() - self._started_at), 1),
                connected=sum(device.connected for device in devices),
                pending=self.pending,
                given_up=sum(device.given_up for device in devices),
                **{ending.value: count for ending, count in self._dispatch.endings.items()},
            )

    def _save_positions(self) -> None:
        places = {one: courier.position() for one, courier in self._couriers.items()}
        rounded = {one: (round(lon, 6), round(lat, 6)) for one, (lon, lat) in places.items()}
        note = {"at": time.time(), "places": rounded}
        self._journal.set_note(POSITIONS_NOTE, json.dumps(note))

    # -- start ------------------------------------------------------------------------------

    def _plan_start(self) -> dict[str, tuple[Job, Stage]]:
        """Choose the orders and stages of couriers at the start of the shift, and move them there.

        Couriers with a saved position are not moved.
        """
        fresh = [
            one
            for driver_id, one in self._couriers.items()
            if driver_id not in self._saved_positions
        ]
        stages, weights = list(WARM_STAGES), list(WARM_STAGES.values())
        plan = {}
        for courier in self._rng.sample(fresh, round(len(fresh) * WARM_SHARE)):
            stage = self._rng.choices(stages, weights)[0]
            job = self._dispatch.new_job()
            job.ready_s = self._rng.uniform(*WARM_READY_S)
            courier.place_at(job, stage)
            plan[courier.driver_id] = (job, stage)
        return plan

    async def _start_courier(self, courier: Courier, group: asyncio.TaskGroup) -> None:
        """Go on duty, and continue the current order or start the planned one."""
        async with self._starting:  # a few at a time, so that the first ones start early
            orders = await courier.current_orders() if await courier.go_on_duty() else []
            for order in orders:
                job = self._job_of(order, order["restaurant"])
                if job is None:
                    continue
                picked_up = order["state"] in ("picked_up", "arriving", "at_customer")
                stage = Stage.TO_CUSTOMER if picked_up else Stage.AT_RESTAURANT
                if courier.driver_id not in self._saved_positions and not courier.busy:
                    courier.place_at(job, stage)
                courier.assign(job, stage)
                self._dispatch.watch(job)
            if not orders and (planned := self._plan.get(courier.driver_id)) is not None:
                job, stage = planned
                await self._dispatch.start_in_progress(job, courier, stage)
        group.create_task(courier.run_shift())

    async def _start_waiting_orders(self) -> None:
        """Start the orders without a courier: existing ones, and some new ones."""
        places = {one.restaurant_id: asdict(one) for one in self._restaurants}
        for order in await self._dispatch.pending_orders():
            if (restaurant := places.get(order["restaurant_id"])) is not None:
                job = self._job_of(order, restaurant)
                if job is not None:
                    self._dispatch.start(job, confirmed=order["state"] == "confirmed")
        for _ in range(round(len(self._plan) * WAITING_SHARE)):
            self._dispatch.start(self._dispatch.new_job())

    def _job_of(self, order: dict[str, Any], restaurant: dict[str, Any]) -> Job | None:
        """Place an existing order on the streets. None if it is too far from them."""
        streets, goal = self._world.streets, order["destination"]
        try:
            counter = place_restaurant(streets, 0, "", restaurant["lon_deg"], restaurant["lat_deg"])
            door = place_door(streets, goal["lon_deg"], goal["lat_deg"])
        except ValueError as exc:
            self._log.warning("order_skipped", order_id=str(order["order_id"]), detail=str(exc))
            return None
        return Job(
            counter,
            door,
            self._world.clock.now_s() + self._rng.uniform(*WARM_READY_S),
            order_id=str(order["order_id"]),
        )

    def _start_position(self, driver_id: str) -> Point:
        """Return the saved position, or a point near a random restaurant."""
        if driver_id in self._saved_positions:
            return self._world.streets.to_xy(*self._saved_positions[driver_id])
        return self._rng.choice(self._restaurants).place.point


def unwrap_error(failure: BaseException) -> BaseException:
    """Return the first DoorstepError of a group, else the whole group."""
    if not isinstance(failure, BaseExceptionGroup):
        return failure
    found: BaseException | None = failure.subgroup(DoorstepError)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found or failure


def read_positions(journal: Journal, now: float) -> dict[str, Point]:
    """Read the couriers' saved positions, (lon_deg, lat_deg).

    Empty if they are older than RESUME_WITHIN_S.
    """
    note = json.loads(journal.notes().get(POSITIONS_NOTE, '{"at": 0, "places": {}}'))
    if now - note["at"] > RESUME_WITHIN_S:
        return {}
    return {driver_id: (place[0], place[1]) for driver_id, place in note["places"].items()}
