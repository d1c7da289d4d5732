"""Staff, for admins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path

from doorstep.credentials import new_staff_token, token_sha256
from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from doorstep.store.records import Token
from tracking_api.context import Admin, AppContext, Context
from tracking_api.people.schemas import (
    NAME_PATTERN,
    CreatedStaff,
    NewStaff,
    StaffAnswer,
    StaffList,
    StaffRotation,
)

router = APIRouter(tags=["people"])

StaffName = Annotated[str, Path(pattern=NAME_PATTERN)]


@router.get("/staff", summary="All staff", responses=problems(401, 403))
async def list_staff(_: Admin, context: Context) -> StaffList:
    """Names, roles and expiry; revoked ones too."""
    found = await context.stores.people.list_staff()
    return StaffList(staff=[StaffAnswer.of(member) for member in found])


@router.post(
    "/staff",
    status_code=201,
    summary="Add a member of staff; the answer holds the token",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(
        NewStaff,
        {
            "dispatcher": {"name": "anna", "role": "dispatcher"},
            "restaurant": {"name": "mario", "role": "restaurant", "restaurant_id": 1},
        },
    ),
)
async def add_staff(
    admin: Admin, context: Context, new: Annotated[NewStaff, Depends(json_body(NewStaff))]
) -> CreatedStaff:
    """Only the token's hash is stored, so it cannot be shown again."""
    return await _give_token(context, admin, new.name, "add", new)


@router.delete(
    "/staff/{name}",
    status_code=204,
    summary="Revoke a member of staff",
    responses=problems(401, 403, 404),
)
async def revoke_staff(name: StaffName, admin: Admin, context: Context) -> None:
    """Every token of the name ends within 5 s, open streams included."""
    await context.stores.people.change_staff(name, "revoke", who=admin.actor_id)


@router.post(
    "/staff/{name}/rotate",
    summary="Replace a member's token, and perhaps their role",
    responses=problems(401, 403, 404, 413, 415),
    openapi_extra=json_request(
        StaffRotation, {"the same role": {"days": 30}, "another role": {"role": "admin"}}
    ),
)
async def rotate_staff(
    name: StaffName,
    admin: Admin,
    context: Context,
    rotation: Annotated[StaffRotation, Depends(json_body(StaffRotation))],
) -> CreatedStaff:
    """The old token and its sessions end within 5 s. The answer holds the new one."""
    return await _give_token(context, admin, name, "rotate", rotation)


async def _give_token(
    context: AppContext, admin: Token, name: str, change: str, wanted: NewStaff | StaffRotation
) -> CreatedStaff:
    token = new_staff_token()
    member = await context.stores.people.change_staff(
        name,
        change,
        who=admin.actor_id,
        role=wanted.role,
        restaurant_id=wanted.restaurant_id,
        token_sha256=token_sha256(token),
        expires_at=datetime.now(UTC) + timedelta(days=wanted.days),
    )
    return CreatedStaff(**StaffAnswer.of(member).model_dump(), token=token)
