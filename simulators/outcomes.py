"""What became of fixes: asked over the public API by sending each one again.

A fix that is known is answered `duplicate` and changes nothing, so asking is harmless; what the
rules refuse is refused again, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from simulators.api import Api

FIXES_A_CALL = 256


async def ask_outcomes(
    api: Api, driver_id: str, staff_token: str, fixes: Sequence[Mapping[str, Any]]
) -> Counter[str]:
    """Count outcomes: `committed`, or a reason such as `quarantined: null_island`."""
    counts: Counter[str] = Counter()
    for start in range(0, len(fixes), FIXES_A_CALL):
        batch = fixes[start : start + FIXES_A_CALL]
        body = {"fixes": list(batch)}
        path = f"/drivers/{driver_id}/locations"
        answer = await api.driver("POST", path, staff_token, body)
        if answer.ok:
            counts.update(name_outcome(one) for one in answer.body["outcomes"])
        else:
            counts[f"not told: HTTP {answer.status}"] += len(batch)
    return counts


def name_outcome(outcome: Mapping[str, Any]) -> str:
    """Name an outcome for people. A duplicate of what we sent ourselves is what was committed."""
    word, reason = outcome["outcome"], outcome.get("reason")
    if word == "duplicate" and not reason:
        return "committed"
    if word == "duplicate":
        return f"quarantined: {reason}"
    if word == "committed":
        return "committed only when asked"  # MQTT had not brought it: the watermark was wrong
    if reason == "rejected_before":
        return "rejected (the dead letter has the reason)"
    return f"{word}: {reason}" if reason else str(word)
