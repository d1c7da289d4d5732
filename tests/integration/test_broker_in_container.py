"""mosquitto/in-container with a real Mosquitto and other paths, without a container."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from doorstep.credentials import mqtt_password, new_fleet_key
from doorstep.password_file import add_entries
from doorstep.settings import Bind
from ops.servers.waiting import wait_until
from ops.stack.mosquitto import ACL, TEMPLATE, render
from ops.stack.probes import mqtt_accepts

SCRIPT = TEMPLATE.parent / "in-container"
KEY = new_fleet_key()
BRIDGE_PASSWORD = "secret"
TIMEOUT_S = 30.0


@pytest.fixture
def bind() -> Bind:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Bind("127.0.0.1", server.getsockname()[1])


@pytest.fixture
def script(tmp_path: Path, bind: Bind) -> Iterator[subprocess.Popen[bytes]]:
    """The script, started before `provision` has written anything."""
    program = shutil.which("mosquitto", path=f"/usr/sbin:{os.environ['PATH']}")
    assert program, "no mosquitto: ./run installs it"
    config = render(
        TEMPLATE.read_text(encoding="utf-8"),
        {
            "listener": f"{bind.port} {bind.host}",
            "password_file": str(tmp_path / "passwd"),
            "acl_file": str(tmp_path / "acl"),
            "persistence_location": f"{tmp_path}/",
        },
    )
    as_root = "user root\n" if os.geteuid() == 0 else ""
    (tmp_path / "mosquitto.conf").write_text(f"{config}\n{as_root}")
    moved = SCRIPT.read_text(encoding="utf-8")
    for path, ours in (
        ("/mosquitto/config", str(tmp_path)),
        ("/run/mosquitto/mosquitto.conf", str(tmp_path / "mosquitto.conf")),
        ("/usr/sbin/mosquitto", program),
    ):
        assert path in moved
        moved = moved.replace(path, ours)
    process = subprocess.Popen(["sh", "-c", moved], start_new_session=True)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def provide(folder: Path, *driver_ids: str) -> None:
    """Write what `provision` writes: the passwords first, then the ACL."""
    add_entries(folder / "passwd", {"bridge": BRIDGE_PASSWORD}, KEY, driver_ids)
    shutil.copyfile(ACL, folder / "acl")


def lets_in(bind: Bind, user: str) -> bool:
    password = BRIDGE_PASSWORD if user == "bridge" else mqtt_password(KEY, user)
    return mqtt_accepts(bind, user, password)


def test_in_container__provisioned_late__starts_after_it(
    script: subprocess.Popen[bytes], tmp_path: Path, bind: Bind
) -> None:
    assert script.poll() is None
    assert not lets_in(bind, "bridge")
    provide(tmp_path)
    wait_until(lambda: lets_in(bind, "bridge"), TIMEOUT_S)
    assert not lets_in(bind, "anna")


def test_in_container__driver_added__can_log_in_without_a_restart(
    script: subprocess.Popen[bytes], tmp_path: Path, bind: Bind
) -> None:
    provide(tmp_path)
    wait_until(lambda: lets_in(bind, "bridge"), TIMEOUT_S)
    with socket.create_connection((bind.host, bind.port)) as connection:
        provide(tmp_path, "anna")
        wait_until(lambda: lets_in(bind, "anna"), TIMEOUT_S)
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):  # a restarted broker would have closed it
            connection.recv(1)


def test_in_container__sigterm__ends_broker_and_script(
    script: subprocess.Popen[bytes], tmp_path: Path, bind: Bind
) -> None:
    provide(tmp_path)
    wait_until(lambda: lets_in(bind, "bridge"), TIMEOUT_S)
    script.terminate()
    assert script.wait(TIMEOUT_S) == 0
    assert not lets_in(bind, "bridge")
    assert (tmp_path / "mosquitto.db").exists()  # it saved its sessions


def test_in_container__broker_dies__ends_so_that_the_engine_restarts_it(
    script: subprocess.Popen[bytes], tmp_path: Path, bind: Bind
) -> None:
    provide(tmp_path)
    wait_until(lambda: lets_in(bind, "bridge"), TIMEOUT_S)
    children = Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text().split()
    broker = next(
        int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "mosquitto"
    )
    os.kill(broker, signal.SIGKILL)
    assert script.wait(TIMEOUT_S) == 128 + signal.SIGKILL
