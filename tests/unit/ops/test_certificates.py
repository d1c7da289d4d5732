"""The own authority and given certificates, with the real openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ops.stack import certificates, tls
from ops.stack.certificates import CertificateAuthority, expires_soon, server_names
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.settings import StackSettings
from ops.stack.tls_config import TlsConfig

NAMES = ("fleet.example", "192.0.2.7", "2001:db8::7")
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "tls")


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    """The servers' folders, as their own preparation makes them."""
    paths = StackPaths(tmp_path / "stack")
    paths.prepare()
    paths.mosquitto.mkdir()
    (paths.caddy / "public").mkdir(parents=True)
    return paths


@pytest.fixture(autouse=True)
def current_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers run as this test's user."""
    monkeypatch.setattr("ops.stack.users.os.geteuid", lambda: 1000)


def verify(authority: CertificateAuthority, *options: str) -> bool:
    command = ["openssl", "verify", "-CAfile", str(authority.certificate), *options]
    done = subprocess.run([*command, str(authority.server)], capture_output=True, check=False)
    return done.returncode == 0


def test_prepare__first_time__the_server_is_verified_by_each_name(
    authority: CertificateAuthority,
) -> None:
    assert authority.prepare(NAMES)

    assert verify(authority, "-purpose", "sslserver", "-verify_hostname", NAMES[0])
    assert all(verify(authority, "-verify_ip", name) for name in NAMES[1:])
    assert not verify(authority, "-verify_hostname", "other.example")
    files = [authority.folder / name for name in ("ca.key", "server.pem")]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    assert authority.folder.stat().st_mode & 0o777 == 0o700


def test_prepare__again__changes_nothing(authority: CertificateAuthority) -> None:
    authority.prepare(NAMES)
    before = authority.server.read_bytes(), authority.certificate.read_bytes()

    assert not authority.prepare(NAMES)
    assert (authority.server.read_bytes(), authority.certificate.read_bytes()) == before


def test_prepare__other_names__issues_a_certificate_of_the_same_authority(
    authority: CertificateAuthority,
) -> None:
    authority.prepare(NAMES)
    before = authority.certificate.read_bytes()

    assert authority.prepare(NAMES[:1])
    assert authority.certificate.read_bytes() == before
    assert not verify(authority, "-verify_ip", NAMES[1])


@pytest.mark.parametrize(("days_left", "renewed"), [(29, True), (31, False)])
def test_prepare__days_left__renews_below_30(
    authority: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
    days_left: int,
    renewed: bool,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(certificates, "SERVER_DAYS", days_left)
        authority.prepare(NAMES)
    assert expires_soon(authority.server) is renewed

    assert authority.prepare(NAMES) is renewed
    assert not expires_soon(authority.server)


def test_server_names__listed_ones__come_first_and_once() -> None:
    names = server_names("fleet.example, localhost")
    assert names[:3] == ("fleet.example", "localhost", "127.0.0.1")
    assert len(set(names)) == len(names)


def test_install__given_files__are_used_and_replaced_ones_too(
    authority: CertificateAuthority, paths: StackPaths, tmp_path: Path
) -> None:
    given, key = tmp_path / "given.crt", tmp_path / "given.key"
    config = TlsConfig(NAMES, str(given), str(key))

    def give() -> bytes:
        authority.prepare(NAMES, force=True)
        text = authority.server.read_text()
        certificate, _, private = text.partition("-----BEGIN PRIVATE KEY-----")
        given.write_text(certificate)
        key.write_text(f"-----BEGIN PRIVATE KEY-----{private}")
        return authority.server.read_bytes()

    for _ in range(2):
        content = give()
        assert tls.install(paths, config)
        assert (paths.mosquitto / "server.pem").read_bytes() == content
        assert (paths.caddy / "server.pem").read_bytes() == content
        assert not tls.install(paths, config)
    assert not (paths.caddy / "public" / "ca.crt").exists()


def test_install__key_of_another_certificate__is_refused_and_the_servers_keep_theirs(
    authority: CertificateAuthority, paths: StackPaths, tmp_path: Path
) -> None:
    tls.install(paths, TlsConfig(NAMES))
    before = (paths.mosquitto / "server.pem").read_bytes()
    authority.prepare(NAMES)
    other = CertificateAuthority(tmp_path / "other")
    other.prepare(NAMES)

    with pytest.raises(StackError, match="does not belong to"):
        tls.install(paths, TlsConfig(NAMES, str(authority.server), str(other.server)))
    assert (paths.mosquitto / "server.pem").read_bytes() == before


def test_config__one_of_two_files__is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="TLS_KEY_FILE"):
        TlsConfig.of(StackSettings(tls_cert_file=tmp_path / "only.crt"))


def test_config__saved__is_the_same(tmp_path: Path) -> None:
    config = TlsConfig.of(StackSettings(doorstep_bind="192.0.2.7", doorstep_domain="a.example"))
    config.save(tmp_path / "tls.json")

    assert TlsConfig.load(tmp_path / "tls.json") == config
    assert config.names[:2] == ("a.example", "192.0.2.7")
    assert config.public_host == "a.example"
