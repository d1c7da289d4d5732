"""Runs servers as users of their own when the launcher runs as root.

PostgreSQL refuses to run as root, and a broker has no need to. Debian's packages create the users
`postgres` and `mosquitto`. An ordinary user runs every server as themselves.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

from ops.console import Echo
from ops.stack.paths import short_digest
from ops.stack.private_file import hand_over
from ops.stack.settings import PROJECT

# Runs Kafka and the services where the launcher is root. `./run` creates it.
SERVICE_USER = "doorstep"


def server_user(name: str) -> str | None:
    """Return the user to switch to; None to stay the current user.

    None unless this process is root and the user exists.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        return None


def as_user(user: str | None, argv: list[str], *, on_parent_death: str = "") -> list[str]:
    """Prefix a command with `setpriv`, to switch to `user` and to set a parent-death signal.

    The kernel clears the parent-death signal when the user changes, so one `setpriv` does both.
    """
    options = []
    if user is not None:
        options += [f"--reuid={user}", f"--regid={user}", "--init-groups"]
    if on_parent_death:
        options += ["--pdeathsig", on_parent_death]
    return ["setpriv", *options, "--", *argv] if options else argv


def dies_with_parent(argv: list[str], signal_name: str) -> list[str]:
    """Add a parent-death signal to a command, which may already start with `as_user`'s prefix."""
    if argv[0] == "setpriv":
        return ["setpriv", "--pdeathsig", signal_name, *argv[1:]]
    return as_user(None, argv, on_parent_death=signal_name)


def can_enter(user: str, folder: Path) -> bool:
    """Return whether a user has search permission on a folder and all its parents."""
    probe = as_user(user, ["test", "-x", str(folder)])
    return subprocess.run(probe, check=False).returncode == 0


def service_user() -> str | None:
    """Return the user of the services; None if there is none that can run them."""
    user = server_user(SERVICE_USER)
    if user is None or not can_enter(user, Path(sys.executable)) or not can_enter(user, PROJECT):
        return None
    return user


def make_data_dir(user: str | None, folder: Path, echo: Echo) -> Path:
    """Create a server's data folder, owned by its user, and return its real path.

    If `user` cannot enter the parent folder (below /root, for example), the data go to /var/lib
    and `folder` becomes a symbolic link to them.
    """
    if user is None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
    if not folder.is_symlink() and not folder.exists() and not can_enter(user, folder.parent):
        target = Path("/var/lib") / f"doorstep-{short_digest(folder.parent)}" / folder.name
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.symlink_to(target)
        echo(f"the user {user} cannot enter {folder.parent}: its data are in {target}")
    folder.mkdir(mode=0o700, exist_ok=True)
    data_dir = folder.resolve()
    give_to(data_dir, user)
    return data_dir


def give_to(path: Path, user: str | None) -> None:
    """Make a user the only one who can read a file or folder. None: the current owner."""
    path.chmod(0o700 if path.is_dir() else 0o600)
    hand_over(path, user)
