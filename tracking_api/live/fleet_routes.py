"""The fleet's stream, for staff."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from doorstep.credentials import token_sha256
from doorstep.http.openapi import problems
from doorstep.http.tokens import BearerToken
from tracking_api.context import AppContext, Context, Staff
from tracking_api.fleet.viewports import Box, BoxQuery, parse_box
from tracking_api.live.fleet_channel import MOST_DRIVERS, USUAL_DRIVERS, FleetChannel
from tracking_api.live.response import LiveResponse

router = APIRouter(tags=["live"])


class FleetStream(LiveResponse):
    """The frames of one viewport."""

    def __init__(self, context: AppContext, sha256: bytes, box: Box, most: int) -> None:
        super().__init__(context.live.crowd, sha256)
        self._fleet: FleetChannel = context.live.fleet
        self._box, self._most = box, most

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        await self._fleet.open()
        viewer = await self.start(scope, send, self._fleet.leave)
        self._fleet.enter(viewer, self._box, self._most)


@router.get(
    "/fleet/stream",
    summary="Follow the fleet in a viewport: server-sent events",
    responses={
        200: {
            "description": "`snapshot`, then each second `drivers`: what moved and who is `gone`. "
            "More than `most` drivers in view come as `clusters`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(401, 403),
    },
    response_class=Response,
)
async def follow_fleet(
    _: Staff,
    token: BearerToken,
    context: Context,
    bbox: BoxQuery = None,
    most: Annotated[
        int,
        Query(ge=1, le=MOST_DRIVERS, description="Drivers one by one; more come as clusters."),
    ] = USUAL_DRIVERS,
) -> Response:
    """Rows are as in /drivers/positions. Ask again with another `bbox` when the map moves."""
    box = parse_box(bbox)
    sha256 = token_sha256(token or "")
    context.live.crowd.check_room(sha256, staff=True)
    return FleetStream(context, sha256, box, most)
