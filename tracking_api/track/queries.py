"""Orders under way in the database, as staff see them. Customers: `customer_queries`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from doorstep.store.deadline import fetch_all
from doorstep.store.pool import Pool
from sql import query
from tracking_api.track.straight_eta import OBSERVED_WITHIN_S
from tracking_api.track.visibility import (
    NO_NOTICES,
    Event,
    Notices,
    OrderPlan,
    OrderPoll,
    Position,
    TrackedOrder,
    TrackLink,
    TrailPoint,
)

SQL_FILE = "queries/track.sql"
TRAIL_POINTS = 80  # 5 min at one fix every 4 s, and a few more


class _Cancellation(msgspec.Struct, frozen=True):
    reason: str | None = None


class _Ends(msgspec.Struct, frozen=True):
    cancellation: _Cancellation | None = None
    failure_reason: str | None = None
    has_photo: bool = False

    @property
    def reason(self) -> str | None:
        return self.cancellation.reason if self.cancellation else self.failure_reason


_NOT_ENDED = _Ends()
_decode_ends = msgspec.json.Decoder(_Ends).decode
_decode_events = msgspec.json.Decoder(list[Event]).decode
_decode_plan = msgspec.json.Decoder(OrderPlan).decode
_decode_notices = msgspec.json.Decoder(Notices).decode
decode_trail = msgspec.json.Decoder(list[TrailPoint]).decode


class TrackReader(Protocol):
    """Orders under way, for the holders of links. Errors are DoorstepErrors.

    A link that may see nothing is left out.
    """

    async def read_tracks(self, links: Sequence[TrackLink]) -> dict[TrackLink, TrackedOrder]: ...

    async def read_polls(self, links: Sequence[TrackLink]) -> dict[TrackLink, OrderPoll]: ...

    async def report_watched(self, links: Sequence[TrackLink]) -> None: ...


@dataclass(frozen=True, slots=True)
class TrackQueries:
    """A TrackReader for staff, whose access the caller has checked, on PostgreSQL."""

    pool: Pool

    async def read_tracks(self, links: Sequence[TrackLink]) -> dict[TrackLink, TrackedOrder]:
        """Read orders in full, with their trails. Unknown ones are left out."""
        parameters = {
            "order_ids": [link.order_id for link in links],
            "trail_s": OBSERVED_WITHIN_S,
            "trail_points": TRAIL_POINTS,
        }
        rows = await fetch_all(self.pool, query("read_tracks", SQL_FILE), parameters)
        return {TrackLink(row[1]): _tracked_order(row) for row in rows}

    async def read_polls(self, links: Sequence[TrackLink]) -> dict[TrackLink, OrderPoll]:
        """Read the newest event number and position of orders. Unknown ones are left out."""
        parameters = {"order_ids": [link.order_id for link in links]}
        rows = await fetch_all(self.pool, query("read_order_polls", SQL_FILE), parameters)
        return {TrackLink(row[1]): poll_of(row) for row in rows}

    async def report_watched(self, links: Sequence[TrackLink]) -> None:
        """Record that these orders are looked at."""
        parameters = {"order_ids": [link.order_id for link in links]}
        await fetch_all(self.pool, query("watch_orders", SQL_FILE), parameters)


def position_of(columns: Sequence[Any]) -> Position | None:
    """Return the position in a row's last columns. None if they are null."""
    return Position(*columns) if columns[0] is not None else None


def poll_of(row: Sequence[Any]) -> OrderPoll:
    """Return the poll in a row: now, order_id, order_seq, driver_id, and the position."""
    now, order_id, order_seq, driver_id = row[:4]
    return OrderPoll(now, order_id, order_seq, driver_id, position_of(row[4:]))


def _tracked_order(row: Sequence[Any]) -> TrackedOrder:
    now, order_id, state, assignment_no, order_seq = row[:5]
    restaurant_name, *places, dwell_min_s, pace = row[5:12]
    driver_id, assigned_at, events, trail, city, ends, notices, plan = row[12:20]
    ended = _decode_ends(ends) if ends is not None else _NOT_ENDED
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
        position=position_of(row[20:]),
        assigned_at=assigned_at,
        driver_id=driver_id,
        pace=pace,
        trail=decode_trail(trail),
        events=_decode_events(events),
        city=city,
        ended_reason=ended.reason,
        has_photo=ended.has_photo,
        plan=_decode_plan(plan),
        notices=_decode_notices(notices) if notices is not None else NO_NOTICES,
    )
