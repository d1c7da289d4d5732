"""Customers who poll GET /track, and phones that PATCH their location. No request is retried.

A customer sees a position from the first assignment to the end of the order only, and never an
older `order_seq` than before. A PATCH answered with 200 is committed. No response and 503 are
allowed; any other 5xx is a violation.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

import httpx

from device.settings import DeviceSettings, FleetSecrets
from doorstep.geo import offset
from doorstep.provision import numbered_ids
from tests.faults.load_devices import CENTRE, LoadDevices, Recorder
from tests.faults.load_process import PATCHED, PATCHED_DRIVERS
from tests.faults.scripted_orders import OpenOrder, OrderScript

TRACK_EVERY_S = 0.1
PATCH_EVERY_S = 1.0  # per driver
ANSWER_WITHIN_S = 10.0


class Prober:
    """Sends requests and records every response."""

    def __init__(
        self,
        settings: DeviceSettings,
        fleet: FleetSecrets,
        load: LoadDevices,
        script: OrderScript,
        record: Recorder,
        transport: httpx.AsyncBaseTransport,
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._load = load
        self._script = script
        self._record = record
        self._client = httpx.AsyncClient(
            transport=transport, timeout=ANSWER_WITHIN_S, trust_env=False
        )
        self._requests: set[asyncio.Task[None]] = set()
        self._rng = random.Random(1)

    async def run(self) -> None:
        """Send requests for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._track())
            for driver_id in numbered_ids(PATCHED, PATCHED_DRIVERS):
                group.create_task(self._patch(driver_id))

    async def _track(self) -> None:
        while True:
            await asyncio.sleep(TRACK_EVERY_S)
            for task in [one for one in self._requests if one.done()]:
                self._requests.discard(task)
                task.result()
            if self._script.open_orders:
                live = self._rng.choice(list(self._script.open_orders.values()))
                self._requests.add(asyncio.create_task(self._track_once(live)))

    async def _track_once(self, live: OpenOrder) -> None:
        was_over, seen_before = live.is_over, live.newest_seq
        url = f"{self._settings.tracking_api_url}/track/{live.order_id}"
        answer = await self._send("track", "GET", url, live.token)
        if answer is None or answer.status_code != 200:
            return
        track = answer.json()
        if track["position"] is not None and (was_over or not live.was_assigned):
            when = "after the end" if was_over else "before any assignment"
            self._record.write("violation", what=f"{live.order_id}: a position {when}")
        if track["order_seq"] < seen_before:
            self._record.write("violation", what=f"{live.order_id}: order_seq went back")
        live.newest_seq = max(live.newest_seq, track["order_seq"])

    async def _patch(self, driver_id: str) -> None:
        token = self._fleet.driver_token(driver_id)
        url = f"{self._settings.driver_api_url}/drivers/{driver_id}/location"
        while True:
            await asyncio.sleep(PATCH_EVERY_S)
            await self._load.running.wait()
            east, north = self._rng.uniform(-900, 900), self._rng.uniform(-900, 900)
            lon_deg, lat_deg = (round(one, 7) for one in offset(CENTRE, east, north))
            fix = {"fix_at": round(time.time() * 1000), "lon_deg": lon_deg, "lat_deg": lat_deg}
            answer = await self._send("patch", "PATCH", url, token, fix)
            if answer is not None and answer.status_code == 200:
                self._record.write("patched", driver_id=driver_id, **fix)

    async def _send(
        self, what: str, method: str, url: str, token: str, body: Any = None
    ) -> httpx.Response | None:
        at_s, headers = time.time(), {"Authorization": f"Bearer {token}"}
        answer = None
        with contextlib.suppress(httpx.TransportError):
            answer = await self._client.request(method, url, headers=headers, json=body)
        status, took_s = answer.status_code if answer else 0, round(time.time() - at_s, 4)
        self._record.write("response", what=what, at_s=round(at_s, 3), took_s=took_s, status=status)
        return answer
