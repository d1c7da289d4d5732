"""The fixtures of a run: a temporary stack, drivers on duty, orders under way."""

from __future__ import annotations

import os
import random
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.load.db_checks import STATEMENT_TIMEOUT_MS
from bench.load.devices import Device
from bench.load.options import WATCHED_SHARE, LoadOptions
from bench.load.route import (
    MICRO,
    MICRO_LAT_PER_M,
    MICRO_LON_PER_M,
    DeliveryRoute,
    IdleRoute,
    Route,
    micro_of,
)
from data.cities import bundled_city
from doorstep.credentials import new_customer_token, token_sha256
from doorstep.provision import numbered_ids, read_restaurants
from doorstep.store.admin import NewRestaurant
from doorstep.store.error_mapping import translated
from doorstep.store.pool import connect
from ops.stack.postgres import PostgresCluster
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from sql import read_sql

Progress = Callable[[str], None]

PREFIX = "load-"
BATCH = 250  # orders in one statement
SESSIONS = max(2, os.cpu_count() or 2)
CENTRE = (11.2556, 43.7696)  # of Florence: idle routes start around it
RADIUS_M = 2500.0
RIDE_S = (
    600.0  # to the restaurant or the door; the run starts at a random point of it or of the stop
)
STOP_S = (60.0, 300.0)  # at the restaurant or the door; 30 s prove an arrival
LEAVE_S = 240.0  # after the stop; 250 m away for 30 s prove a pick-up
DELIVERY_M = (800.0, 3000.0)

WATCHED_BOOT = "watched-"  # begins the boot of a device that sends each fix alone


class LoadStack(Stack):
    """A stack on free ports in its own folder; its database records commit timestamps."""

    def __init__(
        self, folder: Path, brokers: int, progress: Progress, *, tls: bool = False
    ) -> None:
        settings = StackSettings.model_validate(
            {
                "doorstep_home": folder / "stack",
                "mqtt_brokers": brokers,
                "doorstep_tls": tls,
                **FREE_PORTS,
            }
        )
        # The load has a fixed rate.
        environment = os.environ | {"SAMPLING_FOLLOWS_DEMAND": "false"}
        super().__init__(settings, environment=environment, echo=progress)

    def cluster(self) -> PostgresCluster:
        cluster = super().cluster()
        return replace(cluster, config={**cluster.config, "track_commit_timestamp": "on"})


@dataclass(frozen=True, slots=True)
class WatchedOrder:
    """An order under way, and its customer's token."""

    order_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Shard:
    """The devices of one generator, ordered by phase: of one broker, with messages of one size."""

    broker: int
    fixes_per_message: int
    devices: Sequence[Device]


@dataclass(frozen=True, slots=True)
class LoadFleet:
    """The devices of a run, by generator too, and the orders that viewers watch."""

    devices: Sequence[Device]
    shards: Sequence[Shard]
    orders: Sequence[WatchedOrder]
    prepared: int = 0  # orders
    prepared_s: float = 0.0  # of the wall clock


@dataclass(frozen=True, slots=True)
class _PlannedOrder:
    """An order to create: its driver, restaurant and door, and whether it is picked up."""

    driver_id: str
    restaurant_id: int
    lon_deg: float
    lat_deg: float
    picked_up: bool
    token: str
    watched: bool


def create_fixtures(stack: Stack, options: LoadOptions, progress: Progress) -> LoadFleet:
    """Register the drivers, put them on duty, and assign an order to a share of them."""
    random_of = random.Random(4)
    driver_ids = numbered_ids(PREFIX, options.devices)
    stack.add_drivers(driver_ids)
    with (
        translated(),
        connect(
            stack.database_admin_url,
            statement_timeout_ms=STATEMENT_TIMEOUT_MS,
            application_name="load",
        ) as conn,
    ):
        conn.execute(read_sql("load/on_duty.sql"), {"driver_ids": driver_ids})
    restaurants = list(read_restaurants(bundled_city().restaurants))
    devices: list[Device] = []
    planned: list[_PlannedOrder] = []
    # Shuffled, so that neighbours in the database do not arrive in the same batch.
    for index, driver_id in enumerate(random_of.sample(driver_ids, len(driver_ids))):
        route: Route
        watched = False
        if random_of.random() < options.assigned or (not planned and options.viewers):
            watched = not options.mixed or random_of.random() < WATCHED_SHARE
            route, order = _delivery_route(driver_id, restaurants, random_of, watched=watched)
            planned.append(order)
        else:
            route = _idle_route(random_of)
        alone = options.mixed and watched
        boot = f"{WATCHED_BOOT * alone}{random_of.getrandbits(40):010x}"
        fixes = 1 if alone else options.fixes_per_message
        devices.append(Device(driver_id, boot, index / options.devices, route, fixes))
    began_s = time.monotonic()
    orders = _in_batches(stack, planned, _open_orders, "orders", progress)
    with translated(), connect(stack.database_admin_url, application_name="load") as conn:
        conn.execute(read_sql("load/analyze.sql"))
    prepared_s = round(time.monotonic() - began_s, 1)
    progress(f"{len(planned):,} orders prepared in {prepared_s:.0f} s")
    shards = shards_of(devices, options.brokers)
    return LoadFleet(devices, shards, orders, len(planned), prepared_s)


