"""The certificate in the servers' folders, and its renewal while they run."""

from __future__ import annotations

from pathlib import Path

from ops.stack import caddy, mosquitto
from ops.stack.addresses import Addresses
from ops.stack.certificates import CertificateAuthority, read_given
from ops.stack.paths import StackPaths
from ops.stack.private_file import replace_file
from ops.stack.supervisor import Supervisor
from ops.stack.tls_config import TlsConfig
from ops.stack.users import server_user


def install(paths: StackPaths, config: TlsConfig, *, force: bool = False) -> bool:
    """Give Mosquitto and Caddy the current certificate. Returns whether it is a new one.

    Their folders must exist. Raises StackError; the servers then keep the certificate they have.
    """
    if config.certificate_file is not None and config.key_file is not None:
        content = read_given(Path(config.certificate_file), Path(config.key_file))
    else:
        authority = CertificateAuthority(paths.tls)
        authority.prepare(config.names, force=force)
        content = authority.server.read_bytes()
        caddy.offer_authority(paths, authority.certificate)
    changed = False
    for file, user in (
        (paths.mosquitto.resolve() / mosquitto.CERTIFICATE, server_user(mosquitto.USER)),
        (paths.caddy.resolve() / caddy.CERTIFICATE, caddy.user()),
    ):
        if not file.exists() or file.read_bytes() != content:
            replace_file(file, content, user=user)
            changed = True
    return changed


def renew(
    paths: StackPaths, addresses: Addresses, supervisor: Supervisor, *, force: bool = False
) -> bool:
    """Renew the certificate if it is due, and reload the servers. Returns whether it did."""
    if addresses.https is None:
        return False
    config = TlsConfig.load(paths.tls_file)
    if not install(paths, config, force=force):
        return False
    for number in range(1, len(addresses.mqtt_tls) + 1):
        supervisor.signal(f"mosquitto-{number}", "brokers", "HUP")  # sessions stay
    caddy.reload(paths, addresses, config.domain)
    return True
