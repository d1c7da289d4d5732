"""Orders whose arrivals are known beforehand: placed, assigned, carried and delivered by script.

Each courier takes one order after the other, which takes some 40 s: at the restaurant for 8 s, at
the door for 8 s, under a policy whose dwell is 3 s. Every third order is first given to a passer,
who rides past the restaurant without a stop, and then to the courier: that assignment proves
nothing. Every second pick-up is left to GPS.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from device.settings import FleetSecrets
from simulators.api import Answer, Api
from simulators.couriers.orders import scaled_policy
from tests.faults.phones import Phones, Record, offset

SPEEDUP = 10  # of the policy's times: 3 s of dwell instead of 30
STAY_FIXES = 16  # 8 s: a pause may cut it in two, and one half is still long enough
RIDE_M = 40.0  # a fix
PASS_M = 30.0
POLL_S = 0.1
REST_S = 2.0
REFUSED_PAUSE_S = 0.5


@dataclass(slots=True)
class Live:
    """One order under way, for whoever asks about it."""

    order_id: str
    token: str
    was_assigned: bool = False
    is_over: bool = False
    newest_seq: int = 0


class Noting(httpx.AsyncBaseTransport):
    """Writes down each answer that is a failure of the server, other than 503."""

    def __init__(self, record: Record) -> None:
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=64))
        self._record = record

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if response.status_code >= 500 and response.status_code != 503:
            what = f"{request.method} {request.url.path}: {response.status_code}"
            self._record.note("violation", what=what)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class Script:
    """All couriers' work."""

    def __init__(self, load: Phones, api: Api, fleet: FleetSecrets, record: Record) -> None:
        self.live: dict[str, Live] = {}
        self._load = load
        self._api = api
        self._fleet = fleet
        self._record = record
        self._restaurants: list[tuple[int, float, float]] = []
        self._policy_id = 0

    async def run(self, pairs: list[tuple[str, str]]) -> None:
        """Carry orders for ever; each pair is a courier and their passer."""
        answer = await self._staff("GET", "/restaurants")
        self._restaurants = [
            (one["restaurant_id"], one["lon_deg"], one["lat_deg"])
            for one in answer.body["restaurants"]
        ]
        policy = await self._staff("POST", "/policies", scaled_policy(SPEEDUP))
        self._policy_id = int(policy.body["policy_id"])
        async with asyncio.TaskGroup() as group:
            for number, (courier, passer) in enumerate(pairs):
                group.create_task(self._work(courier, passer, number / len(pairs)))

    async def _work(self, courier: str, passer: str, share: float) -> None:
        rng = random.Random(courier)
        for driver_id in (courier, passer):
            self._load.recorded.add(driver_id)
            await self._driver(driver_id, "on-duty")
        await asyncio.sleep(share * 20)  # not all of them at the same place of the script
        number = rng.randrange(6)
        while True:
            await self._load.going.wait()
            await self._carry(courier, passer, number, rng)
            number += 1
            await asyncio.sleep(REST_S)

    async def _carry(self, courier: str, passer: str, number: int, rng: random.Random) -> None:
        place, lon_deg, lat_deg = rng.choice(self._restaurants)
        east = rng.choice((-1, 1)) * rng.uniform(900, 1400)
        door = offset(lon_deg, lat_deg, east, rng.uniform(-300, 300))
        live = await self._order(place, (lon_deg, lat_deg), door)
        order_id, riders = live.order_id, self._load.riders
        verb, no = "assign", 1
        if number % 3 == 0:
            riders[passer].put(*offset(lon_deg, lat_deg, -500, 10))
            await self._give(live, "assign", passer, 1)
            riders[passer].go(*offset(lon_deg, lat_deg, 500, 10), PASS_M)
            await self._arrived(passer)
            verb, no = "reassign", 2
        riders[courier].put(*offset(lon_deg, lat_deg, 0, 400))
        await self._give(live, verb, courier, no)
        riders[courier].go(lon_deg, lat_deg, RIDE_M)
        await self._arrived(courier, STAY_FIXES)
        if number % 2 == 0:
            await self._until_accepted(courier, order_id, "picked-up")
        riders[courier].go(*door, RIDE_M)
        await self._arrived(courier, STAY_FIXES)
        await self._until_accepted(courier, order_id, "delivered")
        live.is_over = True
        self._record.note("done", order_id=order_id, assignment_no=no)
        await asyncio.sleep(2 * REST_S)  # its customer looks once more
        self.live.pop(order_id)

    async def _order(
        self, restaurant_id: int, restaurant: tuple[float, float], door: tuple[float, float]
    ) -> Live:
        body = {
            "restaurant_id": restaurant_id,
            "destination": {"lon_deg": door[0], "lat_deg": door[1]},
            "policy_id": self._policy_id,
        }
        answer = await self._staff("POST", "/orders", body)
        live = Live(answer.body["order_id"], answer.body["customer_token"])
        self._record.note("order", order_id=live.order_id, restaurant=restaurant, customer=door)
        self.live[live.order_id] = live
        await self._staff("POST", f"/orders/{live.order_id}/confirm")
        return live

    async def _give(self, live: Live, verb: str, driver_id: str, no: int) -> None:
        """Assign; the driver may have been given to somebody by a command repeated too late."""
        await self._load.going.wait()
        live.was_assigned = True
        path = f"/orders/{live.order_id}/{verb}"
        await self._staff("POST", path, {"driver_id": driver_id})
        self._record.note("gave", order_id=live.order_id, driver_id=driver_id, assignment_no=no)

    async def _until_accepted(self, driver_id: str, order_id: str, command: str) -> None:
        """Command until it is legal: a pick-up that GPS proves may be seen late."""
        while True:
            await self._load.going.wait()
            answer = await self._driver(driver_id, f"orders/{order_id}/{command}")
            if answer.ok:
                return
            if answer.status != 409:
                raise RuntimeError(f"{command} was refused: {answer.status} {answer.body}")
            await asyncio.sleep(REFUSED_PAUSE_S)

    async def _arrived(self, driver_id: str, and_stayed: int = 0) -> None:
        rider = self._load.riders[driver_id]
        while not rider.arrived or rider.fixes_here < and_stayed:  # noqa: ASYNC110 - a tick moves it
            await asyncio.sleep(POLL_S)

    async def _staff(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        answer = await self._api.tracking(method, path, self._fleet.staff_token(), body)
        if not answer.ok:
            raise RuntimeError(f"{method} {path} was refused: {answer.status} {answer.body}")
        return answer

    async def _driver(self, driver_id: str, command: str) -> Answer:
        path = f"/drivers/{driver_id}/{command}"
        return await self._api.driver("POST", path, self._fleet.driver_token(driver_id))
