"""Offers of orders to drivers, as the API returns them."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from doorstep.fix import ID_PATTERN
from doorstep.http.instants import Instant
from doorstep.store.records import Offer


class OfferChoice(BaseModel):
    """The driver to offer an order to: a named one, or (absent) the next one."""

    model_config = ConfigDict(extra="forbid")

    driver_id: str | None = Field(default=None, pattern=f"^{ID_PATTERN}$")


class OfferOutcome(StrEnum):
    """How an offer ended."""

    ACCEPTED = "accepted"
    DECLINED = "declined"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class OfferAnswer(BaseModel):
    """An offer; open while `outcome` is null."""

    order_id: UUID
    driver_id: str
    offered_at: Instant
    expires_at: Instant
    ended_at: Instant | None
    outcome: OfferOutcome | None

    @classmethod
    def of(cls, offer: Offer) -> OfferAnswer:
        """Build the answer."""
        return cls.model_validate(offer, from_attributes=True)


class Offers(BaseModel):
    """An order's offers, the oldest first."""

    offers: list[OfferAnswer]


class UnassignedOrder(BaseModel):
    """A confirmed order whose offers have ended, to `offered_count` drivers."""

    order_id: UUID
    since: Instant
    offered_count: int


class UnassignedOrders(BaseModel):
    """Confirmed orders with no driver left to offer them to, the longest waiting first."""

    orders: list[UnassignedOrder]
