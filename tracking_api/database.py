"""What tracking_api asks of the database, and the pools that ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self
from uuid import UUID

from psycopg.errors import CheckViolation
from sqlalchemy.ext.asyncio import AsyncEngine

from doorstep.http.problems import UnusableRequest
from doorstep.sampling import SamplingPolicy
from doorstep.store import commands
from doorstep.store.deadline import ask, is_there, open_reading, read
from doorstep.store.pool import Pool, open_pool
from doorstep.store.records import Order, Token
from eta.codec import model_from_json
from eta.model import EtaModel
from tracking_api.fleet import dispatch_queries
from tracking_api.fleet import queries as fleet_queries
from tracking_api.fleet.dispatch_queries import (
    AttentionOrder,
    DispatchStore,
    Filters,
    FoundDriver,
    FoundOrder,
    Group,
    HistoricFix,
    Replayed,
)
from tracking_api.orders.cursors import Cursor
from tracking_api.schemas import (
    DriverAnswer,
    NewOrder,
    NewPolicy,
    OrderState,
    Reporting,
    ReportingAnswer,
    RestaurantAnswer,
)
from tracking_api.series import queries as series_queries
from tracking_api.series.queries import SeriesEntry, SeriesName, SeriesSample, Simulation
from tracking_api.track import queries as track_queries
from tracking_api.track.visibility import FixKey, Near, OrderPoll, Position, TrackedOrder


class Store(DispatchStore, Protocol):
    """The seam between routes and database. Errors are DoorstepErrors."""

    async def find_token(self, token_sha256: bytes) -> Token | None: ...

    async def find_tokens(self, token_sha256s: Sequence[bytes]) -> dict[bytes, Token]: ...

    async def create_order(
        self, new: NewOrder, token_sha256: bytes, idempotency_key: str | None
    ) -> Order: ...

    async def apply_order_command(
        self,
        order_id: UUID,
        command: str,
        actor: str,
        driver_id: str | None,
        idempotency_key: str | None,
    ) -> Order: ...

    async def replace_customer_token(self, order_id: UUID, token_sha256: bytes) -> None: ...

    async def revoke_customer_tokens(self, order_id: UUID) -> None: ...

    async def create_policy(self, new: NewPolicy) -> int: ...

    async def set_reporting(self, driver_id: str, wanted: Reporting) -> None: ...

    async def read_reporting(self, driver_id: str) -> ReportingAnswer: ...

    async def read_track(self, order_id: UUID) -> TrackedOrder | None: ...

    async def read_tracks(self, order_ids: Sequence[UUID]) -> dict[UUID, TrackedOrder]: ...

    async def read_polls(self, order_ids: Sequence[UUID]) -> list[OrderPoll]: ...

    async def read_history(
        self,
        order_id: UUID,
        from_at: datetime | None,
        to_at: datetime | None,
        *,
        limit: int,
        after_the_end: bool,
    ) -> list[Position] | None: ...

    async def read_orders(
        self, states: Sequence[OrderState], limit: int, after: Cursor | None
    ) -> list[Order]: ...

    async def read_order(self, order_id: UUID) -> Order: ...

    async def read_driver(self, driver_id: str) -> DriverAnswer: ...

    async def read_nearest(
        self, lon_deg: float, lat_deg: float, limit: int
    ) -> tuple[datetime, list[Near]]: ...

    async def read_positions(self, since_ms: int | None) -> tuple[int, list[list[Any]]]: ...

    async def read_fleet(self, after: str, at_most: int) -> tuple[int, list[list[Any]]]: ...

    async def read_fleet_of(self, driver_ids: Sequence[str]) -> tuple[int, list[list[Any]]]: ...

    async def read_restaurants(self) -> list[RestaurantAnswer]: ...

    async def read_policies(self) -> list[dict[str, Any]]: ...

    async def list_series(self, prefix: str, after: str, limit: int) -> list[SeriesEntry]: ...

    async def read_series(
        self, name: SeriesName, from_at: datetime, to_at: datetime, points: int
    ) -> SeriesSample: ...

    async def has_series(self, name: SeriesName) -> bool: ...

    async def read_simulations(self) -> list[Simulation]: ...

    async def set_simulation(self, kind: str, count: int) -> None: ...

    async def is_there(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Database:
    """The store on PostgreSQL: a pool for commands and tokens, an engine for reads."""

    pool: Pool
    engine: AsyncEngine

    @classmethod
    async def open(cls, url: str, size: int) -> Self:
        """Open both. The database may still be away."""
        pool = await open_pool(url, size, application_name="tracking_api")
        return cls(pool, open_reading(url, size, application_name="tracking_api"))

    async def close(self) -> None:
        """Give back every connection."""
        await self.pool.close()
        await self.engine.dispose()

    async def find_token(self, token_sha256: bytes) -> Token | None:
        """Look a token up. None if it is unknown, revoked or expired."""
        return await ask(self.pool, lambda conn: commands.find_token(conn, token_sha256))

    async def find_tokens(self, token_sha256s: Sequence[bytes]) -> dict[bytes, Token]:
        """Look many tokens up. Those that are unknown, revoked or expired are left out."""
        return await ask(self.pool, lambda conn: commands.find_tokens(conn, token_sha256s))

    async def create_order(
        self, new: NewOrder, token_sha256: bytes, idempotency_key: str | None
    ) -> Order:
        """Create an order, or find the one that this key created."""
        return await ask(
            self.pool,
            lambda conn: commands.create_order(
                conn,
                restaurant_id=new.restaurant_id,
                lon_deg=new.destination.lon_deg,
                lat_deg=new.destination.lat_deg,
                token_sha256=token_sha256,
                policy_id=new.policy_id,
                idempotency_key=idempotency_key,
                customer_name=new.customer_name,
            ),
        )

    async def apply_order_command(
        self,
        order_id: UUID,
        command: str,
        actor: str,
        driver_id: str | None,
        idempotency_key: str | None,
    ) -> Order:
        """Apply a command of staff or of the order's customer."""
        return await ask(
            self.pool,
            lambda conn: commands.apply_order_command(
                conn,
                order_id,
                command,
                actor=actor,
                actor_id=actor,
                driver_id=driver_id,
                idempotency_key=idempotency_key,
            ),
        )

    async def replace_customer_token(self, order_id: UUID, token_sha256: bytes) -> None:
        """Make this the order's only good customer token."""
        await ask(
            self.pool, lambda conn: commands.replace_customer_token(conn, order_id, token_sha256)
        )

    async def revoke_customer_tokens(self, order_id: UUID) -> None:
        """End every customer token of the order."""
        await ask(self.pool, lambda conn: commands.revoke_customer_tokens(conn, order_id))

    async def create_policy(self, new: NewPolicy) -> int:
        """Add a policy. Raises UnusableRequest for values that don't fit together."""
        try:
            values = new.model_dump(exclude_none=True)
            return await ask(self.pool, lambda conn: commands.create_policy(conn, **values))
        except CheckViolation as exc:
            rule = exc.diag.constraint_name or "a rule of the table"
            complaint = {"loc": "body", "msg": f"violates {rule}", "reason": "out_of_range"}
            raise UnusableRequest([complaint]) from exc

    async def set_reporting(self, driver_id: str, wanted: Reporting) -> None:
        """Set how a driver's device reports. Raises UnknownDriver."""
        report = SamplingPolicy(**wanted.model_dump())
        await ask(self.pool, lambda conn: commands.set_reporting(conn, driver_id, report))

    async def read_reporting(self, driver_id: str) -> ReportingAnswer:
        """Read how a driver's device reports. Raises UnknownDriver."""
        return await read(self.engine, lambda conn: track_queries.select_reporting(conn, driver_id))

    async def read_track(self, order_id: UUID) -> TrackedOrder | None:
        """Read what a customer's answer is made of, in one snapshot."""
        return (await self.read_tracks([order_id])).get(order_id)

    async def read_tracks(self, order_ids: Sequence[UUID]) -> dict[UUID, TrackedOrder]:
        """Read many at once. Those that don't exist are left out."""
        return await read(self.engine, lambda conn: track_queries.select_tracks(conn, order_ids))

    async def read_polls(self, order_ids: Sequence[UUID]) -> list[OrderPoll]:
        """Look at many orders at once. Those that don't exist are left out."""
        return await read(self.engine, lambda conn: track_queries.select_polls(conn, order_ids))

    async def read_history(
        self,
        order_id: UUID,
        from_at: datetime | None,
        to_at: datetime | None,
        *,
        limit: int,
        after_the_end: bool,
    ) -> list[Position] | None:
        """Read the current assignment's fixes, oldest first. None if there is no such order."""
        return await read(
            self.engine,
            lambda conn: track_queries.select_history(
                conn, order_id, from_at, to_at, limit=limit, after_the_end=after_the_end
            ),
        )

    async def read_orders(
        self, states: Sequence[OrderState], limit: int, after: Cursor | None
    ) -> list[Order]:
        """Read a page of orders, the newest first."""
        return await read(
            self.engine, lambda conn: track_queries.select_orders(conn, states, limit, after)
        )

    async def read_order(self, order_id: UUID) -> Order:
        """Read one order. Raises UnknownOrder."""
        return await read(self.engine, lambda conn: track_queries.select_order(conn, order_id))

    async def read_driver(self, driver_id: str) -> DriverAnswer:
        """Read one driver. Raises UnknownDriver."""
        return await read(self.engine, lambda conn: track_queries.select_driver(conn, driver_id))

    async def read_nearest(
        self, lon_deg: float, lat_deg: float, limit: int
    ) -> tuple[datetime, list[Near]]:
        """Read the nearest available drivers, and the database's time."""
        return await read(
            self.engine, lambda conn: track_queries.select_nearest(conn, lon_deg, lat_deg, limit)
        )

    async def read_positions(self, since_ms: int | None) -> tuple[int, list[list[Any]]]:
        """Read every driver's newest position, and the database's time in ms."""
        return await read(self.engine, lambda conn: fleet_queries.select_positions(conn, since_ms))

    async def read_fleet(self, after: str, at_most: int) -> tuple[int, list[list[Any]]]:
        """Read the next drivers after one, by driver_id, and the database's time in ms."""
        return await read(
            self.engine, lambda conn: fleet_queries.select_fleet(conn, after, at_most)
        )

    async def read_fleet_of(self, driver_ids: Sequence[str]) -> tuple[int, list[list[Any]]]:
        """Read these drivers, and the database's time in ms."""
        return await read(self.engine, lambda conn: fleet_queries.select_fleet_of(conn, driver_ids))

    async def read_attention_orders(
        self, limit: int
    ) -> tuple[datetime, dict[Group, int], list[AttentionOrder], dict[str, list[str]]]:
        """Read open orders, those that need a dispatcher first."""
        return await read(
            self.engine, lambda conn: dispatch_queries.select_attention_orders(conn, limit)
        )

    async def search(self, text: str, limit: int) -> tuple[list[FoundDriver], list[FoundOrder]]:
        """Find drivers and orders by a part of what they are called."""
        return await read(
            self.engine, lambda conn: dispatch_queries.select_found(conn, text, limit)
        )

    async def read_past(
        self,
        driver_id: str,
        from_at: datetime,
        to_at: datetime,
        limit: int,
        after: FixKey | None = None,
    ) -> list[HistoricFix]:
        """Read a page of a driver's fixes, oldest first. Raises UnknownDriver."""
        return await read(
            self.engine,
            lambda conn: dispatch_queries.select_past(
                conn, driver_id, from_at, to_at, limit, after
            ),
        )

    async def read_replay(
        self, box: tuple[float, float, float, float], from_at: datetime, to_at: datetime
    ) -> Replayed:
        """Read where the drivers who are in a box now were."""
        return await read(
            self.engine, lambda conn: dispatch_queries.select_replay(conn, box, from_at, to_at)
        )

    async def read_tile(self, z: int, x: int, y: int, filters: Filters, at_most: int) -> bytes:
        """Read one vector tile of the fleet."""
        return await read(
            self.engine, lambda conn: dispatch_queries.select_tile(conn, z, x, y, filters, at_most)
        )

    async def read_restaurants(self) -> list[RestaurantAnswer]:
        """Read every restaurant."""
        return await read(self.engine, track_queries.select_restaurants)

    async def read_policies(self) -> list[dict[str, Any]]:
        """Read every policy."""
        return await read(self.engine, track_queries.select_policies)

    async def list_series(self, prefix: str, after: str, limit: int) -> list[SeriesEntry]:
        """Read a page of series: those of sources by name, then those of drivers."""
        return await read(
            self.engine, lambda conn: series_queries.select_entries(conn, prefix, after, limit)
        )

    async def read_series(
        self, name: SeriesName, from_at: datetime, to_at: datetime, points: int
    ) -> SeriesSample:
        """Read a series for a picture. Raises UnknownSeries, UnknownDriver."""
        return await read(
            self.engine,
            lambda conn: series_queries.select_sample(conn, name, from_at, to_at, points),
        )

    async def has_series(self, name: SeriesName) -> bool:
        """Whether a source has published this series."""
        return await read(self.engine, lambda conn: series_queries.select_is_there(conn, name))

    async def read_simulations(self) -> list[Simulation]:
        """Read how many of each kind the staff wants."""
        return await read(self.engine, series_queries.select_simulations)

    async def set_simulation(self, kind: str, count: int) -> None:
        """Set how many of a kind the simulators are to run."""
        await ask(self.pool, lambda conn: commands.set_simulation(conn, kind, count))

    async def read_eta_model(self, known: int) -> EtaModel | None:
        """Read the newest model of arrivals, if it is another than the one known."""
        found = await ask(self.pool, lambda conn: commands.read_eta_model(conn, known))
        return model_from_json(found) if found is not None else None

    async def is_there(self) -> bool:
        """Say within 2 s whether the database answers."""
        return await is_there(self.pool)
