"""Answers of GET /track, encoded once per fix and event.

From one fix or event to the next, only the clock changes an answer: the position's age, the seconds
to the arrival, and, rarely, how fresh the position is or whether an estimated instant has passed.
So an answer is kept in parts around these two numbers. A kept answer is used only if everything
that it was made of, but the clock, is equal in the order that was read now: access and visibility
are decided there, for each request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from tracking_api.track.presenters import encode_json, track_etag, track_members
from tracking_api.track.road_eta import EstimateArrival, HeldArrival, seconds_until
from tracking_api.track.visibility import TrackedOrder, age_s, freshness_of

FindArrival = Callable[[UUID], HeldArrival | None]

MAX_BYTES = 16 * 2**20  # some 7,000 answers
KEPT_BYTES = 1_200  # of what an answer was made of
_GAP_BYTES = b"\0"  # which no JSON contains
_GAP = msgspec.Raw(_GAP_BYTES)

# The trail and the clock enter an answer through the estimate alone, which is compared itself.
_NOT_COMPARED = ("now", "trail", "is_trail_omitted")
_basis_of = attrgetter(*(one.name for one in fields(TrackedOrder) if one.name not in _NOT_COMPARED))


class EncodedTrack(NamedTuple):
    """An answer as JSON, and its weak ETag."""

    body: bytes
    etag: str


class _Kept(NamedTuple):
    """An answer without its age, its seconds, and its way ahead, and what it holds for."""

    basis: tuple[Any, ...]
    arrival: HeldArrival
    freshness: str
    until: datetime
    arrives_at: datetime
    parts: list[bytes]
    etag: str

    @property
    def size(self) -> int:
        return KEPT_BYTES + sum(map(len, self.parts))

    def body_at(self, now: datetime, age: float) -> bytes:
        seconds = b"%d" % seconds_until(self.arrives_at, now)
        head, middle, *rest = self.parts
        if len(rest) == 1:
            return b"".join((head, encode_json(age), middle, seconds, rest[0]))
        way = bytes(self.arrival.way or b"")
        return b"".join((head, encode_json(age), middle, seconds, rest[0], way, rest[1]))


class TrackAnswers:
    """Encodes answers, and keeps those with a position and an estimate by road."""

    def __init__(
        self,
        estimate: EstimateArrival,
        find_arrival: FindArrival | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """`find_arrival` returns what `estimate` holds of an order; without it nothing is kept."""
        self._estimate = estimate
        self._find_arrival = find_arrival
        self._max_bytes = max_bytes
        self._bytes = 0
        # by order and view; the one used least recently first
        self._kept: OrderedDict[tuple[UUID, bool], _Kept] = OrderedDict()

    def encode(self, order: TrackedOrder) -> EncodedTrack:
        """Encode an answer, as `track_members` and `track_etag` describe it."""
        kept, position = self._kept.get((order.order_id, order.is_shared)), order.position
        if kept is not None and position is not None and self._find_arrival is not None:
            age = age_s(position.fix_at, order.now)
            if (
                order.now <= kept.until
                and freshness_of(age) == kept.freshness
                and self._find_arrival(order.order_id) is kept.arrival
                and _basis_of(order) == kept.basis
            ):
                self._kept.move_to_end((order.order_id, order.is_shared))
                return EncodedTrack(kept.body_at(order.now, age), kept.etag)
        members = track_members(order, self._estimate)
        answer = EncodedTrack(encode_json(members), track_etag(members))
        self._put(order, self._divided(order, members, answer.etag))
        return answer

    def _put(self, order: TrackedOrder, kept: _Kept | None) -> None:
        old = self._kept.pop((order.order_id, order.is_shared), None)
        self._bytes -= old.size if old is not None else 0
        if kept is None:
            return
        self._kept[order.order_id, order.is_shared] = kept
        self._bytes += kept.size
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.size

    def _divided(self, order: TrackedOrder, members: dict[str, Any], etag: str) -> _Kept | None:
        """Divide an answer where the clock changes it. Changes the members.

        None if the clock changes more: seconds late, an instant that passes, or an estimate that is
        not held.
        """
        arrival = self._find_arrival(order.order_id) if self._find_arrival is not None else None
        position, eta = order.position, members["eta"]
        if (
            arrival is None
            or position is None
            or arrival.key != (order.order_seq, position.fix_at)
            or eta is None
            or eta.get("route") != "road"
            or order.notices.late_after is not None
            or order.now > arrival.ahead_until
        ):
            return None
        freshness = members["position"]["properties"]["freshness"]
        members["position"]["properties"]["age_s"] = eta["seconds"] = _GAP
        if members["route"] is not None:
            members["route"] = _GAP
        return _Kept(
            basis=_basis_of(order),
            arrival=arrival,
            freshness=freshness,
            until=arrival.ahead_until,
            arrives_at=arrival.arrives_at,
            parts=encode_json(members).split(_GAP_BYTES),
            etag=etag,
        )
