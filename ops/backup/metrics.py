"""Metrics of the backup worker."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

LAST_BACKUP_AT = Gauge(
    "doorstep_backup_last_timestamp_seconds", "When the newest backup ended; 0 without one"
)
EVERY_S = Gauge("doorstep_backup_every_seconds", "BACKUP_EVERY_H; 0: not scheduled")
VERIFIED = Gauge("doorstep_backup_verified", "1 if the last verification found no bad file")
ARCHIVING = Gauge("doorstep_backup_archiving", "0 while PostgreSQL's last WAL file is refused")
LAST_WAL_AT = Gauge(
    "doorstep_backup_last_wal_timestamp_seconds", "When a WAL file was last archived"
)
FAILURES = Counter("doorstep_backup_failures_total", "Backups and verifications that failed")
