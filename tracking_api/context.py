"""What the routes share, and access checks as dependencies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request

from doorstep.errors import Forbidden
from doorstep.http.origin import check_origin
from doorstep.http.rate_limit import RateLimiter
from doorstep.http.sign_in_limit import SignInLimiter
from doorstep.http.tokens import BearerToken, FindToken, identify, read_bearer
from doorstep.store.records import Token
from tracking_api.city_folders import CityFolders
from tracking_api.fleet.tiles import TileCache
from tracking_api.live.service import Live
from tracking_api.observe.kafka_view import KafkaView
from tracking_api.observe.prometheus import PrometheusReader
from tracking_api.people.read_log import ReadLog
from tracking_api.places.search import PlaceSearch
from tracking_api.stores import Stores
from tracking_api.track.links import COOKIE, Links
from tracking_api.track.road_eta import EstimateArrival, EstimateRide, no_ride
from tracking_api.track.straight_eta import estimate_arrival
from tracking_api.track.track_answers import TrackAnswers

STAFF_COOKIE = "doorstep_staff"
READS = ("GET", "HEAD")
MAX_SUBJECT_CHARS = 200


@dataclass(frozen=True, slots=True)
class AppContext:
    """What the routes share."""

    stores: Stores
    find_token: FindToken
    links: Links
    public_url: str
    live: Live
    tiles: TileCache
    cities: CityFolders
    read_log: ReadLog
    history_limiter: RateLimiter
    staff_history_limiter: RateLimiter
    sign_in_limiter: SignInLimiter
    join_url: str
    answers: TrackAnswers
    estimate: EstimateArrival = estimate_arrival
    ride: EstimateRide = no_ride
    places: PlaceSearch = field(default_factory=PlaceSearch)
    prometheus: PrometheusReader = field(default_factory=lambda: PrometheusReader(""))
    kafka_view: KafkaView | None = None
    push_key: str | None = None  # the public VAPID key; None without web push

    def note_read(self, request: Request, holder: Token | None) -> None:
        """Collect a read of an order by staff for the audit. Customers' have no token here."""
        if holder is not None:
            route = f"{request.method} {request.scope['route'].path}"
            self.read_log.add(holder.actor_id, route, *_subjects(request))

    def limit_staff_history(self, holder: Token, cost: float = 1) -> None:
        """Count a read of the past. Raises TooManyRequests for staff who read too many."""
        self.staff_history_limiter.take(holder.actor_id, cost)

    def customer_link(self, order_id: UUID, token: str) -> str:
        """Return a customer's link. The token follows #, so servers never log it."""
        return f"{self.public_url}/t/{order_id}#{token}"


def _subjects(request: Request) -> list[str]:
    """Return what a path names, for the audit: not yet validated, so only what can be printed.

    The database stores no U+0000, and a terminal obeys control characters.
    """
    values = [str(value)[:MAX_SUBJECT_CHARS] for value in request.path_params.values()]
    return [
        "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in value)
        for value in values
    ]


# The dependencies are async because FastAPI runs plain functions in a thread.


def context_of(request: Request) -> AppContext:
    """Return what the routes share."""
    return cast("AppContext", request.app.state.context)


async def _context(request: Request) -> AppContext:
    return context_of(request)


Context = Annotated[AppContext, Depends(_context)]


async def _staff_token(request: Request, token: BearerToken, context: Context) -> str | None:
    """Return a bearer token, or the cookie of a session.

    With a cookie, only our own pages may change something. Raises ForeignOrigin.
    """
    if token is not None:
        return token
    session = request.cookies.get(STAFF_COOKIE)
    if session is not None and request.method not in READS:
        check_origin(request, context.public_url)
    return session


StaffToken = Annotated[str | None, Depends(_staff_token)]
"""A bearer token, or the session of a staff page."""


async def _staff(request: Request, token: StaffToken, context: Context) -> Token:
    """Admit viewers to reads, dispatchers to the rest. Both are recorded in the audit.

    A read is recorded with others of the minute; the rest before it runs, whatever its outcome.
    """
    holder = await identify(context.find_token, token)
    is_read = request.method in READS
    if not holder.is_staff("viewer" if is_read else "dispatcher"):
        raise Forbidden
    route = f"{request.method} {request.scope['route'].path}"
    subjects = _subjects(request)
    if is_read:
        context.read_log.add(holder.actor_id, route, *subjects)
    else:
        subject = "/".join(subjects) or None
        await context.stores.people.record_audit(holder.actor_id, route, subject, None)
    return holder


async def admit_staff(request: Request) -> tuple[AppContext, Token]:
    """Admit staff to a direct route, which only reads; return what the routes share, and who."""
    context = context_of(request)
    token = await _staff_token(request, read_bearer(request), context)
    return context, await _staff(request, token, context)


async def _dispatcher(token: StaffToken, context: Context) -> Token:
    holder = await identify(context.find_token, token)
    if not holder.is_staff("dispatcher"):
        raise Forbidden
    return holder


async def _admin(token: StaffToken, context: Context) -> Token:
    holder = await identify(context.find_token, token)
    if not holder.is_staff("admin"):
        raise Forbidden
    return holder


Staff = Annotated[Token, Depends(_staff)]
# For commands whose transaction writes the audit itself.
Dispatcher = Annotated[Token, Depends(_dispatcher)]
Admin = Annotated[Token, Depends(_admin)]


def read_link_token(request: Request) -> str | None:
    """Return a bearer token, or the cookie of the customer's page or of a staff page."""
    token = read_bearer(request)
    if token:
        return token
    cookies = request.cookies
    return cookies.get(COOKIE) or cookies.get(STAFF_COOKIE)


async def _link_token(request: Request, _: BearerToken) -> str | None:
    return read_link_token(request)


LinkTokenFound = Annotated[str | None, Depends(_link_token)]
"""A bearer token, or the cookie of the customer's page or of a staff page. For reads only."""
