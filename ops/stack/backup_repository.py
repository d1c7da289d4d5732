"""The repository of backups: pgBackRest's base backups and WAL archive in one folder.

BACKUP_DIR/
├── pgbackrest.conf     exists once backups are used; with --ha pgbackrest-2.conf too
├── repository/         pgBackRest's: archive/, backup/
├── log/
├── verified.json       the last result of `pgbackrest verify`
└── credentials.jsonl   revocations and erasures, which a restore applies again
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from ops.console import Echo
from ops.stack.errors import StackError
from ops.stack.paths import SUPERUSER, StackPaths
from ops.stack.postgres import PostgresCluster, postgres_user
from ops.stack.private_file import replace_file
from ops.stack.settings import StackSettings
from ops.stack.users import as_user, can_enter, give_to, make_data_dir

PROGRAM = "pgbackrest"
STANZA = "doorstep"
CIPHER = "repo1-cipher-type=aes-256-cbc"
ARCHIVE_TIMEOUT_S = 60  # a commit is in the archive after this time at the latest
CONFIG = "pgbackrest.conf"
_WAL_FILE = re.compile(r"[0-9A-F]{24}-[0-9a-f]{40}")
_DAMAGE = re.compile(
    r"(missing|checksum invalid|size invalid|other): [1-9]|status: (error|invalid)"
)
# Everything; what has changed since the last full one; what has changed since the last one.
BackupKind = Literal["full", "diff", "incr"]
# Archiving that does nothing. So the first backup needs a reload of PostgreSQL, not a restart.
NO_ARCHIVING = "true"


class BackupError(StackError):
    """pgBackRest refused or failed."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup. WAL names are those that it needs by itself."""

    label: str
    kind: str  # full, incr or diff
    started_at: datetime
    ended_at: datetime
    database_bytes: int
    repository_bytes: int
    first_wal: str
    last_wal: str


