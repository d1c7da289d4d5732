"""What admins set, in the database. Four resources with the same operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from psycopg import AsyncConnection
from psycopg.errors import CheckViolation
from psycopg.rows import dict_row, scalar_row
from psycopg.types.json import Jsonb

from doorstep.administration.csv_table import AREAS, DRIVERS, POLICIES, RESTAURANTS, CsvKind, CsvRow
from doorstep.credentials import DeviceSecrets
from doorstep.errors import (
    NotFound,
    UnknownDriver,
    UnknownPolicy,
    UnknownRestaurant,
    UnknownServiceArea,
)
from doorstep.http.problems import UnusableRequest
from doorstep.store.deadline import run_command, run_transaction
from doorstep.store.error_mapping import translated
from doorstep.store.people import device_parameters
from doorstep.store.pool import Pool
from sql import query
from tracking_api.administration.imports import Imported, apply_rows

SQL_FILE = "queries/administration.sql"
ALL_ROWS: Final = 1_000_000
IMPORT_WITHIN_S: Final = 40.0  # 1,000 drivers take about 2 s where nothing else runs

Row = dict[str, Any]
Key = str | int


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of what admins set, with the names of its queries."""

    name: str
    csv: CsvKind
    unknown: type[NotFound]
    list_query: str
    change_query: str
    create_query: str | None = None  # drivers: `add_driver`; policies: see Editor
    retire_query: str | None = None

    @property
    def key(self) -> str:
        """The column of the key."""
        return self.csv.key


DRIVER = Resource("driver", DRIVERS, UnknownDriver, "list_drivers", "change_driver")
RESTAURANT = Resource(
    "restaurant",
    RESTAURANTS,
    UnknownRestaurant,
    "list_restaurants",
    "change_restaurant",
    "create_restaurant",
    "retire_restaurant",
)
AREA = Resource(
    "area", AREAS, UnknownServiceArea, "list_areas", "change_area", "create_area", "retire_area"
)
POLICY = Resource(
    "policy", POLICIES, UnknownPolicy, "list_policies", "change_policy", None, "retire_policy"
)


class AdministrationStore(Protocol):
    """Drivers, restaurants, service areas and policies. Errors are DoorstepErrors."""

    async def list_rows(
        self, resource: Resource, limit: int, after: Key | None = None, *, retired: bool = False
    ) -> list[Row]: ...

    async def read_row(self, resource: Resource, key: Key) -> Row: ...

    async def create_row(self, resource: Resource, values: Row, who: str) -> Key: ...

    async def change_row(self, resource: Resource, key: Key, values: Row, who: str) -> Key: ...

    async def retire_row(self, resource: Resource, key: Key, who: str) -> None: ...

    async def set_default_policy(self, policy_id: int, who: str) -> None: ...

    async def add_driver(
        self, driver_id: str, values: Row, secrets: DeviceSecrets, who: str
    ) -> None: ...

    async def import_rows(
        self, resource: Resource, rows: Sequence[CsvRow], who: str, *, dry_run: bool
    ) -> Imported: ...


