"""Policies: radii and times, as append-only rows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.context import Admin, Context, Staff
from tracking_api.orders.policy_schemas import NewPolicy, Policies, PolicyId

router = APIRouter(prefix="/policies", tags=["policies"])


@router.get("", summary="Every policy", responses=problems(401, 403))
async def list_policies(_: Staff, context: Context) -> Policies:
    """The rules of past and present orders."""
    return Policies(policies=await context.stores.orders.read_policies())


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
    admin: Admin, context: Context, new: Annotated[NewPolicy, Depends(json_body(NewPolicy))]
) -> PolicyId:
    """Add a policy; an order selects it by its id."""
    values = new.model_dump(exclude_none=True)
    return PolicyId(policy_id=await context.stores.orders.create_policy(values, admin.actor_id))
