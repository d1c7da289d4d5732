"""Metrics of the backup worker."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

LAST_BACKUP_AT = Gauge(
    "doorstep_backup_last_timestamp_seconds", "When the newest backup ended; 0 without one"
)
EVERY_S = Gauge("doorstep_backup_every_seconds", "BACKUP_EVERY_H; 0: not scheduled")
VERIFIED = Gauge("doorstep_backup_verified", "0 if the last verification found a bad file")
VERIFIED.set(1)
ARCHIVING = Gauge(
    "doorstep_backup_archiving",
    "1 while PostgreSQL's WAL goes into the backups; 0 also while that cannot be found out",
)
CHECKED_AT = Gauge("doorstep_backup_checked_timestamp_seconds", "When `archiving` was last set")
LAST_WAL_AT = Gauge(
    "doorstep_backup_last_wal_timestamp_seconds", "When a WAL file was last archived"
)
FAILURES = Counter("doorstep_backup_failures_total", "Backups and verifications that failed")
