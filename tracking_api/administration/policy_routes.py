"""Policies: radii and times, as append-only rows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from doorstep.administration.fields import NewPolicy, PolicyChange
from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.administration.csv_routes import csv_routes
from tracking_api.administration.pages import Cursor, Limit, Retired, read_page
from tracking_api.administration.queries import POLICY
from tracking_api.administration.schemas import Policies, PolicyRow, ReplacedPolicy
from tracking_api.context import Admin, AppContext, Context, Staff

router = APIRouter(prefix="/policies", tags=["policies"])
tables = csv_routes(POLICY, "policies", "name,enter_radius_m,dwell_min_s\nwide,90,20\n")

PolicyId = Annotated[int, Path(ge=1, lt=2**31, examples=[1])]


@router.get("", summary="List policies, by id", responses=problems(401, 403))
async def list_policies(
    request: Request,
    response: Response,
    _: Staff,
    context: Context,
    limit: Limit = 500,
    cursor: Cursor = None,
    retired: Retired = False,
) -> Policies:
    """The rules of new orders; with `retired`, those of past orders too."""
    page, next_cursor = await read_page(request, response, context, POLICY, limit, cursor, retired)
    return Policies(policies=[PolicyRow(**row) for row in page], next_cursor=next_cursor)


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
    response: Response,
    admin: Admin,
    context: Context,
    new: Annotated[NewPolicy, Depends(json_body(NewPolicy))],
) -> PolicyRow:
    """An order selects it by its id, unless it is the default."""
    store = context.stores.administration
    policy_id = int(await store.create_row(POLICY, new.given(), admin.actor_id))
    response.headers["Location"] = f"/policies/{policy_id}"
    return await _row(context, policy_id)


@router.get("/{policy_id}", summary="One policy", responses=problems(401, 403, 404))
async def get_policy(policy_id: PolicyId, _: Staff, context: Context) -> PolicyRow:
    """A retired one too."""
    return await _row(context, policy_id)


@router.patch(
    "/{policy_id}",
    status_code=201,
    summary="Change a policy, which makes a new one",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(PolicyChange, {"wider": {"enter_radius_m": 90}}),
)
async def change_policy(
    response: Response,
    policy_id: PolicyId,
    admin: Admin,
    context: Context,
    change: Annotated[PolicyChange, Depends(json_body(PolicyChange))],
) -> ReplacedPolicy:
    """Orders keep the rules that they were created with. So a policy never changes: the answer is a
    new one with the other values, the default if this one was; this one is retired."""
    store = context.stores.administration
    new_id = int(await store.change_row(POLICY, policy_id, change.given(), admin.actor_id))
    response.headers["Location"] = f"/policies/{new_id}"
    return ReplacedPolicy(**await store.read_row(POLICY, new_id), replaces=policy_id)


@router.post(
    "/{policy_id}/retire", summary="Retire a policy", responses=problems(401, 403, 404, 409)
)
async def retire_policy(policy_id: PolicyId, admin: Admin, context: Context) -> PolicyRow:
    """No new order may name it. The default policy cannot be retired."""
    await context.stores.administration.retire_row(POLICY, policy_id, admin.actor_id)
    return await _row(context, policy_id)


@router.post(
    "/{policy_id}/default",
    summary="Make a policy the default of new orders",
    responses=problems(401, 403, 404, 409),
)
async def set_default_policy(policy_id: PolicyId, admin: Admin, context: Context) -> PolicyRow:
    """Of those that name none."""
    await context.stores.administration.set_default_policy(policy_id, admin.actor_id)
    return await _row(context, policy_id)


async def _row(context: AppContext, policy_id: int) -> PolicyRow:
    return PolicyRow(**await context.stores.administration.read_row(POLICY, policy_id))
