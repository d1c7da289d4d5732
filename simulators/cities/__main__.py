"""`python -m simulators.cities`: vans from city to city until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys

import data
from device.journal import Journal
from device.settings import DeviceSettings, FleetSecrets
from doorstep.errors import DoorstepError
from doorstep.telemetry import configure_logging, get_logger
from simulators.api import Api
from simulators.cities.atlas import read_cities
from simulators.cities.fleet import MOST, PREFIX, Vans
from simulators.simulation_targets import first_target, follow_target

KIND = "cities"
DEFAULT = 50
DESCRIPTION = f"""Vans on their way from one French city to another nearby, as the drivers
{PREFIX}NNN, which `./run cities` registers. After a restart each goes on from its last saved
position. How many there are is followed while it runs: PUT /simulations/cities, or the page
/series."""
COUNT_HELP = f"how many ({DEFAULT}, or as before)"


def main() -> int:
    """Drive until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="./run cities", description=DESCRIPTION)
    parser.add_argument("--count", type=int, metavar="N", help=COUNT_HELP)
    parser.add_argument("--speedup", type=float, default=1.0, metavar="X", help="1 to 20 (1)")
    options = parser.parse_args()
    if options.count is not None and not 0 <= options.count <= MOST:
        parser.error(f"--count is from 0 to {MOST}")
    if not 1 <= options.speedup <= 20:  # 500 m/s is the fastest that a fix may say
        parser.error("--speedup is from 1 to 20")
    configure_logging("cities")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request
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
        with Journal(path, settings.journal_max_fixes) as journal:
            count = await first_target(api, token, KIND, options.count, DEFAULT)
            known = await last_places(api, token)
            cities = read_cities(data.french_cities())
            vans = Vans(cities, known, settings, fleet, api, journal, options.speedup)
            vans.resize(count)
            get_logger().info("started", vans=count, known=len(known))
            work = {
                asyncio.create_task(vans.run()),
                asyncio.create_task(follow_target(api, token, KIND, vans.resize)),
            }
            stopped = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait({*work, stopped}, return_when="FIRST_COMPLETED")
            for task in (*work, stopped):
                task.cancel()
            left = await vans.stop(2 * settings.ack_every_s + 5)
            for task in done - {stopped}:
                await task  # raises what it has died of
    if left:
        get_logger().warning("stopped_with_pending_fixes", pending=left)
    return 0


async def last_places(api: Api, token: str) -> dict[str, tuple[float, float]]:
    """Ask where each van was last saved: {driver_id: (lon_deg, lat_deg)}."""
    answer = await api.tracking("GET", "/drivers/positions", token)
    if not answer.ok:
        raise DoorstepError(f"GET /drivers/positions was refused: {answer.status} {answer.body}")
    at = {name: n for n, name in enumerate(answer.body["columns"])}
    return {
        row[at["driver_id"]]: (row[at["lon_deg"]], row[at["lat_deg"]])
        for row in answer.body["drivers"]
        if row[at["driver_id"]].startswith(PREFIX)
    }


if __name__ == "__main__":
    sys.exit(main())
