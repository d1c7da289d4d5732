"""Services as processes, and small MQTT and Kafka clients, for the tests of the data plane."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion

from tests.integration.pipe_servers import PROJECT, Kafka, Mosquitto, Server, wait_until


class Service(Server):
    """`python -m name` with the variables given."""

    def __init__(self, folder: Path, name: str, bind_variable: str, **variables: str) -> None:
        super().__init__(folder)
        self._name = name
        self._variables = {bind_variable: f"127.0.0.1:{self.port}", **variables}

    def argv(self) -> list[str]:
        variables = [f"{name}={value}" for name, value in self._variables.items()]
        return ["env", f"PYTHONPATH={PROJECT}", *variables, sys.executable, "-m", self._name]

    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def get(self, path: str) -> tuple[int, str]:
        """GET a path of its telemetry: (status, body); (0, "") if nobody answers."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}{path}", timeout=2
            ) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """Sum a metric over its labels."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith((f"{name} ", f"{name}{{"))
        )

    def events(self) -> list[str]:
        """The names of the events it has logged."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return [json.loads(line)["event"] for line in lines if line.startswith("{")]

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()


def bridge_on(folder: Path, mqtt_url: str, kafka_port: int, **more: str) -> Service:
    """A bridge, not started yet."""
    return Service(
        folder,
        "bridge",
        "BRIDGE_BIND",
        MQTT_URL=mqtt_url,
        KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{kafka_port}",
        **more,
    )


class Phone:
    """Publishes with QoS 1 and remembers what the broker has acknowledged."""

    def __init__(self, broker: Mosquitto, driver_id: str = "d1") -> None:
        self.driver_id = driver_id
        self.heard: list[tuple[str, bytes]] = []
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=driver_id, clean_session=False)
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_message = lambda _, __, message: self.heard.append(
            (message.topic, message.payload)
        )
        self._client.on_connect = lambda client, *_: client.subscribe(
            f"doorstep/v1/drivers/{driver_id}/ack", 0
        )
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        wait_until(self._client.is_connected, 10, "the phone's connection")

    def publish(
        self, payloads: Iterable[bytes], kind: str = "position", *, retain: bool = False
    ) -> list[MQTTMessageInfo]:
        """Queue payloads for the driver's topic."""
        topic = f"doorstep/v1/drivers/{self.driver_id}/{kind}"
        wait_until(self._client.is_connected, 10, "the phone's connection")
        return [self._client.publish(topic, payload, 1, retain) for payload in payloads]

    def send(
        self, payloads: Iterable[bytes], kind: str = "position", timeout_s: float = 20
    ) -> None:
        """Publish, and wait for every PUBACK."""
        for info in self.publish(payloads, kind):
            info.wait_for_publish(timeout_s)
            assert info.is_published()

    def close(self) -> None:
        """Hang up."""
        self._client.disconnect()
        self._client.loop_stop()


def read_topic(
    kafka: Kafka, topic: str, enough: Callable[[list[Message]], bool], timeout_s: float = 30.0
) -> list[Message]:
    """Read a topic from its beginning until `enough`, or fail."""
    return read_topic_at(kafka.bootstrap_servers, topic, enough, timeout_s)


def read_topic_at(
    bootstrap_servers: str,
    topic: str,
    enough: Callable[[list[Message]], bool],
    timeout_s: float = 30.0,
) -> list[Message]:
    """Like `read_topic`, of any Kafka."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"test-{os.getpid()}-{time.monotonic_ns()}",
            "enable.auto.commit": False,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        messages: list[Message] = []
        deadline = time.monotonic() + timeout_s
        while not enough(messages):
            assert time.monotonic() < deadline, f"{topic}: only {len(messages)} messages"
            messages += [
                message for message in consumer.consume(1000, 0.2) if message.error() is None
            ]
        return messages
    finally:
        consumer.close()


def holds_all(wanted: set[bytes]) -> Callable[[list[Message]], bool]:
    """Enough once every wanted value is there."""
    return lambda messages: wanted <= {message.value() or b"" for message in messages}


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, user and system."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def driver_events_on(
    folder: Path, database_url: str, mqtt_url: str, kafka_port: int, **more: str
) -> Service:
    """A driver_events, not started yet."""
    return Service(
        folder,
        "driver_events",
        "DRIVER_EVENTS_BIND",
        DATABASE_URL=database_url,
        MQTT_URL=mqtt_url,
        KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{kafka_port}",
        **{"ACK_EVERY_S": "1", **more},
    )


def produce(kafka: Kafka, topic: str, records: Iterable[tuple[str, bytes]]) -> None:
    """Write records (key, value), and wait until Kafka has them."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5})
    for key, value in records:
        producer.produce(topic, value, key)
    assert producer.flush(20) == 0
