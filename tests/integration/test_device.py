"""The reference device against a real Mosquitto.

`Platform` replaces what lies behind the broker: it reads as the bridge does and acknowledges as
driver_events does, and it can lose messages on purpose.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from device.connection import Connection, ConnectionFailed, Login
from device.device import Device
from device.journal import Journal, read_published
from doorstep.settings import MqttBroker
from ops.servers.mosquitto import MosquittoServer
from ops.servers.waiting import wait_until_async

FIX = {"fix_at": 1_700_000_000_000, "lat_deg": 43.77, "lon_deg": 11.25}
ACK_EVERY_S = 0.5


class Platform:
    """Takes fixes and acknowledges them; with `lose_every` n, it forgets each n-th copy."""

    def __init__(self, broker: MosquittoServer, lose_every: int = 0) -> None:
        self.seen: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.statuses: dict[str, list[str]] = defaultdict(list)
        self.voids = 0
        self.copies = 0
        self._lose_every = lose_every
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._bridge = self._client(broker, "bridge")
        self._events = self._client(broker, "driver_events")
        self._bridge.on_connect = lambda client, *_: client.subscribe(
            [("doorstep/v1/drivers/+/position", 1), ("doorstep/v1/drivers/+/status", 1)]
        )
        self._bridge.on_message = self._take
        for client in (self._bridge, self._events):
            client.connect("127.0.0.1", broker.port)
            client.loop_start()
        self._acks = threading.Thread(target=self._acknowledge)
        self._acks.start()

    def _client(self, broker: MosquittoServer, username: str) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, clean_session=False, client_id=username)
        client.username_pw_set(username, broker.password(username))
        client.reconnect_delay_set(1, 1)
        return client

    def _take(self, _client: Any, _userdata: Any, message: MQTTMessage) -> None:
        driver_id, leaf = message.topic.split("/")[3:]
        payload = json.loads(message.payload)
        with self._lock:
            if leaf == "status":
                self.statuses[driver_id].append(payload["status"])
                return
            for fix in payload if isinstance(payload, list) else [payload]:
                self.copies += 1
                if self._lose_every and self.copies % self._lose_every == 0:
                    continue
                self.voids += fix.get("void", False)
                self.seen[driver_id, fix["boot"]].append(fix["seq"])

    def _acknowledge(self) -> None:
        while not self._stop.wait(ACK_EVERY_S):
            with self._lock:
                known = {key: set(seqs) for key, seqs in self.seen.items()}
            for (driver_id, boot), seqs in known.items():
                last = max(seqs)
                gaps = [[seq, seq] for seq in range(1, last + 1) if seq not in seqs]
                payload = json.dumps({"boot": boot, "seq": last, "missing": gaps})
                self._events.publish(f"doorstep/v1/drivers/{driver_id}/ack", payload)

    def close(self) -> None:
        self._stop.set()
        self._acks.join()
        for client in (self._bridge, self._events):
            client.disconnect()
            client.loop_stop()


@pytest.fixture
def platform(mosquitto_broker: MosquittoServer) -> Iterator[Platform]:
    one = Platform(mosquitto_broker)
    yield one
    one.close()


def login(broker: MosquittoServer, driver_id: str, *, mqtt_5: bool = False) -> Login:
    return Login(
        MqttBroker("127.0.0.1", broker.port, tls=False),
        driver_id,
        broker.password(driver_id),
        f"doorstep/v1/drivers/{driver_id}/status",
        mqtt_5,
    )


@asynccontextmanager
async def running(devices: Sequence[Device]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(device.run()) for device in devices]
    try:
        yield
    finally:
        for device in devices:
            await device.stop()
        await asyncio.gather(*tasks)


def report(journal: Journal, devices: Sequence[Device]) -> None:
    for device in devices:
        device.write(FIX)
    journal.commit()
    for device in devices:
        device.pump()


@pytest.mark.parametrize("mqtt_5", [False, True])
async def test_device__either_protocol__everything_is_acknowledged_in_order(
    mosquitto_broker: MosquittoServer, platform: Platform, tmp_path: Path, mqtt_5: bool
) -> None:
    mosquitto_broker.add_drivers("anna")
    with Journal(tmp_path / "j.sqlite") as journal:
        device = Device(login(mosquitto_broker, "anna", mqtt_5=mqtt_5), journal, ACK_EVERY_S)
        async with running([device]):
            await wait_until_async(lambda: device.connected)
            for _ in range(300):
                report(journal, [device])
                await asyncio.sleep(0)
            await wait_until_async(lambda: device.pending == 0)
    seqs = platform.seen["anna", device.boot]
    assert list(dict.fromkeys(seqs)) == list(range(1, 301))


async def test_devices__200_in_one_process_and_the_broker_killed__nothing_is_lost(
    mosquitto_broker: MosquittoServer, platform: Platform, tmp_path: Path
) -> None:
    names = [f"d{number}" for number in range(200)]
    mosquitto_broker.add_drivers(*names)
    with Journal(tmp_path / "j.sqlite") as journal:
        devices = [Device(login(mosquitto_broker, one), journal, ACK_EVERY_S) for one in names]
        async with running(devices):
            await wait_until_async(lambda: all(device.connected for device in devices))
            for step in range(40):
                if step == 15:
                    mosquitto_broker.kill()
                if step == 25:
                    mosquitto_broker.start()  # not in a thread: the broker would end with it
                report(journal, devices)
                await asyncio.sleep(0.05)
            await wait_until_async(lambda: not any(device.pending for device in devices), 60)
    for device in devices:
        assert set(platform.seen[device.driver_id, device.boot]) == set(range(1, 41))
    assert platform.voids == 0


async def test_device__a_platform_that_loses_copies__resends_until_all_is_there(
    mosquitto_broker: MosquittoServer, tmp_path: Path
) -> None:
    mosquitto_broker.add_drivers("bruno")
    platform = Platform(mosquitto_broker, lose_every=7)
    try:
        with Journal(tmp_path / "j.sqlite") as journal:
            device = Device(login(mosquitto_broker, "bruno"), journal, ACK_EVERY_S)
            async with running([device]):
                await wait_until_async(lambda: device.connected)
                for _ in range(200):
                    report(journal, [device])
                    await asyncio.sleep(0.02)
                await wait_until_async(lambda: device.pending == 0)
        assert set(platform.seen["bruno", device.boot]) == set(range(1, 201))
    finally:
        platform.close()


async def test_device__status__online_then_offline_also_without_a_goodbye(
    mosquitto_broker: MosquittoServer, platform: Platform, tmp_path: Path
) -> None:
    mosquitto_broker.add_drivers("carla")
    with Journal(tmp_path / "j.sqlite") as journal:
        device = Device(login(mosquitto_broker, "carla"), journal)
        async with running([device]):
            await wait_until_async(lambda: platform.statuses["carla"] == ["online"])
            assert device._connection is not None
            device._connection.close()  # simulates a lost network
            await wait_until_async(
                lambda: platform.statuses["carla"] == ["online", "offline", "online"]
            )
        await wait_until_async(lambda: platform.statuses["carla"][-1] == "offline")


async def test_connection__wrong_password__raises_not_authorized(
    mosquitto_broker: MosquittoServer,
) -> None:
    wrong = Login(
        MqttBroker("127.0.0.1", mosquitto_broker.port, tls=False), "anna", "wrong", "will"
    )
    connection = Connection(wrong, b"", lambda _: None, lambda _topic, _payload: None)
    with pytest.raises(ConnectionFailed, match=r"(?i)not authorized"):
        await connection.open()


async def test_connection__no_listener__raises_at_once() -> None:
    login = Login(MqttBroker("127.0.0.1", 1, tls=False), "anna", "secret", "will")
    connection = Connection(login, b"", lambda _: None, lambda _topic, _payload: None)
    with pytest.raises(ConnectionFailed, match=r"mqtt://127\.0\.0\.1:1: "):
        await connection.open()


async def test_device__process_killed_repeatedly__every_journalled_fix_arrives(
    mosquitto_broker: MosquittoServer, platform: Platform, tmp_path: Path
) -> None:
    """The process is killed while it reads, sends and receives acks; the last one ends normally."""
    mosquitto_broker.add_drivers("diana")
    environment = os.environ | {
        "MQTT_URL": mosquitto_broker.url,
        "FLEET_KEY_FILE": str(mosquitto_broker.paths.fleet_key_file),
        "JOURNAL_DIR": str(tmp_path),
        "ACK_EVERY_S": str(ACK_EVERY_S),
    }
    line = b'{"lat_deg": 43.77, "lon_deg": 11.25}\n'
    path = tmp_path / "device-diana.sqlite"
    for wanted in (40, 80, 120, None):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "device", "--driver", "diana"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        assert process.stdin is not None
        if wanted is None:
            process.stdin.write(line * 20)
            process.stdin.close()
            assert await process.wait() == 0
            break

        def written(wanted: int = wanted) -> bool:
            boots = read_published(path) if path.exists() else []
            return bool(boots) and boots[0].last_seq >= wanted

        while not written():
            process.stdin.write(line)
            await asyncio.sleep(0.02)
        process.kill()
        await process.wait()
    (boot,) = read_published(path)
    assert (boot.pending, boot.voids) == (0, 0)
    assert set(platform.seen["diana", boot.boot]) == set(range(1, boot.last_seq + 1))
