"""A whole fleet's shift: everyone's phone, a warm start, reports, and going on after a restart.

The journal keeps the fixes and, beside them, where everyone was; the rest of the state is the
platform's, and is asked for: after kill -9 each courier learns from `GET /drivers/{id}` which
order they have, and goes on from where they stood.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from dataclasses import asdict, dataclass
from typing import Any

from device.device import Device, make_login
from device.journal import Journal
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
from simulators.couriers.streets import Point, load_firenze

REPORT_EVERY_S = 4.0
TICK_S = 0.04  # fixes that fall due within a tick share one fsync
CATCH_UP_S = 5.0  # after a longer stall of this process the fixes in between are not made up
NOTE_EVERY_S = 2.0
PROGRESS_EVERY_S = 10.0
CHANGE_EVERY_S = 1.0
WARM_SHARE = 0.65  # of the couriers have an order when the shift starts
WARM_STAGES = {  # and this is how far they are with it
    Stage.TO_RESTAURANT: 4,
    Stage.AT_RESTAURANT: 4,
    Stage.TO_CUSTOMER: 6,
    Stage.ARRIVING: 3,
    Stage.AT_CUSTOMER: 3,
}
WARM_READY_S = (30.0, 400.0)
BEGIN_AT_ONCE = 8
GO_HOME_WITHIN_S = 8.0
WAITING_SHARE = 0.12  # so many more orders wait for a courier
POSITIONS_NOTE = "positions"
EVERYTHING = SamplingPolicy()
GO_ON_WITHIN_S = 120.0  # a process that was away for longer starts a new shift


@dataclass(frozen=True, slots=True)
class ShiftOptions:
    """What the command line says."""

    couriers: int
    speedup: float
    seed: int
    prefix: str = "courier-"
    mqtt_5: bool = False
    report: SamplingPolicy = EVERYTHING

    def driver_ids(self, count: int) -> list[str]:
        """Name the first `count` couriers; as many as a shift starts with have one width."""
        width = len(str(self.couriers))
        return [f"{self.prefix}{number:0{width}}" for number in range(1, count + 1)]


class Shift:
    """The couriers, their phones and their orders. Lives in one asyncio loop."""

    def __init__(
        self,
        options: ShiftOptions,
        settings: DeviceSettings,
        fleet: FleetSecrets,
        journal: Journal,
        api: Api,
        restaurants: list[tuple[int, str, float, float]],
        policy_id: int | None,
    ) -> None:
        self._options = options
        self._journal = journal
        self._rng = random.Random(options.seed)
        streets = load_firenze()
        self._restaurants = place_restaurants(streets, restaurants)
        demand = Demand(streets, self._restaurants, self._rng)
        self._world = World(streets, demand, Clock(options.speedup), api)
        self._log = get_logger()
        self._known = read_positions(journal, time.time())
        self._settings, self._fleet = settings, fleet
        self._couriers: dict[str, Courier] = {}
        self._devices: dict[str, Device] = {}
        for driver_id in options.driver_ids(options.couriers):
            self._hire(driver_id)
        self._due: dict[str, float] = {}  # when whose next fix is, on the monotonic clock
        self._phones: list[asyncio.Task[None]] = []
        self._dispatch = Dispatch(
            self._world, fleet.staff_token(), self._couriers, policy_id, self._rng
        )
        self._plan = self._plan_start()
        self._wanted = options.couriers
        self._unknown = ""  # whom the platform did not know when it was last asked
        self._resting: set[str] = set()  # off duty, because fewer are wanted
        self._beginning = asyncio.Semaphore(BEGIN_AT_ONCE)
        self._drain_s = 2 * settings.ack_every_s + 5
        self._reported = 0
        self._began = time.monotonic()

    @property
    def goes_on(self) -> bool:
        """Whether a process before this one ended just now, and this one takes its place."""
        return bool(self._known)

    def resize(self, count: int) -> None:
        """Have so many couriers on shift soon; new ones as soon as the platform knows them."""
        self._wanted = max(0, count)
        self._dispatch.on_shift = min(self._wanted, len(self._couriers))

    async def run(self, stop: asyncio.Event) -> int:
        """Run the shift until `stop`, then until the watermark has passed every fix.

        Returns how many fixes it had not passed in the time given for that.
        """
        self._phones += [asyncio.create_task(device.run()) for device in self._devices.values()]
        phones = list(self._phones)
        work = asyncio.create_task(self._work())
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({work, stopped, *phones}, return_when="FIRST_COMPLETED")
        for task in done:
            if (failure := task.exception()) is not None:  # only `stopped` ends without
                raise first_of_ours(failure)
        work.cancel()
        self._dispatch.stop()
        left, _ = await asyncio.gather(self._drain(), self._go_home())
        for device in self._devices.values():
            await device.stop()
        await asyncio.gather(*self._phones)
        self._save_positions()
        self._journal.commit()
        return left

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report())
            group.create_task(self._progress())
            await asyncio.gather(*(self._begin(one, group) for one in self._couriers.values()))
            await self._begin_waiting_orders()
            group.create_task(self._dispatch.take_orders())
            group.create_task(self._change_shift(group))

    def _hire(self, driver_id: str) -> Courier:
        """Make a courier and their phone, which does nothing yet."""
        courier = self._couriers[driver_id] = Courier(
            driver_id,
            self._fleet.driver_token(driver_id),
            self._world,
            random.Random(f"{self._options.seed} {driver_id}"),
            self._place_of(driver_id),
        )
        login = make_login(driver_id, self._settings, self._fleet, mqtt_5=self._options.mqtt_5)
        device = Device(login, self._journal, self._settings.ack_every_s)
        device.reporter.pace = self._options.speedup
        device.reporter.follow(self._options.report)
        self._devices[driver_id] = device
        return courier

    async def _grow(self, group: asyncio.TaskGroup) -> None:
        """Take on more couriers, as far as they are wanted and the platform knows them."""
        for driver_id in self._options.driver_ids(self._wanted)[len(self._couriers) :]:
            courier = self._hire(driver_id)
            try:
                await self._begin(courier, group)
            except UnknownCourier as exc:
                del self._couriers[driver_id], self._devices[driver_id]
                if driver_id != self._unknown:
                    self._log.warning("courier_unknown", detail=str(exc), wanted=self._wanted)
                self._unknown = driver_id  # who is registered a moment later joins then
                return
            self._phones.append(asyncio.create_task(self._devices[driver_id].run()))
            self._due[driver_id] = time.monotonic()
            self._dispatch.on_shift = min(self._wanted, len(self._couriers))

    async def _change_shift(self, group: asyncio.TaskGroup) -> None:
        """Send couriers without an order home, or call some back, as many as are wanted."""
        while True:
            await asyncio.sleep(CHANGE_EVERY_S)
            for phone in self._phones:
                if phone.done():
                    phone.result()  # raises what it has died of
            await self._grow(group)
            for number, (driver_id, courier) in enumerate(self._couriers.items()):
                if number < self._dispatch.on_shift:
                    if driver_id in self._resting:
                        await courier.on_duty()
                        self._resting.discard(driver_id)
                elif driver_id in self._resting or courier.busy:
                    continue
                elif await courier.off_duty():
                    self._resting.add(driver_id)

    async def _drain(self) -> int:
        deadline = time.monotonic() + self._drain_s
        while (left := self.pending) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            self._journal.commit()
        return left

    async def _go_home(self) -> None:
        """Those without an order go off duty, so that nobody counts on them."""
        idle = [courier for courier in self._couriers.values() if not courier.busy]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GO_HOME_WITHIN_S):
                await asyncio.gather(*(courier.off_duty() for courier in idle))

    @property
    def pending(self) -> int:
        """How many fixes the watermark has not passed."""
        return sum(device.pending for device in self._devices.values())

    # -- reporting --------------------------------------------------------------------------

    async def _report(self) -> None:
        """Write every courier's fix when it is due, make it durable, publish it."""
        every_s = REPORT_EVERY_S / self._options.speedup
        step_s = every_s / len(self._couriers)
        began = noted = time.monotonic()  # a clock that is set does not change the pace
        self._due = {one: began + number * step_s for number, one in enumerate(self._couriers)}
        while True:
            now, wall_s, clock_s = time.monotonic(), time.time(), self._world.clock.now_s()
            fresh, reported = [], 0
            for driver_id, due in self._due.items():
                late_s = now - due
                if late_s < 0 or driver_id in self._resting:
                    continue
                courier, device = self._couriers[driver_id], self._devices[driver_id]
                fix = courier.observe(clock_s - late_s * self._options.speedup)
                reported += device.observe({"fix_at": round((wall_s - late_s) * 1000), **fix})
                fresh.append(device)
                self._due[driver_id] += every_s if late_s < CATCH_UP_S else late_s + every_s
            if now - noted > NOTE_EVERY_S:
                self._save_positions()
                noted = now
            self._journal.commit()
            for device in fresh:
                device.pump()
            self._reported += reported
            await asyncio.sleep(TICK_S)

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            devices = self._devices.values()
            self._log.info(
                "shift",
                reported=self._reported,
                fixes_per_s=round(self._reported / (time.monotonic() - self._began), 1),
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

    # -- beginning --------------------------------------------------------------------------

    def _plan_start(self) -> dict[str, tuple[Job, Stage]]:
        """Choose who is how far with which order when the shift starts, and put them there.

        Nobody who goes on from an earlier life of this process is moved.
        """
        fresh = [one for driver_id, one in self._couriers.items() if driver_id not in self._known]
        stages, weights = list(WARM_STAGES), list(WARM_STAGES.values())
        plan = {}
        for courier in self._rng.sample(fresh, round(len(fresh) * WARM_SHARE)):
            stage = self._rng.choices(stages, weights)[0]
            job = self._dispatch.new_job()
            job.ready_s = self._rng.uniform(*WARM_READY_S)
            courier.put(job, stage)
            plan[courier.driver_id] = (job, stage)
        return plan

    async def _begin(self, courier: Courier, group: asyncio.TaskGroup) -> None:
        """Go on duty, and on with an order from before, or with the one of the plan."""
        async with self._beginning:  # so that the first couriers are done before the last begin
            order = await courier.current_order() if await courier.on_duty() else None
            if order is not None:
                job = self._job_of(order, order["restaurant"])
                picked_up = order["state"] in ("picked_up", "arriving", "at_customer")
                stage = Stage.TO_CUSTOMER if picked_up else Stage.AT_RESTAURANT
                if courier.driver_id not in self._known:
                    courier.put(job, stage)
                courier.give(job, stage)
                self._dispatch.watch(job)
            elif (planned := self._plan.get(courier.driver_id)) is not None:
                job, stage = planned
                await self._dispatch.start_under_way(job, courier, stage)
        group.create_task(courier.live())

    async def _begin_waiting_orders(self) -> None:
        """Orders that have no courier yet: those from before, and some new ones."""
        places = {one.restaurant_id: asdict(one) for one in self._restaurants}
        for order in await self._dispatch.pending_orders():
            if (restaurant := places.get(order["restaurant_id"])) is not None:
                job = self._job_of(order, restaurant)
                self._dispatch.start(job, confirmed=order["state"] == "confirmed")
        for _ in range(round(len(self._plan) * WAITING_SHARE)):
            self._dispatch.start(self._dispatch.new_job())

    def _job_of(self, order: dict[str, Any], restaurant: dict[str, Any]) -> Job:
        streets, goal = self._world.streets, order["destination"]
        return Job(
            place_restaurant(streets, 0, "", restaurant["lon_deg"], restaurant["lat_deg"]),
            place_door(streets, goal["lon_deg"], goal["lat_deg"]),
            self._world.clock.now_s() + self._rng.uniform(*WARM_READY_S),
            order_id=str(order["order_id"]),
        )

    def _place_of(self, driver_id: str) -> Point:
        """Where a courier was, or somewhere near a restaurant, where those without an order are."""
        if driver_id in self._known:
            return self._world.streets.to_xy(*self._known[driver_id])
        return self._rng.choice(self._restaurants).place.point


def first_of_ours(failure: BaseException) -> BaseException:
    """The first error in a group that is a sentence of ours, or else the whole group."""
    if not isinstance(failure, BaseExceptionGroup):
        return failure
    ours: BaseException | None = failure.subgroup(DoorstepError)
    while isinstance(ours, BaseExceptionGroup):
        ours = ours.exceptions[0]
    return ours or failure


def read_positions(journal: Journal, now: float) -> dict[str, Point]:
    """Where everyone was when the journal's last process ended, (lon_deg, lat_deg).

    Empty when that is too long ago to go on from.
    """
    noted = json.loads(journal.notes().get(POSITIONS_NOTE, '{"at": 0, "places": {}}'))
    if now - noted["at"] > GO_ON_WITHIN_S:
        return {}
    return {driver_id: (place[0], place[1]) for driver_id, place in noted["places"].items()}
