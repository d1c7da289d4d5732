"""Credentials of devices and staff, and the audit. Nothing here commits.

The rules are in `sql/schema/54_credentials.sql`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from doorstep.credentials import DeviceSecrets
from doorstep.store.error_mapping import translated
from sql import query

STAFF_ROLES = ("viewer", "dispatcher", "admin", "restaurant", "integration")


@dataclass(frozen=True, slots=True)
class Device:
    """A driver's or source's credential. Its secrets are random unless they are derived."""

    device_id: str
    kind: str
    generation: int
    is_derived: bool
    created_at: datetime
    rotated_at: datetime | None
    revoked_at: datetime | None
    removed_at: datetime | None

    @property
    def state(self) -> str:
        """`active`, `revoked` or `removed`."""
        if self.removed_at is not None:
            return "removed"
        return "active" if self.revoked_at is None else "revoked"


@dataclass(frozen=True, slots=True)
class ChangedDevice:
    """A device that was added or changed, for broker_sync. Without a hash, it is derived."""

    device_id: str
    mqtt_hash: str | None
    is_active: bool
    version: int


@dataclass(frozen=True, slots=True)
class StaffMember:
    """A member of staff. `expires_at` is that of the present token; None if it never expires.

    `restaurant_id` is of the role `restaurant` only.
    """

    name: str
    role: str
    created_at: datetime
    rotated_at: datetime | None
    revoked_at: datetime | None
    expires_at: datetime | None
    restaurant_id: int | None = None


@dataclass(frozen=True, slots=True)
class StaffSession:
    """A page's session of a member of staff."""

    name: str
    role: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what, to whom, and when."""

    at: datetime
    who: str
    action: str
    subject: str | None
    detail: dict[str, Any] | None


def add_devices(
    conn: psycopg.Connection[Any],
    kind: str,
    device_ids: Sequence[str],
    *,
    who: str | None = None,
) -> list[Device]:
    """Add drivers or sources with derived secrets, and return all of them.

    Existing ones, removed ones too, are left alone.
    """
    parameters = {"kind": kind, "device_ids": list(device_ids), "who": who}
    with translated(), conn.cursor(row_factory=class_row(Device)) as cursor:
        return cursor.execute(query("add_devices"), parameters).fetchall()


def change_device(
    conn: psycopg.Connection[Any],
    kind: str,
    device_id: str,
    change: str,
    who: str,
    secrets: DeviceSecrets | None = None,
) -> Device:
    """Apply `revoke` or `remove`, or `rotate` or `add` with new secrets.

    Raises UnknownDriver, DeviceExists.
    """
    parameters = device_parameters(kind, device_id, change, who, secrets)
    with translated(), conn.cursor(row_factory=class_row(Device)) as cursor:
        [device] = cursor.execute(query("change_device"), parameters).fetchall()
        return device


def device_parameters(
    kind: str, device_id: str, change: str, who: str, secrets: DeviceSecrets | None
) -> dict[str, object]:
    """Build the parameters of the query `change_device`."""
    mqtt_hash, digest = (None, None) if secrets is None else secrets.hashes()
    return {
        "kind": kind,
        "device_id": device_id,
        "change": change,
        "who": who,
        "mqtt_hash": mqtt_hash,
        "token_sha256": digest,
    }


def change_driver(
    conn: psycopg.Connection[Any], driver_id: str, values: Mapping[str, object], who: str
) -> None:
    """Set a driver's name, vehicle or phone. Raises UnknownDriver, Retired."""
    parameters = {"key": driver_id, "values": Jsonb(values), "who": who}
    with translated():
        conn.execute(query("change_driver", "queries/administration.sql"), parameters)


def list_devices(conn: psycopg.Connection[Any], kind: str) -> list[Device]:
    """Return all devices of a kind, removed ones included, in the order of their addition."""
    with translated(), conn.cursor(row_factory=class_row(Device)) as cursor:
        return cursor.execute(query("list_devices"), {"kind": kind}).fetchall()


def changed_devices(conn: psycopg.Connection[Any], since: int) -> list[ChangedDevice]:
    """Return the devices changed since a version; -1 for all."""
    with translated(), conn.cursor(row_factory=class_row(ChangedDevice)) as cursor:
        return cursor.execute(query("changed_devices"), {"since": since}).fetchall()


def change_staff(
    conn: psycopg.Connection[Any],
    name: str,
    change: str,
    *,
    who: str,
    role: str | None = None,
    restaurant_id: int | None = None,
    token_sha256: bytes | None = None,
    expires_at: datetime | None = None,
) -> StaffMember:
    """Apply `add`, `rotate` or `revoke`. Raises UnknownStaff, StaffExists, UnknownRestaurant."""
    parameters = staff_parameters(name, change, who, role, restaurant_id, token_sha256, expires_at)
    with translated(), conn.cursor(row_factory=class_row(StaffMember)) as cursor:
        [member] = cursor.execute(query("change_staff"), parameters).fetchall()
        return member


def staff_parameters(
    name: str,
    change: str,
    who: str,
    role: str | None,
    restaurant_id: int | None,
    token_sha256: bytes | None,
    expires_at: datetime | None,
) -> dict[str, object]:
    """Build the parameters of the query `change_staff`."""
    return {
        "name": name,
        "change": change,
        "role": role,
        "restaurant_id": restaurant_id,
        "token_sha256": token_sha256,
        "expires_at": expires_at,
        "who": who,
    }


def list_staff(conn: psycopg.Connection[Any]) -> list[StaffMember]:
    """Return all staff by name, revoked ones included."""
    with translated(), conn.cursor(row_factory=class_row(StaffMember)) as cursor:
        return cursor.execute(query("list_staff")).fetchall()


def record_audit(
    conn: psycopg.Connection[Any], who: str, action: str, subject: str | None, detail: object = None
) -> None:
    """Add an entry to the audit."""
    with translated():
        conn.execute(query("record_audit"), audit_parameters(who, action, subject, detail))


def audit_parameters(
    who: str, action: str, subject: str | None, detail: object
) -> dict[str, object]:
    """Build the parameters of the query `record_audit`."""
    return {
        "who": who,
        "action": action,
        "subject": subject,
        "detail": None if detail is None else Jsonb(detail),
    }


def read_audit(
    conn: psycopg.Connection[Any], who: str | None = None, since: datetime | None = None
) -> list[AuditEntry]:
    """Read the audit, the oldest entry first."""
    with translated(), conn.cursor(row_factory=class_row(AuditEntry)) as cursor:
        return cursor.execute(query("read_audit"), {"who": who, "since": since}).fetchall()
