"""What only the customer of an order reads and changes, as the role `customer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import msgspec

from doorstep.errors import NoRetry
from doorstep.store.deadline import fetch_one
from doorstep.store.pool import Pool
from sql import query
from tracking_api.push.notifier import Recipient
from tracking_api.track.visibility import TrackLink

SQL_FILE = "queries/customer_page.sql"
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class CustomerPageStore(Protocol):
    """For the customer's own link. Errors are DoorstepErrors; BadLink for any other link."""

    async def read_page(self, link: TrackLink) -> dict[str, Any]: ...

    async def change_note(self, link: TrackLink, door_note: str | None) -> None: ...

    async def share(self, link: TrackLink, share_sha256: bytes) -> None: ...

    async def unshare(self, link: TrackLink) -> None: ...

    async def follow_retry(self, link: TrackLink, retry_sha256: bytes) -> UUID: ...

    async def subscribe(self, link: TrackLink, recipient: Recipient) -> None: ...

    async def unsubscribe(self, link: TrackLink, endpoint_sha256: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class CustomerPageQueries:
    """The CustomerPageStore on PostgreSQL, over a pool of the role `customer`."""

    pool: Pool

    async def read_page(self, link: TrackLink) -> dict[str, Any]:
        """Read what a PageAnswer shows."""
        row = await self._run("read_page", link)
        return _decode(row[0])

    async def change_note(self, link: TrackLink, door_note: str | None) -> None:
        """Change the note for the courier. Raises IllegalTransition after pick-up."""
        await self._run("change_note", link, door_note=door_note)

    async def share(self, link: TrackLink, share_sha256: bytes) -> None:
        """Make a link to share; an earlier one ends."""
        await self._run("share", link, share_sha256=share_sha256)

    async def unshare(self, link: TrackLink) -> None:
        """Withdraw the link that is shared."""
        await self._run("unshare", link)

    async def follow_retry(self, link: TrackLink, retry_sha256: bytes) -> UUID:
        """Let a token lead to the order that tries this one again. Raises NoRetry."""
        order_id: UUID | None = (await self._run("follow_retry", link, retry_sha256=retry_sha256))[
            0
        ]
        if order_id is None:
            raise NoRetry
        return order_id

    async def subscribe(self, link: TrackLink, recipient: Recipient) -> None:
        """Keep a push subscription until the order ends."""
        await self._run("subscribe", link, **recipient._asdict())

    async def unsubscribe(self, link: TrackLink, endpoint_sha256: bytes) -> None:
        """Remove a push subscription."""
        await self._run("unsubscribe", link, endpoint_sha256=endpoint_sha256)

    async def _run(self, name: str, link: TrackLink, **further: Any) -> tuple[Any, ...]:
        parameters = {"token_sha256": link.token_sha256, "order_id": link.order_id, **further}
        row = await fetch_one(self.pool, query(name, SQL_FILE), parameters)
        assert row is not None  # noqa: S101 - for the type checker
        return row
