"""Scripted orders with known arrivals: created, assigned, picked up and delivered.

Each courier delivers one order after the other. An order takes about 40 s: 8 s at the restaurant
and 8 s at the customer, under a policy with a dwell of 3 s. Every third order is first assigned to
a second driver, who passes the restaurant without a stop, and is then reassigned: the first
assignment must prove nothing. Every second pick-up has no command: GPS must prove it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from device.settings import FleetSecrets
from doorstep.geo import offset
from simulators.api import Answer, Api
from simulators.couriers.orders import scaled_policy
from tests.faults.load_devices import LoadDevices, Recorder

SPEEDUP = 10  # of the policy's times: a dwell of 3 s instead of 30
STAY_FIXES = 16  # 8 s: a pause may split the stay, and one half is still long enough
RIDE_M = 40.0  # per fix
PASS_M = 30.0
POLL_S = 0.1
REST_S = 2.0
REFUSED_PAUSE_S = 0.5


@dataclass(slots=True)
class OpenOrder:
    """An order that is not over yet."""

    order_id: str
    token: str
    was_assigned: bool = False
    is_over: bool = False
    newest_seq: int = 0


class RecordingTransport(httpx.AsyncBaseTransport):
    """Records each server error other than 503 as a violation."""

    def __init__(self, record: Recorder) -> None:
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=64))
        self._record = record

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if response.status_code >= 500 and response.status_code != 503:
            what = f"{request.method} {request.url.path}: {response.status_code}"
            self._record.write("violation", what=what)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class OrderScript:
    """The script of all couriers."""

    def __init__(self, load: LoadDevices, api: Api, fleet: FleetSecrets, record: Recorder) -> None:
        self.open_orders: dict[str, OpenOrder] = {}
        self._load = load
        self._api = api
        self._fleet = fleet
        self._record = record
        self._restaurants: list[tuple[int, float, float]] = []
        self._policy_id = 0

    async def run(self, pairs: list[tuple[str, str]]) -> None:
        """Deliver orders for ever. Each pair is a courier and a driver who passes by."""
        answer = await self._staff("GET", "/restaurants")
        self._restaurants = [
            (one["restaurant_id"], one["lon_deg"], one["lat_deg"])
            for one in answer.body["restaurants"]
        ]
        policy = await self._staff("POST", "/policies", scaled_policy(SPEEDUP))
        self._policy_id = int(policy.body["policy_id"])
        async with asyncio.TaskGroup() as group:
            for number, (courier, passer) in enumerate(pairs):
                group.create_task(self._run_courier(courier, passer, number / len(pairs)))

    async def _run_courier(self, courier: str, passer: str, share: float) -> None:
        rng = random.Random(courier)
        for driver_id in (courier, passer):
            self._load.recorded.add(driver_id)
            await self._driver(driver_id, "on-duty")
        await asyncio.sleep(share * 20)  # couriers start at different times
        number = rng.randrange(6)
        while True:
            await self._load.running.wait()
            await self._deliver(courier, passer, number, rng)
            number += 1
            await asyncio.sleep(REST_S)

    async def _deliver(self, courier: str, passer: str, number: int, rng: random.Random) -> None:
        place, lon_deg, lat_deg = rng.choice(self._restaurants)
        east = rng.choice((-1, 1)) * rng.uniform(900, 1400)
        door = offset((lon_deg, lat_deg), east, rng.uniform(-300, 300))
        order = await self._order(place, (lon_deg, lat_deg), door)
        order_id, riders = order.order_id, self._load.riders
        verb, no = "assign", 1
        if number % 3 == 0:
            riders[passer].place_at(*offset((lon_deg, lat_deg), -500, 10))
            await self._assign(order, "assign", passer, 1)
            riders[passer].ride_to(*offset((lon_deg, lat_deg), 500, 10), PASS_M)
            await self._wait_arrived(passer)
            verb, no = "reassign", 2
        riders[courier].place_at(*offset((lon_deg, lat_deg), 0, 400))
        await self._assign(order, verb, courier, no)
        riders[courier].ride_to(lon_deg, lat_deg, RIDE_M)
        await self._wait_arrived(courier, STAY_FIXES)
        if number % 2 == 0:
            await self._command_until_accepted(courier, order_id, "picked-up")
        riders[courier].ride_to(*door, RIDE_M)
        await self._wait_arrived(courier, STAY_FIXES)
        await self._command_until_accepted(courier, order_id, "delivered")
        order.is_over = True
        self._record.write("done", order_id=order_id, assignment_no=no)
        await asyncio.sleep(2 * REST_S)  # the customer polls once more
        self.open_orders.pop(order_id)

    async def _order(
        self, restaurant_id: int, restaurant: tuple[float, float], door: tuple[float, float]
    ) -> OpenOrder:
        body = {
            "restaurant_id": restaurant_id,
            "destination": {"lon_deg": door[0], "lat_deg": door[1]},
            "policy_id": self._policy_id,
        }
        answer = await self._staff("POST", "/orders", body)
        order_id, token = answer.body["order_id"], answer.body["customer_token"]
        if token is None:  # the first answer was lost
            link = await self._staff("POST", f"/orders/{order_id}/link")
            token = link.body["customer_token"]
        order = OpenOrder(order_id, token)
        self._record.write("order", order_id=order.order_id, restaurant=restaurant, customer=door)
        self.open_orders[order.order_id] = order
        await self._staff("POST", f"/orders/{order.order_id}/confirm")
        return order

    async def _assign(self, order: OpenOrder, verb: str, driver_id: str, no: int) -> None:
        """Send the command and record the assignment."""
        await self._load.running.wait()
        order.was_assigned = True
        path = f"/orders/{order.order_id}/{verb}"
        await self._staff("POST", path, {"driver_id": driver_id})
        self._record.write(
            "assigned", order_id=order.order_id, driver_id=driver_id, assignment_no=no
        )

    async def _command_until_accepted(self, driver_id: str, order_id: str, command: str) -> None:
        """Repeat a command until it is legal: the evidence may arrive late."""
        while True:
            await self._load.running.wait()
            answer = await self._driver(driver_id, f"orders/{order_id}/{command}")
            if answer.ok:
                return
            if answer.status != 409:
                raise RuntimeError(f"{command} was rejected: {answer.status} {answer.body}")
            await asyncio.sleep(REFUSED_PAUSE_S)

    async def _wait_arrived(self, driver_id: str, min_fixes: int = 0) -> None:
        rider = self._load.riders[driver_id]
        while not rider.arrived or rider.fixes_here < min_fixes:  # noqa: ASYNC110 - a tick moves it
            await asyncio.sleep(POLL_S)

    async def _staff(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        answer = await self._api.tracking(method, path, self._fleet.staff_token(), body)
        if not answer.ok:
            raise RuntimeError(f"{method} {path} was rejected: {answer.status} {answer.body}")
        return answer

    async def _driver(self, driver_id: str, command: str) -> Answer:
        path = f"/drivers/{driver_id}/{command}"
        return await self._api.driver("POST", path, self._fleet.driver_token(driver_id))
