"""Caddy: HTTPS in front of both APIs and the pages. The template is caddy/Caddyfile.

Caddy runs in its own folder, as an ordinary user:

.doorstep/stack/caddy/
├── Caddyfile, server.pem, admin.sock
├── public/ca.crt    what /ca.crt serves
└── data/            certificates obtained by ACME
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ops.console import Echo
from ops.stack import programs
from ops.stack.addresses import Addresses, reach
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.settings import PROJECT, StackSettings
from ops.stack.users import SERVICE_USER, as_user, give_to, make_data_dir, server_user

TEMPLATE = PROJECT / "caddy" / "Caddyfile"
CERTIFICATE = "server.pem"
RELOAD_TIMEOUT_S = 30


def user() -> str | None:
    """Return the user to switch to; None to stay the current user."""
    return server_user(SERVICE_USER)


def prepare(paths: StackPaths, echo: Echo) -> None:
    """Create the folder and copy the Caddyfile. Idempotent."""
    folder = make_data_dir(user(), paths.caddy, echo)
    for sub in ("public", "data"):
        (folder / sub).mkdir(mode=0o700, exist_ok=True)
        give_to(folder / sub, user())
    shutil.copyfile(TEMPLATE, folder / "Caddyfile")
    give_to(folder / "Caddyfile", user())


def offer_authority(paths: StackPaths, certificate: Path) -> None:
    """Serve the authority's certificate at /ca.crt."""
    file = paths.caddy.resolve() / "public" / "ca.crt"
    shutil.copyfile(certificate, file)
    give_to(file, user())


def argv(settings: StackSettings) -> list[str]:
    """Return the command that runs Caddy in the foreground."""
    command = [find_program(settings), "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
    return as_user(user(), command, on_parent_death="TERM")


def environment(paths: StackPaths, addresses: Addresses, domain: str | None) -> dict[str, str]:
    """Return the values of caddy/Caddyfile's variables, and where Caddy keeps its files."""
    if addresses.https is None:
        raise StackError("the stack has no TLS: ./run up --tls")
    folder = paths.caddy.resolve()
    return {
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "data"),
        "CADDY_ADMIN": "unix/admin.sock",
        "CADDY_SITE": domain or f"https://:{addresses.https.port}",
        "CADDY_HTTPS_PORT": str(addresses.https.port),
        "CADDY_BIND": addresses.https.host,
        "CADDY_TLS": "" if domain else f"tls {CERTIFICATE} {CERTIFICATE}",
        "CADDY_PUBLIC": "public",
        "TRACKING_API_UPSTREAM": str(reach(addresses.tracking_api)),
        "DRIVER_API_UPSTREAM": str(reach(addresses.driver_api)),
    }


def reload(paths: StackPaths, addresses: Addresses, domain: str | None) -> None:
    """Make the running Caddy read its certificate again. Raises StackError."""
    program = find_program(StackSettings.load())
    command = [program, "reload", "--config", "Caddyfile", "--adapter", "caddyfile", "--force"]
    done = subprocess.run(
        as_user(user(), [*command, "--address", "unix/admin.sock"]),
        cwd=paths.caddy.resolve(),
        env=environment(paths, addresses, domain),
        capture_output=True,
        text=True,
        timeout=RELOAD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise StackError(f"caddy reload: {done.stderr.strip()[-500:]}")


def find_program(settings: StackSettings) -> str:
    """Return the path of `caddy`. Raises StackError if it is not there."""
    return programs.find_program(settings, "caddy", "./run up --tls")
