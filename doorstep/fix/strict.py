"""The strict decoder, which defines the contract and gives the reasons of refusals.

The fast decoder (`fast.py`) accepts a subset of what this one accepts, with the same result.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from datetime import datetime
from typing import Any, TypeGuard

from doorstep import strict_json
from doorstep.errors import MalformedFix, MalformedJson
from doorstep.fix.instants import instant_of
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

MAX_DEPTH = 32  # of one fix; known fields need 1, the rest is for unknown ones

RANGES: Mapping[str, tuple[float, float]] = {
    "lat_deg": (-90.0, 90.0),
    "lon_deg": (-180.0, 180.0),
    "accuracy_m": (0.0, 1e6),
    "speed_mps": (0.0, 500.0),
    "heading_deg": (0.0, 360.0),
    "altitude_m": (-1000.0, 20_000.0),
    "battery": (0.0, 1.0),
}
PLACE_REASONS = {"lat_deg": "latitude_out_of_range", "lon_deg": "longitude_out_of_range"}
# A field that occurs twice has no value; that refuses a fix only for one of these.
DECISIVE = frozenset({"boot", "seq", "void", "fix_at", "lat_deg", "lon_deg"})
OPTIONAL = ("accuracy_m", "speed_mps", "heading_deg", "altitude_m", "battery")

_ID = re.compile(ID_PATTERN)


def decode_position_strictly(payload: bytes) -> Decoded:
    """Decode one MQTT payload: a fix, or an array of up to 256.

    Raises MalformedFix if the payload has no entries at all.
    """
    value = parse_document(payload)
    if isinstance(value, list):
        return _read_entries(value, identity_required=True)
    if not isinstance(value, strict_json.Object):
        raise MalformedFix("wrong_shape", "neither an object nor an array")
    if len(payload) > MAX_FIX_BYTES:
        boot, seq = _identity(value)
        detail = f"{len(payload)} bytes; one fix may have {MAX_FIX_BYTES}"
        return [Refused(0, boot, seq, "too_large", detail)]
    return _read_entries([value], identity_required=True)


def decode_fix(payload: bytes) -> Fix:
    """Decode one JSON object as a fix; `boot` and `seq` are both set or both absent.

    Raises MalformedFix; never returns a partial fix.
    """
    value = parse_document(payload)
    if not isinstance(value, strict_json.Object):
        raise MalformedFix("wrong_shape", "not an object")
    if len(payload) > MAX_FIX_BYTES:
        raise MalformedFix("too_large", f"{len(payload)} bytes; one fix may have {MAX_FIX_BYTES}")
    return _read_fix(value, identity_required=False)


def decode_fixes(payload: bytes) -> Decoded:
    """Decode `{"fixes": [fix, …]}`, each with or without an identity.

    Raises MalformedFix if the body has no entries at all.
    """
    value = parse_document(payload)
    if not isinstance(value, strict_json.Object):
        raise MalformedFix("wrong_shape", "not an object")
    if "fixes" in value.duplicates:
        raise MalformedFix("duplicate_key", "fixes")
    if "fixes" not in value:
        raise MalformedFix("missing_field", "fixes")
    if not isinstance(value["fixes"], list):
        raise MalformedFix("wrong_type", "fixes must be an array")
    return _read_entries(value["fixes"], identity_required=False)


def parse_document(payload: bytes) -> Any:
    """Parse a payload; violations inside it are left for `check_entry`. Raises MalformedFix."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MalformedFix("too_large", f"{len(payload)} bytes of {MAX_PAYLOAD_BYTES}")
    try:
        return strict_json.parse(payload)
    except MalformedJson as exc:
        raise MalformedFix(exc.reason, exc.detail) from exc


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
    entry = check_fix(entry)
    boot, seq = None, None
    if identity_required or "boot" in entry or "seq" in entry:
        boot, seq = _read_boot(entry), _read_seq(entry)
    if "void" in entry:
        if entry["void"] is not True or boot is None:
            raise MalformedFix("wrong_type", "void is true, with boot and seq, or absent")
        raise MalformedFix("void", "closed by the device")
    fix_at = read_field(entry, "fix_at")
    if isinstance(fix_at, bool) or not isinstance(fix_at, int | float | str):
        raise MalformedFix("wrong_type", "fix_at must be a string or a number")
    at = instant_of(fix_at)
    lat_deg, lon_deg = read_place(entry, "lat_deg"), read_place(entry, "lon_deg")
    return fix_of(boot, seq, at, lat_deg, lon_deg, entry, entry.duplicates)


