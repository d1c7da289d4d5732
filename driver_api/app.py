"""The application: routes, middleware, and the lifetime of its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

from doorstep.clock_guard import ClockGuard, watched_clock
from doorstep.http.clock_gate import ClockGate
from doorstep.http.docs import docs_routes
from doorstep.http.failure_body import NewFailure
from doorstep.http.headers import SecurityHeaders
from doorstep.http.http_metrics import RequestMetrics, health_routes
from doorstep.http.openapi import install_openapi
from doorstep.http.problems import install_problem_handlers
from doorstep.http.rate_limit import RateLimiter
from doorstep.http.request_body import RequestLimits
from doorstep.http.sign_in_limit import SignInLimiter
from doorstep.http.startup import log_availability, start_task
from doorstep.http.token_guessing import TokenGuessing
from doorstep.http.tokens import TokenCache
from driver_api import drive_routes, end_routes, join_routes
from driver_api.context import DRIVE, AppContext, PhoneDoors
from driver_api.phone_routes import BURST_LETTERS, LETTERS_PER_MINUTE, PHONE_PATHS
from driver_api.phone_routes import router as phone_router
from driver_api.positions import KafkaPositions, PositionPublisher
from driver_api.queries import Store, open_queries
from driver_api.quota_refusals import QuotaRefusals
from driver_api.routes import router
from driver_api.schemas import Delivery, DriverTokenBody, FixBody, FixesBody, InvitationBody
from driver_api.service_token import accept_service_token
from driver_api.settings import Settings

BODIES: list[type[BaseModel]] = [
    FixBody,
    FixesBody,
    Delivery,
    NewFailure,
    DriverTokenBody,
    InvitationBody,
]


def build_app(
    store: Store,
    positions: PositionPublisher,
    service_token: str = "",
    phone_doors: PhoneDoors | None = None,
    clock: ClockGuard | None = None,
) -> FastAPI:
    """Build the application over a given store."""
    clock = clock or ClockGuard()
    app = _bare_app(clock)
    _set_context(app, store, positions, service_token, phone_doors or PhoneDoors(), clock)
    return app


def build_service(settings: Settings) -> FastAPI:
    """Build the application that opens its own connections when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        url = settings.database_url.get_secret_value()
        async with open_queries(url, settings.database_pool_size) as store:
            positions = KafkaPositions(settings.kafka, settings.kafka_positions_topic)
            doors = PhoneDoors(settings.phone_http_url.rstrip("/"), settings.phone_mqtt_url)
            token = settings.driver_api_token.get_secret_value()
            _set_context(app, store, positions, token, doors, clock)
            task = start_task(log_availability(store.is_available))
            try:
                yield
            finally:
                task.cancel()
                positions.close()

    clock = watched_clock()
    app = _bare_app(clock)
    app.router.lifespan_context = lifespan
    return app


def _set_context(
    app: FastAPI,
    store: Store,
    positions: PositionPublisher,
    service_token: str,
    phone_doors: PhoneDoors,
    clock: ClockGuard,
) -> None:
    find_token = accept_service_token(TokenCache(store.find_token), service_token)
    letters = RateLimiter(LETTERS_PER_MINUTE / 60, BURST_LETTERS)
    find_phone = TokenCache(store.find_phone)
    app.state.context = AppContext(
        store,
        positions,
        find_token,
        QuotaRefusals(),
        find_phone,
        letters,
        SignInLimiter(),
        phone_doors,
        clock.now,
    )


def _bare_app(clock: ClockGuard) -> FastAPI:
    app = FastAPI(
        title="Doorstep driver_api",
        version="0.5.0",
        summary="Fixes over HTTP, duty, and what a driver does with an order.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # such a redirect would name the host that the request named
    )

    async def required() -> Mapping[str, bool]:
        context: AppContext = app.state.context
        return {
            "database": await context.store.is_available(),
            "clock": clock.is_trusted(),
        }

    for one in (router, end_routes.router):
        app.include_router(one)
        app.include_router(one, prefix=DRIVE, include_in_schema=False)  # with the page's cookie
    app.include_router(drive_routes.router)
    app.include_router(drive_routes.page_router)
    app.include_router(join_routes.router)
    app.include_router(phone_router)
    app.include_router(health_routes(required))
    app.include_router(docs_routes(app))
    app.mount("/assets", drive_routes.ASSETS)
    install_problem_handlers(app)
    install_openapi(app, BODIES)
    app.add_middleware(ClockGate, clock=clock)
    app.add_middleware(
        RequestLimits, unlimited_paths=PHONE_PATHS, unlimited_pattern=end_routes.PHOTO_PATHS
    )
    app.add_middleware(TokenGuessing, delayed_paths=PHONE_PATHS)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestMetrics)  # the outermost
    return app
