"""The stores of all domains: the seam between routes and database.

Customers have a pool of their own, with a role that can read nothing but what they may see. A
process that serves one side only has one pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from doorstep.store.deadline import is_available
from doorstep.store.pool import Pool, open_pool
from tracking_api.administration.queries import AdministrationQueries, AdministrationStore
from tracking_api.alerts.queries import AlertQueries, AlertStore
from tracking_api.fleet.dispatch_queries import DispatchQueries, DispatchStore
from tracking_api.fleet.driver_queries import DriverQueries, DriverStore
from tracking_api.fleet.queries import FleetQueries, FleetStore
from tracking_api.history.queries import HistoryQueries, HistoryStore
from tracking_api.observe.queries import OffsetQueries, OffsetStore
from tracking_api.orders.decision_queries import DecisionQueries, DecisionStore
from tracking_api.orders.offer_queries import OfferQueries, OfferStore
from tracking_api.orders.queries import OrderQueries, OrderStore
from tracking_api.people.queries import PeopleQueries, PeopleStore
from tracking_api.push.queries import PushQueries, PushStore
from tracking_api.reports.queries import ReportQueries, ReportStore
from tracking_api.restaurant.queries import RestaurantQueries, RestaurantStore
from tracking_api.series.queries import SeriesQueries, SeriesStore
from tracking_api.settings import Serves
from tracking_api.tokens import TokenQueries, TokenStore
from tracking_api.track.customer_queries import CustomerQueries, CustomerStore
from tracking_api.track.eta_queries import EtaQueries, EtaStore
from tracking_api.track.page_queries import CustomerPageQueries, CustomerPageStore
from tracking_api.track.queries import TrackQueries, TrackReader
from tracking_api.webhooks.queries import WebhookQueries, WebhookStore

STAFF_STORES: dict[str, Callable[[Pool], Any]] = {
    "tokens": TokenQueries,
    "orders": OrderQueries,
    "offers": OfferQueries,
    "track": TrackQueries,
    "drivers": DriverQueries,
    "fleet": FleetQueries,
    "dispatch": DispatchQueries,
    "decisions": DecisionQueries,
    "history": HistoryQueries,
    "series": SeriesQueries,
    "people": PeopleQueries,
    "administration": AdministrationQueries,
    "push": PushQueries,
    "restaurants": RestaurantQueries,
    "reports": ReportQueries,
    "alerts": AlertQueries,
    "webhooks": WebhookQueries,
    "offsets": OffsetQueries,
}


class NotServed:
    """Every store of a side that this process does not serve: there is no pool for it."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def refuse(*_: object, **__: object) -> Any:
            raise RuntimeError(f"{name}: this process does not serve that side")

        return refuse


_NOT_SERVED: Any = NotServed()


@dataclass(frozen=True, slots=True)
class Stores:
    """One store per domain, and one for customers.

    `is_available` returns within 2 s whether the database answers.
    """

    tokens: TokenStore
    orders: OrderStore
    offers: OfferStore
    track: TrackReader
    drivers: DriverStore
    fleet: FleetStore
    dispatch: DispatchStore
    decisions: DecisionStore
    history: HistoryStore
    series: SeriesStore
    people: PeopleStore
    administration: AdministrationStore
    push: PushStore
    restaurants: RestaurantStore
    reports: ReportStore
    alerts: AlertStore
    webhooks: WebhookStore
    offsets: OffsetStore
    customers: CustomerStore
    customer_page: CustomerPageStore
    eta: EtaStore
    is_available: Callable[[], Awaitable[bool]]
    serves: Serves = "all"

    @classmethod
    def backed_by(cls, store: Any, serves: Serves = "all") -> Self:
        """Use one object as every store that is served, for tests and benchmarks."""
        staff, customers = (
            store if serves in ("all", side) else _NOT_SERVED for side in ("staff", "customers")
        )
        return cls(
            **dict.fromkeys(STAFF_STORES, staff),
            customers=customers,
            customer_page=customers,
            eta=store,
            is_available=store.is_available,
            serves=serves,
        )


@asynccontextmanager
async def open_stores(
    url: str | None, customer_url: str | None, pool_size: int
) -> AsyncIterator[Stores]:
    """Open the stores on PostgreSQL. The database may come up later.

    A side without a URL is not served. Raises ValueError without both.
    """
    pools = {
        name: await open_pool(one, pool_size, application_name=name, autocommit=True)
        for name, one in (("tracking_api", url), ("tracking_api customers", customer_url))
        if one is not None
    }
    pool, customer_pool = pools.get("tracking_api"), pools.get("tracking_api customers")
    eta_pool = pool or customer_pool
    if eta_pool is None:
        raise ValueError("a process serves staff, customers or both")

    async def pools_are_available() -> bool:
        return all(await asyncio.gather(*map(is_available, pools.values())))

    serves: Serves = "customers" if pool is None else "all" if customer_pool else "staff"
    try:
        yield Stores(
            **{name: store(pool) if pool else _NOT_SERVED for name, store in STAFF_STORES.items()},
            customers=CustomerQueries(customer_pool) if customer_pool else _NOT_SERVED,
            customer_page=CustomerPageQueries(customer_pool) if customer_pool else _NOT_SERVED,
            eta=EtaQueries(eta_pool),
            is_available=pools_are_available,
            serves=serves,
        )
    finally:
        await asyncio.gather(*(one.close() for one in pools.values()))
