"""What the bridge costs per message, beside paho with one callback per message.

    python -m bench.bridge [--messages 50000] [--runs 3] [--only ours]

Each run freezes the bridge (SIGSTOP), publishes through real MQTT connections, thaws it and waits
until Kafka has confirmed and Mosquitto has been told of every message. So it measures the bridge
while it is behind, its own CPU time (user and system, librdkafka's threads included) per message.
Both ways relay the same messages through the same brokers, in turns. The last line is JSON.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bench.devices import Phone, connect_phones, publish
from bench.measure import Measured, report
from doorstep.settings import Bind
from tests.integration.pipe_servers import (
    PROJECT,
    TOPICS,
    Kafka,
    Mosquitto,
    Server,
    wait_until,
)
from tests.integration.pipe_services import bridge_on, cpu_s

PHONES = 250
DRAINED_WITHIN_S = 120.0


class Plain(Server):
    """`bench.plain_bridge` as a process."""

    def __init__(self, folder: Path, broker: Mosquitto, kafka: Kafka, client_id: str) -> None:
        super().__init__(folder)
        self._arguments = [str(broker.port), kafka.bootstrap_servers, client_id]

    def argv(self) -> list[str]:
        path = f"PYTHONPATH={PROJECT}"
        return ["env", path, sys.executable, "-m", "bench.plain_bridge", *self._arguments]

    def is_ready(self) -> bool:
        return "subscribed" in (self.folder / "log").read_text()


def main(argv: list[str] | None = None) -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.bridge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=50_000, help="per run and way")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=("ours", "paho"), help="one way alone")
    options = parser.parse_args(argv)
    ways = [options.only] if options.only else ["ours", "paho"]
    measured = Measured("bridge", "µs of CPU per message", ways)
    with tempfile.TemporaryDirectory(prefix="doorstep-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        broker, kafka = Mosquitto(folder / "mosquitto"), Kafka(folder / "kafka")
        broker.start()
        kafka.start()
        kafka.create_topics()
        try:
            phones = connect_phones(
                Bind("127.0.0.1", broker.port),
                {f"bench-{n:06}": "none" for n in range(PHONES)},
            )
            for run in range(options.runs + 1):  # the first warms up and is not counted
                for way in ways:
                    spent = _run(way, folder / str(run), broker, kafka, phones, options.messages)
                    if run:
                        measured.add(way, spent / options.messages * 1e6)
        finally:
            broker.stop()
            kafka.stop()
    return report(measured)


def _run(
    way: str, folder: Path, broker: Mosquitto, kafka: Kafka, phones: list[Phone], count: int
) -> float:
    """Relay `count` messages one way; the CPU seconds that it took."""
    client_id = f"bench-{way}"
    if way == "ours":
        service: Server = bridge_on(
            folder / way, broker.url, kafka.port, BRIDGE_CLIENT_ID=client_id
        )
    else:
        service = Plain(folder / way, broker, kafka, client_id)
    service.start()
    try:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        there = _records(admin)
        with _frozen(service.pid):
            each = count // len(phones)
            publish(phones, each, "boot", window=100)
            before = cpu_s(service.pid)
        wanted = there + each * len(phones)
        wait_until(lambda: _records(admin) >= wanted, DRAINED_WITHIN_S, f"{way} to drain")
        return cpu_s(service.pid) - before
    finally:
        service.stop()
        _forget(broker, client_id)


def _records(admin: AdminClient) -> int:
    """How many records driver-pos holds: asked of Kafka, so that the bridge has no work by it."""
    asked = {
        TopicPartition("driver-pos", number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for number in range(TOPICS["driver-pos"])
    }
    return sum(answer.result(10).offset for answer in admin.list_offsets(asked).values())


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _forget(broker: Mosquitto, client_id: str) -> None:
    """End a session, or it would collect the other way's messages."""
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5
    )
    client.connect("127.0.0.1", broker.port, clean_start=True)
    client.loop_start()
    wait_until(client.is_connected, 10)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    sys.exit(main())
