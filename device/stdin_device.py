"""`python -m device`: fixes from a pipe, one JSON object a line, sent as a device."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

from device.device_session import DeviceSession, open_device_session
from device.settings import DeviceSettings
from doorstep.errors import DoorstepError
from doorstep.telemetry import configure_logging

SETTLE_PERIODS = 4
NEEDED = ("lat_deg", "lon_deg")

EPILOG = """A line is {"lat_deg": 43.77, "lon_deg": 11.25}, with any optional field. Without
`fix_at` it is dated now; boot and seq are the journal's. At the end of the input the command
waits until everything is committed."""


async def pipe(options: argparse.Namespace, settings: DeviceSettings) -> int:
    """Send each line as it comes."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    refused = 0
    async with open_device_session(options.driver, settings, mqtt_5=options.mqtt_5) as phone:
        while line := await reader.readline():
            refused += not _report(phone, line)
        settled = await phone.settled(SETTLE_PERIODS * settings.ack_every_s)
        left, boot, last = phone.device.pending, phone.device.boot, phone.device.last_seq
    print(f"boot {boot}: up to seq {last}, {left} not committed yet, {refused} lines not usable")
    return 0 if settled and not refused else 1


def _report(phone: DeviceSession, line: bytes) -> bool:
    try:
        fix: dict[str, Any] = {"fix_at": round(time.time() * 1000), **json.loads(line)}
        if not all(isinstance(fix.get(name), int | float) for name in NEEDED):
            raise ValueError("lat_deg and lon_deg are needed")
    except (ValueError, TypeError) as exc:
        print(f"device: {exc}: {line!r}", file=sys.stderr)
        return False
    fix.pop("boot", None)
    fix.pop("seq", None)
    phone.observe(fix)
    return True


def main() -> int:
    """Read stdin to its end."""
    parser = argparse.ArgumentParser(
        prog="python -m device",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--driver", required=True, metavar="ID", help="publish as this driver")
    parser.add_argument("--mqtt-5", action="store_true", help="speak MQTT 5 instead of 3.1.1")
    options = parser.parse_args()
    configure_logging("device")
    try:
        return asyncio.run(pipe(options, DeviceSettings.load_or_exit()))
    except DoorstepError as exc:
        print(f"device: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
