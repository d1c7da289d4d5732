"""The devices of the load: where each driver is, and what their phones report."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device.device import Device, make_login
from device.journal import Journal
from device.settings import DeviceSettings, FleetSecrets
from tests.faults.crew import EVERY_S

TICK_S = 0.04  # fixes that fall due within a tick share one fsync
CONNECT_AT_ONCE = 25
CENTRE = (11.2558, 43.7696)  # Florence
DEGREE_M = 111_195.0  # of latitude


class Record:
    """A file of JSON lines, each whole and on disk's way before anybody acts on it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def note(self, kind: str, **values: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **values}) + "\n")
        self._file.flush()


class Rider:
    """Where a driver is: on the way to a point, a step a fix, or wandering about."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.lon_deg, self.lat_deg = offset(
            *CENTRE, rng.uniform(-2000, 2000), rng.uniform(-2000, 2000)
        )
        self._to: tuple[float, float, float] | None = None  # lon, lat, metres a fix
        self.fixes_here = 0  # since it arrived
        self.wanders = True

    def go(self, lon_deg: float, lat_deg: float, step_m: float) -> None:
        """Set off; `arrived` tells when it is there."""
        self._to, self.wanders, self.fixes_here = (lon_deg, lat_deg, step_m), False, 0

    def put(self, lon_deg: float, lat_deg: float) -> None:
        """Be there at once."""
        self.lon_deg, self.lat_deg = lon_deg, lat_deg
        self.go(lon_deg, lat_deg, 1.0)

    @property
    def arrived(self) -> bool:
        return self._to is None

    def step(self) -> Mapping[str, float]:
        """Move on by one fix, and tell where that is."""
        if self._to is not None:
            lon_deg, lat_deg, step_m = self._to
            left_m = distance_m(self.lon_deg, self.lat_deg, lon_deg, lat_deg)
            share = 1.0 if left_m <= step_m else step_m / left_m
            self.lon_deg += (lon_deg - self.lon_deg) * share
            self.lat_deg += (lat_deg - self.lat_deg) * share
            if share == 1.0:
                self._to = None
        elif self.wanders:
            rng = self._rng
            self.lon_deg, self.lat_deg = offset(
                self.lon_deg, self.lat_deg, rng.uniform(-4, 4), rng.uniform(-4, 4)
            )
        if self._to is None:
            self.fixes_here += 1
        return {"lon_deg": round(self.lon_deg, 7), "lat_deg": round(self.lat_deg, 7)}


class Phones:
    """All devices, in one loop with one journal."""

    def __init__(
        self,
        driver_ids: list[str],
        settings: DeviceSettings,
        fleet: FleetSecrets,
        journal: Journal,
        record: Record,
    ) -> None:
        self._journal = journal
        self._record = record
        self.going = asyncio.Event()
        self.going.set()
        self.recorded: set[str] = set()  # drivers whose fixes are written down
        self.riders = {one: Rider(random.Random(one)) for one in driver_ids}
        self.devices = {
            one: Device(make_login(one, settings, fleet), journal, settings.ack_every_s)
            for one in driver_ids
        }

    async def connect(self) -> list[asyncio.Task[None]]:
        """Switch the phones on, some at a time."""
        tasks = []
        devices = list(self.devices.values())
        for start in range(0, len(devices), CONNECT_AT_ONCE):
            wave = devices[start : start + CONNECT_AT_ONCE]
            tasks += [asyncio.create_task(device.run()) for device in wave]
            for _ in range(250):
                if all(one.connected for one in wave):
                    break
                await asyncio.sleep(0.02)
        return tasks

    async def report(self) -> None:
        """Write each driver's fixes as they fall due, for ever."""
        due = {one: time.monotonic() + EVERY_S * n / len(self.devices)
               for n, one in enumerate(self.devices)}  # fmt: skip
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            ripe = [one for one, at in due.items() if at <= now]
            if not self.going.is_set():
                for one in ripe:
                    due[one] += EVERY_S
                self._journal.commit()  # what acks have let go
                continue
            written = []
            for one in ripe:
                due[one] = max(due[one] + EVERY_S, now - EVERY_S)  # a stall isn't made up for
                fix = {"fix_at": round(time.time() * 1000), **self.riders[one].step()}
                written.append((one, self.devices[one].write(fix), fix))
            self._journal.commit()
            for one, seq, fix in written:
                if one in self.recorded:
                    boot = self.devices[one].boot
                    self._record.note("fix", driver_id=one, boot=boot, seq=seq, **fix)
                self.devices[one].pump()


def offset(lon_deg: float, lat_deg: float, east_m: float, north_m: float) -> tuple[float, float]:
    """The point so many metres away."""
    wide = DEGREE_M * math.cos(math.radians(lat_deg))
    return lon_deg + east_m / wide, lat_deg + north_m / DEGREE_M


def distance_m(lon_deg: float, lat_deg: float, to_lon_deg: float, to_lat_deg: float) -> float:
    """Metres, over short ways."""
    wide = DEGREE_M * math.cos(math.radians(lat_deg))
    return math.hypot((to_lon_deg - lon_deg) * wide, (to_lat_deg - lat_deg) * DEGREE_M)
