"""One order of the simulation, between dispatch and its courier."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum

from simulators.couriers.demand import Door, Restaurant
from simulators.couriers.details import pin_of


class Stage(Enum):
    """A courier's progress with an order at the start of a shift, or after a restart."""

    TO_RESTAURANT = "to_restaurant"
    AT_RESTAURANT = "at_restaurant"
    TO_CUSTOMER = "to_customer"
    ARRIVING = "arriving"
    AT_CUSTOMER = "at_customer"

    @property
    def has_food(self) -> bool:
        """Whether the courier has picked up."""
        return self in (Stage.TO_CUSTOMER, Stage.ARRIVING, Stage.AT_CUSTOMER)


class Ending(Enum):
    """How one courier's work on an order ended."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DECLINED = "declined"
    TAKEN_AWAY = "taken_away"


@dataclass(slots=True)
class Job:
    """An order, and when its food is ready. Times are simulated seconds."""

    restaurant: Restaurant
    door: Door
    ready_s: float
    order_id: str = ""
    customer_token: str = ""
    is_retried: bool = False  # failed; the platform has made another order of it
    ending: asyncio.Future[Ending] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def pin(self) -> str | None:
        """The PIN that the customer gives at the door, if the order has one."""
        return pin_of(self.door.lon_deg, self.door.lat_deg)

    def end(self, ending: Ending) -> None:
        """Set the result of the courier's work."""
        if not self.ending.done():
            self.ending.set_result(ending)
