"""Access to one order: its customer, with the link's token, and staff.

Every bad link (unknown order, forged, expired, revoked, another order's) gets one same 404, with
the same body after the same time, so that an answer does not reveal which orders exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, NoReturn
from uuid import UUID

from doorstep.credentials import token_sha256
from doorstep.errors import BadLink
from doorstep.http.guarded_protocol import note_good_token
from doorstep.http.rate_limit import RateLimiter
from doorstep.http.tokens import FindToken
from doorstep.store.records import Token
from tracking_api.track.visibility import TrackedOrder, TrackLink

COOKIE = "doorstep_track"
COOKIE_MAX_AGE_S = 48 * 3600  # longer than any order plus 24 h, when the token expires
REFUSE_AFTER_S = 0.1  # well above one look-up (1-5 ms), so that its outcome cannot be timed
BAD_LINKS_PER_S = 1.0  # sustained, from one address
NO_ORDER_ID = UUID(int=0)  # read in place of a malformed id, so that every link costs one read
BURST_BAD_LINKS = 60  # a page left open after its order ended polls once a second


ReadTrack = Callable[[TrackLink], Awaitable[TrackedOrder | None]]


class CustomerDoor(NamedTuple):
    """How customers read: by their link, which the database checks."""

    is_good: Callable[[TrackLink], Awaitable[bool | None]]
    read_track: ReadTrack


class StaffDoor(NamedTuple):
    """How staff read: by their token."""

    find_token: FindToken
    read_track: ReadTrack


@dataclass(frozen=True, slots=True)
class Links:
    """Checks customers' links and staff's tokens, and limits bad ones per address.

    A side that this process does not serve is None.
    """

    customers: CustomerDoor | None
    staff: StaffDoor | None
    bad_links: RateLimiter
    note_watched: Callable[[TrackLink], None]

    async def authorize(
        self, order_id: str, token: str | None, address: str, started_s: float | None = None
    ) -> tuple[TrackLink, Token | None]:
        """Check that the token gives access to the order; return how to read it.

        A customer's link has the token's hash. Staff's has none; their token is returned with it.
        `started_s` is when the request came, by the loop's clock, if that was earlier than now.
        Raises BadLink, or TooManyRequests for an address that keeps guessing.
        """
        if started_s is None:
            started_s = asyncio.get_running_loop().time()
        link = TrackLink(parse_order_id(order_id), token_sha256(token or ""))
        if self.customers is not None and await self.customers.is_good(link):
            note_good_token()
            return link, None
        holder = await self._find_staff(link)
        if holder is not None and link.order_id != NO_ORDER_ID:
            return TrackLink(link.order_id), holder
        return await self.refuse(started_s, address)

    async def read_track(
        self, order_id: str, token: str | None, address: str
    ) -> tuple[TrackedOrder, Token | None]:
        """Check the token and read the order: for its customer in one round trip, which
        concurrent requests share.

        Returns staff's token with it. Only a customer's read makes the order a watched one: a
        dispatcher who looks at an order must not cost the courier's battery. Raises like
        `authorize`.
        """
        started_s = asyncio.get_running_loop().time()
        link = TrackLink(parse_order_id(order_id), token_sha256(token or ""))
        if self.customers is not None:
            found = await self.customers.read_track(link)
            if found is not None:
                note_good_token()
                self.note_watched(link)
                return found, None
        holder = await self._find_staff(link)
        if self.staff is not None and holder is not None:
            link = TrackLink(link.order_id)
            found = await self.staff.read_track(link)
            if found is not None:
                return found, holder
        return await self.refuse(started_s, address)

    async def _find_staff(self, link: TrackLink) -> Token | None:
        if self.staff is None:
            return None
        holder = await self.staff.find_token(link.token_sha256 or b"")
        if holder is None or not holder.is_staff():
            return None
        note_good_token()
        return holder

    async def refuse(self, started_s: float, address: str) -> NoReturn:
        """Refuse a bad link when its time has come, and count it against the address."""
        until_s = started_s + REFUSE_AFTER_S
        await asyncio.sleep(max(0.0, until_s - asyncio.get_running_loop().time()))
        self.bad_links.take(address)
        raise BadLink


def parse_order_id(text: str) -> UUID:
    """Return the id, or NO_ORDER_ID for a malformed one."""
    try:
        order_id = UUID(text)
    except ValueError:
        return NO_ORDER_ID
    return order_id if str(order_id) == text.lower() else NO_ORDER_ID
