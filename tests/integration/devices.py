"""Many MQTT clients on a stack's broker, and readers for what the platform made of their input."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from doorstep.credentials import mqtt_password
from doorstep.kafka.access_control import OPERATOR
from doorstep.kafka.topic_reader import TopicReader
from doorstep.mqtt_topics import ACK, POSITION, topic_of
from doorstep.provision import owner_connection
from doorstep.settings import Bind
from ops.commands.dead_letter_reader import StoredDeadLetter
from ops.stack.addresses import reach
from ops.stack.stack import Stack

_SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? ([0-9.e+-]+)$", re.MULTILINE)


def letters_since(reader: TopicReader, starts: Mapping[int, int]) -> Iterator[StoredDeadLetter]:
    """Read all letters from these offsets on."""
    bounds = reader.bounds()
    ranges = {one: (max(low, starts[one]), high) for one, (low, high) in bounds.items()}
    return map(StoredDeadLetter.of, reader.read(ranges))


class Device:
    """A driver's MQTT client: publishes with QoS 1, counts PUBACKs, keeps the newest watermark."""

    def __init__(self, stack: Stack, driver_id: str) -> None:
        self.driver_id = driver_id
        self.pubacks: Counter[int] = Counter()
        self.sent: list[int] = []
        self.watermark: dict[str, Any] = {}
        self.connected = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=driver_id)
        self.client.username_pw_set(driver_id, mqtt_password(stack.paths.fleet_key(), driver_id))
        self.client.max_inflight_messages_set(1000)
        self.client.on_publish = self._on_publish
        self.client.on_message = self._on_message
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self.connected.set()
        self.client.connect("127.0.0.1", reach(stack.addresses.mqtt[0]).port)
        self.client.loop_start()

    def publish(self, payload: bytes, kind: str = POSITION) -> None:
        """Publish a message and return at once."""
        self.sent.append(self.client.publish(topic_of(self.driver_id, kind), payload, 1).mid)

    @property
    def is_answered(self) -> bool:
        """Say whether every message has its PUBACK."""
        return all(self.pubacks[mid] for mid in self.sent)

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()
        self.client.loop_stop()

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(topic_of(self.driver_id, ACK), 0)

    def _on_publish(self, _client: mqtt.Client, _data: object, mid: int, *_: object) -> None:
        self.pubacks[mid] += 1

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self.watermark = json.loads(message.payload)


def connect_all(stack: Stack, driver_ids: Sequence[str]) -> dict[str, Device]:
    """Connect a device for each driver. The drivers must be registered."""
    devices = {driver_id: Device(stack, driver_id) for driver_id in driver_ids}
    for device in devices.values():
        assert device.connected.wait(30), device.driver_id
    return devices


class Samples(dict[tuple[str, str], float]):
    """A service's metrics: (name, labels as written) -> value, 0 if there is none."""

    def __missing__(self, _key: tuple[str, str]) -> float:
        return 0.0


def scrape(bind: Bind) -> Samples:
    """Read a service's /metrics."""
    with urllib.request.urlopen(f"http://{reach(bind)}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return Samples({(name, labels): float(value) for name, labels, value in _SAMPLE.findall(text)})


def letter_ends(stack: Stack) -> dict[int, int]:
    """Return the end offset of each partition of dead-letter."""
    with TopicReader(stack.kafka_access(OPERATOR), "dead-letter") as reader:
        return {one: high for one, (_, high) in reader.bounds().items()}


def letters_after(stack: Stack, ends: dict[int, int]) -> dict[str, list[StoredDeadLetter]]:
    """Return the dead letters after these offsets, by driver."""
    found: defaultdict[str, list[StoredDeadLetter]] = defaultdict(list)
    with TopicReader(stack.kafka_access(OPERATOR), "dead-letter") as reader:
        for letter in letters_since(reader, ends):
            found[letter.driver_id or ""].append(letter)
    return found


def history_of(stack: Stack, driver_ids: Iterable[str]) -> dict[str, dict[int, str | None]]:
    """Return the history of these drivers: driver -> seq -> quarantine."""
    found: defaultdict[str, dict[int, str | None]] = defaultdict(dict)
    with owner_connection(stack.database_admin_url) as conn:
        rows = conn.execute(
            "SELECT driver_id, seq, quarantine, count(*) OVER (PARTITION BY driver_id, boot, seq)"
            " FROM doorstep.fix_history WHERE driver_id = ANY(%s)",
            (list(driver_ids),),
        ).fetchall()
    for driver_id, seq, quarantine, times in rows:
        assert times == 1, f"{driver_id} {seq} is stored {times} times"
        found[driver_id][seq] = quarantine
    return found


def outbox_has_no_letters(stack: Stack) -> bool:
    """Say whether every dead letter has left the outbox."""
    with owner_connection(stack.database_admin_url) as conn:
        row = conn.execute(
            "SELECT count(*) FROM doorstep.outbox WHERE topic = 'dead-letter'"
        ).fetchone()
    return row is not None and row[0] == 0
