"""Instants in answers: RFC 3339 in UTC, milliseconds, `Z`. Instants in queries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

# A year inside of what Python and PostgreSQL hold, so that neither a time zone nor a range of days
# around an instant overflows.
FIRST_INSTANT = datetime(2, 1, 1, tzinfo=UTC)
LAST_INSTANT = datetime(9998, 12, 31, tzinfo=UTC)


def format_instant(instant: datetime) -> str:
    """Format an aware instant, such as `2026-11-21T08:30:00.000Z`."""
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    return instant.isoformat(timespec="milliseconds")[:-6] + "Z"  # instead of +00:00


Instant = Annotated[
    datetime,
    PlainSerializer(format_instant, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


def is_usable_instant(instant: datetime) -> bool:
    """Return whether an aware instant lies within the years 2 to 9998."""
    return FIRST_INSTANT <= instant <= LAST_INSTANT


def _check_range(instant: datetime) -> datetime:
    if not is_usable_instant(instant):
        raise PydanticCustomError("less_than_equal", "must be within the years 2 to 9998")
    return instant


QueryInstant = Annotated[AwareDatetime, AfterValidator(_check_range)]
"""An instant with a zone, as a query's parameter or a member of a body."""
