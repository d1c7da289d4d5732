"""Opening hours: spans of local time on days of the week, as JSON and as text.

The text of a CSV's cell has one span after the other: `mon-fri 11:30-15:00; fri,sat 18:00-02:00`.
A span whose end is not after its start ends on the next day.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = get_args(Day)
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["11:30"])]
_SPAN = re.compile(r"([a-z,-]+) +(\d\d:\d\d) *- *(\d\d:\d\d)")


class OpeningSpan(BaseModel):
    """One span of time on some days."""

    model_config = ConfigDict(extra="forbid")

    days: Annotated[list[Day], Field(min_length=1, max_length=7)]
    start: Clock = Field(alias="from")
    end: Clock = Field(alias="to", description="Not after `from`: on the next day.")


def parse_opening_hours(text: str) -> list[dict[str, Any]]:
    """Parse a cell. Raises ValueError; the times are validated by OpeningSpan."""
    spans = []
    for part in filter(None, (one.strip() for one in text.lower().split(";"))):
        found = _SPAN.fullmatch(part)
        if found is None:
            raise ValueError("must be like `mon-fri 11:30-15:00; sat,sun 18:00-02:00`")
        days, start, end = found.groups()
        spans.append({"days": _parse_days(days), "from": start, "to": end})
    return spans


def format_opening_hours(spans: Sequence[dict[str, Any]]) -> str:
    """Format spans as the text of a cell."""
    return "; ".join(f"{','.join(span['days'])} {span['from']}-{span['to']}" for span in spans)


def _parse_days(text: str) -> list[str]:
    days: list[str] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            start = DAYS.index(first)
            end = DAYS.index(last) if dash else start
        except ValueError:
            raise ValueError(f"days are {', '.join(DAYS)}") from None
        length = (end - start) % len(DAYS) + 1
        days += [DAYS[(start + n) % len(DAYS)] for n in range(length)]
    return sorted(set(days), key=DAYS.index)
