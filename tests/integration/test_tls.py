"""A stack with TLS: Mosquitto's listener, Caddy in front of the APIs, and a renewal."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from websockets.sync.client import connect as connect_websocket

from doorstep.credentials import mqtt_password
from doorstep.mqtt_topics import POSITION, topic_of
from ops.servers.waiting import wait_until
from ops.stack import caddy
from ops.stack.addresses import reach
from ops.stack.certificates import CertificateAuthority
from ops.stack.processes import module_argv
from ops.stack.settings import FREE_PORTS, PROJECT, StackSettings
from ops.stack.stack import Stack
from tests.integration.test_live import Follower, Scene
from tests.programs import provided

SOON_S = 60.0
DRIVER = "tls-anna"


@pytest.fixture(scope="module")
def tls_stack(server_home: Path, only_worker: Callable[[str], None]) -> Iterator[Stack]:
    """A stack with TLS and its own authority."""
    provided(caddy.find_program)
    only_worker("integration's stack with TLS")
    home = server_home / "tls-stack"
    settings = StackSettings(doorstep_home=home, doorstep_tls=True, **FREE_PORTS)
    stack = Stack(settings, environment=os.environ | {"ACK_EVERY_S": "2"}, echo=lambda _line: None)
    try:
        stack.up(owner_pid=os.getpid())
        stack.add_drivers([DRIVER])
        yield stack
    finally:
        stack.down(erase=True)


@pytest.fixture
def authority(tls_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The authority's certificate, trusted by this process."""
    file = CertificateAuthority(tls_stack.paths.tls).certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


@pytest.fixture
def scene(tls_stack: Stack) -> Iterator[Scene]:
    """A phone, staff, and an order of the phone's driver."""
    with closing(Scene(tls_stack)) as scene:
        wait_until(lambda: scene.ready()["kafka"], SOON_S, "the live feed is connected")
        yield scene


