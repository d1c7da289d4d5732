"""A simple implementation of the reads: FastAPI, a pool, a statement and pydantic models.

    DATABASE_URL=... python -m bench.naive_reads (sqlalchemy | psycopg) PORT

`sqlalchemy` is the usual stack: sync endpoints in FastAPI's threads, a pool of ten. `psycopg` is
lighter: async endpoints and psycopg's pool. Both read Doorstep's tables and answer the same fields.
They leave out what costs tracking_api its time: tokens, limits per token and address, visibility,
ETags, jump flags, packed days, the audit of reads, security headers, metrics, deadlines and bounds
on requests. Of GET /track (bench/naive_track.py) they leave out, besides: estimates without a road
or before a courier is visible, newer models, instants that late fixes move, the reason of an end,
the photo, another delivery that comes first, and shared links. GET /position answers the order with
its events and position alone. `bench.reads` compares with them.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import uvicorn
from fastapi import FastAPI, Response
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, computed_field
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from bench.naive_track import (
    EVENTS,
    NOTICES,
    ORDER,
    START_OF_RIDE,
    Arrivals,
    FullTrack,
    began_at,
    full_track,
    ride_of,
)

POOL = 10  # connections, as tracking_api has
OPTIONS = "-c search_path=doorstep,public"
VARIANTS = ("sqlalchemy", "psycopg")

POSITION = """
SELECT o.order_id, o.state::text AS state, o.assignment_no, o.order_seq,
    r.name AS restaurant_name, r.lon_deg AS restaurant_lon_deg, r.lat_deg AS restaurant_lat_deg,
    o.lon_deg AS destination_lon_deg, o.lat_deg AS destination_lat_deg,
    s.fix_at, s.received_at, s.lon_deg, s.lat_deg, s.accuracy_m, s.speed_mps, s.heading_deg,
    extract(epoch FROM clock_timestamp() - s.fix_at)::float8 AS age_s
FROM orders o JOIN restaurant r USING (restaurant_id)
LEFT JOIN assignment a ON a.order_id = o.order_id AND a.ended_at IS NULL
LEFT JOIN driver_state s ON s.driver_id = a.driver_id
WHERE o.order_id = :order_id
"""
NEAREST = """
SELECT driver_id, fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg,
    extract(epoch FROM clock_timestamp() - fix_at)::float8 AS age_s,
    ST_DistanceSphere(geom, ST_SetSRID(ST_MakePoint(:lon_deg, :lat_deg), 4326)) AS distance_m
FROM driver_state
WHERE state = 'available' AND duty = 'on_duty' AND received_at > now() - interval '5 minutes'
ORDER BY geom <-> ST_SetSRID(ST_MakePoint(:lon_deg, :lat_deg), 4326) LIMIT :limit
"""
TILE = """
SELECT ST_AsMVT(rows, 'drivers') AS tile FROM (
    SELECT driver_id, state::text AS state, duty::text AS duty,
        ST_AsMVTGeom(ST_Transform(geom, 3857), ST_TileEnvelope(:z, :x, :y)) AS geom
    FROM driver_state
    WHERE geom && ST_Transform(ST_TileEnvelope(:z, :x, :y), 4326)
) AS rows
"""
HISTORY = """
SELECT fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg FROM fix_history
WHERE driver_id = :driver_id AND fix_at >= :since AND fix_at < :before AND quarantine IS NULL
ORDER BY fix_at
"""


class Location(BaseModel):
    """A position."""

    fix_at: datetime | None
    received_at: datetime | None
    lon_deg: float | None
    lat_deg: float | None
    accuracy_m: float | None
    speed_mps: float | None
    heading_deg: float | None


class Aged(Location):
    """A position and its age."""

    age_s: float | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def freshness(self) -> str | None:
        """The age in words."""
        limits = {"live": 15, "recent": 60, "stale": 300}
        if self.age_s is None:
            return None
        return next((name for name, limit in limits.items() if self.age_s <= limit), "lost")


class Event(BaseModel):
    """One step of an order."""

    order_seq: int
    state: str
    source: str
    occurred_at: datetime


class Track(Aged):
    """An order with its driver's position."""

    order_id: UUID
    state: str
    assignment_no: int
    order_seq: int
    restaurant_name: str
    restaurant_lon_deg: float
    restaurant_lat_deg: float
    destination_lon_deg: float
    destination_lat_deg: float
    events: list[Event] = []


class Near(Aged):
    """A driver and their distance."""

    driver_id: str
    distance_m: float


class Fix(Location):
    """One fix of the past."""


