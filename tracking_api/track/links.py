"""Who may follow an order: its customer, with the link's token, and staff.

Every bad link (unknown order, forged, expired, revoked, another order's) gets one same 404, with
the same body after the same time, so that nobody learns from it which orders exist.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from doorstep.credentials import token_sha256
from doorstep.errors import BadLink
from doorstep.http.rate_limit import RateLimiter
from doorstep.http.tokens import FindToken
from doorstep.store.records import Token

COOKIE = "doorstep_track"
COOKIE_MAX_AGE_S = 48 * 3600  # longer than any order and its 24 h: the token ends by itself
ANSWER_BAD_AFTER_S = 0.1  # well above one look-up (1-5 ms), so that its outcome can't be timed
BAD_LINKS_PER_S = 1.0  # from one address, for long
BURST_BAD_LINKS = 60  # a page left open after its order ended asks once a second


@dataclass(frozen=True, slots=True)
class Links:
    """Checks customers' links."""

    find_token: FindToken
    buckets: RateLimiter

    async def authorize(self, order_id: str, token: str | None, address: str) -> tuple[UUID, Token]:
        """Let the holder of this token follow this order.

        Raises BadLink for anything else, TooManyRequests for an address that keeps guessing.
        """
        started = asyncio.get_running_loop().time()
        holder = await self.find_token(token_sha256(token or ""))
        known_as = _uuid_of(order_id)
        if holder is not None and known_as is not None:
            theirs = holder.role == "customer" and holder.order_id == known_as
            if theirs or holder.role == "staff":
                return known_as, holder
        await self.refuse(started, address)
        raise BadLink

    async def refuse(self, started: float, address: str) -> None:
        """Wait until a bad link may be answered, and count it against the address."""
        until = started + ANSWER_BAD_AFTER_S
        await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))
        self.buckets.take(address)


def _uuid_of(text: str) -> UUID | None:
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None
