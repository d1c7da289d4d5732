"""Invitations of drivers to set a phone up."""

from __future__ import annotations

from fastapi import APIRouter

from doorstep.credentials import new_invitation_token
from doorstep.http.openapi import DriverId, problems
from doorstep.phones.qr_code import qr_svg
from tracking_api.context import Context, Dispatcher
from tracking_api.people.schemas import InvitationAnswer

router = APIRouter(tags=["people"])


@router.post(
    "/drivers/{driver_id}/invitations",
    status_code=201,
    summary="Invite a driver to set a phone up; the answer holds the link",
    responses=problems(401, 403, 404),
)
async def invite(driver_id: DriverId, staff: Dispatcher, context: Context) -> InvitationAnswer:
    """The link is good once, for a day. It ends an earlier one that is still open."""
    token = new_invitation_token()
    expires_at = await context.stores.people.invite_driver(driver_id, token, staff.actor_id)
    link = f"{context.join_url}#{token}"
    return InvitationAnswer(link=link, expires_at=expires_at, qr_svg=qr_svg(link))
