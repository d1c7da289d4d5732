"""The end of a simulation: every fix is committed, or stays in the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from device.device import Device
from device.journal import Journal

POLL_S = 0.2
SPARE_S = 5.0


async def drain(devices: Collection[Device], journal: Journal, ack_every_s: float) -> int:
    """Send every fix, and wait until the watermarks cover them.

    Returns the number that they do not cover once they have stood still for two ack periods.
    """
    for device in devices:
        device.flush()
    patience_s = 2 * ack_every_s + SPARE_S
    fewest, deadline = pending_of(devices), time.monotonic() + patience_s
    while (left := pending_of(devices)) and time.monotonic() < deadline:
        if left < fewest:
            fewest, deadline = left, time.monotonic() + patience_s
        await asyncio.sleep(POLL_S)
        journal.commit()
    return left


def pending_of(devices: Collection[Device]) -> int:
    """The number of fixes that the watermarks do not cover."""
    return sum(device.pending for device in devices)
