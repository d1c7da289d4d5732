"""Which responses an upgrade may cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import httpx

from tests.faults.apis import NO_RESPONSE, Response


def is_allowed(response: Response) -> bool:
    """Return whether a request was answered with 200: at once, or at last after being refused.

    Refused: with 503 and Retry-After, or without a response: the service restarts, or ends an idle
    connection just as it is used again.
    """
    if response.status == httpx.codes.OK:
        return True
    is_refused = response.status == NO_RESPONSE or (
        response.status == httpx.codes.SERVICE_UNAVAILABLE and response.retry_after
    )
    return is_refused and response.retry_status == httpx.codes.OK


def summary(responses: Sequence[Response]) -> str:
    """Count the responses by status."""
    found = Counter(one.status for one in responses)
    failed = sum(one.failed and one.retry_status != httpx.codes.OK for one in responses)
    counts = ", ".join(f"{times} x {status or 'none'}" for status, times in sorted(found.items()))
    return f"{counts}; {failed} not answered with 200 at last"
