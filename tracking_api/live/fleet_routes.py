"""The stream of the fleet, for staff."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from doorstep.credentials import token_sha256
from doorstep.http.openapi import problems
from tracking_api.context import AppContext, Context, Staff, StaffToken
from tracking_api.fleet.viewports import Box, BoxQuery, parse_box
from tracking_api.live.fleet_channel import DEFAULT_DRIVERS, MAX_DRIVERS, FleetChannel
from tracking_api.live.response import LiveResponse

router = APIRouter(tags=["live"])


class FleetStream(LiveResponse):
    """The frames of one viewport."""

    def __init__(self, context: AppContext, sha256: bytes, box: Box, max_drivers: int) -> None:
        super().__init__(context.live.connections, sha256)
        self._fleet: FleetChannel = context.live.fleet
        self._box, self._max_drivers = box, max_drivers

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        async with (
            self._fleet.opened(),
            self.started(scope, send, self._fleet.unsubscribe) as viewer,
        ):
            self._fleet.subscribe(viewer, self._box, self._max_drivers)


@router.get(
    "/fleet/stream",
    summary="Follow the fleet in a viewport: server-sent events",
    responses={
        200: {
            "description": "`snapshot`, then each second `drivers`: changed rows, and ids `gone`. "
            "More than `most` drivers in view come as `clusters`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(401, 403),
    },
    response_class=Response,
)
async def follow_fleet(
    _: Staff,
    token: StaffToken,
    context: Context,
    bbox: BoxQuery = None,
    most: Annotated[
        int,
        Query(
            ge=1,
            le=MAX_DRIVERS,
            description="Single drivers; more come as clusters.",
        ),
    ] = DEFAULT_DRIVERS,
) -> Response:
    """Rows are as in /drivers/positions. Open another stream when the map moves."""
    box = parse_box(bbox)
    sha256 = token_sha256(token or "")
    context.live.connections.check_capacity(sha256, staff=True)
    return FleetStream(context, sha256, box, most)
