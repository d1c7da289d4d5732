"""What customers may do and see, by their links: the role `customer` in the database.

Each function takes the token's hash with the order, and decides about every fix itself
(docs/explanation/privacy.md). Nothing else in the process reads for customers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec

from doorstep.photos import Photo
from doorstep.store.deadline import fetch_all, fetch_one
from doorstep.store.pool import Pool
from sql import query
from tracking_api.track.order_details import DetailsCache, OrderDetails, OrderEnds
from tracking_api.track.queries import (
    TrackReader,
    decode_trail,
    poll_of,
    position_of,
)
from tracking_api.track.visibility import (
    NO_NOTICES,
    EstimateKey,
    OrderPoll,
    OtherDelivery,
    Position,
    TrackedOrder,
    TrackLink,
)

SQL_FILE = "queries/customers.sql"
MAX_PAGE_FIXES = 5_000  # of customer_history_v1
UNDER_WAY = ("assigned", "at_restaurant", "picked_up", "arriving", "at_customer")
ROWS_AT_ONCE = 20  # decoded in about 1 ms

_decode_details = msgspec.json.Decoder(OrderDetails).decode

HeldEstimate = Callable[[UUID], EstimateKey | None]


class CancelledOrder(NamedTuple):
    """An order as its customer has left it."""

    order_id: UUID
    state: str
    order_seq: int


class CustomerStore(TrackReader, Protocol):
    """Everything for customers. Errors are DoorstepErrors; a bad link is BadLink or left out.

    `held` returns what the caller's estimate of an order holds for: the trail may be omitted while
    that is the newest.
    """

    async def read_tracks(
        self, links: Sequence[TrackLink], held: HeldEstimate | None = None
    ) -> dict[TrackLink, TrackedOrder]: ...

    async def find_good_links(self, links: Sequence[TrackLink]) -> dict[TrackLink, bool]: ...

    async def read_link_history(
        self, link: TrackLink, from_at: datetime | None, to_at: datetime | None, *, limit: int
    ) -> list[Position]: ...

    async def cancel_by_link(
        self, link: TrackLink, idempotency_key: str | None
    ) -> CancelledOrder: ...

    async def read_photo_by_link(self, link: TrackLink) -> Photo | None: ...


@dataclass(frozen=True, slots=True)
class CustomerQueries:
    """The CustomerStore on PostgreSQL, over a pool of the role `customer`."""

    pool: Pool
    details: DetailsCache = field(default_factory=DetailsCache)

    async def find_good_links(self, links: Sequence[TrackLink]) -> dict[TrackLink, bool]:
        """Find the good ones of these links; others are left out."""
        own, others = query("find_good_links", SQL_FILE), query("find_shared_links", SQL_FILE)
        rows, shared = await self._read(own, others, links)
        return {links[n - 1]: True for (n,) in (*rows, *shared)}

    async def _read(
        self,
        of_own: str,
        of_shared: str,
        links: Sequence[TrackLink],
        further: Mapping[str, Any] = MappingProxyType({}),
    ) -> tuple[list[Any], list[Any]]:
        """Return the rows of customers' own links, and of links that customers share.

        The second statement runs only for links that are not a customer's own.
        """
        rows = await fetch_all(self.pool, of_own, {**_arrays(links), **further})
        if len(rows) == len(links):
            return rows, []
        own = {row[0] - 1 for row in rows}
        others = [TrackLink(one.order_id) if n in own else one for n, one in enumerate(links)]
        return rows, await fetch_all(self.pool, of_shared, {**_arrays(others), **further})

    async def read_tracks(
        self, links: Sequence[TrackLink], held: HeldEstimate | None = None
    ) -> dict[TrackLink, TrackedOrder]:
        """Read the orders of good links. Access and position are read each time.

        With `held`, details may be up to 4 s old, and trails are omitted whose estimate is held.
        """
        kept = [self.details.get(one.order_id) if held is not None else None for one in links]
        known = [held(one.order_id) if held is not None else None for one in links]
        parameters = {
            "known_order_seqs": _array([one and one.details.order_seq for one in kept]),
            "known_stamps": _array(
                [None if not one or one.is_fresh else one.stamp for one in kept]
            ),
            "estimated_order_seqs": _array([one and one.order_seq for one in known]),
            "estimated_fix_ats": _array([one and one.fix_at for one in known]),
        }
        found = {}
        own = query("read_customer_tracks", SQL_FILE)
        others = query("read_shared_tracks", SQL_FILE)
        rows, shared = await self._read(own, others, links, parameters)
        for count, row in enumerate((*rows, *shared)):
            if count % ROWS_AT_ONCE == ROWS_AT_ONCE - 1:
                await asyncio.sleep(0)  # other requests run between parts of many
            n = row[0] - 1
            order_id = links[n].order_id
            current = _decode_details(row[11]) if row[11] is not None else kept[n].details
            if row[13] is not None:
                self.details.put(order_id, current, row[13])
            is_shared = count >= len(rows)
            found[links[n]] = _tracked_order(row, order_id, current, known[n], is_shared)
        return await self._with_waits(found)

    async def _with_waits(
        self, found: dict[TrackLink, TrackedOrder]
    ) -> dict[TrackLink, TrackedOrder]:
        """Add to orders under way without a visible courier why there is none."""
        hidden = [
            link
            for link, order in found.items()
            if order.driver_id is None and order.state in UNDER_WAY
        ]
        own, shared = query("read_customer_waits", SQL_FILE), query("read_shared_waits", SQL_FILE)
        for statement, is_shared in ((own, False), (shared, True)):
            links = [link for link in hidden if found[link].is_shared == is_shared]
            if not links:
                continue
            for n, earliest_at, latest_at in await fetch_all(self.pool, statement, _arrays(links)):
                link = links[n - 1]
                wait = OtherDelivery(earliest_at, latest_at)
                found[link] = replace(found[link], other_delivery=wait)
        return found

    async def read_polls(self, links: Sequence[TrackLink]) -> dict[TrackLink, OrderPoll]:
        """Read the newest event number and the position of good links' orders."""
        own, others = query("read_customer_polls", SQL_FILE), query("read_shared_polls", SQL_FILE)
        rows, shared = await self._read(own, others, links)
        return {links[row[0] - 1]: poll_of(row[1:]) for row in (*rows, *shared)}

    async def report_watched(self, links: Sequence[TrackLink]) -> None:
        """Record that the orders of good links are looked at."""
        await fetch_all(self.pool, query("watch_as_customer", SQL_FILE), _arrays(links))

    async def read_link_history(
        self, link: TrackLink, from_at: datetime | None, to_at: datetime | None, *, limit: int
    ) -> list[Position]:
        """Read the fixes that a link may see, oldest first. Raises BadLink."""
        parameters: dict[str, Any] = {
            "order_id": link.order_id,
            "token_sha256": link.token_sha256,
            "from_at": from_at,
            "to_at": to_at,
            "after_fix_at": None,
            "after_boot": None,
            "after_seq": None,
        }
        found: list[Position] = []
        while len(found) < limit:
            wanted = parameters["limit"] = min(limit - len(found), MAX_PAGE_FIXES)
            statement = query("read_customer_history", SQL_FILE)
            page = await fetch_all(self.pool, statement, parameters)
            found += [Position(*row[:7]) for row in page]
            if len(page) < wanted:
                break
            last = page[-1]
            parameters |= {"after_fix_at": last[0], "after_boot": last[7], "after_seq": last[8]}
        return found

    async def cancel_by_link(self, link: TrackLink, idempotency_key: str | None) -> CancelledOrder:
        """Cancel the order of a link. Raises BadLink, and IllegalTransition after pick-up."""
        parameters = {
            "order_id": link.order_id,
            "token_sha256": link.token_sha256,
            "idempotency_key": idempotency_key,
        }
        row = await fetch_one(self.pool, query("cancel_as_customer", SQL_FILE), parameters)
        assert row is not None  # noqa: S101 - for the type checker
        return CancelledOrder(*row)

    async def read_photo_by_link(self, link: TrackLink) -> Photo | None:
        """Read the photo of a link's order; None without one. Raises BadLink."""
        parameters = {"order_id": link.order_id, "token_sha256": link.token_sha256}
        row = await fetch_one(self.pool, query("read_photo_as_customer", SQL_FILE), parameters)
        return Photo(*row) if row else None


