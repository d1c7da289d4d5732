"""Drivers in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec

from doorstep.errors import UnknownDriver
from doorstep.sampling import Demand, SamplingPolicy
from doorstep.store import commands
from doorstep.store.deadline import fetch_all, fetch_one, run_command
from doorstep.store.pool import Pool
from sql import query
from tracking_api.fleet.presence import Presence, presence_of
from tracking_api.track.visibility import Position

SQL_FILE = "queries/fleet.sql"

_decode_sampling = msgspec.json.Decoder(SamplingPolicy).decode


class DriverPhone(NamedTuple):
    """A driver's phone app. `state` is `invited`, never heard of, or `heard`; None without one."""

    state: str | None
    invited_until: datetime | None
    heard_at: datetime | None
    app: str | None


class DriverDetails(NamedTuple):
    """One driver, as of `now` by the database's clock."""

    now: datetime
    driver_id: str
    name: str | None
    duty: str
    state: str
    order_id: UUID | None
    battery: float | None
    is_returning: bool
    position: Position | None
    presence: Presence
    vehicle: str | None
    phone: str | None
    retired_at: datetime | None
    phone_app: DriverPhone


class DriverStop(NamedTuple):
    """An open order of a driver; stop 1 is the next customer's."""

    order_id: UUID
    stop_no: int
    state: str
    assigned_at: datetime
    restaurant_name: str
    restaurant: tuple[float, float]  # longitude, latitude
    destination: tuple[float, float]
    customer_name: str | None


class NearDriver(NamedTuple):
    """A driver who may take an order, and the straight-line distance to them."""

    driver_id: str
    distance_m: float
    position: Position
    open_orders: int
    is_returning: bool = False


class DeviceSampling(NamedTuple):
    """The sampling of a driver's device. `set_at` is None for the defaults.

    `demand` is None unless it chose the policy.
    """

    policy: SamplingPolicy
    set_at: datetime | None
    is_delivered: bool
    demand: Demand | None = None


class ServiceArea(NamedTuple):
    """A service area: a box in degrees, with west above east across ±180°."""

    name: str
    west: float
    south: float
    east: float
    north: float
    time_zone: str


class DriverStore(Protocol):
    """Drivers, one by one. Errors are DoorstepErrors."""

    async def read_driver(self, driver_id: str) -> DriverDetails: ...

    async def read_stops(self, driver_id: str) -> list[DriverStop]: ...

    async def set_stops(self, driver_id: str, order_ids: Sequence[UUID], name: str) -> None: ...

    async def read_nearest(
        self, lon_deg: float, lat_deg: float, limit: int, *, with_orders: bool
    ) -> tuple[datetime, list[NearDriver]]: ...

    async def set_sampling(self, driver_id: str, policy: SamplingPolicy) -> None: ...

    async def unpin_sampling(self, driver_id: str) -> None: ...

    async def read_sampling(self, driver_id: str) -> DeviceSampling: ...

    async def read_service_areas(self) -> list[ServiceArea]: ...


@dataclass(frozen=True, slots=True)
class DriverQueries:
    """The DriverStore on PostgreSQL."""

    pool: Pool

    async def read_driver(self, driver_id: str) -> DriverDetails:
        """Read one driver with their newest position. Raises UnknownDriver."""
        row = await fetch_one(self.pool, query("read_driver", SQL_FILE), {"driver_id": driver_id})
        if row is None:
            raise UnknownDriver
        now, found_id, name, duty, state, order_id, battery = row[:7]
        phone_app = DriverPhone(*row[10:14])
        position = Position(*row[15:]) if row[15] else None
        arrived = [one for one in (position and position.received_at, phone_app.heard_at) if one]
        silent_s = (now - max(arrived)).total_seconds() if arrived else None
        presence = presence_of(silent_s, position.speed_mps if position else None)
        vehicle, phone, retired_at = row[7:10]
        return DriverDetails(
            now=now,
            driver_id=found_id,
            name=name,
            duty=duty,
            state=state,
            order_id=order_id,
            battery=battery,
            is_returning=row[14],
            position=position,
            presence=presence,
            vehicle=vehicle,
            phone=phone,
            retired_at=retired_at,
            phone_app=phone_app,
        )

    async def read_stops(self, driver_id: str) -> list[DriverStop]:
        """Read a driver's open orders, the next stop first."""
        statement = query("read_driver_stops", SQL_FILE)
        rows = await fetch_all(self.pool, statement, {"driver_id": driver_id})
        return [
            DriverStop(
                order_id=row[0],
                stop_no=row[1],
                state=row[2],
                assigned_at=row[3],
                restaurant_name=row[4],
                restaurant=(row[5], row[6]),
                destination=(row[7], row[8]),
                customer_name=row[9],
            )
            for row in rows
        ]

    async def set_stops(self, driver_id: str, order_ids: Sequence[UUID], name: str) -> None:
        """Put a driver's open orders into this sequence. Raises StopsChanged, StopBehind."""
        parameters = {"driver_id": driver_id, "order_ids": list(order_ids), "name": name}
        await fetch_all(self.pool, query("set_driver_stops"), parameters)

    async def read_nearest(
        self, lon_deg: float, lat_deg: float, limit: int, *, with_orders: bool
    ) -> tuple[datetime, list[NearDriver]]:
        """Read the nearest available drivers, and the database's time.

        `with_orders`: also drivers who have orders and room for another.
        """
        parameters = {
            "lon_deg": lon_deg,
            "lat_deg": lat_deg,
            "limit": limit,
            "with_orders": with_orders,
        }
        rows = await fetch_all(self.pool, query("read_nearest_drivers", SQL_FILE), parameters)
        now: datetime = rows[0][0] if rows else datetime.now(UTC)
        return now, [NearDriver(row[1], row[2], Position(*row[3:-2]), *row[-2:]) for row in rows]

    async def set_sampling(self, driver_id: str, policy: SamplingPolicy) -> None:
        """Set the sampling of a driver's device. Raises UnknownDriver."""
        await run_command(self.pool, lambda conn: commands.set_reporting(conn, driver_id, policy))

    async def unpin_sampling(self, driver_id: str) -> None:
        """Let the sampling of a driver's device follow demand again. Raises UnknownDriver."""
        await run_command(self.pool, lambda conn: commands.unpin_sampling(conn, driver_id))

    async def read_sampling(self, driver_id: str) -> DeviceSampling:
        """Read the sampling of a driver's device. Raises UnknownDriver."""
        row = await fetch_one(self.pool, query("read_sampling", SQL_FILE), {"driver_id": driver_id})
        if row is None:
            raise UnknownDriver
        report, is_delivered, set_at, demand = row
        policy = _decode_sampling(report) if report else SamplingPolicy()
        return DeviceSampling(policy, set_at, bool(is_delivered), demand)

    async def read_service_areas(self) -> list[ServiceArea]:
        """Read every service area, by name."""
        rows = await fetch_all(self.pool, query("read_cities", SQL_FILE))
        return [ServiceArea(*row) for row in rows]
