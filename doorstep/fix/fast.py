"""The fast reading of a payload: msgspec, and a proof that strictness would say the same.

msgspec takes the last of two equal keys and skips unknown ones. So its answer counts only when the
payload holds no backslash (no escaped key or text), no null, and exactly as many colons as known
fields were set and colons stand in `fix_at`: then there is no key besides those. Everything else,
right or wrong, goes to the strict path.

Payloads of one fix each are read many at once, as one JSON array. It holds as many objects as
payloads and as many `{`, one at the beginning of each payload: so each payload is one object, and
none has borrowed a part of another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from doorstep.errors import MalformedFix
from doorstep.fix.instants import EXACT_AS_FLOAT_MS, LEAST_EPOCH_MS, instant_of
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

    boot: str
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
_decode_many = msgspec.json.Decoder(list[_Wire]).decode
_values_of = msgspec.structs.astuple
_from_timestamp = datetime.fromtimestamp
# A device's boot comes again with each of its fixes: half the cost of matching it each time.
_is_id = lru_cache(maxsize=262_144)(re.compile(ID_PATTERN).fullmatch)


FixValues = tuple[
    str,
    int,
    datetime,
    float,
    float,
    float | None,
    float | None,
    float | None,
    float | None,
    float | None,
]
"""The fields of a Fix, in its order: an object for each would double the cost of reading many."""


def decode_position(payload: bytes) -> Decoded:
    """Decode one MQTT payload: a fix, or an array of up to 256.

    Good fixes are kept beside bad ones, which come as Refused. Raises MalformedFix when nothing
    of the payload can be used.
    """
    return decode_position_fast(payload) or decode_position_strictly(payload)


def decode_position_fast(payload: bytes) -> Decoded | None:
    """Decode a payload whose every entry is surely a good fix; None where strictness must judge."""
    if payload.startswith(b"{") and len(payload) <= MAX_FIX_BYTES:
        values = _decode_array(b"[%b]" % payload)
    elif payload.startswith(b"[") and len(payload) <= MAX_PAYLOAD_BYTES:
        values = _decode_array(payload)
    else:
        return None
    if values is None or len(values) > MAX_FIXES:
        return None
    return [Fix(*one) for one in values]


def decode_singles(payloads: Sequence[bytes]) -> list[FixValues] | None:
    """Decode payloads that each are surely one good fix; None where they must be read singly."""
    if {one[:1] + one[-1:] for one in payloads} != {b"{}"}:
        return None
    text = b"[%b]" % b",".join(payloads)
    if text.count(b"{") != len(payloads) or max(map(len, payloads)) > MAX_FIX_BYTES:
        return None
    values = _decode_array(text)
    return values if values is not None and len(values) == len(payloads) else None


def _decode_array(text: bytes) -> list[FixValues] | None:
    # An explicit null would look like an absent field to msgspec.
    if b"\\" in text or b"null" in text:
        return None
    try:
        wires = _decode_many(text)
        colons = 0
        fixes: list[FixValues] = []
        for wire in wires:
            (boot, seq, fix_at, lat_deg, lon_deg, accuracy_m, speed_mps, heading_deg,
             altitude_m, battery) = _values_of(wire)  # fmt: skip
            if not _is_id(boot):
                return None
            if fix_at.__class__ is int and LEAST_EPOCH_MS <= fix_at < EXACT_AS_FLOAT_MS:
                fix_at = _from_timestamp(fix_at / 1000, UTC)  # as instant_of does
            else:
                if fix_at.__class__ is str:
                    colons += fix_at.count(":")
                fix_at = instant_of(fix_at)
            if accuracy_m is None:
                colons -= 1
            if speed_mps is None:
                colons -= 1
            if heading_deg is None:
                colons -= 1
            elif heading_deg == 360.0:
                heading_deg = 0.0
            if altitude_m is None:
                colons -= 1
            if battery is None:
                colons -= 1
            fixes.append(
                (
                    boot,
                    seq,
                    fix_at,
                    lat_deg,
                    lon_deg,
                    accuracy_m,
                    speed_mps,
                    heading_deg,
                    altitude_m,
                    battery,
                )
            )
    except (msgspec.DecodeError, UnicodeDecodeError, MalformedFix):
        return None
    return fixes if _FIELDS * len(fixes) + colons == text.count(b":") else None
