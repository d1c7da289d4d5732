"""What the decoders of all apps share: entries, instants and optional values."""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from doorstep import strict_json
from doorstep.errors import MalformedFix, MalformedJson
from doorstep.fix import Fix, Refused
from doorstep.fix.instants import EPOCH, MAX_EPOCH_MS, MIN_EPOCH_MS, instant_of
from doorstep.fix.strict import fix_of, is_number

MAX_EPOCH_S = MAX_EPOCH_MS // 1000


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
    """Parse a JSON object; violations inside it are left for `check_fix`. Raises MalformedFix."""
    try:
        value = strict_json.parse(payload)
    except MalformedJson as exc:
        raise MalformedFix(exc.reason, exc.detail) from exc
    if not isinstance(value, strict_json.Object):
        raise MalformedFix("wrong_shape", "not an object")
    return value


def seconds_instant(value: Any, name: str) -> datetime:
    """Read an instant in seconds since 1970, to the microsecond. Raises MalformedFix."""
    if not is_number(value):
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
    if not number >= MIN_EPOCH_MS:  # NaN too, which is no instant
        return seconds_instant(number, name)
    return instant_of(number)


def optional_fields(
    entry: Mapping[str, Any],
    names: Mapping[str, str],
    duplicates: Set[str],
    factors: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the optional fields of an entry, by the names and in the units of a fix.

    `names` maps these to the app's. A field that occurs twice is null. What is no number is left
    for the check of optional fields.
    """
    found: dict[str, Any] = {}
    for ours, theirs in names.items():
        if theirs in entry:
            value = None if theirs in duplicates else entry[theirs]
            found[ours] = value * factors.get(ours, 1) if is_number(value) else value
    return found


def nameless_fix(
    fix_at: datetime, lat_deg: float, lon_deg: float, optional: Mapping[str, Any]
) -> Fix:
    """Build a fix without boot and seq. An accuracy of 0 says nothing, so it is ignored."""
    unusable = {"accuracy_m"} if optional.get("accuracy_m") == 0 else set()
    return fix_of(None, None, fix_at, lat_deg, lon_deg, optional, unusable)
