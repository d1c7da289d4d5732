"""`python -m simulators.couriers`: a fleet of couriers that delivers until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from pathlib import Path
from typing import get_args

from data.cities import bundled_city, read_city
from device.journal import Journal
from device.publish_spans import open_device_tracing
from device.settings import DeviceSettings, FleetSecrets
from doorstep.errors import DoorstepError
from doorstep.sampling import Mode, SamplingPolicy
from doorstep.telemetry import configure_logging, get_logger
from simulators.api import Api
from simulators.couriers.orders import scaled_policy
from simulators.couriers.shift import Shift, ShiftOptions
from simulators.simulation_targets import first_target, follow_target

KIND = "couriers"

EPILOG = """The drivers must be registered, with numbers from 1 in one width: `python -m
doorstep.provision --drivers 200 --prefix courier-`. PUT /simulations/couriers changes the number of
couriers; new ones join once they are registered.

Environment: MQTT_URL, DRIVER_API_URL, TRACKING_API_URL, FLEET_KEY_FILE, STAFF_TOKEN_FILE,
JOURNAL_DIR, ACK_EVERY_S."""


def main() -> int:
    """Run the fleet. SIGTERM or Ctrl-C ends it once every fix is committed."""
    options = _parser().parse_args()
    configure_logging("couriers")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request
    settings = DeviceSettings.load_or_exit()
    try:
        return asyncio.run(_deliver(options, settings))
    except DoorstepError as exc:
        print(f"couriers: {exc}", file=sys.stderr)
        return 1


async def _deliver(options: argparse.Namespace, settings: DeviceSettings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    fleet = FleetSecrets(settings)
    shift_options = ShiftOptions(
        couriers=options.couriers,
        prefix=options.prefix,
        speedup=options.speedup,
        seed=options.seed,
        city=read_city(options.city_dir),
        mqtt_5=options.mqtt_5,
        sampling=SamplingPolicy(mode=options.reporting) if options.reporting else None,
        resume=not options.new_shift,
    )
    async with Api(settings.driver_api_url, settings.tracking_api_url) as api:
        path = settings.journal_dir / "couriers.sqlite"
        with (
            Journal(path, settings.journal_max_fixes) as journal,
            open_device_tracing(settings, "couriers") as tracing,
        ):
            token = fleet.staff_token()
            ready = asyncio.create_task(
                _prepare(api, token, options.speedup, shift_options.city.name)
            )
            if not await _wait_unless(stop, ready):
                return 0
            restaurants, policy_id = ready.result()
            shift = Shift(
                shift_options, settings, fleet, journal, api, restaurants, policy_id, tracing
            )
            # After kill -9 the target stays as staff has set it.
            requested = None if shift.is_resumed else options.couriers
            shift.resize(await first_target(api, token, KIND, requested, options.couriers))
            following = asyncio.create_task(follow_target(api, token, KIND, shift.resize))
            left = await shift.run(stop)
            following.cancel()
    if left:
        get_logger().warning("stopped_with_pending_fixes", pending=left)
    return 0


async def _prepare(
    api: Api, token: str, speedup: float, city: str
) -> tuple[list[tuple[int, str, float, float]], int | None]:
    """Read a city's restaurants, and create a policy scaled for the speed."""
    answer = await api.tracking("GET", "/restaurants", token)
    if not answer.ok:
        raise DoorstepError(f"GET /restaurants was refused: {answer.status} {answer.body}")
    restaurants = [
        (row["restaurant_id"], row["name"], row["lon_deg"], row["lat_deg"])
        for row in answer.body["restaurants"]
        if row["city"] == city
    ]
    if speedup == 1:
        return restaurants, None
    policy = await api.tracking("POST", "/policies", token, scaled_policy(speedup))
    if not policy.ok:
        raise DoorstepError(f"POST /policies was refused: {policy.status} {policy.body}")
    return restaurants, int(policy.body["policy_id"])


async def _wait_unless(stop: asyncio.Event, task: asyncio.Task[object]) -> bool:
    """Wait for `task`. Returns False if `stop` is set first."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when="FIRST_COMPLETED")
    stopped.cancel()
    if not task.done():
        task.cancel()
    return task.done() and not stop.is_set()


def _speedup(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 20:
        raise argparse.ArgumentTypeError("must be from 1 to 20")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simulators.couriers",
        description="Run couriers that deliver orders on a city's streets.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--couriers", type=int, default=200, metavar="N", help="how many (200)")
    parser.add_argument("--speedup", type=_speedup, default=1.0, metavar="X", help="1 to 20 (1)")
    parser.add_argument(
        "--city-dir",
        type=Path,
        default=bundled_city().path,
        metavar="FOLDER",
        help="of the city (the bundled one)",
    )
    parser.add_argument(
        "--prefix", default="courier-", help="prefix of the drivers' ids (courier-)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=time.time_ns() % 1_000_000,
        help="selects vehicles, orders and routes (random)",
    )
    parser.add_argument(
        "--reporting",
        choices=get_args(Mode),
        help="which fixes phones send (as the server commands)",
    )
    parser.add_argument(
        "--new-shift", action="store_true", help="do not continue from saved positions"
    )
    parser.add_argument("--mqtt-5", action="store_true", help="use MQTT 5 instead of 3.1.1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
