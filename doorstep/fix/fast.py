"""The fast decoder: msgspec, with a proof that the strict decoder would return the same.

msgspec accepts duplicate keys and skips unknown ones. So its result is used only if the payload has
no backslash (no escaped key or text), no null, and exactly as many colons as known fields plus the
colons in `fix_at`: then there are no other keys. Any other payload goes to the strict decoder.

Many payloads are decoded together. Payloads of one fix each form one JSON array, which must hold as
many objects as payloads and as many `{`, one at the start of each, so that each payload is exactly
one object. Others form an array of arrays, a single fix in added brackets: there must be no
brackets but at the ends of payloads, so that each is exactly one array, and as many arrays as
payloads. A single fix must hold one `{`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Annotated, NamedTuple

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
_decode_fixes = msgspec.json.Decoder(list[_Wire]).decode
_decode_arrays = msgspec.json.Decoder(list[list[_Wire]]).decode
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
    decoded = decode_many([payload])
    return None if decoded is None else [Fix(*values) for values in decoded.values]


class DecodedMany(NamedTuple):
    """The fixes of many payloads in order, and their number in each payload."""

    values: list[FixValues]
    counts: list[int]


def decode_many(payloads: Sequence[bytes]) -> DecodedMany | None:
    """Decode payloads of provably good fixes; None if they must be decoded one by one."""
    kinds = {one[:1] + one[-1:] for one in payloads}
    if kinds == {b"{}"}:
        text = b"[%b]" % b",".join(payloads)
        if text.count(b"{") != len(payloads) or max(map(len, payloads)) > MAX_FIX_BYTES:
            return None
        values = _decode(text, _decode_fixes)
        if values is None or len(values) != len(payloads):
            return None
        return DecodedMany(values, [1] * len(payloads))
    if not kinds or not kinds <= {b"{}", b"[]"}:
        return None
    singles = [one for one in payloads if one.startswith(b"{")]
    if singles:
        if max(map(len, singles)) > MAX_FIX_BYTES or {one.count(b"{") for one in singles} != {1}:
            return None
        payloads = [b"[%b]" % one if one.startswith(b"{") else one for one in payloads]
    text = b"[%b]" % b",".join(payloads)
    if not text.count(b"[") == text.count(b"]") == len(payloads) + 1:
        return None
    if max(map(len, payloads)) > MAX_PAYLOAD_BYTES:
        return None
    counts: list[int] = []

    def decode_arrays(text: bytes) -> list[_Wire]:
        arrays = _decode_arrays(text)
        counts.extend(map(len, arrays))
        return list(chain.from_iterable(arrays))

    values = _decode(text, decode_arrays)
    if values is None or len(counts) != len(payloads) or min(counts) < 1:
        return None
    return DecodedMany(values, counts) if max(counts) <= MAX_FIXES else None


def _decode(text: bytes, decode_wires: Callable[[bytes], list[_Wire]]) -> list[FixValues] | None:
    # msgspec does not distinguish an explicit null from an absent field.
    if b"\\" in text or b"null" in text:
        return None
    try:
        colons = 0
        known_boot: str | None = None
        fixes: list[FixValues] = []
        for wire in decode_wires(text):
            (boot, seq, fix_at, lat_deg, lon_deg, accuracy_m, speed_mps, heading_deg,
             altitude_m, battery) = _values_of(wire)  # fmt: skip
            if boot == known_boot:
                boot = known_boot  # one object, whose hash is computed once
            elif _is_id(boot):
                known_boot = boot
            else:
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
            fixes.append((boot, seq, fix_at, lat_deg, lon_deg, accuracy_m, speed_mps, heading_deg,
                          altitude_m, battery))  # fmt: skip
    except (msgspec.DecodeError, UnicodeDecodeError, MalformedFix):
        return None
    return fixes if _FIELDS * len(fixes) + colons == text.count(b":") else None
