"""The certificate that containers present, with the real openssl command and other folders."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ops.stack.certificates import CertificateAuthority
from ops.stack.compose_certificates import keep
from ops.stack.errors import StackError


class Folders:
    """The three volumes."""

    def __init__(self, root: Path) -> None:
        self.given, self.authority, self.offered = (
            root / name for name in ("given", "authority", "tls")
        )
        self.given.mkdir()
        self.offered.mkdir()

    def keep(self, names: str = "track.example, 192.0.2.7") -> bool:
        return keep(names, given=self.given, authority_folder=self.authority, offered=self.offered)

    @property
    def server(self) -> Path:
        return self.offered / "server.pem"


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def verifies(folders: Folders, *options: str) -> bool:
    authority = str(folders.offered / "public" / "ca.crt")
    command = ["openssl", "verify", "-CAfile", authority, *options, str(folders.server)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_keep__nothing_given__the_own_authority_signs_all_names(folders: Folders) -> None:
    assert folders.keep()

    for name in ("track.example", "localhost", "mosquitto", "caddy"):
        assert verifies(folders, "-verify_hostname", name), name
    assert verifies(folders, "-verify_ip", "192.0.2.7")
    assert not verifies(folders, "-verify_hostname", "other.example")


def test_keep__two_servers_read_the_key__and_no_other_user(folders: Folders) -> None:
    folders.keep()

    assert folders.server.stat().st_mode & 0o777 == 0o640  # its owner Mosquitto, its group Caddy
    assert (folders.offered / "public" / "ca.crt").stat().st_mode & 0o777 == 0o644
    assert not list(folders.offered.rglob("*.key"))  # the authority's stays in its own volume
    assert (folders.authority / "ca.key").stat().st_mode & 0o777 == 0o600


def test_keep__again__is_not_a_new_one(folders: Folders) -> None:
    folders.keep()
    before = folders.server.read_bytes()

    assert not folders.keep()
    assert folders.server.read_bytes() == before


def test_keep__a_given_certificate__outranks_the_own_authority(folders: Folders) -> None:
    folders.keep()
    other = CertificateAuthority(folders.authority.parent / "other")
    other.prepare(("fleet.example",))
    pem = other.server.read_bytes()
    (folders.given / "server.crt").write_bytes(pem)
    (folders.given / "server.key").write_bytes(pem)

    assert folders.keep()
    assert not verifies(folders)
    assert pem.rstrip() in folders.server.read_bytes()


def test_keep__half_of_a_given_certificate__keeps_the_old_one(folders: Folders) -> None:
    folders.keep()
    before = folders.server.read_bytes()
    (folders.given / "server.crt").write_bytes(before)

    with pytest.raises(StackError):
        folders.keep()
    assert folders.server.read_bytes() == before
