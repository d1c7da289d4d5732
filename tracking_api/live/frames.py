"""Frames sent to viewers, each encoded once for all of them. Pure.

    snapshot   the answer of GET /track; its id is its newest event
    order      one event of the order; its id is the event's order_seq
    notice     a message to the customer besides the states (late, nearby); its id as an event's
    position   position and eta, as in the snapshot, and other_delivery_first when that changes or
               is true; no id, since it may be skipped
    resync     the cursor is unusable: a snapshot follows
    end        the last frame, with its `reason`

Over SSE a frame has `id`, `event` and `data`; over a WebSocket it is a JSON text with the members
`id` (if it has one), `type` and `data`.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from operator import itemgetter
from typing import Any, Literal

import msgspec

from doorstep.http.instants import format_instant
from tracking_api.track.presenters import (
    encode_track,
    eta_and_route,
    eta_members,
    position_members,
)
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import Eta, estimate_arrival
from tracking_api.track.visibility import Event, Notice, Position, TrackedOrder

_encode = msgspec.json.Encoder().encode

SSE_LAST_CHUNK = b"0\r\n\r\n"
WS_HEARTBEAT = b"\x89\x00"  # a ping, which browsers answer


class Frame:
    """One frame, encoded on demand for SSE and WebSocket."""

    def __init__(self, kind: str, data: bytes, event_id: int | str | None = None) -> None:
        self._kind = kind.encode()
        self._data = data
        self._id = event_id

    @cached_property
    def sse(self) -> bytes:
        """As a chunk of a text/event-stream."""
        lines = b"event: %b\ndata: %b\n\n" % (self._kind, self._data)
        if self._id is not None:
            lines = b"id: %b\n" % str(self._id).encode() + lines
        return b"%x\r\n%b\r\n" % (len(lines), lines)

    @cached_property
    def ws(self) -> bytes:
        """As a WebSocket's text frame."""
        members = b'"type":"%b","data":%b}' % (self._kind, self._data)
        head = b"{" if self._id is None else b'{"id":%b,' % _encode(self._id)
        return text_frame(head + members)


def sse_retry(retry_ms: int) -> bytes:
    """Return the line, as a chunk, that sets the delay before EventSource reconnects."""
    line = b"retry: %d\n" % retry_ms
    return b"%x\r\n%b\r\n" % (len(line), line)


def sse_heartbeat(retry_ms: int) -> bytes:
    """Return a new delay and a comment, which EventSource ignores, as a chunk."""
    lines = b"retry: %d\n:\n\n" % retry_ms
    return b"%x\r\n%b\r\n" % (len(lines), lines)


def text_frame(payload: bytes) -> bytes:
    """A whole text message in one unmasked frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def snapshot_frame(
    order: TrackedOrder, estimate: EstimateArrival = estimate_arrival, *, with_id: bool
) -> Frame:
    """The answer of GET /track. With an id, the frames that follow start after it."""
    return Frame("snapshot", encode_track(order, estimate), order.order_seq if with_id else None)


def order_frame(
    order: TrackedOrder, event: Event, estimate: EstimateArrival = estimate_arrival
) -> Frame:
    """One event of an order; the newest one with the visible position, ETA and reason of an end."""
    data: dict[str, Any] = {
        "order_id": str(order.order_id),
        "order_seq": event.order_seq,
        "state": event.state,
        "assignment_no": event.assignment_no,
        "source": event.source,
        "occurred_at": format_instant(event.occurred_at),
    }
    if event.order_seq == order.events[-1].order_seq:
        position = order.position
        data["position"] = position_members(position, order.now) if position else None
        data["eta"], data["route"] = eta_and_route(order, estimate)
        data["other_delivery_first"] = order.other_delivery is not None
        data["ended_reason"] = None if order.is_shared else order.ended_reason
    return Frame("order", _encode(data), event.order_seq)


def notice_frame(order: TrackedOrder, notice: Notice) -> Frame:
    """One notice of an order, with both members of the snapshot that it changes."""
    nearby_at = order.notices.nearby_at
    data = {
        "order_id": str(order.order_id),
        "order_seq": notice.order_seq,
        "notice": notice.kind,
        "occurred_at": format_instant(notice.occurred_at),
        "late_by_s": order.late_by_s,
        "nearby_at": format_instant(nearby_at) if nearby_at else None,
    }
    return Frame("notice", _encode(data), notice.order_seq)


def frames_after(
    order: TrackedOrder, after: int, estimate: EstimateArrival = estimate_arrival
) -> list[Frame]:
    """The events and notices of an order after one of them, in their order."""
    frames = [
        (event.order_seq, order_frame(order, event, estimate))
        for event in order.events
        if event.order_seq > after
    ]
    frames += [
        (notice.order_seq, notice_frame(order, notice))
        for notice in order.notices.found
        if notice.order_seq > after
    ]
    return [frame for _, frame in sorted(frames, key=itemgetter(0))]


def position_frame(
    position: Position,
    now: datetime,
    eta: EtaFrames | None,
    route: msgspec.Raw | Literal["same"] | None = "same",
) -> Frame:
    """The driver's position and the ETA; the way ahead if it was computed again."""
    data: dict[str, Any] = {
        "position": position_members(position, now),
        "eta": eta.members(now) if eta else None,
    }
    if route != "same":
        data["route"] = route
    return Frame("position", _encode(data))


def turn_frame(order: TrackedOrder, estimate: EstimateArrival = estimate_arrival) -> Frame:
    """A position frame that also says whether the courier has another delivery first."""
    position = order.position
    eta, route = eta_and_route(order, estimate)
    data = {
        "position": position_members(position, order.now) if position else None,
        "eta": eta,
        "route": route,
        "other_delivery_first": order.other_delivery is not None,
    }
    return Frame("position", _encode(data))


def resync_frame(order_seq: int) -> Frame:
    """Tell a viewer to discard its cursor."""
    return Frame("resync", _encode({"order_seq": order_seq}))


def end_frame(reason: str) -> Frame:
    """The last frame: `delivered`, `cancelled`, `failed`, or `link_ended`."""
    return Frame("end", _encode({"reason": reason}))


class EtaFrames:
    """The members of an estimate, formatted once: only `seconds` differs from frame to frame."""

    __slots__ = ("_arrives_at", "_members")

    def __init__(self, eta: Eta) -> None:
        self._arrives_at = eta.arrives_at
        self._members = eta_members(eta)

    def members(self, now: datetime) -> dict[str, Any]:
        """Return the members as of now. The next call changes them in place."""
        remaining_s = (self._arrives_at - now).total_seconds()
        self._members["seconds"] = max(0, round(remaining_s))
        return self._members
