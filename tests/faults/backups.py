"""Backups: the WAL archive unreachable."""

from __future__ import annotations

import shutil
import time

from ops.servers.waiting import wait_until
from tests.faults.database import superuser
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome

AWAY_S = 30.0
ALARM_WITHIN_S = 120.0
ARCHIVING = "doorstep_backup_archiving"  # the alert WalNotArchived
SWITCH = "SELECT pg_switch_wal()"
SWITCH_EVERY_S = 5.0


def archive_unreachable(env: FaultEnvironment) -> Outcome:
    """Take the backups' folder away under load, as an unmounted disk does, then return it."""
    env.stack.set_up_backups()
    repository = env.stack.backups()
    repository.back_up(env.stack.cluster(), "full")
    wait_until(lambda: env.metric("backups", ARCHIVING) == 1, ALARM_WITHIN_S, "WAL is archived")
    folder = repository.folder.resolve()
    away = folder.with_name(f"{folder.name}-away")
    archived_before = repository.info().last_wal
    waiting = oldest_fix_age_s = 0.0
    folder.rename(away)
    folder.mkdir()  # the mount point
    gone_at = time.monotonic()
    try:
        alarm_s = 0.0
        while time.monotonic() - gone_at < AWAY_S or not alarm_s:
            with superuser(env) as conn:
                conn.execute(SWITCH)
            time.sleep(SWITCH_EVERY_S)
            oldest_fix_age_s = max(oldest_fix_age_s, env.oldest_fix_age_s())
            if not alarm_s and env.metric("backups", ARCHIVING) == 0:
                alarm_s = time.monotonic() - gone_at
            if time.monotonic() - gone_at > ALARM_WITHIN_S:
                break
        status = repository.data_dir / "pg_wal" / "archive_status"
        waiting = len(list(status.glob("*.ready")))
        env.wait_healthy()
        below = sorted(one.name for one in folder.iterdir())
    finally:
        shutil.rmtree(folder)
        away.rename(folder)
    back_at = time.monotonic()
    wait_until(lambda: not list(status.glob("*.ready")), ALARM_WITHIN_S, "all WAL is archived")
    caught_up_s = time.monotonic() - back_at
    wait_until(lambda: env.metric("backups", ARCHIVING) == 1, ALARM_WITHIN_S, "the alarm ends")
    verified = repository.verify()
    archived = repository.info().last_wal
    return Outcome(
        f"alarm after {alarm_s:.0f} s; {waiting:.0f} WAL files waited, and were archived "
        f"{caught_up_s:.0f} s after the return ({archived_before} to {archived}), "
        f"{'valid' if verified.is_valid else 'NOT valid: ' + verified.detail}; the oldest fix "
        f"meanwhile {oldest_fix_age_s:.1f} s" + (f"; WRITTEN below: {below}" if below else ""),
        env.wait_healthy(),
        bool(alarm_s)
        and waiting > 0
        and not below
        and verified.is_valid
        and archived != archived_before,
    )


FAULTS = (
    Fault(
        31,
        "the WAL archive unreachable",
        "alarm; commits go on, and the WAL is archived later",
        None,
        quick=False,
        run=archive_unreachable,
        not_here="" if shutil.which("pgbackrest") else "pgbackrest is not installed",
    ),
)
