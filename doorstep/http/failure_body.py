"""Why an order failed, as an optional body."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from doorstep.http.openapi import json_request
from doorstep.http.request_body import json_body, read_body


class FailureReason(StrEnum):
    """Why an order could not be delivered."""

    CUSTOMER_ABSENT = "customer_absent"
    WRONG_ADDRESS = "wrong_address"
    REFUSED = "refused"
    DAMAGED = "damaged"
    ACCIDENT = "accident"
    OTHER = "other"


class NextStep(StrEnum):
    """What follows a failure: another attempt as a new order, or the way back to the restaurant."""

    RETRY = "retry"
    RETURN = "return"


class Failure(BaseModel):
    """Why an order failed. Staff reads it with the order."""

    model_config = ConfigDict(extra="forbid")

    reason: FailureReason
    note: str | None = Field(
        default=None, max_length=500, json_schema_extra={"pattern": "^[^\\u0000]*$"}
    )


class NewFailure(Failure):
    """Why an order failed, and what follows."""

    next_step: NextStep | None = None


_read = json_body(NewFailure)


async def _failure(request: Request) -> NewFailure | None:
    return await _read(request) if await read_body(request) else None


FailureBody = Annotated[NewFailure | None, Depends(_failure)]
"""The body of a request that fails an order; None without one."""

FAILURE_REQUEST: dict[str, Any] = json_request(
    NewFailure,
    {
        "absent": {"reason": "customer_absent", "note": "Rang twice, called once."},
        "tried again later": {"reason": "customer_absent", "next_step": "retry"},
        "taken back": {"reason": "refused", "next_step": "return"},
    },
    required=False,
)
