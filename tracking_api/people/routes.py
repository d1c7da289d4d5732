"""Staff and drivers' credentials, for admins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path

from doorstep.credentials import new_staff_token, token_sha256
from doorstep.http.openapi import DriverId, json_request, problems
from doorstep.http.request_body import json_body
from doorstep.store.records import Token
from tracking_api.context import Admin, AppContext, Context
from tracking_api.people.schemas import (
    NAME_PATTERN,
    CreatedStaff,
    CredentialAnswer,
    NewStaff,
    StaffAnswer,
    StaffList,
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
    responses=problems(401, 403, 409, 413, 415),
    openapi_extra=json_request(NewStaff, {"dispatcher": {"name": "anna", "role": "dispatcher"}}),
)
async def add_staff(
    admin: Admin, context: Context, new: Annotated[NewStaff, Depends(json_body(NewStaff))]
) -> CreatedStaff:
    """Only the token's hash is stored, so it cannot be shown again."""
    token = new_staff_token()
    member = await context.stores.people.change_staff(
        new.name,
        "add",
        who=admin.actor_id,
        role=new.role,
        token_sha256=token_sha256(token),
        expires_at=datetime.now(UTC) + timedelta(days=new.days),
    )
    return CreatedStaff(**StaffAnswer.of(member).model_dump(), token=token)


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
    "/drivers/{driver_id}/rotate",
    summary="Give a driver new secrets",
    responses=problems(401, 403, 404),
)
async def rotate_driver(driver_id: DriverId, admin: Admin, context: Context) -> CredentialAnswer:
    """The old ones end within 5 s. A revoked driver may log in again, with the new ones."""
    return await _change(context, driver_id, "rotate", admin)


@router.post(
    "/drivers/{driver_id}/revoke",
    summary="End a driver's secrets",
    responses=problems(401, 403, 404),
)
async def revoke_driver(driver_id: DriverId, admin: Admin, context: Context) -> CredentialAnswer:
    """At both doors, within 5 s, open connections included."""
    return await _change(context, driver_id, "revoke", admin)


async def _change(
    context: AppContext, driver_id: str, change: str, admin: Token
) -> CredentialAnswer:
    device = await context.stores.people.change_driver(driver_id, change, admin.actor_id)
    return CredentialAnswer.of(device)
