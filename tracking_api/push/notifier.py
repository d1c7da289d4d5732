"""The seam between what is to be told and the way it goes: web push; SMS or e-mail later. Pure."""

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
    """One thing to tell about an order."""

    order_id: UUID
    kind: Kind
    recipient: Recipient


class Notifier(Protocol):
    """A way to reach a customer.

    `gone` says that the recipient will never be reached again, `failed` that a retry may succeed.
    """

    async def send(self, notification: Notification) -> Outcome: ...

    async def close(self) -> None: ...
