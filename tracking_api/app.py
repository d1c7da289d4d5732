"""The application: routes, middleware, and the life of what they work with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

from doorstep.http.docs import docs_routes
from doorstep.http.headers import SecurityHeaders
from doorstep.http.http_metrics import RequestMetrics, health_routes
from doorstep.http.openapi import install_openapi
from doorstep.http.problems import install_problem_handlers
from doorstep.http.rate_limit import RateLimiter
from doorstep.http.request_body import RequestLimits
from doorstep.http.startup import report_waiting
from doorstep.http.tokens import TokenCache
from tracking_api import pages
from tracking_api.batching import BatchLoader
from tracking_api.context import AppContext
from tracking_api.database import Database, Store
from tracking_api.fleet import dispatch_routes, driver_routes, simulation_routes
from tracking_api.fleet import routes as fleet_routes
from tracking_api.fleet.tiles import Tiles
from tracking_api.history import routes as history_routes
from tracking_api.live import routes as live_routes
from tracking_api.live import topic_routes
from tracking_api.live.service import Live
from tracking_api.live.topic_follower import Topics
from tracking_api.orders import policy_routes
from tracking_api.orders import routes as order_routes
from tracking_api.schemas import (
    Cancellation,
    DriverChoice,
    LinkToken,
    NewOrder,
    NewPolicy,
    Reporting,
)
from tracking_api.series import routes as series_routes
from tracking_api.series.live import points_frame
from tracking_api.series.queries import SimulationCount
from tracking_api.settings import Settings
from tracking_api.track import routes as track_routes
from tracking_api.track.links import BAD_LINKS_PER_S, BURST_BAD_LINKS, Links
from tracking_api.track.road_eta import EstimateArrival, RoadEta
from tracking_api.track.straight_eta import estimate_arrival

BODIES: list[type[BaseModel]] = [
    NewOrder,
    DriverChoice,
    Cancellation,
    LinkToken,
    NewPolicy,
    Reporting,
    SimulationCount,
]

ROUTES = (
    live_routes,  # first: they are matched in this order, and 18,000 viewers come back at once
    track_routes,
    order_routes,
    fleet_routes,
    dispatch_routes,
    history_routes,
    topic_routes,
    series_routes,
    simulation_routes,
    driver_routes,
    policy_routes,
    pages,
)


def build_app(store: Store, public_url: str) -> FastAPI:
    """Build the application over a store, without Kafka: the tests' way in."""

    live = Live(store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.start(None)
        yield
        await live.close()

    app = _bare_app()
    _hand_in(app, store, public_url, live)
    app.router.lifespan_context = lifespan
    return app


def build_service(settings: Settings) -> FastAPI:
    """Build the application that opens its own connections when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = await Database.open(
            settings.database_url.get_secret_value(), settings.database_pool_size
        )
        series_topic = settings.kafka_series_topic
        topics = Topics(settings.kafka, settings.topics, {series_topic: points_frame})
        arrivals = RoadEta()
        live = Live(database, settings.live_max_viewers, topics, series_topic, arrivals)
        _hand_in(app, database, settings.tracking_api_public_url, live, arrivals)
        live.start(settings)
        waiting = asyncio.create_task(report_waiting(database.is_there))
        learned = asyncio.create_task(arrivals.keep_learned(database.read_eta_model))
        try:
            yield
        finally:
            waiting.cancel()
            learned.cancel()
            await live.close()
            await database.close()

    app = _bare_app()
    app.router.lifespan_context = lifespan
    return app


def _hand_in(
    app: FastAPI,
    store: Store,
    public_url: str,
    live: Live,
    estimate: EstimateArrival = estimate_arrival,
) -> None:
    app.state.parts = AppContext(
        store,
        TokenCache(store.find_token),
        Links(BatchLoader(store.find_tokens), RateLimiter(BAD_LINKS_PER_S, BURST_BAD_LINKS)),
        public_url,
        live,
        Tiles(store),
        estimate,
    )


def _bare_app() -> FastAPI:
    app = FastAPI(
        title="Doorstep tracking_api",
        version="0.1.0",
        summary="Orders, where they are, and the fleet.",
        docs_url=None,
        redoc_url=None,
    )

    async def dependencies() -> Mapping[str, bool]:
        parts: AppContext = app.state.parts
        return {"database": await parts.store.is_there()}

    async def beside() -> Mapping[str, bool]:
        parts: AppContext = app.state.parts
        return {"kafka": parts.live.kafka_is_there}

    app.include_router(pages.series_router)  # before the list of series
    for module in ROUTES:
        app.include_router(module.router)
    app.include_router(health_routes(dependencies, beside))
    app.include_router(docs_routes(app))
    app.mount("/assets", pages.Assets())
    install_problem_handlers(app)
    install_openapi(app, BODIES)
    app.add_middleware(RequestLimits)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestMetrics)  # the outermost
    return app
