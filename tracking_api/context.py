"""What the routes share, and access checks as dependencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request

from doorstep.errors import Forbidden
from doorstep.http.tokens import BearerToken, FindToken, identify
from doorstep.store.records import Token
from tracking_api.fleet.tiles import TileCache
from tracking_api.live.service import Live
from tracking_api.stores import Stores
from tracking_api.track.links import COOKIE, Links
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import estimate_arrival


@dataclass(frozen=True, slots=True)
class AppContext:
    """What the routes share."""

    stores: Stores
    find_token: FindToken
    links: Links
    public_url: str
    live: Live
    tiles: TileCache
    estimate: EstimateArrival = estimate_arrival

    def customer_link(self, order_id: UUID, token: str) -> str:
        """Return a customer's link. The token follows #, so servers never log it."""
        return f"{self.public_url}/t/{order_id}#{token}"


# The dependencies are async because FastAPI runs plain functions in a thread.


async def _context(request: Request) -> AppContext:
    return cast("AppContext", request.app.state.context)


Context = Annotated[AppContext, Depends(_context)]


async def _staff(token: BearerToken, context: Context) -> Token:
    holder = await identify(context.find_token, token)
    if holder.role != "staff":
        raise Forbidden
    return holder


Staff = Annotated[Token, Depends(_staff)]


async def _link_token(request: Request, token: BearerToken) -> str | None:
    return token or request.cookies.get(COOKIE)


LinkTokenFound = Annotated[str | None, Depends(_link_token)]
"""A bearer token, or the customer's page's cookie."""


def client_address(request: Request) -> str:
    """Return the client's address, or `unknown`."""
    return request.client.host if request.client else "unknown"
