"""What is written to viewers: each frame encoded once, whoever watches. Pure.

    snapshot   what GET /track answers; its id is the newest event it holds
    order      one event of the order; its id is the event's order_seq
    position   position and eta, as in the snapshot; no id: it may be skipped
    resync     the cursor is of no use: a snapshot follows
    end        the last frame; `reason` says why

Over SSE a frame has `id`, `event` and `data`; over a WebSocket it is a JSON text with the members
`id` (where there is one), `type` and `data`.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from doorstep.http.instants import format_instant
from tracking_api.track.presenters import encode_track, eta_members, position_members
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import Eta, estimate_arrival
from tracking_api.track.visibility import Event, Position, TrackedOrder

_encode = msgspec.json.Encoder().encode

SSE_HEARTBEAT = b"3\r\n:\n\n\r\n"  # a comment: EventSource says nothing of it
SSE_LAST_CHUNK = b"0\r\n\r\n"
WS_HEARTBEAT = b"\x89\x00"  # a ping; a browser answers by itself


class Frame:
    """One frame, ready for every kind of viewer."""

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
    """What GET /track answers. With an id, the frames that follow begin after it."""
    return Frame("snapshot", encode_track(order, estimate), order.order_seq if with_id else None)


def order_frame(
    order: TrackedOrder, event: Event, estimate: EstimateArrival = estimate_arrival
) -> Frame:
    """One event of an order; with the newest, what of the driver may be seen from now on."""
    data: dict[str, Any] = {
        "order_id": str(order.order_id),
        "order_seq": event.order_seq,
        "state": event.state,
        "assignment_no": event.assignment_no,
        "source": event.source,
        "occurred_at": format_instant(event.occurred_at),
    }
    if event.order_seq == order.order_seq:
        eta = estimate(order)
        data["position"] = position_members(order.visible, order.now) if order.visible else None
        data["eta"] = WrittenEta(eta).members(order.now) if eta else None
    return Frame("order", _encode(data), event.order_seq)


def position_frame(spot: Position, now: datetime, eta: WrittenEta | None) -> Frame:
    """Where the driver is, and when they should arrive."""
    data = {
        "position": position_members(spot, now),
        "eta": eta.members(now) if eta else None,
    }
    return Frame("position", _encode(data))


def resync_frame(order_seq: int) -> Frame:
    """Tell a viewer to forget its cursor."""
    return Frame("resync", _encode({"order_seq": order_seq}))


def end_frame(reason: str) -> Frame:
    """The last frame: `delivered`, `cancelled`, `failed`, or `link_ended`."""
    return Frame("end", _encode({"reason": reason}))


class WrittenEta:
    """An estimate whose instants are written once: only `seconds` changes from frame to frame."""

    __slots__ = ("_arrives_at", "_members")

    def __init__(self, eta: Eta) -> None:
        self._arrives_at = eta.arrives_at
        self._members = eta_members(eta)

    def members(self, now: datetime) -> dict[str, Any]:
        """The estimate as it reads now, until it is asked for again."""
        left_s = (self._arrives_at - now).total_seconds()
        self._members["seconds"] = max(0, round(left_s))
        return self._members
