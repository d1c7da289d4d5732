"""From a phone to the history and back, while one process is killed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from doorstep.fix import Fix, encode_fix, encode_position, instant_of
from doorstep.store import admin
from ops.servers.kafka import KafkaServer
from ops.servers.mosquitto import AnonymousMosquitto
from ops.servers.process import ServerProcess
from ops.servers.services import ServiceProcess, bridge_process, driver_events_process
from ops.servers.waiting import wait_until
from ops.stack.postgres import PostgresCluster
from tests.clients.mqtt import DriverClient
from tests.database import Database, cloned_database

PARTS = ["mosquitto", "kafka", "bridge", "driver_events"]
FIXES = 600
RECOVERED_S = 90.0  # most of it is Kafka's start on a busy machine


class Pipe:
    """The processes from MQTT to the database."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.database = database
        self.kafka = KafkaServer(folder / "kafka")
        self.mosquitto = AnonymousMosquitto(folder / "mosquitto")
        self.bridge = bridge_process(folder / "bridge", self.mosquitto.url, self.kafka.access)
        self.driver_events = self.another_driver_events(folder / "driver_events")

    def another_driver_events(self, folder: Path) -> ServiceProcess:
        url = self.database.url("driver_events")
        name = {"MQTT_USERNAME": "driver_events-2"}
        return driver_events_process(folder, url, self.mosquitto.url, self.kafka.access, **name)

    def part(self, name: str) -> ServerProcess:
        part: ServerProcess = getattr(self, name)
        return part

    def start(self) -> None:
        self.kafka.start()
        self.kafka.create_topics()
        for server in (self.mosquitto, self.bridge, self.driver_events):
            server.start()

    def stop(self) -> None:
        for server in (self.bridge, self.driver_events, self.mosquitto, self.kafka):
            server.stop()

    def seqs(self, driver_id: str) -> list[int]:
        rows = self.database.rows(
            "SELECT seq FROM doorstep.fix_history WHERE driver_id = %s ORDER BY 1", driver_id
        )
        return [row["seq"] for row in rows]


@pytest.fixture(scope="module")
def pipe(
    tmp_path_factory: pytest.TempPathFactory, postgres_cluster: PostgresCluster
) -> Iterator[Pipe]:
    """Shared by the tests of this module; each leaves all processes running."""
    with cloned_database(postgres_cluster) as database:
        with database.connect(autocommit=True) as conn:
            drivers = [f"d-{part}" for part in (*PARTS, "woken")]
            admin.register_drivers(conn, [admin.NewDriver(one, one, None) for one in drivers])
        pipe = Pipe(tmp_path_factory.mktemp("pipe"), database)
        try:
            pipe.start()
            yield pipe
        finally:
            pipe.stop()


def make_journal() -> dict[int, Fix]:
    """Return the fixes that a phone has to deliver."""
    now_ms = int(time.time() * 1000)
    return {
        seq: Fix("b1", seq, instant_of(now_ms - 10_000 + seq), 43.77, 11.25)
        for seq in range(1, FIXES + 1)
    }


def missing(phone: DriverClient) -> set[int]:
    """Return the seqs that the newest watermark does not cover."""
    if not phone.received:
        return set(range(1, FIXES + 1))
    ack = json.loads(phone.received[-1][1])
    gaps = {seq for first, last in ack["missing"] for seq in range(first, last + 1)}
    return gaps | set(range(ack["seq"] + 1, FIXES + 1))


def deliver(phone: DriverClient, journal: dict[int, Fix]) -> None:
    """Resend the missing fixes until the watermark covers all."""
    deadline = time.monotonic() + RECOVERED_S
    while left := missing(phone):
        assert time.monotonic() < deadline, f"{len(left)} fixes are still not acknowledged"
        again = sorted(left)
        phone.publish(
            encode_position([journal[seq] for seq in again[at : at + 200]])
            for at in range(0, len(again), 200)
        )
        time.sleep(3)


@pytest.mark.parametrize("part", PARTS)
def test_pipe__process_killed__every_fix_is_recorded_once_and_acknowledged(
    pipe: Pipe, part: str
) -> None:
    journal = make_journal()
    phone = DriverClient(pipe.mosquitto, f"d-{part}")
    phone.publish(encode_fix(journal[seq]) for seq in range(1, FIXES // 2))
    pipe.part(part).kill()
    time.sleep(1)
    pipe.part(part).start()
    deliver(phone, journal)
    phone.close()
    assert pipe.seqs(phone.driver_id) == list(range(1, FIXES + 1))
    assert not pipe.database.rows("SELECT * FROM doorstep.outbox")  # no dead letters


def test_pipe__driver_events_resumed_after_a_takeover__changes_nothing(
    pipe: Pipe, tmp_path: Path
) -> None:
    journal = make_journal()
    phone = DriverClient(pipe.mosquitto, "d-woken")
    phone.publish(encode_fix(journal[seq]) for seq in range(1, 101))
    wait_until(lambda: len(pipe.seqs("d-woken")) == 100)
    pipe.driver_events.signal(signal.SIGSTOP)
    phone.publish(encode_fix(journal[seq]) for seq in range(101, FIXES // 2))
    other = pipe.another_driver_events(tmp_path / "other")
    try:
        other.start()
        wait_until(lambda: len(pipe.seqs("d-woken")) == FIXES // 2 - 1, 60)
        pipe.driver_events.signal(signal.SIGCONT)
        phone.publish(encode_fix(journal[seq]) for seq in range(FIXES // 2, FIXES + 1))
        wait_until(lambda: len(pipe.seqs("d-woken")) == FIXES, 60)
        pipe.driver_events.wait_ready()
    finally:
        other.stop()
    phone.close()
    assert pipe.seqs("d-woken") == list(range(1, FIXES + 1))
    assert pipe.driver_events.exit_code is None
