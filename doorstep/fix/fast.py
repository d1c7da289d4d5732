"""The fast decoder: msgspec, with a proof that the strict decoder would return the same.

msgspec accepts duplicate keys and skips unknown ones. So its result is used only if the payload has
no backslash (no escaped key or text), no null, and exactly as many colons as known fields plus the
colons in `fix_at`: then there are no other keys. Any other payload goes to the strict decoder.

Payloads of one fix each are decoded together as one JSON array. It must hold as many objects as
payloads and as many `{`, one at the start of each payload, so that each payload is exactly one
object.
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
from doorstep.fix.instants import EXACT_AS_FLOAT_MS, MIN_EPOCH_MS, instant_of
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
    """A fix in JSON, with the ranges of the strict decoder."""

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
# A boot repeats with each fix of a device; the cache halves the cost of matching it.
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
"""The fields of a Fix in order. An object per fix would double the cost of decoding many."""


def decode_position(payload: bytes) -> Decoded:
    """Decode one MQTT payload: a fix, or an array of up to 256.

    Bad entries become Refused and do not affect the others. Raises MalformedFix if the payload has
    no entries at all.
    """
    return decode_position_fast(payload) or decode_position_strictly(payload)


def decode_position_fast(payload: bytes) -> Decoded | None:
    """Decode a payload of provably good fixes only; None if the strict decoder must decide."""
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
    """Decode payloads of provably one good fix each; None if they must be decoded singly."""
    if {one[:1] + one[-1:] for one in payloads} != {b"{}"}:
        return None
    text = b"[%b]" % b",".join(payloads)
    if text.count(b"{") != len(payloads) or max(map(len, payloads)) > MAX_FIX_BYTES:
        return None
    values = _decode_array(text)
    return values if values is not None and len(values) == len(payloads) else None


def _decode_array(text: bytes) -> list[FixValues] | None:
    # msgspec does not distinguish an explicit null from an absent field.
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
            if fix_at.__class__ is int and MIN_EPOCH_MS <= fix_at < EXACT_AS_FLOAT_MS:
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