def _arrays(links: Sequence[TrackLink]) -> dict[str, Any]:
    hashes = (link.token_sha256 for link in links)
    return {
        "token_sha256s": _array([f'"\\\\x{one.hex()}"' if one else None for one in hashes]),
        "order_ids": _array([link.order_id for link in links]),
    }


def _array(values: Sequence[object]) -> str:
    """Return an array as PostgreSQL's text: psycopg takes 20 µs to adapt a list."""
    return f"{{{','.join('NULL' if one is None else str(one) for one in values)}}}"


def _tracked_order(
    row: Sequence[Any],
    order_id: UUID,
    details: OrderDetails,
    known: EstimateKey | None,
    is_shared: bool,
) -> TrackedOrder:
    order_seq, trail = row[2], row[12]
    ends = OrderEnds() if is_shared else details.ends
    return TrackedOrder(
        now=row[1],
        order_id=order_id,
        state=details.state,
        assignment_no=details.assignment_no,
        order_seq=order_seq,
        restaurant_name=details.restaurant_name,
        restaurant=(details.restaurant_lon_deg, details.restaurant_lat_deg),
        destination=(details.lon_deg, details.lat_deg),
        dwell_min_s=details.dwell_min_s,
        position=position_of(row[4:11]),
        assigned_at=details.assigned_at,
        driver_id=row[3],
        pace=details.pace,
        trail=decode_trail(trail) if trail is not None else [],
        events=details.events,
        city=details.city,
        pin=ends.pin,
        ended_reason=ends.ended_reason,
        has_photo=ends.photo,
        notices=details.notices or NO_NOTICES,
        is_trail_omitted=known is not None and known == (order_seq, row[4]),
        plan=details.plan,
        is_shared=is_shared,
    )
