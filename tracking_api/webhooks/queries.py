"""Webhooks and their deliveries in the database. Secrets are written here and never read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from psycopg.types.json import Jsonb

from doorstep.errors import StoreUnavailable, UnknownWebhook
from doorstep.store.deadline import fetch_all, fetch_one
from doorstep.store.pool import Pool
from sql import query

SQL_FILE = "queries/webhooks.sql"


class Webhook(NamedTuple):
    """An address that is sent events. `events` is None for all."""

    webhook_id: UUID
    url: str
    description: str
    events: Sequence[str] | None
    is_on: bool
    off_reason: str | None
    off_at: datetime | None
    failing_since: datetime | None
    last_success_at: datetime | None
    created_at: datetime
    created_by: str
    with_contact: bool
    pending: int


class LoggedDelivery(NamedTuple):
    """An event for a webhook, and what has become of it."""

    delivery_id: int
    order_id: UUID
    order_seq: int
    event_type: str
    created_at: datetime
    attempts: int
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    due_at: datetime | None
    ended_at: datetime | None
    outcome: str


class WebhookStore(Protocol):
    """Webhooks and deliveries. Errors are DoorstepErrors."""

    async def read_webhooks(self) -> list[Webhook]: ...

    async def read_webhook(self, webhook_id: UUID) -> Webhook: ...

    async def create_webhook(
        self,
        url: str,
        description: str,
        events: Sequence[str] | None,
        with_contact: bool,
        secret: str,
        who: str,
    ) -> UUID: ...

    async def change_webhook(
        self, webhook_id: UUID, values: Mapping[str, Any], who: str
    ) -> None: ...

    async def rotate_webhook(self, webhook_id: UUID, secret: str, who: str) -> None: ...

    async def delete_webhook(self, webhook_id: UUID, who: str) -> None: ...

    async def read_deliveries(
        self, webhook_id: UUID, *, outcome: str | None, before: int | None, limit: int
    ) -> list[LoggedDelivery]: ...

    async def send_again(self, webhook_id: UUID, delivery_id: int, who: str) -> None: ...


@dataclass(frozen=True, slots=True)
class WebhookQueries:
    """The WebhookStore on PostgreSQL."""

    pool: Pool

    async def read_webhooks(self) -> list[Webhook]:
        """Read all webhooks, the oldest first."""
        return await self._webhooks(None)

    async def read_webhook(self, webhook_id: UUID) -> Webhook:
        """Read one webhook. Raises UnknownWebhook."""
        found = await self._webhooks(webhook_id)
        if not found:
            raise UnknownWebhook
        return found[0]

    async def _webhooks(self, webhook_id: UUID | None) -> list[Webhook]:
        statement = query("read_webhooks", SQL_FILE)
        rows = await fetch_all(self.pool, statement, {"webhook_id": webhook_id})
        return [Webhook(*row) for row in rows]

    async def create_webhook(
        self,
        url: str,
        description: str,
        events: Sequence[str] | None,
        with_contact: bool,
        secret: str,
        who: str,
    ) -> UUID:
        """Add a webhook and return its id. Raises TooManyWebhooks."""
        row = await self._call(
            "create_webhook",
            url=url,
            description=description,
            events=events if events is None else list(events),
            with_contact=with_contact,
            secret=secret,
            who=who,
        )
        if row is None:
            raise StoreUnavailable("the database returned no row")
        created_id: UUID = row[0]
        return created_id

    async def change_webhook(self, webhook_id: UUID, values: Mapping[str, Any], who: str) -> None:
        """Set url, description, events, with_contact or is_on. Raises UnknownWebhook."""
        values = Jsonb(dict(values))  # type: ignore[assignment]
        await self._call("change_webhook", webhook_id=webhook_id, values=values, who=who)

    async def rotate_webhook(self, webhook_id: UUID, secret: str, who: str) -> None:
        """Replace the secret; the old one signs, too, for a day. Raises UnknownWebhook."""
        await self._call("rotate_webhook", webhook_id=webhook_id, secret=secret, who=who)

    async def delete_webhook(self, webhook_id: UUID, who: str) -> None:
        """Delete a webhook with its deliveries. Raises UnknownWebhook.

        It is switched off first: a transaction that queues for it would lock the same rows.
        """
        await self.change_webhook(webhook_id, {"is_on": False}, who)
        await self._call("delete_webhook", webhook_id=webhook_id, who=who)

    async def read_deliveries(
        self, webhook_id: UUID, *, outcome: str | None, before: int | None, limit: int
    ) -> list[LoggedDelivery]:
        """Read deliveries, the newest first; those with lower ids than `before`."""
        parameters = {
            "webhook_id": webhook_id,
            "outcome": outcome,
            "before": before,
            "limit": limit,
        }
        rows = await fetch_all(self.pool, query("read_deliveries", SQL_FILE), parameters)
        return [LoggedDelivery(*row) for row in rows]

    async def send_again(self, webhook_id: UUID, delivery_id: int, who: str) -> None:
        """Make a delivery due now. Raises UnknownDelivery."""
        await self._call(
            "send_webhook_again", webhook_id=webhook_id, delivery_id=delivery_id, who=who
        )

    async def _call(self, name: str, **parameters: Any) -> tuple[Any, ...] | None:
        return await fetch_one(self.pool, query(name, SQL_FILE), parameters)
