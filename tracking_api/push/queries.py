"""Notifications that are due, in the database: sql/schema/57_customer_page.sql."""

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
    """Notifications, each taken by one process at a time. Errors are DoorstepErrors."""

    async def claim(
        self,
        order_ids: Collection[UUID] | None,
        at_most: int,
        at_most_of_order: int,
        lease_s: float,
    ) -> list[Notification]: ...

    async def report(self, notification: Notification, retry_in_s: float | None) -> None: ...

    async def drop_subscription(self, endpoint: str) -> None: ...


@dataclass(frozen=True, slots=True)
class PushQueries:
    """The PushStore on PostgreSQL. Each call commits."""

    pool: Pool

    async def claim(
        self,
        order_ids: Collection[UUID] | None,
        at_most: int,
        at_most_of_order: int,
        lease_s: float,
    ) -> list[Notification]:
        """Take what is due of these orders, or of all.

        A notification is due again after `lease_s` unless it is reported. Of one order at most
        `at_most_of_order` are taken at a time.
        """
        parameters = {
            "order_ids": None if order_ids is None else list(order_ids),
            "at_most": at_most,
            "at_most_of_order": at_most_of_order,
            "lease_s": lease_s,
        }
        rows = await fetch_all(self.pool, query("claim_notifications", SQL_FILE), parameters)
        return [
            Notification(order_id, kind, Recipient(*recipient), owner_sha256, attempt)
            for order_id, kind, *recipient, owner_sha256, attempt in rows
        ]

    async def report(self, notification: Notification, retry_in_s: float | None) -> None:
        """Record the end of an attempt; None: of the notification, too."""
        parameters = {
            "owner_sha256": notification.owner_sha256,
            "endpoint": notification.recipient.endpoint,
            "kind": notification.kind,
            "attempt": notification.attempt,
            "retry_in_s": retry_in_s,
        }
        await fetch_all(self.pool, query("report_notification", SQL_FILE), parameters)

    async def drop_subscription(self, endpoint: str) -> None:
        """Remove an endpoint that is gone."""
        await fetch_all(self.pool, query("drop_subscription", SQL_FILE), {"endpoint": endpoint})