def make_sync_app(url: str) -> FastAPI:
    """Build the API with sync SQLAlchemy."""
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=POOL,
        max_overflow=0,
        connect_args={"options": OPTIONS},
    )
    app = FastAPI()

    arrivals = Arrivals()

    def rows_on(conn: Connection, statement: str, **values: object) -> list[dict[str, Any]]:
        return [dict(one) for one in conn.execute(text(statement), values).mappings()]

    def rows(statement: str, **values: object) -> list[dict[str, Any]]:
        with engine.connect() as conn:
            return rows_on(conn, statement, **values)

    @app.get("/track/{order_id}")
    def track(order_id: UUID) -> FullTrack:
        with engine.connect() as conn:
            order = rows_on(conn, ORDER, order_id=order_id)[0]
            events = rows_on(conn, EVENTS, order_id=order_id)
            of_assignment = order["assignment_no"]
            notices = rows_on(conn, NOTICES, order_id=order_id, assignment_no=of_assignment)
            computed = arrivals.kept(order)
            if computed is None:
                began = began_at(order, events)
                start = rows_on(conn, START_OF_RIDE, **ride_of(order, began))
                computed = arrivals.compute(order, began, start[0] if start else None)
        return full_track(order, events, notices, computed)

    @app.get("/position/{order_id}")
    def position(order_id: UUID) -> Track:
        with engine.connect() as conn:
            events = rows_on(conn, EVENTS, order_id=order_id)
            order = rows_on(conn, POSITION, order_id=order_id)[0]
        return Track(**order, events=[Event(**one) for one in events])

    @app.get("/drivers/nearest")
    def nearest(lon_deg: float, lat_deg: float, limit: int) -> list[Near]:
        found = rows(NEAREST, lon_deg=lon_deg, lat_deg=lat_deg, limit=limit)
        return [Near(**one) for one in found]

    @app.get("/fleet/tiles/{z}/{x}/{y}.mvt")
    def tile(z: int, x: int, y: int) -> Response:
        return Response(bytes(rows(TILE, z=z, x=x, y=y)[0]["tile"]))

    @app.get("/drivers/{driver_id}/history")
    def history(driver_id: str, since: datetime, before: datetime) -> list[Fix]:
        found = rows(HISTORY, driver_id=driver_id, since=since, before=before)
        return [Fix(**one) for one in found]

    return app


def make_async_app(url: str) -> FastAPI:
    """Build the API with psycopg's async pool."""
    pool = AsyncConnectionPool(
        url,
        min_size=POOL,
        max_size=POOL,
        open=False,
        kwargs={"row_factory": dict_row, "options": OPTIONS, "autocommit": True},
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with pool:
            yield

    app = FastAPI(lifespan=lifespan)

    arrivals = Arrivals()

    async def rows_on(
        conn: AsyncConnection[Any], statement: str, **values: object
    ) -> Sequence[dict[str, Any]]:
        cursor = await conn.execute(with_psycopg_placeholders(statement, values), values)
        return await cursor.fetchall()

    async def rows(statement: str, **values: object) -> Sequence[dict[str, Any]]:
        async with pool.connection() as conn:
            return await rows_on(conn, statement, **values)

    @app.get("/track/{order_id}")
    async def track(order_id: UUID) -> FullTrack:
        async with pool.connection() as conn:
            order = (await rows_on(conn, ORDER, order_id=order_id))[0]
            events = await rows_on(conn, EVENTS, order_id=order_id)
            of_assignment = order["assignment_no"]
            notices = await rows_on(conn, NOTICES, order_id=order_id, assignment_no=of_assignment)
            computed = arrivals.kept(order)
            if computed is None:
                began = began_at(order, events)
                start = await rows_on(conn, START_OF_RIDE, **ride_of(order, began))
                computed = arrivals.compute(order, began, start[0] if start else None)
        return full_track(order, events, notices, computed)

    @app.get("/position/{order_id}")
    async def position(order_id: UUID) -> Track:
        async with pool.connection() as conn:
            events = await rows_on(conn, EVENTS, order_id=order_id)
            order = (await rows_on(conn, POSITION, order_id=order_id))[0]
        return Track(**order, events=[Event(**one) for one in events])

    @app.get("/drivers/nearest")
    async def nearest(lon_deg: float, lat_deg: float, limit: int) -> list[Near]:
        found = await rows(NEAREST, lon_deg=lon_deg, lat_deg=lat_deg, limit=limit)
        return [Near(**one) for one in found]

    @app.get("/fleet/tiles/{z}/{x}/{y}.mvt")
    async def tile(z: int, x: int, y: int) -> Response:
        return Response(bytes((await rows(TILE, z=z, x=x, y=y))[0]["tile"]))

    @app.get("/drivers/{driver_id}/history")
    async def history(driver_id: str, since: datetime, before: datetime) -> list[Fix]:
        found = await rows(HISTORY, driver_id=driver_id, since=since, before=before)
        return [Fix(**one) for one in found]

    return app


@functools.cache
def _converted(statement: str, names: tuple[str, ...]) -> bytes:
    for name in names:
        statement = statement.replace(f":{name}", f"%({name})s")
    return statement.encode()


def with_psycopg_placeholders(statement: str, values: dict[str, object]) -> bytes:
    """Replace SQLAlchemy's placeholders in a statement by psycopg's."""
    return _converted(statement, tuple(values))


def main() -> None:
    variant, port = sys.argv[1:]
    make = {"sqlalchemy": make_sync_app, "psycopg": make_async_app}[variant]
    uvicorn.run(
        make(os.environ["DATABASE_URL"]),
        host="127.0.0.1",
        port=int(port),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
