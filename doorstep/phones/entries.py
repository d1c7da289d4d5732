"""What the decoders of all apps share: entries, instants and optional values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from doorstep import strict_json
from doorstep.errors import MalformedFix, MalformedJson
from doorstep.fix import Fix, Refused
from doorstep.fix.instants import EPOCH, MIN_EPOCH_MS, instant_of
from doorstep.fix.strict import fix_of

MAX_DEPTH = 32  # as of a fix
MAX_EPOCH_S = 253_402_300_799  # the end of the year 9999


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """A message that is no position. There is nothing to keep."""

    reason: str


class PhoneEntry(NamedTuple):
    """One entry of a request, with the bytes of its dead letter."""

    found: Fix | Refused | Ignored
    payload: bytes


def keepable(payload: bytes) -> bytes:
    """Return the bytes that a dead letter may keep: none if they may hold a password."""
    return b"" if b"password" in payload.lower() else payload


def parse_object(payload: bytes) -> strict_json.Object:
    """Parse a JSON object; violations inside it are left for `check`. Raises MalformedFix."""
    try:
        value = strict_json.parse(payload)
    except MalformedJson as exc:
        raise MalformedFix(exc.reason, exc.detail) from exc
    if not isinstance(value, strict_json.Object):
        raise MalformedFix("wrong_shape", "not an object")
    return value


def check(entry: Any, decisive: frozenset[str]) -> strict_json.Object:
    """Return an entry if it is strict JSON and no decisive key occurs twice."""
    if not isinstance(entry, strict_json.Object):
        raise MalformedFix("wrong_shape", "not an object")
    twice = entry.duplicates & decisive
    if twice:
        raise MalformedFix("duplicate_key", ", ".join(sorted(twice)))
    try:
        strict_json.check(entry, MAX_DEPTH, unique_keys=False)
    except MalformedJson as exc:
        raise MalformedFix(exc.reason, exc.detail) from exc
    return entry


def seconds_instant(value: Any, name: str) -> datetime:
    """Read an instant in seconds since 1970, to the microsecond. Raises MalformedFix."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedFix("wrong_type", f"{name} must be a number")
    if not 0 <= value <= MAX_EPOCH_S:
        raise MalformedFix("bad_instant", f"{name} must be from 1970 to 9999")
    return EPOCH + timedelta(microseconds=round(value * 1_000_000))


def text_instant(text: str, name: str) -> datetime:
    """Read seconds, milliseconds or ISO 8601. Raises MalformedFix."""
    try:
        number = float(text)
    except ValueError:
        return instant_of(text)
    if number < MIN_EPOCH_MS:
        return seconds_instant(number, name)
    return instant_of(number)


def nameless_fix(
    fix_at: datetime,
    lat_deg: float,
    lon_deg: float,
    optional: Mapping[str, Any],
    unusable: frozenset[str] = frozenset(),
) -> Fix:
    """Build a fix without boot and seq. An accuracy of 0 says nothing, so it is ignored."""
    if optional.get("accuracy_m") == 0:
        unusable |= {"accuracy_m"}
    return fix_of(None, None, fix_at, lat_deg, lon_deg, optional, unusable)


def scaled(value: Any, factor: float) -> Any:
    """Convert a number's unit; anything else is left for the check of optional fields."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return value * factor
