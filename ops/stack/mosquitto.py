"""Mosquitto: the configuration and the command of each broker.

The templates are mosquitto/mosquitto.conf and mosquitto/acl.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from doorstep.settings import Bind
from ops.console import Echo
from ops.stack.addresses import Addresses
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.settings import PROJECT
from ops.stack.users import as_user, give_to, make_data_dir, server_user

USER = "mosquitto"  # Debian's package creates it
TEMPLATE = PROJECT / "mosquitto" / "mosquitto.conf"
CERTIFICATE = "server.pem"  # key and certificate
LISTENER_OPTIONS = ("max_connections ", "use_username_as_clientid ")  # of each listener
PLAIN_CONNECTIONS = 1000  # with TLS: services, and devices on this machine
ACL = PROJECT / "mosquitto" / "acl"


def prepare(paths: StackPaths, addresses: Addresses, echo: Echo) -> None:
    """Write each broker's folder and configuration. Idempotent."""
    user = server_user(USER)
    folder = make_data_dir(user, paths.mosquitto, echo)
    acl, template = folder / "acl", ACL.read_text(encoding="utf-8")
    if not acl.exists() or not acl.read_text(encoding="utf-8").startswith(template):
        acl.write_text(template, encoding="utf-8")  # broker_sync adds the phones
    give_to(acl, user)
    for number, bind in enumerate(addresses.mqtt, start=1):
        tls = addresses.mqtt_tls[number - 1] if addresses.mqtt_tls else None
        data_dir = folder / f"data-{number}"
        data_dir.mkdir(mode=0o700, exist_ok=True)
        give_to(data_dir, user)
        config = folder / f"mosquitto-{number}.conf"
        config.write_text(_configuration(folder, data_dir, bind, tls), encoding="utf-8")
        give_to(config, user)


def broker_argv(paths: StackPaths, number: int) -> list[str]:
    """Return the command that runs broker `number`, from 1, in the foreground."""
    config = paths.mosquitto.resolve() / f"mosquitto-{number}.conf"
    return as_user(server_user(USER), [find_program(), "-c", str(config)], on_parent_death="TERM")


def find_program() -> str:
    """Return the path of `mosquitto`. Raises StackError if it is not installed."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    program = program or shutil.which("mosquitto")
    if program is None:
        raise StackError("mosquitto is not installed: ./run up installs it")
    return program


def set_password_file_owner(password_file: Path) -> None:
    """Make the brokers' user the only one who can read the password file."""
    give_to(password_file, server_user(USER))


def render(template: str, values: Mapping[str, str]) -> str:
    """Replace the template's values. Raises StackError unless it sets each of them once."""
    text = template
    for name, value in values.items():
        line = f"{name} {value}".replace("\\", r"\\")
        text, count = re.subn(rf"(?m)^{name} .*$", line, text)
        if count != 1:
            raise StackError(f"mosquitto.conf must set {name} once, not {count} times")
    return text


def tls_listener(template: str, bind: Bind, certificate: Path) -> str:
    """Return the lines of a listener with TLS 1.2 and later.

    SIGHUP makes Mosquitto read the certificate again; connections stay.
    """
    options = [line for line in template.splitlines() if line.startswith(LISTENER_OPTIONS)]
    return "\n".join(
        (
            "",
            f"listener {bind.port} {bind.host}",
            *options,
            f"certfile {certificate}",
            f"keyfile {certificate}",
            "",
        )
    )


def _configuration(folder: Path, data_dir: Path, bind: Bind, tls: Bind | None) -> str:
    template = TEMPLATE.read_text(encoding="utf-8")
    plain = render(
        template,
        {
            "listener": f"{bind.port} {bind.host}",
            "password_file": str(folder / "passwd"),
            "acl_file": str(folder / "acl"),
            "persistence_location": f"{data_dir}/",
            **({} if tls is None else {"max_connections": str(PLAIN_CONNECTIONS)}),
        },
    )
    return plain if tls is None else plain + tls_listener(template, tls, folder / CERTIFICATE)
