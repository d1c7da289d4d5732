"""The fast reading of a payload: msgspec, and a proof that strictness would say the same.

msgspec takes the last of two equal keys and skips unknown ones. So its answer counts only when the
payload holds no backslash (no escaped key or text), no null, and exactly as many colons as known
fields were set and colons stand in `fix_at`: then there is no key besides those. Everything else,
right or wrong, goes to the strict path.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from doorstep.errors import MalformedFix
from doorstep.fix.instants import instant_of
from doorstep.fix.strict import RANGES, decode_position_strictly
from doorstep.fix.value import (
    ID_PATTERN,
    MAX_FIX_BYTES,
    MAX_FIXES,
    MAX_PAYLOAD_BYTES,
    MAX_SEQ,
    Decoded,
    Fix,
)


def _number(name: str) -> Meta:
    return Meta(ge=RANGES[name][0], le=RANGES[name][1])


class _Wire(msgspec.Struct, gc=False):
    """A fix as it stands in JSON. Its ranges are the strict path's own."""

    boot: Annotated[str, Meta(pattern=f"^{ID_PATTERN}\\Z")]
    seq: Annotated[int, Meta(ge=1, le=MAX_SEQ)]
    fix_at: int | str
    lat_deg: Annotated[float, _number("lat_deg")]
    lon_deg: Annotated[float, _number("lon_deg")]
    accuracy_m: Annotated[float, _number("accuracy_m")] | None = None
    speed_mps: Annotated[float, _number("speed_mps")] | None = None
    heading_deg: Annotated[float, _number("heading_deg")] | None = None
    altitude_m: Annotated[float, _number("altitude_m")] | None = None
    battery: Annotated[float, _number("battery")] | None = None


_FIELDS = 10
_decode_one = msgspec.json.Decoder(_Wire).decode
_decode_many = msgspec.json.Decoder(list[_Wire]).decode


def decode_position(payload: bytes) -> Decoded:
    """Decode one MQTT payload: a fix, or an array of up to 256.

    Good fixes are kept beside bad ones, which come as Refused. Raises MalformedFix when nothing
    of the payload can be used.
    """
    return decode_position_fast(payload) or decode_position_strictly(payload)


def decode_position_fast(payload: bytes) -> Decoded | None:
    """Decode a payload whose every entry is surely a good fix; None where strictness must judge."""
    # An explicit null would look like an absent field to msgspec.
    if b"\\" in payload or b"null" in payload:
        return None
    try:
        if payload.startswith(b"{") and len(payload) <= MAX_FIX_BYTES:
            wires = [_decode_one(payload)]
        elif payload.startswith(b"[") and len(payload) <= MAX_PAYLOAD_BYTES:
            wires = _decode_many(payload)
            if len(wires) > MAX_FIXES:
                return None
        else:
            return None
        colons = 0
        fixes: Decoded = []
        for wire in wires:
            fix_at = wire.fix_at
            colons += _keys_of(wire)
            if isinstance(fix_at, str):
                colons += fix_at.count(":")
            fixes.append(
                Fix(
                    wire.boot,
                    wire.seq,
                    instant_of(fix_at),
                    wire.lat_deg,
                    wire.lon_deg,
                    wire.accuracy_m,
                    wire.speed_mps,
                    0.0 if wire.heading_deg == 360.0 else wire.heading_deg,
                    wire.altitude_m,
                    wire.battery,
                )
            )
    except (msgspec.DecodeError, UnicodeDecodeError, MalformedFix):
        return None
    return fixes if colons == payload.count(b":") else None


def _keys_of(wire: _Wire) -> int:
    return (
        _FIELDS
        - (wire.accuracy_m is None)
        - (wire.speed_mps is None)
        - (wire.heading_deg is None)
        - (wire.altitude_m is None)
        - (wire.battery is None)
    )
