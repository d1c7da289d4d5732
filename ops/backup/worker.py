"""`python -m ops.backup.worker`: makes backups by schedule, verifies them, and logs revocations.

The supervisor runs it in a stack that has backups. Three threads: the schedule, in which a backup
may take hours; the log, which follows the database every second; and the check whether PostgreSQL
archives, which neither of them may delay.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType

from doorstep.errors import DoorstepError, SettingsError
from doorstep.provision import owner_connection
from doorstep.settings import EX_CONFIG
from doorstep.telemetry import TelemetryServer, configure_logging, get_logger
from ops.backup import metrics
from ops.backup.credential_log import CredentialLog
from ops.stack.backup_repository import Backup, BackupError, BackupKind, BackupRepository
from ops.stack.settings import StackSettings
from ops.stack.stack import Stack
from sql import query

LOG_EVERY_S = 1.0
SCAN_EVERY_S = 30.0  # reads all customers' tokens, which have no index on their end
SCHEDULE_EVERY_S = 10.0
CHECK_EVERY_S = 10.0
FIRST_SCHEDULE_S = 30.0  # `./run backup`, which starts the worker, makes the first
RETRY_AFTER = timedelta(minutes=1)  # after a failed backup


class Worker:
    """The worker of one stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stopped = threading.Event()
        self._failed_at: datetime | None = None
        self._waits_for = "database"  # the log, until it is read
        self._schedule_from = time.monotonic() + FIRST_SCHEDULE_S
        settings = stack.settings
        self._every = timedelta(hours=settings.backup_every_h)
        self._full_every = timedelta(days=settings.backup_full_every_days)
        metrics.EVERY_S.set(self._every.total_seconds())

    @property
    def _repository(self) -> BackupRepository:
        """The repository as it is now: `./run up` may prepare it after the worker's start."""
        return self._stack.backups()

    def stop(self) -> None:
        """End the threads after their present step."""
        self._stopped.set()

    def readiness(self) -> Mapping[str, bool]:
        """Return whether revocations are logged: what they are read from, and written to."""
        return {name: name != self._waits_for for name in ("database", "repository")}

    def run(self) -> None:
        """Work until stopped."""
        steps = (
            (self._check_archiving, CHECK_EVERY_S),
            (self._follow, LOG_EVERY_S),
            (self._schedule, SCHEDULE_EVERY_S),
        )
        for step in steps:
            threading.Thread(target=self._repeat, args=step, daemon=True).start()
        self._stopped.wait()

    def _repeat(self, step: Callable[[], None], every_s: float) -> None:
        failure = ""
        while not self._stopped.is_set():
            try:
                step()
                failure = ""
            except Exception as exc:  # noqa: BLE001 - the thread's boundary
                if step == self._follow:
                    is_folder = isinstance(exc, BackupError | OSError)
                    self._waits_for = "repository" if is_folder else "database"
                if str(exc) != failure:  # once, not each second
                    failure = str(exc)
                    get_logger().warning("backup_worker_waits", step=step.__name__, error=failure)
            self._stopped.wait(every_s)

    def _check_archiving(self) -> None:
        """Update the metrics of the archive, whatever fails."""
        is_archiving = False
        try:
            self._repository.check_present()
            with owner_connection(self._stack.database_admin_url) as conn:
                row = conn.execute(query("archiver_state", "queries/backup.sql")).fetchone()
            if row is not None:
                archived_at, is_failing = row
                is_archiving = self._repository.is_in_use and not is_failing
                metrics.LAST_WAL_AT.set(archived_at.timestamp() if archived_at else 0)
        finally:
            metrics.ARCHIVING.set(is_archiving)
            metrics.CHECKED_AT.set_to_current_time()

    def _follow(self) -> None:
        """Log revocations until the connection ends or the folder is gone."""
        self._repository.check_present()
        log = CredentialLog(self._repository.credentials_file)
        scan_at = time.monotonic()
        with owner_connection(self._stack.database_admin_url) as conn:
            while not self._stopped.is_set():
                self._repository.check_present()
                is_scan = time.monotonic() >= scan_at
                log.follow(conn, scan_customers=is_scan)
                if is_scan:
                    scan_at = time.monotonic() + SCAN_EVERY_S
                self._waits_for = ""
                self._stopped.wait(LOG_EVERY_S)

    def _schedule(self) -> None:
        """Make and verify a backup if one is due, and update the metrics of backups."""
        self._repository.check_present()
        if not self._repository.is_in_use:
            return
        if self._stack.has_replicas:
            primary = self._stack.repositories()[self._stack.primary()]
            late = primary.archive_after_failover()
            if late:
                get_logger().info("wal_archived_after_failover", first=late[0], count=len(late))
        backups = self._repository.info().backups
        self._update_metrics(backups[-1] if backups else None)
        if time.monotonic() < self._schedule_from:
            return
        now = datetime.now(UTC)
        if self._failed_at and now < self._failed_at + RETRY_AFTER:
            return
        kind = due(backups, now, self._every, self._full_every)
        if kind is None:
            return
        try:
            backup = self._stack.back_up(kind)
            verified = self._repository.verify()
        except DoorstepError:
            self._failed_at = now
            metrics.FAILURES.inc()
            raise
        get_logger().info("backup_made", label=backup.label, valid=verified.is_valid)
        if not verified.is_valid:
            metrics.FAILURES.inc()
        self._update_metrics(backup)

    def _update_metrics(self, newest: Backup | None) -> None:
        verified = self._repository.last_verification()
        metrics.LAST_BACKUP_AT.set(newest.ended_at.timestamp() if newest else 0)
        metrics.VERIFIED.set(verified is None or verified.is_valid)


def due(
    backups: Sequence[Backup], now: datetime, every: timedelta, full_every: timedelta
) -> BackupKind | None:
    """Return which backup is due, given those there are, oldest first. `every` 0: never one."""
    if not every or (backups and now < backups[-1].ended_at + every):
        return None
    fulls = [one.ended_at for one in backups if one.kind == "full"]
    return "full" if not fulls or now >= fulls[-1] + full_every else "diff"


def main() -> int:
    """Run until SIGTERM; the return value is the exit status."""
    parser = argparse.ArgumentParser(prog="ops.backup.worker", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the stack's folder")
    home = parser.parse_args().home
    configure_logging("backup_worker")
    try:
        settings = StackSettings.load().model_copy(update={"doorstep_home": home})
    except SettingsError as exc:
        print(f"backup_worker: {exc}", file=sys.stderr)
        return EX_CONFIG
    stack = Stack(settings, echo=lambda _line: None)
    worker = Worker(stack)
    server = TelemetryServer(stack.addresses.backups, worker.readiness, lambda: True)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    worker.run()
    server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
