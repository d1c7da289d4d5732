"""OwnTracks' JSON: https://owntracks.org/booklet/tech/json/."""

from __future__ import annotations

from typing import NamedTuple

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
QUIET, MANUAL, SIGNIFICANT, MOVE = -1, 0, 1, 2
MODES = frozenset([QUIET, MANUAL, SIGNIFICANT, MOVE])
FACTORS = {"speed_mps": MPS_PER_KMH, "battery": 0.01}


class OwnTracksMessage(NamedTuple):
    """A message, and the mode in which the app reports: -1 to 2, None if it does not say."""

    found: Fix | Ignored
    mode: int | None


def decode_owntracks(payload: bytes) -> Fix | Ignored:
    """Decode one message without its mode. Raises MalformedFix."""
    return decode_owntracks_message(payload).found


def decode_owntracks_message(payload: bytes) -> OwnTracksMessage:
    """Decode one message. Raises MalformedFix: `encrypted`, or why it is no usable position.

    `tid`, `topic` and every other name in it identify no device: the credential does.
    """
    if not payload:
        return OwnTracksMessage(
            Ignored("empty"), None
        )  # a friend deleted in the app, a retained message cleared
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MalformedFix("too_large", f"{len(payload)} bytes of {MAX_PAYLOAD_BYTES}")
    message = parse_object(payload)
    kind = read_field(message, "_type")
    if kind == "encrypted":
        raise MalformedFix("encrypted", "switch the app's encryption off")
    if kind != "location":
        known = isinstance(kind, str) and kind in OTHER_TYPES
        return OwnTracksMessage(Ignored(kind if known else "other_type"), None)
    message = check_fix(message, DECISIVE)
    fix = nameless_fix(
        seconds_instant(read_field(message, "tst"), "tst"),
        read_place(message, "lat_deg", "lat"),
        read_place(message, "lon_deg", "lon"),
        optional_fields(message, FIELDS, message.duplicates, FACTORS),
    )
    mode = message.get("m")
    is_mode = isinstance(mode, int) and not isinstance(mode, bool) and mode in MODES
    return OwnTracksMessage(fix, mode if is_mode else None)


def mode_command(mode: int) -> dict[str, object]:
    """Return the remote configuration that sets how the app reports."""
    configuration = {"_type": "configuration", "monitoring": mode}
    return {"_type": "cmd", "action": "setConfiguration", "configuration": configuration}
