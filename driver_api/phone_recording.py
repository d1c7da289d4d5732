"""Rows, outcomes and dead letters of phone apps' requests.

Pure: no I/O, and the time is passed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from doorstep.errors import Unauthenticated
from doorstep.fix import Fix, Refused
from doorstep.phones import Ignored, PhoneEntry, keepable
from doorstep.store.records import DeadLetter, IncomingRow, Outcome, row_of
from driver_api.recording import NO_DRIVER

MAX_LETTER_BYTES = 64 * 1024


def rows_of_entries(
    driver_id: str, entries: Sequence[PhoneEntry], received_at: datetime
) -> list[IncomingRow]:
    """Build the rows of the fixes; a row's `n` is the entry's index."""
    return [
        row_of(n, driver_id, entry.found, received_at)
        for n, entry in enumerate(entries)
        if isinstance(entry.found, Fix)
    ]


def outcomes_of(
    entries: Sequence[PhoneEntry], found: Sequence[Outcome]
) -> Iterator[tuple[str, str]]:
    """Yield (outcome, reason) of each entry.

    A known place and instant with other values is a duplicate: apps repeat their last position
    with today's battery.
    """
    by_n = {one.n: one for one in found}
    for n, entry in enumerate(entries):
        if isinstance(entry.found, Ignored):
            yield "ignored", entry.found.reason
        elif isinstance(entry.found, Refused):
            yield "rejected", entry.found.reason
        elif (outcome := by_n.get(n)) is None:
            yield "committed", ""
        elif outcome.outcome == "conflict":
            yield "duplicate", ""
        else:
            yield outcome.outcome, outcome.reason or ""


def dead_letters_of(
    driver_id: str,
    path: str,
    entries: Sequence[PhoneEntry],
    found: Sequence[Outcome],
    received_at: datetime,
) -> list[DeadLetter]:
    """Build a dead letter for each entry that is refused for good.

    Raises Unauthenticated if the driver is gone.
    """
    letters = []
    for entry, (outcome, reason) in zip(entries, outcomes_of(entries, found), strict=True):
        if reason in NO_DRIVER:
            raise Unauthenticated
        if outcome == "rejected":
            detail = entry.found.detail if isinstance(entry.found, Refused) else ""
            letters.append(
                DeadLetter(
                    payload=keepable(entry.payload)[:MAX_LETTER_BYTES],
                    driver_id=driver_id,
                    reason=reason,
                    source="http",
                    topic=path,
                    detail=detail[:500],
                    received_at_ms=round(received_at.timestamp() * 1000),
                )
            )
    return letters


def ignored_fields(entries: Sequence[PhoneEntry]) -> Counter[str]:
    """Count the optional fields that were not usable."""
    return Counter(
        name for entry in entries if isinstance(entry.found, Fix) for name in entry.found.ignored
    )
