"""Backups without PostgreSQL and pgBackRest: files, settings, messages.

The seam: a repository's folder is written by hand, and `info` of pgBackRest is replaced.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from doorstep.errors import SettingsError
from ops.backup.credential_log import Applied, CredentialLog
from ops.backup.restore import Contents, Restored
from ops.backup.worker import due
from ops.commands.backup_command import parse_instant
from ops.stack.addresses import choose_addresses
from ops.stack.backup_repository import (
    NO_ARCHIVING,
    Backup,
    BackupError,
    BackupRepository,
    RepositoryInfo,
    default_folder,
)
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.postgres import PostgresCluster
from ops.stack.processes import BACKUP_WORKER, backup_specs
from ops.stack.settings import FREE_PORTS, StackSettings

AT = datetime(2026, 11, 29, 18, 30, tzinfo=UTC)
INFO = RepositoryInfo(7, (Backup("F", "full", AT, AT, 1, 1, "01", "02"),), "01", "02")


def used(paths: StackPaths, settings: StackSettings | None = None) -> BackupRepository:
    """A repository that is in use."""
    repository = BackupRepository.of(paths, settings or StackSettings())
    repository.folder.mkdir(parents=True)
    repository.config_file.write_text("")
    return repository


def test_repository__never_used__archives_nothing_and_has_no_worker(paths: StackPaths) -> None:
    settings = StackSettings(**FREE_PORTS)
    repository = BackupRepository.of(paths, settings)

    assert repository.postgres_config()["archive_command"] == NO_ARCHIVING
    addresses = choose_addresses(settings, pytest.fail)
    assert backup_specs(paths, addresses, settings, repository) == []


def test_repository__backup_dir_is_set__has_a_worker_for_that_folder(
    paths: StackPaths, tmp_path: Path
) -> None:
    settings = StackSettings(**FREE_PORTS, backup_dir=tmp_path / "disk2", backup_every_h=6)
    repository = BackupRepository.of(paths, settings)

    [worker] = backup_specs(paths, choose_addresses(settings, pytest.fail), settings, repository)

    assert worker.name == BACKUP_WORKER
    assert worker.environment["BACKUP_DIR"] == str(tmp_path / "disk2")
    assert worker.environment["BACKUP_EVERY_H"] == "6.0"


def test_repository__used_once__archives_wherever_it_was(paths: StackPaths, tmp_path: Path) -> None:
    used(paths, StackSettings(backup_dir=tmp_path / "disk2"))
    paths.backup_dir_file.write_text(f"{tmp_path / 'disk2'}\n")

    repository = BackupRepository.of(paths, StackSettings())

    assert repository.folder == tmp_path / "disk2"
    assert "archive-push" in repository.postgres_config()["archive_command"]
    assert repository.is_wanted


def test_prepare__folder_with_other_files__is_not_taken_over(
    paths: StackPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.stack.backup_repository.shutil.which", lambda _: "/usr/bin/pgbackrest")
    mount = tmp_path / "disk2"
    (mount / "photos").mkdir(parents=True)
    before = mount.stat()
    repository = BackupRepository.of(paths, StackSettings(backup_dir=mount))

    with pytest.raises(StackError, match="other files"):
        repository.prepare(paths, PostgresCluster(tmp_path / "data", 5432, "secret"), pytest.fail)

    assert mount.stat() == before


def test_default_folder__stack__is_outside_of_what_erase_deletes(paths: StackPaths) -> None:
    assert paths.root not in default_folder(paths).parents


def test_check_not_lost__folder_gone_and_backups__refuses_to_begin_empty(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = used(paths)
    monkeypatch.setattr(BackupRepository, "info", lambda _: INFO)

    with pytest.raises(StackError, match=r"\./run restore"):
        repository.check_not_lost()
    other = paths.postgres_node(2) / "data"
    other.mkdir(parents=True)
    (other / "PG_VERSION").write_text("15\n")
    repository.check_not_lost([other])
    repository.data_dir.mkdir(parents=True)
    (repository.data_dir / "PG_VERSION").write_text("15\n")
    repository.check_not_lost()


def test_repository__its_disk_is_not_mounted__keeps_the_wal_and_begins_no_other(
    paths: StackPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.stack.backup_repository.shutil.which", lambda _: "/usr/bin/pgbackrest")
    mount = tmp_path / "disk2"
    used(paths, StackSettings(backup_dir=mount)).config_file.unlink()
    paths.backup_dir_file.write_text(f"{mount}\n")
    repository = BackupRepository.of(paths, StackSettings(backup_dir=mount))

    assert repository.is_lost
    assert "archive-push" in repository.postgres_config()["archive_command"]
    cluster = PostgresCluster(tmp_path / "data", 5432, "secret")
    with pytest.raises(BackupError, match="mount the disk again"):
        repository.prepare(paths, cluster, pytest.fail)
    with pytest.raises(BackupError, match=r"pgbackrest\.conf"):
        repository.check_not_lost()
    assert list(mount.iterdir()) == []
    other = BackupRepository.of(paths, StackSettings(backup_dir=tmp_path / "disk3"))
    assert not other.is_lost
    repository.config_file.touch()
    assert not repository.is_lost


def test_repository__encrypted_and_not_mounted__archives_with_its_passphrase_later(
    paths: StackPaths,
) -> None:
    repository = used(paths)
    repository.config_file.unlink()
    paths.backup_dir_file.write_text(f"{repository.folder}\n")
    repository.cipher_file.parent.mkdir(parents=True)
    repository.cipher_file.touch()

    command = BackupRepository.of(paths, StackSettings()).postgres_config()["archive_command"]

    assert str(repository.cipher_file.parent) in command


def test_set_aside__used_repository__keeps_it_under_another_name(paths: StackPaths) -> None:
    repository = used(paths)

    kept = repository.set_aside()

    assert kept is not None
    assert (kept / "pgbackrest.conf").exists()
    assert not repository.folder.exists()
    assert repository.set_aside() is None


@pytest.mark.parametrize(
    ("missing", "gaps"),
    [
        ([], []),
        ([1], ["0000000100000000000000FE"]),  # before the middle eight digits change
        ([2], ["0000000100000000000000FF"]),
        ([3], []),  # the last one of its timeline
        ([2, 3], ["0000000100000000000000FF"]),  # the last ones, which a lost primary had
    ],
)
def test_wal_gaps__archived_files__names_the_one_before(
    paths: StackPaths, missing: list[int], gaps: list[str]
) -> None:
    repository = used(paths)
    folder = repository.folder / "repository" / "archive" / "doorstep" / "15-1"
    folder.mkdir(parents=True)
    names = [
        *("0000000100000000000000FE", "0000000100000000000000FF", "000000010000000100000000"),
        *("000000010000000100000001", "000000020000000100000001"),  # a restore's timeline
    ]
    for number, name in enumerate(names):
        if number not in missing:
            (folder / f"{name}-{'a' * 40}.lz4").touch()

    assert repository._wal_gaps() == gaps


def test_archive_after_failover__wal_of_a_lost_primary__is_archived_by_the_new_one(
    paths: StackPaths,
) -> None:
    used(paths)
    repository = BackupRepository.of(paths, StackSettings(), server=2)
    archive = repository.folder / "repository" / "archive" / "doorstep" / "15-1"
    status = repository.data_dir / "pg_wal" / "archive_status"
    for folder in (archive, status):
        folder.mkdir(parents=True)
    for number in (3, 4, 7):  # 5 and 6 were lost with the primary; 2 has expired
        (archive / f"{wal_name(number)}-{'a' * 40}.lz4").touch()
    names = [*map(wal_name, (2, 4, 5, 6)), "00000002.history", f"{wal_name(6)}.partial"]
    for name in names:
        (status / f"{name}.done").touch()
        (status.parent / name).touch()
    (status / f"{wal_name(8)}.done").touch()  # its file is gone

    repository.archive_after_failover()

    assert sorted(one.stem for one in status.glob("*.ready")) == [wal_name(5), wal_name(6)]


def wal_name(number: int) -> str:
    return f"00000001{number:016X}"


def test_repositories__of_two_servers__share_a_folder_and_have_a_configuration_each(
    paths: StackPaths, tmp_path: Path
) -> None:
    used(paths, StackSettings(backup_dir=tmp_path / "disk2"))
    settings = StackSettings(backup_dir=tmp_path / "disk2")
    first, second = (BackupRepository.of(paths, settings, one) for one in (1, 2))

    assert second.is_in_use
    assert first.folder == second.folder
    commands = {one.postgres_config()["archive_command"] for one in (first, second)}
    assert len(commands) == 2
    assert first.data_dir.parent == paths.postgres_node(1)
    assert second.data_dir.parent == paths.postgres_node(2)


@pytest.mark.parametrize(
    ("made", "every_h", "expected"),
    [
        pytest.param([], 24, "full", id="none yet"),
        pytest.param([], 0, None, id="not scheduled"),
        pytest.param([("full", 23)], 24, None, id="recent"),
        pytest.param([("full", 24)], 24, "diff", id="a day later"),
        pytest.param([("full", 100), ("diff", 30)], 24, "diff", id="the next day"),
        pytest.param([("full", 169), ("diff", 24)], 24, "full", id="after a week"),
        pytest.param([("full", 169), ("diff", 2)], 24, None, id="after a week, not yet"),
    ],
)
def test_due__backups_so_many_hours_old__is_full_each_week(
    made: list[tuple[str, int]], every_h: int, expected: str | None
) -> None:
    backups = []
    for kind, ago_h in made:
        at = AT - timedelta(hours=ago_h)
        backups.append(Backup("L", kind, at, at, 1, 1, "01", "02"))

    assert due(backups, AT, timedelta(hours=every_h), timedelta(days=7)) == expected


def test_credential_log__last_line_cut_off__keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / "credentials.jsonl"
    line = json.dumps({"at": AT.isoformat(), "kind": "staff", "key": "zoe", "row": {"name": "zoe"}})
    file.write_text(f"{line}\n{line[:30]}")

    assert list(CredentialLog(file)._seen) == [("staff", "zoe")]


def test_parse_instant__with_and_without_a_zone__is_utc() -> None:
    assert parse_instant("2026-11-29T19:30:00+01:00") == AT
    assert parse_instant("2026-11-29 18:30").tzinfo is UTC
    with pytest.raises(SettingsError, match="yesterday"):
        parse_instant("yesterday")


def test_restored_lines__earlier_instant__say_what_is_missing_and_what_ended_again() -> None:
    contents = Contents(3, 9, 1, AT - timedelta(seconds=2), AT - timedelta(seconds=1))
    applied = Applied(["driver d2"], ["driver d3"], ["order o1: it is open"])
    lines = Restored(AT, False, contents, applied, ["o2"]).lines()

    text = "\n".join(lines)
    assert lines[0] == "restored to 2026-11-29 18:30:00.000000Z"
    assert "3 drivers, 9 orders (1 open)" in text
    assert "after 2026-11-29 18:29:59Z are read from it again" in text
    assert "not in: later orders" in text
    assert "changed later, and as then: driver d2" in text
    assert "erased again: driver d3" in text
    assert "repeat ./run forget order o1: it is open" in text
    assert "links ended of order o2" in text


def test_restored_lines__newest_state__nothing_is_missing() -> None:
    lines = Restored(AT, True, Contents(3, 9, 1, AT, AT), Applied(), []).lines()

    assert "(the newest commit)" in lines[0]
    assert not [line for line in lines if "not in" in line]
