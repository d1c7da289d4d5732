"""`mqtts://`: from a device through the bridge to Kafka, with TLS on every MQTT connection."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from device.connection import Connection, ConnectionFailed, Login
from device.device import Device
from device.journal import Journal
from doorstep.kafka.access_control import ADMIN
from doorstep.kafka.topic_specs import Topic, create_topics
from doorstep.settings import MqttBroker
from driver_events.mqtt_publisher import MqttPublisher
from ops.servers.services import bridge_process
from ops.servers.waiting import wait_until
from ops.stack.stack import Stack
from tests.clients.kafka import read_topic
from tests.integration.tls import TlsMosquitto, make_certificates

# paho leaves the socket of a handshake that failed to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
SOON_S = 120.0
TOPIC = "driver-pos-tls"
FIX = {"fix_at": 1_700_000_000_000, "lat_deg": 43.77, "lon_deg": 11.25}


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Such a socket goes here, not in the next test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def broker(server_home: Path) -> Iterator[TlsMosquitto]:
    folder = server_home / "tls"
    folder.mkdir()
    one = TlsMosquitto(folder, make_certificates(folder))
    one.start()
    yield one
    one.stop()


def login(broker: TlsMosquitto) -> Login:
    at = MqttBroker("127.0.0.1", broker.port, tls=True)
    return Login(at, "anna", "secret", "doorstep/v1/drivers/anna/status")


async def test_mqtts__a_fix__reaches_kafka_and_its_ack_the_device(
    stack: Stack,
    broker: TlsMosquitto,
    server_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(broker.certificates.authority))
    kafka = stack.kafka_access(ADMIN)
    create_topics(kafka, topics=[Topic(TOPIC, 1, 60 * 60 * 1000)])
    bridge = bridge_process(
        server_home / "tls-bridge",
        broker.url,
        kafka,
        KAFKA_TOPIC=TOPIC,
    )
    sender = MqttPublisher([MqttBroker("127.0.0.1", broker.port, tls=True)], "driver_events", "")
    bridge.start()
    try:
        with Journal(tmp_path / "j.sqlite") as journal:
            device = Device(login(broker), journal)
            running = asyncio.create_task(device.run())
            for _ in range(20):
                device.write(FIX)
            journal.commit()
            records = await asyncio.to_thread(
                read_topic, kafka, TOPIC, lambda found: len(found) >= 1, SOON_S
            )
            assert b'"seq":20' in (records[-1].value() or b"")
            await asyncio.to_thread(wait_until, lambda: sender.is_connected, SOON_S)
            ack = b'{"boot": "%s", "seq": 20, "missing": []}' % device.boot.encode()
            assert sender.send([("anna", ack)]) == set()
            await asyncio.to_thread(wait_until, lambda: not device._ack_timeout.is_running, SOON_S)
            assert device.pending == 0
            await device.stop()
            await running
    finally:
        sender.close()
        bridge.stop()


async def test_mqtts__an_unknown_authority__is_refused(broker: TlsMosquitto) -> None:
    connection = Connection(login(broker), b"", lambda _: None, lambda _topic, _payload: None)
    with pytest.raises(ConnectionFailed, match="certificate verify failed"):
        await connection.open()
