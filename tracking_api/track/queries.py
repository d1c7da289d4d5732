"""Orders under way in the database: what a customer's view is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import msgspec

from doorstep.store import commands
from doorstep.store.deadline import fetch_all, run_command
from doorstep.store.pool import Pool
from eta.codec import model_from_json
from eta.model import EtaModel
from sql import query
from tracking_api.track.straight_eta import OBSERVED_WITHIN_S
from tracking_api.track.visibility import (
    Event,
    OrderPoll,
    Position,
    TrackedOrder,
    TrailPoint,
    Window,
)

SQL_FILE = "queries/track.sql"
TRAIL_POINTS = 80  # 5 min at one fix every 4 s, and a few more

_decode_events = msgspec.json.Decoder(list[Event]).decode
_decode_trail = msgspec.json.Decoder(list[TrailPoint]).decode


class TrackStore(Protocol):
    """Orders under way. Errors are DoorstepErrors."""

    async def read_track(self, order_id: UUID, token_sha256: bytes) -> TrackedOrder | None: ...

    async def read_tracks(self, order_ids: Sequence[UUID]) -> dict[UUID, TrackedOrder]: ...

    async def read_polls(self, order_ids: Sequence[UUID]) -> list[OrderPoll]: ...

    async def read_eta_model(self, known_id: int) -> EtaModel | None: ...


@dataclass(frozen=True, slots=True)
class TrackQueries:
    """The TrackStore on PostgreSQL."""

    pool: Pool

    async def read_track(self, order_id: UUID, token_sha256: bytes) -> TrackedOrder | None:
        """Read an order for the holder of a token, in one round trip.

        None unless the token is valid, and staff's or this order's.
        """
        return (await self._read_tracks([order_id], token_sha256)).get(order_id)

    async def read_tracks(self, order_ids: Sequence[UUID]) -> dict[UUID, TrackedOrder]:
        """Read orders to which the caller has checked access. Unknown ones are left out."""
        return await self._read_tracks(order_ids, None)

    async def _read_tracks(
        self, order_ids: Sequence[UUID], token_sha256: bytes | None
    ) -> dict[UUID, TrackedOrder]:
        parameters = {
            "order_ids": list(order_ids),
            "token_sha256": token_sha256,
            "trail_s": OBSERVED_WITHIN_S,
            "trail_points": TRAIL_POINTS,
        }
        rows = await fetch_all(self.pool, query("read_tracks", SQL_FILE), parameters)
        return {row[1]: _tracked_order(row) for row in rows}

    async def read_polls(self, order_ids: Sequence[UUID]) -> list[OrderPoll]:
        """Read what decides whether these orders' drivers may be shown now.

        Unknown orders are left out.
        """
        parameters = {"order_ids": list(order_ids)}
        rows = await fetch_all(self.pool, query("read_order_polls", SQL_FILE), parameters)
        return [
            OrderPoll(
                now,
                order_id,
                order_seq,
                Window(assigned_at, ended_at) if assigned_at else None,
                Position(*newest) if newest[0] else None,
            )
            for now, order_id, order_seq, assigned_at, ended_at, *newest in rows
        ]

    async def read_eta_model(self, known_id: int) -> EtaModel | None:
        """Read the newest ETA model. None if it is the one with this id, or there is none."""
        found = await run_command(self.pool, lambda conn: commands.read_eta_model(conn, known_id))
        return model_from_json(found) if found is not None else None


def _tracked_order(row: Sequence[Any]) -> TrackedOrder:
    now, order_id, state, assignment_no, order_seq = row[:5]
    restaurant_name, *places, dwell_min_s, pace = row[5:12]
    driver_id, assigned_at, ended_at, events, trail = row[12:17]
    newest = row[17:]
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
        window=Window(assigned_at, ended_at) if assigned_at else None,
        newest=Position(*newest) if newest[0] else None,
        driver_id=driver_id,
        pace=pace,
        trail=_decode_trail(trail),
        events=_decode_events(events),
    )
