"""Instants in payloads: RFC 3339 with a zone, or milliseconds since 1970.

Read as well, since phones send them: ISO 8601's basic offset (+0530), a comma before the fraction,
the second 60, and milliseconds with a fraction.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from doorstep.errors import MalformedFix

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIN_EPOCH_MS = 10**11  # 1973 in ms, the year 5138 in s: smaller values are seconds
MAX_EPOCH_MS = 253_402_300_799_999  # the end of the year 9999, datetime's limit
EXACT_AS_FLOAT_MS = 2**32 * 1000  # the year 2106: seconds as a float err by less than 0.3 µs

_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-5][0-9](?:\.[0-9]{1,9})?)"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_ISO_8601 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,9}))?"
    r"([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_LEAP_SECOND = "60"


def instant_of(value: float | str) -> datetime:
    """Decode `fix_at` to an aware instant in UTC, truncated to the microsecond.

    A number is truncated to the millisecond. Raises MalformedFix: `seconds_for_milliseconds`,
    `no_time_zone` or `bad_instant`.
    """
    if not isinstance(value, str):
        return _instant_of_ms(value)
    match = _RFC_3339.fullmatch(value)
    if match is None:
        return _odd_instant_of(value)
    day, time, zone = match.groups()
    if zone is None:
        raise MalformedFix("no_time_zone", "fix_at has no time zone")
    zone = "+00:00" if zone in "Zz" else zone
    try:
        return datetime.fromisoformat(f"{day}T{time}{zone}").astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise MalformedFix("bad_instant", f"fix_at: {exc}") from exc


def _instant_of_ms(value: float) -> datetime:
    if value < MIN_EPOCH_MS:
        raise MalformedFix("seconds_for_milliseconds", f"fix_at {value} is before 1973")
    if value > MAX_EPOCH_MS:
        raise MalformedFix("bad_instant", "fix_at is after the year 9999")
    if value < EXACT_AS_FLOAT_MS:
        return datetime.fromtimestamp(int(value) / 1000, UTC)
    return EPOCH + timedelta(milliseconds=int(value))


def _odd_instant_of(value: str) -> datetime:
    """Decode a form that is not RFC 3339's, and the second 60 as the one after the second 59."""
    match = _ISO_8601.fullmatch(value)
    if match is None:
        raise MalformedFix("bad_instant", "fix_at is not an RFC 3339 instant")
    minute, second, fraction, zone = match.groups()
    if zone is None:
        raise MalformedFix("no_time_zone", "fix_at has no time zone")
    zone = "+0000" if zone in "Zz" else zone
    is_leap = second == _LEAP_SECOND
    text = f"{minute}:{'59' if is_leap else second}.{fraction or '0'}{zone}"
    try:
        return datetime.fromisoformat(text).astimezone(UTC) + timedelta(seconds=is_leap)
    except (ValueError, OverflowError) as exc:
        raise MalformedFix("bad_instant", f"fix_at: {exc}") from exc


def wire_instant(instant: datetime) -> int | str:
    """Encode an aware instant: milliseconds since 1970 if exact, else RFC 3339."""
    ms, rest = divmod(instant - EPOCH, timedelta(milliseconds=1))
    if rest or ms < MIN_EPOCH_MS:
        return instant.astimezone(UTC).isoformat()
    return ms
