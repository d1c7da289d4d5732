"""The vans' devices: one journal, a fix every four seconds, added and removed while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence

from device.device import Device, make_login
from device.journal import Journal
from device.publish_spans import NO_TRACING, DeviceTracing
from device.settings import DeviceSettings, FleetSecrets
from doorstep.telemetry import get_logger
from simulators.api import Api
from simulators.cities.atlas import City
from simulators.cities.van import SPEED_MPS, Van
from simulators.draining import drain

PREFIX, MAX_VANS = "city-", 500  # as doorstep.provision.CITIES, which `./run cities` registers
REPORT_EVERY_S = 4.0
TICK_S = 0.1
JOIN_PARALLEL = 10  # connections at a time


def driver_id_of(number: int) -> str:
    """Name the driver of a van; numbers start at 1."""
    return f"{PREFIX}{number:03}"


class Vans:
    """The running vans, and the last positions of the others."""

    def __init__(
        self,
        cities: Sequence[City],
        positions: Mapping[str, tuple[float, float]],
        settings: DeviceSettings,
        fleet: FleetSecrets,
        api: Api,
        journal: Journal,
        speedup: float = 1.0,
        tracing: DeviceTracing = NO_TRACING,
    ) -> None:
        self._cities = cities
        self._positions = dict(positions)
        self._settings = settings
        self._fleet = fleet
        self._api = api
        self._journal = journal
        self._tracing = tracing
        self._speed_mps = SPEED_MPS * speedup
        self._rng = random.Random()
        self._vans: dict[str, tuple[Van, Device, asyncio.Task[None]]] = {}
        self._due: dict[str, float] = {}
        self._target = 0
        self._log = get_logger()

    def resize(self, count: int) -> None:
        """Set the target count, MAX_VANS at most."""
        self._target = min(max(0, count), MAX_VANS)

    @property
    def _devices(self) -> list[Device]:
        return [device for _, device, _ in self._vans.values()]

    @property
    def running(self) -> set[str]:
        """The drivers of the running vans."""
        return set(self._vans)

    async def run(self) -> None:
        """Apply the target count and publish fixes, forever."""
        while True:
            await self._apply_target()
            self._publish_fixes()
            await asyncio.sleep(TICK_S)

    async def stop(self) -> int:
        """Stop all vans once their fixes are committed. Returns the number of fixes left."""
        left = await drain(self._devices, self._journal, self._settings.ack_every_s)
        await asyncio.gather(*(self._leave(one) for one in list(self._vans)))
        self._journal.commit()
        return left

    async def _apply_target(self) -> None:
        target = {driver_id_of(number) for number in range(1, self._target + 1)}
        missing = sorted(target - self.running)
        surplus = sorted(self.running - target)
        if missing:
            joining = missing[:JOIN_PARALLEL]
            await asyncio.gather(*(self._join(one) for one in joining))
        if surplus:
            await asyncio.gather(*(self._leave(one) for one in surplus))
        if surplus or (missing and len(missing) <= JOIN_PARALLEL):
            self._log.info("vans", running=len(self._vans))

    async def _join(self, driver_id: str) -> None:
        position = self._positions.get(driver_id) or self._rng.choice(self._cities).lon_lat
        await self._command(driver_id, "on-duty")
        login = make_login(driver_id, self._settings, self._fleet)
        spans = self._tracing.of(driver_id)
        device = Device(login, self._journal, self._settings.ack_every_s, spans)
        van = Van(self._cities, position, time.monotonic(), self._rng, self._speed_mps)
        self._vans[driver_id] = (van, device, asyncio.create_task(device.run()))
        self._due[driver_id] = time.monotonic() + self._rng.uniform(0, REPORT_EVERY_S)

    async def _leave(self, driver_id: str) -> None:
        van, device, task = self._vans.pop(driver_id)
        self._positions[driver_id] = van.position(time.monotonic())
        del self._due[driver_id]
        await device.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self._command(driver_id, "off-duty")

    async def _command(self, driver_id: str, command: str) -> None:
        """Send a duty command. The API may refuse `off-duty` to a driver with an order."""
        token = self._fleet.driver_token(driver_id)
        await self._api.driver("POST", f"/drivers/{driver_id}/{command}", token)

    def _publish_fixes(self) -> None:
        """Write all fixes that are due, make them durable with one fsync, and publish them."""
        now_s, at_ms = time.monotonic(), round(time.time() * 1000)
        due = []
        for driver_id, (van, device, _) in self._vans.items():
            if now_s < self._due[driver_id]:
                continue
            device.observe({"fix_at": at_ms, **van.observe(now_s)})
            self._due[driver_id] = max(self._due[driver_id] + REPORT_EVERY_S, now_s)
            due.append(device)
        if due:
            self._journal.commit()
            for device in due:
                device.pump()
