"""The bodies of staff and credentials."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from doorstep.store.people import Device, StaffMember

NAME_PATTERN = r"^[A-Za-z0-9_.@-]{1,64}$"


class StaffRole(StrEnum):
    """What staff may do. `restaurant` and `integration` have no routes yet."""

    VIEWER = "viewer"
    DISPATCHER = "dispatcher"
    ADMIN = "admin"
    RESTAURANT = "restaurant"
    INTEGRATION = "integration"


class NewStaff(BaseModel):
    """A member of staff to add."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME_PATTERN)
    role: StaffRole
    days: int = Field(default=90, ge=1, le=3650, description="Until the token expires.")


class StaffAnswer(BaseModel):
    """A member of staff."""

    name: str
    role: StaffRole
    created_at: datetime
    rotated_at: datetime | None
    revoked_at: datetime | None
    expires_at: datetime | None

    @classmethod
    def of(cls, member: StaffMember) -> Self:
        """Build the answer of one member."""
        return cls(
            name=member.name,
            role=StaffRole(member.role),
            created_at=member.created_at,
            rotated_at=member.rotated_at,
            revoked_at=member.revoked_at,
            expires_at=member.expires_at,
        )


class CreatedStaff(StaffAnswer):
    """A new or rotated member of staff, with the token. It is shown once."""

    token: str


class StaffList(BaseModel):
    """All staff."""

    staff: list[StaffAnswer]


class CredentialAnswer(BaseModel):
    """A driver's credential. `./run drivers password` and `token` print its secrets."""

    driver_id: str
    state: str
    generation: int

    @classmethod
    def of(cls, device: Device) -> Self:
        """Build the answer of one driver."""
        return cls(driver_id=device.device_id, state=device.state, generation=device.generation)
