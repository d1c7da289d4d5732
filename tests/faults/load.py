"""The load's process: `python -m tests.faults.load`. `load_process` starts it.

Every driver has a device with a journal on disk that reports twice a second (`load_devices`). Some
drivers are couriers of scripted orders (`scripted_orders`); the others wander. Customers poll and
phones send PATCH requests all the time (`prober`). The process ends with its parent.
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
from doorstep.provision import numbered_ids
from doorstep.telemetry import configure_logging
from simulators.api import Api
from tests.faults.load_devices import LoadDevices, Recorder
from tests.faults.load_process import PROBE
from tests.faults.prober import Prober
from tests.faults.scripted_orders import OrderScript, RecordingTransport


async def run(options: argparse.Namespace, settings: DeviceSettings) -> None:
    """Run the load until SIGTERM, or until a part of it fails."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    fleet, record = FleetSecrets(settings), Recorder(options.record)
    driver_ids = numbered_ids(PROBE, options.drivers)
    pairs = list(zip(driver_ids[::2], driver_ids[1::2], strict=False))[: options.couriers]
    transport = RecordingTransport(record)
    with Journal(settings.journal_dir / "load.sqlite") as journal:
        async with Api(settings.driver_api_url, settings.tracking_api_url, transport) as api:
            load = LoadDevices(driver_ids, settings, fleet, journal, record)
            script = OrderScript(load, api, fleet, record)
            prober = Prober(settings, fleet, load, script, record, transport)
            work = (
                load.report(),
                follow_commands(load, record),
                script.run(pairs),
                prober.run(),
                stop.wait(),
            )
            tasks = [*await load.connect(), *map(asyncio.create_task, work)]
            done, _ = await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
            for device in load.devices.values():
                await device.stop()
            for task in done:
                task.result()  # raise the exception of a task that failed
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def follow_commands(load: LoadDevices, record: Recorder) -> None:
    """Follow the parent's commands on stdin, one per line: `pause` and `resume`."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"pause":
            load.running.clear()
            record.write("paused")  # after this record nothing more is journaled
        else:
            load.running.set()


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
