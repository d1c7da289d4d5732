"""The bodies of staff and credentials."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from doorstep.administration.fields import NewDeviceId, RestaurantId
from doorstep.store.people import Device, StaffMember

NAME_PATTERN = r"^[A-Za-z0-9_.@-]{1,64}$"
OF_THE_ROLE = "Of the role `restaurant`, and of no other."


class StaffRole(StrEnum):
    """What staff may do. `restaurant` has `/restaurant` alone; `integration` has no routes yet."""

    VIEWER = "viewer"
    DISPATCHER = "dispatcher"
    ADMIN = "admin"
    RESTAURANT = "restaurant"
    INTEGRATION = "integration"


class InvitationAnswer(BaseModel):
    """A driver's link to set a phone up, good once. It is shown once."""

    link: str
    expires_at: datetime
    qr_svg: str = Field(description="The link as a QR code.")


class NewStaff(BaseModel):
    """A member of staff to add."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME_PATTERN)
    role: StaffRole
    restaurant_id: RestaurantId | None = Field(default=None, description=OF_THE_ROLE)
    days: int = Field(default=90, ge=1, le=3650, description="Until the token expires.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.role is StaffRole.RESTAURANT) != (self.restaurant_id is not None):
            raise ValueError("the role restaurant, and only it, has a restaurant_id")
        return self


class StaffAnswer(BaseModel):
    """A member of staff."""

    name: str
    role: StaffRole
    created_at: datetime
    rotated_at: datetime | None
    revoked_at: datetime | None
    expires_at: datetime | None
    restaurant_id: int | None = Field(description="Of the role `restaurant`.")

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
            restaurant_id=member.restaurant_id,
        )


class CreatedStaff(StaffAnswer):
    """A new or rotated member of staff, with the token. It is shown once."""

    token: str


class StaffList(BaseModel):
    """All staff."""

    staff: list[StaffAnswer]


class StaffRotation(BaseModel):
    """A new token for a member of staff, and perhaps another role."""

    model_config = ConfigDict(extra="forbid")

    role: StaffRole | None = None
    restaurant_id: RestaurantId | None = Field(default=None, description=OF_THE_ROLE)
    days: int = Field(default=90, ge=1, le=3650, description="Until the token expires.")


class NewDevice(BaseModel):
    """A driver or source to add. Its id is also its MQTT user name."""

    model_config = ConfigDict(extra="forbid")

    id: NewDeviceId


class CredentialAnswer(BaseModel):
    """A driver's or source's credential."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "anna", "state": "active", "generation": 1}]}
    )

    id: str
    state: Literal["active", "revoked", "removed"]
    generation: int = Field(description="How often it has got new secrets.")

    @classmethod
    def of(cls, device: Device) -> Self:
        """Build the answer of one device."""
        return cls(id=device.device_id, state=device.state, generation=device.generation)


class NewCredential(CredentialAnswer):
    """A credential with its new secrets. They are shown once, and only their hashes are stored."""

    mqtt_password: str = Field(description="For MQTT. The user name is the id.")
    token: str | None = Field(description="A driver's bearer token for driver_api.")


class CredentialList(BaseModel):
    """All drivers or sources, removed ones included, in the order of their addition."""

    credentials: list[CredentialAnswer]


class StaffTokenBody(BaseModel):
    """A staff token to sign in with."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(min_length=1, max_length=200)


class SessionAnswer(BaseModel):
    """Who is signed in."""

    name: str
    role: StaffRole
