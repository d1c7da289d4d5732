"""The stores of all domains: the seam between routes and database.

Customers have a pool of their own, with a role that can read nothing but what they may see.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from doorstep.store.deadline import is_available
from doorstep.store.pool import open_pool
from tracking_api.fleet.dispatch_queries import DispatchQueries, DispatchStore
from tracking_api.fleet.driver_queries import DriverQueries, DriverStore
from tracking_api.fleet.queries import FleetQueries, FleetStore
from tracking_api.history.queries import HistoryQueries, HistoryStore
from tracking_api.orders.queries import OrderQueries, OrderStore
from tracking_api.people.queries import PeopleQueries, PeopleStore
from tracking_api.series.queries import SeriesQueries, SeriesStore
from tracking_api.tokens import TokenQueries, TokenStore
from tracking_api.track.customer_queries import CustomerQueries, CustomerStore
from tracking_api.track.queries import TrackQueries, TrackStore


@dataclass(frozen=True, slots=True)
class Stores:
    """One store per domain, and one for customers.

    `is_available` returns within 2 s whether the database answers.
    """

    tokens: TokenStore
    orders: OrderStore
    track: TrackStore
    drivers: DriverStore
    fleet: FleetStore
    dispatch: DispatchStore
    history: HistoryStore
    series: SeriesStore
    people: PeopleStore
    customers: CustomerStore
    is_available: Callable[[], Awaitable[bool]]

    @classmethod
    def backed_by(cls, store: Any) -> Self:
        """Use one object as every store, for tests and benchmarks."""
        return cls(*(store,) * 10, store.is_available)


@asynccontextmanager
async def open_stores(url: str, customer_url: str, pool_size: int) -> AsyncIterator[Stores]:
    """Open the stores on PostgreSQL. The database may come up later."""
    pool = await open_pool(url, pool_size, application_name="tracking_api", autocommit=True)
    customer_pool = await open_pool(
        customer_url, pool_size, application_name="tracking_api customers", autocommit=True
    )

    async def pools_are_available() -> bool:
        return all(await asyncio.gather(is_available(pool), is_available(customer_pool)))

    try:
        yield Stores(
            TokenQueries(pool),
            OrderQueries(pool),
            TrackQueries(pool),
            DriverQueries(pool),
            FleetQueries(pool),
            DispatchQueries(pool),
            HistoryQueries(pool),
            SeriesQueries(pool),
            PeopleQueries(pool),
            CustomerQueries(customer_pool),
            pools_are_available,
        )
    finally:
        await asyncio.gather(pool.close(), customer_pool.close())
