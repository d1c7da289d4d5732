"""OwnTracks' JSON: https://owntracks.org/booklet/tech/json/."""

from __future__ import annotations

from doorstep.errors import MalformedFix
from doorstep.fix import MAX_PAYLOAD_BYTES, Fix
from doorstep.fix.strict import check_fix, read_field, read_place
from doorstep.phones.entries import (
    Ignored,
    nameless_fix,
    optional_fields,
    parse_object,
    seconds_instant,
)

MPS_PER_KMH = 1 / 3.6
DECISIVE = frozenset({"_type", "tst", "lat", "lon"})
# Messages that are no positions. `dump` may hold a password.
OTHER_TYPES = frozenset(
    [
        "beacon",
        "card",
        "cmd",
        "configuration",
        "dump",
        "lwt",
        "request",
        "status",
        "steps",
        "transition",
        "waypoint",
        "waypoints",
    ]
)
FIELDS = {
    "accuracy_m": "acc",
    "speed_mps": "vel",
    "heading_deg": "cog",
    "altitude_m": "alt",
    "battery": "batt",
}
FACTORS = {"speed_mps": MPS_PER_KMH, "battery": 0.01}


def decode_owntracks(payload: bytes) -> Fix | Ignored:
    """Decode one message. Raises MalformedFix: `encrypted`, or why it is no usable position.

    `tid`, `topic` and every other name in it identify no device: the credential does.
    """
    if not payload:
        return Ignored("empty")  # a friend deleted in the app, a retained message cleared
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MalformedFix("too_large", f"{len(payload)} bytes of {MAX_PAYLOAD_BYTES}")
    message = parse_object(payload)
    kind = read_field(message, "_type")
    if kind == "encrypted":
        raise MalformedFix("encrypted", "switch the app's encryption off")
    if kind != "location":
        return Ignored(kind if isinstance(kind, str) and kind in OTHER_TYPES else "other_type")
    message = check_fix(message, DECISIVE)
    return nameless_fix(
        seconds_instant(read_field(message, "tst"), "tst"),
        read_place(message, "lat_deg", "lat"),
        read_place(message, "lon_deg", "lon"),
        optional_fields(message, FIELDS, message.duplicates, FACTORS),
    )
