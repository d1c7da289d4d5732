"""How long personal data are kept, and exporting and erasing them. Exporting and erasing commit,
nothing else does; the rules are in `sql/schema/55_personal_data.sql`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql as pgsql
from psycopg.rows import class_row, tuple_row

from doorstep.errors import UnknownDriver, UnknownOrder
from doorstep.kafka.topic_specs import TOPICS
from doorstep.store.error_mapping import translated
from sql import query

FILE = "queries/personal_data.sql"
KINDS = (
    *("orders", "commands", "tokens", "clocks", "contacts", "audit", "positions"),
    *("photos", "deliveries", "alerts"),
)
ROWS_PER_READ = 2_000

# A person's rows are found by these columns, in whatever table they are.
DRIVER_COLUMNS = ("driver_id", "device_id", "source_id", "actor_id", "subject", "who")
ORDER_COLUMNS = ("order_id", "subject")
# Secrets, copies of other columns, and other people's data.
HIDDEN_FROM_DRIVER = (
    *("token_sha256", "follow_sha256", "mqtt_hash", "geom", "hot_padding"),
    *("customer_lon_deg", "customer_lat_deg", "customer_name", "content"),
)
HIDDEN_FROM_CUSTOMER = (
    *("token_sha256", "geom", "driver_id", "actor_id", "who", "detail"),
    *("created_by", "offered_by", "pin_sha256", "search", "given_by", "ended_by"),
    *("owner_sha256", "p256dh", "auth", "acknowledged_by"),
)
# Topics that can hold something of a person.
DRIVER_TOPICS = (
    *("driver-pos", "phone-pos", "driver-status", "series"),
    *("tracking-positions", "tracking-updates", "dead-letter"),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """For how many days a kind is kept."""

    kind: str
    days: int
    least_days: int


@dataclass(frozen=True, slots=True)
class Erased:
    """How many rows of a table were deleted or made anonymous."""

    table_name: str
    what: str
    row_count: int


def list_retention(conn: psycopg.Connection[Any]) -> list[Kept]:
    """Return how long each kind is kept."""
    with translated(), conn.cursor(row_factory=class_row(Kept)) as cursor:
        return cursor.execute(query("list_retention", FILE)).fetchall()


def keeps_off_duty(conn: psycopg.Connection[Any]) -> bool:
    """Return whether positions of drivers off duty are kept."""
    return bool(_value(conn, "keeps_off_duty", {}))


def set_retention(conn: psycopg.Connection[Any], kind: str, days: int, who: str) -> None:
    """Set for how many days a kind is kept, with an entry in the audit."""
    _value(conn, "set_retention", {"kind": kind, "days": days, "who": who})


def set_keep_off_duty(conn: psycopg.Connection[Any], keep: bool, who: str) -> None:
    """Set whether positions of drivers off duty are kept, with an entry in the audit."""
    _value(conn, "set_keep_off_duty", {"keep": keep, "who": who})


def expire(conn: psycopg.Connection[Any], kind: str, at_most: int) -> int:
    """Delete or make anonymous up to `at_most` rows past their retention; return their number."""
    return int(_value(conn, "expire_personal_data", {"kind": kind, "at_most": at_most}))


def forget_driver(conn: psycopg.Connection[Any], driver_id: str, who: str) -> list[Erased]:
    """Erase a driver. Raises UnknownDriver, and OrderOpen if they have an open order."""
    return _erase(conn, "forget_driver", {"driver_id": driver_id, "who": who})


def forget_order(conn: psycopg.Connection[Any], order_id: str, who: str) -> list[Erased]:
    """Make an order anonymous. Raises UnknownOrder, and OrderOpen while its data are needed."""
    return _erase(conn, "forget_order", {"order_id": order_id, "who": who})


def _erase(conn: psycopg.Connection[Any], name: str, parameters: dict[str, Any]) -> list[Erased]:
    with translated():
        conn.execute(query("allow_long_work", FILE))
        with conn.cursor(row_factory=class_row(Erased)) as cursor:
            erased = cursor.execute(query(name, FILE), parameters).fetchall()
        conn.commit()
    return erased


def held_in_kafka() -> list[tuple[str, datetime | None]]:
    """Return until when each of DRIVER_TOPICS holds what it has now; None if it is compacted."""
    now = datetime.now(UTC)
    return [
        (
            topic.name,
            None
            if topic.retention_ms is None
            else now + timedelta(milliseconds=topic.retention_ms),
        )
        for topic in TOPICS
        if topic.name in DRIVER_TOPICS
    ]


def export_driver(conn: psycopg.Connection[Any], driver_id: str) -> Iterator[tuple[str, str]]:
    """Yield (table, row as JSON) for all that is stored of a driver. Raises UnknownDriver."""
    _begin(conn)
    if not _value(conn, "has_driver", {"id": driver_id}):
        raise UnknownDriver(f"there is no driver {driver_id}")
    for table, columns in _tables(conn, DRIVER_COLUMNS):
        match table:
            case "fix_history":
                yield from _rows(conn, table, query("export_fixes", FILE), {"id": driver_id})
            case "fix_chunk":
                packed = query("export_packed_fixes", FILE)
                yield from _rows(conn, table, packed, {"id": driver_id})
            case _:
                yield from _matching(conn, table, columns, driver_id, HIDDEN_FROM_DRIVER)
    yield from _rows(conn, "series_point", query("export_points", FILE), {"id": driver_id})


def export_order(conn: psycopg.Connection[Any], order_id: str) -> Iterator[tuple[str, str]]:
    """Yield (table, row as JSON) for all that is stored of an order. Raises UnknownOrder."""
    _begin(conn)
    if not _value(conn, "has_order", {"id": order_id}):
        raise UnknownOrder(f"there is no order {order_id}")
    for table, columns in _tables(conn, ORDER_COLUMNS):
        yield from _matching(conn, table, columns, order_id, HIDDEN_FROM_CUSTOMER)
    yield from _rows(conn, "restaurant", query("export_pickup", FILE), {"id": order_id})


def _begin(conn: psycopg.Connection[Any]) -> None:
    """Read everything from one snapshot, and write nothing."""
    with translated():
        conn.execute(query("allow_long_work", FILE))
        conn.commit()
        conn.execute(query("begin_export", FILE))


def _tables(
    conn: psycopg.Connection[Any], columns: Sequence[str]
) -> list[tuple[str, Sequence[str]]]:
    """Return the tables with one of the columns, from the catalog: a new one is found, too."""
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        parameters = {"columns": list(columns)}
        return cursor.execute(query("tables_with_columns", FILE), parameters).fetchall()


def _matching(
    conn: psycopg.Connection[Any],
    table: str,
    columns: Sequence[str],
    person_id: str,
    hidden: Sequence[str],
) -> Iterator[tuple[str, str]]:
    condition = pgsql.SQL(" OR ").join(
        pgsql.SQL("{} = %(id)s").format(pgsql.Identifier(column)) for column in columns
    )
    statement = pgsql.SQL(query("export_rows", FILE)).format(
        table=pgsql.Identifier(table), condition=condition
    )
    yield from _rows(conn, table, statement, {"id": person_id, "hidden": list(hidden)})


def _rows(
    conn: psycopg.Connection[Any], table: str, statement: Any, parameters: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Stream the rows through a cursor of the server."""
    with translated(), conn.cursor("export", row_factory=tuple_row) as cursor:
        cursor.itersize = ROWS_PER_READ
        cursor.execute(statement, parameters)
        for (row,) in cursor:
            yield table, row


def _value(conn: psycopg.Connection[Any], name: str, parameters: dict[str, Any]) -> Any:
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(query(name, FILE), parameters).fetchone()
        return row[0] if row else None
