"""`python -m simulators.tickers`: random walks until it is stopped."""

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
from simulators.tickers.walk import MOST, SOURCE_ID, Walks

KIND = "tickers"
DEFAULT = 100
LEAVE_WITHIN_S = 10.0
DESCRIPTION = f"""Tickers: each a random walk of ±1 a step from 0, published as a series
`{SOURCE_ID}/NNN`. After a restart each goes on from its last value. How many there are is followed
while it runs: PUT /simulations/tickers, or the page /series."""
COUNT_HELP = f"how many ({DEFAULT}, or as before)"


def main() -> int:
    """Publish until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="./run tickers", description=DESCRIPTION)
    parser.add_argument("--count", type=int, metavar="N", help=COUNT_HELP)
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds a step (1)")
    options = parser.parse_args()
    if options.count is not None and not 0 <= options.count <= MOST:
        parser.error(f"--count is from 0 to {MOST}")
    if not 0.01 <= options.every <= 3600:
        parser.error("--every is from 0.01 to 3600")
    configure_logging("tickers")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request
    settings = DeviceSettings.load_or_exit()
    try:
        asyncio.run(_walk(options, settings))
    except DoorstepError as exc:
        print(f"tickers: {exc}", file=sys.stderr)
        return 1
    return 0


async def _walk(options: argparse.Namespace, settings: DeviceSettings) -> None:
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
        leaving = asyncio.Event()
        connected = asyncio.create_task(publisher.run(leaving))
        work = {
            asyncio.create_task(_step(walks, publisher, options.every)),
            asyncio.create_task(follow_target(api, token, KIND, walks.resize)),
        }
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({*work, stopped}, return_when="FIRST_COMPLETED")
        for task in (*work, stopped):
            task.cancel()
        await publisher.settle(LEAVE_WITHIN_S)
        leaving.set()
        await connected
        for task in done - {stopped}:
            await task  # raises what it has died of


async def last_values(api: Api, token: str) -> dict[str, float]:
    """Ask where each ticker stood: {measure: value}."""
    prefix = f"{SOURCE_ID}/"
    answer = await api.tracking("GET", f"/series?prefix={prefix}&limit={MOST}", token)
    if not answer.ok:
        raise DoorstepError(f"GET /series was refused: {answer.status} {answer.body}")
    return {
        one["name"].removeprefix(prefix): one["last_value"]
        for one in answer.body["series"]
        if one["last_value"] is not None
    }


async def _step(walks: Walks, publisher: Publisher, every_s: float) -> None:
    due = time.monotonic()
    while True:
        at_ms = round(time.time() * 1000)
        for measure, value in walks.step().items():
            publisher.publish(measure, msgspec.json.encode({"at": at_ms, "value": value}))
        due = max(due + every_s, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


if __name__ == "__main__":
    sys.exit(main())
