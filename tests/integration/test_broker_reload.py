"""Reloads of Mosquitto that end sessions, with clients of several kinds connected and absent.

glibc overwrites freed memory here, so that a use after free ends the broker instead of passing
unnoticed.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.subscriber import SESSION_EXPIRY_S
from doorstep.credentials import service_entry
from doorstep.password_file import write_entries
from ops.servers.mosquitto import MosquittoServer
from ops.servers.waiting import wait_until
from tests.integration.mqtt_client import MqttClient

ROUNDS = 12
EXPIRY_CHECK_S = 2.1  # the broker looks for expired sessions once a second
V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
DEVICES = ("away", "kept", "publisher", "removed", "slow", "with-will")
SERVICES = ("bridge", "driver_events", "driver_events-2", "stack")
POSITION = "doorstep/v1/drivers/{}/position"
ACK = "doorstep/v1/drivers/{}/ack"


class PoisoningMosquitto(MosquittoServer):
    """Mosquitto whose freed memory is overwritten."""

    def environment(self) -> Mapping[str, str]:
        poison = {"MALLOC_PERTURB_": "165", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
        return os.environ | poison


class Passwords:
    """The broker's password file, in which users change."""

    def __init__(self, broker: PoisoningMosquitto) -> None:
        self._broker = broker
        self._numbers = itertools.count()
        self.by_user = {user: broker.password(user) for user in (*DEVICES, *SERVICES)}
        self.apply()

    def apply(self) -> None:
        """Write the file and reload the broker. Returns once the reload is done."""
        marker = f"marker-{next(self._numbers)}"
        entries = {user: service_entry(user, one) for user, one in self.by_user.items()}
        entries[marker] = service_entry(marker, marker)
        write_entries(self._broker.paths.password_file, entries)
        self._broker.signal(signal.SIGHUP)
        wait_until(lambda: self._broker.accepts(marker, marker))

    def change(self, *users: str) -> None:
        for user in users:
            self.by_user[user] = f"new-{next(self._numbers)}"


class Client(MqttClient):
    """A paho client that does not reconnect by itself."""

    def __init__(
        self,
        broker: MosquittoServer,
        passwords: Passwords,
        user: str,
        protocol: MQTTProtocolVersion = V5,
        *,
        session: bool = False,
        will: bool = False,
        acks: bool = True,
    ) -> None:
        options = {"clean_session": not session} if protocol == V311 else {}
        self.received: list[bytes] = []
        self.ended = threading.Event()
        self.mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            user,
            protocol=protocol,
            manual_ack=not acks,
            reconnect_on_failure=False,
            **options,
        )
        self.mqtt.username_pw_set(user, passwords.by_user[user])
        self.mqtt.on_message = lambda _c, _u, message: self.received.append(message.payload)
        self.mqtt.on_disconnect = lambda *_: self.ended.set()
        if will:
            status = f"doorstep/v1/drivers/{user}/status"
            self.mqtt.will_set(status, b"lost", qos=1, retain=True)
        if protocol == V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = SESSION_EXPIRY_S if session else 0
            self.mqtt.connect(
                "127.0.0.1", broker.port, clean_start=not session, properties=properties
            )
        else:
            self.mqtt.connect("127.0.0.1", broker.port)
        self.mqtt.loop_start()
        wait_until(self.mqtt.is_connected)


class Publisher:
    """A client that publishes without pause."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.published: list[bytes] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(0.005):
            payload = b"%d" % len(self.published)
            self.client.publish(ACK.format("kept"), payload)
            self.published.append(payload)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


@pytest.fixture
def broker(server_home: Path) -> Iterator[PoisoningMosquitto]:
    server = PoisoningMosquitto(Path(tempfile.mkdtemp(dir=server_home)))
    server.start()
    yield server
    server.erase()


@pytest.fixture
def connect(broker: PoisoningMosquitto) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def connect(*args: object, **options: bool) -> Client:
        clients.append(Client(broker, *args, **options))  # type: ignore[arg-type]
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_reload__users_change_while_connected_and_absent__ends_their_sessions_and_nothing_else(
    broker: PoisoningMosquitto, connect: Callable[..., Client]
) -> None:
    passwords = Passwords(broker)
    pid = broker.pid
    bystander = connect(passwords, "kept", session=True)
    bystander.subscribe(ACK.format("kept"))
    publisher = Publisher(connect(passwords, "driver_events-2", V311))
    try:
        for _ in range(ROUNDS):
            bridge = connect(passwords, "bridge", session=True)
            bridge.subscribe(POSITION.format("+"))
            acks = connect(passwords, "driver_events")
            removed = connect(passwords, "removed", V311, session=True)
            removed.subscribe(ACK.format("removed"))
            with_will = connect(passwords, "with-will", will=True)
            slow = connect(passwords, "slow", session=True, acks=False)
            slow.subscribe(ACK.format("slow"))
            for _ in range(50):
                acks.publish(ACK.format("slow"), b"unacknowledged")
            away = connect(passwords, "away", V311, session=True)
            away.close()

            ended = (bridge, acks, removed, with_will, slow)
            passwords.change("bridge", "driver_events", "with-will", "slow", "away", "removed")
            new_password = passwords.by_user.pop("removed")
            passwords.apply()
            for client in ended:
                assert client.ended.wait(30)
            passwords.apply()  # while they are absent
            passwords.by_user["removed"] = new_password
            passwords.apply()
        connect(passwords, "bridge", session=True)
        time.sleep(EXPIRY_CHECK_S)
    finally:
        publisher.stop()

    assert broker.exit_code is None, broker.log()[-2000:]
    assert broker.pid == pid
    assert not bystander.ended.is_set()
    assert not publisher.client.ended.is_set()
    wait_until(lambda: bystander.received == publisher.published)


def test_reload__after_a_restart_with_absent_sessions__keeps_the_sessions(
    broker: PoisoningMosquitto, connect: Callable[..., Client]
) -> None:
    passwords = Passwords(broker)
    publisher = connect(passwords, "publisher")
    bridge = connect(passwords, "bridge", session=True)
    bridge.subscribe(POSITION.format("+"))
    connect(passwords, "away", V311, session=True).close()
    bridge.close()
    publisher.publish(POSITION.format("publisher"), b"queued")
    publisher.close()

    broker.signal(signal.SIGTERM)
    broker.start()
    passwords.apply()
    passwords.apply()
    away = connect(passwords, "away", V311, session=True)
    bridge = connect(passwords, "bridge", session=True)
    time.sleep(EXPIRY_CHECK_S)

    assert broker.exit_code is None, broker.log()[-2000:]
    assert not away.ended.is_set()
    wait_until(lambda: bridge.received == [b"queued"])
