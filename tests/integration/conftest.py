"""Servers for tests, each in its own folder on free ports.

`stack` is the whole stack, shared by this folder: a test that breaks a part repairs it. The others
are single servers, and driver_events as processes on them. `driver_api` and `tracking_api` are
applications on the test's own database.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from doorstep.http.tokens import TokenCache
from ops.servers.kafka import KafkaServer
from ops.servers.memory_folder import make_folder
from ops.servers.mosquitto import AnonymousMosquitto, MosquittoServer
from ops.servers.services import ServiceProcess, driver_events_process
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from tests.database import Database
from tests.integration.driver_events_inputs import create_topic, register
from tests.integration.http_services import open_driver_api, open_tracking_api, populate


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """A folder that the servers' users can enter. As root they cannot enter pytest's tmp_path."""
    folder = make_folder("doorstep-test-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def stack(server_home: Path, only_worker: Callable[[str], None]) -> Iterator[Stack]:
    """The whole stack, ready: `stack.addresses`, `stack.client_environment()`, `stack.pid_of()`."""
    only_worker("integration's stack")
    settings = StackSettings(doorstep_home=server_home / "stack", **FREE_PORTS)
    environment = os.environ | {
        "ACK_EVERY_S": "2",  # 30 s by default: tests wait for acks
        "SAMPLING_FOLLOWS_DEMAND": "false",  # devices send what a test lets them observe
    }
    stack = Stack(settings, environment=environment, echo=lambda _line: None)
    try:
        # If this process is killed, the stack stops by itself.
        stack.up(owner_pid=os.getpid())
        yield stack
    finally:
        stack.down(erase=True)


@pytest.fixture(scope="module")
def mosquitto_broker(server_home: Path) -> Iterator[MosquittoServer]:
    """One Mosquitto with the project's configuration, shared by a module."""
    broker = MosquittoServer(Path(tempfile.mkdtemp(dir=server_home)))
    broker.start()
    yield broker
    broker.erase()


@pytest.fixture(scope="module")
def kafka_broker(server_home: Path) -> Iterator[KafkaServer]:
    """One Kafka without topics, shared by a module."""
    broker = KafkaServer(Path(tempfile.mkdtemp(dir=server_home)))
    broker.start()
    yield broker
    broker.erase()


@pytest.fixture
def uncached_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request looks its token up: a revoked one ends at once."""
    monkeypatch.setattr(TokenCache.__init__, "__defaults__", (0.0, 10, lambda: 0.0))


@pytest.fixture
async def driver_api(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """driver_api on a populated database of the test."""
    populate(database)
    async with open_driver_api(database) as client:
        yield client


@pytest.fixture
async def tracking_api(
    database: Database, driver_api: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    """tracking_api on the same database."""
    async with open_tracking_api(database) as client:
        yield client


@pytest.fixture(scope="module")
def kafka(kafka_broker: KafkaServer) -> KafkaServer:
    """One Kafka with the project's topics, shared by a module."""
    kafka_broker.create_topics()
    return kafka_broker


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnonymousMosquitto]:
    """One Mosquitto without passwords, shared by a module."""
    server = AnonymousMosquitto(tmp_path_factory.mktemp("mosquitto"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def topic(kafka: KafkaServer, request: pytest.FixtureRequest) -> str:
    """Create a topic for the test alone."""
    name = f"driver-pos-{abs(hash(request.node.name)) % 10**8}"
    create_topic(kafka, name)
    return name


@pytest.fixture
def make_service(
    tmp_path: Path,
    database: Database,
    kafka: KafkaServer,
    mosquitto: AnonymousMosquitto,
    topic: str,
) -> Iterator[Callable[..., ServiceProcess]]:
    """Make driver_events processes on the test's database and topic, stopped at the end."""
    register(database)
    services: list[ServiceProcess] = []

    def make(**more: str) -> ServiceProcess:
        service = driver_events_process(
            tmp_path / f"driver_events-{len(services)}",
            database.url("driver_events"),
            mosquitto.url,
            kafka.access,
            KAFKA_TOPIC=topic,
            KAFKA_GROUP_ID=f"group-{topic}",
            **more,
        )
        services.append(service)
        return service

    yield make
    for service in services:
        service.stop()


@pytest.fixture
def service(make_service: Callable[..., ServiceProcess]) -> ServiceProcess:
    """One running driver_events on the test's database and topic."""
    running = make_service()
    running.start()
    return running
