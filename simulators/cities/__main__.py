"""`./run cities`: vans that drive from city to city until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys

import data
from device.journal import Journal
from device.publish_spans import open_device_tracing
from device.settings import DeviceSettings, FleetSecrets
from doorstep.errors import DoorstepError
from doorstep.telemetry import configure_logging, get_logger
from simulators.api import Api
from simulators.cities.atlas import read_cities
from simulators.cities.fleet import MAX_VANS, PREFIX, Vans
from simulators.simulation_targets import first_target, follow_target

KIND = "cities"
DEFAULT = 50
DESCRIPTION = f"""Publish vans on their way between nearby French cities, as drivers {PREFIX}NNN,
which the command registers. After a restart each van continues from its last stored position.
Change the number of vans with PUT /simulations/cities or on the page /series."""
EXAMPLES = """examples:
  ./run cities --count 100
  ./run cities --count 20 --speedup 10"""
COUNT_HELP = f"number of vans ({DEFAULT}, or the last target)"


def main() -> int:
    """Run until SIGTERM or Ctrl-C; the return value is the exit status."""
    parser = argparse.ArgumentParser(
        prog="./run cities",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, metavar="N", help=COUNT_HELP)
    parser.add_argument("--speedup", type=float, default=1.0, metavar="X", help="1 to 20 (1)")
    options = parser.parse_args()
    if options.count is not None and not 0 <= options.count <= MAX_VANS:
        parser.error(f"--count must be from 0 to {MAX_VANS}")
    if not 1 <= options.speedup <= 20:  # a fix allows up to 500 m/s
        parser.error("--speedup must be from 1 to 20")
    configure_logging("cities")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request
    settings = DeviceSettings.load_or_exit()
    try:
        return asyncio.run(_drive(options, settings))
    except DoorstepError as exc:
        print(f"cities: {exc}", file=sys.stderr)
        return 1


async def _drive(options: argparse.Namespace, settings: DeviceSettings) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fleet = FleetSecrets(settings)
    token = fleet.staff_token()
    path = settings.journal_dir / "cities.sqlite"
    async with Api(settings.driver_api_url, settings.tracking_api_url) as api:
        with (
            Journal(path, settings.journal_max_fixes) as journal,
            open_device_tracing(settings, "cities") as tracing,
        ):
            count = await first_target(api, token, KIND, options.count, DEFAULT)
            positions = await last_positions(api, token)
            cities = read_cities(data.french_cities())
            vans = Vans(cities, positions, settings, fleet, api, journal, options.speedup, tracing)
            vans.resize(count)
            get_logger().info("started", vans=count, known=len(positions))
            work = {
                asyncio.create_task(vans.run()),
                asyncio.create_task(follow_target(api, token, KIND, vans.resize)),
            }
            stopped = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait({*work, stopped}, return_when="FIRST_COMPLETED")
            for task in (*work, stopped):
                task.cancel()
            left = await vans.stop()
            for task in done - {stopped}:
                await task  # raises the error that ended it
    if left:
        get_logger().warning("stopped_with_pending_fixes", pending=left)
    return 0


async def last_positions(api: Api, token: str) -> dict[str, tuple[float, float]]:
    """Read each van's last stored position: {driver_id: (lon_deg, lat_deg)}."""
    answer = await api.tracking("GET", "/drivers/positions", token)
    if not answer.ok:
        raise DoorstepError(f"GET /drivers/positions was refused: {answer.status} {answer.body}")
    column = {name: n for n, name in enumerate(answer.body["columns"])}
    return {
        row[column["driver_id"]]: (row[column["lon_deg"]], row[column["lat_deg"]])
        for row in answer.body["drivers"]
        if row[column["driver_id"]].startswith(PREFIX)
    }


if __name__ == "__main__":
    sys.exit(main())
