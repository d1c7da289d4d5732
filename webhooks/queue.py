"""The queue in the database: sql/schema/58_webhooks.sql. Each call commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from doorstep.store.deadline import fetch_all, fetch_one, is_available
from doorstep.store.pool import Pool
from sql import query
from webhooks.contact import Contact, contact_of

SQL_FILE = "queries/webhooks.sql"


class Delivery(NamedTuple):
    """One attempt to make: an event for a webhook."""

    delivery_id: int
    webhook_id: UUID
    url: str
    secrets: Sequence[str]
    message_id: str
    body: str
    attempt: int
    first_attempt_at: datetime
    contact: Contact | None = None


class Attempt(NamedTuple):
    """How an attempt ended. `status` is None without an answer."""

    status: int | None
    error: str | None = None
    retry_after_s: float | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver has accepted the event."""
        return self.status is not None and 200 <= self.status < 300


class Backlog(NamedTuple):
    """What waits in the queue."""

    pending: int
    oldest_s: float


class Queue(Protocol):
    """The queue: PostgreSQL, or a fake in unit tests. Raises StoreUnavailable."""

    async def claim(self, at_most_each: int, lease_s: float) -> list[Delivery]: ...

    async def report(
        self, delivery: Delivery, attempt: Attempt, retry_in_s: float | None
    ) -> str | None: ...

    async def read_backlog(self) -> Backlog: ...

    async def is_available(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class DatabaseQueue:
    """The Queue on PostgreSQL."""

    pool: Pool

    async def claim(self, at_most_each: int, lease_s: float) -> list[Delivery]:
        """Take due deliveries. They are due again after `lease_s` unless they are reported."""
        parameters = {"at_most_each": at_most_each, "lease_s": lease_s}
        rows = await fetch_all(self.pool, query("claim_deliveries", SQL_FILE), parameters)
        return [Delivery(*row[:-3])._replace(contact=contact_of(*row[-3:])) for row in rows]

    async def report(
        self, delivery: Delivery, attempt: Attempt, retry_in_s: float | None
    ) -> str | None:
        """Record an attempt; return `delivered`, `retried` or `failed`, or None if it is stale."""
        parameters = {
            "delivery_id": delivery.delivery_id,
            "attempt": delivery.attempt,
            "status": attempt.status,
            "error": attempt.error,
            "retry_in_s": retry_in_s,
        }
        row = await fetch_one(self.pool, query("report_delivery", SQL_FILE), parameters)
        return row[0] if row else None

    async def read_backlog(self) -> Backlog:
        """Read how much is pending for webhooks that are on."""
        row = await fetch_one(self.pool, query("read_webhook_backlog", SQL_FILE))
        return Backlog(*row) if row else Backlog(0, 0.0)

    async def is_available(self) -> bool:
        """Return within 2 s whether the database answers."""
        return await is_available(self.pool)
