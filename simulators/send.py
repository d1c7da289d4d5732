"""`python -m simulators.send --driver ID --lat … --lon …`: one fix, and what became of it."""

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
from simulators.outcomes import ask_outcomes
from simulators.tracks import parse_instant

CONNECT_WITHIN_S = 15.0
SETTLE_PERIODS = 3  # an ack may take two: it follows the next news
OPTIONAL = ("accuracy_m", "speed_mps", "heading_deg", "altitude_m", "battery")


async def send(options: argparse.Namespace, settings: DeviceSettings) -> int:
    """Publish one fix and follow it until it is committed or refused."""
    fix = read_fix(options, time.time())
    fleet = FleetSecrets(settings)
    async with (
        open_device_session(options.driver, settings, mqtt_5=options.mqtt_5) as phone,
        Api(settings.driver_api_url, settings.tracking_api_url) as api,
    ):
        await phone.connected(CONNECT_WITHIN_S)
        began = time.monotonic()
        seq = phone.report(fix)
        identity = {"boot": phone.device.boot, "seq": seq}
        print(f"published   {options.driver} boot {identity['boot']} seq {seq}")
        periods_s = SETTLE_PERIODS * settings.ack_every_s
        if await phone.acknowledged(periods_s):
            print(f"broker      acknowledged after {_ms(began)}")
        shown = await _shows(phone, api, fleet.staff_token(), options.driver, fix, periods_s)
        if shown:
            print(f"committed   after {_ms(began)}: it is the driver's newest position")
            return 0
        if phone.device.pending:
            print(f"unknown     the watermark did not pass it within {periods_s:.0f} s")
            return 1
        outcomes = await ask_outcomes(
            api, options.driver, fleet.staff_token(), [{**identity, **fix}]
        )
    outcome = next(iter(outcomes))
    if outcome == "committed":
        outcome = (
            "committed   but not shown as the driver's position: it is in quarantine, or older "
            "than another fix"
        )
    print(f"{outcome}, told by the watermark after {_ms(began)}")
    return 0 if outcome.startswith(("committed", "quarantined")) else 1


def read_fix(options: argparse.Namespace, now: float) -> dict[str, Any]:
    """The fix of the command line; a value that is not given stays absent."""
    at = parse_instant(options.at).timestamp() if options.at else now
    given = {name: getattr(options, name) for name in OPTIONAL}
    return {
        "fix_at": round(at * 1000),
        "lat_deg": options.lat_deg,
        "lon_deg": options.lon_deg,
        **{name: value for name, value in given.items() if value is not None},
    }


async def _shows(
    phone: DeviceSession, api: Api, token: str, driver_id: str, fix: dict[str, Any], within_s: float
) -> bool:
    """Whether staff sees this very fix before the watermark tells about it."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and phone.device.pending:
        answer = await api.tracking("GET", f"/drivers/{driver_id}", token)
        position = answer.body.get("position") if answer.ok else None
        if position is not None:
            shown_at = parse_instant(position["properties"]["fix_at"]).timestamp()
            if round(shown_at * 1000) == fix["fix_at"]:
                return True
        await asyncio.sleep(0.1)
    return False


def _ms(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:,.0f} ms"


def main() -> int:
    """Send the fix of the command line."""
    parser = argparse.ArgumentParser(prog="./run send", description=__doc__)
    parser.add_argument("--driver", required=True, metavar="ID", help="publish as this driver")
    parser.add_argument("--lat", dest="lat_deg", type=float, required=True, metavar="DEG")
    parser.add_argument("--lon", dest="lon_deg", type=float, required=True, metavar="DEG")
    parser.add_argument("--at", metavar="INSTANT", help="its time (now), with a zone")
    parser.add_argument("--accuracy", dest="accuracy_m", type=float, metavar="M")
    parser.add_argument("--speed", dest="speed_mps", type=float, metavar="M/S")
    parser.add_argument("--heading", dest="heading_deg", type=float, metavar="DEG")
    parser.add_argument("--altitude", dest="altitude_m", type=float, metavar="M")
    parser.add_argument("--battery", type=float, metavar="0..1")
    parser.add_argument("--mqtt-5", action="store_true", help="speak MQTT 5 instead of 3.1.1")
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
