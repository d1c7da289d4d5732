"""CPU time of the bridge per message, compared with paho and one callback per message.

    python -m bench.bridge [--messages 50000] [--runs 3] [--only ours]

Each run freezes the bridge (SIGSTOP), publishes through real MQTT connections, thaws it and waits
until Kafka has confirmed every message. It measures the CPU time (user and system, librdkafka's
threads included) of a bridge that works off a backlog. Both variants relay the same messages
through the same brokers, interleaved. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
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
from bench.measure import Measurements, report, stop
from bench.process_cpu import cpu_s
from doorstep.settings import Bind
from ops.servers.kafka import POSITION_PARTITIONS, KafkaServer
from ops.servers.mosquitto import AnonymousMosquitto
from ops.servers.process import ServerProcess
from ops.servers.services import bridge_process
from ops.servers.waiting import wait_until

PHONES = 250
DRAIN_TIMEOUT_S = 120.0


class PahoBridge(ServerProcess):
    """`bench.plain_bridge` as a process."""

    def __init__(
        self, folder: Path, broker: AnonymousMosquitto, kafka: KafkaServer, client_id: str
    ) -> None:
        super().__init__(folder)
        self._arguments = [
            str(broker.port),
            json.dumps(kafka.access.as_librdkafka_dict()),
            client_id,
        ]

    def argv(self) -> list[str]:
        return [sys.executable, "-m", "bench.plain_bridge", *self._arguments]

    def is_ready(self) -> bool:
        return "subscribed" in self.log()


def main(argv: list[str] | None = None) -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.bridge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=50_000, help="per run and variant")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=("ours", "paho"), help="one variant")
    options = parser.parse_args(argv)
    variants = [options.only] if options.only else ["ours", "paho"]
    measurements = Measurements("bridge", "µs of CPU per message", variants)
    signal.signal(signal.SIGTERM, stop)
    with tempfile.TemporaryDirectory(prefix="doorstep-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        broker, kafka = AnonymousMosquitto(folder / "mosquitto"), KafkaServer(folder / "kafka")
        try:
            broker.start()
            kafka.start()
            kafka.create_topics()
            phones = connect_phones(
                Bind("127.0.0.1", broker.port),
                {f"bench-{n:06}": "none" for n in range(PHONES)},
            )
            for run in range(options.runs + 1):  # the first one is a warm-up
                for variant in variants:
                    spent = _run(
                        variant, folder / str(run), broker, kafka, phones, options.messages
                    )
                    if run:
                        measurements.add(variant, spent / options.messages * 1e6)
        finally:
            broker.stop()
            kafka.stop()
    return report(measurements)


def _run(
    variant: str,
    folder: Path,
    broker: AnonymousMosquitto,
    kafka: KafkaServer,
    phones: list[Phone],
    count: int,
) -> float:
    """Relay `count` messages with one variant; the CPU seconds."""
    client_id = f"bench-{variant}"
    if variant == "ours":
        service: ServerProcess = bridge_process(
            folder / variant, broker.url, kafka.access, BRIDGE_CLIENT_ID=client_id
        )
    else:
        service = PahoBridge(folder / variant, broker, kafka, client_id)
    service.start()
    try:
        admin = AdminClient({**kafka.access.as_librdkafka_dict()})
        already_written = _records(admin)
        with _frozen(service.pid):
            each = count // len(phones)
            publish(phones, each, "boot", window=100)
            before = cpu_s(service.pid)
        expected = already_written + each * len(phones)
        wait_until(lambda: _records(admin) >= expected, DRAIN_TIMEOUT_S, f"{variant} to drain")
        return cpu_s(service.pid) - before
    finally:
        service.stop()
        _end_session(broker, client_id)


def _records(admin: AdminClient) -> int:
    """The number of records in driver-pos, from Kafka's offsets."""
    requests = {
        TopicPartition("driver-pos", number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for number in range(POSITION_PARTITIONS)
    }
    return sum(answer.result(10).offset for answer in admin.list_offsets(requests).values())


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _end_session(broker: AnonymousMosquitto, client_id: str) -> None:
    """End a session, so that it does not queue the other variant's messages."""
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
