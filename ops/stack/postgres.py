"""A private PostgreSQL cluster: created, configured, started and stopped without root's rights.

The supervisor runs `argv()` after `prepare()`; tests use `start()` and `stop()`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql as pgsql

from doorstep.errors import DoorstepError
from doorstep.store.error_mapping import translated
from ops.stack.paths import OBSERVER, REPLICATOR, SUPERUSER, short_digest
from ops.stack.private_file import replace_file
from ops.stack.users import as_user, give_to, server_user
from sql import query

OLDEST_VERSION = 15
OWNER = "doorstep_owner"
COMPACTING = "driver_events"  # takes the lock of compaction itself
DATABASE = "food_delivery"
ANYWHERE = ("*", "0.0.0.0", "localhost")  # noqa: S104 - names, not a choice
START_TIMEOUT_S = 60.0  # crash recovery included
STOP_TIMEOUT_S = 30.0
# After kill -9 of the postmaster its children hold the shared memory for about a second.
RESTART_EVERY_S = 0.5

# Differences from PostgreSQL's defaults. Durability is the default: fsync and synchronous_commit.
CONFIG: dict[str, str] = {
    "max_connections": "100",
    # The history's index has one hot leaf page per driver: 100,000 pages in the largest fleet.
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",  # about 730 bytes of WAL per fix: at 25,000/s a checkpoint in 2 min
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
PRIMARY_ONLY = "?target_session_attrs=read-write"
# For the throw-away clusters of tests only.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresError(DoorstepError):
    """PostgreSQL cannot be set up, started or stopped."""


def find_binaries() -> Path:
    """Return the `bin` folder of the newest PostgreSQL with PostGIS. Raises PostgresError."""
    found = {
        int(folder.parent.name): folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if folder.parent.name.isdecimal() and (folder / "initdb").exists()
    }
    usable = [version for version in found if version >= OLDEST_VERSION and _has_postgis(version)]
    if usable:
        return found[max(usable)]
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    raise PostgresError(
        f"no PostgreSQL >= {OLDEST_VERSION} with PostGIS found: "
        "apt install postgresql postgresql-postgis"
    )


def _has_postgis(version: int) -> bool:
    return Path(f"/usr/share/postgresql/{version}/extension/postgis.control").exists()


def postgres_user() -> str | None:
    """Return the user that PostgreSQL runs as; None for the current one. Raises PostgresError."""
    user = server_user(SUPERUSER)
    if user is None and os.geteuid() == 0:
        raise PostgresError("root cannot run PostgreSQL, and there is no user postgres")
    return user


def set_superuser_password(conn: psycopg.Connection[Any], password: str) -> None:
    """Give the superuser, who is connected, another password. Does not commit."""
    alter = pgsql.SQL(query("set_service_password"))
    role = pgsql.Identifier(SUPERUSER)
    conn.execute(alter.format(role=role, password=pgsql.Literal(password)))


def create_replicator(conn: psycopg.Connection[Any], password: str) -> None:
    """Create the role that streams the WAL, or set its password. Does not commit."""
    role = pgsql.Identifier(REPLICATOR)
    create = pgsql.SQL(query("create_role_if_absent"))
    conn.execute(create.format(name=pgsql.Literal(REPLICATOR), role=role))
    alter = pgsql.SQL(query("make_replicator"))
    conn.execute(alter.format(role=role, password=pgsql.Literal(password)))


@dataclass(frozen=True, slots=True)
class PostgresCluster:
    """One cluster. The server's user must be able to enter `data_dir`: see `make_data_dir`."""

    data_dir: Path
    port: int
    password: str = field(repr=False)  # the superuser's
    host: str = "127.0.0.1"  # addresses to listen on, comma-separated
    log_file: Path | None = None
    servers: str = ""  # with a standby: `host:port,host:port`, of which the primary is used
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def socket_dir(self) -> Path:
        """Derived from the data folder, and short: a Unix socket's path is limited to 107 bytes."""
        name = f"doorstep-pg-{short_digest(self.data_dir)}"
        return Path("/tmp") / name  # noqa: S108 - _make_folder checks its owner

    @property
    def _connect_host(self) -> str:
        first = self.host.split(",")[0].strip()
        return "127.0.0.1" if first in ANYWHERE else first

    def url(self, role: str, password: str, database: str = DATABASE) -> str:
        """Return the URL with which a role reaches a database."""
        host = f"[{self._connect_host}]" if ":" in self._connect_host else self._connect_host
        servers = self.servers or f"{host}:{self.port}"
        return (
            f"postgresql://{quote(role, safe='')}:{quote(password, safe='')}"
            f"@{servers}/{quote(database, safe='')}{PRIMARY_ONLY if self.servers else ''}"
        )

    def superuser_url(self, database: str = "postgres") -> str:
        """Return the superuser's URL, for set-up only."""
        return self.url(SUPERUSER, self.password, database)

    # -- creating -------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the cluster if it does not exist, and write its settings. Idempotent."""
        user = postgres_user()
        if not (self.data_dir / "PG_VERSION").exists():
            self._initdb(user)
        self._write_config(user)
        self.prepare_folders()

    def prepare_folders(self) -> None:
        """Create the sockets' folder, and remove a stale postmaster.pid. Idempotent."""
        self._remove_stale_pid_file()
        self._make_folder(self.socket_dir, postgres_user(), 0o711)

    def _initdb(self, user: str | None) -> None:
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        if self.data_dir.exists():  # without PG_VERSION: an initdb was interrupted
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
                as_user(user, argv), capture_output=True, text=True, check=False, cwd="/"
            )
        if done.returncode != 0:
            raise PostgresError(f"initdb failed: {done.stderr.strip()[-500:]}")

    @staticmethod
    def _make_folder(path: Path, user: str | None, mode: int) -> None:
        if path.is_symlink():
            raise PostgresError(f"{path} is a symbolic link")
        path.mkdir(parents=True, exist_ok=True)
        if user is None and path.stat().st_uid != os.geteuid():
            raise PostgresError(f"{path} belongs to another user")
        give_to(path, user)
        path.chmod(mode)

    def configure(self, config: Mapping[str, str]) -> None:
        """Write other settings and let the running server read them."""
        replace(self, config={**self.config, **config})._write_config(postgres_user())
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGHUP)

    def system_id(self) -> int:
        """Return the identifier that initdb gave to the running cluster."""
        with translated(), psycopg.connect(self.superuser_url()) as conn:
            row = conn.execute(query("system_identifier", "queries/backup.sql")).fetchone()
        return int(row[0]) if row else 0

    def archive_command(self) -> str:
        """Return how the running server archives its WAL."""
        with translated(), psycopg.connect(self.superuser_url()) as conn:
            row = conn.execute(query("archive_command", "queries/backup.sql")).fetchone()
        return str(row[0]) if row else ""

    def _write_config(self, user: str | None) -> None:
        values = {
            **CONFIG,
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
            **self.config,
        }
        lines = "".join(f"{name} = '{value}'\n" for name, value in values.items())
        replace_file(self.data_dir / "doorstep.conf", lines, user=user)
        main = self.data_dir / "postgresql.conf"
        include = "include = 'doorstep.conf'\n"
        if include not in main.read_text():
            with main.open("a") as file:
                file.write(include)
        # initdb's pg_hba.conf (--auth=scram-sha-256) allows loopback only. Other addresses need the
        # same passwords.
        local = ("127.0.0.1", "::1", "localhost")
        if any(address.strip() not in local for address in self.host.split(",")):
            rules = "local all all scram-sha-256\nhost all all all scram-sha-256\n"
            replace_file(self.data_dir / "pg_hba.conf", rules, user=user)

    # -- running --------------------------------------------------------------------------

    def argv(self) -> list[str]:
        """Return the command that runs the server in the foreground.

        Stop it with SIGINT, a fast shutdown: SIGTERM waits for every client.
        """
        postgres = [str(find_binaries() / "postgres"), "-D", str(self.data_dir)]
        return as_user(postgres_user(), postgres)

    def pid(self) -> int | None:
        """Return the running postmaster's pid, or None."""
        pid = self._read_pid_file()
        return pid if pid is not None and self._is_our_postmaster(pid) else None

    def _read_pid_file(self) -> int | None:
        try:
            return int((self.data_dir / "postmaster.pid").read_text().splitlines()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _is_our_postmaster(self, pid: int) -> bool:
        """Compare the process's working folder: a postmaster's is its data folder."""
        try:
            return Path(f"/proc/{pid}/cwd").resolve(strict=True) == self.data_dir.resolve()
        except OSError:  # no such process, or it belongs to another user
            return False

    def _remove_stale_pid_file(self) -> None:
        """Remove a postmaster.pid whose pid belongs to another program.

        The kernel may reuse the pid after kill -9 or a reboot. PostgreSQL refuses to start while
        that program runs.
        """
        pid = self._read_pid_file()
        if pid is not None and Path(f"/proc/{pid}").exists() and not self._is_our_postmaster(pid):
            (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    def is_ready(self) -> bool:
        """Return whether the server accepts connections."""
        try:
            with psycopg.connect(self.superuser_url(), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def start(self) -> None:
        """Start the server and wait until it accepts connections. Raises PostgresError.

        Retries while the children of a killed server hold its shared memory.
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
        with log.open("ab") as output:  # opened here: the server's user may not enter the folder
            done = subprocess.run(
                as_user(postgres_user(), argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                check=False,
            )
        return done.returncode

    def stop(self, *, immediately: bool = False) -> None:
        """Stop the server and disconnect its clients.

        `immediately` skips the checkpoint: the next start runs crash recovery.
        """
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGQUIT if immediately else signal.SIGINT)
        self._wait_for_end(pid)

    def kill(self) -> None:
        """Send SIGKILL to the postmaster, to simulate a power cut."""
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

    def replace_password(self, password: str, store: Callable[[], None]) -> None:
        """Give the superuser another password, and store it before the commit."""
        with translated(), psycopg.connect(self.superuser_url()) as conn:
            set_superuser_password(conn, password)
            store()

    def create_observer(self, password: str, database: str = DATABASE) -> None:
        """Create the role that reads the server's statistics and no table, or set its password."""
        with translated(), psycopg.connect(self.superuser_url()) as conn:
            role = pgsql.Identifier(OBSERVER)
            create = pgsql.SQL(query("create_role_if_absent"))
            conn.execute(create.format(name=pgsql.Literal(OBSERVER), role=role))
            alter = pgsql.SQL(query("make_observer"))
            named = pgsql.Identifier(database)
            conn.execute(alter.format(role=role, database=named, password=pgsql.Literal(password)))

    # -- the database ---------------------------------------------------------------------

    def create_database(self, owner_password: str, database: str = DATABASE) -> None:
        """Create the owner's role and an empty database with PostGIS. Idempotent."""
        with translated(), psycopg.connect(self.superuser_url(), autocommit=True) as conn:
            role = pgsql.Identifier(OWNER)
            create = pgsql.SQL(query("create_role_if_absent"))
            for name in (OWNER, COMPACTING):
                conn.execute(create.format(name=pgsql.Literal(name), role=pgsql.Identifier(name)))
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
            conn.execute(query("close_functions"))