@dataclass(frozen=True, slots=True)
class RepositoryInfo:
    """What a repository holds. `first_wal` and `last_wal` bound the archive of the newest one."""

    system_id: int | None
    backups: tuple[Backup, ...] = ()
    first_wal: str | None = None
    last_wal: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of reading every file of the repository again."""

    at: datetime
    is_valid: bool
    detail: str


@dataclass(frozen=True, slots=True)
class BackupRepository:
    """The backups of one stack, as one of its database servers uses them."""

    folder: Path
    data_dir: Path  # of the server
    is_chosen: bool  # BACKUP_DIR is set, or was when backups were first used
    keep_full: int = 2
    cipher_pass_file: Path | None = None  # for a new repository, or after the loss of the disk
    server: int = 0  # with --ha: which server, from 1
    remembered_in: Path | None = None  # the stack's file that names `folder`, once it was used

    @classmethod
    def of(cls, paths: StackPaths, settings: StackSettings, server: int = 0) -> BackupRepository:
        """Return the repository that BACKUP_DIR names, or the one in use."""
        used = paths.backup_dir()
        folder = settings.backup_dir or used
        home = paths.postgres_node(server) if server else paths.postgres
        return cls(
            (folder or default_folder(paths)).absolute(),
            home.resolve() / "data",
            folder is not None,
            settings.backup_keep_full,
            settings.backup_cipher_pass_file,
            server,
            paths.backup_dir_file if folder and used == folder.absolute() else None,
        )

    @property
    def config_file(self) -> Path:
        """pgBackRest's configuration for this server."""
        if self.server > 1:
            return self.folder.resolve() / f"pgbackrest-{self.server}.conf"
        return self._first_config_file

    @property
    def _first_config_file(self) -> Path:
        return self.folder.resolve() / CONFIG

    @property
    def credentials_file(self) -> Path:
        return self.folder.resolve() / "credentials.jsonl"

    @property
    def verified_file(self) -> Path:
        return self.folder.resolve() / "verified.json"

    @property
    def cipher_file(self) -> Path:
        """pgBackRest's configuration of the passphrase: on the database's disk."""
        return self.data_dir.parent / "backup_cipher" / "cipher.conf"

    @property
    def is_encrypted(self) -> bool:
        """Whether the repository is encrypted, or was when it was last seen."""
        if self.is_lost:
            return self.cipher_file.exists()
        return self.is_in_use and CIPHER in self._first_config_file.read_text(encoding="utf-8")

    @property
    def is_in_use(self) -> bool:
        """Whether backups were made here, or BACKUP_DIR prepared it."""
        return self._first_config_file.exists()

    @property
    def is_lost(self) -> bool:
        """Whether this stack's backups were made here, and are not here now."""
        return self.remembered_in is not None and not self.is_in_use

    def check_present(self) -> None:
        """Raise BackupError if the backups are lost: their disk is not mounted, for example."""
        if self.is_lost:
            raise BackupError(
                f"{self.folder} has no {CONFIG}, and this stack's backups were there: mount the "
                "disk again; if they are gone, set BACKUP_DIR to a new folder, or to begin anew "
                f"in this one delete {self.remembered_in}; then ./run up"
            )

    @property
    def is_wanted(self) -> bool:
        """Whether WAL is archived and backups are scheduled."""
        return self.is_chosen or self.is_in_use

    def postgres_config(self) -> dict[str, str]:
        """Return PostgreSQL's settings: WAL is archived once the repository is in use.

        While the repository is lost, archiving fails, so that PostgreSQL keeps its WAL.
        """
        if not self.is_in_use and not self.is_lost:
            return {"archive_mode": "on", "archive_command": NO_ARCHIVING}
        return {
            "archive_mode": "on",
            "archive_command": " ".join([*self._argv("archive-push"), '"%p"']),
            "archive_timeout": f"{ARCHIVE_TIMEOUT_S}s",
        }

    # -- set-up --------------------------------------------------------------------------------

    def prepare(self, paths: StackPaths, cluster: PostgresCluster, echo: Echo) -> None:
        """Create the folder and write pgBackRest's configuration. Idempotent. Raises StackError."""
        if shutil.which(PROGRAM) is None:
            raise StackError("pgbackrest is missing: apt install pgbackrest")
        self.check_present()
        user = postgres_user()
        if self.folder == default_folder(paths):
            make_data_dir(user, self.folder, echo)
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()) and not self.is_in_use:
                raise StackError(f"{self.folder} holds other files: set BACKUP_DIR to a new folder")
            give_to(self.folder, user)
            if user is not None and not can_enter(user, self.folder):
                raise StackError(f"the user {user} cannot enter {self.folder}: choose another "
                                 "BACKUP_DIR")  # fmt: skip
        encrypts = self._prepare_cipher(user)
        at = self.folder.resolve()
        for name in ("repository", "log", "lock"):
            (at / name).mkdir(exist_ok=True)
            give_to(at / name, user)
        text = "\n".join((
            "[global]",
            f"repo1-path={at / 'repository'}",
            f"repo1-retention-full={self.keep_full}",
            f"log-path={at / 'log'}",
            f"lock-path={at / 'lock'}",
            "log-level-console=warn",
            "log-level-file=info",
            "compress-type=lz4",
            "start-fast=y",
            "process-max=2",
            "archive-timeout=120",
            *([CIPHER] if encrypts else []),
            "",
            f"[{STANZA}]",
            f"pg1-path={self.data_dir}",
            f"pg1-port={cluster.port}",
            f"pg1-socket-path={cluster.socket_dir}",
            f"pg1-user={SUPERUSER}",
            "pg1-database=postgres",
            "",
        ))  # fmt: skip
        replace_file(self.config_file, text, user=user)
        paths.backup_dir_file.write_text(f"{self.folder}\n", encoding="utf-8")

    def _prepare_cipher(self, user: str | None) -> bool:
        """Write the passphrase for pgBackRest; return whether the repository is encrypted."""
        given = self.cipher_pass_file
        if self.is_in_use and not self.is_encrypted and given is not None:
            raise StackError(
                f"{self.folder} was begun without encryption: set BACKUP_DIR to a new folder"
            )
        if given is None:
            if self.is_encrypted and not self.cipher_file.exists():
                raise StackError(f"{self.folder} is encrypted: set BACKUP_CIPHER_PASS_FILE")
            return self.is_encrypted
        try:
            passphrase = given.read_text(encoding="utf-8").strip()
        except OSError as exc:
            raise StackError(f"BACKUP_CIPHER_PASS_FILE={given}: {exc.strerror}") from exc
        if not passphrase or len(passphrase.split()) > 1:
            raise StackError(f"BACKUP_CIPHER_PASS_FILE={given} must hold one word")
        self.cipher_file.parent.mkdir(exist_ok=True)
        give_to(self.cipher_file.parent, user)
        text = f"[global]\nrepo1-cipher-pass={passphrase}\n"
        replace_file(self.cipher_file, text, user=user)
        return True

    def is_on_the_same_disk(self) -> bool:
        """Return whether one broken disk loses both the database and its backups."""
        return self.folder.resolve().stat().st_dev == self.data_dir.parent.stat().st_dev

    def create(self, cluster: PostgresCluster) -> None:
        """Create the stanza of a running database that archives. Idempotent. Raises BackupError."""
        self._check_database(cluster)
        self._run("stanza-create", cluster=cluster)

    def _check_database(self, cluster: PostgresCluster) -> None:
        found = self.info().system_id
        if found is not None and found != cluster.system_id():
            raise BackupError(
                f"{self.folder} has the backups of another database: ./run restore brings that "
                "back; to back up the present one, set BACKUP_DIR to a new folder"
            )

    def check_not_lost(self, data_dirs: Sequence[Path] = ()) -> None:
        """Raise StackError instead of letting an empty database begin where one was lost.

        `data_dirs`: those of all servers, if there are several.
        """
        has_data = any((one / "PG_VERSION").exists() for one in (self.data_dir, *data_dirs))
        if has_data:
            return
        self.check_present()
        if self.info().backups:
            raise StackError(
                f"the database's folder {self.data_dir} is gone, and {self.folder} has backups of "
                "it: ./run restore; to start empty, set BACKUP_DIR to a new folder"
            )

    # -- backups -------------------------------------------------------------------------------

    def back_up(self, cluster: PostgresCluster, kind: BackupKind = "incr") -> Backup:
        """Make a backup: a full one if there is none yet. Raises BackupError."""
        self._check_database(cluster)
        self._run("backup", f"--type={kind}", cluster=cluster)
        return self.info().backups[-1]

    def info(self) -> RepositoryInfo:
        """List the backups, oldest first. Raises BackupError."""
        if not self.is_in_use:
            return RepositoryInfo(None)
        stanzas = json.loads(self._run("info", "--output=json"))
        stanza = stanzas[0] if stanzas else {}
        databases = stanza.get("db") or []
        archives = stanza.get("archive") or []
        return RepositoryInfo(
            databases[-1]["system-id"] if databases else None,
            tuple(_backup(one) for one in stanza.get("backup") or ()),
            archives[-1].get("min") if archives else None,
            archives[-1].get("max") if archives else None,
        )

    def verify(self) -> Verification:
        """Read every file of the repository and compare it with its checksum. Keeps the result."""
        now = datetime.now(UTC)
        try:
            report = self._run("verify", "--output=text", "--verbose")
        except BackupError as exc:
            report = str(exc)
        # Its exit status is 0 for a damaged file, too.
        is_valid = "status: ok" in report and not _DAMAGE.search(report)
        gaps = self._wal_gaps()
        if gaps:
            is_valid, report = False, f"WAL is missing after {', '.join(gaps)}\n{report}"
        detail = "; ".join(line.strip() for line in report.splitlines())[-500:]
        text = {"at": now.isoformat(), "is_valid": is_valid, "detail": detail}
        replace_file(self.verified_file, json.dumps(text) + "\n", user=postgres_user())
        return Verification(now, is_valid, detail)

    def _wal_gaps(self) -> list[str]:
        """Return the archived WAL files whose successor, of any timeline, is missing.

        pgBackRest verifies the files that are there. A later timeline begins in the last file of
        the one before, or earlier.
        """
        return [
            name
            for name, after in pairwise(self._archived())
            if _segment_no(after) > _segment_no(name) + 1
        ]

    def _archived(self) -> list[str]:
        archive = self.folder.resolve() / "repository" / "archive" / STANZA
        return sorted({one.name[:24] for one in archive.rglob("*") if _WAL_FILE.match(one.name)})

    def archive_after_failover(self) -> list[str]:
        """Let the server archive what a lost primary has not; return the names of the WAL files.

        A standby marks the WAL that it receives as archived. If its primary is lost before it has
        archived it, the standby, which is now the primary, has the only copy.
        """
        archived = self._archived()
        status = self.data_dir / "pg_wal" / "archive_status"
        missing = sorted(
            one.stem
            for one in status.glob("*.done")
            if archived and one.stem not in archived and is_wal_after(one.stem, archived[0])
        )
        for name in missing:
            if (status.parent / name).exists():
                (status / f"{name}.done").rename(status / f"{name}.ready")
        return missing

    def last_verification(self) -> Verification | None:
        """Return the last result of `verify`; None if there is none."""
        try:
            kept: dict[str, Any] = json.loads(self.verified_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return Verification(datetime.fromisoformat(kept["at"]), kept["is_valid"], kept["detail"])

    def restore(self, to: datetime | None) -> None:
        """Write the database's folder as of the last backup before `to`. Raises BackupError.

        PostgreSQL must be stopped. It replays the WAL when it starts.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        give_to(self.data_dir, postgres_user())
        options = ["--delta"] if (self.data_dir / "PG_VERSION").exists() else []
        if to is not None:
            stamp = to.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
            options += ["--type=time", f"--target={stamp}", "--target-action=promote"]
        self._run("restore", *options)

    # -- pgBackRest ----------------------------------------------------------------------------

    def _argv(self, command: str, *options: str) -> list[str]:
        argv = [PROGRAM, f"--config={self.config_file}"]
        if self.is_encrypted:
            argv.append(f"--config-include-path={self.cipher_file.parent}")
        return [*argv, f"--stanza={STANZA}", *options, command]

    def _run(self, command: str, *options: str, cluster: PostgresCluster | None = None) -> str:
        environment: Mapping[str, str] = os.environ
        if cluster is not None:
            environment = {**os.environ, "PGPASSWORD": cluster.password}
        done = subprocess.run(
            as_user(postgres_user(), self._argv(command, *options)),
            env=dict(environment), capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        if done.returncode != 0:
            reason = (done.stderr + done.stdout).strip()[-800:]
            raise BackupError(f"pgbackrest {command} failed: {reason}")
        return done.stdout

    def set_aside(self) -> Path | None:
        """Rename the folder, which `./run down --erase` keeps; None if it is not in use."""
        if not self.is_in_use:
            return None
        at = self.folder.resolve()
        kept = at.with_name(f"{at.name}-until-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        at.rename(kept)
        if self.folder.is_symlink():
            self.folder.unlink()
        return kept


def default_folder(paths: StackPaths) -> Path:
    """Return the folder of backups without BACKUP_DIR: beside the stack's."""
    return paths.root.absolute().with_name(f"{paths.root.name}-backup")


def is_wal_after(name: str, first: str) -> bool:
    """Return whether a file of `pg_wal` is a whole WAL file with later WAL than another one."""
    return len(name) == len(first) and name[8:] > first[8:]


def _segment_no(name: str) -> int:
    """Number a WAL file of its timeline: 256 files of 16 MiB share the middle eight digits."""
    return int(name[8:16], 16) * 256 + int(name[16:24], 16)


def _backup(one: Mapping[str, Any]) -> Backup:
    return Backup(
        label=one["label"],
        kind=one["type"],
        started_at=datetime.fromtimestamp(one["timestamp"]["start"], UTC),
        ended_at=datetime.fromtimestamp(one["timestamp"]["stop"], UTC),
        database_bytes=one["info"]["size"],
        repository_bytes=one["info"]["repository"]["delta"],
        first_wal=one["archive"]["start"],
        last_wal=one["archive"]["stop"],
    )
