"""Commands and lookups of orders, drivers and tokens, for the APIs. Nothing here commits.

The rules are in `sql/schema`; a refusal is raised as IllegalTransition with the allowed commands.
A command that its actor repeats with its idempotency key returns the order's current state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from msgspec.structs import asdict
from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from doorstep.errors import StoreUnavailable
from doorstep.sampling import SamplingPolicy
from doorstep.store.error_mapping import translated
from doorstep.store.records import Order, Token
from sql import query

T = TypeVar("T")

__all__ = [
    "Order",
    "Token",
    "assign_order_as_staff",
    "command_order_as_staff",
    "create_order",
    "create_policy",
    "find_token",
    "find_tokens",
    "read_eta_model",
    "replace_customer_token",
    "revoke_customer_tokens",
    "set_reporting",
    "set_simulation",
    "unpin_sampling",
]


async def create_order(
    conn: AsyncConnection[Any],
    *,
    restaurant_id: int | None,
    lon_deg: float,
    lat_deg: float,
    token_sha256: bytes,
    policy_id: int | None = None,
    idempotency_key: str | None = None,
    customer_name: str | None = None,
    who: str | None = None,
    pickup: Mapping[str, object] | None = None,
    details: Mapping[str, object] | None = None,
) -> Order:
    """Create an order and its customer's token, given as its SHA-256.

    `pickup` is a place of this order alone (name, address, lon_deg, lat_deg, phone), instead of a
    restaurant. `details` has the members of the type `order_details`, instants as text.

    `created` is False for an order that `who` created before with this idempotency key; the given
    token is then not registered. With `who`, the audit has an entry of that name. Raises
    UnknownRestaurant, UnknownPolicy, IdempotencyConflict, ExternalIdTaken.
    """
    parameters: dict[str, object] = {
        "restaurant_id": restaurant_id,
        "pickup": Jsonb(pickup) if pickup else None,
        "details": Jsonb(details) if details else None,
        "lon_deg": lon_deg,
        "lat_deg": lat_deg,
        "token_sha256": token_sha256,
        "policy_id": policy_id,
        "idempotency_key": idempotency_key,
        "customer_name": customer_name,
        "who": who,
    }
    return await _one_order(conn, "create_order", parameters)


async def command_order_as_staff(
    conn: AsyncConnection[Any],
    order_id: UUID,
    command: str,
    *,
    name: str,
    driver_id: str | None = None,
    idempotency_key: str | None = None,
) -> Order:
    """Apply a command of a member of staff to an order.

    `command` is confirm, assign, reassign, pick_up, deliver, cancel or fail. `driver_id` names
    the driver of assign and reassign; None takes the nearest available one.
    Raises UnknownOrder, IllegalTransition, DriverUnavailable, NoDriverAvailable,
    IdempotencyConflict.
    """
    parameters = {
        "order_id": order_id,
        "command": command,
        "name": name,
        "driver_id": driver_id,
        "idempotency_key": idempotency_key,
    }
    return await _one_order(conn, "command_order_as_staff", parameters)


async def assign_order_as_staff(
    conn: AsyncConnection[Any],
    order_id: UUID,
    command: str,
    *,
    name: str,
    driver_id: str | None,
    stop_no: int | None,
    idempotency_key: str | None,
) -> Order:
    """Apply `assign` or `reassign`; the new stop goes to `stop_no`, or to the least detour."""
    parameters: dict[str, object] = {
        "order_id": order_id,
        "command": command,
        "name": name,
        "driver_id": driver_id,
        "stop_no": stop_no,
        "idempotency_key": idempotency_key,
    }
    return await _one_order(conn, "assign_order_as_staff", parameters)


async def _one_order(conn: AsyncConnection[Any], name: str, parameters: dict[str, object]) -> Order:
    with translated():
        async with conn.cursor(row_factory=class_row(Order)) as cursor:
            await cursor.execute(query(name), parameters)
            return _only(await cursor.fetchone())


async def find_token(conn: AsyncConnection[Any], token_sha256: bytes) -> Token | None:
    """Find a token by its SHA-256. None if it is unknown, revoked or expired."""
    with translated():
        async with conn.cursor(row_factory=class_row(Token)) as cursor:
            await cursor.execute(query("find_token"), {"token_sha256": token_sha256})
            return await cursor.fetchone()


async def find_tokens(
    conn: AsyncConnection[Any], token_sha256s: Sequence[bytes]
) -> dict[bytes, Token]:
    """Find many tokens at once, without those that are unknown, revoked or expired."""
    with translated():
        cursor = await conn.execute(query("find_tokens"), {"token_sha256s": list(token_sha256s)})
        return {row[0]: Token(*row[1:]) for row in await cursor.fetchall()}


async def replace_customer_token(
    conn: AsyncConnection[Any], order_id: UUID, token_sha256: bytes
) -> None:
    """Revoke the order's customer tokens and add this one. Raises UnknownOrder."""
    with translated():
        await conn.execute(
            query("replace_customer_token"), {"order_id": order_id, "token_sha256": token_sha256}
        )


async def revoke_customer_tokens(conn: AsyncConnection[Any], order_id: UUID) -> None:
    """Revoke every customer token of the order. Raises UnknownOrder."""
    with translated():
        await conn.execute(query("revoke_customer_tokens"), {"order_id": order_id})


async def create_policy(
    conn: AsyncConnection[Any], who: str | None = None, **values: object
) -> int:
    """Add a policy and return its id; missing values are those of policy 1.

    With `who`, the audit has an entry of that name.
    """
    with translated():
        async with conn.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(query("create_policy"), {"values": Jsonb(values), "who": who})
            return int(_only(await cursor.fetchone()))


async def set_reporting(conn: AsyncConnection[Any], driver_id: str, report: SamplingPolicy) -> None:
    """Set a driver's sampling policy, which is sent to the device. Raises UnknownDriver."""
    parameters = {"driver_id": driver_id, "sampling_policy": Jsonb(asdict(report))}
    with translated():
        await conn.execute(query("set_sampling"), parameters)


async def unpin_sampling(conn: AsyncConnection[Any], driver_id: str) -> None:
    """Let a device's sampling follow demand again. Raises UnknownDriver."""
    with translated():
        await conn.execute(query("unpin_sampling"), {"driver_id": driver_id})


async def set_simulation(conn: AsyncConnection[Any], kind: str, count: int) -> None:
    """Set the simulators' target number of couriers, cities or tickers."""
    with translated():
        await conn.execute(query("set_simulation_target"), {"kind": kind, "count": count})


async def read_eta_model(conn: AsyncConnection[Any], known: int) -> dict[str, Any] | None:
    """Read the newest ETA model; None if it is the known one or there is none."""
    with translated():
        async with conn.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(query("read_eta_model"), {"known": known})
            found: dict[str, Any] | None = await cursor.fetchone()
            return found


def _only(row: T | None) -> T:
    if row is None:
        raise StoreUnavailable("the database returned no row")
    return row
