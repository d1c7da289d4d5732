"""What the routes share, and access checks as dependencies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import Depends, Request

from doorstep.credentials import token_sha256
from doorstep.errors import Forbidden
from doorstep.http.openapi import DriverId
from doorstep.http.origin import check_same_origin
from doorstep.http.rate_limit import RateLimiter
from doorstep.http.sign_in_limit import SignInLimiter
from doorstep.http.tokens import BearerToken, FindToken, identify
from doorstep.settings import MqttBroker
from doorstep.store.records import Token
from driver_api.positions import PositionPublisher
from driver_api.queries import Store
from driver_api.quota_refusals import QuotaRefusals
from driver_api.service_token import SERVICE

DRIVE = "/drive"  # the courier's page, and what it uses
COURIER_COOKIE = "doorstep_courier"
READS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class PhoneDoors:
    """Where phones send to: driver_api's address, and the brokers in their order."""

    http_url: str = "http://127.0.0.1:8001"
    brokers: tuple[MqttBroker, ...] = (MqttBroker("127.0.0.1", 1883, tls=False),)


@dataclass(frozen=True, slots=True)
class AppContext:
    """What the routes share."""

    store: Store
    positions: PositionPublisher
    find_token: FindToken
    refusals: QuotaRefusals
    find_phone: FindToken
    letter_limiter: RateLimiter
    sign_in_limiter: SignInLimiter
    phone_doors: PhoneDoors
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


# The dependencies are async because FastAPI runs plain functions in a thread.


async def _context(request: Request) -> AppContext:
    return cast("AppContext", request.app.state.context)


Context = Annotated[AppContext, Depends(_context)]


async def _courier_token(request: Request, token: BearerToken) -> str | None:
    """Return a bearer token, or the cookie of the courier's page.

    With a cookie, only our own page may change something. Raises ForeignOrigin.
    """
    if token is not None or not request.scope["path"].startswith(f"{DRIVE}/"):
        return token
    session = request.cookies.get(COURIER_COOKIE)
    if session is not None and request.method not in READS:
        check_same_origin(request)
    return session


CourierToken = Annotated[str | None, Depends(_courier_token)]
"""A bearer token, or below /drive the session of the courier's page."""


async def _writer(driver_id: DriverId, token: CourierToken, context: Context) -> Token:
    """Admit the driver, a dispatcher, or driver_events' PATCH sink."""
    holder = await identify(context.find_token, token)
    is_driver = holder.role == "driver" and holder.driver_id == driver_id
    if is_driver or holder.role == SERVICE or holder.is_staff("dispatcher"):
        return holder
    raise Forbidden


async def _driver(driver_id: DriverId, token: CourierToken, context: Context) -> bytes:
    """Admit the driver only. Returns the token's SHA-256, which the database checks again."""
    holder = await identify(context.find_token, token)
    if holder.role == "driver" and holder.driver_id == driver_id:
        return token_sha256(token or "")
    raise Forbidden


Writer = Annotated[Token, Depends(_writer)]
DriverToken = Annotated[bytes, Depends(_driver)]
