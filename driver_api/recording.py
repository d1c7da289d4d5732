"""Rows of record_fixes from a decoded body, and answers from its outcomes.

Pure: no I/O, and the time is passed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from doorstep.errors import ConflictingFix, RejectedFix, UnknownDriver
from doorstep.fix import Decoded, Fix, Refused
from doorstep.store.records import Outcome
from driver_api.schemas import FixOutcome, RecordedFix, RecordedFixes

NO_DRIVER = ("unknown_driver", "forgotten")


def answer_one(
    driver_id: str, fix: Fix, received_at: datetime, outcomes: Sequence[Outcome]
) -> RecordedFix:
    """Answer for one fix. Raises UnknownDriver, RejectedFix or ConflictingFix."""
    found = outcomes[0] if outcomes else Outcome(0, "committed", None)
    if found.outcome == "conflict":
        raise ConflictingFix
    if found.outcome == "rejected":
        if found.reason in NO_DRIVER:
            raise UnknownDriver
        raise RejectedFix(found.reason or "rejected_before")
    return RecordedFix(
        driver_id=driver_id,
        outcome=found.outcome,  # conflict and rejected are handled above
        reason=found.reason,
        fix_at=fix.fix_at,
        received_at=received_at,
        ignored=fix.ignored,
    )


def answer_many(
    driver_id: str, decoded: Decoded, received_at: datetime, outcomes: Sequence[Outcome]
) -> RecordedFixes:
    """Answer for a batch, fix by fix. Raises UnknownDriver."""
    by_n = {found.n: found for found in outcomes}
    if any(found.reason in NO_DRIVER for found in outcomes):
        raise UnknownDriver
    answers = [
        FixOutcome(n=n, outcome="rejected", reason=entry.reason)
        if isinstance(entry, Refused)
        else _outcome(n, by_n.get(n), entry)
        for n, entry in enumerate(decoded)
    ]
    counts = Counter(answer.outcome for answer in answers)
    return RecordedFixes(
        driver_id=driver_id,
        received_at=received_at,
        outcomes=answers,
        committed=counts["committed"],
        duplicate=counts["duplicate"],
        quarantined=counts["quarantined"],
        dropped=counts["dropped"],
        rejected=counts["rejected"],
        conflict=counts["conflict"],
    )


def newest_committed(decoded: Sequence[object], outcomes: Sequence[Outcome]) -> Fix | None:
    """Return the newest fix of a batch that was committed now and not quarantined."""
    special = {found.n for found in outcomes}
    fixes = [
        entry for n, entry in enumerate(decoded) if isinstance(entry, Fix) and n not in special
    ]
    return max(fixes, key=lambda fix: fix.fix_at, default=None)


def _outcome(n: int, found: Outcome | None, fix: Fix) -> FixOutcome:
    if found is None:
        return FixOutcome(n=n, outcome="committed", reason=None, ignored=fix.ignored)
    return FixOutcome(n=n, outcome=found.outcome, reason=found.reason, ignored=fix.ignored)
