"""What the routes work with, and who may call them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request

from doorstep.errors import Forbidden
from doorstep.http.tokens import BearerToken, FindToken, identify
from doorstep.store.records import Token
from tracking_api.database import Store
from tracking_api.fleet.tiles import Tiles
from tracking_api.live.service import Live
from tracking_api.track.links import COOKIE, Links
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import estimate_arrival


@dataclass(frozen=True, slots=True)
class AppContext:
    """What the routes work with."""

    store: Store
    find_token: FindToken
    links: Links
    public_url: str
    live: Live
    tiles: Tiles
    estimate: EstimateArrival = estimate_arrival

    def customer_link(self, order_id: UUID, token: str) -> str:
        """The address that a customer opens. The token stands after #: no server ever logs it."""
        return f"{self.public_url}/t/{order_id}#{token}"


async def _parts(
    request: Request,
) -> AppContext:  # async: FastAPI sends plain functions to a thread
    return cast("AppContext", request.app.state.parts)


Context = Annotated[AppContext, Depends(_parts)]


async def _staff(token: BearerToken, parts: Context) -> Token:
    holder = await identify(parts.find_token, token)
    if holder.role != "staff":
        raise Forbidden
    return holder


Staff = Annotated[Token, Depends(_staff)]


async def _link_token(request: Request, token: BearerToken) -> str | None:
    return token or request.cookies.get(COOKIE)


LinkTokenFound = Annotated[str | None, Depends(_link_token)]
"""A bearer token, or the cookie that the customer's page got for one."""


def address_of(request: Request) -> str:
    """Where a request came from, as far as is known."""
    return request.client.host if request.client else "unknown"
