"""A PostgreSQL cluster of our own: found, made, started and stopped as an ordinary user.

PostgreSQL refuses to run as root, so as root it runs as the user `postgres`, which Debian's
package makes. A supervisor runs `argv()` after `prepare()`; tests use `start()` and `stop()`.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql as pgsql

from doorstep.errors import DoorstepError
from doorstep.store.error_mapping import translated
from sql import query

OLDEST_VERSION = 15
SUPERUSER = "postgres"
OWNER = "doorstep_owner"
DATABASE = "food_delivery"
ANYWHERE = ("*", "0.0.0.0", "localhost")  # noqa: S104 - names, not a choice
START_TIMEOUT_S = 60.0  # crash recovery included
STOP_TIMEOUT_S = 30.0
# After kill -9 the children hold the shared memory for about a second, and a start fails.
RESTART_EVERY_S = 0.5

# What differs from PostgreSQL's defaults. Durability stays at its default (fsync and
# synchronous_commit on); the rest spares work per batch.
CONFIG: dict[str, str] = {
    "max_connections": "100",
    # Each driver's end of the history's index is hot: 100,000 pages with the largest fleet. Memory
    # is taken as it is needed.
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",  # some 730 bytes of WAL a fix: a checkpoint every 2 min at 25,000/s
    "checkpoint_timeout": "15min",
    "wal_compression": "lz4",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "autovacuum_naptime": "20s",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %u@%d ",
    "lc_messages": "C",
}
# For throw-away clusters of tests only.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresError(DoorstepError):
    """PostgreSQL could not be set up, started or stopped."""


def find_binaries() -> Path:
    """Find the newest PostgreSQL's `bin` folder, version 15 or later. Raises PostgresError."""
    found = {
        int(folder.parent.name): folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if folder.parent.name.isdecimal() and (folder / "initdb").exists()
    }
    usable = {version: folder for version, folder in found.items() if _has_postgis(folder, version)}
    for version in sorted(usable, reverse=True):
        if version >= OLDEST_VERSION:
            return usable[version]
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    raise PostgresError(
        f"no PostgreSQL >= {OLDEST_VERSION} with PostGIS found: "
        "apt install postgresql postgresql-postgis"
    )


def _has_postgis(_folder: Path, version: int) -> bool:
    return Path(f"/usr/share/postgresql/{version}/extension/postgis.control").exists()


