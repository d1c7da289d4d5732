"""Mosquitto: one broker or several, from mosquitto/mosquitto.conf and mosquitto/acl."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from doorstep.settings import Bind
from ops.stack.addresses import Addresses
from ops.stack.paths import StackError, StackPaths, as_user, place_for, server_user
from ops.stack.settings import PROJECT

USER = "mosquitto"  # Debian's package makes it; root hands the brokers to it
TEMPLATE = PROJECT / "mosquitto" / "mosquitto.conf"
ACL = PROJECT / "mosquitto" / "acl"


def prepare(paths: StackPaths, at: Addresses, say: Callable[[str], None]) -> None:
    """Make each broker's folder and configuration. Idempotent."""
    user = server_user(USER)
    place = place_for(user, paths.mosquitto, say)
    acl = place / "acl"
    shutil.copyfile(ACL, acl)
    _own(acl, user)
    for number, bind in enumerate(at.mqtt, start=1):
        data = place / f"data-{number}"
        data.mkdir(mode=0o700, exist_ok=True)
        _own(data, user)
        config = place / f"mosquitto-{number}.conf"
        config.write_text(_configuration(place, data, bind), encoding="utf-8")
        _own(config, user)


def broker_argv(paths: StackPaths, number: int) -> list[str]:
    """Give the command that runs a broker in the foreground; brokers count from 1."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    program = program or shutil.which("mosquitto")
    if program is None:
        raise StackError("there is no `mosquitto`: ./run installs it")
    config = paths.mosquitto.resolve() / f"mosquitto-{number}.conf"
    return as_user(server_user(USER), [program, "-c", str(config)], on_parent_death="TERM")


def give_to_broker(password_file: Path) -> None:
    """Let the brokers' user, and nobody else, read the password file."""
    _own(password_file, server_user(USER))


def render(template: str, values: Mapping[str, str]) -> str:
    """Put `values` in place of the template's own. Raises StackError for one it doesn't have."""
    text = template
    for name, value in values.items():
        line = f"{name} {value}".replace("\\", r"\\")
        text, times = re.subn(rf"(?m)^{name} .*$", line, text)
        if times != 1:
            raise StackError(f"mosquitto.conf must have one line {name!r}, not {times}")
    return text


def _configuration(place: Path, data: Path, bind: Bind) -> str:
    return render(
        TEMPLATE.read_text(encoding="utf-8"),
        {
            "listener": f"{bind.port} {bind.host}",
            "password_file": str(place / "passwd"),
            "acl_file": str(place / "acl"),
            "persistence_location": f"{data}/",
        },
    )


def _own(path: Path, user: str | None) -> None:
    path.chmod(0o700 if path.is_dir() else 0o600)
    if user is not None:
        shutil.chown(path, user)
