"""When an upgrade restarts a service, and which responses it may cause."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from tests.faults.apis import NO_RESPONSE, TIMEOUT_S, Response


@dataclass(slots=True)
class Steps:
    """What an upgrade has said, and when."""

    lines: list[str] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Note a step that begins."""
        self.lines.append(line)
        self.at_s.append(time.monotonic())

    def restarted_at(self, service: str) -> float:
        """Return when a service was ready again: the next step began."""
        return self.at_s[self.lines.index(f"restarting {service}") + 1]


def is_allowed(response: Response, steps: Steps) -> bool:
    """Return whether a request was answered with 200: at once, or at last after being refused.

    Refused: with 503 and Retry-After, or without a response until its service has restarted; the
    releases before 0.5.0 reset connections beyond an address's number. No response within the
    caller's time-out is a busy machine's.
    """
    if httpx.codes.OK not in (response.status, response.retry_status):
        return False
    if response.status != NO_RESPONSE:
        return response.status == httpx.codes.OK or (
            response.status == httpx.codes.SERVICE_UNAVAILABLE and response.retry_after
        )
    restarted_at = steps.restarted_at("driver_api" if response.driver_id else "tracking_api")
    return response.at_s <= restarted_at or response.took_s >= TIMEOUT_S


def summary(responses: Sequence[Response]) -> str:
    """Count the responses by status."""
    found = Counter(one.status for one in responses)
    failed = sum(one.failed and one.retry_status != httpx.codes.OK for one in responses)
    counts = ", ".join(f"{times} x {status or 'none'}" for status, times in sorted(found.items()))
    return f"{counts}; {failed} not answered with 200 at last"
