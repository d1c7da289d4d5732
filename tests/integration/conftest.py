"""Servers for tests, each in its own folder on free ports.

`stack` is the whole stack, shared by a session: a test that breaks a part repairs it.
`mosquitto_broker` and `kafka_broker` are single servers.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.servers.kafka import KafkaServer
from ops.servers.mosquitto import MosquittoServer
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """A folder that the servers' users can enter. As root they cannot enter pytest's tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="doorstep-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
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
