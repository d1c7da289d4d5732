"""Keeps the certificate that Mosquitto and Caddy present in docker-compose.yml.

/run/given             server.crt (with its chain) and server.key, if the operator has them
/mosquitto/authority   the own authority, made once, for no other container
/mosquitto/tls         server.pem (key and certificate), public/ca.crt: Mosquitto and Caddy read it

Both servers look for a new server.pem and reload it. Runs until SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from doorstep.errors import DoorstepError
from ops.console import print_line
from ops.stack.certificates import (
    CertificateAuthority,
    all_names,
    fingerprint,
    read_given,
)
from ops.stack.private_file import replace_file

GIVEN = Path("/run/given")
AUTHORITY = Path("/mosquitto/authority")
OFFERED = Path("/mosquitto/tls")
POLL_S = 60.0
CONTAINERS = ("mosquitto", "caddy")  # their names inside the networks


def keep(names: str, *, given: Path, authority_folder: Path, offered: Path) -> bool:
    """Offer the current certificate. Returns whether it is a new one. Raises DoorstepError.

    `names` is a comma-separated list. A given certificate outranks the own authority.
    """
    certificate, key = given / "server.crt", given / "server.key"
    if certificate.exists() or key.exists():
        content = read_given(certificate, key)
    else:
        authority = CertificateAuthority(authority_folder)
        authority.prepare(all_names(names, *CONTAINERS))
        content = authority.server.read_bytes()
        _offer_authority(authority.certificate, offered / "public")
    file = offered / "server.pem"
    if file.exists() and file.read_bytes() == content:
        return False
    replace_file(file, content, mode=0o640)  # Caddy reads it as the group
    return True


def _offer_authority(certificate: Path, public: Path) -> None:
    public.mkdir(mode=0o755, exist_ok=True)
    file = public / "ca.crt"
    if file.exists() and file.read_bytes() == certificate.read_bytes():
        return
    replace_file(file, certificate.read_bytes(), mode=0o644)
    print_line(f"compose_certificates: authority, SHA-256 {fingerprint(certificate)}")


def main() -> int:
    """Keep the certificate until SIGTERM; the return value is the exit status."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    names = os.environ.get("DOORSTEP_TLS_NAMES", "")
    while not stopped.is_set():
        try:
            if keep(names, given=GIVEN, authority_folder=AUTHORITY, offered=OFFERED):
                print_line("compose_certificates: a new certificate is offered")
        except (DoorstepError, OSError) as exc:  # the servers keep the one that they have
            print_line(f"compose_certificates: {exc}")
        stopped.wait(POLL_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
