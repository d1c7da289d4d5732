"""caddy/in-container and the Caddyfile with a real Caddy and other paths, without a container."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from doorstep.settings import Bind
from ops.servers.waiting import wait_until
from ops.stack.addresses import any_free_port
from ops.stack.caddy import TEMPLATE, find_program
from ops.stack.compose_certificates import keep
from tests.programs import provided

SCRIPT = TEMPLATE.parent / "in-container"
NAME = "track.example"
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def program() -> str:
    return provided(find_program)


@pytest.fixture
def upstream() -> Iterator[str]:
    """A server that answers 404 to everything: Caddy reaches something."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class Container:
    """The folders and variables of one container."""

    def __init__(self, folder: Path, program: str, upstream: str) -> None:
        self.bind = Bind("127.0.0.1", any_free_port())
        self.folder = folder
        self.tls = folder / "tls"
        self.tls.mkdir()
        (folder / "bin").mkdir()
        (folder / "bin" / "caddy").symlink_to(program)
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "CADDY_CONFIG": str(TEMPLATE),
            "CADDY_CERTIFICATE": str(self.tls / "server.pem"),
            "CADDY_ADMIN": f"unix/{folder / 'admin.sock'}",
            "CADDY_BIND": self.bind.host,
            "CADDY_HTTPS_PORT": str(self.bind.port),
            "CADDY_PUBLIC": str(self.tls / "public"),
            "TRACKING_API_UPSTREAM": upstream,
            "DRIVER_API_UPSTREAM": upstream,
        }

    def offer_certificate(self) -> None:
        keep(
            NAME,
            given=self.folder / "given",
            authority_folder=self.folder / "authority",
            offered=self.tls,
        )

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", str(SCRIPT)], env=self.environment)

    def connect(self) -> ssl.SSLSocket:
        """Open a verified connection."""
        context = ssl.create_default_context(cafile=self.tls / "public" / "ca.crt")
        raw = socket.create_connection((self.bind.host, self.bind.port), TIMEOUT_S)
        return context.wrap_socket(raw, server_hostname=NAME)

    def serial(self) -> str | None:
        """The serial number of the certificate; None while Caddy does not listen."""
        try:
            with self.connect() as connection:
                return str((connection.getpeercert() or {})["serialNumber"])
        except OSError:
            return None


@pytest.fixture
def container(tmp_path: Path, program: str, upstream: str) -> Container:
    return Container(tmp_path, program, upstream)


@pytest.fixture
def running(container: Container) -> Iterator[subprocess.Popen[bytes]]:
    process = container.start()
    yield process
    process.terminate()
    process.wait(TIMEOUT_S)


def test_in_container__certificate_offered_late__starts_after_it(
    container: Container, running: subprocess.Popen[bytes]
) -> None:
    assert running.poll() is None
    container.offer_certificate()
    wait_until(lambda: container.serial() is not None, TIMEOUT_S)


def test_in_container__a_renewed_certificate__is_presented_by_the_same_process(
    container: Container, running: subprocess.Popen[bytes]
) -> None:
    container.offer_certificate()
    wait_until(lambda: container.serial() is not None, TIMEOUT_S)
    before = container.serial()
    (container.folder / "authority" / "server.pem").unlink()
    container.offer_certificate()
    wait_until(lambda: container.serial() not in (None, before), TIMEOUT_S)
    assert running.poll() is None


def test_in_container__sigterm__ends_caddy_and_the_script(
    container: Container, running: subprocess.Popen[bytes]
) -> None:
    container.offer_certificate()
    wait_until(lambda: container.serial() is not None, TIMEOUT_S)
    running.terminate()
    assert running.wait(TIMEOUT_S) == 0
    assert container.serial() is None


def test_caddyfile__a_public_domain__is_valid_and_gets_its_certificate_by_acme(
    container: Container, program: str
) -> None:
    acme = container.environment | {
        "CADDY_SITE": "fleet.example",
        "CADDY_TLS": "",
        "CADDY_ADMIN": "off",
    }
    shutil.copy(TEMPLATE, container.folder / "Caddyfile")
    for command in ("validate", "adapt"):
        done = subprocess.run(
            [program, command, "--config", "Caddyfile", "--adapter", "caddyfile"],
            cwd=container.folder,
            env=acme,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert '"host":["fleet.example"]' in done.stdout  # so that automatic HTTPS manages it
    assert "load_files" not in done.stdout


def test_in_container__a_public_domain__is_what_caddy_serves(
    container: Container, program: str
) -> None:
    stub = container.folder / "bin" / "caddy"
    stub.unlink()
    stub.write_text('#!/bin/sh\necho "site=$CADDY_SITE tls=$CADDY_TLS $*"\n')
    stub.chmod(0o755)
    done = subprocess.run(
        ["sh", str(SCRIPT)],
        env=container.environment | {"DOORSTEP_DOMAIN": "fleet.example"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"site=fleet.example tls= run --config {TEMPLATE}")
