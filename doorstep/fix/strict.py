"""The strict reading of a payload, which says what is wrong with it.

This is the contract's meaning, written to be read. The fast path (`fast.py`) may only accept what
this accepts, with the same result; what it can't vouch for comes here.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from doorstep.errors import MalformedFix
from doorstep.fix.instants import instant_of
from doorstep.fix.nesting import MAX_NESTING, is_nested_too_deep
from doorstep.fix.value import (
    ID_PATTERN,
    MAX_FIX_BYTES,
    MAX_FIXES,
    MAX_PAYLOAD_BYTES,
    MAX_SEQ,
    Decoded,
    Fix,
    Refused,
)

MAX_NUMBER_DIGITS = 40  # 2^62 has 19; below CPython's limit of 4300, which raises on its own
MAX_DEPTH = 32  # of one fix; ours is 1, the rest is left for unknown fields

RANGES: Mapping[str, tuple[float, float, str]] = {
    "lat_deg": (-90.0, 90.0, "latitude_out_of_range"),
    "lon_deg": (-180.0, 180.0, "longitude_out_of_range"),
    "accuracy_m": (0.0, 1e6, "accuracy_out_of_range"),
    "speed_mps": (0.0, 500.0, "speed_out_of_range"),
    "heading_deg": (0.0, 360.0, "heading_out_of_range"),
    "altitude_m": (-1000.0, 20_000.0, "altitude_out_of_range"),
    "battery": (0.0, 1.0, "battery_out_of_range"),
}
OPTIONAL = ("accuracy_m", "speed_mps", "heading_deg", "altitude_m", "battery")

_ID = re.compile(ID_PATTERN)
_SURROGATE_OR_NUL = re.compile("[\ud800-\udfff\0]")


class _Flaw:
    """Stands where the JSON text held something that the contract refuses."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail


class StrictObject(dict[str, Any]):
    """A JSON object that remembers which of its keys came twice."""

    doubled: frozenset[str] = frozenset()


def decode_position_strictly(payload: bytes) -> Decoded:
    """Decode one MQTT payload: a fix, or an array of up to 256.

    Raises MalformedFix when nothing of it can be used.
    """
    value = parse_strictly(payload)
    if isinstance(value, list):
        return _read_entries(value, identity_required=True)
    if not isinstance(value, StrictObject):
        raise MalformedFix("wrong_shape", "neither an object nor an array")
    if len(payload) > MAX_FIX_BYTES:
        boot, seq = _identity(value)
        detail = f"{len(payload)} bytes; one fix may have {MAX_FIX_BYTES}"
        return [Refused(0, boot, seq, "too_large", detail)]
    return _read_entries([value], identity_required=True)


def decode_fix(payload: bytes) -> Fix:
    """Decode one JSON object as a fix, `boot` and `seq` both there or both absent.

    Raises MalformedFix; never returns a partial fix.
    """
    value = parse_strictly(payload)
    if not isinstance(value, StrictObject):
        raise MalformedFix("wrong_shape", "not an object")
    if len(payload) > MAX_FIX_BYTES:
        raise MalformedFix("too_large", f"{len(payload)} bytes; one fix may have {MAX_FIX_BYTES}")
    return _read_fix(value, identity_required=False)


def decode_fixes(payload: bytes) -> Decoded:
    """Decode `{"fixes": [fix, …]}`, each with or without an identity.

    Raises MalformedFix when nothing of it can be used.
    """
    value = parse_strictly(payload)
    if not isinstance(value, StrictObject):
        raise MalformedFix("wrong_shape", "not an object")
    if "fixes" in value.doubled:
        raise MalformedFix("duplicate_key", "fixes")
    if "fixes" not in value:
        raise MalformedFix("missing_field", "fixes")
    if not isinstance(value["fixes"], list):
        raise MalformedFix("wrong_type", "fixes must be an array")
    return _read_entries(value["fixes"], identity_required=False)


