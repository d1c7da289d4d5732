"""What customers may do and see, by their links: the role `customer` in the database.

Each function takes the token's hash with the order, and decides about every fix itself
(docs/explanation/privacy.md). Nothing else in the process reads for customers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from doorstep.store.deadline import fetch_all, fetch_one
from doorstep.store.pool import Pool
from sql import query
from tracking_api.track.queries import TrackReader, poll_of, position_of
from tracking_api.track.visibility import (
    Event,
    OrderPoll,
    Position,
    TrackedOrder,
    TrackLink,
    TrailPoint,
)

SQL_FILE = "queries/customers.sql"
MAX_PAGE_FIXES = 5_000  # of customer_history_v1


class CancelledOrder(NamedTuple):
    """An order as its customer has left it."""

    order_id: UUID
    state: str
    order_seq: int


class CustomerStore(TrackReader, Protocol):
    """Everything for customers. Errors are DoorstepErrors; a bad link is BadLink or left out."""

    async def find_good_links(self, links: Sequence[TrackLink]) -> dict[TrackLink, bool]: ...

    async def read_link_history(
        self, link: TrackLink, from_at: datetime | None, to_at: datetime | None, *, limit: int
    ) -> list[Position]: ...

    async def cancel_by_link(
        self, link: TrackLink, idempotency_key: str | None
    ) -> CancelledOrder: ...


@dataclass(frozen=True, slots=True)
class CustomerQueries:
    """The CustomerStore on PostgreSQL, over a pool of the role `customer`."""

    pool: Pool

    async def find_good_links(self, links: Sequence[TrackLink]) -> dict[TrackLink, bool]:
        """Find the good ones of these links; others are left out."""
        rows = await fetch_all(self.pool, query("find_good_links", SQL_FILE), _arrays(links))
        return {links[n - 1]: True for (n,) in rows}

    async def read_tracks(self, links: Sequence[TrackLink]) -> dict[TrackLink, TrackedOrder]:
        """Read the orders of good links in full."""
        rows = await fetch_all(self.pool, query("read_customer_tracks", SQL_FILE), _arrays(links))
        return {links[row[0] - 1]: _tracked_order(row) for row in rows}

    async def read_polls(self, links: Sequence[TrackLink]) -> dict[TrackLink, OrderPoll]:
        """Read the newest event number and the position of good links' orders."""
        rows = await fetch_all(self.pool, query("read_customer_polls", SQL_FILE), _arrays(links))
        return {links[row[0] - 1]: poll_of(row[1:]) for row in rows}

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


def _arrays(links: Sequence[TrackLink]) -> dict[str, Any]:
    return {
        "token_sha256s": [link.token_sha256 for link in links],
        "order_ids": [link.order_id for link in links],
    }


def _tracked_order(row: Sequence[Any]) -> TrackedOrder:
    _, now, order_id, state, assignment_no, order_seq = row[:6]
    restaurant_name, *places, dwell_min_s, pace, driver_id, assigned_at = row[6:15]
    trail, events = row[22:25], row[25:30]
    return TrackedOrder(
        now=now,
        order_id=order_id,
        state=state,
        assignment_no=assignment_no,
        order_seq=order_seq,
        restaurant_name=restaurant_name,
        restaurant=(places[0], places[1]),
        destination=(places[2], places[3]),
        dwell_min_s=dwell_min_s,
        position=position_of(row[15:22]),
        assigned_at=assigned_at,
        driver_id=driver_id,
        pace=pace,
        trail=[TrailPoint(*one) for one in zip(*trail, strict=True)] if trail[0] else [],
        events=[Event(*one) for one in zip(*events, strict=True)],
    )