def handshake(stack: Stack, authority: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Connect to the broker's TLS listener with the openssl command."""
    return subprocess.run(
        [
            *("openssl", "s_client", "-connect", str(reach(stack.addresses.mqtt_tls[0]))),
            *("-CAfile", str(authority), "-verify_return_error", *options),
        ],
        input="",
        capture_output=True,
        text=True,
        check=False,
    )


def serial_at(stack: Stack, authority: Path) -> str:
    """The serial number of the certificate that the broker presents."""
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-serial"],
        input=handshake(stack, authority).stdout,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def curl(authority: Path, url: str, *options: str) -> tuple[dict[str, str], bytes]:
    """Request a URL; the result holds curl's own variables, the headers, and the body."""
    done = subprocess.run(
        [
            *("curl", "-sS", "--cacert", str(authority), "-D", "/dev/stderr", *options),
            *("-w", "%{stderr}http_version: %{http_version}\nhttp_code: %{http_code}\n", url),
        ],
        capture_output=True,
        check=True,
    )
    lines = done.stderr.decode().splitlines()
    found = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    return found, done.stdout


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_mqtts__openssl_handshake__is_verified(
    tls_stack: Stack, authority: Path, name: str
) -> None:
    check = ("-verify_ip", name) if name[0].isdigit() else ("-verify_hostname", name)
    done = handshake(tls_stack, authority, *check)

    assert done.returncode == 0, done.stderr
    assert "Verify return code: 0 (ok)" in done.stdout
    assert "TLSv1.3" in done.stdout


def test_mqtts__another_name_or_tls_1_1__is_refused(tls_stack: Stack, authority: Path) -> None:
    assert handshake(tls_stack, authority, "-verify_hostname", "other.example").returncode != 0
    assert handshake(tls_stack, authority, "-tls1_1").returncode != 0


@pytest.mark.parametrize("login", [(), ("-u", DRIVER, "-P", "wrong")])
def test_mqtts__no_or_a_wrong_password__is_refused(
    tls_stack: Stack, authority: Path, login: tuple[str, ...]
) -> None:
    at = reach(tls_stack.addresses.mqtt_tls[0])
    command = ["mosquitto_pub", "-h", at.host, "-p", str(at.port), "--cafile", str(authority)]
    done = subprocess.run(
        [*command, *login, "-t", topic_of(DRIVER, POSITION), "-n"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "not authori" in done.stderr.lower()


@pytest.mark.usefixtures("tls_stack")  # so that it is skipped without Caddy
def test_load__over_tls__every_fix_is_committed(server_home: Path) -> None:
    report = server_home / "load.json"
    options = ["--devices", "50", "--interval", "1", "--duration", "3", "--viewers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", "--tls", *options, "--report", str(report)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode in (0, 3), done.stderr[-2000:]  # 3: a busy machine was too slow
    found = json.loads(report.read_text())
    assert found["options"]["tls"] is True
    assert (found["fixes"]["lost"], found["discrepancies"]) == (0, [])
    assert found["fixes"]["committed"] >= 150


def test_send__stack_with_tls__the_fix_is_committed_over_tls(tls_stack: Stack) -> None:
    environment = tls_stack.client_environment()
    assert environment["MQTT_URL"] == tls_stack.addresses.mqtt_tls_url
    assert environment["MQTT_URL"].startswith("mqtts://")

    argv = [*module_argv("send"), "--driver", DRIVER, "--lat", "43.7712", "--lon", "11.2486"]
    done = subprocess.run(
        argv, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_https__track__over_http_2_compressed_and_strict(
    tls_stack: Stack, authority: Path, scene: Scene
) -> None:
    scene.report(1)
    url = f"{tls_stack.public_url}/track/{scene.order['order_id']}"
    token = f"Authorization: Bearer {scene.order['customer_token']}"

    answer, body = curl(authority, url, "--http2", "-H", token)
    assert (answer["http_version"], answer["http_code"]) == ("2", "200")
    assert json.loads(body)["order_id"] == scene.order["order_id"]
    assert "server" not in answer

    packed, _ = curl(authority, f"{tls_stack.public_url}/sign-in", "-H", "Accept-Encoding: gzip")
    assert packed["content-encoding"] == "gzip"

    named, _ = curl(authority, url, "-H", token, "-H", "Host: track.example", "-o", "/dev/null")
    assert named["strict-transport-security"].startswith("max-age=")
    assert "strict-transport-security" not in answer  # for localhost, on all of its ports


def test_https__a_customers_session__is_a_secure_cookie(
    tls_stack: Stack, authority: Path, scene: Scene
) -> None:
    assert scene.order["customer_link"].startswith("https://")
    url = f"{tls_stack.public_url}/track/{scene.order['order_id']}/session"
    body = json.dumps({"token": scene.order["customer_token"]})
    answer, _ = curl(authority, url, "-H", "Content-Type: application/json", "-d", body)

    assert answer["http_code"] == "204"
    assert "secure" in answer["set-cookie"]


def test_https__driver_api_and_the_authority__have_their_paths(
    tls_stack: Stack, authority: Path, scene: Scene
) -> None:
    token = f"Authorization: {scene.phone.headers['Authorization']}"
    url = f"{tls_stack.public_url}/driver-api/drivers/{scene.driver_id}"
    answer, body = curl(authority, url, "-H", token)
    assert (answer["http_code"], json.loads(body)["driver_id"]) == ("200", scene.driver_id)

    answer, body = curl(authority, f"{tls_stack.public_url}/ca.crt")
    assert answer["content-type"] == "application/x-x509-ca-cert"
    assert body == authority.read_bytes()


def test_https__operators_paths__stay_hidden(tls_stack: Stack, authority: Path) -> None:
    for path in ("/metrics", "/docs", "/driver-api/metrics"):
        answer, _ = curl(authority, f"{tls_stack.public_url}{path}")
        assert answer["http_code"] == "404", path


def test_https__websocket__receives_the_snapshot_and_a_position(
    tls_stack: Stack, authority: Path, scene: Scene
) -> None:
    url = f"{tls_stack.public_url}/track/{scene.order['order_id']}/ws"
    with connect_websocket(
        url.replace("https", "wss", 1),
        additional_headers={"Authorization": f"Bearer {scene.order['customer_token']}"},
        ssl=ssl.create_default_context(cafile=str(authority)),
    ) as socket:
        assert json.loads(socket.recv(timeout=SOON_S))["type"] == "snapshot"
        place = scene.report(1)
        frame = json.loads(socket.recv(timeout=SOON_S))
        assert frame["type"] == "position"
        assert frame["data"]["position"]["geometry"]["coordinates"] == place


def test_https__server_sent_events__arrive_one_by_one(
    tls_stack: Stack, authority: Path, scene: Scene
) -> None:
    scene.report(1)
    url = f"{tls_stack.public_url}/track/{scene.order['order_id']}/stream"
    with closing(Follower(url, scene.order["customer_token"])) as follower:
        follower.next("snapshot")
        for n in (2, 3):
            place = scene.report(n)
            position, _ = follower.next("position")
            assert position["position"]["geometry"]["coordinates"] == place
        assert follower.opened == 1  # the same response, which has not ended


def connect(stack: Stack, authority: Path) -> tuple[Client, list[str]]:
    """Connect a driver over TLS; the list names each disconnect."""
    lost: list[str] = []
    client = Client(CallbackAPIVersion.VERSION2, client_id=DRIVER, clean_session=False)
    client.username_pw_set(DRIVER, mqtt_password(stack.paths.fleet_key(), DRIVER))
    client.tls_set_context(ssl.create_default_context(cafile=str(authority)))
    client.on_disconnect = lambda *args: lost.append(str(args[3]))
    at = reach(stack.addresses.mqtt_tls[0])
    client.connect(at.host, at.port)
    client.loop_start()
    wait_until(client.is_connected, SOON_S, "the driver is connected")
    return client, lost


def test_renewal__sessions_and_streams__stay_and_new_ones_get_the_new_certificate(
    tls_stack: Stack, authority: Path
) -> None:
    broker_pid, before = tls_stack.pid_of("mosquitto-1"), serial_at(tls_stack, authority)
    caddy_pid = tls_stack.pid_of("caddy")
    client, lost = connect(tls_stack, authority)
    try:
        tls_stack.renew_certificate()
        wait_until(lambda: serial_at(tls_stack, authority) != before, SOON_S, "a new certificate")

        info = client.publish(topic_of(DRIVER, POSITION), b"{}", 1)
        info.wait_for_publish(SOON_S)
        assert info.is_published()
        assert lost == []
    finally:
        client.disconnect()
        client.loop_stop()
    assert tls_stack.pid_of("mosquitto-1") == broker_pid
    assert tls_stack.pid_of("caddy") == caddy_pid
    answer, _ = curl(authority, f"{tls_stack.public_url}/healthz")
    assert answer["http_code"] == "200"
    assert _serial_of_caddy(tls_stack, authority) == serial_at(tls_stack, authority)


def _serial_of_caddy(stack: Stack, authority: Path) -> str:
    https = stack.addresses.https
    assert https is not None
    pem = ssl.get_server_certificate((reach(https).host, https.port), ca_certs=str(authority))
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-serial"],
        input=pem,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "bind"),
    [
        ("tracking_api", "TRACKING_API_BIND"),
        ("driver_api", "DRIVER_API_INTERNAL_BIND"),
        ("bridge", "BRIDGE_BIND"),
        ("driver_events", "DRIVER_EVENTS_BIND"),
    ],
)
def test_service__a_bind_beyond_loopback__is_refused_with_one_line(module: str, bind: str) -> None:
    needed: dict[str, Any] = {
        "DATABASE_URL": "postgresql://x@127.0.0.1/x",
        "CUSTOMER_DATABASE_URL": "postgresql://x@127.0.0.1/x",
        "DRIVER_API_TOKEN": "x" * 40,
        "MQTT_PASSWORD": "x",
    }
    done = subprocess.run(
        [sys.executable, "-m", module],
        env=os.environ | needed | {bind: "0.0.0.0:1"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 78
    assert len(done.stderr.splitlines()) == 1
    assert bind in done.stderr
    assert "ALLOW_PLAINTEXT=true" in done.stderr