def parse_strictly(payload: bytes) -> Any:
    """Parse JSON; what the contract refuses inside it is left for `refuse_flaws`.

    Raises MalformedFix for what is no JSON at all.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MalformedFix("too_large", f"{len(payload)} bytes of {MAX_PAYLOAD_BYTES}")
    if not payload:
        raise MalformedFix("empty", "no bytes at all")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedFix("not_utf8", f"byte {exc.start}") from exc
    if is_nested_too_deep(text):
        raise MalformedFix("too_deep", f"more than {MAX_NESTING} levels")
    try:
        return json.loads(
            text,
            object_pairs_hook=_object_of,
            parse_int=_int_of,
            parse_float=_float_of,
            parse_constant=lambda name: _Flaw("not_finite", name),
        )
    except json.JSONDecodeError as exc:
        raise MalformedFix("not_json", f"{exc.msg} at {exc.pos}") from exc


def _object_of(pairs: list[tuple[str, Any]]) -> StrictObject:
    value = StrictObject(pairs)
    if len(value) != len(pairs):
        times = Counter(key for key, _ in pairs)
        value.doubled = frozenset(key for key, count in times.items() if count > 1)
    return value


def _int_of(digits: str) -> int | _Flaw:
    if len(digits) > MAX_NUMBER_DIGITS:
        return _Flaw("number_too_long", f"{len(digits)} digits")
    return int(digits)


def _float_of(digits: str) -> float | _Flaw:
    value = float(digits)
    return value if math.isfinite(value) else _Flaw("not_finite", digits[:MAX_NUMBER_DIGITS])


def _read_entries(entries: list[Any], *, identity_required: bool) -> Decoded:
    if not entries:
        raise MalformedFix("empty", "no fixes")
    if len(entries) > MAX_FIXES:
        raise MalformedFix("too_many_fixes", f"{len(entries)} of {MAX_FIXES}")
    decoded: Decoded = []
    for n, entry in enumerate(entries):
        try:
            decoded.append(_read_fix(entry, identity_required=identity_required))
        except MalformedFix as exc:
            boot, seq = _identity(entry)
            decoded.append(Refused(n, boot, seq, exc.reason, exc.detail))
    return decoded


def _read_fix(entry: Any, *, identity_required: bool) -> Fix:
    if not isinstance(entry, StrictObject):
        raise MalformedFix("wrong_shape", "a fix is a JSON object")
    refuse_flaws(entry, MAX_DEPTH)
    boot, seq = None, None
    if identity_required or "boot" in entry or "seq" in entry:
        boot, seq = _read_boot(entry), _read_seq(entry)
    if "void" in entry:
        if entry["void"] is not True or boot is None:
            raise MalformedFix("wrong_type", "void is true, with boot and seq, or absent")
        raise MalformedFix("void", "closed by the device")
    fix_at = read_field(entry, "fix_at")
    if isinstance(fix_at, bool) or not isinstance(fix_at, int | str):
        raise MalformedFix("wrong_type", "fix_at must be a string or a whole number")
    return Fix(
        boot,
        seq,
        instant_of(fix_at),
        _read_number(entry, "lat_deg"),
        _read_number(entry, "lon_deg"),
        **{name: _read_number(entry, name) for name in OPTIONAL if name in entry},
    )


def refuse_flaws(value: Any, depth_left: int) -> None:
    """Raise MalformedFix for the first flaw in a value, whichever field it stands in."""
    if isinstance(value, _Flaw):
        raise MalformedFix(value.reason, value.detail)
    if isinstance(value, str):
        if _SURROGATE_OR_NUL.search(value):
            raise MalformedFix("bad_text", "U+0000 or a lone surrogate")
    elif isinstance(value, StrictObject | list):
        if depth_left == 0:
            raise MalformedFix("too_deep", f"more than {MAX_DEPTH} levels")
        if isinstance(value, StrictObject):
            for key in value:
                refuse_flaws(key, depth_left)
            if value.doubled:
                raise MalformedFix("duplicate_key", ", ".join(sorted(value.doubled))[:100])
        for inner in value.values() if isinstance(value, StrictObject) else value:
            refuse_flaws(inner, depth_left - 1)


def read_field(entry: StrictObject, name: str) -> Any:
    """Read a required field. Raises MalformedFix."""
    if name not in entry:
        raise MalformedFix("missing_field", name)
    return entry[name]


def _read_boot(entry: StrictObject) -> str:
    boot = read_field(entry, "boot")
    if not isinstance(boot, str):
        raise MalformedFix("wrong_type", "boot must be a string")
    if not _ID.fullmatch(boot):
        raise MalformedFix("bad_id", f"boot must match {ID_PATTERN}")
    return boot


def _read_seq(entry: StrictObject) -> int:
    seq = read_field(entry, "seq")
    if isinstance(seq, bool) or not isinstance(seq, int):
        raise MalformedFix("wrong_type", "seq must be a whole number")
    if not 1 <= seq <= MAX_SEQ:
        raise MalformedFix("bad_id", "seq must be from 1 to 2^62")
    return seq


def _read_number(entry: StrictObject, name: str) -> float:
    value = read_field(entry, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedFix("wrong_type", f"{name} must be a number")
    least, most, reason = RANGES[name]
    if not least <= value <= most:
        raise MalformedFix(reason, f"{name} must be from {least:g} to {most:g}")
    if name == "heading_deg" and value == most:
        return 0.0  # 360 is north again
    return float(value)


def _identity(entry: Any) -> tuple[str, int] | tuple[None, None]:
    """The boot and seq of a refused entry, if both can be trusted."""
    if not isinstance(entry, StrictObject) or entry.doubled & {"boot", "seq"}:
        return None, None
    try:
        return _read_boot(entry), _read_seq(entry)
    except MalformedFix:
        return None, None
