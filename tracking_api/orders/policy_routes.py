"""Policies: radii and times, as rows that are only ever added."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.context import Context, Staff
from tracking_api.schemas import NewPolicy, Policies, PolicyId

router = APIRouter(prefix="/policies", tags=["policies"])


@router.get("", summary="Every policy", responses=problems(401, 403))
async def list_policies(_: Staff, parts: Context) -> Policies:
    """The rules that orders were and are created with."""
    return Policies(policies=await parts.store.read_policies())


@router.post(
    "",
    status_code=201,
    summary="Add a policy",
    responses=problems(401, 403, 413, 415),
    openapi_extra=json_request(
        NewPolicy,
        {
            "faster": {
                "name": "ten times faster",
                "dwell_min_s": 3,
                "dwell_max_s": 12,
                "leave_min_s": 3,
                "leave_max_s": 12,
                "arriving_min_s": 0.8,
            }
        },
    ),
)
async def create_policy(
    _: Staff, parts: Context, new: Annotated[NewPolicy, Depends(json_body(NewPolicy))]
) -> PolicyId:
    """Add a policy; orders choose it by its id."""
    return PolicyId(policy_id=await parts.store.create_policy(new))
