"""The members of answers, as track/schemas.py describes them, from records. Pure.

Answers and frames are built as dicts and encoded once with msgspec: on hot paths this costs a
fifth of pydantic models. Instants are RFC 3339 texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from doorstep.http.instants import format_instant
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import Eta, estimate_arrival
from tracking_api.track.visibility import Position, TrackedOrder, age_s, freshness_of

encode_json = msgspec.json.Encoder().encode


def position_members(position: Position, now: datetime) -> dict[str, Any]:
    """Return a PositionFeature: a position as a GeoJSON feature, with its age."""
    age = age_s(position.fix_at, now)
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [position.lon_deg, position.lat_deg]},
        "properties": {
            "fix_at": format_instant(position.fix_at),
            "received_at": format_instant(position.received_at),
            "accuracy_m": position.accuracy_m,
            "speed_mps": position.speed_mps,
            "heading_deg": position.heading_deg,
            "age_s": age,
            "freshness": freshness_of(age),
        },
    }


def eta_members(eta: Eta) -> dict[str, Any]:
    """Return an EtaAnswer."""
    return {
        "arrives_at": format_instant(eta.arrives_at),
        "p10_at": format_instant(eta.p10_at),
        "p90_at": format_instant(eta.p90_at),
        "as_of": format_instant(eta.as_of),
        "seconds": eta.seconds,
        "distance_m": eta.distance_m,
        "speed_mps": eta.speed_mps,
        "route": eta.route,
        "speeds": eta.speeds,
        "basis": eta.basis,
    }


def eta_and_route(
    order: TrackedOrder, estimate: EstimateArrival = estimate_arrival
) -> tuple[dict[str, Any] | None, msgspec.Raw | None]:
    """Return an EtaAnswer and the way ahead that it is of.

    A CoarseEta without a way while the courier has another delivery first. None without either.
    """
    if order.other_delivery is None:
        eta = estimate(order)
        return (eta_members(eta) if eta else None), None if order.is_shared else way_of(eta)
    earliest_at, latest_at = order.other_delivery.earliest_at, order.other_delivery.latest_at
    if earliest_at is None or latest_at is None:
        return None, None
    coarse = {
        "earliest_at": format_instant(earliest_at),
        "latest_at": format_instant(latest_at),
    }
    return coarse, None


def track_members(
    order: TrackedOrder, estimate: EstimateArrival = estimate_arrival
) -> dict[str, Any]:
    """Return a TrackAnswer, with the position and the estimate only where they may be shown."""
    position = order.position
    nearby_at = order.notices.nearby_at
    eta, route = eta_and_route(order, estimate)
    members = {
        "order_id": order.order_id,
        "state": order.state,
        "assignment_no": order.assignment_no,
        "order_seq": order.order_seq,
        "city": order.city,
        "late_by_s": order.late_by_s,
        "nearby_at": format_instant(nearby_at) if nearby_at else None,
        "position": position_members(position, order.now) if position else None,
        "eta": eta,
        "route": route,
        "other_delivery_first": order.other_delivery is not None,
        "restaurant": {
            "lon_deg": order.restaurant[0],
            "lat_deg": order.restaurant[1],
            "name": order.restaurant_name,
        },
        "destination": {"lon_deg": order.destination[0], "lat_deg": order.destination[1]},
        "events": [
            {
                "order_seq": event.order_seq,
                "state": event.state,
                "source": event.source,
                "occurred_at": format_instant(event.occurred_at),
            }
            for event in order.events
        ],
        "is_shared": False,
        "pin": order.pin,
        "ended_reason": order.ended_reason,
        "photo": order.has_photo,
    }
    return shared_members(members) if order.is_shared else members


def way_of(eta: Eta | None) -> msgspec.Raw | None:
    """Return the way ahead as an encoded GeoJSON line. None in a straight line, or without it."""
    return eta.way if eta is not None else None


# What a link that a customer shares shows of an order: neither its door, nor the way to it.
SHARED_MEMBERS = (
    "order_id", "state", "assignment_no", "order_seq", "city", "position", "eta", "events",
    "late_by_s", "nearby_at", "other_delivery_first",
)  # fmt: skip


def shared_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that a shared link shows. Others, new ones included, are left out."""
    shown = {name: members[name] for name in SHARED_MEMBERS if name in members}
    return {**shown, "route": None, "restaurant": None, "destination": None, "is_shared": True}


def track_etag(members: Mapping[str, Any]) -> str:
    """Return the weak ETag of a TrackAnswer's members: of all but what only the clock changes.

    Those are the position's age (not its freshness), the seconds left, and the seconds late but
    for the minute.
    """
    position, eta = members["position"], members["eta"]
    properties = position and {**position["properties"], "age_s": None}
    late_by_s = members["late_by_s"]
    stable = {
        **members,
        "late_by_s": late_by_s and late_by_s // 60,
        "position": position and [position["geometry"], properties],
        "eta": eta and {**eta, "seconds": None},
    }
    return f'W/"{blake2b(encode_json(stable), digest_size=12).hexdigest()}"'


def encode_track(order: TrackedOrder, estimate: EstimateArrival = estimate_arrival) -> bytes:
    """Encode a TrackAnswer as JSON."""
    return encode_json(track_members(order, estimate))