def _server_user() -> str | None:
    """The user to run as, or None for ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise PostgresError("root can't run PostgreSQL and there is no user postgres") from None


def _as_user(user: str | None, argv: list[str]) -> list[str]:
    if user is None:
        return argv
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", *argv]


def reachable_data_dir(preferred: Path) -> Path:
    """Return `preferred`, or a folder under /var/lib where the server's user can't reach it."""
    user = _server_user()
    if user is None:
        return preferred
    parent = preferred.parent
    while not parent.exists():
        parent = parent.parent
    probe = _as_user(user, ["test", "-x", str(parent)])
    if subprocess.run(probe, check=False).returncode == 0:
        return preferred
    return Path("/var/lib") / f"doorstep-{_short_hash(preferred)}" / preferred.name


def _short_hash(path: Path) -> str:
    return hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class PostgresCluster:
    """One cluster. `data_dir` must be reachable for the server's user (`reachable_data_dir`)."""

    data_dir: Path
    port: int
    password: str = field(repr=False)  # the superuser's
    host: str = "127.0.0.1"  # a comma-separated list of addresses to listen on
    log_file: Path | None = None
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def socket_dir(self) -> Path:
        """A short path (a Unix socket's is limited to 107 bytes), the same for a data folder."""
        return Path("/tmp") / f"doorstep-pg-{_short_hash(self.data_dir)}"  # noqa: S108 - checked for its owner

    @property
    def _connect_host(self) -> str:
        first = self.host.split(",")[0].strip()
        return "127.0.0.1" if first in ANYWHERE else first

    def url(self, role: str, password: str, database: str = DATABASE) -> str:
        """Give the URL of a database for a role."""
        host = f"[{self._connect_host}]" if ":" in self._connect_host else self._connect_host
        return (
            f"postgresql://{quote(role, safe='')}:{quote(password, safe='')}"
            f"@{host}:{self.port}/{quote(database, safe='')}"
        )

    def superuser_url(self, database: str = "postgres") -> str:
        """Give the superuser's URL, for set-up only."""
        return self.url(SUPERUSER, self.password, database)

    # -- making ---------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the cluster if there is none, and write its settings. Idempotent."""
        user = _server_user()
        if not (self.data_dir / "PG_VERSION").exists():
            self._initdb(user)
        self._forget_foreign_pid()
        self._make_folder(self.socket_dir, user, 0o711)
        self._write_config(user)

    def _initdb(self, user: str | None) -> None:
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        if self.data_dir.exists():  # left by an initdb that was interrupted: no PG_VERSION
            shutil.rmtree(self.data_dir)
        self._make_folder(self.data_dir, user, 0o700)
        argv = [str(find_binaries() / "initdb"), "--pgdata", str(self.data_dir)]
        argv += ["--username", SUPERUSER, "--encoding=UTF8", "--locale=C.UTF-8"]
        argv += ["--auth=scram-sha-256", "--data-checksums"]
        with tempfile.NamedTemporaryFile("w", prefix="doorstep-") as secret:
            secret.write(self.password + "\n")
            secret.flush()
            if user is not None:
                shutil.chown(secret.name, user)
            argv.append(f"--pwfile={secret.name}")
            done = subprocess.run(
                _as_user(user, argv), capture_output=True, text=True, check=False, cwd="/"
            )
        if done.returncode != 0:
            raise PostgresError(f"initdb failed: {done.stderr.strip()[-500:]}")

    @staticmethod
    def _make_folder(path: Path, user: str | None, mode: int) -> None:
        if path.is_symlink():
            raise PostgresError(f"{path} is a symbolic link")
        path.mkdir(parents=True, exist_ok=True)
        owner = path.stat().st_uid
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        elif owner != os.geteuid():
            raise PostgresError(f"{path} belongs to another user")
        path.chmod(mode)

    def _write_config(self, user: str | None) -> None:
        values = {
            **CONFIG,
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
            **self.config,
        }
        lines = "".join(f"{name} = '{value}'\n" for name, value in values.items())
        self._write("doorstep.conf", lines, user)
        main = self.data_dir / "postgresql.conf"
        include = "include = 'doorstep.conf'\n"
        if include not in main.read_text():
            with main.open("a") as file:
                file.write(include)
        # initdb's pg_hba.conf trusts nobody (--auth=scram-sha-256) and lists loopback only;
        # where we listen beyond it, the same passwords hold.
        local = ("127.0.0.1", "::1", "localhost")
        if any(address.strip() not in local for address in self.host.split(",")):
            self._write("pg_hba.conf", "local all all scram-sha-256\n"
                        "host all all all scram-sha-256\n", user)  # fmt: skip

    def _write(self, name: str, text: str, user: str | None) -> None:
        path = self.data_dir / name
        part = path.with_suffix(".part")
        part.write_text(text)
        part.chmod(0o600)
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(part, entry.pw_uid, entry.pw_gid)
        part.replace(path)

    # -- running --------------------------------------------------------------------------

    def argv(self) -> list[str]:
        """Give the command that runs the server in the foreground, for a supervisor.

        SIGINT is a fast shutdown (SIGTERM would wait for every client).
        """
        postgres = [str(find_binaries() / "postgres"), "-D", str(self.data_dir)]
        return _as_user(_server_user(), postgres)

    def pid(self) -> int | None:
        """Return the running postmaster's pid."""
        pid = self._written_pid()
        return pid if pid is not None and self._is_ours(pid) else None

    def _written_pid(self) -> int | None:
        try:
            return int((self.data_dir / "postmaster.pid").read_text().splitlines()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _is_ours(self, pid: int) -> bool:
        """Say whether a process is this cluster's: a server works in its data folder."""
        try:
            return Path(f"/proc/{pid}/cwd").resolve(strict=True) == self.data_dir.resolve()
        except OSError:  # no such process, or another user's
            return False

    def _forget_foreign_pid(self) -> None:
        """Remove a postmaster.pid whose number now belongs to another program.

        After kill -9 of everything, or a reboot, the number may be taken again, and PostgreSQL
        would refuse to start for as long as that program lives.
        """
        pid = self._written_pid()
        if pid is not None and Path(f"/proc/{pid}").exists() and not self._is_ours(pid):
            (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    def is_ready(self) -> bool:
        """Say whether the server takes connections."""
        try:
            with psycopg.connect(self.superuser_url(), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def start(self) -> None:
        """Start the server and wait until it takes connections. Raises PostgresError.

        Tries again while a killed server's children still hold its shared memory.
        """
        self.prepare()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL did not start within {START_TIMEOUT_S:.0f} s")
            if self._pg_ctl_start() != 0:
                time.sleep(RESTART_EVERY_S)

    def _pg_ctl_start(self) -> int:
        log = self.log_file or self.data_dir.parent / f"{self.data_dir.name}.log"
        argv = [str(find_binaries() / "pg_ctl"), "start", "--silent", "--wait"]
        argv += [f"--timeout={START_TIMEOUT_S:.0f}", "--pgdata", str(self.data_dir)]
        with log.open("ab") as output:  # opened by us: the server's user may not enter the folder
            done = subprocess.run(
                _as_user(_server_user(), argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                check=False,
            )
        return done.returncode

    def stop(self, *, immediately: bool = False) -> None:
        """Stop the server, disconnecting its clients; `immediately` leaves a crash to recover."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGQUIT if immediately else signal.SIGINT)
        self._wait_for_end(pid)

    def kill(self) -> None:
        """Kill -9 the postmaster, as a power cut would."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self._wait_for_end(pid)

    @staticmethod
    def _wait_for_end(pid: int) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if not Path(f"/proc/{pid}").exists():
                return
            time.sleep(0.02)
        raise PostgresError(f"PostgreSQL (pid {pid}) did not stop")

    def erase(self) -> None:
        """Stop the server and delete the cluster."""
        self.stop(immediately=True)
        shutil.rmtree(self.data_dir, ignore_errors=True)
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    # -- the database ---------------------------------------------------------------------

    def create_database(self, owner_password: str, database: str = DATABASE) -> None:
        """Make the owner's role and an empty database with PostGIS. Idempotent."""
        with translated(), psycopg.connect(self.superuser_url(), autocommit=True) as conn:
            role = pgsql.Identifier(OWNER)
            create = pgsql.SQL(query("create_role_if_absent"))
            conn.execute(create.format(name=pgsql.Literal(OWNER), role=role))
            password = pgsql.Literal(owner_password)
            conn.execute(
                pgsql.SQL(query("set_owner_password")).format(role=role, password=password)
            )
            exists = conn.execute(query("database_exists"), {"name": database}).fetchone()
            if not (exists and exists[0]):
                create = pgsql.SQL(query("create_database"))
                conn.execute(create.format(name=pgsql.Identifier(database), owner=role))
        with translated(), psycopg.connect(self.superuser_url(database), autocommit=True) as conn:
            conn.execute(query("create_postgis"))


def new_password() -> str:
    """Make a password that needs no quoting in a URL."""
    return secrets.token_urlsafe(24)
