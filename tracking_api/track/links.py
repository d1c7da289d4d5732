"""Access to one order: its customer, with the link's token, and staff.

Every bad link (unknown order, forged, expired, revoked, another order's) gets one same 404, with
the same body after the same time, so that an answer does not reveal which orders exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn
from uuid import UUID

from doorstep.credentials import token_sha256
from doorstep.errors import BadLink
from doorstep.http.rate_limit import RateLimiter
from doorstep.http.tokens import FindToken
from doorstep.store.records import Token
from tracking_api.track.queries import TrackReader
from tracking_api.track.visibility import TrackedOrder, TrackLink

COOKIE = "doorstep_track"
COOKIE_MAX_AGE_S = 48 * 3600  # longer than any order plus 24 h, when the token expires
REFUSE_AFTER_S = 0.1  # well above one look-up (1-5 ms), so that its outcome cannot be timed
BAD_LINKS_PER_S = 1.0  # sustained, from one address
NO_ORDER_ID = UUID(int=0)  # read in place of a malformed id, so that every link costs one read
BURST_BAD_LINKS = 60  # a page left open after its order ended polls once a second


@dataclass(frozen=True, slots=True)
class Links:
    """Checks customers' links, and limits bad ones per address."""

    find_token: FindToken
    customers: TrackReader
    staff: TrackReader
    bad_links: RateLimiter
    note_watched: Callable[[TrackLink], None]

    async def authorize(
        self, order_id: str, token: str | None, address: str
    ) -> tuple[TrackLink, Token]:
        """Check that the token gives access to the order; return how to read it, and the token.

        A customer's link has the token's hash, staff's has none. Raises BadLink, or
        TooManyRequests for an address that keeps guessing.
        """
        started_s = asyncio.get_running_loop().time()
        sha256 = token_sha256(token or "")
        holder = await self.find_token(sha256)
        parsed_id = _parse_order_id(order_id)
        if holder is not None and parsed_id is not None:
            if holder.is_staff():
                return TrackLink(parsed_id), holder
            if holder.role == "customer" and holder.order_id == parsed_id:
                return TrackLink(parsed_id, sha256), holder
        return await self.refuse(started_s, address)

    async def read_track(self, order_id: str, token: str | None, address: str) -> TrackedOrder:
        """Check the token and read the order: for its customer in one round trip.

        Raises like `authorize`.
        """
        started_s = asyncio.get_running_loop().time()
        parsed_id = _parse_order_id(order_id) or NO_ORDER_ID
        link = TrackLink(parsed_id, token_sha256(token or ""))
        found = await self.customers.read_tracks([link])
        if not found and await self._is_staff(link):
            link = TrackLink(parsed_id)
            found = await self.staff.read_tracks([link])
        if link in found:
            self.note_watched(link)
            return found[link]
        return await self.refuse(started_s, address)

    async def _is_staff(self, link: TrackLink) -> bool:
        holder = await self.find_token(link.token_sha256 or b"")
        return holder is not None and holder.is_staff()

    async def refuse(self, started_s: float, address: str) -> NoReturn:
        """Refuse a bad link when its time has come, and count it against the address."""
        until_s = started_s + REFUSE_AFTER_S
        await asyncio.sleep(max(0.0, until_s - asyncio.get_running_loop().time()))
        self.bad_links.take(address)
        raise BadLink


def _parse_order_id(text: str) -> UUID | None:
    try:
        order_id = UUID(text)
    except ValueError:
        return None
    return order_id if str(order_id) == text.lower() else None
