"""What only the customer reads and changes, in memory: a part of MemoryStore."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

from doorstep.errors import BadLink, NoRetry
from tracking_api.push.notifier import Recipient
from tracking_api.track.visibility import TrackLink


class MemoryCustomerPage:
    """The CustomerPageStore."""

    def __init__(self) -> None:
        super().__init__()
        self.door_note: str | None = None
        self.retry_id: UUID | None = None
        self.retry_tokens: set[bytes] = set()
        self.shares: list[bytes] = []
        self.recipients: list[Recipient] = []

    async def read_page(self, link: TrackLink) -> dict[str, Any]:
        self._require(link)
        return {
            "customer_name": None,
            "address": "Via Roma 1",
            "door_note": self.door_note,
            "items": None,
            "promised_from": None,
            "promised_to": None,
            "contact_rule": "none",
            "courier_phone": None,
            "restaurant_phone": None,
            "may_change": True,
            "has_retry": self.retry_id is not None,
            "shared_at": None,
        }

    def _require(self, link: TrackLink) -> None:
        if not self._is_good(link):
            raise BadLink

    def _is_good(self, link: TrackLink) -> bool:
        raise NotImplementedError

    async def change_note(self, link: TrackLink, door_note: str | None) -> None:
        self._require(link)
        self.door_note = door_note

    async def share(self, link: TrackLink, share_sha256: bytes) -> None:
        self._require(link)
        self.shares = [share_sha256]

    async def unshare(self, link: TrackLink) -> None:
        self._require(link)
        self.shares = []

    async def follow_retry(self, link: TrackLink, retry_sha256: bytes) -> UUID:
        self._require(link)
        if self.retry_id is None:
            raise NoRetry
        self.retry_tokens.add(retry_sha256)
        return self.retry_id

    async def subscribe(self, link: TrackLink, recipient: Recipient) -> None:
        self._require(link)
        self.recipients.append(recipient)

    async def unsubscribe(self, link: TrackLink, endpoint_sha256: bytes) -> None:
        self._require(link)
        self.recipients = [
            one
            for one in self.recipients
            if hashlib.sha256(one.endpoint.encode()).digest() != endpoint_sha256
        ]
