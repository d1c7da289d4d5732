"""The orders of a shift: customers order or cancel, kitchens confirm, staff assigns."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from doorstep.geo import distance_m
from simulators.api import Answer
from simulators.couriers import CUSTOMER_NAME
from simulators.couriers.courier import Courier, World
from simulators.couriers.details import cancellation, order_details
from simulators.couriers.job import Ending, Job, Stage

CONFIRM_S = (20.0, 90.0)
ASSIGN_BEFORE_READY_S = 480.0  # about a courier's time to the counter
ASSIGN_WITHIN_S = 120.0  # after the confirmation, even if the kitchen needs longer
ASSIGN_AGAIN_S = 20.0
CANCEL_SHARE = 0.02
STACK_SHARE = 0.15
SOME = 40  # couriers that are looked at for a second order
LAST_STOP = 100  # behind the others
CANCEL_AFTER_S = (30.0, 600.0)


class Dispatch:
    """Creates orders and finds couriers for them, like a restaurant's software."""

    def __init__(
        self,
        world: World,
        staff_token: str,
        couriers: Mapping[str, Courier],
        policy_id: int | None,
        rng: random.Random,
    ) -> None:
        self.endings: Counter[Ending] = Counter()
        self.on_shift = len(couriers)  # the demand is proportional to it
        self._world = world
        self._staff_token = staff_token
        self._couriers = couriers
        self._policy_id = policy_id
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()

    def new_job(self) -> Job:
        """Draw an order, placed now."""
        demand = self._world.demand
        restaurant = demand.restaurant()
        ready_s = self._world.clock.now_s() + demand.preparation_s()
        return Job(restaurant, demand.door(restaurant), ready_s)

    async def take_orders(self) -> None:
        """Create orders until cancelled."""
        clock = self._world.clock
        while True:
            await clock.sleep(self._world.demand.gap_s(max(1, self.on_shift), clock.now_s()))
            self.start(self.new_job())

    def start(self, job: Job, *, confirmed: bool = False) -> None:
        """Run an order in the background. One with an id exists already."""
        self._in_background(self._run_order(job, confirmed=confirmed))

    async def create(self, job: Job) -> None:
        """Create the order through the API."""
        clock = self._world.clock
        ready_in_s = job.ready_s - clock.now_s()
        answer = await self._staff(
            "/orders",
            {
                "restaurant_id": job.restaurant.restaurant_id,
                "destination": {"lon_deg": job.door.lon_deg, "lat_deg": job.door.lat_deg},
                "customer_name": CUSTOMER_NAME,
                **({} if self._policy_id is None else {"policy_id": self._policy_id}),
                **({} if job.pin is None else {"pin": job.pin}),
                **order_details(self._rng, datetime.now(UTC), ready_in_s, clock.speedup),
            },
        )
        if not answer.ok:
            raise RuntimeError(f"POST /orders was refused: {answer.status} {answer.body}")
        job.order_id = answer.body["order_id"]
        job.customer_token = answer.body["customer_token"] or ""  # none for a repeated request

    async def confirm(self, job: Job) -> bool:
        """Confirm the order as the kitchen."""
        return (await self._staff(f"/orders/{job.order_id}/confirm")).ok

    async def start_in_progress(self, job: Job, courier: Courier, stage: Stage) -> None:
        """Create an order and bring it to the stage at which its courier is."""
        await self.create(job)
        await self.confirm(job)
        body = {"driver_id": courier.driver_id}
        if not (await self._staff(f"/orders/{job.order_id}/assign", body)).ok:
            self.start(job, confirmed=True)  # the driver has another order
            return
        if stage.has_food and not await courier.pick_up(job):
            return
        courier.assign(job, stage)
        self._in_background(self._watch(job))

    def watch(self, job: Job) -> None:
        """Continue an order that a courier has already."""
        self._in_background(self._watch(job))

    async def pending_orders(self) -> list[dict[str, Any]]:
        """Return orders of an earlier process that have no courier yet. Not those of others."""
        found: list[dict[str, Any]] = []
        for state in ("created", "confirmed"):
            answer = await self._world.api.tracking(
                "GET", f"/orders?state={state}&limit=100", self._staff_token
            )
            found += answer.body["orders"] if answer.ok else []
        return [one for one in found if one["customer_name"] == CUSTOMER_NAME]

    async def _run_order(self, job: Job, *, confirmed: bool) -> None:
        clock, rng = self._world.clock, self._rng
        if not job.order_id:
            await self.create(job)
        if job.customer_token and rng.random() < CANCEL_SHARE:
            self._in_background(self._cancel(job))
        if not confirmed:
            await clock.sleep(rng.uniform(*CONFIRM_S))
            if not await self.confirm(job):
                return
        await clock.sleep_until(
            min(job.ready_s - ASSIGN_BEFORE_READY_S, clock.now_s() + ASSIGN_WITHIN_S)
        )
        while (courier := await self._assign(job)) is not None:
            courier.assign(job)
            await self._watch(job)
            if job.ending.result() is not Ending.DECLINED:
                return
            job.ending = asyncio.get_running_loop().create_future()

    async def _assign(self, job: Job) -> Courier | None:
        """Assign the nearest courier. Returns None if the order has ended."""
        stacked = await self._stack(job) if self._rng.random() < STACK_SHARE else None
        if stacked is not None:
            return stacked
        while True:
            answer = await self._staff(f"/orders/{job.order_id}/assign", {})
            if answer.ok:
                chosen = self._couriers.get(answer.body["driver_id"])
                return chosen or await self._reassign(job)
            if not (answer.status == 409 and "no-driver" in str(answer.body.get("type"))):
                return None
            await self._world.clock.sleep(ASSIGN_AGAIN_S)

    async def _stack(self, job: Job) -> Courier | None:
        """Give the order to a courier who has one, as a later stop. None if the API refuses."""
        some = self._rng.sample(list(self._couriers.values()), min(SOME, len(self._couriers)))
        goal = job.restaurant.lon_deg, job.restaurant.lat_deg
        for courier in sorted(some, key=lambda one: distance_m(one.position(), goal)):
            if courier.busy and courier.has_room:
                path = f"/orders/{job.order_id}/assign"
                body = {"driver_id": courier.driver_id, "stop_no": LAST_STOP}
                answer = await self._staff(path, body)
                return courier if answer.ok else None
        return None

    async def _reassign(self, job: Job) -> Courier | None:
        """Reassign an order from a driver who is not simulated, and would not deliver it."""
        path = f"/orders/{job.order_id}"
        for courier in self._couriers.values():
            if not courier.busy:
                answer = await self._staff(f"{path}/reassign", {"driver_id": courier.driver_id})
                if answer.ok:
                    return courier
        await self._staff(f"{path}/cancel", {"reason": "no courier available"})
        return None

    async def _watch(self, job: Job) -> None:
        self.endings[await job.ending] += 1
        if job.is_retried:
            await self._start_retry(job)

    async def _start_retry(self, failed: Job) -> None:
        """Run the order that tries a failed one again: the kitchen cooks anew."""
        answer = await self._world.api.tracking(
            "GET", f"/orders/{failed.order_id}", self._staff_token
        )
        if answer.ok and (order_id := answer.body["retry_order_id"]) is not None:
            ready_s = self._world.clock.now_s() + self._world.demand.preparation_s()
            self.start(Job(failed.restaurant, failed.door, ready_s, order_id))

    async def _cancel(self, job: Job) -> None:
        """Cancel as the customer, after a while. The API refuses if it is too late."""
        await self._world.clock.sleep(self._rng.uniform(*CANCEL_AFTER_S))
        path = f"/orders/{job.order_id}/cancel"
        await self._world.api.tracking("POST", path, job.customer_token, cancellation(self._rng))

    async def _staff(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        return await self._world.api.tracking("POST", path, self._staff_token, body)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "an order's task failed", "exception": task.exception()}
            )

    def stop(self) -> None:
        """Cancel all background tasks."""
        for task in self._tasks:
            task.cancel()


def scaled_policy(speedup: float) -> dict[str, Any]:
    """Return policy 1 scaled for `speedup`: durations are divided, speeds multiplied."""
    times = {
        "dwell_min_s": 30.0,
        "dwell_max_s": 120.0,
        "leave_min_s": 30.0,
        "leave_max_s": 120.0,
        "arriving_min_s": 8.0,
        "report_every_s": 30.0,
    }
    scaled = {name: round(value / speedup, 3) for name, value in times.items()}
    scaled |= {"dwell_max_mps": 3.0 * speedup, "pace": speedup}
    return {"name": f"couriers at {speedup:g} times the speed", **scaled}
