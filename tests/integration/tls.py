"""A throw-away certificate authority, for listeners on 127.0.0.1."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.servers.mosquitto import AnonymousMosquitto

DAYS = "2"


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files: the authority's certificate, and the server's certificate and key."""

    authority: Path
    certificate: Path
    key: Path


class TlsMosquitto(AnonymousMosquitto):
    """Mosquitto that accepts TLS connections only."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        super().__init__(folder)
        self.certificates = certificates

    def listener_options(self) -> Sequence[str]:
        files = self.certificates
        return (f"certfile {files.certificate}", f"keyfile {files.key}")

    @property
    def url(self) -> str:
        """The broker's URL, as in MQTT_URL."""
        return f"mqtts://127.0.0.1:{self.port}"


def make_certificates(folder: Path, name: str = "127.0.0.1") -> Certificates:
    """Create an authority and a server certificate for an IP address."""
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    authority_key, request = str(folder / "ca.key"), str(folder / "server.csr")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    extensions = folder / "server.ext"
    extensions.write_text(f"subjectAltName = IP:{name}\n")
    _openssl(
        *("req", "-x509", *curve, "-days", DAYS, "-subj", "/CN=throw-away authority"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", authority_key, "-out", str(made.authority)),
    )
    _openssl(
        *("req", *curve, "-subj", f"/CN={name}", "-keyout", str(made.key), "-out", request),
    )
    _openssl(
        *("x509", "-req", "-days", DAYS, "-in", request, "-out", str(made.certificate)),
        *("-CA", str(made.authority), "-CAkey", authority_key, "-CAcreateserial"),
        *("-extfile", str(extensions)),
    )
    for file in (made.authority, made.certificate, made.key):
        file.chmod(0o644)  # the broker runs as another user
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
