"""Which responses an upgrade under load may cause: each request is answered with 200 at last."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.apis import NO_RESPONSE, Response
from tests.faults.upgrade_responses import is_allowed, summary

PATCH = Response("PATCH", "caller-1", 12.0, 0.1, 200, retry_after=False, detail="")
REFUSED = replace(PATCH, status=503, retry_after=True, retry_status=200)
UNANSWERED = replace(PATCH, status=NO_RESPONSE, retry_status=200)


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(PATCH, id="200"),
        pytest.param(REFUSED, id="503, then 200"),
        pytest.param(UNANSWERED, id="none, then 200"),
    ],
)
def test_is_allowed__answered_with_200_at_last__is(response: Response) -> None:
    assert is_allowed(response)


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(replace(PATCH, status=500, retry_status=200), id="500"),
        pytest.param(replace(PATCH, status=401, retry_status=200), id="401"),
        pytest.param(replace(REFUSED, retry_after=False), id="503 without Retry-After"),
        pytest.param(replace(REFUSED, retry_status=503), id="503 again"),
        pytest.param(replace(REFUSED, retry_status=NO_RESPONSE), id="503, then none"),
        pytest.param(replace(UNANSWERED, retry_status=0), id="none, then none"),
    ],
)
def test_is_allowed__anything_else__is_not(response: Response) -> None:
    assert not is_allowed(response)


def test_summary__counts_statuses_and_requests_without_a_200() -> None:
    said = summary([PATCH, REFUSED, replace(UNANSWERED, retry_status=0)])
    assert said == "1 x none, 1 x 200, 1 x 503; 1 not answered with 200 at last"
