"""`./run send`: publishes one fix and reports its outcome."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from typing import Any

from device.device_session import DeviceSession, open_device_session
from device.settings import DeviceSettings, FleetSecrets
from doorstep.errors import DoorstepError
from doorstep.telemetry import configure_logging
from simulators.api import Api
from simulators.outcomes import read_outcomes
from simulators.tracks import parse_instant

CONNECT_TIMEOUT_S = 15.0
COMMIT_TIMEOUT_PERIODS = 3  # ack periods; an ack takes up to two
EXAMPLES = """examples:
  ./run send --driver anna --lat 43.7712 --lon 11.2486
  ./run send --driver anna --lat 43.7712 --lon 11.2486 --at 2026-11-21T12:03:00+01:00

Registers the driver if there is none of that name. The exit status is 0 if the fix is committed."""
OPTIONAL = ("accuracy_m", "speed_mps", "heading_deg", "altitude_m", "battery")


async def send(options: argparse.Namespace, settings: DeviceSettings) -> int:
    """Publish one fix and wait until it is committed or refused."""
    fix = read_fix(options, time.time())
    fleet = FleetSecrets(settings)
    async with (
        open_device_session(options.driver, settings, mqtt_5=options.mqtt_5) as session,
        Api(settings.driver_api_url, settings.tracking_api_url) as api,
    ):
        await session.wait_connected(CONNECT_TIMEOUT_S)
        started_at = time.monotonic()
        seq = session.report(fix)
        identity = {"boot": session.device.boot, "seq": seq}
        print(f"published   {options.driver} boot {identity['boot']} seq {seq}")
        timeout_s = COMMIT_TIMEOUT_PERIODS * settings.ack_every_s
        if await session.wait_acknowledged(timeout_s):
            print(f"broker      acknowledged after {_elapsed(started_at)}")
        is_shown = await _wait_shown(
            session, api, fleet.staff_token(), options.driver, fix, timeout_s
        )
        if is_shown:
            print(f"committed   after {_elapsed(started_at)}: it is the driver's newest position")
            return 0
        if session.device.pending:
            print(f"unknown     the watermark did not cover it within {timeout_s:.0f} s")
            return 1
        outcomes = await read_outcomes(
            api, options.driver, fleet.staff_token(), [{**identity, **fix}]
        )
    outcome = next(iter(outcomes))
    if outcome == "committed":
        outcome = (
            "committed   but not shown as the driver's position: it is quarantined, or older than "
            "another fix"
        )
    print(f"{outcome}, covered by the watermark after {_elapsed(started_at)}")
    return 0 if outcome.startswith(("committed", "quarantined")) else 1


def read_fix(options: argparse.Namespace, now: float) -> dict[str, Any]:
    """Build the fix from the command line, without the optional fields that are not given."""
    at = parse_instant(options.at).timestamp() if options.at else now
    given = {name: getattr(options, name) for name in OPTIONAL}
    return {
        "fix_at": round(at * 1000),
        "lat_deg": options.lat_deg,
        "lon_deg": options.lon_deg,
        **{name: value for name, value in given.items() if value is not None},
    }


async def _wait_shown(
    session: DeviceSession,
    api: Api,
    token: str,
    driver_id: str,
    fix: dict[str, Any],
    timeout_s: float,
) -> bool:
    """Return whether the API shows this fix before the watermark covers it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and session.device.pending:
        answer = await api.tracking("GET", f"/drivers/{driver_id}", token)
        position = answer.body.get("position") if answer.ok else None
        if position is not None:
            shown_at = parse_instant(position["properties"]["fix_at"]).timestamp()
            if round(shown_at * 1000) == fix["fix_at"]:
                return True
        await asyncio.sleep(0.1)
    return False


def _elapsed(started_at: float) -> str:
    return f"{(time.monotonic() - started_at) * 1000:,.0f} ms"


def main() -> int:
    """Run the command; the return value is the exit status."""
    parser = argparse.ArgumentParser(
        prog="./run send",
        description="Publish one fix over MQTT, and report its outcome.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--driver", required=True, metavar="ID", help="the driver")
    parser.add_argument("--lat", dest="lat_deg", type=float, required=True, metavar="DEG")
    parser.add_argument("--lon", dest="lon_deg", type=float, required=True, metavar="DEG")
    parser.add_argument("--at", metavar="INSTANT", help="time of the fix, with a zone (now)")
    parser.add_argument("--accuracy", dest="accuracy_m", type=float, metavar="M")
    parser.add_argument("--speed", dest="speed_mps", type=float, metavar="M/S")
    parser.add_argument("--heading", dest="heading_deg", type=float, metavar="DEG")
    parser.add_argument("--altitude", dest="altitude_m", type=float, metavar="M")
    parser.add_argument("--battery", type=float, metavar="0..1")
    parser.add_argument("--mqtt-5", action="store_true", help="use MQTT 5 instead of 3.1.1")
    options = parser.parse_args()
    configure_logging("send")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return asyncio.run(send(options, DeviceSettings.load_or_exit()))
    except (DoorstepError, ValueError) as exc:
        print(f"send: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
