"""The load's devices: each driver's position, and the reports of their phones."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device.device import Device, make_login
from device.journal import Journal
from device.settings import DeviceSettings, FleetSecrets
from doorstep.geo import distance_m, offset
from tests.faults.load_process import EVERY_S

TICK_S = 0.04  # fixes due within a tick share one fsync
CONNECT_BATCH = 25
CENTRE = (11.2558, 43.7696)  # Florence


class Recorder:
    """Writes JSON lines to a file, flushed one by one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, **values: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **values}) + "\n")
        self._file.flush()


class Rider:
    """A driver's position: moving to a point, one step per fix, or wandering."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.lon_deg, self.lat_deg = offset(
            CENTRE, rng.uniform(-2000, 2000), rng.uniform(-2000, 2000)
        )
        self._to: tuple[float, float, float] | None = None  # lon, lat, metres per fix
        self.fixes_here = 0  # since arrival
        self.wanders = True

    def ride_to(self, lon_deg: float, lat_deg: float, step_m: float) -> None:
        """Start moving. `arrived` is true at the destination."""
        self._to, self.wanders, self.fixes_here = (lon_deg, lat_deg, step_m), False, 0

    def place_at(self, lon_deg: float, lat_deg: float) -> None:
        """Jump to a place."""
        self.lon_deg, self.lat_deg = lon_deg, lat_deg
        self.ride_to(lon_deg, lat_deg, 1.0)

    @property
    def arrived(self) -> bool:
        return self._to is None

    def step(self) -> Mapping[str, float]:
        """Move by one fix and return the position."""
        if self._to is not None:
            lon_deg, lat_deg, step_m = self._to
            left_m = distance_m((self.lon_deg, self.lat_deg), (lon_deg, lat_deg))
            share = 1.0 if left_m <= step_m else step_m / left_m
            self.lon_deg += (lon_deg - self.lon_deg) * share
            self.lat_deg += (lat_deg - self.lat_deg) * share
            if share == 1.0:
                self._to = None
        elif self.wanders:
            rng = self._rng
            self.lon_deg, self.lat_deg = offset(
                (self.lon_deg, self.lat_deg), rng.uniform(-4, 4), rng.uniform(-4, 4)
            )
        if self._to is None:
            self.fixes_here += 1
        return {"lon_deg": round(self.lon_deg, 7), "lat_deg": round(self.lat_deg, 7)}


class LoadDevices:
    """All devices, in one event loop with one journal."""

    def __init__(
        self,
        driver_ids: list[str],
        settings: DeviceSettings,
        fleet: FleetSecrets,
        journal: Journal,
        record: Recorder,
    ) -> None:
        self._journal = journal
        self._record = record
        self.running = asyncio.Event()
        self.running.set()
        self.recorded: set[str] = set()  # drivers whose fixes are recorded
        self.riders = {one: Rider(random.Random(one)) for one in driver_ids}
        self.devices = {
            one: Device(make_login(one, settings, fleet), journal, settings.ack_every_s)
            for one in driver_ids
        }

    async def connect(self) -> list[asyncio.Task[None]]:
        """Connect the devices in batches and return their tasks."""
        tasks = []
        devices = list(self.devices.values())
        for start in range(0, len(devices), CONNECT_BATCH):
            wave = devices[start : start + CONNECT_BATCH]
            tasks += [asyncio.create_task(device.run()) for device in wave]
            for _ in range(250):
                if all(one.connected for one in wave):
                    break
                await asyncio.sleep(0.02)
        return tasks

    async def report(self) -> None:
        """Write each driver's fixes when they are due, for ever."""
        due = {one: time.monotonic() + EVERY_S * n / len(self.devices)
               for n, one in enumerate(self.devices)}  # fmt: skip
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            due_ids = [one for one, at in due.items() if at <= now]
            if not self.running.is_set():
                for one in due_ids:
                    due[one] += EVERY_S
                self._journal.commit()  # acknowledged fixes are deleted
                continue
            written = []
            for one in due_ids:
                due[one] = max(due[one] + EVERY_S, now - EVERY_S)  # no catching up after a stall
                fix = {"fix_at": round(time.time() * 1000), **self.riders[one].step()}
                written.append((one, self.devices[one].write(fix), fix))
            self._journal.commit()
            for one, seq, fix in written:
                if one in self.recorded:
                    boot = self.devices[one].boot
                    self._record.write("fix", driver_id=one, boot=boot, seq=seq, **fix)
                self.devices[one].pump()
