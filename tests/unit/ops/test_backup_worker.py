"""The backup worker without PostgreSQL and pgBackRest.

The seams: `owner_connection`, and `info`, `verify` and `back_up` of the repository.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import prometheus_client
import psycopg
import pytest

from doorstep.errors import Unavailable
from ops.backup import worker as worker_module
from ops.backup.credential_log import CredentialLog
from ops.backup.worker import Worker
from ops.servers.waiting import wait_until
from ops.stack.backup_repository import (
    Backup,
    BackupError,
    BackupKind,
    BackupRepository,
    RepositoryInfo,
    Verification,
)
from ops.stack.paths import StackPaths
from ops.stack.settings import StackSettings
from ops.stack.stack import Stack


@dataclass
class Database:
    """What the worker reads. A connection is its own cursor."""

    archiver: tuple[datetime, bool] = (datetime(2026, 11, 29, 18, tzinfo=UTC), False)
    revoked: list[str] = field(default_factory=list)
    is_down: bool = False

    @contextmanager
    def connect(self, _url: str) -> Iterator[Database]:
        if self.is_down:
            raise Unavailable("the database")
        yield self

    def execute(self, text: str, _parameters: object = None) -> Database:
        self._is_version = "credential_version" in text
        return self

    def fetchone(self) -> tuple[object, ...]:
        return (7,) if self._is_version else self.archiver

    def fetchall(self) -> list[tuple[str, str, str]]:
        return [("staff", name, json.dumps({"name": name})) for name in self.revoked]

    def rollback(self) -> None:
        """Nothing was written."""


class FakeStack:
    """A stack with backups that are due at once."""

    has_replicas = False
    database_admin_url = ""

    def __init__(self, paths: StackPaths) -> None:
        self.paths = paths
        self.settings = StackSettings(backup_every_h=1)
        self.made: list[BackupKind] = []
        self.before_backup: Callable[[], None] = lambda: None

    def backups(self) -> BackupRepository:
        return BackupRepository.of(self.paths, self.settings)

    def back_up(self, kind: BackupKind) -> Backup:
        self.before_backup()
        self.made.append(kind)
        return backup(timedelta(0))


def backup(age: timedelta) -> Backup:
    at = datetime.now(UTC) - age
    return Backup("F", "full", at, at, 1, 1, "01", "02")


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    found = Database()
    monkeypatch.setattr(worker_module, "owner_connection", found.connect)
    return found


@pytest.fixture
def stack(paths: StackPaths, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    made = FakeStack(paths)
    repository = made.backups()
    repository.folder.mkdir(parents=True)
    repository.config_file.touch()
    paths.backup_dir_file.write_text(f"{repository.folder}\n")
    monkeypatch.setattr(worker_module, "FIRST_SCHEDULE_S", 0)
    monkeypatch.setattr(BackupRepository, "info", lambda _: RepositoryInfo(7))
    verify(monkeypatch, is_valid=True)
    return made


@pytest.fixture
def worker(stack: FakeStack, database: Database) -> Worker:
    del database
    return Worker(cast("Stack", stack))


def verify(monkeypatch: pytest.MonkeyPatch, *, is_valid: bool) -> None:
    """Let `verify` find this, and keep it."""
    found = Verification(datetime.now(UTC), is_valid, "")
    monkeypatch.setattr(BackupRepository, "verify", lambda _: found)
    monkeypatch.setattr(BackupRepository, "last_verification", lambda _: found)


def metric(name: str) -> float:
    value = prometheus_client.REGISTRY.get_sample_value(f"doorstep_backup_{name}")
    assert value is not None
    return value


def unmount(stack: FakeStack) -> Path:
    stack.backups().config_file.unlink()
    return stack.backups().credentials_file


def test_check_archiving__last_wal_file__is_archived_or_refused(
    worker: Worker, database: Database
) -> None:
    worker._check_archiving()
    assert metric("archiving") == 1
    assert metric("last_wal_timestamp_seconds") == database.archiver[0].timestamp()
    database.archiver = (database.archiver[0], True)
    worker._check_archiving()
    assert metric("archiving") == 0


def test_check_archiving__folder_is_gone__is_not_archiving_and_says_what_to_do(
    worker: Worker, stack: FakeStack
) -> None:
    worker._check_archiving()
    unmount(stack)
    with pytest.raises(BackupError, match="mount the disk again"):
        worker._check_archiving()
    assert metric("archiving") == 0
    stack.backups().config_file.touch()
    worker._check_archiving()
    assert metric("archiving") == 1


def test_check_archiving__database_is_down__is_not_known_to_archive(
    worker: Worker, database: Database
) -> None:
    worker._check_archiving()
    checked_at = metric("checked_timestamp_seconds")
    database.is_down = True
    with pytest.raises(Unavailable):
        worker._check_archiving()
    assert metric("archiving") == 0
    assert metric("checked_timestamp_seconds") > checked_at


def test_run__folder_goes_during_a_long_backup__is_seen_at_once(
    worker: Worker, stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "CHECK_EVERY_S", 0.02)
    monkeypatch.setattr(worker_module, "LOG_EVERY_S", 0.02)
    is_backing_up, may_end = threading.Event(), threading.Event()

    def wait() -> None:
        is_backing_up.set()
        may_end.wait()

    stack.before_backup = wait
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        is_backing_up.wait()
        wait_until(lambda: metric("archiving") == 1, description="archiving")
        ready = {"database": True, "repository": True}
        wait_until(lambda: worker.readiness() == ready, description="readiness")
        unmount(stack)
        wait_until(lambda: metric("archiving") == 0, description="the folder's absence")
        lost = {"database": True, "repository": False}
        wait_until(lambda: worker.readiness() == lost, description="the log's wait")
        assert stack.made == []
    finally:
        worker.stop()
        may_end.set()
        thread.join()


def test_schedule__backup_is_due__is_made_verified_and_counted(
    worker: Worker, stack: FakeStack
) -> None:
    worker._schedule()
    assert stack.made == ["full"]
    assert metric("every_seconds") == 3600
    assert metric("last_timestamp_seconds") == pytest.approx(datetime.now(UTC).timestamp(), abs=60)
    assert metric("verified") == 1


def test_schedule__recent_backup__makes_none_and_has_its_instant(
    worker: Worker, stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent = backup(timedelta(minutes=5))
    info = RepositoryInfo(7, (recent,), "01", "02")
    monkeypatch.setattr(BackupRepository, "info", lambda _: info)
    worker._schedule()
    assert stack.made == []
    assert metric("last_timestamp_seconds") == recent.ended_at.timestamp()


def test_schedule__verification_finds_a_bad_file__is_a_failure_that_an_alert_sees(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(monkeypatch, is_valid=False)
    failures = metric("failures_total")
    worker._schedule()
    assert metric("verified") == 0
    assert metric("failures_total") == failures + 1


def test_schedule__backup_fails__is_counted_and_tried_again_later(
    worker: Worker, stack: FakeStack
) -> None:
    def fail() -> None:
        raise BackupError("no space left")

    stack.before_backup = fail
    failures = metric("failures_total")
    with pytest.raises(BackupError, match="no space"):
        worker._schedule()
    worker._schedule()  # a minute has not passed
    assert metric("failures_total") == failures + 1
    stack.before_backup = lambda: None
    assert worker._failed_at is not None
    worker._failed_at -= worker_module.RETRY_AFTER
    worker._schedule()
    assert stack.made == ["full"]


def test_schedule__folder_is_gone__makes_no_backup_and_says_so(
    worker: Worker, stack: FakeStack
) -> None:
    unmount(stack)
    with pytest.raises(BackupError, match="mount the disk again"):
        worker._schedule()
    assert stack.made == []


def test_credential_log__folder_is_gone__writes_nothing_below_it_and_all_once_it_is_back(
    stack: FakeStack, database: Database
) -> None:
    file = stack.backups().credentials_file
    conn = cast("psycopg.Connection[Any]", database)
    log = CredentialLog(file)
    database.revoked = ["ada"]
    assert log.follow(conn) == 1

    unmount(stack)
    file.unlink()  # it is on the disk
    database.revoked = ["ada", "bob"]
    for _ in range(2):
        with pytest.raises(BackupError, match="wait in the database"):
            log.follow(conn)
    assert not file.exists()

    stack.backups().config_file.touch()
    assert CredentialLog(file).follow(conn) == 2
    assert [json.loads(line)["key"] for line in file.read_text().splitlines()] == ["ada", "bob"]
