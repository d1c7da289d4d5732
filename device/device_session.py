"""One phone for a command: its journal, its device, its connection."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from device.connection import ConnectionFailed
from device.device import Device, make_login
from device.journal import Journal
from device.settings import DeviceSettings, FleetSecrets
from doorstep.errors import SettingsError

POLL_S = 0.05


@dataclass(slots=True)
class DeviceSession:
    """A device with a journal of its own, connected in the background."""

    device: Device
    journal: Journal

    def observe(self, fix: Mapping[str, object]) -> None:
        """Take a fix, and publish what is to be reported of it, as the staff has set it."""
        self.device.observe(fix)
        self.journal.commit()
        self.device.pump()

    def report(self, fix: Mapping[str, object]) -> int:
        """Journal a fix and publish it, or keep it while there is no connection."""
        seq = self.device.write(fix)
        self.journal.commit()
        self.device.pump()
        return seq

    async def connected(self, within_s: float) -> None:
        """Wait for the broker. Raises ConnectionFailed with the last reason."""
        deadline = time.monotonic() + within_s
        while not self.device.connected:
            if time.monotonic() > deadline:
                raise ConnectionFailed(self.device.last_failure or "the broker does not answer")
            await asyncio.sleep(POLL_S)

    async def acknowledged(self, within_s: float) -> bool:
        """Wait until the broker has acknowledged every fix; False if it did not."""
        deadline = time.monotonic() + within_s
        while self.device.unsent:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S / 10)
        return True

    async def settled(self, within_s: float) -> bool:
        """Wait until the committed watermark has passed every fix; False if it did not."""
        deadline = time.monotonic() + within_s
        while self.device.pending:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True


@asynccontextmanager
async def open_device_session(
    driver_id: str, settings: DeviceSettings, *, mqtt_5: bool = False
) -> AsyncIterator[DeviceSession]:
    """Switch on a driver's phone; at the end it says goodbye. Raises SettingsError, JournalInUse.

    What its journal still holds from before is sent first.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", driver_id):
        raise SettingsError(f"{driver_id!r} can't be a driver's id: 1 to 64 letters, digits, _, -")
    login = make_login(driver_id, settings, FleetSecrets(settings), mqtt_5=mqtt_5)
    path = settings.journal_dir / f"device-{driver_id}.sqlite"
    with Journal(path, settings.journal_max_fixes) as journal:
        device = Device(login, journal, settings.ack_every_s)
        running = asyncio.create_task(device.run())
        try:
            yield DeviceSession(device, journal)
        finally:
            await device.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await running
