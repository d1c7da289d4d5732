"""Alerts in the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from doorstep.errors import UnknownAlert
from doorstep.store.deadline import fetch_all, fetch_one
from doorstep.store.pool import Pool
from sql import query

SQL_FILE = "queries/webhooks.sql"


class Alert(NamedTuple):
    """Something that needs a person, and what has become of it."""

    alert_id: int
    kind: str
    order_id: UUID | None
    driver_id: str | None
    webhook_id: UUID | None
    raised_at: datetime
    resolved_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None


class AlertStore(Protocol):
    """Alerts. Errors are DoorstepErrors."""

    async def read_alerts(
        self, *, open_only: bool, limit: int, before: int | None
    ) -> list[Alert]: ...

    async def acknowledge_alert(self, alert_id: int, who: str) -> Alert: ...


@dataclass(frozen=True, slots=True)
class AlertQueries:
    """The AlertStore on PostgreSQL."""

    pool: Pool

    async def read_alerts(self, *, open_only: bool, limit: int, before: int | None) -> list[Alert]:
        """Read alerts, the newest first; those with lower ids than `before`."""
        parameters = {"open": open_only, "limit": limit, "before": before}
        rows = await fetch_all(self.pool, query("read_alerts", SQL_FILE), parameters)
        return [Alert(*row) for row in rows]

    async def acknowledge_alert(self, alert_id: int, who: str) -> Alert:
        """Acknowledge an alert, with an entry in the audit. Raises UnknownAlert."""
        parameters = {"alert_id": alert_id, "who": who}
        row = await fetch_one(self.pool, query("acknowledge_alert", SQL_FILE), parameters)
        if row is None:
            raise UnknownAlert
        return Alert(*row)
