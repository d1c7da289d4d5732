"""The credentials of drivers and of sources of series, for admins.

Secrets made here are random and shown once. The routes of both kinds are the same.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from doorstep.credentials import DeviceSecrets
from doorstep.fix.value import ID_PATTERN
from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from doorstep.store.people import Device
from tracking_api.context import Admin, AppContext, Context
from tracking_api.people.schemas import (
    CredentialAnswer,
    CredentialList,
    NewCredential,
    NewDevice,
)

DeviceId = Annotated[
    str,
    Path(pattern=f"^{ID_PATTERN}$", description="A driver's or source's id.", examples=["anna"]),
]


def _routes_of(kind: str, example: str) -> APIRouter:
    """Build the routes of one kind, `driver` or `source`."""
    routes = APIRouter(prefix=f"/credentials/{kind}s", tags=["people"])

    async def apply(context: AppContext, device_id: str, change: str, who: str) -> Device:
        return await context.stores.people.change_device(kind, device_id, change, who)

    async def renew(context: AppContext, device_id: str, change: str, who: str) -> NewCredential:
        secrets = DeviceSecrets.draw(kind)
        device = await context.stores.people.change_device(kind, device_id, change, who, secrets)
        return NewCredential(
            **CredentialAnswer.of(device).model_dump(),
            mqtt_password=secrets.mqtt_password,
            token=secrets.token,
        )

    @routes.get("", summary=f"All {kind}s and their state", responses=problems(401, 403))
    async def list_all(_: Admin, context: Context) -> CredentialList:
        """Revoked and removed ones too."""
        found = await context.stores.people.list_devices(kind)
        return CredentialList(credentials=[CredentialAnswer.of(one) for one in found])

    @routes.post(
        "",
        status_code=201,
        summary=f"Add a {kind}; the answer holds the secrets",
        responses=problems(401, 403, 409, 413, 415),
        openapi_extra=json_request(NewDevice, {kind: {"id": example}}),
    )
    async def add(
        admin: Admin, context: Context, new: Annotated[NewDevice, Depends(json_body(NewDevice))]
    ) -> NewCredential:
        """A removed id may be added again. Its old secrets stay dead."""
        return await renew(context, new.id, "add", admin.actor_id)

    @routes.post(
        "/{device_id}/rotate",
        summary=f"Give a {kind} new secrets; the answer holds them",
        responses=problems(401, 403, 404),
    )
    async def rotate(device_id: DeviceId, admin: Admin, context: Context) -> NewCredential:
        """The old ones end within 5 s, open connections included. Ends a revocation, too."""
        return await renew(context, device_id, "rotate", admin.actor_id)

    @routes.post(
        "/{device_id}/revoke",
        summary=f"End a {kind}'s secrets until the next rotation",
        responses=problems(401, 403, 404),
    )
    async def revoke(device_id: DeviceId, admin: Admin, context: Context) -> CredentialAnswer:
        """At every door, within 5 s, open connections included."""
        return CredentialAnswer.of(await apply(context, device_id, "revoke", admin.actor_id))

    @routes.delete(
        "/{device_id}",
        summary=f"Remove a {kind}",
        responses=problems(401, 403, 404),
    )
    async def remove(device_id: DeviceId, admin: Admin, context: Context) -> CredentialAnswer:
        """Ends the secrets, and takes the id off the map and all lists. The history stays."""
        return CredentialAnswer.of(await apply(context, device_id, "remove", admin.actor_id))

    return routes


router = APIRouter()
router.include_router(_routes_of("driver", "anna"))
router.include_router(_routes_of("source", "weather"))
