"""The seam between what is to be told and the way it goes: web push. Pure.

SMS and e-mail go through webhooks: docs/how-to/webhooks.md.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol
from uuid import UUID

Kind = Literal["nearby", "delivered"]
Outcome = Literal["sent", "gone", "failed"]


class Recipient(NamedTuple):
    """A browser's push subscription, and the language of its page."""

    endpoint: str
    p256dh: str
    auth: str
    language: str


class Notification(NamedTuple):
    """One attempt to tell something about an order. `owner_sha256`: of the customer's token."""

    order_id: UUID
    kind: Kind
    recipient: Recipient
    owner_sha256: bytes
    attempt: int  # 1, 2, …


class Notifier(Protocol):
    """A way to reach a customer.

    `gone` says that the recipient will never be reached again, `failed` that a retry may succeed.
    A notification that is sent again replaces the earlier one, so that the customer sees one.
    """

    async def send(self, notification: Notification) -> Outcome: ...

    async def close(self) -> None: ...
