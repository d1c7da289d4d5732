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


class Failure(BaseModel):
    """Why an order failed. Staff reads it with the order."""

    model_config = ConfigDict(extra="forbid")

    reason: FailureReason
    note: str | None = Field(
        default=None, max_length=500, json_schema_extra={"pattern": "^[^\\u0000]*$"}
    )


_read = json_body(Failure)


async def _failure(request: Request) -> Failure | None:
    return await _read(request) if await read_body(request) else None


FailureBody = Annotated[Failure | None, Depends(_failure)]
"""The body of a request that fails an order; None without one."""

FAILURE_REQUEST: dict[str, Any] = json_request(
    Failure,
    {"absent": {"reason": "customer_absent", "note": "Rang twice, called once."}},
    required=False,
)
