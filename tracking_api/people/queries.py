"""Staff and drivers' credentials in the database, and the audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from doorstep.store.deadline import run_command
from doorstep.store.people import Device, StaffMember, staff_parameters
from doorstep.store.pool import Pool
from sql import query

T = TypeVar("T")


class PeopleStore(Protocol):
    """Staff, credentials and the audit. Errors are DoorstepErrors."""

    async def list_staff(self) -> list[StaffMember]: ...

    async def change_staff(
        self,
        name: str,
        change: str,
        *,
        who: str,
        role: str | None = None,
        token_sha256: bytes | None = None,
        expires_at: datetime | None = None,
    ) -> StaffMember: ...

    async def change_driver(self, driver_id: str, change: str, who: str) -> Device: ...

    async def record_audit(
        self, who: str, action: str, subject: str | None, detail: Mapping[str, object] | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class PeopleQueries:
    """The PeopleStore on PostgreSQL."""

    pool: Pool

    async def list_staff(self) -> list[StaffMember]:
        """Read all staff by name, revoked ones included."""
        return await self._rows(StaffMember, "list_staff", {})

    async def change_staff(
        self,
        name: str,
        change: str,
        *,
        who: str,
        role: str | None = None,
        token_sha256: bytes | None = None,
        expires_at: datetime | None = None,
    ) -> StaffMember:
        """Apply `add`, `rotate` or `revoke`. Raises UnknownStaff, StaffExists."""
        parameters = staff_parameters(name, change, who, role, token_sha256, expires_at)
        return (await self._rows(StaffMember, "change_staff", parameters))[0]

    async def change_driver(self, driver_id: str, change: str, who: str) -> Device:
        """Apply `rotate`, `revoke` or `remove`. Raises UnknownDriver."""
        parameters = {"kind": "driver", "device_id": driver_id, "change": change, "who": who}
        return (await self._rows(Device, "change_device", parameters))[0]

    async def record_audit(
        self, who: str, action: str, subject: str | None, detail: Mapping[str, object] | None
    ) -> None:
        """Add an entry to the audit."""
        parameters = {
            "who": who,
            "action": action,
            "subject": subject,
            "detail": None if detail is None else Jsonb(detail),
        }

        async def record(conn: AsyncConnection[Any]) -> None:
            await conn.execute(query("record_audit"), parameters)

        await run_command(self.pool, record)

    async def _rows(
        self, row_type: type[T], name: str, parameters: Mapping[str, object]
    ) -> list[T]:
        async def read(conn: AsyncConnection[Any]) -> list[T]:
            async with conn.cursor(row_factory=class_row(row_type)) as cursor:
                await cursor.execute(query(name), parameters)
                return await cursor.fetchall()

        return await run_command(self.pool, read)
