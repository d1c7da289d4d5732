"""Where a stack keeps its data, secrets and logs.

.doorstep/stack/
├── secrets/      mode 0700: fleet.key, staff.token, database/ROLE
├── logs/         one rotated file a part
├── kafka/  mosquitto/  postgres/
├── journals/     of simulated devices
├── stack.json    addresses, while the stack is up
└── supervisord.conf
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from doorstep.credentials import (
    decode_fleet_key,
    encode_fleet_key,
    new_fleet_key,
    new_staff_token,
)
from doorstep.errors import DoorstepError
from ops.stack.postgres import new_password

DATABASE_ROLES = ("postgres", "doorstep_owner", "driver_events", "driver_api", "tracking_api")
UNIX_SOCKET_PATH_MAX = 100  # bytes; the kernel's limit is 107


class StackError(DoorstepError):
    """The stack can't be started or reached."""


@dataclass(frozen=True, slots=True)
class StackPaths:
    """A stack's folder."""

    root: Path

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def fleet_key_file(self) -> Path:
        return self.secrets / "fleet.key"

    @property
    def staff_token_file(self) -> Path:
        return self.secrets / "staff.token"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def journals(self) -> Path:
        return self.root / "journals"

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def mosquitto(self) -> Path:
        return self.root / "mosquitto"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def password_file(self) -> Path:
        """Mosquitto's users: the services and every device."""
        return self.mosquitto / "passwd"

    @property
    def addresses_file(self) -> Path:
        return self.root / "stack.json"

    @property
    def supervisor_config(self) -> Path:
        return self.root / "supervisord.conf"

    @property
    def supervisor_pid_file(self) -> Path:
        return self.root / "supervisord.pid"

    @property
    def supervisor_socket(self) -> Path:
        """Beside the rest, or in /tmp where that path is too long for a Unix socket."""
        path = self.root / "supervisor.sock"
        if len(os.fsencode(path)) <= UNIX_SOCKET_PATH_MAX:
            return path
        return Path("/tmp") / f"doorstep-{self.digest}" / "supervisor.sock"  # noqa: S108 - 0700

    @property
    def lock_file(self) -> Path:
        return self.root / "lock"

    @property
    def digest(self) -> str:
        """Name this folder in a few characters, the same each time."""
        return hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:10]

    def prepare(self) -> None:
        """Make the folders and whatever secrets are missing. Idempotent."""
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in (self.secrets, self.secrets / "database", self.journals):
            folder.mkdir(mode=0o700, exist_ok=True)
        for folder in (self.logs, self.kafka):
            folder.mkdir(exist_ok=True)
        socket_dir = self.supervisor_socket.parent
        if socket_dir != self.root:
            socket_dir.mkdir(mode=0o700, exist_ok=True)
            if socket_dir.stat().st_uid != os.geteuid():
                raise StackError(f"{socket_dir} belongs to another user")
        _write_once(self.fleet_key_file, lambda: encode_fleet_key(new_fleet_key()))
        _write_once(self.staff_token_file, lambda: new_staff_token() + "\n")
        for role in DATABASE_ROLES:
            _write_once(self.secrets / "database" / role, lambda: new_password() + "\n")

    def fleet_key(self) -> bytes:
        """Read the key from which every device's secrets are derived."""
        return decode_fleet_key(self.fleet_key_file.read_text(encoding="ascii"))

    def staff_token(self) -> str:
        """Read the staff token."""
        return self.staff_token_file.read_text(encoding="ascii").strip()

    def database_password(self, role: str) -> str:
        """Read a database role's password."""
        return (self.secrets / "database" / role).read_text(encoding="ascii").strip()

    def erase(self) -> None:
        """Delete the stack's data and secrets, and what lies elsewhere because of its users."""
        for folder in (self.postgres, self.mosquitto):
            if folder.is_symlink():
                shutil.rmtree(folder.resolve().parent, ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)


def _write_once(path: Path, make: Callable[[], str]) -> None:
    if path.exists():
        return
    part = path.with_name(path.name + ".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(make())
    part.replace(path)


def server_user(name: str) -> str | None:
    """The user that a server runs as: root hands it to `name`, anyone else runs it themselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        return None


def as_user(user: str | None, argv: list[str], *, on_parent_death: str = "") -> list[str]:
    """Put `setpriv` before a command, so that it runs as `user` and dies with its parent."""
    options = []
    if user is not None:
        options += [f"--reuid={user}", f"--regid={user}", "--init-groups"]
    if on_parent_death:
        options += ["--pdeathsig", on_parent_death]
    return ["setpriv", *options, "--", *argv] if options else argv


def place_for(user: str | None, folder: Path, say: Callable[[str], None]) -> Path:
    """Make a server's data folder where its user can reach it; `folder` is then a link to it.

    Below /root, for one, nobody else can reach anything.
    """
    if user is None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
    if not folder.is_symlink() and not folder.exists() and not _reaches(user, folder.parent):
        elsewhere = Path("/var/lib") / f"doorstep-{StackPaths(folder.parent).digest}" / folder.name
        elsewhere.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.symlink_to(elsewhere)
        say(f"the user {user} can't reach {folder}: its data go to {elsewhere}")
    folder.mkdir(mode=0o700, exist_ok=True)
    place = folder.resolve()
    shutil.chown(place, user, pwd.getpwnam(user).pw_gid)
    return place


def _reaches(user: str, folder: Path) -> bool:
    probe = as_user(user, ["test", "-x", str(folder)])
    return subprocess.run(probe, check=False).returncode == 0


def process_runs(pid: int) -> bool:
    """Say whether a process is there. A zombie isn't, though nobody may ever bury it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] != ["Z"]


def print_line(line: str) -> None:
    """Say something on the screen, at once."""
    print(line, file=sys.stderr, flush=True)
