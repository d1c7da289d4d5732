"""Backups: the disk of the backups unmounted."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from doorstep.credentials import token_sha256
from ops.servers.waiting import wait_until
from ops.stack.processes import BACKUP_WORKER
from tests.faults.apis import DESTINATION, RESTAURANT_ID
from tests.faults.database import superuser
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome

AWAY_S = 45.0  # longer than the worker looks for revoked links (30 s)
ALARM_WITHIN_S = 120.0
ARCHIVING = "doorstep_backup_archiving"  # the alert WalNotArchived
SWITCH = "SELECT pg_switch_wal()"
SWITCH_EVERY_S = 5.0


def archive_unreachable(env: FaultEnvironment) -> Outcome:
    """Unmount the backups' disk under load, and mount it again."""
    env.stack.set_up_backups()
    repository = env.stack.backups()
    repository.back_up(env.stack.cluster(), "full")
    wait_until(lambda: env.metric("backups", ARCHIVING) == 1, ALARM_WITHIN_S, "WAL is archived")
    archived_before = repository.info().last_wal
    status = repository.data_dir / "pg_wal" / "archive_status"
    alarm_s = oldest_fix_age_s = 0.0
    written: list[str] = []
    with _unmounted(repository.folder.resolve(), written):
        gone_at = time.monotonic()
        revoked = _revoke_a_link(env)
        while (away_s := time.monotonic() - gone_at) < ALARM_WITHIN_S:
            if alarm_s and away_s >= AWAY_S:
                break
            with superuser(env) as conn:
                conn.execute(SWITCH)
            time.sleep(SWITCH_EVERY_S)
            oldest_fix_age_s = max(oldest_fix_age_s, env.oldest_fix_age_s())
            if not alarm_s and env.metric("backups", ARCHIVING) == 0:
                alarm_s = time.monotonic() - gone_at
        waiting = len(list(status.glob("*.ready")))
        _wait_others_healthy(env)
    back_at = time.monotonic()
    wait_until(lambda: not list(status.glob("*.ready")), ALARM_WITHIN_S, "all WAL is archived")
    caught_up_s = time.monotonic() - back_at
    wait_until(lambda: env.metric("backups", ARCHIVING) == 1, ALARM_WITHIN_S, "the alarm ends")
    wait_until(
        lambda: revoked in repository.credentials_file.read_text(encoding="utf-8"),
        ALARM_WITHIN_S,
        "the revocation is logged",
    )
    logged_s = time.monotonic() - back_at
    verified, archived = repository.verify(), repository.info().last_wal
    return Outcome(
        f"{f'alarm after {alarm_s:.0f} s' if alarm_s else 'NO ALARM'}; {waiting} WAL files waited, "
        f"and were archived {caught_up_s:.0f} s after the return ({archived_before} to {archived}),"
        f" {'valid' if verified.is_valid else 'NOT valid: ' + verified.detail}; a link revoked "
        f"meanwhile logged {logged_s:.0f} s after it; written below the mount point: "
        f"{', '.join(written) or 'nothing'}; the oldest fix meanwhile {oldest_fix_age_s:.1f} s",
        env.wait_healthy(),
        bool(alarm_s) and waiting > 0 and verified.is_valid and archived != archived_before
        and not written,
    )  # fmt: skip


@contextlib.contextmanager
def _unmounted(folder: Path, written: list[str]) -> Iterator[None]:
    """Leave an empty folder of root in a folder's place, as umount does.

    `written` gets the names of what was written there meanwhile.
    """
    away = folder.with_name(f"{folder.name}-away")
    folder.rename(away)
    folder.mkdir(mode=0o755)
    try:
        yield
    finally:
        written += sorted(one.name for one in folder.iterdir())
        shutil.rmtree(folder)
        away.rename(folder)


def _revoke_a_link(env: FaultEnvironment) -> str:
    """Revoke the link of a new order; return its token's hash."""
    order = {"restaurant_id": RESTAURANT_ID, "destination": DESTINATION}
    key = {"Idempotency-Key": secrets.token_hex(8)}
    made = env.tracking.post("/orders", json=order, headers=key).raise_for_status().json()
    env.tracking.delete(f"/orders/{made['order_id']}/link").raise_for_status()
    return token_sha256(made["customer_token"]).hex()


def _wait_others_healthy(env: FaultEnvironment) -> None:
    """Wait until fixes are committed and acknowledged; the backups' worker may not be ready."""
    published = env.load.published()

    def is_healthy() -> bool:
        others = [one for one in env.stack.status() if one.name != BACKUP_WORKER]
        return (
            all(one.ready for one in others)
            and env.oldest_fix_age_s() <= env.settings.normal_s
            and not env.load.unacknowledged(published)
        )

    wait_until(is_healthy, ALARM_WITHIN_S, "the services do not need the backups")


FAULTS = (
    Fault(
        31,
        "the WAL archive unreachable: the backups' disk unmounted",
        "alarm; commits go on; WAL and revocations are written later, none below the mount point",
        None,
        quick=False,
        run=archive_unreachable,
        not_here="" if shutil.which("pgbackrest") else "pgbackrest is not installed",
    ),
)
