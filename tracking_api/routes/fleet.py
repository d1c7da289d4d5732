"""The fleet's stream, for staff."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from doorstep.credentials import token_sha256
from doorstep.web.openapi import problems
from doorstep.web.problems import UnusableRequest
from doorstep.web.tokens import BearerToken
from tracking_api.live.fleet import Box, Fleet
from tracking_api.live.response import LiveResponse
from tracking_api.routes.parts import Have, Parts, Staff

router = APIRouter(tags=["live"])

EVERYWHERE = Box(-180.0, -90.0, 180.0, 90.0)


class FleetStream(LiveResponse):
    """The frames of one viewport."""

    def __init__(self, parts: Parts, sha256: bytes, box: Box) -> None:
        super().__init__(parts.live.crowd, sha256)
        self._fleet: Fleet = parts.live.fleet
        self._box = box

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        await self._fleet.open()
        viewer = await self.start(scope, send, self._fleet.leave)
        self._fleet.enter(viewer, self._box)


@router.get(
    "/fleet/stream",
    summary="Follow the fleet in a viewport: server-sent events",
    responses={
        200: {
            "description": "`snapshot`, then each second `drivers`: what moved and who is `gone`. "
            "More than 2,000 drivers in view come as `clusters`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(401, 403),
    },
    response_class=Response,
)
async def follow_fleet(
    _: Staff,
    token: BearerToken,
    parts: Have,
    bbox: Annotated[
        str | None,
        Query(max_length=200, description="west,south,east,north in degrees; else everywhere."),
    ] = None,
) -> Response:
    """Rows are as in /drivers/positions. Ask again with another `bbox` when the map moves."""
    box = EVERYWHERE if bbox is None else _box_of(bbox)
    sha256 = token_sha256(token or "")
    parts.live.crowd.check_room(sha256, staff=True)
    return FleetStream(parts, sha256, box)


def _box_of(text: str) -> Box:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        west = south = east = north = float("nan")
    if -180 <= west < east <= 180 and -90 <= south < north <= 90:
        return Box(west, south, east, north)
    complaint = {"loc": "query.bbox", "msg": "not west,south,east,north", "reason": "out_of_range"}
    raise UnusableRequest([complaint])
