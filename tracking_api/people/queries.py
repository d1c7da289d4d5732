"""Staff and drivers' credentials in the database, and the audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import class_row

from doorstep.credentials import DeviceSecrets
from doorstep.store.deadline import fetch_one, run_command
from doorstep.store.invitations import invite_driver_async
from doorstep.store.people import (
    Device,
    StaffMember,
    StaffSession,
    audit_parameters,
    device_parameters,
    staff_parameters,
)
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
        restaurant_id: int | None = None,
        token_sha256: bytes | None = None,
        expires_at: datetime | None = None,
    ) -> StaffMember: ...

    async def change_device(
        self,
        kind: str,
        device_id: str,
        change: str,
        who: str,
        secrets: DeviceSecrets | None = None,
    ) -> Device: ...

    async def list_devices(self, kind: str) -> list[Device]: ...

    async def invite_driver(self, driver_id: str, token: str, who: str) -> datetime: ...

    async def open_session(
        self, token_sha256: bytes, session_sha256: bytes, lifetime_s: float
    ) -> StaffSession | None: ...

    async def close_session(self, session_sha256: bytes) -> None: ...

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
        restaurant_id: int | None = None,
        token_sha256: bytes | None = None,
        expires_at: datetime | None = None,
    ) -> StaffMember:
        """Apply a change. Raises UnknownStaff, StaffExists, UnknownRestaurant."""
        parameters = staff_parameters(
            name, change, who, role, restaurant_id, token_sha256, expires_at
        )
        return (await self._rows(StaffMember, "change_staff", parameters))[0]

    async def change_device(
        self,
        kind: str,
        device_id: str,
        change: str,
        who: str,
        secrets: DeviceSecrets | None = None,
    ) -> Device:
        """Apply `revoke` or `remove`, or `add` or `rotate` with new secrets.

        Raises UnknownDriver, DeviceExists.
        """
        parameters = device_parameters(kind, device_id, change, who, secrets)
        return (await self._rows(Device, "change_device", parameters))[0]

    async def list_devices(self, kind: str) -> list[Device]:
        """Read all drivers or sources, removed ones included, in the order of their addition."""
        return await self._rows(Device, "list_devices", {"kind": kind})

    async def invite_driver(self, driver_id: str, token: str, who: str) -> datetime:
        """Make an invitation; return when it expires. Raises UnknownDriver."""
        return await run_command(
            self.pool, lambda conn: invite_driver_async(conn, driver_id, token, who)
        )

    async def open_session(
        self, token_sha256: bytes, session_sha256: bytes, lifetime_s: float
    ) -> StaffSession | None:
        """Open a session of a staff token. None if the token is not good."""
        parameters = {
            "token_sha256": token_sha256,
            "session_sha256": session_sha256,
            "lifetime_s": lifetime_s,
        }
        found = await self._rows(StaffSession, "open_staff_session", parameters)
        return found[0] if found else None

    async def close_session(self, session_sha256: bytes) -> None:
        """End a session."""
        parameters = {"session_sha256": session_sha256}
        await fetch_one(self.pool, query("close_staff_session"), parameters)

    async def record_audit(
        self, who: str, action: str, subject: str | None, detail: Mapping[str, object] | None
    ) -> None:
        """Add an entry to the audit."""
        parameters = audit_parameters(who, action, subject, detail)
        await fetch_one(self.pool, query("record_audit"), parameters)

    async def _rows(
        self, row_type: type[T], name: str, parameters: Mapping[str, object]
    ) -> list[T]:
        async def read(conn: AsyncConnection[Any]) -> list[T]:
            async with conn.cursor(row_factory=class_row(row_type)) as cursor:
                await cursor.execute(query(name), parameters)
                return await cursor.fetchall()

        return await run_command(self.pool, read)