def fix_of(
    boot: str | None,
    seq: int | None,
    fix_at: datetime,
    lat_deg: float,
    lon_deg: float,
    optional: Mapping[str, Any],
    unusable: Container[str] = (),
) -> Fix:
    """Build a fix. An optional field that is in `unusable` or not in its range is ignored."""
    usable: dict[str, float] = {}
    ignored: list[str] = []
    for name in OPTIONAL:
        if name in optional:
            value = None if name in unusable else _number_in_range(name, optional[name])
            if value is None:
                ignored.append(name)
            else:
                usable[name] = value
    return Fix(boot, seq, fix_at, lat_deg, lon_deg, **usable, ignored=tuple(ignored))


def check_fix(entry: Any, decisive: frozenset[str] = DECISIVE) -> strict_json.Object:
    """Like `check_entry`, but only the fields that decide about a fix must occur once."""
    if isinstance(entry, strict_json.Object):
        twice = entry.duplicates & decisive
        if twice:
            raise MalformedFix("duplicate_key", ", ".join(sorted(twice)))
    return check_entry(entry, MAX_DEPTH, unique_keys=False)


def check_entry(entry: Any, max_depth: int, *, unique_keys: bool = True) -> strict_json.Object:
    """Return the entry if it is an object of strict JSON. Raises MalformedFix."""
    if not isinstance(entry, strict_json.Object):
        raise MalformedFix("wrong_shape", "not a JSON object")
    try:
        strict_json.check(entry, max_depth, unique_keys=unique_keys)
    except MalformedJson as exc:
        raise MalformedFix(exc.reason, exc.detail) from exc
    return entry


def read_field(entry: Mapping[str, Any], name: str) -> Any:
    """Read a required field. Raises MalformedFix."""
    if name not in entry:
        raise MalformedFix("missing_field", name)
    return entry[name]


def _read_boot(entry: strict_json.Object) -> str:
    boot = read_field(entry, "boot")
    if not isinstance(boot, str):
        raise MalformedFix("wrong_type", "boot must be a string")
    if not _ID.fullmatch(boot):
        raise MalformedFix("bad_id", f"boot must match {ID_PATTERN}")
    return boot


def _read_seq(entry: strict_json.Object) -> int:
    seq = read_field(entry, "seq")
    if isinstance(seq, bool) or not isinstance(seq, int):
        raise MalformedFix("wrong_type", "seq must be a whole number")
    if not 1 <= seq <= MAX_SEQ:
        raise MalformedFix("bad_id", "seq must be from 1 to 2^62")
    return seq


def read_place(entry: Mapping[str, Any], name: str, key: str = "") -> float:
    """Read `lat_deg` or `lon_deg` from the field `key`. Raises MalformedFix."""
    key = key or name
    value = read_field(entry, key)
    if not is_number(value):
        raise MalformedFix("wrong_type", f"{key} must be a number")
    number = _number_in_range(name, value)
    if number is None:
        least, most = RANGES[name]
        raise MalformedFix(PLACE_REASONS[name], f"{key} must be from {least:g} to {most:g}")
    return number


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of JSON is a number: true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number_in_range(name: str, value: Any) -> float | None:
    """Return a field's value; None if it is no number or out of range."""
    least, most = RANGES[name]
    if not is_number(value) or not least <= value <= most:
        return None
    return 0.0 if name == "heading_deg" and value == most else float(value)  # 360 is north


def _identity(entry: Any) -> tuple[str, int] | tuple[None, None]:
    """Return the boot and seq of a refused entry if both are valid."""
    if not isinstance(entry, strict_json.Object) or entry.duplicates & {"boot", "seq"}:
        return None, None
    try:
        return _read_boot(entry), _read_seq(entry)
    except MalformedFix:
        return None, None
