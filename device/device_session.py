"""A device with a journal of its own, for a command that publishes as one driver."""

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
from device.publish_spans import open_device_tracing
from device.settings import DeviceSettings, FleetSecrets
from doorstep.errors import SettingsError

POLL_S = 0.05


@dataclass(slots=True)
class DeviceSession:
    """A device that connects in the background, and its journal."""

    device: Device
    journal: Journal

    def observe(self, fix: Mapping[str, object]) -> None:
        """Publish what the sampling policy wants sent, for a new fix."""
        self.device.observe(fix)
        self.journal.commit()
        self.device.pump()

    def report(self, fix: Mapping[str, object]) -> int:
        """Write a fix to the journal, publish it once connected, and return its seq."""
        seq = self.device.write(fix)
        self.journal.commit()
        self.device.pump()
        return seq

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait for the connection. Raises ConnectionFailed with the last reason."""
        deadline = time.monotonic() + timeout_s
        while not self.device.connected:
            if time.monotonic() > deadline:
                raise ConnectionFailed(self.device.last_failure or "the broker does not answer")
            await asyncio.sleep(POLL_S)

    async def wait_acknowledged(self, timeout_s: float) -> bool:
        """Wait for the PUBACK of every fix. Returns False on a timeout."""
        deadline = time.monotonic() + timeout_s
        while self.device.unsent:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S / 10)
        return True

    async def wait_committed(self, timeout_s: float) -> bool:
        """Send all, and wait until the watermark covers every fix. Returns False on a timeout."""
        self.device.flush()
        deadline = time.monotonic() + timeout_s
        while self.device.pending:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True


@asynccontextmanager
async def open_device_session(
    driver_id: str, settings: DeviceSettings, *, mqtt_5: bool = False
) -> AsyncIterator[DeviceSession]:
    """Run a driver's device, and disconnect it at the end. Raises SettingsError, JournalInUse.

    Pending fixes of its journal are sent first.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", driver_id):
        raise SettingsError(f"{driver_id!r} is not a driver's id: 1 to 64 letters, digits, _ or -")
    login = make_login(driver_id, settings, FleetSecrets(settings), mqtt_5=mqtt_5)
    path = settings.journal_dir / f"device-{driver_id}.sqlite"
    with (
        Journal(path, settings.journal_max_fixes) as journal,
        open_device_tracing(settings, "device") as tracing,
    ):
        device = Device(login, journal, settings.ack_every_s, tracing.of(driver_id))
        running = asyncio.create_task(device.run())
        try:
            yield DeviceSession(device, journal)
        finally:
            await device.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await running
