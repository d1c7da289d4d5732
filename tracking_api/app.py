"""The application: routes, middleware, and the lifetime of its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from doorstep.administration.fields import (
    AreaChange,
    DriverChange,
    NewArea,
    NewDriver,
    NewPolicy,
    NewRestaurant,
    PolicyChange,
    RestaurantChange,
)
from doorstep.clock_guard import ClockGuard, watched_clock
from doorstep.http.clock_gate import ClockGate
from doorstep.http.direct_routes import DirectRoute, DirectRoutes
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
from tracking_api import cities, pages
from tracking_api.administration import (
    area_routes,
    policy_routes,
    restaurant_routes,
)
from tracking_api.administration import (
    driver_routes as driver_administration,
)
from tracking_api.administration.csv_routes import import_path
from tracking_api.administration.queries import AREA, DRIVER, POLICY, RESTAURANT
from tracking_api.alerts import routes as alert_routes
from tracking_api.batching import BatchLoader
from tracking_api.city_folders import CityFolders
from tracking_api.context import AppContext
from tracking_api.fleet import dispatch_routes, driver_routes
from tracking_api.fleet.schemas import SamplingSettings, StopSequence
from tracking_api.fleet.tiles import TileCache
from tracking_api.history import order_routes as order_history_routes
from tracking_api.history import routes as history_routes
from tracking_api.live import fleet_routes as fleet_stream_routes
from tracking_api.live import routes as order_stream_routes
from tracking_api.live import topic_routes
from tracking_api.live.detachable_protocol import ADMISSION
from tracking_api.live.service import Live
from tracking_api.live.topic_follower import TopicStreams
from tracking_api.observe import routes as observe_routes
from tracking_api.observe.kafka_view import KafkaView
from tracking_api.observe.prometheus import PrometheusReader
from tracking_api.orders import cancel_routes, decision_routes, end_routes, offer_routes
from tracking_api.orders import routes as order_routes
from tracking_api.orders.detail_schemas import NewOrder
from tracking_api.orders.end_schemas import HandOver
from tracking_api.orders.imports import IMPORT_PATH as ORDERS_IMPORT
from tracking_api.orders.offer_schemas import OfferChoice
from tracking_api.orders.schemas import Cancellation, DriverChoice
from tracking_api.people import device_routes, invitation_routes, session_routes
from tracking_api.people import routes as people_routes
from tracking_api.people.read_log import ReadLog
from tracking_api.people.schemas import NewDevice, NewStaff, StaffRotation, StaffTokenBody
from tracking_api.places import routes as place_routes
from tracking_api.push.web_push import VapidKey, WebPushNotifier
from tracking_api.push.worker import PushWorker
from tracking_api.reports import routes as report_routes
from tracking_api.restaurant import routes as restaurant_page_routes
from tracking_api.restaurant.schemas import Confirmation, Readiness
from tracking_api.series import routes as series_routes
from tracking_api.series import simulation_routes
from tracking_api.series.schemas import SimulationCount
from tracking_api.series.streams import points_frame
from tracking_api.settings import Serves, Settings
from tracking_api.stores import Stores, open_stores
from tracking_api.track import page_routes, photo_routes
from tracking_api.track import routes as track_routes
from tracking_api.track.customer_queries import HeldEstimate
from tracking_api.track.links import (
    BAD_LINKS_PER_S,
    BURST_BAD_LINKS,
    CustomerDoor,
    Links,
    StaffDoor,
)
from tracking_api.track.page_schemas import DoorNote, NewSubscription
from tracking_api.track.road_eta import EstimateArrival, RoadEta, no_ride
from tracking_api.track.schemas import LinkToken
from tracking_api.track.straight_eta import estimate_arrival
from tracking_api.track.track_answers import TrackAnswers
from tracking_api.webhooks import routes as webhook_routes
from tracking_api.webhooks.schemas import NewWebhook, WebhookChange

BODIES: list[type[BaseModel]] = [Cancellation, LinkToken, DoorNote, NewSubscription]
STAFF_BODIES: list[type[BaseModel]] = [
    NewOrder,
    DriverChoice,
    OfferChoice,
    NewFailure,
    HandOver,
    NewDriver,
    DriverChange,
    NewRestaurant,
    RestaurantChange,
    NewArea,
    AreaChange,
    NewPolicy,
    PolicyChange,
    SamplingSettings,
    StopSequence,
    SimulationCount,
    NewStaff,
    StaffRotation,
    NewDevice,
    StaffTokenBody,
    Confirmation,
    Readiness,
    NewWebhook,
    WebhookChange,
]

# Of one order's customers: a page reads the history once, and a family shares a token.
HISTORIES_PER_S = 2.0
BURST_HISTORIES = 60
# Of one member of staff: a replay reads one as often as the map is moved. A file costs ten.
STAFF_HISTORIES_PER_S = 5.0
STAFF_BURST_HISTORIES = 150

ADMINISTRATION = (driver_administration, restaurant_routes, area_routes, policy_routes)
# These limit their bodies themselves.
IMPORTS = [*(import_path(one) for one in (DRIVER, RESTAURANT, AREA, POLICY)), ORDERS_IMPORT]

# Routes are matched in this order; viewers reconnect all at once after a restart, so they come
# first. Each with the side that it serves: `all` answers customers by their link, and staff.
ROUTES: tuple[tuple[APIRouter, Serves], ...] = (
    (pages.series_router, "staff"),  # before the list of series
    (order_stream_routes.router, "all"),
    (track_routes.router, "all"),
    (track_routes.session_router, "customers"),
    (page_routes.router, "customers"),
    (order_history_routes.router, "all"),
    (cancel_routes.router, "all"),
    (photo_routes.router, "all"),
    (offer_routes.router, "staff"),  # before the orders by id
    (end_routes.router, "staff"),
    (order_routes.router, "staff"),
    (decision_routes.router, "staff"),
    (place_routes.router, "staff"),
    (fleet_stream_routes.router, "staff"),
    (dispatch_routes.router, "staff"),
    (history_routes.router, "staff"),
    (topic_routes.router, "staff"),
    (series_routes.router, "staff"),
    (simulation_routes.router, "staff"),
    (driver_routes.router, "staff"),
    *((one.tables, "staff") for one in ADMINISTRATION),
    *((one.router, "staff") for one in ADMINISTRATION),
    (restaurant_page_routes.router, "staff"),
    (report_routes.router, "staff"),
    (alert_routes.router, "staff"),
    (webhook_routes.router, "staff"),
    (people_routes.router, "staff"),
    (device_routes.router, "staff"),
    (invitation_routes.router, "staff"),
    (session_routes.router, "staff"),
    (observe_routes.router, "staff"),
    (pages.staff_router, "staff"),
    (pages.customer_router, "customers"),
    (pages.router, "all"),
    (cities.router, "all"),
    (cities.tiles_router, "all"),
)


# Answered before the framework's routing: what customers and the fleet's map request all the time.
DIRECT_ROUTES = (*track_routes.DIRECT, *order_stream_routes.DIRECT)
CUSTOMER_DIRECT_ROUTES = track_routes.SESSION_DIRECT
STAFF_DIRECT_ROUTES = (
    *driver_routes.DIRECT,
    *dispatch_routes.DIRECT,
    *history_routes.DIRECT,
)


def build_app(stores: Stores, public_url: str, clock: ClockGuard | None = None) -> FastAPI:
    """Build the application over given stores, without Kafka: for tests."""

    live = Live(stores)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        live.start(None)
        yield _state_of(live)
        await live.close()
        await app.state.context.read_log.flush_or_log()

    app = _bare_app(stores.serves, clock or ClockGuard())
    _set_context(app, stores, public_url, live)
    app.router.lifespan_context = lifespan
    return app


def build_service(settings: Settings) -> FastAPI:
    """Build the application that opens its own connections when it starts."""
    secret = settings.vapid_key.get_secret_value()
    key = VapidKey(secret) if secret else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        urls = settings.staff_url, settings.customers_url
        async with open_stores(*urls, settings.database_pool_size) as stores:
            series_topic = settings.kafka_series_topic
            topics = TopicStreams(settings.kafka, settings.topics, {series_topic: points_frame})
            estimate = RoadEta(cities_dir=settings.cities_dir)
            live = Live(stores, settings.live_max_viewers, topics, series_topic, estimate)
            public_url = settings.tracking_api_public_url
            kafka_view = KafkaView(
                settings.kafka, settings.readable_topics, settings.stored_groups, stores.offsets
            )
            _set_context(
                app,
                stores,
                public_url,
                live,
                estimate,
                estimate.held,
                settings.cities_dir,
                settings.prometheus_url,
                kafka_view,
                settings.join_url,
                key.public if key is not None else None,
            )
            worker = _push_worker(settings, stores, key)
            if worker is not None:
                live.on_orders = worker.orders_changed
            live.start(settings)
            tasks = [
                start_task(log_availability(stores.is_available)),
                start_task(app.state.context.read_log.run()),
                start_task(
                    estimate.keep_model_current(
                        stores.eta.read_eta_model, lambda: live.admission.is_busy
                    )
                ),
                *([start_task(worker.run())] if worker is not None else []),
            ]
            try:
                yield _state_of(live)
            finally:
                for task in tasks:
                    task.cancel()
                if worker is not None:
                    await worker.close()
                kafka_view.close()
                await live.close()
                await app.state.context.read_log.flush_or_log()

    app = _bare_app(settings.tracking_api_serves, watched_clock())
    app.router.lifespan_context = lifespan
    return app


def _push_worker(settings: Settings, stores: Stores, key: VapidKey | None) -> PushWorker | None:
    """Return who sends notifications: a process that serves staff, if there is a key."""
    if key is None or stores.serves == "customers":
        return None
    return PushWorker(stores.push, WebPushNotifier(key, settings.push_contact_url))


def _state_of(live: Live) -> Mapping[str, Any]:
    """Return what each connection gets: who admits its streams, where customers are served."""
    return {ADMISSION: live.admission} if live.customers in live.hubs else {}


def _set_context(
    app: FastAPI,
    stores: Stores,
    public_url: str,
    live: Live,
    estimate: EstimateArrival = estimate_arrival,
    held_estimate: HeldEstimate | None = None,
    cities_dir: Path | None = None,
    prometheus_url: str = "",
    kafka_view: KafkaView | None = None,
    join_url: str = "",
    push_key: str | None = None,
) -> None:
    customers, staff = None, None
    if stores.serves != "staff":
        read_tracks = partial(stores.customers.read_tracks, held=held_estimate)
        customers = CustomerDoor(
            BatchLoader(stores.customers.find_good_links),
            BatchLoader(read_tracks, batches_per_s=None),
        )
    if stores.serves != "customers":
        staff = StaffDoor(
            BatchLoader(stores.tokens.find_tokens),
            BatchLoader(stores.track.read_tracks, batches_per_s=None),
        )
    app.state.context = AppContext(
        stores=stores,
        find_token=TokenCache(stores.tokens.find_token),
        links=Links(
            customers,
            staff,
            RateLimiter(BAD_LINKS_PER_S, BURST_BAD_LINKS),
            live.note_watched,
        ),
        public_url=public_url,
        live=live,
        tiles=TileCache(stores.dispatch),
        cities=CityFolders(cities_dir),
        read_log=ReadLog(stores.people),
        history_limiter=RateLimiter(HISTORIES_PER_S, BURST_HISTORIES),
        staff_history_limiter=RateLimiter(STAFF_HISTORIES_PER_S, STAFF_BURST_HISTORIES),
        sign_in_limiter=SignInLimiter(),
        join_url=join_url or f"{public_url}/join",
        answers=TrackAnswers(estimate, estimate.arrival if isinstance(estimate, RoadEta) else None),
        estimate=estimate,
        prometheus=PrometheusReader(prometheus_url),
        kafka_view=kafka_view,
        push_key=push_key,
        ride=estimate.ride if isinstance(estimate, RoadEta) else no_ride,
    )


def _bare_app(serves: Serves, clock: ClockGuard) -> FastAPI:
    app = FastAPI(
        title="Doorstep tracking_api",
        version="0.5.0",
        summary="Orders, where they are, and the fleet.",
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it has its own
        redirect_slashes=False,  # such a redirect would name the host that the request named
    )

    async def required() -> Mapping[str, bool]:
        context: AppContext = app.state.context
        return {"database": await context.stores.is_available()}

    async def optional() -> Mapping[str, bool]:
        context: AppContext = app.state.context
        return {"kafka": context.live.is_kafka_connected, "clock": clock.is_trusted()}

    for router, side in ROUTES:
        if side == "all" or serves in (side, "all"):
            app.include_router(router)
    app.include_router(health_routes(required, optional))
    app.include_router(docs_routes(app))
    if serves != "customers":
        app.webhooks.include_router(webhook_routes.messages)
    app.mount("/assets", pages.ASSETS)
    install_problem_handlers(app)
    app.add_middleware(DirectRoutes, routes=_direct_routes(serves))  # innermost
    install_openapi(app, BODIES if serves == "customers" else BODIES + STAFF_BODIES)
    app.add_middleware(ClockGate, clock=clock)
    app.add_middleware(RequestLimits, unlimited_paths=IMPORTS)
    app.add_middleware(TokenGuessing)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestMetrics)  # the outermost
    return app


def _direct_routes(serves: Serves) -> tuple[DirectRoute, ...]:
    staff = () if serves == "customers" else STAFF_DIRECT_ROUTES
    customers = () if serves == "staff" else CUSTOMER_DIRECT_ROUTES
    return (*DIRECT_ROUTES, *customers, *staff)
