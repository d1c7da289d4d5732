"""The outcome of published fixes, found by sending each one again over HTTP.

The API answers `duplicate` for a stored fix and changes nothing. It refuses a bad fix again, with
the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from simulators.api import Api

FIXES_PER_REQUEST = 256


async def read_outcomes(
    api: Api, driver_id: str, staff_token: str, fixes: Sequence[Mapping[str, Any]]
) -> Counter[str]:
    """Count outcomes: `committed`, or a reason such as `quarantined: null_island`."""
    counts: Counter[str] = Counter()
    for start in range(0, len(fixes), FIXES_PER_REQUEST):
        batch = fixes[start : start + FIXES_PER_REQUEST]
        body = {"fixes": list(batch)}
        path = f"/drivers/{driver_id}/locations"
        answer = await api.driver("POST", path, staff_token, body)
        if answer.ok:
            counts.update(name_outcome(one) for one in answer.body["outcomes"])
        else:
            counts[f"unknown: HTTP {answer.status}"] += len(batch)
    return counts


def name_outcome(outcome: Mapping[str, Any]) -> str:
    """Describe an outcome. A duplicate of a fix that was published before is a committed one."""
    word, reason = outcome["outcome"], outcome.get("reason")
    if word == "duplicate" and not reason:
        return "committed"
    if word == "duplicate":
        return f"quarantined: {reason}"
    if word == "committed":
        return "committed only by this check"  # not over MQTT: the watermark was wrong
    if reason == "rejected_before":
        return "rejected (the dead letter has the reason)"
    return f"{word}: {reason}" if reason else str(word)