def shards_of(devices: Sequence[Device], brokers: int) -> list[Shard]:
    """Shard the devices by crc32(driver_id) modulo the number of brokers, and by message size."""
    sizes = sorted({one.fixes_per_message for one in devices})
    shards: dict[tuple[int, int], list[Device]] = {
        (broker, size): [] for size in sizes for broker in range(brokers)
    }
    for one in devices:
        broker = zlib.crc32(one.driver_id.encode()) % brokers
        shards[broker, one.fixes_per_message].append(one)
    return [Shard(broker, size, found) for (broker, size), found in shards.items() if found]


def _idle_route(random_of: random.Random) -> IdleRoute:
    lon_micro, lat_micro = micro_of(*CENTRE)
    return IdleRoute(
        lon_micro=lon_micro + random_of.uniform(-1, 1) * RADIUS_M * MICRO_LON_PER_M,
        lat_micro=lat_micro + random_of.uniform(-1, 1) * RADIUS_M * MICRO_LAT_PER_M,
        heading_deg=random_of.randrange(360),
        leg_ms=random_of.uniform(60_000, 180_000),
    )


def _delivery_route(
    driver_id: str,
    restaurants: Sequence[NewRestaurant],
    random_of: random.Random,
    *,
    watched: bool,
) -> tuple[DeliveryRoute, _PlannedOrder]:
    """Half of the routes lead to the restaurant, half to the door."""
    restaurant = random_of.choice(restaurants)
    angle_lon, angle_lat = random_of.choice((-1, 1)), random_of.choice((-1, 1))
    metres = random_of.uniform(*DELIVERY_M) / 2**0.5
    lon_deg = restaurant.lon_deg + angle_lon * metres * MICRO_LON_PER_M / MICRO
    lat_deg = restaurant.lat_deg + angle_lat * metres * MICRO_LAT_PER_M / MICRO
    picked_up = random_of.random() < 0.5
    at = (lon_deg, lat_deg) if picked_up else (restaurant.lon_deg, restaurant.lat_deg)
    lon_micro, lat_micro = micro_of(*at)
    stop_s = random_of.uniform(*STOP_S)
    arrives_s = random_of.uniform(-stop_s, RIDE_S)
    leaves_s = arrives_s + stop_s
    route = DeliveryRoute(
        lon_micro=lon_micro,
        lat_micro=lat_micro,
        heading_deg=random_of.randrange(360),
        arrives_ms=arrives_s * 1000,
        leaves_ms=leaves_s * 1000,
        ends_ms=(leaves_s + LEAVE_S) * 1000,
    )
    token = new_customer_token()
    order = _PlannedOrder(
        driver_id, restaurant.restaurant_id, lon_deg, lat_deg, picked_up, token, watched
    )
    return route, order


def _in_batches(
    stack: Stack,
    items: Sequence[Any],
    work: Callable[[Any, Sequence[Any]], Sequence[Any]],
    what: str,
    progress: Progress,
) -> list[Any]:
    """Run `work` on the database in batches, several in parallel, a transaction each."""
    parts = [items[at : at + BATCH] for at in range(0, len(items), BATCH)]
    shares = [parts[session::SESSIONS] for session in range(SESSIONS)]
    done = [0]
    stopping = threading.Event()

    def run_share(share: Sequence[Sequence[Any]]) -> list[Any]:
        results: list[Any] = []
        with (
            translated(),
            connect(
                stack.database_admin_url,
                statement_timeout_ms=STATEMENT_TIMEOUT_MS,
                application_name="load",
            ) as conn,
        ):
            for part in share:
                if stopping.is_set():
                    break
                results += work(conn, part)
                conn.commit()
                done[0] += len(part)
                if done[0] % 1_000 < len(part):
                    progress(f"{what}: {done[0]:,} of {len(items):,}")
        return results

    with ThreadPoolExecutor(SESSIONS) as sessions:
        try:
            return [one for results in sessions.map(run_share, shares) for one in results]
        finally:
            stopping.set()  # on Ctrl-C, skip the remaining batches


def _open_orders(conn: Any, planned: Sequence[_PlannedOrder]) -> Sequence[WatchedOrder]:
    created = conn.execute(
        read_sql("load/create_orders.sql"),
        {
            "restaurant_ids": [one.restaurant_id for one in planned],
            "lon_degs": [one.lon_deg for one in planned],
            "lat_degs": [one.lat_deg for one in planned],
            "token_sha256s": [token_sha256(one.token) for one in planned],
        },
    ).fetchall()
    order_ids = [order_id for _index, order_id in created]
    drivers: list[str | None] = [one.driver_id for one in planned]
    no_drivers: list[str | None] = [None] * len(planned)
    picked_up = [
        order_id for order_id, one in zip(order_ids, planned, strict=True) if one.picked_up
    ]
    for command, of, whom in (
        ("confirm", order_ids, no_drivers),
        ("assign", order_ids, drivers),
        ("pick_up", picked_up, no_drivers[: len(picked_up)]),
    ):
        conn.execute(
            read_sql("load/command_orders.sql"),
            {"order_ids": of, "driver_ids": whom, "command": command},
        )
    return [
        WatchedOrder(str(order_id), one.token)
        for order_id, one in zip(order_ids, planned, strict=True)
        if one.watched
    ]
