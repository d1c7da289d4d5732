"""mosquitto/in-container with a real Mosquitto and other paths, without a container."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from doorstep.credentials import mqtt_password, new_fleet_key
from doorstep.password_file import add_entries
from doorstep.settings import Bind
from ops.servers.waiting import wait_until
from ops.stack.addresses import any_free_port
from ops.stack.compose_certificates import keep
from ops.stack.mosquitto import ACL, TEMPLATE, render
from ops.stack.probes import mqtt_accepts

SCRIPT = TEMPLATE.parent / "in-container"
KEY = new_fleet_key()
BRIDGE_PASSWORD = "secret"
TIMEOUT_S = 30.0


def free_bind() -> Bind:
    return Bind("127.0.0.1", any_free_port())


@pytest.fixture
def bind() -> Bind:
    return free_bind()


@pytest.fixture
def tls_bind() -> Bind:
    return free_bind()


@pytest.fixture
def script(tmp_path: Path, bind: Bind, tls_bind: Bind) -> Iterator[subprocess.Popen[bytes]]:
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
        ("/tmp/mosquitto.conf", str(tmp_path / "both-listeners.conf")),
        ("/run/mosquitto/mosquitto.conf", str(tmp_path / "mosquitto.conf")),
        ("/run/tls/server.pem", str(tmp_path / "tls" / "server.pem")),
        ("listener 8883", f"listener {tls_bind.port} {tls_bind.host}"),
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
    """Write what the other containers write: the certificate, the passwords, then the ACL."""
    offer_certificate(folder)
    add_entries(folder / "passwd", {"bridge": BRIDGE_PASSWORD}, KEY, driver_ids)
    shutil.copyfile(ACL, folder / "acl")


def offer_certificate(folder: Path) -> None:
    (folder / "tls").mkdir(exist_ok=True)
    keep(
        "track.example",
        given=folder / "given",
        authority_folder=folder / "authority",
        offered=folder / "tls",
    )


def serial_at(bind: Bind, folder: Path) -> int:
    """The serial number of the certificate that a verified handshake presents."""
    context = ssl.create_default_context(cafile=folder / "tls" / "public" / "ca.crt")
    with (
        socket.create_connection((bind.host, bind.port), TIMEOUT_S) as raw,
        context.wrap_socket(raw, server_hostname="track.example") as connection,
    ):
        return int(str((connection.getpeercert() or {})["serialNumber"]), 16)


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


def test_in_container__a_renewed_certificate__is_presented_and_sessions_stay(
    script: subprocess.Popen[bytes], tmp_path: Path, bind: Bind, tls_bind: Bind
) -> None:
    provide(tmp_path, "anna")
    wait_until(lambda: lets_in(bind, "anna"), TIMEOUT_S)
    before = serial_at(tls_bind, tmp_path)
    context = ssl.create_default_context(cafile=tmp_path / "tls" / "public" / "ca.crt")
    lost: list[str] = []
    client = Client(CallbackAPIVersion.VERSION2, client_id="anna", clean_session=False)
    client.username_pw_set("anna", mqtt_password(KEY, "anna"))
    client.tls_set_context(context)
    client.on_disconnect = lambda *args: lost.append(str(args[3]))
    client.connect(tls_bind.host, tls_bind.port)
    client.loop_start()
    try:
        wait_until(client.is_connected, TIMEOUT_S)
        (tmp_path / "authority" / "server.pem").unlink()
        offer_certificate(tmp_path)
        wait_until(lambda: serial_at(tls_bind, tmp_path) != before, TIMEOUT_S)
        info = client.publish("doorstep/v1/drivers/anna/position", b"{}", 1)
        info.wait_for_publish(TIMEOUT_S)
        assert info.is_published()
        assert lost == []
    finally:
        client.disconnect()
        client.loop_stop()


def test_in_container__a_wrong_acl_file__leaves_the_broker_running(
    script: subprocess.Popen[bytes], tmp_path: Path, bind: Bind
) -> None:
    provide(tmp_path, "anna")
    wait_until(lambda: lets_in(bind, "anna"), TIMEOUT_S)
    (tmp_path / "acl").write_text("no such directive\n")
    with pytest.raises(subprocess.TimeoutExpired):  # Mosquitto's 2.1 line ends here
        script.wait(5)
    assert lets_in(bind, "anna")
