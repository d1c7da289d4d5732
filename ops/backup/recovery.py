"""A PostgreSQL that only this process reaches, for the replay of WAL after a restore.

It listens on a Unix socket in a folder of its own, where the superuser needs no password: the
restored database may have an older one than the stack's secrets.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from doorstep.store.error_mapping import translated
from ops.console import Echo
from ops.stack.errors import StackError
from ops.stack.paths import SUPERUSER
from ops.stack.postgres import DATABASE, OWNER, find_binaries, postgres_user
from ops.stack.users import as_user, give_to
from sql import query

POLL_S = 0.2
MESSAGE_EVERY_S = 10.0
STOP_TIMEOUT_S = 120.0  # a checkpoint of everything that was replayed
PORT = 5432  # names the socket only


class RecoveryFailed(StackError):
    """PostgreSQL ended before it had replayed its WAL, and has written no WAL of its own."""


@dataclass(frozen=True, slots=True)
class PrivateServer:
    """A running server. `replayed_to` is the newest commit that it replayed, if it replayed any."""

    folder: Path
    replayed_to: datetime | None

    def connect(self) -> psycopg.Connection[Any]:
        """Connect as the superuser."""
        with translated():
            return psycopg.connect(
                host=str(self.folder),
                port=PORT,
                user=SUPERUSER,
                dbname="postgres",
                options="-c jit=off",
            )

    def connect_as_owner(self) -> psycopg.Connection[Any]:
        """Connect to Doorstep's database as its owner."""
        with translated():
            return psycopg.connect(
                host=str(self.folder), port=PORT, user=OWNER, dbname=DATABASE,
                options="-c search_path=doorstep,public -c timezone=UTC",
            )  # fmt: skip


@contextmanager
def private_server(
    data_dir: Path, echo: Echo, settings: Mapping[str, str] | None = None
) -> Iterator[PrivateServer]:
    """Start PostgreSQL, wait until it has replayed its WAL, and stop it at the end.

    The stop is a clean one, which archives all WAL. Raises RecoveryFailed with the server's log.
    """
    user = postgres_user()
    folder = Path(tempfile.mkdtemp(prefix="doorstep-restore-"))
    try:
        (folder / "hba.conf").write_text("local all all trust\n")
        give_to(folder / "hba.conf", user)
        give_to(folder, user)
        argv = [str(find_binaries() / "postgres"), "-D", str(data_dir)]
        for name, value in (
            ("listen_addresses", ""),
            ("unix_socket_directories", str(folder)),
            ("port", str(PORT)),
            ("hba_file", str(folder / "hba.conf")),
            *(settings or {}).items(),
        ):
            argv += ["-c", f"{name}={value}"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                as_user(user, argv), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, cwd="/",
            )  # fmt: skip
        try:
            yield PrivateServer(folder, _wait(process, folder, echo))
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], folder: Path, echo: Echo) -> datetime | None:
    report_at = time.monotonic() + MESSAGE_EVERY_S
    replayed_to: datetime | None = None
    while True:
        if process.poll() is not None:
            raise RecoveryFailed(_reason((folder / "log").read_text(errors="replace")))
        try:
            with psycopg.connect(host=str(folder), port=PORT, user=SUPERUSER) as conn:
                row = conn.execute(query("recovery_progress", "queries/backup.sql")).fetchone()
        except psycopg.OperationalError:
            row = None
        if row is not None:
            replayed_to = row[1] or replayed_to
            if not row[0]:
                return replayed_to
        if time.monotonic() > report_at:
            report_at = time.monotonic() + MESSAGE_EVERY_S
            echo(f"replaying WAL: {f'at {replayed_to:%H:%M:%S}' if replayed_to else 'started'}")
        time.sleep(POLL_S)


def _reason(log: str) -> str:
    if "recovery ended before configured recovery target was reached" in log:
        return (
            "no commit as late as that is in the archive: repeat the command without --to, for "
            "the newest state"
        )
    lines = [line for line in log.splitlines() if "FATAL" in line or "PANIC" in line]
    return f"PostgreSQL did not start: {' '.join(lines[-2:] or log.splitlines()[-3:])}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_TIMEOUT_S)
