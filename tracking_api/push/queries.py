"""Notifications that are due, in the database."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from doorstep.store.deadline import fetch_all
from doorstep.store.pool import Pool
from sql import query
from tracking_api.push.notifier import Notification, Recipient

SQL_FILE = "queries/customer_page.sql"


class PushStore(Protocol):
    """Notifications, each taken by one process once. Errors are DoorstepErrors."""

    async def take_due(self, order_ids: Collection[UUID] | None) -> list[Notification]: ...

    async def drop_subscription(self, endpoint: str) -> None: ...


@dataclass(frozen=True, slots=True)
class PushQueries:
    """The PushStore on PostgreSQL."""

    pool: Pool

    async def take_due(self, order_ids: Collection[UUID] | None) -> list[Notification]:
        """Take what is due of these orders, or of all."""
        parameters = {"order_ids": None if order_ids is None else list(order_ids)}
        rows = await fetch_all(self.pool, query("take_due_notifications", SQL_FILE), parameters)
        return [Notification(order_id, kind, Recipient(*rest)) for order_id, kind, *rest in rows]

    async def drop_subscription(self, endpoint: str) -> None:
        """Remove an endpoint that is gone."""
        await fetch_all(self.pool, query("drop_subscription", SQL_FILE), {"endpoint": endpoint})
