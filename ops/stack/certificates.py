"""The stack's own certificate authority and server certificate, made with the `openssl` command.

.doorstep/stack/secrets/tls/   mode 0700
├── ca.key, ca.crt     the authority, made once
└── server.pem         the server's key and certificate in one file, so that a renewal is atomic
"""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.stack.errors import StackError
from ops.stack.private_file import replace_file

AUTHORITY_DAYS = 3650
SERVER_DAYS = 90
RENEW_BEFORE_S = 30 * 86_400
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
OPENSSL_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """An authority of one stack, in its own folder."""

    folder: Path
    usage: str = "serverAuth"  # of the server's certificate, as openssl names it
    days: int | None = None  # SERVER_DAYS by default

    @property
    def certificate(self) -> Path:
        """The authority's certificate, which clients trust."""
        return self.folder / "ca.crt"

    @property
    def server(self) -> Path:
        """The server's key and certificate."""
        return self.folder / "server.pem"

    @property
    def _key(self) -> Path:
        return self.folder / "ca.key"

    def prepare(self, names: Sequence[str], *, force: bool = False) -> bool:
        """Make what is missing, expires soon or has other names. Returns whether it did."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._key.exists() or expires_soon(self.certificate):
            self._make_authority()
        if not force and self._is_current(names):
            return False
        self._issue(names)
        return True

    def _make_authority(self) -> None:
        _openssl(
            *("req", "-x509", *_new_key(self._key), "-days", str(AUTHORITY_DAYS), "-sha256"),
            *("-subj", f"/CN=Doorstep authority of {socket.gethostname()[:30]}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-out", str(self.certificate)),
        )
        self._key.chmod(0o600)

    def _is_current(self, names: Sequence[str]) -> bool:
        if not self.server.exists() or expires_soon(self.server):
            return False
        text = _openssl("x509", "-noout", "-ext", "subjectAltName", "-in", str(self.server))
        listed = text.splitlines()[-1].replace(" ", "").split(",")
        if set(map(_san_text, names)) != set(listed):
            return False
        return _succeeds("verify", "-CAfile", str(self.certificate), str(self.server))

    def _issue(self, names: Sequence[str]) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            key, request, extensions, certificate = (
                Path(folder) / name for name in ("key", "csr", "ext", "crt")
            )
            extensions.write_text(
                f"subjectAltName={','.join(map(_san, names))}\n"
                f"extendedKeyUsage={self.usage}\nkeyUsage=critical,digitalSignature\n"
                "basicConstraints=critical,CA:FALSE\n",
                encoding="ascii",
            )
            _openssl("req", *_new_key(key), "-subj", f"/CN={names[0][:60]}", "-out", str(request))
            _openssl(
                *("x509", "-req", "-days", str(self.days or SERVER_DAYS), "-sha256"),
                *("-in", str(request)),
                *("-CA", str(self.certificate), "-CAkey", str(self._key)),
                *("-set_serial", f"0x{_random_serial()}"),
                *("-extfile", str(extensions), "-out", str(certificate)),
            )
            replace_file(self.server, certificate.read_bytes() + key.read_bytes())


def server_names(extra: str = "") -> tuple[str, ...]:
    """Return the names of the server: local ones, the host's, and a comma-separated list."""
    return all_names(extra, socket.gethostname(), socket.getfqdn())


def all_names(extra: str, *own: str) -> tuple[str, ...]:
    """Return each name once: those of a comma-separated list, local ones and a server's own."""
    listed = [name.strip() for name in extra.split(",") if name.strip()]
    return tuple(dict.fromkeys((*listed, *LOCAL_NAMES, *own)))


def read_given(certificate: Path, key: Path) -> bytes:
    """Return a given certificate and its key, joined. Raises StackError unless they match."""
    of_key = _openssl("pkey", "-in", str(key), "-pubout")
    if _openssl("x509", "-in", str(certificate), "-noout", "-pubkey") != of_key:
        raise StackError(f"the key {key} does not belong to the certificate {certificate}")
    return certificate.read_bytes().rstrip() + b"\n" + key.read_bytes()


def expires_soon(certificate: Path) -> bool:
    """Return whether less than 30 days are left."""
    return not _succeeds(
        "x509", "-noout", "-checkend", str(RENEW_BEFORE_S), "-in", str(certificate)
    )


def fingerprint(certificate: Path) -> str:
    """Return the SHA-256 fingerprint, to compare with what a phone displays."""
    text = _openssl("x509", "-noout", "-fingerprint", "-sha256", "-in", str(certificate))
    return text.strip().rpartition("=")[2]


def _san(name: str) -> str:
    return f"IP:{name}" if _is_ip(name) else f"DNS:{name}"


def _san_text(name: str) -> str:
    """Return a name as `openssl x509 -ext subjectAltName` prints it, without spaces."""
    if not _is_ip(name):
        return f"DNS:{name}"
    address = ipaddress.ip_address(name)
    if address.version == 4:
        return f"IPAddress:{address}"
    groups = address.exploded.split(":")
    return "IPAddress:" + ":".join(f"{int(group, 16):X}" for group in groups)


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _new_key(file: Path) -> list[str]:
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    return [*curve, "-nodes", "-keyout", str(file)]


def _random_serial() -> str:
    return _openssl("rand", "-hex", "16").strip()


def _succeeds(*arguments: str) -> bool:
    try:
        _openssl(*arguments)
    except StackError:
        return False
    return True


def _openssl(*arguments: str) -> str:
    """Run openssl and return its output. Raises StackError."""
    try:
        done = subprocess.run(
            ["openssl", *arguments],
            capture_output=True,
            text=True,
            timeout=OPENSSL_TIMEOUT_S,
            check=False,
            umask=0o077,
        )
    except FileNotFoundError:
        raise StackError("openssl is not installed: ./run up --tls installs it") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]
        raise StackError(f"openssl {arguments[0]}: {reason}")
    return done.stdout
