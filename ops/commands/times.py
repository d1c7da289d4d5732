"""Times on the command line: an age or an instant."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from doorstep.errors import DoorstepError
from doorstep.fix.instants import instant_of
from ops.commands.runner import BadArgument

_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|min|m|h|d)")
_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def parse_time(text: str, now: datetime) -> int:
    """Parse an age (`2h`, `30min`, `3d`) or an instant with a zone, to ms. Raises BadArgument."""
    match = _AGO.fullmatch(text)
    if match is not None:
        try:
            at = now - timedelta(seconds=float(match[1]) * _UNIT_S[match[2]])
        except OverflowError:
            at = datetime(1970, 1, 1, tzinfo=UTC)
        return max(0, round(at.timestamp() * 1000))
    try:
        return round(instant_of(text).timestamp() * 1000)
    except DoorstepError as exc:
        raise BadArgument(
            f"{text!r} is neither an age such as 2h, 30min or 3d, nor an instant ({exc})"
        ) from exc
