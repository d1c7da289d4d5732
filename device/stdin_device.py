"""`python -m device`: publishes fixes from standard input, one JSON object per line."""

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

COMMIT_TIMEOUT_PERIODS = 4  # ack periods
REQUIRED = ("lat_deg", "lon_deg")

EPILOG = """A line is {"lat_deg": 43.77, "lon_deg": 11.25}, with any optional field of a fix.
`fix_at` is the current time by default; boot and seq come from the journal. At the end of the
input the command waits until all fixes are committed.

example:
  echo '{"lat_deg": 43.77, "lon_deg": 11.25}' | python -m device --driver anna"""


async def publish_stdin(options: argparse.Namespace, settings: DeviceSettings) -> int:
    """Publish each line; the return value is the exit status."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    unusable = 0
    async with open_device_session(options.driver, settings, mqtt_5=options.mqtt_5) as session:
        while line := await reader.readline():
            unusable += not _publish(session, line)
        committed = await session.wait_committed(COMMIT_TIMEOUT_PERIODS * settings.ack_every_s)
        device = session.device
        pending, boot, last_seq = device.pending, device.boot, device.last_seq
    print(
        f"boot {boot}: up to seq {last_seq}, {pending} not committed yet, "
        f"{unusable} lines not usable"
    )
    return 0 if committed and not unusable else 1


def _publish(session: DeviceSession, line: bytes) -> bool:
    try:
        fix: dict[str, Any] = {"fix_at": round(time.time() * 1000), **json.loads(line)}
        if not all(isinstance(fix.get(name), int | float) for name in REQUIRED):
            raise ValueError("lat_deg and lon_deg must be numbers")
    except (ValueError, TypeError) as exc:
        print(f"device: {exc}: {line!r}", file=sys.stderr)
        return False
    fix.pop("boot", None)
    fix.pop("seq", None)
    session.observe(fix)
    return True


def main() -> int:
    """Run the command; the return value is the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m device",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--driver", required=True, metavar="ID", help="publish as this driver")
    parser.add_argument("--mqtt-5", action="store_true", help="use MQTT 5 instead of 3.1.1")
    options = parser.parse_args()
    configure_logging("device")
    try:
        return asyncio.run(publish_stdin(options, DeviceSettings.load_or_exit()))
    except DoorstepError as exc:
        print(f"device: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
