"""`./run tickers`: publishes random walks until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import signal
import sys
import time

import msgspec

from device.connection import Login
from device.settings import DeviceSettings, FleetSecrets, broker_of
from doorstep.errors import DoorstepError
from doorstep.telemetry import configure_logging, get_logger
from simulators.api import Api
from simulators.simulation_targets import first_target, follow_target
from simulators.tickers.publisher import Publisher
from simulators.tickers.walk import MAX_TICKERS, SOURCE_ID, Walks

KIND = "tickers"
DEFAULT = 100
STOP_TIMEOUT_S = 10.0
DESCRIPTION = f"""Publish series of numbers `{SOURCE_ID}/NNN`, each a random walk of ±1 per step.
After a restart each continues from its last value. Change the number of series with
PUT /simulations/tickers or on the page /series."""
EXAMPLES = """examples:
  ./run tickers --count 20
  ./run tickers --count 1000 --every 0.5"""
COUNT_HELP = f"number of series ({DEFAULT}, or the last target)"


def main() -> int:
    """Run until SIGTERM or Ctrl-C; the return value is the exit status."""
    parser = argparse.ArgumentParser(
        prog="./run tickers",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, metavar="N", help=COUNT_HELP)
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="S", help="seconds per step (1)"
    )
    options = parser.parse_args()
    if options.count is not None and not 0 <= options.count <= MAX_TICKERS:
        parser.error(f"--count must be from 0 to {MAX_TICKERS}")
    if not 0.01 <= options.every <= 3600:
        parser.error("--every must be from 0.01 to 3600")
    configure_logging("tickers")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request
    settings = DeviceSettings.load_or_exit()
    try:
        asyncio.run(_publish(options, settings))
    except DoorstepError as exc:
        print(f"tickers: {exc}", file=sys.stderr)
        return 1
    return 0


async def _publish(options: argparse.Namespace, settings: DeviceSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fleet = FleetSecrets(settings)
    token = fleet.staff_token()
    broker = broker_of(SOURCE_ID, settings.mqtt_url)
    publisher = Publisher(Login(broker, SOURCE_ID, fleet.mqtt_password(SOURCE_ID), will_topic=""))
    async with Api(settings.driver_api_url, settings.tracking_api_url) as api:
        count = await first_target(api, token, KIND, options.count, DEFAULT)
        walks = Walks(await last_values(api, token), random.Random())
        walks.resize(count)
        get_logger().info("started", tickers=walks.count)
        disconnecting = asyncio.Event()
        connected = asyncio.create_task(publisher.run(disconnecting))
        work = {
            asyncio.create_task(_publish_steps(walks, publisher, options.every)),
            asyncio.create_task(follow_target(api, token, KIND, walks.resize)),
        }
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({*work, stopped}, return_when="FIRST_COMPLETED")
        for task in (*work, stopped):
            task.cancel()
        await publisher.wait_acknowledged(STOP_TIMEOUT_S)
        disconnecting.set()
        await connected
        for task in done - {stopped}:
            await task  # raises the error that ended it


async def last_values(api: Api, token: str) -> dict[str, float]:
    """Read the last value of each series: {measure: value}."""
    prefix = f"{SOURCE_ID}/"
    answer = await api.tracking("GET", f"/series?prefix={prefix}&limit={MAX_TICKERS}", token)
    if not answer.ok:
        raise DoorstepError(f"GET /series was refused: {answer.status} {answer.body}")
    return {
        one["name"].removeprefix(prefix): one["last_value"]
        for one in answer.body["series"]
        if one["last_value"] is not None
    }


async def _publish_steps(walks: Walks, publisher: Publisher, every_s: float) -> None:
    due_s = time.monotonic()
    while True:
        at_ms = round(time.time() * 1000)
        for measure, value in walks.step().items():
            publisher.publish(measure, msgspec.json.encode({"at": at_ms, "value": value}))
        due_s = max(due_s + every_s, time.monotonic())
        await asyncio.sleep(due_s - time.monotonic())


if __name__ == "__main__":
    sys.exit(main())
