"""Real servers for tests, each in a folder of its own on free ports.

`stack` is everything, shared by a session; a test that breaks a part leaves it whole again.
`mosquitto_broker` and `kafka_broker` are one server, for tests that need no more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.stack.settings import StackSettings
from ops.stack.stack import Stack
from tests.integration.servers import KafkaBroker, MosquittoBroker

ANY_PORT = {name: 0 for name in StackSettings.model_fields if name.endswith("_port")}


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """A folder that the servers' own users can reach, which pytest's isn't when run by root."""
    folder = Path(tempfile.mkdtemp(prefix="doorstep-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stack(server_home: Path, only_worker: Callable[[str], None]) -> Iterator[Stack]:
    """The whole stack, ready: `stack.addresses`, `stack.client_environment()`, `stack.pid_of()`."""
    only_worker("integration's stack")
    settings = StackSettings(doorstep_home=server_home / "stack", **ANY_PORT)
    said: list[str] = []
    environment = os.environ | {"ACK_EVERY_S": "2"}  # a test waits for acks
    whole = Stack(settings, environment=environment, say=said.append)
    try:
        # the owner's pid: if this process is killed, the stack ends by itself
        whole.up(owner_pid=os.getpid())
        yield whole
    finally:
        whole.down(erase=True)


@pytest.fixture(scope="module")
def mosquitto_broker(server_home: Path) -> Iterator[MosquittoBroker]:
    """One Mosquitto with the project's own configuration; a module's tests share it."""
    broker = MosquittoBroker(Path(tempfile.mkdtemp(dir=server_home)))
    broker.start()
    yield broker
    broker.erase()


@pytest.fixture(scope="module")
def kafka_broker(server_home: Path) -> Iterator[KafkaBroker]:
    """One Kafka without topics; a module's tests share it."""
    broker = KafkaBroker(Path(tempfile.mkdtemp(dir=server_home)))
    broker.start()
    yield broker
    broker.erase()
