"""The load's process: `python -m tests.faults.load`. Started by `crew`; ends with its parent.

Every driver has a device with a journal on disk (device.device) that reports twice a second
(`phones`). Some of them are couriers who carry scripted orders, made and commanded through the APIs
(`scripted`); the others wander. Customers and HTTP phones ask all the while (`prober`).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from device.journal import Journal
from device.settings import DeviceSettings, FleetSecrets
from doorstep.provision import numbered
from doorstep.telemetry import configure_logging
from simulators.api import Api
from tests.faults.crew import PROBE
from tests.faults.phones import Phones, Record
from tests.faults.prober import Prober
from tests.faults.scripted import Noting, Script


async def run(options: argparse.Namespace, settings: DeviceSettings) -> None:
    """Be the load until told to stop, or until a part of it fails."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    fleet, record = FleetSecrets(settings), Record(options.record)
    driver_ids = numbered(PROBE, options.drivers)
    pairs = list(zip(driver_ids[::2], driver_ids[1::2], strict=False))[: options.couriers]
    transport = Noting(record)
    with Journal(settings.journal_dir / "load.sqlite") as journal:
        async with Api(settings.driver_api_url, settings.tracking_api_url, transport) as api:
            load = Phones(driver_ids, settings, fleet, journal, record)
            script = Script(load, api, fleet, record)
            prober = Prober(settings, fleet, load, script, record, transport)
            work = (
                load.report(),
                listen(load, record),
                script.run(pairs),
                prober.run(),
                stop.wait(),
            )
            tasks = [*await load.connect(), *map(asyncio.create_task, work)]
            done, _ = await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
            for device in load.devices.values():
                await device.stop()
            for task in done:
                task.result()  # raises what it has died of
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def listen(load: Phones, record: Record) -> None:
    """Do what the parent says, a word a line, and note that it is done."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"pause":
            load.going.clear()
            record.note("paused")  # what was written before stands in the journal
        else:
            load.going.set()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.faults.load", description=__doc__)
    parser.add_argument("--drivers", type=int, required=True)
    parser.add_argument("--couriers", type=int, required=True)
    parser.add_argument("--record", type=Path, required=True)
    options = parser.parse_args()
    configure_logging("load")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(run(options, DeviceSettings.load_or_exit()))


if __name__ == "__main__":
    main()
