"""The vans' devices: one journal, one report every four seconds, added and removed as it runs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence

from device.device import Device, make_login
from device.journal import Journal
from device.settings import DeviceSettings, FleetSecrets
from doorstep.telemetry import get_logger
from simulators.api import Api
from simulators.cities.atlas import City
from simulators.cities.van import SPEED_MPS, Van

PREFIX, MOST = "city-", 500  # doorstep.provision.CITIES: what `./run cities` registers
REPORT_EVERY_S = 4.0
TICK_S = 0.1
JOIN_AT_ONCE = 10  # a broker takes connections in waves


def driver_id_of(number: int) -> str:
    """Name a van's driver; vans count from 1."""
    return f"{PREFIX}{number:03}"


class Vans:
    """Every van that runs, and where each one was that did."""

    def __init__(
        self,
        cities: Sequence[City],
        known: Mapping[str, tuple[float, float]],
        settings: DeviceSettings,
        fleet: FleetSecrets,
        api: Api,
        journal: Journal,
        speedup: float = 1.0,
    ) -> None:
        self._cities = cities
        self._places = dict(known)
        self._settings = settings
        self._fleet = fleet
        self._api = api
        self._journal = journal
        self._speed_mps = SPEED_MPS * speedup
        self._rng = random.Random()
        self._vans: dict[str, tuple[Van, Device, asyncio.Task[None]]] = {}
        self._due: dict[str, float] = {}
        self._wanted = 0
        self._log = get_logger()

    def resize(self, count: int) -> None:
        """Have so many vans soon, at most MOST."""
        self._wanted = min(max(0, count), MOST)

    @property
    def pending(self) -> int:
        """How many fixes the committed watermark has not passed."""
        return sum(device.pending for _, device, _ in self._vans.values())

    @property
    def running(self) -> set[str]:
        """Who drives."""
        return set(self._vans)

    async def run(self) -> None:
        """Drive and report, and follow what is wanted, for ever."""
        while True:
            await self._follow()
            self._report()
            await asyncio.sleep(TICK_S)

    async def stop(self, within_s: float) -> int:
        """Let every van finish; returns how many fixes stay in the journal."""
        deadline = time.monotonic() + within_s
        while self.pending and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            self._journal.commit()
        left = self.pending
        await asyncio.gather(*(self._leave(one) for one in list(self._vans)))
        self._journal.commit()
        return left

    async def _follow(self) -> None:
        wanted = {driver_id_of(number) for number in range(1, self._wanted + 1)}
        missing = sorted(wanted - self.running)
        gone = sorted(self.running - wanted)
        if missing:
            joining = missing[:JOIN_AT_ONCE]
            await asyncio.gather(*(self._join(one) for one in joining))
        if gone:
            await asyncio.gather(*(self._leave(one) for one in gone))
        if gone or (missing and len(missing) <= JOIN_AT_ONCE):
            self._log.info("vans", running=len(self._vans))

    async def _join(self, driver_id: str) -> None:
        place = self._places.get(driver_id) or self._rng.choice(self._cities).lon_lat
        await self._command(driver_id, "on-duty")
        login = make_login(driver_id, self._settings, self._fleet)
        device = Device(login, self._journal, self._settings.ack_every_s)
        van = Van(self._cities, place, time.monotonic(), self._rng, self._speed_mps)
        self._vans[driver_id] = (van, device, asyncio.create_task(device.run()))
        self._due[driver_id] = time.monotonic() + self._rng.uniform(0, REPORT_EVERY_S)

    async def _leave(self, driver_id: str) -> None:
        van, device, task = self._vans.pop(driver_id)
        self._places[driver_id] = van.place(time.monotonic())
        del self._due[driver_id]
        await device.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self._command(driver_id, "off-duty")

    async def _command(self, driver_id: str, command: str) -> None:
        """Say whether it works; a driver who has an order can't go off duty, and that is fine."""
        token = self._fleet.driver_token(driver_id)
        await self._api.driver("POST", f"/drivers/{driver_id}/{command}", token)

    def _report(self) -> None:
        """Write every fix that is due, make them durable with one fsync, publish them."""
        now_s, at_ms = time.monotonic(), round(time.time() * 1000)
        fresh = []
        for driver_id, (van, device, _) in self._vans.items():
            if now_s < self._due[driver_id]:
                continue
            device.observe({"fix_at": at_ms, **van.observe(now_s)})
            self._due[driver_id] = max(self._due[driver_id] + REPORT_EVERY_S, now_s)
            fresh.append(device)
        if fresh:
            self._journal.commit()
            for device in fresh:
                device.pump()