@dataclass(frozen=True, slots=True)
class AdministrationQueries:
    """The AdministrationStore on PostgreSQL."""

    pool: Pool

    async def list_rows(
        self, resource: Resource, limit: int, after: Key | None = None, *, retired: bool = False
    ) -> list[Row]:
        """Read a page of rows in the order of their keys; with `retired`, the retired ones too."""
        return await run_command(
            self.pool, lambda conn: Editor(conn).rows(resource, limit, after, retired)
        )

    async def read_row(self, resource: Resource, key: Key) -> Row:
        """Read one row, a retired one too. Raises the resource's NotFound."""
        found = await run_command(
            self.pool, lambda conn: Editor(conn).rows(resource, 1, None, True, [key])
        )
        if not found:
            raise resource.unknown
        return found[0]

    async def create_row(self, resource: Resource, values: Row, who: str) -> Key:
        """Create a row and return its key. Raises NameTaken, UnusableRequest."""
        return await run_transaction(
            self.pool, lambda conn: Editor(conn).create(resource, values, who)
        )

    async def change_row(self, resource: Resource, key: Key, values: Row, who: str) -> Key:
        """Set values and return the key: of a policy, that of the new one in its place.

        Raises the resource's NotFound, Retired, UnusableRequest.
        """
        return await run_transaction(
            self.pool, lambda conn: Editor(conn).change(resource, key, values, who)
        )

    async def retire_row(self, resource: Resource, key: Key, who: str) -> None:
        """Retire. Raises the resource's NotFound, DefaultPolicy."""
        await run_command(
            self.pool, lambda conn: Editor(conn).call(resource.retire_query, key=key, who=who)
        )

    async def set_default_policy(self, policy_id: int, who: str) -> None:
        """Make a policy that of orders that name none. Raises UnknownPolicy, Retired."""
        await run_command(
            self.pool,
            lambda conn: Editor(conn).call("set_default_policy", key=policy_id, who=who),
        )

    async def add_driver(
        self, driver_id: str, values: Row, secrets: DeviceSecrets, who: str
    ) -> None:
        """Add a driver with credentials. Raises DeviceExists, IdForgotten."""
        await run_transaction(
            self.pool, lambda conn: Editor(conn).add_driver(driver_id, values, secrets, who)
        )

    async def import_rows(
        self, resource: Resource, rows: Sequence[CsvRow], who: str, *, dry_run: bool
    ) -> Imported:
        """Create and change what the rows of a CSV say, or nothing. Raises MalformedCsv."""
        return await run_transaction(
            self.pool,
            lambda conn: apply_rows(Editor(conn), resource, rows, who),
            keeps=not dry_run,
            within_s=IMPORT_WITHIN_S,
        )


@dataclass(frozen=True, slots=True)
class Editor:
    """The statements on one connection. Nothing here commits."""

    conn: AsyncConnection[Any]

    async def rows(
        self,
        resource: Resource,
        limit: int = ALL_ROWS,
        after: Key | None = None,
        retired: bool = False,
        keys: Sequence[Key] | None = None,
    ) -> list[Row]:
        """Read rows: those of `keys`, else those after a key."""
        parameters = {
            "limit": limit,
            "after": after,
            "retired": retired,
            "keys": None if keys is None else list(keys),
        }
        with translated():
            async with self.conn.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(query(resource.list_query, SQL_FILE), parameters)
                return await cursor.fetchall()

    async def create(self, resource: Resource, values: Row, who: str) -> Key:
        """Create a row and return its key."""
        if resource is POLICY:
            return int(
                await self._value("create_policy", "queries.sql", values=Jsonb(values), who=who)
            )
        found: Key = await self.call(resource.create_query, values=Jsonb(values), who=who)
        return str(values["name"]) if resource is AREA else found

    async def change(self, resource: Resource, key: Key, values: Row, who: str) -> Key:
        """Set values, and return the key."""
        found = await self.call(resource.change_query, key=key, values=Jsonb(values), who=who)
        return int(found) if resource is POLICY else key

    async def add_driver(
        self, driver_id: str, values: Row, secrets: DeviceSecrets, who: str
    ) -> None:
        """Add a driver, or a removed one again, with these values and secrets."""
        parameters = device_parameters("driver", driver_id, "add", who, secrets)
        await self._value("change_device", "queries.sql", **parameters)
        values = {"name": driver_id, "vehicle": None, "phone": None, **values}
        await self.call(DRIVER.change_query, key=driver_id, values=Jsonb(values), who=who)

    async def call(self, name: str | None, **parameters: Any) -> Any:
        """Run a query that is one function's call, and return its value."""
        if name is None:
            raise TypeError("this resource has no such query")
        return await self._value(name, SQL_FILE, **parameters)

    async def _value(self, name: str, path: str, **parameters: Any) -> Any:
        with _checked(), translated():
            async with self.conn.cursor(row_factory=scalar_row) as cursor:
                await cursor.execute(query(name, path), parameters)
                return await cursor.fetchone()


@contextmanager
def _checked() -> Iterator[None]:
    """Raise UnusableRequest for values that a rule of a table refuses."""
    try:
        yield
    except CheckViolation as exc:
        rule = exc.diag.constraint_name or "a rule of the table"
        complaint = {"loc": "body", "msg": f"violates {rule}", "reason": "out_of_range"}
        raise UnusableRequest([complaint]) from exc
