"""A simple implementation: a table with row triggers, a PATCH per fix, or an INSERT per fix.

It has its own schema. The API is FastAPI with a psycopg pool, one UPDATE and one commit per
request; a row trigger maintains geometry, history and "near a restaurant". Without identity,
deduplication, evidence, states and tokens it does less than the pipeline. `bench.ingest` compares
with it.

    DATABASE_URL=... python -m bench.naive PORT     the API alone
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import httpx
import psycopg
import uvicorn
from fastapi import FastAPI
from psycopg_pool import AsyncConnectionPool
from pydantic import AwareDatetime, BaseModel

from bench.devices import make_fix
from doorstep.fix import encode_fix
from ops.stack.settings import PROJECT

CONCURRENCY = 16  # requests under way, and connections of the pool
START_TIMEOUT_S = 30.0

TABLES = """
DROP SCHEMA IF EXISTS naive CASCADE;
CREATE SCHEMA naive;
CREATE TABLE naive.driver (driver_id text PRIMARY KEY, fix_at timestamptz,
    lon_deg float8, lat_deg float8, geom geometry(Point, 4326), near_restaurant boolean);
CREATE TABLE naive.fix (driver_id text, fix_at timestamptz, lon_deg float8, lat_deg float8,
    fix_id bigserial PRIMARY KEY);
CREATE TABLE naive.place (geom geography);
INSERT INTO naive.place SELECT ST_MakePoint(11.25 + n % 10 / 1e3, 43.77 + n / 1e4)::geography
    FROM generate_series(1, 100) AS n;
CREATE INDEX ON naive.place USING gist (geom);
CREATE FUNCTION naive.move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.geom := ST_SetSRID(ST_MakePoint(NEW.lon_deg, NEW.lat_deg), 4326);
    NEW.near_restaurant := EXISTS (
        SELECT FROM naive.place WHERE ST_DWithin(geom, NEW.geom::geography, 60));
    INSERT INTO naive.fix (driver_id, fix_at, lon_deg, lat_deg)
    VALUES (NEW.driver_id, NEW.fix_at, NEW.lon_deg, NEW.lat_deg);
    RETURN NEW;
END $$;
CREATE TRIGGER move BEFORE UPDATE ON naive.driver
    FOR EACH ROW EXECUTE FUNCTION naive.move();
"""
UPDATE = """
UPDATE naive.driver SET fix_at = %s, lon_deg = %s, lat_deg = %s WHERE driver_id = %s
"""
INSERT = "INSERT INTO naive.fix (driver_id, fix_at, lon_deg, lat_deg) VALUES (%s, %s, %s, %s)"


class Location(BaseModel):
    """The body of a PATCH."""

    fix_at: AwareDatetime
    lat_deg: float
    lon_deg: float


def make_app(url: str) -> FastAPI:
    """Build the API."""
    pool = AsyncConnectionPool(url, min_size=CONCURRENCY, max_size=CONCURRENCY, open=False)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with pool:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.patch("/drivers/{driver_id}/location")
    async def move(driver_id: str, body: Location) -> dict[str, bool]:
        async with pool.connection() as conn:
            await conn.execute(UPDATE, (body.fix_at, body.lon_deg, body.lat_deg, driver_id))
        return {"ok": True}

    return app


def prepare(url: str, drivers: Sequence[str]) -> None:
    """Recreate the tables and the drivers."""
    with psycopg.connect(url) as conn:
        conn.execute(TABLES)
        conn.execute(
            "INSERT INTO naive.driver (driver_id) SELECT unnest(%s::text[])", [list(drivers)]
        )


@contextmanager
def running_api(url: str, port: int) -> Iterator[int]:
    """Run the API as a process; yield its pid."""
    argv = [sys.executable, "-m", "bench.naive", str(port)]
    process = subprocess.Popen(argv, cwd=PROJECT, env=os.environ | {"DATABASE_URL": url})
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/docs")
                break
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def patch(port: int, drivers: Sequence[str], count: int) -> None:
    """Send `count` fixes, one PATCH each, 16 at a time."""
    asyncio.run(_patch(port, drivers, count))


async def _patch(port: int, drivers: Sequence[str], count: int) -> None:
    numbers = iter(range(count))

    async def send(client: httpx.AsyncClient) -> None:
        for number in numbers:
            path = f"/drivers/{drivers[number % len(drivers)]}/location"
            answer = await client.patch(path, content=encode_fix(make_fix("naive", number + 1)))
            answer.raise_for_status()

    headers = {"content-type": "application/json"}
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(CONCURRENCY):
            group.create_task(send(client))


def insert(url: str, drivers: Sequence[str], count: int) -> None:
    """Write `count` fixes into the history, one INSERT and one commit each, on one connection."""
    with psycopg.connect(url, autocommit=True) as conn:
        for number in range(count):
            fix = make_fix("naive", number + 1)
            row = (drivers[number % len(drivers)], fix.fix_at, fix.lon_deg, fix.lat_deg)
            conn.execute(INSERT, row)


def written(url: str) -> int:
    """The number of fixes in the naive history."""
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT count(*) FROM naive.fix").fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    uvicorn.run(
        make_app(os.environ["DATABASE_URL"]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
    )
